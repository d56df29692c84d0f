"""Turn tables and texts into arrays. Means, categories and words are learned from training examples only."""

import csv
import difflib
import functools
import io
import itertools
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_dropout.bench.data import columns, opening, typed
from keras_dropout.errors import BadInput, check_whole, first_line, refuse

if TYPE_CHECKING:
    import pandas as pd

MOST_CLASSES = 20  # a whole-number target with more values than this is a quantity
MOST_CATEGORIES = 100  # of a column: rarer categories share the slot "other"


@dataclass(frozen=True)
class Like:
    """The properties that a test file shares with the training file: its text columns, and how texts are read as numbers.

    `whole` names the columns of whole numbers in training; in these, 1.234 may mean one thousand two hundred and thirty-four.
    """

    texts: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    readings: Mapping[str, columns.Reading] = field(default_factory=dict)


def read_table(
    path: Path, targets: Sequence[str], like: Like | None = None, sheet: str | None = None
) -> tuple["pd.DataFrame", list[str], str]:
    """Return the table in a file, notes on what was found in it, and the pandas call that reads the file.

    In a target column of texts, the text None is kept as a class; pandas would read it as a missing value. `sheet` names the sheet
    of a spreadsheet.
    """
    try:
        import pandas as pd  # noqa: F401
    except ImportError:
        refuse(f"{path} is a table, and pandas is not installed.", "pip install 'keras-dropout[tables]'")
    opening.check_regular(path)
    ending = opening.ending(path)
    try:
        if ending in typed.SHEETS:
            table, notes, call, header = typed.read_sheet(path, sheet, functools.partial(_keep_none, targets=targets))
            _check_header(path, header, table, call)
            notes += _twice(header)
        elif ending in (*typed.ARROW, *typed.LINES):
            table, notes, call = typed.read_lines(path) if ending in typed.LINES else typed.read_arrow(path)
        else:
            table, notes, call = _read_csv(path, targets, like)
    except ImportError:
        refuse(f"{path} is a Parquet or Feather file, and pyarrow is not installed.", "pip install 'keras-dropout[tables]'")
    except UnicodeDecodeError as error:
        refuse(f"{path} is not UTF-8 text: byte {error.start} does not decode.", _to_utf8(path))
    except BadInput:
        raise
    except (ValueError, OSError) as error:  # pandas raises ValueError for a malformed file
        names = "" if ending in typed.ENDINGS else " with a line of column names"
        refuse(f"{path} cannot be read: {first_line(error)}", f"It must be a whole {ending} file{names}.")
    notes = [f"unpacked from {path.suffix}"] * (ending != path.suffix.lower()) + notes
    table = table.reset_index(drop=True).rename(columns=str)
    if ending in typed.ENDINGS and like is not None:  # the same column in the training file is of texts
        for name in like.texts.intersection(table.columns):
            table[name] = table[name].map(str, na_action="ignore")
    if not len(table):
        refuse(f"{path} has no rows.", "It must have a line of column names and one line for each example.")
    return table, notes, call


def _to_utf8(path: Path) -> str:
    """Return the command that converts a file from Windows-1252, the usual encoding of Western Europe, to UTF-8."""
    name, ending = shlex.quote(str(path)), opening.ending(path)
    unpack = {".gz": "gzip -dc ", ".bz2": "bzip2 -dc ", ".xz": "xz -dc "}.get(path.suffix.lower())
    if unpack:
        return f"{unpack}{name} | iconv -f cp1252 -t utf-8 > utf8{ending}"
    return f"iconv -f cp1252 -t utf-8 {name} > utf8{ending}"


def _read_csv(path: Path, targets: Sequence[str], like: Like | None) -> tuple["pd.DataFrame", list[str], str]:
    import pandas as pd

    content, notes, call_options = opening.contents(path), [], ""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content, call_options = content.decode("utf-16").encode(), ", encoding='utf-16'"
    elif content[:4] in (b"PK\x03\x04", b"PAR1") or content[:2] == b"\x1f\x8b" or b"\0" in content[:4096]:
        refuse(f"{path} is no text, whatever its ending says.", "Save it as .csv from the program that made it, or unpack it.")
    separator, skipped, header, widest = _sniff(content[:_HEAD].decode("utf-8-sig", "replace"), path)
    usual = "\t" if opening.ending(path) == ".tsv" else ","
    if separator != usual:
        notes.append(f"columns are separated by {_SEPARATORS[separator]}")
    if skipped:
        notes.append(f"{skipped} line(s) before the column names: left out")
    call_options += (separator != ",") * f", sep={separator!r}" + bool(skipped) * f", skiprows={skipped}"
    call = f"pandas.read_csv({str(path)!r}{call_options})"

    def read(**options: Any) -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # about columns already found to be empty
            return pd.read_csv(io.BytesIO(content), sep=separator, skiprows=skipped, low_memory=False, **options)

    options: dict[str, Any] = {} if like is None else {"dtype": {name: str for name in like.texts if name in header}}
    table = read(**options)
    if widest > len(header) or not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells as row labels
        if table.index.nlevels > 1 or not table.iloc[:, -1].isna().all():
            refuse(
                f"{path} has {len(header)} column names, and rows of {len(header) + table.index.nlevels} cells.",
                f'Name all columns; in Python: {call}.reset_index().to_csv("clean.csv", index=False)',
            )
        options["index_col"] = False
        table = read(**options)
    spaced = header[0].split() if len(header) == 1 else ()
    if len(spaced) > 1 and (table.iloc[:, 0].astype(str).str.split().str.len() == len(spaced)).all():
        refuse(
            f"{path} has one column: neither commas, semicolons nor tabs separate columns.",
            f'If spaces do, in Python: {call[:-1]}, sep=r"\\s+").to_csv("clean.csv", index=False)',
        )
    _check_header(path, header, table, call)
    notes += _twice(header)
    as_texts = functools.cache(lambda: read(**options | {"dtype": str}))

    def unique(name: str) -> Any:
        return as_texts()[name].dropna().unique()

    zeros = like is None and re.search(rb"(?:^|[,;\t|\"\n ])0[0-9]", content)
    for name in table:
        kind = table[name].dtype.kind
        codes = zeros and kind in "iuf" and columns.are_codes(unique(name))
        # In such files 1.234 may mean one thousand two hundred and thirty-four.
        open_mark = separator == ";" and kind == "f" and (like is None or name in like.whole)
        if codes or (open_mark and columns.may_group(unique(name))):
            table[name] = as_texts()[name]
    notes += _keep_none(table, lambda: read(**options, keep_default_na=False), targets)
    return table, notes, call


def _keep_none(table: "pd.DataFrame", read: Callable[[], "pd.DataFrame"], targets: Sequence[str]) -> list[str]:
    """Put the text None back into target columns of texts, where pandas has read it as missing; return notes.

    `read` reads the table again, with all texts as they are. NA, nan and null mean a missing answer.
    """
    found = table[[name for name in table if name in targets]]
    unclear = [name for name in found if found[name].isna().any() and found[name].map(type).eq(str).any()]
    if not unclear:
        return []
    kept, notes = read(), []
    for name in unclear:
        called_none = (kept[name] == "None").to_numpy()
        notes += [f"target {name}: None is taken as a class; NA and empty cells are missing"] * bool(called_none.any())
        table.loc[called_none, name] = "None"
    return notes


def _twice(header: Sequence[str]) -> list[str]:
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    return [f"{header.count(name)} columns are called {name}: the second is {name}.1" for name in twice]


_HEAD = 1 << 20  # bytes of a file that are read to detect its format
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def _sniff(head: str, path: Path) -> tuple[str, int, list[str], int]:
    """Return the column separator, the number of lines before the names, the names, and the number of cells in the longest row."""
    lines = io.StringIO(head, newline="").readlines()
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    told = re.fullmatch(r"\"?sep=(.)\"?", lines[first].strip()) if lines else None  # a line for Excel
    if told and told[1] in _SEPARATORS:
        first += 1
    usual = "\t" if opening.ending(path) == ".tsv" else ","
    whole = lines[first : -1 if len(head) >= _HEAD // 4 else None]  # the last line of an incomplete head may be cut

    def rows(mark: str) -> list[list[str]]:
        try:
            return list(itertools.islice(filter(None, csv.reader(whole, delimiter=mark)), 50))
        except csv.Error:  # a cell of a hundred thousand characters
            return []

    tables = {mark: found for mark in (usual, *(set(_SEPARATORS) - {usual})) if (found := rows(mark)) and len(found[0]) > 1}
    if told and told[1] in _SEPARATORS:
        separator = told[1]
    elif usual in tables and (_even(tables[usual]) or not any(_even(tables[mark]) for mark in tables)):
        separator = usual
    else:
        even = [mark for mark in tables if _even(tables[mark])] or list(tables)
        separator = even[0] if len(even) == 1 else usual
    found = tables.get(separator) or rows(separator) or [[]]
    before = lines[first - 1] if first and not told else ""
    if re.match("#[^ #]", before):  # names such as #id, a, b
        names = next(csv.reader([before.rstrip("\r\n")], delimiter=separator))
        if len(names) == len(found[0]) > 1:
            return separator, first - 1, names, len(names)
    return separator, first, found[0], max(map(len, found))


def _even(rows: list[list[str]]) -> bool:
    return len({len(row) for row in rows}) == 1


def _check_header(path: Path, header: list[str], table: "pd.DataFrame", call: str) -> None:
    """Refuse a first line that holds an example instead of the column names."""
    numbers = [number for name in header if (number := columns.as_number(name)) is not None]
    filled = [name for name in header if name.strip()]
    rises, falls = (all(sign * a < sign * b for a, b in itertools.pairwise(numbers)) for sign in (1, -1))
    # Numbers that are names, such as years or the wavelengths of a spectrum.
    counted = (rises and all(number == int(number) for number in numbers)) or ((rises or falls) and len(numbers) > 2)
    there = list(enumerate(header[: table.shape[1]]))
    with_numbers = [name for n, name in there if columns.as_number(name) is not None and is_number(table.iloc[:, n])]
    among = [name for n, name in there if name.strip() and name not in with_numbers and (table.iloc[:, n] == name).any()]
    some_numbers = 2 * len(with_numbers) >= len(filled) and with_numbers and not counted
    if some_numbers or (among and len(among) + len(with_numbers) == len(filled)):
        named = f'{call[:-1]}, header=None).add_prefix("c").to_csv("clean.csv", index=False)'
        refuse(
            f"the first line of {path} is no header: it holds values, such as {(with_numbers or among)[0]!r}.",
            f"Add names, in Python: {named}. The columns are then called c0, c1, …",
        )


def column(table: "pd.DataFrame", name: str, role: str) -> "pd.Series":
    """Return the column `name`, or refuse with a list of the columns and the closest name."""
    if name in table.columns:
        return table[name]
    near = difflib.get_close_matches(name, table.columns, 1, 0.5)
    fix = f"Did you mean {near[0]!r}?" if near else "Name one of them."
    for mark, word in _SEPARATORS.items():
        if mark in name and set(name.split(mark)) <= set(table.columns):
            fix = f"Name one column: the file is separated by {word}, as in {name!r}."
    refuse(f"there is no {role} column {name!r}; the columns are {', '.join(table.columns)}.", fix)


def is_number(values: "pd.Series") -> bool:
    """Return whether a column holds numbers; True and False are categories."""
    from pandas.api import types

    return types.is_numeric_dtype(values) and not types.is_bool_dtype(values)


def numbers_rows(values: "pd.Series") -> bool:
    """Return whether a column numbers the rows, in any order: it has no information, but would reveal sorted answers.

    Such a column holds each of 0, 1, 2, … or 1, 2, 3, … once, or has the name of an index or an id and unique whole numbers.
    """
    if values.dtype.kind not in "iuf" or values.isna().any() or not values.is_unique:
        return False
    low, high = values.min(), values.max()
    if not np.isfinite(high - low) or (values.dtype.kind == "f" and (values != values.round()).any()):
        return False
    return (low in (0, 1) and high - low == len(values) - 1) or bool(_IDS.fullmatch(str(values.name)))


_IDS = re.compile(r"(?i:unnamed: \d+|index|(row|record)[ _.-]?(id|nr|no|number|names?)?|(.*[ _.-])?id)|.*[a-z]I[dD]")


def moments(values: "pd.Series", call: str) -> tuple[np.ndarray, list[str]]:
    """Return numbers that order the rows in time, from a column of numbers, dates or texts with dates, and notes.

    `call` is the pandas call that reads the file.
    """
    import pandas as pd

    if values.isna().any():
        refuse(
            f"the time column {values.name!r} is empty in {int(values.isna().sum())} row(s).",
            "Fill it in, or leave these rows out.",
        )
    if is_number(values):
        return values.to_numpy("float64"), []
    options: dict[str, Any] = {}
    notes: list[str] = []
    if columns.is_text(values):
        texts = list(values.unique())
        options |= columns.date_order(texts, values.name, call)
        notes = [f"column {values.name}: {texts[0]!r} gives the {option.removesuffix('first')} first" for option in options]
        if columns.dates(texts):
            options["format"] = "mixed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pandas warns about the order of day and month, which is settled by now
            return pd.to_datetime(values, utc=True, errors="raise", **options).astype("int64").to_numpy(), notes
    except (ValueError, TypeError):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            read = pd.to_datetime(values, utc=True, errors="coerce", **options)
        first = values[read.isna()]
        shown = (
            repr(first.iloc[0]) + f" in row {first.index[0] + 1}" if len(first) else f"a mixture of forms, {values.iloc[0]!r} first"
        )
        refuse(
            f"the time column {values.name!r} holds no date that can be read: {shown}.", "Write dates as 2024-01-31, or as numbers."
        )


def learn_columns(train: "pd.DataFrame") -> tuple[Callable[["pd.DataFrame"], np.ndarray], list[str], list[str]]:
    """Return (encode, feature names, notes), learned from the training rows; encode(table) gives float32 (rows, features).

    Numbers are standardised by keras.layers.Normalization. A missing number becomes the training mean, and a column with missing
    numbers in training gets an indicator. Categories are one-hot by keras.layers.CategoryEncoding: the known categories in the
    order of their names (at most the 100 most frequent), "missing" if training has missing cells, and "other". Constants, dates,
    free texts, and texts that differ in every row are left out.
    """
    from pandas.api import types

    encoders: list[Callable[[pd.DataFrame], np.ndarray]] = []
    names: list[str] = []
    notes: list[str] = []
    used: list[str] = []
    for name in train.columns:
        values = train[name]
        known, missing = values.dropna(), bool(values.isna().any())
        texts = known.astype(str)
        if types.is_datetime64_any_dtype(values) or (columns.is_text(values) and columns.dates(list(known.unique()))):
            notes.append(f"column {name} holds dates: left out")
            continue
        if texts.nunique() + missing < 2:
            notes.append(f"column {name} is constant: left out")
            continue
        if not is_number(values) and texts.nunique() > len(values) / 2 and texts.str.count(r"\s").mean() >= 3:
            notes.append(f"column {name} holds texts: left out; --text {shlex.quote(str(name))} learns from its words")
            continue
        if not is_number(values) and texts.nunique() == len(values):
            notes.append(f"column {name} differs in every row, as an id does: left out")
            continue
        used.append(name)
        if is_number(values):
            if texts.nunique() > 1:
                encoders.append(_standardised(values))
                names.append(name)
            if missing:
                encoders.append(functools.partial(_missing, name))
                names.append(f"{name} missing")
        else:
            frequent = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))[:MOST_CATEGORIES]
            if texts.nunique() > len(frequent):
                notes.append(
                    f"column {name}: the {len(frequent)} most frequent of {texts.nunique()} categories have their own slot"
                )
            slots = {text: n for n, text in enumerate(sorted(text for text, _ in frequent))}
            encoders.append(_one_hot(name, slots, missing))
            names += [f"{name}={text}" for text in slots] + [f"{name} missing"] * missing + [f"{name} other"]
    if not encoders:
        refuse("no column is left to learn from.", "; ".join(notes) or "The table must have more than the target column.")

    def encode(table: "pd.DataFrame") -> np.ndarray:
        for name in used:
            column(table, name, "feature")
        return np.concatenate([encoder(table) for encoder in encoders], axis=1)

    return encode, names, notes


def _missing(name: str, table: "pd.DataFrame") -> np.ndarray:
    return table[name].isna().to_numpy("float32")[:, None]


def _standardised(train: "pd.Series") -> Callable[["pd.DataFrame"], np.ndarray]:
    import keras

    name, mean = train.name, train.astype("float64").mean()

    def filled(table: "pd.DataFrame") -> np.ndarray:
        if not is_number(table[name]):
            refuse(f"column {name!r} holds numbers in training and {table[name].dtype} elsewhere.", "Write numbers in all files.")
        values = table[name].astype("float64").fillna(mean).to_numpy()
        if not np.isfinite(values).all():
            refuse(f"column {name!r} holds infinite numbers.", "Leave the cell empty where there is no value.")
        return (values - mean).astype("float32")[:, None]  # centred in float64, so that a year or a time stamp keeps its digits

    layer = keras.layers.Normalization()
    layer.adapt(filled(train.to_frame()))
    return lambda table: keras.ops.convert_to_numpy(layer(filled(table)))


def _one_hot(name: str, slots: dict[str, int], missing: bool) -> Callable[["pd.DataFrame"], np.ndarray]:
    import keras

    other = len(slots) + missing
    layer = keras.layers.CategoryEncoding(num_tokens=other + 1, output_mode="one_hot")

    def encode(table: "pd.DataFrame") -> np.ndarray:
        values = table[name]
        codes = values.astype(str).map(slots).fillna(other).to_numpy("int32")
        codes[values.isna()] = len(slots)  # the slot after the known ones: "missing", or "other" if training has none
        return keras.ops.convert_to_numpy(layer(codes[:, None])).astype("float32")

    return encode


def read_lines(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (texts, labels) from the lines `label<TAB>text` of a UTF-8 file; empty lines are skipped."""
    texts, labels = [], []
    for number, line in enumerate(re.split("\r?\n", decode(opening.contents(path), str(path), _to_utf8(path))), 1):
        if not line.strip():
            continue
        label, tab, text = line.partition("\t")
        if not tab or not label.strip():
            refuse(
                f"{path}, line {number} has no label and tab before the text: {line[:40]!r}.", "Write label<TAB>text on every line."
            )
        texts.append(text)
        labels.append(label.strip())
    return np.array(texts, object), np.array(labels, object)


def decode(content: bytes, name: str, fix: str = "Convert it to UTF-8.") -> str:
    """Decode `content` as UTF-8, or refuse with the name of the file."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(f"{name} is not UTF-8 text: byte {error.start} does not decode.", fix)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def learn_words(train: Iterable[str], vocabulary: int, length: int) -> tuple[Callable[[Sequence[str]], np.ndarray], list[str]]:
    """Return (encode, words), learned from the training texts; encode(texts) gives int32 (texts, length), cut or padded at the end.

    A word is a run of letters and digits in lower case. Number 0 is padding, 1 is an unknown word, and the other numbers are the
    `vocabulary` - 2 most frequent words, most frequent first; equally frequent words are in alphabetical order. Keras's
    TextVectorization does the same but needs TensorFlow.
    """
    check_whole("vocabulary", vocabulary, 3, "It counts padding and the unknown word too: for example 10000.")
    check_whole("length", length, 1, "It is the number of words of a text that the model sees: for example 200.")
    counts = Counter(word for text in train for word in _words(text))
    if not counts:
        refuse("the training texts hold no word.", "A word is a run of letters and digits; is it the right column?")
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: vocabulary - 2]]
    numbers = {word: n for n, word in enumerate(words, 2)}

    def encode(texts: Sequence[str]) -> np.ndarray:
        tokens = np.zeros((len(texts), length), "int32")
        for row, text in zip(tokens, texts):
            found = [numbers.get(word, 1) for word in _words(text)[:length]]
            row[: len(found)] = found
        return tokens

    return encode, words
