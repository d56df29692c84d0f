"""Data that come in batches (tf.data.Dataset, torch's DataLoader, Keras's PyDataset), read once into arrays.

They are known by what they can do: neither TensorFlow nor torch is imported here.
"""

from typing import Any

import numpy as np

from keras_dropout.bench.data.arrays import each, leaves
from keras_dropout.errors import refuse

_FORM = "It must give (x, y) or (x, y, weights), as for Keras's fit."


def is_stream(data: Any) -> bool:
    """Whether `data` is one of the three."""
    return _is_tf(data) or _is_torch(data) or _is_keras(data)


def read(data: Any, rank: int | None = None) -> tuple:
    """(x, y) or (x, y, weights) with all examples of a stream, in the order in which it gives them this once.

    `rank` is the number of axes of a batch of x, where it is known: it tells batches from single examples where a
    tf.data.Dataset of fixed shapes leaves that open.
    """
    kind = type(data).__name__
    if _is_tf(data):
        if int(data.cardinality()) == -1:
            refuse(f"the {kind} never ends.", "Take a number of batches: dataset.take(n); leave repeat() out.")
        pieces, batched = data.as_numpy_iterator(), _is_batched(data.element_spec, rank)
    elif _is_torch(data):
        pieces, batched = iter(data), data.batch_sampler is not None
    else:
        batches = data.num_batches
        if batches is None:
            refuse(f"the {kind} never ends.", "Give it a length: num_batches, or __len__.")
        pieces, batched = (data[number] for number in range(batches)), True
    found = [_piece(piece, kind) for piece in pieces]
    if not found:
        refuse(f"the {kind} holds no example.", _FORM)
    if any(len(piece) != len(found[0]) for piece in found):
        refuse(f"the {kind} gives weights with some examples only.", _FORM)
    try:
        return _join(found, np.concatenate if batched else np.stack)
    except (ValueError, KeyError, TypeError) as error:
        refuse(f"the batches of the {kind} do not go together: {str(error).splitlines()[0]}", "Give examples of one shape.")


def _is_tf(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("as_numpy_iterator", "element_spec", "cardinality"))


def _is_torch(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("dataset", "batch_sampler", "collate_fn"))


def _is_keras(data: Any) -> bool:
    return all(hasattr(type(data), name) for name in ("num_batches", "on_epoch_end", "__getitem__"))


def _is_batched(spec: Any, rank: int | None) -> bool:
    shapes = [tuple(leaf.shape) for leaf in leaves(each(lambda leaf: leaf, spec))]
    if any(not shape for shape in shapes):
        return False
    firsts = {shape[0] for shape in shapes}
    if len(firsts) > 1 or firsts == {None}:
        return len(firsts) == 1
    return rank is None or len(shapes[0]) == rank


def _piece(piece: Any, kind: str) -> tuple:
    if not isinstance(piece, (tuple, list)) or len(piece) not in (2, 3):
        refuse(f"the {kind} gives {type(piece).__name__} where (x, y) is expected.", _FORM)
    return each(_array, tuple(piece))


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _join(pieces: list[Any], join: Any) -> Any:
    first = pieces[0]
    if isinstance(first, dict):
        return {name: _join([piece[name] for piece in pieces], join) for name in first}
    if isinstance(first, tuple):
        return tuple(_join([piece[number] for piece in pieces], join) for number in range(len(first)))
    return join(pieces)
