"""The ledger: an SQLite file that stores runs. Writes and reads runs, and is independent of training.

Each run is written in one transaction. With write-ahead logging, several commands can share a ledger, and the ledger stays intact
if a command is killed.
"""

import contextlib
import io
import json
import shlex
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from keras_dropout.bench.ledger import schema
from keras_dropout.bench.ledger.lookup import check_readable, kept_in, results_of
from keras_dropout.bench.ledger.schema import (
    DETAIL_COLUMNS,
    RUN_COLUMNS,
    SCHEMA_VERSION,
    STUDY_COLUMNS,
    NotStored,
    Watch,
    bring_up_to_date,
    check_header,
    reason,
    refusing,
    select_keys,
)
from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.characters import clean
from keras_dropout.errors import refuse


class Ledger:
    """An open ledger, for use in a `with` statement. A missing file is created, and an older file is upgraded."""

    def __init__(self, path: str | Path):
        self.path = check_ledger_path(path)
        with refusing(self.path, "written"):
            self._connection = sqlite3.connect(self.path.absolute(), timeout=schema.PATIENCE, isolation_level=None)
            self._watch = Watch(self._connection)
            try:
                with self._watch.watching():
                    self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        self._connection.execute("BEGIN")
        version = check_header(self._connection, self.path)
        self._connection.execute("COMMIT")
        self._use_write_ahead_log()
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if version < SCHEMA_VERSION:
            with self.transaction():
                version = check_header(self._connection, self.path)  # another command may have upgraded the file in the meantime
                bring_up_to_date(self._connection, version)

    def _use_write_ahead_log(self) -> None:
        # Here SQLite does not wait for its lock, as it does elsewhere, while another command creates the same file.
        deadline = time.monotonic() + schema.PATIENCE
        while self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                if self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                    refuse(
                        f"the ledger {self.path} cannot be written: its file system has no memory that programs share.",
                        "Choose a --ledger on a disk of this machine.",
                    )
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Execute all statements inside, or none. Raises `NotStored` if SQLite cannot write; the ledger stays usable."""
        self._watch.renew()
        with self._storing():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def vacuum(self) -> None:
        """Return the space of deleted rows to the disk: afterwards none of their bytes are in the file or its log."""
        with self._storing():
            self._connection.execute("VACUUM")
            cursor = self._connection.cursor()
            cursor.row_factory = None  # its columns do not belong to the ledger
            busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise NotStored(f"the ledger {self.path} is in use: what was deleted is still in its log.")

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            with self._watch.watching():
                yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # a bug in this package
        except (sqlite3.Error, OverflowError) as error:  # OverflowError: a value of more than 2 GiB
            raise NotStored(f"the ledger {self.path} {reason(error, 'written')}") from error

    def put(self, study: Study, run: Run, result: Result, versions: dict[str, str], machine: dict[str, Any]) -> None:
        """Store a finished run in one transaction, with its model if it is to be kept; drop the checkpoint unless the run failed.

        A later result replaces a run that failed or has lost its details; other runs are never overwritten. A run that is done can
        still receive a missing model.
        """
        losses = result.test_losses
        row = {
            "key": run.key,
            "target": clean(study.target),  # SQLite cannot store lone surrogates
            "variant": run.variant.name,
            "seed": run.seed,
            "backend": study.backend,
            "engine": study.engine,
            "status": result.status,
            "seconds": result.seconds,
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "metrics": json.dumps(dict(result.metrics)),
            "error": result.error and clean(result.error),
            "finished": now(),
            "curves": json.dumps(dict(result.curves)),
            "log": result.log,
            "config": json.dumps(study.deciding(run.variant, run.seed), sort_keys=True, default=repr),
            "versions": json.dumps(versions),
            "machine": json.dumps(machine),
            "test_losses": None if losses is None else zlib.compress(np.asarray(losses, "<f4").tobytes()),
            "predictions": None if result.predictions is None else zlib.compress(_npy(result.predictions)),
            "calibration": None if result.calibration is None else json.dumps(result.calibration),
        }
        with self.transaction() as connection:
            query = "SELECT status FROM runs JOIN details USING (key) WHERE key = ?"
            before = connection.execute(query, (run.key,)).fetchone()
            if before in (None, ("failed",)):
                put_row(connection, row)
            if result.model is not None and before != ("diverged",):
                connection.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (run.key, result.model))
            if result.status != "failed":
                connection.execute("DELETE FROM checkpoints WHERE key = ?", (run.key,))

    def put_study(
        self,
        study: Study,
        command: str,
        versions: dict[str, str],
        machine: dict[str, Any],
        more: Mapping[str, Any] | None = None,
        number: int | None = None,
    ) -> int:
        """Store which runs a command asked for, and the study's document for reports, with `more`; return the number of the study.

        With the `number` of a stored study, its runs and its document are replaced. The stored start is never earlier than that of
        previous studies, so that this study is the latest even if the clock was set back.
        """
        runs = [{"variant": run.variant.name, "seed": run.seed, "key": run.key} for run in study.runs()]
        document = {"study": study.document(), **(more or {})}
        if number is not None:
            with self.transaction() as connection:
                query = "UPDATE studies SET runs = ?, document = ? WHERE id = ?"
                connection.execute(query, (json.dumps(runs), json.dumps(document), number))
            return number
        row = (now(), clean(study.target), clean(command), *map(json.dumps, (versions, machine, runs, document)))
        with self.transaction() as connection:
            values = "max(?, ifnull((SELECT max(started) FROM studies), '')), ?, ?, ?, ?, ?, ?"
            number = connection.execute(f"INSERT INTO studies ({STUDY_COLUMNS}) VALUES ({values})", row).lastrowid
        assert number is not None  # a row was inserted
        return number

    def add_to_study(self, number: int, more: Mapping[str, Any]) -> None:
        """Add entries to the document of a study."""
        with self.transaction() as connection:
            (text,) = connection.execute("SELECT document FROM studies WHERE id = ?", (number,)).fetchone()
            document = json.dumps(json.loads(text or "{}") | more)
            connection.execute("UPDATE studies SET document = ? WHERE id = ?", (document, number))

    def put_examples(self, data: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Store test examples of the data with this fingerprint, for reports."""
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # none of them is called allow_pickle
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO examples VALUES (?, ?, ?)", (data, json.dumps(about), packed.getvalue()))

    def has_examples(self, data: str) -> bool:
        """Return whether test examples of the data with this fingerprint are stored."""
        return self._connection.execute("SELECT 1 FROM examples WHERE data = ?", (data,)).fetchone() is not None

    def put_checkpoint(self, key: str, epoch: int, state: bytes) -> None:
        """Store the state of a run after `epoch` epochs, in place of an earlier state."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)", (key, epoch, state, now()))

    def checkpoints(self, keys: Iterable[str]) -> dict[str, tuple[int, bytes]]:
        """Return (epochs trained, state) by key, for those of these runs that have a checkpoint."""
        query = "SELECT key, epoch, state FROM checkpoints WHERE key IN"
        return {key: (epoch, state) for key, epoch, state in select_keys(self._connection, query, keys)}

    def get(self, keys: Iterable[str], each_example: bool = True) -> dict[str, Result]:
        """Return the stored results of these runs by key; without `each_example`, leave out values per test example."""
        self._watch.renew()
        with refusing(self.path, "read"), self._watch.watching():
            return results_of(self._connection, keys, each_example)

    def kept(self, keys: Iterable[str]) -> set[str]:
        """Return the keys of those of these runs whose models the ledger has."""
        return kept_in(self._connection, keys)


def check_ledger_path(path: str | Path) -> Path:
    """Return the path, or refuse one that cannot be written as a ledger; creates and changes nothing."""
    path = Path(path)
    if check_readable(path):
        try:
            path.open("r+b").close()
        except OSError as error:
            refuse(f"the ledger {path} cannot be written: {error.strerror}.", "Check its permissions, or choose another --ledger.")
        return path
    if not path.parent.is_dir():
        refuse(f"the ledger's folder {path.parent} does not exist.", f"Make it first: mkdir -p {shlex.quote(str(path.parent))}")
    try:  # try to write: permissions alone are not reliable (root, read-only mounts)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        refuse(f"the ledger {path} cannot be written: {error.strerror}.", "Choose a --ledger in a folder that you can write to.")
    return path


def put_row(connection: sqlite3.Connection, row: dict[str, Any]) -> None:
    """Write all columns of a run to both tables, and replace a run with the same key."""
    for table, columns in (("runs", RUN_COLUMNS), ("details", DETAIL_COLUMNS)):
        places = ", ".join(f":{name}" for name in columns.split(", "))
        connection.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})", row)


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    smallest = np.min_scalar_type(values.max(initial=0)) if values.dtype.kind in "iu" else np.dtype("<f4")
    np.save(file, values.astype(smallest.newbyteorder("<")))
    return file.getvalue()


def now() -> str:
    """Return the current time in the format of the ledger: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
