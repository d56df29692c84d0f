"""What a ledger has: runs, models, studies, examples. Read without making or changing anything."""

import contextlib
import io
import json
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench import schema
from keras_dropout.bench.records import Result
from keras_dropout.bench.schema import ANOTHER, Damaged, check_header, look_up_to_date, make_schema, refusing, select_keys, verify
from keras_dropout.errors import refuse


def peek(path: str | Path, keys: Iterable[str], each_example: bool = True) -> dict[str, Result]:
    """The stored results of these runs, without making or changing anything; none where there is no ledger."""
    if not check_readable(path):
        return {}
    with reading(path) as connection:
        return results_of(connection, keys, each_example)


def kept(path: str | Path, keys: Iterable[str]) -> set[str]:
    """Those of these runs whose models the ledger has; none where there is no ledger. Changes nothing."""
    if not check_readable(path):
        return set()
    with reading(path) as connection:
        return kept_in(connection, keys)


def models(path: str | Path, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """(key, bytes of a .keras file) of those of these runs whose models are kept, one at a time in this order. Changes nothing."""
    if not check_readable(path):
        return
    with reading(path) as connection:
        for key in dict.fromkeys(keys):
            yield from connection.execute("SELECT key, archive FROM models WHERE key = ?", (key,))


def latest_study(path: str | Path, target: str | None = None, number: int | None = None) -> dict[str, Any] | None:
    """What the latest study in the ledger, the latest of a target, or the study of a number asked for; None where there is none.
    Changes nothing.

    {"id", "started", "target", "command", "versions", "machine", "document", "config", "placements", "runs"}. The runs, in the
    study's order, are {"key", "variant", "seed", "status", "model"}: the status None where there is no such run, and whether its
    model is kept. The config is that of `details` without placement and seed ("data" is a fingerprint, "split" also has sizes); it
    is empty where no run has ended. The placements are those of the variants of which a run has ended. The document is that of
    `put_study`, None where the study was written by an earlier version.
    """
    if not check_readable(path):
        return None
    with reading(path) as connection:
        query = "SELECT id, started, target, command, versions, machine, document, runs FROM studies"
        where = "target = ifnull(?, target) AND id = ifnull(?, id)"
        row = connection.execute(f"{query} WHERE {where} ORDER BY started DESC, id DESC LIMIT 1", (target, number)).fetchone()
        if row is None:
            return None
        *about, versions, machine, document, runs = row
        asked = _asked(about[0], runs, "key", "variant", "seed")
        try:
            large = {"versions": json.loads(versions), "machine": json.loads(machine), "document": json.loads(document or "null")}
            keys = [run["key"] for run in asked]
            status = dict(select_keys(connection, "SELECT key, status FROM runs WHERE key IN", keys))
            one_each = {run["variant"]: run["key"] for run in asked if run["key"] in status}
            configs = dict(select_keys(connection, "SELECT key, config FROM details WHERE key IN", one_each.values()))
            configs = {variant: json.loads(configs[key]) for variant, key in one_each.items()}
        except (ValueError, TypeError, KeyError) as why:
            raise Damaged(f"study {about[0]} cannot be read") from why
        have = kept_in(connection, keys)
    first: dict[str, Any] = next(iter(configs.values()), {})
    return {
        **dict(zip(("id", "started", "target", "command"), about)),
        **large,
        "config": {name: value for name, value in first.items() if name not in ("placement", "seed")},
        "placements": {variant: config.get("placement") for variant, config in configs.items()},
        "runs": [run | {"status": status.get(run["key"]), "model": run["key"] in have} for run in asked],
    }


def studies(path: str | Path) -> list[dict[str, Any]]:
    """The studies that were asked for, the newest last: "number", "started", "target", "variants", how many "runs" it has and
    how many of them are "done", and its "command". Changes nothing."""
    with reading(path) as connection:
        query = "SELECT id, started, target, command, runs FROM studies ORDER BY started, id"
        rows = [(*about, _asked(about[0], text, "key", "variant")) for *about, text in connection.execute(query)]
        done = {key for (key,) in connection.execute("SELECT key FROM runs WHERE status != 'failed'")}
    found = []
    for number, started, target, command, runs in rows:
        variants, keys = list(dict.fromkeys(run["variant"] for run in runs)), {run["key"] for run in runs}
        counts = {"variants": variants, "runs": len(keys), "done": len(keys & done)}
        found.append({"number": number, "started": started, "target": target, **counts, "command": command})
    return found


def examples(path: str | Path, data: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What the ledger keeps of the test examples of data with this fingerprint: what they are, and arrays. Changes nothing."""
    with reading(path) as connection:
        row = connection.execute("SELECT about, arrays FROM examples WHERE data = ?", (data,)).fetchone()
    if row is None:
        return None
    try:
        with np.load(io.BytesIO(row[1])) as arrays:
            return json.loads(row[0]), dict(arrays)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile, zlib.error):
        refuse(f"the ledger {path} is damaged: the examples of data {data} cannot be read.", f"{verify(path)} says more.")


def asked_for(path: str | Path) -> list[set[str]]:
    """The keys of the runs that each study in the ledger asked for, the latest study first; none where there is no ledger."""
    if not check_readable(path):
        return []
    with reading(path) as connection:
        rows = connection.execute("SELECT id, runs FROM studies ORDER BY started DESC, id DESC")
        return [{run["key"] for run in _asked(*row, "key")} for row in rows]


def _asked(study: int, runs: str, *names: str) -> list[dict[str, Any]]:
    """What a study's row says of the runs that it asked for."""
    try:
        return [{name: run[name] for name in names} for run in json.loads(runs)]
    except (ValueError, TypeError, KeyError) as why:
        raise Damaged(f"study {study} cannot be read") from why


def check_readable(path: str | Path) -> bool:
    """Whether there is a file; refuse one that is no SQLite file."""
    path = Path(path)
    if path.is_dir():
        refuse(f"the ledger {path} is a folder.", "Name a file, for example runs.db.")
    try:
        with path.open("rb") as file:
            header = file.read(16)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        refuse(f"the ledger {path} cannot be read: {error.strerror}.", f"Check its permissions. {ANOTHER}")
    if header and header != b"SQLite format 3\0":
        refuse(f"{path} is not a ledger: it is not an SQLite file.", ANOTHER)
    return True


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of a ledger and changes nothing; an older file looks like one of this version."""
    path = Path(path)
    if not check_readable(path):
        refuse(f"there is no ledger {path}.", ANOTHER)
    with refusing(path, "read"), contextlib.closing(_connect_to_read(path.resolve())) as connection:
        connection.execute("BEGIN")
        version = check_header(connection, path)
        if version == 0:  # a command was killed before it made the tables
            with contextlib.closing(sqlite3.connect(":memory:")) as empty:
                make_schema(empty)
                yield empty
            return
        look_up_to_date(connection, version)
        connection.execute("PRAGMA query_only = ON")
        yield connection


def read_object(column: str, text: Any) -> dict[str, Any]:
    """The JSON object in a column: of `metrics` a number each, of `curves` a list of numbers each. Raises ValueError or TypeError
    for anything else."""
    found = json.loads(text, parse_int=float if column in ("metrics", "curves") else int)  # a whole number may exceed all floats
    if not isinstance(found, dict):
        raise ValueError(f"its {column} are no JSON object")
    for value in found.values() if column in ("metrics", "curves") else ():
        numbers = [value] if column == "metrics" else value
        if not isinstance(numbers, list) or not all(isinstance(number, float) for number in numbers):
            raise ValueError(f"its {column} are not numbers")
    return found


def read_npy(packed: bytes) -> np.ndarray:
    """The array in a `predictions` column."""
    return np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    def connect(how: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=schema.PATIENCE, isolation_level=None)

    connection = connect("mode=rw")  # where that is allowed: SQLite then takes its two files beside the ledger away again
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        connection.close()
        if not any(words in str(error) for words in ("unable to open", "readonly")):
            raise
        # In a folder that cannot be written SQLite makes no index of the write-ahead log; where there is no log, none is needed.
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            refuse(
                f"the ledger {path} cannot be read: its last command was killed, and what it wrote is still in {log.name}.",
                "Copy both files to a folder that you can write to, and read them there.",
            )
        return connect("immutable=1")
    return connection


def kept_in(connection: sqlite3.Connection, keys: Iterable[str]) -> set[str]:
    return {key for (key,) in select_keys(connection, "SELECT key FROM models WHERE key IN", keys)}


def results_of(connection: sqlite3.Connection, keys: Iterable[str], each_example: bool) -> dict[str, Result]:
    keys = list(keys)
    large = "test_losses, predictions, calibration" if each_example else "NULL, NULL, NULL"
    columns = f"key, status, seconds, epochs, metrics, curves, {large}, error, best_epoch, log"
    query = f"SELECT {columns} FROM runs JOIN details USING (key) WHERE key IN"
    found = {}
    for row in select_keys(connection, query, keys):
        key, status, seconds, epochs, metrics, curves, losses, predictions, calibration, error, best, log = row
        try:
            found[key] = Result(
                status,
                seconds,
                epochs,
                read_object("metrics", metrics),
                read_object("curves", curves),
                test_losses=None if losses is None else np.frombuffer(zlib.decompress(losses), "<f4"),
                error=error,
                best_epoch=best,
                log=log,
                predictions=None if predictions is None else read_npy(predictions),
                calibration=None if calibration is None else read_object("calibration", calibration),
            )
        except (ValueError, TypeError, EOFError, zlib.error) as why:
            raise Damaged(f"run {key}: {why}") from why
    return {key: found[key] for key in keys if key in found}
