"""Data sets: load, check, split and fingerprint them. Images stay uint8 until they are on the device."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from keras_dropout.bench.data import splits
from keras_dropout.bench.data.arrays import blocks, count, each, is_one_hot, leaves, mapped, named, rearrange, take
from keras_dropout.bench.data.streams import as_array, check_repeatable, is_stream, read
from keras_dropout.bench.records import DataFacts
from keras_dropout.bench.settings import SPLITS
from keras_dropout.errors import check_choice, check_share, check_whole, refuse


class Part(NamedTuple):
    """Examples: inputs, answers and optional weights.

    `x` and `y` are arrays whose first axis is the examples, or dicts or tuples of such arrays for a model with several inputs or
    outputs. `weights` is one array, or has the same structure as `y`.
    """

    x: Any
    y: Any
    weights: Any = None

    def take(self, index: Any) -> "Part":
        """Return the examples at `index`, in memory if it is an array of indices."""
        return Part(*(arrays if arrays is None else take(arrays, index) for arrays in self))


@dataclass(frozen=True)
class Data:
    """Training and test examples. The model sees x / divide_by in float32; if divide_by is 1, it sees x unchanged.

    The first `validation` training examples are the validation data. Inputs mapped from a file (`np.memmap`) stay in the file.
    `classes` holds the names of classes 0, 1, …, and `columns` the names of a table's columns, if they have names. `division`
    describes how examples from an undivided source were divided.
    """

    name: str
    train: Part = field(repr=False)
    test: Part = field(repr=False)
    validation: int
    divide_by: float = 1.0
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    division: str = ""

    whole: ClassVar[bool] = True  # whether `train` and `test` hold all examples

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            part = Part(*getattr(self, name))
            object.__setattr__(self, name, part._replace(x=each(mapped, part.x)))

    def parts(self, split: str) -> dict[str, Part]:
        """Return the examples of "train", "validation" and "test".

        With the split "held-out", the validation examples are left out of training. With "as-published" they stay in it: a leak,
        kept to reproduce published experiments that have it.
        """
        check_choice("split", split, SPLITS)
        start = self.validation if split == "held-out" else 0
        train, validation = (_rows(self.train, rows) for rows in (slice(start, None), slice(self.validation)))
        return {"train": train, "validation": validation, "test": self.test}

    def sent(self, split: str) -> Any:
        """Return what a worker gets as its data: the parts."""
        return self.parts(split)

    def first(self, train: int | None = None, test: int | None = None) -> "Data":
        """Keep the first `train` training examples, a tenth for validation, and the first `test` test examples; None keeps all."""
        found = {"train": (self.train, train), "test": (self.test, test)}
        parts = {
            role: part if number is None else _rows(part, slice(check_number(role, number, count(part.y))))
            for role, (part, number) in found.items()
        }
        validation = self.validation if train is None else tenth(train)
        return replace(self, train=parts["train"], test=parts["test"], validation=validation)

    def facts(self, split: str) -> DataFacts:
        """Return the name, fingerprint and sizes."""
        sizes = {name: count(part.y) for name, part in self.parts(split).items()}
        return DataFacts(self.name, self.fingerprint(), **sizes)

    def fingerprint(self) -> str:
        """Return a hash of the contents, types, shapes and names of all arrays, and of `divide_by`."""
        digest = hashlib.sha256(repr(float(self.divide_by)).encode())
        for part in (self.train, self.test):
            for role, arrays in part._asdict().items():
                if role == "weights" and arrays is not None:
                    digest.update(b"weights")
                for name, array in named(arrays) if arrays is not None else ():
                    digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
                    for block in blocks(array):
                        digest.update(block.tobytes())
        return digest.hexdigest()[:32]


def check_number(role: str, number: int, there: int) -> int:
    """Return `number`, or refuse it if a "train" or "test" part with `there` examples cannot have that many."""
    check_whole(role, number, 2 if role == "train" else 1, f"It is a number of examples; there are {there:,}.")
    if number > there:
        refuse(f"{role} must be at most {there:,}, the examples that there are; got {number:,}.", "Leave it out to take all.")
    return int(number)


def tenth(train: int) -> int:
    """Return the number of validation examples of a ready data set without a published validation part: a tenth of training."""
    return max(1, round(train / 10))


def _rows(part: Part, index: Any) -> Part:
    return Part(*(arrays if arrays is None else rearrange(arrays, index) for arrays in part))


_FORM = "Pass ((x_train, y_train), (x_test, y_test)), as keras.datasets gives them, or (x, y), of which a part is divided off."


def is_part(data: Any, arity: tuple[int, int] | None = None) -> bool:
    """Return whether `data` is one part: (x, y), (x, y, weights) or a stream of batches, not a pair of parts.

    A tuple of tuples of arrays is one part if the model has several inputs and outputs and `arity`, their numbers, matches.
    """
    if is_stream(data):
        return True
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        return False
    if not all(is_stream(each) or (isinstance(each, tuple | list) and len(each) in (2, 3)) for each in data):
        return True
    if arity is None or 1 in arity or any(map(is_stream, data)):
        return False
    return (len(data[0]), len(data[1])) == arity and not any(isinstance(one, tuple | list | dict) for one in (*data[0], *data[1]))


def from_arrays(
    data: Any,
    validation_split: float = 0.1,
    name: str = "arrays",
    rank: int | None = None,
    test_split: float = 0.2,
    arity: tuple[int, int] | None = None,
    validation_data: Any = None,
) -> Data:
    """Return data from ((x_train, y_train), (x_test, y_test)), or from (x, y), of which a share `test_split` is the test part.

    Each pair may have sample weights as a third member. x and y may be dicts or tuples of arrays, for several inputs and outputs.
    An x that is a `np.memmap` (from `np.load(path, mmap_mode="r")`) stays in its file. A tf.data.Dataset, torch DataLoader or Keras
    PyDataset, batched or not, may replace a pair. It is read into arrays, so that every variant and seed sees the same examples. A
    shuffling stream gives another order, and so other data, each time the program runs. A stream whose passes give different
    examples is refused. `rank` is the number of axes of a batch of inputs; `arity` gives the numbers of the model's inputs and
    outputs.

    A share `validation_split` of the training examples, drawn at random with a fixed seed, is held out as validation data; with
    `validation_data`, a pair like that for training, these are the validation data, and none is held out.
    """
    check_repeatable(data)
    if validation_data is not None:
        return _with_validation(data, validation_data, name, rank, test_split, arity)
    check_share("validation_split", validation_split)
    if is_part(data, arity):
        return whole_arrays(data, validation_split, name, rank, test_split)(0)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        refuse(f"data must be a pair for training and one for testing, or (x, y); got {_described(data)}.", _FORM)
    train, test = (_part(part, role, rank) for part, role in zip(data, ("training ", "test ")))
    number = count(train.y)
    held_out = max(1, round(number * validation_split))
    if held_out == number:
        refuse("no training example is left beside the validation data.", "Pass more data or a smaller validation_split.")
    order = np.random.default_rng(0).permutation(number)
    return Data(name, _rows(train._replace(x=each(mapped, train.x)), order), test, held_out)


def _with_validation(data: Any, validation: Any, name: str, rank: int | None, test_split: float, arity: Any) -> Data:
    """Return data with these validation data; the test part is given, or divided off."""
    if is_part(data, arity):
        whole = _part(data, "", rank)
        found = _divided(name, whole, check_share("test_split", test_split), 0.0, 0)
        train, test = found.train, found.test
    elif isinstance(data, tuple | list) and len(data) == 2:
        train, test = (_part(part, role, rank) for part, role in zip(data, ("training ", "test ")))
    else:
        refuse(f"data must be a pair for training and one for testing, or (x, y); got {_described(data)}.", _FORM)
    held = _part(validation, "validation ", rank)
    trees = [[None if a is None else each(lambda b: (b.shape[1:], b.dtype.kind), a) for a in part] for part in (train, held)]
    if trees[0] != trees[1]:
        refuse(
            f"the validation data have the form {trees[1]}; the training data have {trees[0]}.",
            "Give both in the same form: shapes, kinds of numbers, names, and weights in both or in neither.",
        )
    if any(isinstance(array, np.memmap) for part in (train, held) for array in leaves(part.x)):
        refuse(
            "validation_data are put in front of the training data, which stay in a file.",
            "Put both into one file, and name its share: validation_split.",
        )
    joined = (None if a is None else _joined(b, a) for a, b in zip(train, held))
    division = (
        f"{count(train.y):,} training, {count(held.y):,} validation and {count(test.y):,} test examples: validation data as given"
    )
    return Data(name, Part(*joined), test, count(held.y), division=division)


def _joined(first: Any, second: Any) -> Any:
    """Return the examples of `first` and then those of `second`."""
    if isinstance(first, dict):
        return {name: _joined(first[name], second[name]) for name in first}
    if isinstance(first, tuple):
        return tuple(map(_joined, first, second))
    return np.concatenate([first, second])


def whole_arrays(
    data: Any, validation_split: float = 0.1, name: str = "arrays", rank: int | None = None, test_split: float = 0.2
) -> Callable[[int], Data]:
    """Return a function that divides undivided examples (x, y) by a seed; see `from_arrays`."""
    check_repeatable(data)
    check_share("validation_split", validation_split)
    whole = _part(data, "", rank)
    whole = whole._replace(x=each(mapped, whole.x))
    return functools.partial(_divided, name, whole, check_share("test_split", test_split), validation_split)


def _divided(name: str, whole: Part, test: float, validation: float, seed: int) -> Data:
    """Return data from undivided examples, divided in the same way as a file with x and y."""
    y, labels = whole.y, None
    if isinstance(y, np.ndarray) and y.dtype.kind in "biu" and y[:1].size == 1:
        labels = y.ravel() if 2 * len(np.unique(y)) <= len(y) else None  # otherwise they are quantities
    elif isinstance(y, np.ndarray) and is_one_hot(y):
        labels = y.argmax(axis=1)
    found = splits.divide(count(y), test=test, validation=validation, seed=seed, classes=labels)
    how = f"by class, at random, seed {seed}" if labels is not None else f"at random, seed {seed}"
    return Data(
        name,
        _rows(whole, np.concatenate([found.validation, found.train])),
        _rows(whole, found.test),
        len(found.validation),
        division=f"{len(found.train):,} training, {len(found.validation):,} validation and {len(found.test):,} test examples: "
        f"divided off {how}",
    )


def _described(data: Any) -> str:
    return f"a {type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__


def _part(data: Any, role: str, rank: int | None) -> Part:
    if is_stream(data):
        data = read(data, rank)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        refuse(f"the {role}data must be (x, y) or (x, y, weights); got {_described(data)}.", _FORM)
    x, y, *weights = data
    if y is None:
        refuse(f"the {role}data have no targets.", _FORM)
    x, y = _several(x, y), _several(y, x)
    part = Part(*(arrays if arrays is None else _arrays(arrays, role) for arrays in (x, y, *weights)))
    if part.weights is not None:
        part = part._replace(weights=each(lambda array: np.asarray(array, "float32"), part.weights))
    every = [array for arrays in part if arrays is not None for array in leaves(arrays)]
    if not every or not all(array.ndim for array in every) or len({len(array) for array in every}) != 1 or not len(every[0]):
        shapes = " and ".join(str(array.shape) for array in every[:3]) + f" and {len(every) - 3} more" * (len(every) > 3)
        refuse(f"the {role}data have arrays of the shapes {shapes}: not the same number of examples, or none.", _FORM)
    return part


def _several(value: Any, other: Any) -> Any:
    """Return a list of arrays as a tuple if each array is one input or output. Leave it unchanged if each is one example.

    `other` is y for x, and x for y. It has as many examples as its first array has rows, or as it has arrays.
    """
    if not _is_list_of_arrays(value):
        return value
    while isinstance(other, dict | tuple) and other:
        other = next(iter(other.values() if isinstance(other, dict) else other))
    counts = {len(one) for one in (other, *(other[:1] if _is_list_of_arrays(other) else ())) if hasattr(one, "__len__")}
    rows = {len(one) for one in value}
    are_inputs = len(rows) == 1 and rows <= counts and len(value) < min(rows)
    return value if len(value) in counts and not are_inputs else tuple(value)


def _is_list_of_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(getattr(one, "ndim", 0) for one in value)


def _arrays(value: Any, role: str) -> Any:
    """Return the array or arrays in `value`; a dict, or a tuple of arrays, holds several."""
    check_repeatable(value)
    if is_stream(value):
        refuse(
            f"the {role}data have a {type(value).__name__} where an array is expected.",
            "Give it alone, of batches (x, y), or as a pair: one for training, and one, or (x, y), for testing.",
        )
    if isinstance(value, dict):
        return {name: _arrays(one, role) for name, one in value.items()}
    if isinstance(value, tuple) and value and all(hasattr(one, "shape") or isinstance(one, (dict, tuple)) for one in value):
        return tuple(_arrays(one, role) for one in value)
    if hasattr(value, "toarray"):
        refuse(f"the {role}data are a sparse {type(value).__name__}.", "Pass a plain array: x.toarray().")
    if np.ma.is_masked(value):
        refuse(
            f"the {role}data have masked entries, which a model would see.", "Fill them, x.filled(0), or leave the examples out."
        )
    try:
        array = value if isinstance(value, np.memmap) else as_array(value)
    except (TypeError, ValueError):
        refuse(f"the {role}data are not plain arrays.", "Pass arrays of one number type and shape.")
    if array.dtype.kind not in "biuf":
        refuse(f"the {role}data are not numbers; got {array.dtype}.", _FIXES.get(array.dtype.kind, _FIXES["V"]))
    return array


_FIXES = {
    "O": 'Convert them, for example x.astype("float32"); number the classes: np.unique(y, return_inverse=True)[1].',
    "S": "Number the classes: np.unique(y, return_inverse=True)[1]. A model takes numbers, no texts.",
    "U": "Number the classes: np.unique(y, return_inverse=True)[1]. A model takes numbers, no texts.",
    "V": 'Convert them, for example x.astype("float32").',
}
