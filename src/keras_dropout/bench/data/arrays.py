"""Arrays for models: one array, or several by name or in order, in memory or in a file. Uses no framework.

Several arrays are a dict or a tuple of arrays. Arrays in a file stay there: `Rows` reads only the requested examples.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

DECODED = 2**24  # bytes of rows that are decoded on access to have in memory at once
_BLOCK = 2**26  # bytes read at once from an array that may be larger than memory


class Rows:
    """Rows of an array mapped from a file, or of image files (`folders.Images`), in any order; they are read on access.

    When pickled for another process, it sends the location in the file, not the contents.
    """

    def __init__(self, array: Any, order: np.ndarray):
        self._array = array
        self._order = order
        self.dtype = array.dtype
        self.shape = (len(order), *array.shape[1:])
        self.ndim = array.ndim
        self.nbytes = int(np.prod(self.shape, dtype="int64")) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> "Rows | np.ndarray":
        """Return other `Rows` for a slice, and the contents for an array of indices."""
        if isinstance(index, slice):
            return self.at(index)
        return np.asarray(self._array[self._order[index]])

    def at(self, index: Any) -> "Rows":
        """Return the rows at `index`, still in the file."""
        return Rows(self._array, self._order[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[self._order], dtype)

    @property
    def decoded(self) -> bool:
        """Say whether reading a row takes memory of this process for as long as it is used, and no longer."""
        return not isinstance(self._array, np.ndarray)

    def __getstate__(self) -> tuple:
        if self.decoded:
            return self._array, self._order
        root: Any = self._array
        while isinstance(root.base, np.memmap):
            root = root.base
        name = getattr(root, "filename", None)
        if name is None:
            return np.asarray(self._array), self._order
        first, start = (array.__array_interface__["data"][0] for array in (self._array, root))
        place = (str(name), root.offset + first - start, self._array.shape, self._array.dtype, self._array.strides)
        return place, self._order

    def __setstate__(self, state: tuple) -> None:
        place, order = state
        if isinstance(place, tuple):
            path, offset, shape, dtype, strides = place
            place = np.ndarray(shape, dtype, np.memmap(path, np.uint8, "r"), offset, strides)
        Rows.__init__(self, place, order)


def mapped(array: Any) -> Any:
    """Return `Rows` for an array mapped from a file, and other arrays unchanged."""
    return Rows(array, np.arange(len(array))) if isinstance(array, np.memmap) else array


def each(act: Callable[[Any], Any], arrays: Any) -> Any:
    """Apply `act` to every array and keep the structure; lists become tuples."""
    if isinstance(arrays, dict):
        return {name: each(act, value) for name, value in arrays.items()}
    if isinstance(arrays, (tuple, list)):
        return tuple(each(act, value) for value in arrays)
    return act(arrays)


def leaves(arrays: Any) -> list[Any]:
    """Return every array, in the order of the structure."""
    return [leaf for _, leaf in named(arrays)]


def named(arrays: Any) -> list[tuple[str, Any]]:
    """Return every array with its name; its number if it has no name, or "" for a single array."""
    if isinstance(arrays, dict):
        return [(f"{name}/{rest}" if rest else str(name), leaf) for name, value in arrays.items() for rest, leaf in named(value)]
    if isinstance(arrays, (tuple, list)):
        return named({str(number): value for number, value in enumerate(arrays)})
    return [("", arrays)]


def count(arrays: Any) -> int:
    """Return the number of examples."""
    return len(leaves(arrays)[0])


def take(arrays: Any, index: Any) -> Any:
    """Return the examples at `index`, a slice or an array of indices; an array of indices reads them into memory."""
    return each(lambda array: array[index], arrays)


def rearrange(arrays: Any, index: Any) -> Any:
    """Return the examples at `index`; examples in a file stay there."""
    return each(lambda array: array.at(index) if isinstance(array, Rows) else array[index], arrays)


def size(arrays: Any) -> int:
    """Return the total size of all arrays in bytes."""
    return sum(array.nbytes for array in leaves(arrays))


def rows_at_once(arrays: Any, most: int) -> int:
    """Return the examples to have in memory at once: `most`, or fewer of those that are decoded on access, by their size."""
    return most if fits(arrays, 2**63) else max(1, min(most, DECODED * count(arrays) // size(arrays)))


def fits(arrays: Any, most: int) -> bool:
    """Return whether all arrays together may be in memory: not more than `most` bytes, and none that is decoded on access."""
    return size(arrays) <= most and not any(isinstance(array, Rows) and array.decoded for array in leaves(arrays))


def classes(y: np.ndarray) -> np.ndarray:
    """Return the class of each example: the index of the largest of several numbers, or a single number rounded."""
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    return np.round(y).astype("int32")


def is_one_hot(y: np.ndarray) -> bool:
    """Return whether each example of `y` is a row of zeros with a single 1."""
    one = (((p == 0) | (p == 1)).all() and (p.sum(axis=1) == 1).all() for p in blocks(y))
    return y.ndim == 2 and y.shape[1] > 1 and all(one)


def blocks(array: Any) -> Iterator[np.ndarray]:
    """Yield the array in order, in pieces of whole rows that fit in memory."""
    step = max(1, _BLOCK // max(1, array.nbytes // max(1, len(array))))
    yield from (np.asarray(array[start : start + step]) for start in range(0, len(array), step))


def as_seen(arrays: Any, divide_by: float) -> Any:
    """Return the inputs as the model sees them, in memory."""
    if divide_by == 1:
        return each(np.asarray, arrays)
    return each(lambda x: np.asarray(x, "float32") / np.float32(divide_by), arrays)
