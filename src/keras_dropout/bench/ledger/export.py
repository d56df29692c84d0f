"""Export runs as a table for other programs: CSV, Parquet or JSON, one row per run or per epoch."""

import csv
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_dropout.bench.ledger.selection import Selection, find, find_curves, finite
from keras_dropout.errors import refuse
from keras_dropout.writing import write_whole

_FORMULAS = tuple("=+-@＝＋－＠")
ENDINGS = (".csv", ".parquet", ".json")


def check_can_write(path: Path) -> None:
    """Refuse a format that needs a package that is not installed."""
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            refuse(
                "a .parquet file needs pyarrow, which is not installed.", "pip install 'keras-dropout[tables]', or write a .csv."
            )


def rows_of_runs(connection: sqlite3.Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return one row per run: the columns that the ledger lists, then a column for each metric."""
    rows = []
    for run in find(connection, selection):
        metrics = run.pop("metrics")
        rows.append(run | {name: value for name, value in metrics.items() if name not in run})
    return _fill(rows)


def rows_of_epochs(connection: sqlite3.Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return one row for each epoch of each run, with a column for each curve; the first epoch is 1."""
    rows = []
    for run, curves in find_curves(connection, selection):
        known = {name: run[name] for name in ("key", "target", "variant", "seed", "status")}
        for epoch in range(max(map(len, curves.values()), default=0)):
            rows.append(known | {"epoch": epoch + 1} | {name: each[epoch] for name, each in curves.items() if epoch < len(each)})
    return _fill(rows)


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows in the format of the file's ending; the file is complete or not written at all."""
    write = {".csv": _write_csv, ".parquet": _write_parquet, ".json": _write_json}[path.suffix]
    write_whole(path, lambda part: write(rows, part))


def _fill(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every row the same columns; refuse an empty table."""
    if not rows:
        refuse(
            "no such run is in the ledger; nothing was written.",
            "Look with keras-dropout runs, with the same --ledger, and give other filters.",
        )
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("x", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, list(rows[0]))  # DictWriter writes floats with all digits
        table.writerow({name: _harmless(name) for name in rows[0]})
        table.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)


def _harmless(value: Any) -> Any:
    """Return a cell; put an apostrophe before a text that a spreadsheet would compute as a formula, so that it stays a text."""
    formula = isinstance(value, str) and (value.startswith(("\t", "\r", "\n")) or value.lstrip().startswith(_FORMULAS))
    return f"'{value}" if formula else value


def _write_json(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(finite(list(rows)), file, indent=1, allow_nan=False)
        file.write("\n")


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
