"""The state of a run between two epochs, as bytes. A run resumed from it ends as if it had never stopped."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401 - makes NumPy know bfloat16 and float8 by name
import numpy as np


class Best(NamedTuple):
    """The epoch with the smallest validation loss so far, and the values of model and optimizer after it."""

    loss: float = math.inf
    epoch: int | None = None
    values: Sequence[Any] = ()


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `epoch` epochs: curves, seconds spent, and the values of model and optimizer in their order."""

    epoch: int
    curves: dict[str, list[float]]
    seconds: float
    values: Sequence[np.ndarray] = field(repr=False)
    best: Best = field(default_factory=Best, repr=False)

    def to_bytes(self) -> bytes:
        """Return the length of a header, the header in JSON (which keeps every bit of a float), and the arrays in sequence."""
        arrays = [np.asarray(value) for value in (*self.values, *self.best.values)]
        header = {
            "epoch": self.epoch,
            "curves": self.curves,
            "seconds": self.seconds,
            "arrays": [[array.dtype.name, array.shape] for array in arrays],
            "of_best": len(self.best.values),
            "best": None if self.best.epoch is None else [self.best.loss, self.best.epoch],
        }
        text = json.dumps(header).encode()
        return b"".join([len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays)])

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        """Read the bytes of `to_bytes`; the arrays are views of `content`. Raises ValueError for anything else."""
        try:
            return cls._read(content)
        except Exception as error:  # malicious bytes may raise anything, such as RecursionError or MemoryError
            raise ValueError(f"it cannot be read: {error}") from error

    @classmethod
    def _read(cls, content: bytes) -> "Checkpoint":
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        arrays = []
        for name, shape in header["arrays"]:
            kind, count = np.dtype(str(name)), math.prod(shape)
            if not all(isinstance(size, int) and size >= 0 for size in shape):
                raise ValueError(f"an array of shape {shape}")
            arrays.append(np.frombuffer(content, kind, count, start).reshape(shape))
            start += kind.itemsize * count
        if start != len(content):
            raise ValueError("its length is not what its header says")
        own = len(arrays) - header["of_best"]
        best = Best()
        if header["best"]:
            loss, epoch = header["best"]
            best = Best(loss, epoch, arrays[own:])
        found = cls(header["epoch"], header["curves"], header["seconds"], arrays[:own], best)
        numbers = [found.seconds, best.loss, *(value for curve in found.curves.values() for value in curve)]
        epochs = [found.epoch, found.epoch if best.epoch is None else best.epoch]
        if not all(isinstance(number, float) for number in numbers) or not all(isinstance(epoch, int) for epoch in epochs):
            raise ValueError("its header has something else than numbers")
        return found
