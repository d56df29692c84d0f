"""Select runs of the ledger by filters or by key, and return them as plain values."""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from keras_dropout.bench.ledger.lookup import decoding, read_losses, read_object
from keras_dropout.bench.ledger.schema import LARGEST, RUN_COLUMNS, Damaged
from keras_dropout.bench.records import STATUSES
from keras_dropout.errors import check_choice, check_whole, refuse

SHORTEST_KEY = 4
_COLUMNS = f"{RUN_COLUMNS}, EXISTS (SELECT 1 FROM models WHERE models.key = runs.key) AS model"


@dataclass(frozen=True)
class Selection:
    """A selection of runs: a run must match every filter that is not empty. `since` is a time in ISO 8601, UTC by default."""

    target: Sequence[str] = ()
    variant: Sequence[str] = ()
    status: Sequence[str] = ()
    seed: Sequence[int] = ()
    since: str | None = None

    def __post_init__(self) -> None:
        for status in self.status:
            check_choice("status", status, STATUSES)
        for seed in self.seed:
            check_whole("seed", seed, 0, "Seeds are whole numbers from 0 on.", LARGEST)

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL, and its values."""
        names = ("target", "variant", "status", "seed")
        parts = [f"{name} IN ({', '.join('?' * len(getattr(self, name)))})" for name in names if getattr(self, name)]
        values = [value for name in names for value in getattr(self, name)]
        if self.since is not None:
            parts.append("finished >= ?")
            values.append(_utc(self.since))
        return " AND ".join(parts) or "TRUE", values


def find(connection: sqlite3.Connection, selection: Selection, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the selected runs without large columns, the newest last; if there are more than `limit`, the newest of them."""
    where, values = selection.where()
    query = f"SELECT {_COLUMNS} FROM runs WHERE {where} ORDER BY finished DESC, rowid DESC LIMIT ?"
    rows = connection.execute(query, [*values, -1 if limit is None else limit]).fetchall()
    return [_document(row) for row in reversed(rows)]


def count(connection: sqlite3.Connection, selection: Selection) -> int:
    """Return the number of selected runs."""
    where, values = selection.where()
    return connection.execute(f"SELECT count(key) FROM runs WHERE {where}", values).fetchone()[0]


def find_curves(connection: sqlite3.Connection, selection: Selection) -> Iterator[tuple[dict[str, Any], dict[str, list[float]]]]:
    """Yield each selected run with its curves, the newest last."""
    where, values = selection.where()
    query = f"SELECT {_COLUMNS}, curves FROM runs JOIN details USING (key) WHERE {where} ORDER BY finished, runs.rowid"
    for *row, found in connection.execute(query, values):
        yield _document(row), _read_json(row[0], "curves", found)


def find_key(connection: sqlite3.Connection, prefix: str) -> str:
    """Return the only key that begins with these digits; refuse if none or several do."""
    if len(prefix) < SHORTEST_KEY:
        refuse(
            f"a key is told by at least {SHORTEST_KEY} of its digits; got {prefix!r}.",
            "keras-dropout runs, with the same --ledger, shows the keys.",
        )
    query = "SELECT key FROM runs WHERE substr(key, 1, ?) = ? ORDER BY key LIMIT 3"
    found = [key for (key,) in connection.execute(query, (len(prefix), prefix.lower()))]
    if not found:
        refuse(f"the ledger has no run {prefix}.", "keras-dropout runs, with the same --ledger, shows the keys.")
    if len(found) > 1:
        refuse(f"several runs begin with {prefix}: {', '.join(found[:2])}, …", "Give more digits.")
    return found[0]


def find_model(connection: sqlite3.Connection, key: str) -> bytes:
    """Return the trained model of a run as the bytes of a .keras file; refuse a run whose model is not kept."""
    found = connection.execute("SELECT archive FROM models WHERE key = ?", (key,)).fetchone()
    if found is None:
        refuse(f"the model of the run {key} is not kept.", "keras-dropout compare … --keep-weights trains it again, and keeps it.")
    return found[0]


def describe(connection: sqlite3.Connection, key: str) -> dict[str, Any]:
    """Return everything about one run as plain values; of the test losses, the number and the mean."""
    query = f"SELECT {_COLUMNS}, curves, config, versions, machine, log, test_losses FROM runs JOIN details USING (key)"
    found = connection.execute(f"{query} WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise Damaged(f"run {key} has no details")
    *row, curves, config, versions, machine, log, losses = found
    large = {"curves": curves, "config": config, "versions": versions, "machine": machine}
    with decoding(f"the test losses of run {key} cannot be read"):
        values = None if losses is None else read_losses(losses)
    shown = None
    if values is not None:
        shown = {"count": len(values), "mean": float(values.mean(dtype=float)) if len(values) else None}
    return _document(row) | {name: _read_json(key, name, text) for name, text in large.items()} | {"test_losses": shown, "log": log}


def finite(value: Any) -> Any:
    """Replace numbers that JSON lacks (nan, infinity) by None in plain values."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _document(row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip((*RUN_COLUMNS.split(", "), "model"), row))
    return found | {"metrics": _read_json(found["key"], "metrics", found["metrics"]), "model": bool(found["model"])}


def _read_json(key: str, name: str, text: str) -> Any:
    with decoding(f"the {name} of run {key} cannot be read"):
        return read_object(name, text)


def _utc(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
        when = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        refuse(f"--since must be a date or a time; got {text!r}.", "For example 2026-07-01, or 2026-07-01T12:30.")
    return when.isoformat(timespec="milliseconds")
