"""Arrays as models take them: one, or several by name or in order; in memory or in a file. No framework.

Several arrays are a dict or a tuple of them. What is in a file stays there: `Rows` reads the examples that are asked for.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_BLOCK = 2**26  # bytes read at once from what may be larger than memory


class Rows:
    """Rows of an array that is mapped from a file, in an order of their own; read when they are asked for.

    Sent to another process, it takes the place in the file with it, not the contents.
    """

    def __init__(self, array: np.ndarray, order: np.ndarray):
        self._array = array
        self._order = order
        self.dtype = array.dtype
        self.shape = (len(order), *array.shape[1:])
        self.ndim = array.ndim
        self.nbytes = int(np.prod(self.shape, dtype="int64")) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> "Rows | np.ndarray":
        """Other `Rows` for a slice, the contents for an array of indices."""
        if isinstance(index, slice):
            return self.at(index)
        return np.asarray(self._array[self._order[index]])

    def at(self, index: Any) -> "Rows":
        """The rows at `index`, still in the file."""
        return Rows(self._array, self._order[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[self._order], dtype)

    def __getstate__(self) -> tuple:
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
    """`Rows` of an array that is mapped from a file; other arrays as they are."""
    return Rows(array, np.arange(len(array))) if isinstance(array, np.memmap) else array


def each(act: Callable[[Any], Any], arrays: Any) -> Any:
    """`act` of every array, in the same structure; lists become tuples."""
    if isinstance(arrays, dict):
        return {name: each(act, value) for name, value in arrays.items()}
    if isinstance(arrays, (tuple, list)):
        return tuple(each(act, value) for value in arrays)
    return act(arrays)


def leaves(arrays: Any) -> list[Any]:
    """Every array, in the order of the structure."""
    if isinstance(arrays, dict):
        arrays = tuple(arrays.values())
    return [leaf for value in arrays for leaf in leaves(value)] if isinstance(arrays, (tuple, list)) else [arrays]


def named(arrays: Any) -> list[tuple[str, Any]]:
    """Every array with its name; where it has none its number, or "" for a single one."""
    if isinstance(arrays, dict):
        return [(f"{name}/{rest}" if rest else str(name), leaf) for name, value in arrays.items() for rest, leaf in named(value)]
    if isinstance(arrays, (tuple, list)):
        return named({str(number): value for number, value in enumerate(arrays)})
    return [("", arrays)]


def count(arrays: Any) -> int:
    """The number of examples."""
    return len(leaves(arrays)[0])


def take(arrays: Any, index: Any) -> Any:
    """The examples at `index`, a slice or an array of indices, in memory where that is an array."""
    return each(lambda array: array[index], arrays)


def rearrange(arrays: Any, index: Any) -> Any:
    """The examples at `index`; those in a file stay there."""
    return each(lambda array: array.at(index) if isinstance(array, Rows) else array[index], arrays)


def size(arrays: Any) -> int:
    """Bytes of all arrays together."""
    return sum(array.nbytes for array in leaves(arrays))


def classes(y: np.ndarray) -> np.ndarray:
    """The class of each example: the place of the largest of several numbers, or the only one rounded."""
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    return np.round(y).astype("int32")


def is_one_hot(y: np.ndarray) -> bool:
    """Return whether each example of `y` is a row of zeros with a single one in it."""
    one = (((p == 0) | (p == 1)).all() and (p.sum(axis=1) == 1).all() for p in blocks(y))
    return y.ndim == 2 and y.shape[1] > 1 and all(one)


def blocks(array: Any) -> Iterator[np.ndarray]:
    """The array in pieces of whole rows that fit in memory, in order."""
    step = max(1, _BLOCK // max(1, array.nbytes // max(1, len(array))))
    if isinstance(array, Rows):
        for start in range(0, len(array), step):
            yield np.asarray(array.at(slice(start, start + step)))
    else:
        yield from (array[start : start + step] for start in range(0, len(array), step))


def as_seen(x: np.ndarray, divide_by: float) -> np.ndarray:
    """The inputs as the model sees them."""
    return x if divide_by == 1 else x.astype("float32") / np.float32(divide_by)
