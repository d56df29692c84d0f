"""The ledger: an SQLite file that holds runs. Runs in, runs out; knows nothing of training.

One row of `runs` is one finished run, written in one transaction; `studies` says which runs a command asked for. Write-ahead
logging lets several commands share a ledger and leaves it whole when one is killed.
"""

import contextlib
import json
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.errors import refuse

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x4B445250  # "KDRP": tells our files from other SQLite files
_BEST = "best_epoch"  # stands among the metrics
_PATIENCE = 60.0  # seconds to wait for another process's transaction
_SCHEMA = """
CREATE TABLE studies (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,        -- UTC, ISO 8601
    target TEXT NOT NULL,
    command TEXT NOT NULL,
    versions TEXT NOT NULL,       -- JSON: package -> version
    machine TEXT NOT NULL,        -- JSON
    runs TEXT NOT NULL            -- JSON: [{"variant", "seed", "key"}]
);
CREATE TABLE runs (
    key TEXT PRIMARY KEY,         -- hash of everything that decides the result
    target TEXT NOT NULL,
    variant TEXT NOT NULL,        -- the name it was first asked for by
    seed INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')),
    seconds REAL NOT NULL,
    epochs INTEGER NOT NULL,
    metrics TEXT NOT NULL,        -- JSON: name -> number, last epoch (early stopping: of "best_epoch", also here)
    curves TEXT NOT NULL,         -- JSON: name -> one number an epoch
    test_losses BLOB,             -- zlib of little-endian float32, one for each test example
    error TEXT,
    config TEXT NOT NULL,         -- JSON: what the key is a hash of
    versions TEXT NOT NULL,
    machine TEXT NOT NULL,
    finished TEXT NOT NULL        -- UTC, ISO 8601
);
"""


class NotStored(Exception):
    """SQLite could not write, and why, in one line."""


class Ledger:
    """An open ledger. Use it with `with`; the file is made when it is not there."""

    def __init__(self, path: str | Path):
        self.path = check_ledger_path(path)
        try:
            self._connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            self._prepare()
        except sqlite3.OperationalError as error:
            refuse(
                f"the ledger {path} cannot be written: {error}.", "Check the permissions and the disk, or choose another --ledger."
            )
        except sqlite3.DatabaseError:
            refuse(f"{path} is not a ledger: it is not an SQLite file.", "Choose another --ledger; a new file is made.")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        version, application, tables = _read_header(self._connection)
        if tables and application != _APPLICATION_ID:
            refuse(f"{self.path} is an SQLite file, but not a ledger.", "Choose another --ledger; a new file is made.")
        if version > SCHEMA_VERSION:
            refuse(
                f"{self.path} was written by a newer keras-dropout (schema {version}).",
                "Upgrade with pip install -U keras-dropout.",
            )
        self._use_write_ahead_log()
        self._connection.execute("PRAGMA synchronous = FULL")
        if version == 0:
            self._connection.execute("BEGIN IMMEDIATE")
            if _read_header(self._connection)[0] == 0:  # no other command made it in the meantime
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.execute("COMMIT")

    def _use_write_ahead_log(self) -> None:
        # SQLite does not wait for its lock here, as it does elsewhere, when another command is making the same file.
        deadline = time.monotonic() + _PATIENCE
        while self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def put(self, study: Study, run: Run, result: Result, versions: dict[str, str], machine: dict[str, Any]) -> None:
        """Store a finished run in one transaction. A failed run is replaced by a later try; others are never overwritten."""
        losses = result.test_losses
        best = {} if result.best_epoch is None else {_BEST: result.best_epoch}
        row = {
            "key": run.key,
            "target": study.target,
            "variant": run.variant.name,
            "seed": run.seed,
            "status": result.status,
            "seconds": result.seconds,
            "epochs": result.epochs,
            "metrics": json.dumps(dict(result.metrics) | best),
            "curves": json.dumps(dict(result.curves)),
            "test_losses": None if losses is None else zlib.compress(np.asarray(losses, "<f4").tobytes()),
            "error": result.error,
            "config": json.dumps(study.deciding(run.variant, run.seed), sort_keys=True, default=repr),
            "versions": json.dumps(versions),
            "machine": json.dumps(machine),
            "finished": _now(),
        }
        columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
        updates = ", ".join(f"{name} = excluded.{name}" for name in row if name != "key")
        retry = f"ON CONFLICT (key) DO UPDATE SET {updates} WHERE runs.status = 'failed'"
        self._write(f"INSERT INTO runs ({columns}) VALUES ({places}) {retry}", row)

    def put_study(self, study: Study, command: str, versions: dict[str, str], machine: dict[str, Any]) -> None:
        """Note which runs a command asked for."""
        runs = [{"variant": run.variant.name, "seed": run.seed, "key": run.key} for run in study.runs()]
        row = (_now(), study.target, command, json.dumps(versions), json.dumps(machine), json.dumps(runs))
        self._write("INSERT INTO studies (started, target, command, versions, machine, runs) VALUES (?, ?, ?, ?, ?, ?)", row)

    def _write(self, statement: str, row: Any) -> None:
        try:
            self._connection.execute(statement, row)
        except sqlite3.OperationalError as error:
            refuse(
                f"the ledger {self.path} cannot be written: {error}.",
                "What it holds is safe; free the disk, then run the command again.",
            )

    def put_checkpoint(self, key: str, epoch: int, state: bytes) -> None:
        """Keep how far a run has come, in place of its last checkpoint."""
        self._connection.execute("CREATE TABLE IF NOT EXISTS checkpoints (key TEXT PRIMARY KEY, epoch INTEGER, state BLOB)")
        self._write("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", (key, epoch, state))

    def checkpoints(self, keys: Iterable[str]) -> dict[str, tuple[int, bytes]]:
        """The last checkpoint of each of these runs that has one: its epoch and its bytes."""
        self._connection.execute("CREATE TABLE IF NOT EXISTS checkpoints (key TEXT PRIMARY KEY, epoch INTEGER, state BLOB)")
        found = self._connection.execute("SELECT * FROM checkpoints").fetchall()
        return {key: (epoch, state) for key, epoch, state in found if key in set(keys)}

    def get(self, keys: Iterable[str]) -> dict[str, Result]:
        """The stored results of these runs, by key."""
        return _get(self._connection, keys)


def peek(path: str | Path, keys: Iterable[str]) -> dict[str, Result]:
    """The stored results of these runs, without making or changing anything; none where there is no ledger."""
    path = check_ledger_path(path)
    if not path.exists() or not path.stat().st_size:
        return {}
    with contextlib.closing(_open_to_read(path)) as connection:
        return _get(connection, keys)


def asked_for(path: str | Path) -> list[set[str]]:
    """The keys of the runs that each study in the ledger asked for, the latest study first; none where there is no ledger."""
    path = check_ledger_path(path)
    if not path.exists() or not path.stat().st_size:
        return []
    with contextlib.closing(_open_to_read(path)) as connection:
        rows = connection.execute("SELECT runs FROM studies ORDER BY id DESC").fetchall()
    return [{run["key"] for run in json.loads(runs)} for (runs,) in rows]


def check_ledger_path(path: str | Path) -> Path:
    """Refuse, without making or changing anything, a path that cannot be a ledger."""
    path = Path(path)
    if path.is_dir():
        refuse(f"the ledger {path} is a folder.", "Name a file, for example runs.db.")
    if not path.parent.is_dir():
        refuse(f"the ledger's folder {path.parent} does not exist.", f"Make it first: mkdir -p {path.parent}")
    if not path.exists():
        try:  # asks the file system itself; permissions alone do not tell (root, read-only mounts)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            refuse(
                f"the ledger {path} cannot be written: {error.strerror}.", "Choose a --ledger in a folder that you can write to."
            )
        return path
    try:
        with path.open("r+b") as file:
            header = file.read(16)
    except OSError as error:
        refuse(f"the ledger {path} cannot be written: {error.strerror}.", "Check its permissions, or choose another --ledger.")
    if header and header != b"SQLite format 3\0":
        refuse(f"{path} is not a ledger: it is not an SQLite file.", "Choose another --ledger; a new file is made.")
    return path


def _open_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True, timeout=_PATIENCE)


def _read_header(connection: sqlite3.Connection) -> tuple[int, int, int]:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return version, application, connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _get(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Result]:
    query = "SELECT status, seconds, epochs, metrics, curves, test_losses, error FROM runs WHERE key = ?"
    found = {}
    for key in keys:
        if row := connection.execute(query, (key,)).fetchone():
            status, seconds, epochs, metrics, curves, losses, error = row
            losses = None if losses is None else np.frombuffer(zlib.decompress(losses), "<f4")
            metrics = json.loads(metrics)
            best = metrics.pop(_BEST, None)
            found[key] = Result(status, seconds, epochs, metrics, json.loads(curves), losses, error, best_epoch=best)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
