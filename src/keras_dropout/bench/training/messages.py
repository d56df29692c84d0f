"""What is told of runs while they are trained, from the trainer to whoever started it, on this machine or another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_dropout.bench.records import Result


@dataclass(frozen=True)
class Epoch:
    """So many epochs of a run are done; `logs` has the metrics of the last one."""

    key: str
    epoch: int
    logs: dict[str, float]


@dataclass(frozen=True)
class Checkpointed:
    """The bytes with which a run goes on after so many epochs."""

    key: str
    epoch: int
    state: bytes


@dataclass(frozen=True)
class Paused(Checkpointed):
    """A run was to be trained no further for now."""


@dataclass(frozen=True)
class Anew:
    """A run begins anew, since its checkpoint cannot be used, and why."""

    key: str
    why: str


@dataclass(frozen=True)
class Ended:
    """A run is over. A worker adds the versions and the machine that it was trained with."""

    key: str
    result: Result
    facts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Timed:
    """Seconds of a training step by engine, or what went wrong in one."""

    key: str
    steps: Mapping[str, float | str]


@dataclass(frozen=True)
class Died:
    """A worker is no more: why, and what it printed."""

    why: str
    printed: str = ""


Told = Epoch | Checkpointed | Anew | Ended | Timed
