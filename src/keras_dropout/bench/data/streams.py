"""Read streams of batches (tf.data.Dataset, torch's DataLoader, Keras's PyDataset) into arrays.

Streams are recognised by their attributes, so this module imports neither TensorFlow nor torch. A second pass must give the same
examples, in any order. Otherwise the arrays would freeze random draws that change in every epoch, such as an augmentation.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_dropout.bench.data.arrays import each, leaves, named
from keras_dropout.errors import first_line, refuse

_FORM = "It must give (x, y) or (x, y, weights), as for Keras's fit."
_SAME = (
    "Have a function return (train, validation, test), and give that: data=function, or --data file.py:function. Each run then "
    "asks for the streams itself, and each epoch iterates them anew."
)


def is_stream(data: Any) -> bool:
    """Return whether `data` is one of these three kinds of streams."""
    return _is_tf(data) or _is_torch(data) or _is_keras(data)


def kind_of(data: Any) -> str | None:
    """Return "tf", "torch" or "keras" for one of these three kinds of streams, and None for anything else."""
    return "tf" if _is_tf(data) else "torch" if _is_torch(data) else "keras" if _is_keras(data) else None


def check_repeatable(data: Any) -> None:
    """Refuse a generator or another iterator: it gives its examples only once, so a second pass cannot be checked."""
    if hasattr(data, "__next__") and not is_stream(data):
        refuse(
            f"a {type(data).__name__} gives its examples only once.",
            "Give arrays, or a tf.data.Dataset, DataLoader or PyDataset of batches (x, y), which can be read again; or a function "
            "that returns (train, validation, test).",
        )


def read(data: Any, rank: int | None = None) -> tuple:
    """Return (x, y) or (x, y, weights) with all examples of a stream, in the order of the first of two passes.

    Refuse a stream whose second pass gives different examples; their order may differ. `rank` is the number of axes of a batch of
    x, if known. A tf.data.Dataset with fixed shapes does not show whether it is batched; `rank` decides that.
    """
    kind = type(data).__name__
    batched = _is_batched(data.element_spec, rank) if _is_tf(data) else not _is_torch(data) or data.batch_sampler is not None
    found = list(_pieces(data))
    if not found:
        refuse(f"the {kind} holds no example.", _FORM)
    if any(len(piece) != len(found[0]) for piece in found):
        refuse(f"the {kind} gives weights with some examples only.", _FORM)
    first, second = _examples(found, batched), _examples(_pieces(data), batched)
    if first != second:
        what = "other examples in each pass"
        if first[0] != second[0]:
            what = f"{first[0]:,} examples in a pass and {second[0]:,} in the next"
        refuse(f"the {kind} gives {what}; every variant and seed needs the same.", _SAME)
    try:
        return _join(found, np.concatenate if batched else np.stack)
    except (ValueError, KeyError, TypeError) as error:
        refuse(f"the batches of the {kind} do not go together: {first_line(error)}", "Give examples of one shape.")


def _pieces(data: Any) -> Iterator[tuple]:
    """Yield the elements of one pass over a stream, as tuples of arrays."""
    kind = type(data).__name__
    pieces: Iterable[Any] = data
    if _is_tf(data):
        if int(data.cardinality()) == -1:
            refuse(f"the {kind} never ends.", "Take a number of batches: dataset.take(n); leave repeat() out.")
        pieces = data.as_numpy_iterator()
    elif _is_keras(data):
        batches = data.num_batches
        if batches is None:
            refuse(f"the {kind} never ends.", "Give it a length: num_batches, or __len__.")
        pieces = (data[number] for number in range(batches))
    for piece in pieces:
        yield _piece(piece, kind)
    if _is_keras(data):
        data.on_epoch_end()  # as in fit: the data set may shuffle, or draw an augmentation


def _examples(pieces: Iterable[tuple], batched: bool) -> tuple[int, int]:
    """Return the number of examples and the sum of their hashes: two passes that agree in both differ only in order."""
    number, total = 0, 0
    for piece in pieces:
        arrays = [(name, np.atleast_1d(array) if batched else array[None]) for name, array in named(piece)]
        count = min(len(array) for _, array in arrays)
        for row in range(count):
            digest = hashlib.blake2b(digest_size=16)
            for name, array in arrays:
                one = array[row]
                digest.update(f"{name}{array.dtype.str}{array.shape[1:]}".encode())
                digest.update(repr(one).encode() if array.dtype.hasobject else one.tobytes())
            total += int.from_bytes(digest.digest())
        number += count
    return number, total % 2**128


def _is_tf(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("as_numpy_iterator", "element_spec", "cardinality"))


def _is_torch(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("dataset", "batch_sampler", "collate_fn"))


def _is_keras(data: Any) -> bool:
    return all(hasattr(type(data), name) for name in ("num_batches", "on_epoch_end", "__getitem__"))


def _is_batched(spec: Any, rank: int | None) -> bool:
    shapes = [tuple(leaf.shape) for leaf in leaves(spec)]
    if any(not shape for shape in shapes):
        return False
    firsts = {shape[0] for shape in shapes}
    if len(firsts) > 1 or firsts == {None}:
        return len(firsts) == 1
    return rank is None or len(shapes[0]) == rank


def _piece(piece: Any, kind: str) -> tuple:
    if not isinstance(piece, (tuple, list)) or len(piece) not in (2, 3):
        refuse(f"the {kind} gives {type(piece).__name__} where (x, y) is expected.", _FORM)
    return each(as_array, tuple(piece))


def as_array(value: Any) -> np.ndarray:
    """Return the contents of an array or a tensor of any framework."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _join(pieces: list[Any], join: Any) -> Any:
    first = pieces[0]
    if isinstance(first, dict):
        return {name: _join([piece[name] for piece in pieces], join) for name in first}
    if isinstance(first, tuple):
        return tuple(_join([piece[number] for piece in pieces], join) for number in range(len(first)))
    return join(pieces)
