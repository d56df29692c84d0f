"""Read, check, divide, encode and describe the user's own data."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.data import arrays, frames, splits, typed
from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.bench.data.readers import Examples, Options, Raw, from_names, named, read, with_part
from keras_dropout.bench.data.windows import Windows
from keras_dropout.errors import refuse

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """A description of loaded data, in plain values. Shapes are of one example; dicts if there are several inputs or outputs."""

    kind: str  # "arrays", "table", "images" or "text"
    task: str | dict[str, str]  # "classification" or "regression"
    input_shape: Shape | dict[str, Shape]
    outputs: int | dict[str, int]  # classes, or numbers to predict
    split: str
    classes: tuple[str, ...] = ()  # the names of classes 0, 1, …, if they have names
    features: tuple[str, ...] = ()  # the columns of an encoded table
    vocabulary: int = 0  # of texts: all word numbers are below it
    notes: tuple[str, ...] = ()


def load(source: str | Path, *, test_data: str | Path | None = None, **options: Any) -> tuple[Data, Description]:
    """Load the data in `source`, divide and encode them for training, and describe them.

    `source` is one of: .npz with x_train, y_train, x_test, y_test (also x_val, y_val, w_train; x_train_NAME for several inputs)
    or x and y; "x.npy,y.npy" or "x.npy,y.npy,weights.npy", whose inputs stay on disk; a table with `target`: .csv, .tsv, .parquet,
    .feather, .jsonl (a JSON object on each line) or a spreadsheet (.xlsx, .xls, .xlsb, .ods); .txt or .tsv with lines
    label<TAB>text; a folder of class folders of images or .txt files, or such a folder as .tar, .tar.gz or .zip, maybe with train/,
    test/ and validation/ above the classes. A .csv, .tsv, .jsonl or .txt may be compressed: .gz, .bz2 or .xz.

    Options, each by name: `target` (a column, or several columns of numbers to predict), `text` (the column with the text), `group`
    (a column; no group is in two parts), `time` (a column; the test data are the latest), `weight` (a column with the weight of
    each example in the loss), `sheet` (of a spreadsheet with several), `window` and `horizon` (1; an example is that many rows of a
    series, and its answer is the target so many rows later), `test_split` (0.2; share of all examples, if `source` and `test_data`
    give no test data), `validation_split` (0.1; share of the rest), `task` ("auto", "classification" or "regression"),
    `image_size` (height, width), `divide_by` (1; the model sees x / divide_by), `vocabulary` (10000) and `length` (200) of texts in
    words, `seed` (0) of the split. Bad input raises `BadInput`.
    """
    return read_source(source, test_data=test_data, **options).divide()


def read_source(source: str | Path, *, test_data: str | Path | None = None, **options: Any) -> "Source":
    """Read the data in `source` without dividing them; arguments as for `load`."""
    chosen = Options(**options)
    raw = read(str(source), chosen)
    if test_data is not None:
        task = chosen.task if raw.kind == "arrays" else "classification" if raw.classes else "regression"
        sheet = chosen.sheet if Path(test_data).suffix.lower() in typed.SHEETS else None
        time = chosen.time if chosen.window else None  # windows of the test data need an order, too
        other = read(str(test_data), replace(chosen, task=task, group=None, time=time, sheet=sheet), raw.like)
        raw = with_part(raw, other, "test", str(test_data))
    return Source(Path(str(source).partition(",")[0]).name, raw, chosen)


def from_returned(value: Any, name: str = "data", **options: Any) -> tuple[Data, Description]:
    """Load data that a function returned, and describe them: ((x, y), (x_test, y_test)), (x, y), or a dict named as in an .npz.

    A pair may be a triple with weights; x and y may be dicts of arrays. A DataFrame, or a Dataset or DatasetDict of Hugging Face,
    is a table. `options` are those of `load`.
    """
    return returned_source(value, name, **options).divide()


def returned_source(value: Any, name: str = "data", **options: Any) -> "Source":
    """Take data that a function returned without dividing them; arguments as for `from_returned`."""
    chosen = Options(**options)
    if frames.is_frame(value):
        return Source(name, frames.read(value, name, chosen), chosen)
    chosen.refuse_columns(name)
    form = "Return ((x, y), (x_test, y_test)), (x, y), or a dict with the names of an .npz."
    if isinstance(value, Mapping):
        return Source(name, from_names(value, name), chosen)
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        refuse(f"{name} must give arrays; got {type(value).__name__}.", form)
    two_parts = len(value) == 2 and all(isinstance(part, tuple | list) and len(part) in (2, 3) for part in value)
    parts = {}
    for part, members in (zip(("train", "test"), value)) if two_parts else [("all", value)]:
        try:
            parts[part] = Examples(*map(_as_array, members))
        except ValueError:  # rows of different lengths
            refuse(f"{name}: the {part} data are not plain arrays.", form)
    return Source(name, Raw("arrays", parts), chosen)


@dataclass(frozen=True)
class Source:
    """Data that are read and not yet divided."""

    name: str
    raw: Raw
    options: Options

    def divide(self, seed: int | None = None, features: tuple[str, ...] | None = None) -> tuple[Data, Description]:
        """Divide the data, by default with the seed of the options, learn the encoding from training, and encode all parts.

        With `features`, a table gets these columns: those that the training rows of this division lack are 0 in all its parts.
        """
        options = self.options if seed is None else replace(self.options, seed=seed)
        return _prepare(self.name, self.raw, options, features)

    def features(self) -> tuple[str, ...] | None:
        """Return the columns that an undivided table's encoding has if it is learned from all rows; None for other data."""
        if self.raw.kind != "table":
            return None
        (examples,) = self.raw.parts.values()
        return self.raw.learn(examples.x)[1]["features"]


def _prepare(name: str, raw: Raw, options: Options, features: tuple[str, ...] | None = None) -> tuple[Data, Description]:
    """Check and divide the examples, learn the encoding from training, encode all parts and describe them."""
    parts = {
        part: _checked(f"{name}: the {'' if part == 'all' else part + ' '}data", examples, raw.kind == "arrays")
        for part, examples in raw.parts.items()
    }
    task, outputs, parts = _settle(name, parts, options.task, raw.classes)
    train = parts.get("all") or parts["train"]
    notes = [*raw.notes]
    classes = _classes_of(train.y) if task == "classification" else None
    if train.groups is not None or train.times is not None:
        classes = None
    if classes is not None:
        rare = np.flatnonzero(np.bincount(classes) == 1)
        notes += [f"class {raw.classes[n] if raw.classes else n} has one example" for n in rare]
    split = splits.divide(
        len(train),
        test=0 if "test" in parts else options.test_split,
        validation=0 if "validation" in parts else options.validation_split,
        seed=options.seed,
        classes=classes,
        groups=train.groups,
        times=train.times,
    )
    test = parts["test"] if "test" in parts else train.take(split.test)
    validation = len(split.validation)
    train = train.take(np.concatenate([split.validation, split.train]))
    if "validation" in parts:
        train, validation = train.after(parts["validation"]), len(parts["validation"])
    learners = train.take(np.arange(validation, len(train)))
    if task == "classification" and (trained := _classes_of(learners.y)) is not None:
        lacking = np.setdiff1d(np.arange(outputs), trained)
        notes += [f"class {raw.classes[n] if raw.classes else n} has no training example" for n in lacking]
    encode, learned = raw.learn(learners.x)
    x, x_test = encode(train.x), encode(test.x)
    if features is not None:
        x, x_test = (_with_features(name, each, learned["features"], features) for each in (x, x_test))
        learned["features"] = features
    ways = {"by group": train.groups, "by time": train.times, "by class": classes}
    how = next((way for way, values in ways.items() if values is not None), "")
    sizes = len(train) - validation, validation, len(test)
    if options.window is not None:
        rows, sizes = sizes, (0, 0, 0)
        x, train, x_test, test, validation = _cut(options, x, train, x_test, test, validation)
        sizes = len(x) - validation, validation, len(x_test)
        lost = [
            f"{name} {before - after}" for name, before, after in zip(("training", "validation", "test"), rows, sizes) if before
        ]
        answer = f"each with its answer {options.horizon or 1} row(s) after it"
        notes.append(f"windows of {options.window} rows, {answer}; none reaches into another part, which costs {', '.join(lost)}")
    _check_same(name, x, x_test)
    description = Description(
        raw.kind,
        task,
        arrays.each(lambda array: array.shape[1:], x),
        outputs,
        _sentence(how, parts, *sizes, options),
        raw.classes,
        learned.get("features", ()),
        learned.get("vocabulary", 0),
        (*notes, *learned.get("notes", ())),
    )
    found = Data(
        name,
        Part(x, train.y, train.weights),
        Part(x_test, test.y, test.weights),
        validation,
        options.divide_by,
        classes=tuple(map(str, description.classes)),
        columns=tuple(map(str, description.features)),
    )
    return found, description


def _cut(
    options: Options, x: np.ndarray, train: Examples, x_test: np.ndarray, test: Examples, validation: int
) -> tuple[np.ndarray, Examples, np.ndarray, Examples, int]:
    """Return encoded rows and their answers as windows, each part by itself; training begins with the validation windows."""
    assert train.times is not None  # the reader has ordered the rows
    assert test.times is not None
    later = [train.times[validation:], train.times[:validation], test.times]
    if options.time is not None and any(a.max() >= b.min() for a, b in itertools.pairwise(each for each in later if len(each))):
        refuse(
            f"the parts of the series overlap in time, by column {options.time!r}; validation follows training, and test is last.",
            "Give test data that are later, or leave them out: the latest rows are then kept for testing.",
        )
    cutter = Windows(options.window or 1, options.horizon or 1)

    def cut(part: str, x: np.ndarray, rows: Examples, of: slice) -> tuple[Any, ...]:
        assert rows.times is not None
        y, weights = rows.y[of], None if rows.weights is None else rows.weights[of]
        return cutter.cut(part, x[of], rows.times[of], y, weights)

    pieces = [cut("validation", x, train, slice(validation))] if validation else []
    pieces.append(cut("training", x, train, slice(validation, None)))
    seen, y, weights = (None if each[0] is None else np.concatenate(each) for each in zip(*pieces))
    assert seen is not None
    x_test, y_test, test_weights = cut("test", x_test, test, slice(None))
    return seen, Examples(seen, y, weights), x_test, Examples(x_test, y_test, test_weights), len(pieces[0][0]) if validation else 0


def _with_features(name: str, x: np.ndarray, own: tuple[str, ...], features: tuple[str, ...]) -> np.ndarray:
    """Return encoded rows with all these columns; those that are not among the `own` ones are 0."""
    if own == features:
        return x
    if strange := [each for each in own if each not in features]:
        refuse(
            f"{name}: the column {strange[0]!r} is learned in one division of the data and not from all rows together.",
            "Leave that column out of the table, or group its rare values; or leave resample_split out.",
        )
    found = np.zeros((len(x), len(features)), x.dtype)
    found[:, [features.index(each) for each in own]] = x
    return found


def _as_array(value: Any) -> Any:
    return {name: np.asarray(array) for name, array in value.items()} if isinstance(value, Mapping) else np.asarray(value)


def _sentence(how: str, parts: dict[str, Examples], train: int, validation: int, test: int, options: Options) -> str:
    sizes = f"{train:,} training, {validation:,} validation and {test:,} test examples"
    given = [part for part in ("validation", "test") if part in parts]
    drawn = [part for part in ("validation", "test") if part not in parts]
    said = [f"{' and '.join(given)} data as given"] if given else []
    if drawn:
        chance = "" if how == "by time" else f"at random, seed {options.seed}"
        said.append(f"{' and '.join(drawn)} data divided off {how}{', ' if how and chance else ''}{chance}")
    return f"{sizes}: {'; '.join(said)}"


def _checked(what: str, examples: Examples, plain: bool) -> Examples:
    """Return the examples after checking lengths, types, NaN and weights; the values of x are checked only if it is `plain`."""
    x = {f"x {key}".strip(): array for key, array in named(examples.x).items()}
    others = {f"y {key}".strip(): array for key, array in named(examples.y).items()}
    others |= {} if examples.weights is None else {"weights": examples.weights}
    shapes = {label: array.shape for label, array in {**x, **others}.items()}
    if () in shapes.values() or len({shape[0] for shape in shapes.values()}) != 1 or shapes[next(iter(x))][0] == 0:
        refuse(f"{what} do not match: {_shapes(shapes)}.", "The first axis is the examples: as many in each, and at least one.")
    for label, array in ({**x, **others} if plain else others).items():
        if array.dtype.kind not in "biuf":
            refuse(f"{what}: {label} holds {array.dtype}, not numbers.", "Give arrays of one number type and shape.")
        wrong = sum(piece.size - int(np.isfinite(piece).sum()) for piece in arrays.blocks(array)) if array.dtype.kind == "f" else 0
        if wrong:
            refuse(
                f"{what}: {label} holds {wrong:,} value(s) that are NaN or infinite.", "Fill them in, or leave these examples out."
            )
    if examples.weights is None:
        return examples
    weights = examples.weights
    if weights.ndim != 1 or (weights < 0).any() or not weights.any():
        refuse(f"{what}: weights must be one number of at least 0 an example, not all 0.", "Leave an example out, or weigh it 0.")
    return replace(examples, weights=weights.astype("float32"))


def _settle(name: str, parts: dict[str, Examples], task: str, classes: tuple[str, ...]) -> tuple[Any, Any, dict[str, Examples]]:
    """Return (task, outputs, parts with y as class numbers or float32); task and outputs are dicts for several outputs."""
    first = next(iter(parts.values())).y
    if any(named(examples.y).keys() != named(first).keys() for examples in parts.values()):
        refuse(f"{name}: the parts have different outputs.", "Give each part the same names.")
    tasks, outputs = {}, {}
    settled: dict[str, dict[str, np.ndarray]] = {part: {} for part in parts}
    for output in named(first):
        ys = {part: named(examples.y)[output] for part, examples in parts.items()}
        what = f"{name}: y{' ' + output if output else ''}"
        tasks[output] = _task_of(what, ys, task, classes)
        outputs[output], ys = (_as_classes if tasks[output] == "classification" else _as_numbers)(what, ys, classes)
        for part, y in ys.items():
            settled[part][output] = y
    several = isinstance(first, dict)
    parts = {part: replace(examples, y=settled[part] if several else settled[part][""]) for part, examples in parts.items()}
    return (tasks, outputs, parts) if several else (tasks[""], outputs[""], parts)


def _classes_of(y: np.ndarray) -> np.ndarray | None:
    """Return the class number of each example, or None if an example has no single class."""
    return y if y.ndim == 1 else y.argmax(axis=1) if arrays.is_one_hot(y) else None


def _task_of(what: str, ys: dict[str, np.ndarray], task: str, classes: tuple[str, ...]) -> str:
    if task != "auto" and not classes:
        return task
    y = next(iter(ys.values()))
    if classes or arrays.is_one_hot(y) or (y.dtype.kind in "biu" and y[:1].size == 1):
        return "classification"
    if y.dtype.kind == "f":
        return "regression"
    refuse(f"{what} of shape {y.shape} holds whole numbers: classes or quantities?", "Say task classification or regression.")


def _as_classes(what: str, ys: dict[str, np.ndarray], classes: tuple[str, ...]) -> tuple[int, dict[str, np.ndarray]]:
    """Return (number of classes, y as int32 class numbers; one-hot y stays unchanged)."""
    learned = [part for part in ys if part != "test"]
    if all(arrays.is_one_hot(y) for y in ys.values()):
        used = np.any([y.any(axis=0) for part, y in ys.items() if part in learned], axis=0)
        if used.sum() < 2 or len({y.shape[1] for y in ys.values()}) > 1:
            refuse(
                f"{what}: one-hot answers with {used.sum()} class(es) in use.",
                "At least two classes, as many columns in each part.",
            )
        return len(used), ys
    for part, y in ys.items():
        if any((piece != np.round(piece)).any() or (piece < 0).any() or (piece >= 2**31).any() for piece in arrays.blocks(y)):
            refuse(
                f"{what} holds labels that are negative, not whole or above {2**31 - 1}.",
                "Number the classes 0, 1, 2, …; for quantities say task regression.",
            )
        ys = {**ys, part: (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y).astype("int32")}
    found = np.unique(np.concatenate([np.unique(ys[part]) for part in learned]))
    if len(found) < 2:
        only = f"the label {classes[found[0]] if classes else found[0]!s}"
        refuse(f"{what}: all examples have {only}.", "There is nothing to learn: at least two classes are needed.")
    if not np.array_equal(found, np.arange(len(found))):
        refuse(
            f"{what} holds the labels {_some(found)}, which are not 0 to {len(found) - 1}.",
            "Number the classes 0, 1, 2, … without a gap; for quantities say task regression.",
        )
    if "test" in ys and ys["test"].max() >= len(found):
        refuse(f"{what}: the test label {ys['test'].max()} is not in the training data.", f"They have 0 to {len(found) - 1}.")
    return len(found), ys


def _as_numbers(what: str, ys: dict[str, np.ndarray], classes: tuple[str, ...]) -> tuple[int, dict[str, np.ndarray]]:
    """Return (how many numbers to predict for an example, y as float32)."""
    first = next(iter(ys.values()))
    low, high = (function([function(piece) for piece in arrays.blocks(first)]) for function in (np.min, np.max))
    if low == high:
        refuse(f"{what} is {low} for all examples.", "There is nothing to learn from a constant.")
    shapes = {y.shape[1:] for y in ys.values()}
    if len(shapes) > 1:
        refuse(f"{what} has different shapes in the parts: {' and '.join(map(str, shapes))}.", "Give one shape to all parts.")
    return first[:1].size, {part: y if y.dtype == np.float32 else y.astype("float32") for part, y in ys.items()}


def _some(values: np.ndarray) -> str:
    shown = ", ".join(map(str, values[:6]))
    return f"{shown}, …, {values[-1]}" if len(values) > 7 else ", ".join(map(str, values))


def _check_same(name: str, x: Any, x_test: Any) -> None:
    shapes, others = ({key: array.shape[1:] for key, array in named(value).items()} for value in (x, x_test))
    if shapes != others:
        refuse(f"{name}: training inputs have shape {_shapes(shapes)}, test inputs {_shapes(others)}.", "Give both in one shape.")


def _shapes(shapes: dict[str, Shape]) -> str:
    return ", ".join(f"{key} {shape}".strip() for key, shape in shapes.items())
