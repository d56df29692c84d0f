"""Read tables whose cells have types: Parquet, Feather, JSON lines and spreadsheets."""

import datetime
import decimal
import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_dropout.bench.data import opening
from keras_dropout.errors import BadInput, refuse

if TYPE_CHECKING:
    import pandas as pd

SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
ARROW = (".parquet", ".feather", ".arrow")
LINES = (".jsonl", ".ndjson")
ENDINGS = (*ARROW, *LINES, *SHEETS)
_MOST_SHOWN = 10  # names of sheets


def read_arrow(path: Path) -> tuple["pd.DataFrame", list[str], str]:
    """Return the table of a Parquet or Feather (Arrow) file, notes, and the pandas call that reads it."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        return *plain(pd.read_parquet(path)), f"pandas.read_parquet({str(path)!r})"
    return *plain(pd.read_feather(path)), f"pandas.read_feather({str(path)!r})"


def read_lines(path: Path) -> tuple["pd.DataFrame", list[str], str]:
    """Return the table of a file with a JSON object on each line, notes, and a pandas call that reads it.

    Texts stay texts; pandas makes 7 of "007" unless it is told not to.
    """
    import pandas as pd

    rows = []
    for number, line in enumerate(opening.contents(path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        row = json.loads(line)  # its errors are ValueErrors
        if not isinstance(row, dict):
            refuse(
                f"{path} holds no JSON object in line {number}: {line[:40].decode(errors='replace')!r}.",
                'Write an object on each line, such as {"size": 31.5, "price": 120}.',
            )
        rows.append(row)
    call = f"pandas.read_json({str(path)!r}, lines=True, dtype=False, convert_dates=False, convert_axes=False)"
    return *plain(pd.DataFrame(rows)), call


def read_sheet(
    path: Path, sheet: str | None, again: Callable[["pd.DataFrame", Callable[[], "pd.DataFrame"]], list[str]]
) -> tuple["pd.DataFrame", list[str], str, list[str]]:
    """Return the table of a spreadsheet, notes, the pandas call that reads it, and the names in its first line.

    Without `sheet`, the file must have one sheet that is not empty. `again` mends the table by a reading that takes no text as
    missing, and returns notes.
    """
    import pandas as pd

    if importlib.util.find_spec("python_calamine") is None:
        export = f'in Python, with openpyxl: pandas.read_excel({str(path)!r}).to_csv("sheet.csv", index=False)'
        refuse(
            f"{path} is a spreadsheet, and python-calamine is not installed.",
            f"pip install 'keras-dropout[tables]', or export it as .csv, {export}",
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            opening.check_size(path, sum(member.file_size for member in members.infolist()))
    try:
        with pd.ExcelFile(path, engine="calamine") as book:
            sheet = _choose(path, book, sheet)
            first = pd.read_excel(book, sheet, header=None, nrows=1)
            cells = {"sheet_name": sheet, "dtype": object}  # by default pandas makes 7 of the text "007"
            table = pd.read_excel(book, **cells).infer_objects()
            notes = again(table, lambda: pd.read_excel(book, **cells, keep_default_na=False, na_values=[""]))
            others = len(book.sheet_names) - 1
    except BadInput:
        raise
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # calamine's errors have no base class of their own but Exception
        if type(error).__module__.partition(".")[0] != "python_calamine":
            raise
        raise ValueError(f"{type(error).__name__}: {error}") from error
    called = f"sheet {sheet!r} is read" + (f", of {others + 1}" if others else "")
    table, said = plain(table)
    header = ["" if value is None or value != value else str(value) for value in first.to_numpy(object)[0]]
    call = f"pandas.read_excel({str(path)!r}, sheet_name={sheet!r}, engine='calamine')"
    unnamed = [name for name in table if str(name).startswith("Unnamed: ") and table[name].notna().any()]
    if len(unnamed) > 1:
        refuse(
            f"{path}, sheet {sheet!r}: the first line names {len(table.columns) - len(unnamed)} of {len(table.columns)} columns.",
            f'If the names stand in the third line, in Python: {call[:-1]}, header=2).to_csv("clean.csv", index=False)',
        )
    return table, [called, *notes, *said], call, header


def _choose(path: Path, book: "pd.ExcelFile", sheet: str | None) -> str:
    """Return the name of the sheet to read."""
    import pandas as pd

    names = [str(name) for name in book.sheet_names]
    shown = ", ".join(names[:_MOST_SHOWN]) + (f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else "")
    if sheet is not None:
        if sheet not in names:
            refuse(f"{path} has no sheet {sheet!r}.", f"Its sheets: {shown}.")
        return sheet
    filled = [name for name in names if not pd.read_excel(book, name, header=None, nrows=2).empty]
    if len(filled) > 1:
        refuse(
            f"{path} has {len(filled)} sheets that are not empty: {shown}.",
            f"Name one: --sheet {filled[0]!r}, or in Python sheet={filled[0]!r}.",
        )
    return (filled or names)[0]


def plain(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[str]]:
    """Return a table of plain columns, without those of nested or binary values, and notes.

    Decimals become floats, dates dates, durations seconds; times of day, and cells among texts, become texts as in a .csv.
    """
    import pandas as pd

    notes = []
    for name in list(table.columns):
        values = table[name]
        if isinstance(values, pd.DataFrame):
            refuse(f"two columns are called {name!r}.", "Give each column a name of its own.")
        kinds = set(values.dropna().map(type)) if pd.api.types.is_object_dtype(values) else set()
        if pd.api.types.is_timedelta64_dtype(values):
            table[name] = values.dt.total_seconds()
            notes.append(f"column {name} is read as seconds")
        elif kinds and kinds <= {decimal.Decimal, int, float}:
            table[name] = pd.to_numeric(values.map(float, na_action="ignore"))
        elif kinds and kinds <= {datetime.date, datetime.datetime}:
            table[name] = pd.to_datetime(values)
        elif any(issubclass(kind, list | tuple | dict | set | bytes | np.ndarray) for kind in kinds):
            table = table.drop(columns=[name])
            notes.append(f"column {name} holds no plain values: left out")
        elif kinds == {datetime.time} or (str in kinds and len(kinds) > 1):
            table[name] = values.map(str, na_action="ignore")
    return table, notes
