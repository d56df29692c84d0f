"""Read each kind of file into examples, without dividing them or learning from them yet."""

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_dropout.bench.data import arrays, columns, folders, opening, tables, typed, windows
from keras_dropout.errors import BadInput, check_choice, check_positive, check_share, check_whole, refuse

if TYPE_CHECKING:
    import pandas as pd

TASKS = ("auto", "classification", "regression")
_KNOWN = (
    ".npz, x.npy,y.npy, .csv, .tsv, .parquet, .feather, .jsonl, .xlsx, .txt, a folder of class folders, or such a folder as .tar, "
    ".tar.gz or .zip"
)
_NPZ = "Name them x_train, y_train, x_test, y_test (also x_val, y_val, w_train; x_train_NAME for several inputs), or x and y."


@dataclass(frozen=True)
class Options:
    """The options for reading and dividing data. `files.load` documents them."""

    target: str | Sequence[str] | None = None
    text: str | None = None
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    sheet: str | None = None
    window: int | None = None
    horizon: int | None = None
    test_split: float = 0.2
    validation_split: float = 0.1
    task: str = "auto"
    image_size: tuple[int, int] | None = None
    divide_by: float = 1
    vocabulary: int = 10000
    length: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("task", self.task, TASKS)
        check_positive("divide_by", self.divide_by, "The model sees x / divide_by: 255 for images, 1 to leave them as they are.")
        for name in ("test_split", "validation_split"):
            object.__setattr__(self, name, check_share(name, getattr(self, name)))
        if self.sheet is not None and not isinstance(self.sheet, str):
            refuse(f"sheet must be the name of a sheet; got {self.sheet!r}.", 'Write it in quotes, for example "Sheet1".')
        for name in ("target", "text", "group", "time", "weight"):
            given = getattr(self, name)
            names = given if name == "target" and isinstance(given, list | tuple) else [given]
            if not all(each is None or isinstance(each, str) for each in names):
                refuse(f"{name} must be the name of a column; got {given!r}.", 'Write it in quotes, for example "price".')
        for name in ("window", "horizon"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1, "It is a number of rows, for example 24.")
        if self.horizon is not None and self.window is None:
            refuse(f"horizon {self.horizon} is given without a window.", "Add --window ROWS, or leave it out.")
        for name in ("text", "group") if self.window is not None else ():
            if getattr(self, name) is not None:
                refuse(
                    f"windows are of one series of numbers and categories; got {name} {getattr(self, name)!r}.",
                    f"Leave {name} out, with the rows of one series in the table; or leave window out.",
                )
        if self.image_size is not None and (not isinstance(self.image_size, tuple | list) or len(self.image_size) != 2):
            refuse(f"image_size must be height and width in pixels; got {self.image_size!r}.", "For example (32, 32).")

    def refuse_columns(self, source: str) -> None:
        """Refuse options of tables, for data without columns."""
        for name in ("target", "text", "group", "time", "weight"):
            if getattr(self, name) is not None:
                refuse(f"{source} has no columns, so there is no {name} {getattr(self, name)!r}.", f"Leave {name} out.")
        if self.window is not None:
            refuse(f"{source} is no table; windows are cut from the rows of one.", "Leave window out.")


@dataclass(frozen=True)
class Examples:
    """The examples of one part. x is an array, a dict of arrays, a table, or an object array of texts or image files."""

    x: Any
    y: Any
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(named(self.y).values())))

    def take(self, index: np.ndarray) -> "Examples":
        """Return the examples at these indices, in this order."""
        fields = (self.x, self.y, self.weights, self.groups, self.times)
        return Examples(*(None if field is None else arrays.each(lambda array: _take(array, index), field) for field in fields))

    def after(self, first: "Examples") -> "Examples":
        """Return the examples of `first` followed by these."""
        pairs = ((first.x, self.x), (first.y, self.y), (first.weights, self.weights), (None, None), (first.times, self.times))
        if any(named(theirs).keys() != named(ours).keys() for theirs, ours in pairs):
            refuse("the training and validation data have different inputs, outputs or weights.", "Give each part the same names.")

        def join(theirs: Any, ours: Any) -> Any:
            if isinstance(ours, dict):
                return {name: join(theirs[name], ours[name]) for name in ours}
            if hasattr(ours, "iloc"):
                import pandas as pd

                lacking = [name for name in ours.columns if name not in theirs]
                if lacking:
                    refuse(f"the validation data have no column {lacking[0]!r}.", "Give all parts the same columns.")
                return pd.concat([theirs[list(ours.columns)], ours])
            if theirs.shape[1:] != ours.shape[1:]:
                refuse(
                    f"validation data of shape {theirs.shape} do not fit training data of {ours.shape}.",
                    "Give one shape to all parts.",
                )
            return np.concatenate([theirs, ours])

        return Examples(*(None if ours is None else join(theirs, ours) for theirs, ours in pairs))


Encode = Callable[[Any], Any]


@dataclass(frozen=True)
class Raw:
    """The contents of a source: examples by part ("all", or "train" and maybe "validation" and "test"), and facts about them.

    `learn` takes x of the training examples and returns (encode, entries to add to the description).
    """

    kind: str
    parts: dict[str, Examples]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    learn: Callable[[Any], tuple[Encode, dict[str, Any]]] = lambda train: (lambda x: x, {})
    like: tables.Like = field(default_factory=tables.Like)


def named(value: Any) -> dict[str, Any]:
    """Return arrays by name: a single array is called "", and None gives an empty dict."""
    return {} if value is None else dict(arrays.named(value))


def _take(array: Any, index: np.ndarray) -> Any:
    return array.iloc[index] if hasattr(array, "iloc") else arrays.rearrange(arrays.mapped(array), index)


def read(source: str, options: Options, like: tables.Like | None = None) -> Raw:
    """Read `source` by its ending. For separate test data, `like` holds the properties shared with the training data."""
    if "," in source:
        options.refuse_columns(source)
        return _read_mapped([Path(part.strip()) for part in source.split(",")])
    path = Path(source)
    if not path.exists():
        refuse(f"{path} does not exist.", "Give the path of a file or folder.")
    ending = path.suffix.lower()
    inner = opening.ending(path)
    if options.sheet is not None and inner not in typed.SHEETS:
        refuse(f"{path} has no sheets, so there is no sheet {options.sheet!r}.", "Leave sheet out.")
    if inner == ".csv" or inner in typed.LINES or ending in typed.ENDINGS or (inner == ".tsv" and (options.target or options.text)):
        return _read_table(path, options, like)
    if ending == ".numbers":
        refuse(f"{path} is a spreadsheet of Numbers.", "Export the sheet as .xlsx or .csv, in its program.")
    if path.is_dir() or path.name.lower().endswith(folders.ARCHIVES):
        options.refuse_columns(source)
        return _read_class_folders(path, options)
    if ending == ".npz":
        options.refuse_columns(source)
        return from_names(_load(path), str(path))
    if inner in (".txt", ".tsv"):
        options.refuse_columns(source)
        texts, labels = tables.read_lines(path)
        y, classes = _codes(labels)
        if like is None:
            _check_classes(classes, len(y), str(path))
        return Raw("text", {"all": Examples(texts, y)}, classes, learn=_word_learner(options))
    if ending == ".npy":
        refuse(f"{path} is one array; inputs and answers are needed.", "Give both, with a comma between them: x.npy,y.npy")
    if ending != inner:
        refuse(f"{path} is compressed.", "Unpack it, and give the file that was in it.")
    refuse(f"{path}: the ending {ending or 'none'} is not known.", f"Known: {_KNOWN}.")


def _load(path: Path, mapped: bool = False) -> Any:
    """Load the array or arrays in a NumPy file; never load a pickle."""
    opening.check_regular(path)
    try:
        if mapped:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise ValueError("it is an .npz, of named arrays")
            return found
        with zipfile.ZipFile(path) as members:
            opening.check_size(path, sum(member.file_size for member in members.infolist()))
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        refuse(f"{path} does not exist.", "Give the path of a file.")
    except BadInput:
        raise
    except Exception as error:  # NumPy raises many kinds of errors
        if "Object arrays" in str(error) or "Python objects" in str(error):
            refuse(f"{path} holds Python objects, which are never loaded: they can run code.", "Save arrays of numbers.")
        why = "" if "pickle" in str(error) else f": {error}"  # NumPy treats any unknown content as a pickle
        refuse(f"{path} is broken or no NumPy file{why}.", "Write it with numpy.savez or numpy.save.")


def _read_mapped(paths: list[Path]) -> Raw:
    if len(paths) not in (2, 3) or any(path.suffix != ".npy" for path in paths):
        refuse(f"{','.join(map(str, paths))} is not x.npy,y.npy or x.npy,y.npy,weights.npy.", f"Known: {_KNOWN}.")
    x, *others = (_load(path, mapped=True) for path in paths)
    y, *weights = map(np.array, others)
    return Raw("arrays", {"all": Examples(x, y, *weights)})


def with_part(raw: Raw, other: Raw, part: str, source: str) -> Raw:
    """Return the examples with another part of the data, such as "test", which were read like those to train on."""
    if part in raw.parts or list(other.parts) != ["all"]:
        refuse(f"the {part} data {source} are given beside parts, or have parts themselves.", f"Give {part} data once, undivided.")
    if raw.kind != other.kind:
        refuse(f"the {part} data {source} are {other.kind}, and the others are {raw.kind}.", "Give both in one form.")
    examples = other.parts["all"]
    if raw.classes:
        unknown = [name for name in other.classes if name not in raw.classes]
        if unknown:
            refuse(f"{source}: the class {unknown[0]!r} is not in the training data.", f"They have {', '.join(raw.classes)}.")
        examples = replace(examples, y=np.array([raw.classes.index(name) for name in other.classes], "int32")[examples.y])
    notes = tuple(f"{part} data: {note}" for note in other.notes if note not in raw.notes)
    return replace(raw, parts={**raw.parts, part: examples}, notes=raw.notes + notes)


def from_names(given: Mapping[str, Any], source: str) -> Raw:
    """Sort arrays called x_train, y_test, w_val, x_train_NAME and so on, or x and y, into parts."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    other = []
    for name, array in given.items():
        match = re.fullmatch(r"(x|y|w)(?:_(train|test|val|validation))?(?:_(.+))?", name)
        if not match:
            other.append(name)
            continue
        role, part, inner = match.groups()
        part = {None: "all", "val": "validation"}.get(part, part)
        found.setdefault(part, {}).setdefault(role, {})[inner or ""] = np.asarray(array)
    if ("all" in found) == ("train" in found) or ("all" in found and len(found) > 1):
        refuse(f"{source} holds the arrays {', '.join(given) or 'none'}.", _NPZ)
    parts = {}
    for part, roles in found.items():
        if "x" not in roles or "y" not in roles or any("" in inner and len(inner) > 1 for inner in roles.values()):
            refuse(f"{source} does not give x and y, once or each with names, for the {part} data: {', '.join(given)}.", _NPZ)
        if list(roles.get("w", [""])) != [""]:
            refuse(
                f"{source} has weights for one input or output.", "Weights are of examples: name them w_train, w_test, w_val or w."
            )
        x, y = (roles[role].get("", roles[role]) for role in "xy")
        parts[part] = Examples(x, y, roles["w"][""] if "w" in roles else None)
    return Raw("arrays", parts, notes=(f"not used: {', '.join(other)}",) if other else ())


def _read_class_folders(path: Path, options: Options) -> Raw:
    found = folders.read_folders(path)
    parts = {part: Examples(*pair) for part, pair in found.parts.items()}
    if found.kind == "images":
        return Raw("images", parts, found.classes, found.notes, lambda train: (folders.learn_images(train, options.image_size), {}))
    for part, examples in parts.items():
        texts = np.array([tables.decode(file.read(), file.name) for file in examples.x], object)
        parts[part] = replace(examples, x=texts)
    return Raw("text", parts, found.classes, found.notes, _word_learner(options))


def _word_learner(options: Options) -> Callable[[Any], tuple[Encode, dict[str, Any]]]:
    def learn(train: np.ndarray) -> tuple[Encode, dict[str, Any]]:
        encode, words = tables.learn_words(train, options.vocabulary, options.length)
        return encode, {"vocabulary": len(words) + 2}

    return learn


def _column_learner(train: "pd.DataFrame") -> tuple[Encode, dict[str, Any]]:
    encode, names, notes = tables.learn_columns(train)
    return encode, {"features": tuple(names), "notes": tuple(notes)}


def _targets(options: Options) -> list[str]:
    return [options.target] if isinstance(options.target, str) else list(options.target or ())


def _read_table(path: Path, options: Options, like: tables.Like | None) -> Raw:
    table, notes, call = tables.read_table(path, _targets(options), like, options.sheet)
    with_types = opening.ending(path) in typed.ENDINGS
    return from_table(table, str(path), options, like, notes=notes, call=call, with_types=with_types)


def from_table(
    table: "pd.DataFrame",
    path: str,
    options: Options,
    like: tables.Like | None = None,
    *,
    notes: list[str],
    call: str,
    with_types: bool = True,
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Raw:
    """Sort the columns of a table into inputs, answers and what is known of each row.

    `path` names the table and `call` is the pandas call that reads it. With `with_types`, only texts may be numbers written in
    several ways. `labels` are the names of the classes 0, 1, … of a target that holds their numbers.
    """
    targets, rows = _targets(options), len(table)
    if not targets:
        fix = 'Name one with --target, or in Python with data_options={"target": NAME}'
        refuse(f"{path} is a table, and no target column is named.", f"{fix}: {', '.join(table.columns)}.")
    named_columns = {"text": options.text, "group": options.group, "time": options.time, "weight": options.weight}
    roles = {role: name for role, name in named_columns.items() if name is not None}
    taken = [*(("target", name) for name in targets), *roles.items()]
    for role, name in taken:
        if like is not None and role == "target" and name not in table:
            refuse(
                f"the test data {path} have no column {name!r}: without answers nothing is measured on them.",
                "Leave the test data out: a part of the training data is then kept for testing.",
            )
        tables.column(table, name, role)
        others = [other for other, its in taken if its == name]
        if len(others) > 1:
            refuse(f"the column {name!r} is named as {' and '.join(others)}.", "A column has one meaning.")
    trains = like is None
    like, read_as_numbers = _read_numbers(table, path, call, like, {name: role for role, name in taken}, options.task, with_types)
    notes += read_as_numbers
    # The training file has decided which columns of a test file are left out.
    others = [name for name in table.columns if trains and name not in [*targets, *roles.values()]]
    numbered = [name for name in others if tables.numbers_rows(table[name])]
    if len(numbered) + len({*targets, *roles.values()}) == len(table.columns) and "text" not in roles:
        notes += [f"column {name} numbers the rows, and is kept: there is no other" for name in numbered]
        numbered = []
    notes += [f"column {name} numbers the rows: left out" for name in numbered]
    for role, needed in (("target", targets), ("text", [roles[role] for role in roles if role == "text"])):
        missing = table[list(needed)].isna().any(axis=1)
        if missing.any():
            notes.append(f"{missing.sum():,} of {len(table):,} rows have no {role}: left out")
            table = table[~missing]
    if not len(table):
        refuse(f"{path}: {'; '.join(notes)}.", "Is it the right column?")
    if named_classes := labels.get(targets[0], ()) if len(targets) == 1 else ():
        y, classes = table[targets[0]].to_numpy("int32"), tuple(named_classes)
        if not ((y >= 0) & (y < len(classes))).all():
            refuse(f"{path}: {int((y < 0).sum())} example(s) have no label.", "Leave these out: dataset.filter(…).")
    else:
        y, classes = _answers(table[targets], options.task, some_missing=len(table) < rows)
    if trains and not named_classes:
        _check_classes(classes, len(table), f"target {targets[0]!r}")
    features = table.drop(columns=[*targets, *roles.values(), *numbered])
    answers = table[targets]
    if trains and len(targets) == 1:
        copies, given_away = _giving_away(features, y, classes)
        features, notes = features.drop(columns=copies), notes + given_away
    if len(targets) == 1 and not named_classes and tables.is_number(table[targets[0]]):
        chosen = f"taken as {len(classes)} classes" if classes else "taken as a quantity"
        notes.append(f"target {targets[0]} is a number: {chosen}; task says otherwise")
    by_row, order = _by_row(table, roles, call)
    notes += order
    if options.window is not None:
        if len(table) < rows:
            refuse(
                f"{path}: the target is missing in {rows - len(table)} row(s); without them the series has holes.",
                "Fill it in, or give the part of the series before or after them.",
            )
        if "times" in by_row:
            notes += windows.check_times(by_row["times"], roles["time"])
        else:
            by_row["times"] = np.arange(len(table))
            notes.append("the rows are taken in the order of the file; --time names a column that orders them")
        features = features.join(answers)
        notes.append(f"the past of {', '.join(targets)} is in the windows")
    if "text" in roles:
        notes += [f"column {name} is not used" for name in features.columns]
        texts = table[roles["text"]].astype(str).to_numpy(object)
        return Raw("text", {"all": Examples(texts, y, **by_row)}, classes, tuple(notes), _word_learner(options), like)
    return Raw("table", {"all": Examples(features, y, **by_row)}, classes, tuple(notes), _column_learner, like)


def _by_row(table: "pd.DataFrame", roles: Mapping[str, str], call: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the groups, times and weights of the rows, as far as columns are named for them, and notes."""
    found: dict[str, np.ndarray] = {}
    notes: list[str] = []
    if "group" in roles:
        if table[roles["group"]].isna().any():
            refuse(f"the group column {roles['group']!r} is empty in some rows.", "Fill it in, or leave these rows out.")
        found["groups"] = np.unique(table[roles["group"]].astype(str).to_numpy(object), return_inverse=True)[1]
    if "time" in roles:
        found["times"], notes = tables.moments(table[roles["time"]], call)
    if "weight" in roles:
        if not tables.is_number(table[roles["weight"]]):
            refuse(f"the weight column {roles['weight']!r} does not hold numbers.", "Name a column of numbers of at least 0.")
        found["weights"] = table[roles["weight"]].to_numpy("float64", na_value=np.nan)
    return found, notes


def _read_numbers(
    table: "pd.DataFrame",
    path: str,
    call: str,
    like: tables.Like | None,
    role_of: Mapping[str, str],
    task: str,
    with_types: bool,
) -> tuple[tables.Like, list[str]]:
    """Convert text columns of numbers to numbers, in place; return the properties that a test file must share, and notes."""
    notes: list[str] = []
    texts = [name for name in table.columns if columns.is_text(table[name])]
    if like is not None:
        for name in like.whole.intersection(texts):
            columns.check_scale(table[name], path, call)
        for name in like.readings.keys() & set(table.columns):
            table[name] = like.readings[name].read(table[name], path)
        return like, notes
    mark = columns.decimal_mark(table, texts_only=with_types)
    readings: dict[str, columns.Reading] = {}
    for name in texts:
        role = role_of.get(name)
        if role in ("text", "group") or (role == "target" and task == "classification"):
            continue
        if role == "target" and columns.dates(list(table[name].dropna().unique())):
            refuse(f"{path}: the target column {name!r} holds dates.", "Write them as numbers, such as days since the first.")
        exact, order = role in ("target", "weight"), role == "time"
        reading, said = columns.find_reading(table[name], path, call, exact, mark, order)
        notes += said
        if reading is not None:
            readings[name] = reading
            table[name] = reading.read(table[name], path)
    whole = [name for name in table.columns if mark != "." and _is_whole(table[name])]
    return tables.Like(frozenset(texts), frozenset(whole), readings), notes


def _is_whole(values: "pd.Series") -> bool:
    return tables.is_number(values) and bool((values.dropna() % 1 == 0).all())


def _giving_away(features: "pd.DataFrame", y: np.ndarray, classes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the columns that repeat the target, and notes on these and on other columns that determine it exactly."""
    copies, notes = [], []
    for name in features.columns:
        values = features[name]
        if tables.is_number(values) and not classes:
            with np.errstate(over="ignore"):
                same = np.array_equal(values.to_numpy("float64", na_value=np.nan).astype("float32"), y)
            told = same or (len(y) > 9 and values.notna().all() and _in_line(values.to_numpy("float64"), y.astype("float64")))
        elif classes and values.notna().all():
            texts = values.astype(str).to_numpy(object)
            found = dict(zip(texts, y))
            told = len(found) == len(classes) == len(set(found.values())) and all(found[text] == n for text, n in zip(texts, y))
            same = told and all(classes[number] == text for text, number in found.items())
        else:
            continue
        if same:
            copies.append(name)
            notes.append(f"column {name} repeats the target: left out")
        elif told:
            notes.append(f"column {name} tells the target exactly: is it known before the target is?")
    return copies, notes


def _in_line(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether y is a linear function of x, to the accuracy of float32."""
    if not max(np.abs(x).max(), np.abs(y).max()) < 1e30 or x.min() == x.max() or y.min() == y.max():
        return False
    with np.errstate(all="ignore"):
        slope, start = np.polyfit(x - x.mean(), y, 1)
    return bool(np.abs(slope * (x - x.mean()) + start - y).max() <= 1e-6 * np.abs(y - y.mean()).max())


def _answers(targets: "pd.DataFrame", task: str, some_missing: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (y, class names): class numbers for texts, booleans and few whole numbers; otherwise float32 and no names."""
    for name in targets.columns:
        if not tables.is_number(targets[name]) and (len(targets.columns) > 1 or task == "regression"):
            refuse(
                f"the target column {name!r} does not hold numbers.", "Regression, and several targets, need columns of numbers."
            )
    if len(targets.columns) > 1:
        if task == "classification":
            refuse(f"classification has one target; got {', '.join(targets.columns)}.", "Name one column.")
        return targets.to_numpy("float32"), ()
    values = targets.iloc[:, 0]
    if tables.is_number(values):
        numbers = values.to_numpy("float64")
        # pandas reads a column of whole numbers as floats if some are missing
        whole = (values.dtype.kind in "iu" or some_missing) and (numbers == np.round(numbers)).all()
        if task == "regression" or (task == "auto" and not (whole and len(np.unique(numbers)) <= tables.MOST_CLASSES)):
            return numbers.astype("float32"), ()
        return _codes(numbers.astype("int64") if whole else numbers)
    return _codes(values.astype(str).to_numpy(object))


def _codes(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers, in the sorted order of the labels, and the names of the labels."""
    names, codes = np.unique(labels, return_inverse=True)
    return codes.astype("int32"), tuple(str(name) for name in names)


def _check_classes(classes: tuple[str, ...], examples: int, source: str) -> None:
    if len(classes) > max(2, examples // 2):
        refuse(
            f"{source}: {len(classes)} different labels for {examples} examples.", "Classes need examples: is it the right column?"
        )
