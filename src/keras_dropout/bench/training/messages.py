"""Messages about runs in training, from the trainer to its caller, on this machine or another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_dropout.bench.records import Result


@dataclass(frozen=True)
class Epoch:
    """A run has finished `epoch` epochs; `logs` has the metrics of the last one."""

    key: str
    epoch: int
    logs: dict[str, float]


@dataclass(frozen=True)
class Checkpointed:
    """The checkpoint of a run after `epoch` epochs, as bytes."""

    key: str
    epoch: int
    state: bytes


@dataclass(frozen=True)
class Paused(Checkpointed):
    """A run has stopped for now, as asked; its checkpoint is attached."""


@dataclass(frozen=True)
class Anew:
    """A run starts over because its checkpoint cannot be used; `why` gives the reason."""

    key: str
    why: str


@dataclass(frozen=True)
class Ended:
    """A run has ended. The worker adds the package versions and the machine of its training."""

    key: str
    result: Result
    facts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Timed:
    """Seconds of a training step in each engine, or the error of an engine that failed."""

    key: str
    steps: Mapping[str, float | str]


@dataclass(frozen=True)
class Died:
    """A worker has died: the reason, and what it printed."""

    why: str
    printed: str = ""


Told = Epoch | Checkpointed | Anew | Ended | Timed
