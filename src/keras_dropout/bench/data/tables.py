"""Tables and texts into arrays. What is learned from data (means, categories, words) is learned on training examples only."""

import difflib
import functools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_dropout.errors import check_whole, refuse

if TYPE_CHECKING:
    import pandas as pd

MOST_CLASSES = 20  # a whole-number target with more values than this is a quantity
MOST_CATEGORIES = 100  # of a column: the rarer ones share the slot "other"


def read_table(path: Path, targets: Sequence[str]) -> tuple["pd.DataFrame", list[str]]:
    """(the table in a .csv, .tsv or .parquet file, notes).

    In a target column of texts a class may be called None, which pandas takes for no value.
    """
    try:
        import pandas as pd
    except ImportError:
        refuse(f"{path} is a table, and pandas is not installed.", "pip install 'keras-dropout[tables]'")
    read = functools.partial(pd.read_csv, path, sep="\t" if path.suffix.lower() == ".tsv" else ",", low_memory=False)
    notes = []
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = read()
            found = table[[name for name in table if name in targets]]
            if unclear := [name for name in found if found[name].isna().any() and found[name].map(type).eq(str).any()]:
                said = read(keep_default_na=False)  # "None" is an answer; NA, nan and null are words for a missing one
                for name in unclear:
                    called_none = (said[name] == "None").to_numpy()
                    notes += [f"target {name}: None is taken as a class; NA and empty cells are missing"] * bool(called_none.any())
                    table.loc[called_none, name] = "None"
    except ImportError:
        refuse(f"{path} is a Parquet file, and pyarrow is not installed.", "pip install 'keras-dropout[tables]'")
    except UnicodeDecodeError as error:
        refuse(f"{path} is not UTF-8 text: byte {error.start} does not decode.", _to_utf8(path))
    except (ValueError, OSError) as error:  # pandas' own errors of form are ValueErrors
        refuse(
            f"{path} cannot be read: {next(iter(str(error).splitlines()), 'broken')}",
            f"It must be a whole {path.suffix} file with a line of column names.",
        )
    table = table.reset_index(drop=True).rename(columns=str)
    if not len(table):
        refuse(f"{path} has no rows.", "It must have a line of column names and one line for each example.")
    return table, notes


def column(table: "pd.DataFrame", name: str, role: str) -> "pd.Series":
    """The column `name`, or a refusal that lists the columns and the nearest name."""
    if name in table.columns:
        return table[name]
    near = difflib.get_close_matches(name, table.columns, 1, 0.5)
    refuse(
        f"there is no {role} column {name!r}; the columns are {', '.join(table.columns)}.",
        f"Did you mean {near[0]!r}?" if near else "Name one of them.",
    )


def is_number(values: "pd.Series") -> bool:
    """True for a column of numbers; True and False are categories."""
    from pandas.api import types

    return types.is_numeric_dtype(values) and not types.is_bool_dtype(values)


def numbers_rows(values: "pd.Series") -> bool:
    """True for 0, 1, 2, … or 1, 2, 3, … from the first row to the last: an index, which would give sorted answers away."""
    if values.dtype.kind not in "iu" or values.isna().any():
        return False
    return values.iloc[0] in (0, 1) and bool((values.diff().iloc[1:] == 1).all())


def moments(values: "pd.Series") -> np.ndarray:
    """Numbers that order the rows in time, from a column of numbers, dates or texts with dates."""
    import pandas as pd

    if values.isna().any():
        refuse(
            f"the time column {values.name!r} is empty in {int(values.isna().sum())} row(s).",
            "Fill it in, or leave these rows out.",
        )
    if is_number(values):
        return values.to_numpy("float64")
    try:
        return pd.to_datetime(values, utc=True, errors="raise").astype("int64").to_numpy()
    except (ValueError, TypeError):
        read = pd.to_datetime(values, utc=True, errors="coerce")
        first = values[read.isna()]
        shown = (
            repr(first.iloc[0]) + f" in row {first.index[0] + 1}" if len(first) else f"a mixture of forms, {values.iloc[0]!r} first"
        )
        refuse(
            f"the time column {values.name!r} holds no date that can be read: {shown}.", "Write dates as 2024-01-31, or as numbers."
        )


def learn_columns(train: "pd.DataFrame") -> tuple[Callable[["pd.DataFrame"], np.ndarray], list[str], list[str]]:
    """(encode, feature names, notes) learned from the rows of the training part; encode(table) gives float32 (rows, features).

    Numbers are standardised by keras.layers.Normalization; a missing one is the training mean, and a column that has missing
    ones in training gets an indicator. Categories are one-hot by keras.layers.CategoryEncoding: the known ones in the order of
    their names (at most the 100 most frequent), "missing" where training has it, and "other". Constants, texts that
    differ in every row and dates are left out.
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
        if types.is_datetime64_any_dtype(values):
            notes.append(f"column {name} holds dates: left out")
            continue
        if texts.nunique() + missing < 2:
            notes.append(f"column {name} is constant: left out")
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
        return (values - mean).astype("float32")[:, None]  # centred in float64: a year or a time stamp keeps its digits

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
        codes[values.isna()] = len(slots)  # the slot after the known ones: "missing", or "other" where training has none missing
        return keras.ops.convert_to_numpy(layer(codes[:, None])).astype("float32")

    return encode


def read_lines(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(texts, labels) from the lines `label<TAB>text` of a UTF-8 file; empty lines are passed over."""
    texts, labels = [], []
    for number, line in enumerate(re.split("\r?\n", decode(path.read_bytes(), str(path), _to_utf8(path))), 1):
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


def _to_utf8(path: Path) -> str:
    """Return the line for a shell that makes a file in Latin-1 one in UTF-8."""
    return f"iconv -f latin1 -t utf-8 {shlex.quote(str(path))} > utf8{path.suffix}"


def decode(content: bytes, name: str, mend: str = "Convert it to UTF-8.") -> str:
    """The text in `content`, or a refusal that names the file."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(f"{name} is not UTF-8 text: byte {error.start} does not decode.", mend)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def learn_words(train: Iterable[str], vocabulary: int, length: int) -> tuple[Callable[[Sequence[str]], np.ndarray], list[str]]:
    """(encode, words) learned from the training texts; encode(texts) gives int32 (texts, length), cut or padded at the end.

    A word is a run of letters and digits in lower case. Number 0 is padding, 1 a word that is not known, and the others are
    the `vocabulary` - 2 most frequent words, the most frequent first; words as frequent as each other in the order of the alphabet.
    Keras's TextVectorization does the same but needs TensorFlow.
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
