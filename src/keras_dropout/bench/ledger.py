"""The ledger: an SQLite file that holds runs. Runs in, runs out; knows nothing of training.

What a run came to is a row of `runs`, one of `details`, and one of `models` where its model is kept, written in one transaction;
`studies` says which runs a command asked for; `checkpoints` holds runs that are not finished. Write-ahead logging lets several
commands share a ledger and leaves it whole when one is killed. docs/ledger.md describes the tables for people with plain sqlite3.
"""

import contextlib
import io
import json
import sqlite3
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from keras_dropout.bench.records import Result, Run, Study
from keras_dropout.errors import refuse

DEFAULT_LEDGER = "keras-dropout.db"
SCHEMA_VERSION = 4
PATIENCE = 60.0  # seconds to wait for another process's transaction
RUN_COLUMNS = "key, target, variant, seed, backend, engine, status, seconds, epochs, best_epoch, metrics, error, finished"
DETAIL_COLUMNS = "key, curves, log, config, versions, machine, test_losses, predictions, calibration"
STUDY_COLUMNS = "started, target, command, versions, machine, runs, document"
_APPLICATION_ID = 0x4B445250  # "KDRP": tells our files from other SQLite files
_MODELS = """
CREATE TABLE models (             -- since version 3
    key TEXT PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE,
    archive BLOB NOT NULL         -- a .keras file
)"""
_EXAMPLES = """
CREATE TABLE examples (           -- since version 4: test data, for reports
    data TEXT PRIMARY KEY,        -- their fingerprint
    about TEXT NOT NULL,          -- JSON: what they are
    arrays BLOB NOT NULL          -- a NumPy .npz: all answers, some inputs
)"""
_SINCE_4 = (("details", "predictions BLOB"), ("details", "calibration TEXT"), ("studies", "document TEXT"))
# What is large stands in a table of its own, the largest last: SQLite then lists runs without reading it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,        -- UTC, ISO 8601
    target TEXT NOT NULL,
    command TEXT NOT NULL,
    versions TEXT NOT NULL,       -- JSON: package -> version
    machine TEXT NOT NULL,        -- JSON
    runs TEXT NOT NULL,           -- JSON: [{"variant", "seed", "key"}]
    document TEXT                 -- JSON: what a report says of the study beside its runs
);
CREATE TABLE runs (
    key TEXT PRIMARY KEY,         -- hash of everything that decides the result
    target TEXT NOT NULL,
    variant TEXT NOT NULL,        -- the name it was first asked for by
    seed INTEGER NOT NULL,
    backend TEXT,
    engine TEXT,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')),
    seconds REAL NOT NULL,
    epochs INTEGER NOT NULL,
    best_epoch INTEGER,           -- early stopping: the epoch that is measured
    metrics TEXT NOT NULL,        -- JSON: name -> number, of the last epoch or the best
    error TEXT,
    finished TEXT NOT NULL        -- UTC, ISO 8601
);
CREATE TABLE details (
    key TEXT PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE,
    curves TEXT NOT NULL,         -- JSON: name -> one number an epoch
    log TEXT NOT NULL,            -- what the worker printed
    config TEXT NOT NULL,         -- JSON: what the key is a hash of
    versions TEXT NOT NULL,       -- JSON: package -> version
    machine TEXT NOT NULL,        -- JSON
    test_losses BLOB,             -- zlib of little-endian float32, one for each test example
    predictions BLOB,             -- zlib of a NumPy .npy: the class or value predicted of each test example
    calibration TEXT              -- JSON: curves of plain and Monte-Carlo predictions, of a study with samples
);
CREATE TABLE checkpoints (
    key TEXT PRIMARY KEY,         -- of a run that is not finished
    epoch INTEGER NOT NULL,       -- how many are trained
    state BLOB NOT NULL,
    written TEXT NOT NULL         -- UTC, ISO 8601
);
CREATE VIEW results AS            -- a diverged run can have a NaN, which is no JSON: its numbers are NULL
    SELECT key, target, variant, seed, backend, engine, status, epochs, seconds,
        json_extract(number, '$.test_loss') AS test_loss, json_extract(number, '$.test_accuracy') AS test_accuracy,
        json_extract(number, '$.validation_loss') AS validation_loss, json_extract(number, '$.train_loss') AS train_loss,
        error, finished
    FROM (SELECT *, CASE WHEN json_valid(metrics) THEN metrics END AS number FROM runs);
CREATE VIEW means AS
    SELECT target, variant, count(*) AS runs, avg(test_loss) AS test_loss, avg(test_accuracy) AS test_accuracy
    FROM results WHERE status = 'done' GROUP BY target, variant;
"""
_SCHEMA = ";".join((_SCHEMA.rstrip().removesuffix(";"), _MODELS, _EXAMPLES))
# Version 1 had one table, and the best epoch among the metrics; these make of it what there is since.
_RUNS_OF_1 = """
    SELECT key, target, variant, seed, json_extract(settings, '$.backend') AS backend,
        json_extract(settings, '$.engine') AS engine, status, seconds, epochs, json_extract(numbers, '$.best_epoch') AS best_epoch,
        CASE WHEN json_type(numbers, '$.best_epoch') IS NULL THEN metrics ELSE json_remove(numbers, '$.best_epoch') END AS metrics,
        error, finished
    FROM (SELECT *, CASE WHEN json_valid(config) THEN config END AS settings,
        CASE WHEN json_valid(metrics) THEN metrics END AS numbers FROM main.{table})"""
_LACKING = "CAST(NULL AS BLOB) AS predictions, CAST(NULL AS TEXT) AS calibration"
_DETAILS_OF_1 = f"SELECT key, curves, '' AS log, config, versions, machine, test_losses, {_LACKING} FROM main.{{table}}"


class NotStored(Exception):
    """SQLite could not write. The text is one line that says why; what the ledger held before is safe."""


class Ledger:
    """An open ledger. Use it with `with`; the file is made when it is not there, and brought up to date when it is older."""

    def __init__(self, path: str | Path):
        self.path = check_ledger_path(path)
        with refusing(self.path, "written"):
            self._connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        version = _check_header(self._connection, self.path)
        self._use_write_ahead_log()
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if version < SCHEMA_VERSION:
            with self.transaction():
                version = _check_header(self._connection, self.path)  # another command may have been here in the meantime
                if version == 1:
                    self._connection.execute("ALTER TABLE runs RENAME TO runs_of_1")
                if version in (2, 3):
                    for table, column in _SINCE_4:
                        self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
                    for table in (_MODELS, _EXAMPLES)[version - 2 :]:
                        self._connection.execute(table)
                elif version < 2:
                    if version == 1:
                        self._connection.execute("ALTER TABLE studies ADD COLUMN document TEXT")
                    make_schema(self._connection)
                if version < SCHEMA_VERSION:
                    self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                if version == 1:
                    runs, details = (select.format(table="runs_of_1") for select in (_RUNS_OF_1, _DETAILS_OF_1))
                    self._connection.execute(f"INSERT INTO runs ({RUN_COLUMNS}) {runs}")
                    self._connection.execute(f"INSERT INTO details ({DETAIL_COLUMNS}) {details}")
                    self._connection.execute("DROP TABLE runs_of_1")

    def _use_write_ahead_log(self) -> None:
        # SQLite does not wait for its lock here, as it does elsewhere, when another command is making the same file.
        deadline = time.monotonic() + PATIENCE
        while self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is executed inside, or nothing. Raises `NotStored` where SQLite cannot write; the ledger stays usable."""
        with self._storing():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def vacuum(self) -> None:
        """Give the space of what was deleted back to the disk."""
        with self._storing():
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # a mistake of ours
        except (sqlite3.Error, OverflowError) as error:  # the second for more than 2 GiB in one value
            raise NotStored(f"the ledger {self.path} {_reason(error, 'written')}") from error

    def put(self, study: Study, run: Run, result: Result, versions: dict[str, str], machine: dict[str, Any]) -> None:
        """Store a finished run in one transaction, with its model if that is to be kept, and drop its checkpoint unless it failed.

        A failed run is replaced by a later try; others are never overwritten. One that is done may get the model that it lacks.
        """
        losses = result.test_losses
        row = {
            "key": run.key,
            "target": study.target,
            "variant": run.variant.name,
            "seed": run.seed,
            "backend": study.backend,
            "engine": study.engine,
            "status": result.status,
            "seconds": result.seconds,
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "metrics": json.dumps(dict(result.metrics)),
            "error": result.error,
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
            before = connection.execute("SELECT status FROM runs WHERE key = ?", (run.key,)).fetchone()
            if before in (None, ("failed",)):
                put_row(connection, row)
            if result.model is not None and before != ("diverged",):
                connection.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (run.key, result.model))
            if result.status != "failed":
                connection.execute("DELETE FROM checkpoints WHERE key = ?", (run.key,))

    def put_study(
        self, study: Study, command: str, versions: dict[str, str], machine: dict[str, Any], more: Mapping[str, Any] | None = None
    ) -> int:
        """Note which runs a command asked for, and what a report says of the study, `more` of it; the number of the study."""
        runs = [{"variant": run.variant.name, "seed": run.seed, "key": run.key} for run in study.runs()]
        document = {"study": study.document(), **(more or {})}
        row = (now(), study.target, command, *map(json.dumps, (versions, machine, runs, document)))
        with self.transaction() as connection:
            return connection.execute(f"INSERT INTO studies ({STUDY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row).lastrowid

    def add_to_study(self, number: int, more: Mapping[str, Any]) -> None:
        """Put more into the document of a study."""
        with self.transaction() as connection:
            (text,) = connection.execute("SELECT document FROM studies WHERE id = ?", (number,)).fetchone()
            document = json.dumps(json.loads(text or "{}") | more)
            connection.execute("UPDATE studies SET document = ? WHERE id = ?", (document, number))

    def put_examples(self, data: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep test examples of the data with this fingerprint, for reports."""
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO examples VALUES (?, ?, ?)", (data, json.dumps(about), packed.getvalue()))

    def put_checkpoint(self, key: str, epoch: int, state: bytes) -> None:
        """Keep the state of a run after so many epochs, in place of an earlier one."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)", (key, epoch, state, now()))

    def checkpoints(self, keys: Iterable[str]) -> dict[str, tuple[int, bytes]]:
        """The epochs trained and the state of those of these runs that have a checkpoint, by key."""
        query = "SELECT key, epoch, state FROM checkpoints WHERE key IN"
        return {key: (epoch, state) for key, epoch, state in select_keys(self._connection, query, keys)}

    def get(self, keys: Iterable[str], each_example: bool = True) -> dict[str, Result]:
        """The stored results of these runs, by key; without what they have of each test example where that is not needed."""
        return _get(self._connection, keys, each_example)

    def kept(self, keys: Iterable[str]) -> set[str]:
        """Those of these runs whose models the ledger has."""
        return _kept(self._connection, keys)


def peek(path: str | Path, keys: Iterable[str], each_example: bool = True) -> dict[str, Result]:
    """The stored results of these runs, without making or changing anything; none where there is no ledger."""
    if not check_readable(path):
        return {}
    with reading(path) as connection:
        return _get(connection, keys, each_example)


def kept(path: str | Path, keys: Iterable[str]) -> set[str]:
    """Those of these runs whose models the ledger has; none where there is no ledger. Changes nothing."""
    if not check_readable(path):
        return set()
    with reading(path) as connection:
        return _kept(connection, keys)


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
        try:
            asked = [{name: run[name] for name in ("key", "variant", "seed")} for run in json.loads(runs)]
            large = {"versions": json.loads(versions), "machine": json.loads(machine), "document": json.loads(document or "null")}
            keys = [run["key"] for run in asked]
            status = dict(select_keys(connection, "SELECT key, status FROM runs WHERE key IN", keys))
            one_each = {run["variant"]: run["key"] for run in asked if run["key"] in status}
            configs = dict(select_keys(connection, "SELECT key, config FROM details WHERE key IN", one_each.values()))
            configs = {variant: json.loads(configs[key]) for variant, key in one_each.items()}
        except (ValueError, TypeError, KeyError):
            refuse(f"the ledger {path} is damaged: study {about[0]} cannot be read.", "keras-dropout runs verify says more.")
        have = _kept(connection, keys)
    first = next(iter(configs.values()), {})
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
        rows = connection.execute("SELECT id, started, target, command, runs FROM studies ORDER BY started, id").fetchall()
        done = {key for (key,) in connection.execute("SELECT key FROM runs WHERE status != 'failed'")}
    found = []
    for number, started, target, command, text in rows:
        try:
            runs = [(run["key"], run["variant"]) for run in json.loads(text)]
        except (ValueError, TypeError, KeyError):
            refuse(f"the ledger {path} is damaged: study {number} cannot be read.", "keras-dropout runs verify says more.")
        variants, keys = list(dict.fromkeys(variant for _, variant in runs)), {key for key, _ in runs}
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
        refuse(f"the ledger {path} is damaged: the examples of data {data} cannot be read.", "keras-dropout runs verify says more.")


def asked_for(path: str | Path) -> list[set[str]]:
    """The keys of the runs that each study in the ledger asked for, the latest study first; none where there is no ledger."""
    if not check_readable(path):
        return []
    with reading(path) as connection:
        rows = connection.execute("SELECT runs FROM studies ORDER BY started DESC, id DESC").fetchall()
    return [{run["key"] for run in json.loads(runs)} for (runs,) in rows]


def check_ledger_path(path: str | Path) -> Path:
    """Refuse, without making or changing anything, a path that cannot be a ledger to write to."""
    path = Path(path)
    if check_readable(path):
        try:
            path.open("r+b").close()
        except OSError as error:
            refuse(f"the ledger {path} cannot be written: {error.strerror}.", "Check its permissions, or choose another --ledger.")
        return path
    if not path.parent.is_dir():
        refuse(f"the ledger's folder {path.parent} does not exist.", f"Make it first: mkdir -p {path.parent}")
    try:  # asks the file system itself; permissions alone do not tell (root, read-only mounts)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        refuse(f"the ledger {path} cannot be written: {error.strerror}.", "Choose a --ledger in a folder that you can write to.")
    return path


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
        refuse(f"the ledger {path} cannot be read: {error.strerror}.", "Check its permissions, or choose another --ledger.")
    if header and header != b"SQLite format 3\0":
        refuse(f"{path} is not a ledger: it is not an SQLite file.", "Choose another --ledger; a new file is made.")
    return True


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of a ledger and changes nothing; an older file looks like one of this version."""
    path = Path(path)
    if not check_readable(path):
        refuse(f"there is no ledger {path}.", "Name one with --ledger; keras-dropout compare makes it.")
    with refusing(path, "read"), contextlib.closing(_connect_to_read(path.resolve())) as connection:
        connection.execute("BEGIN")
        version = _check_header(connection, path)
        if version == 0:  # a command was killed before it made the tables
            with contextlib.closing(sqlite3.connect(":memory:")) as empty:
                make_schema(empty)
                yield empty
            return
        if version == 1:
            connection.execute(f"CREATE TEMP VIEW details AS {_DETAILS_OF_1.format(table='runs')}")
            connection.execute(f"CREATE TEMP VIEW runs AS {_RUNS_OF_1.format(table='runs')}")
            connection.execute("CREATE TEMP TABLE checkpoints (key, epoch, state, written)")
        elif version < SCHEMA_VERSION:
            connection.execute(f"CREATE TEMP VIEW details AS SELECT *, {_LACKING} FROM main.details")
        if version < SCHEMA_VERSION:
            connection.execute("CREATE TEMP VIEW studies AS SELECT *, CAST(NULL AS TEXT) AS document FROM main.studies")
            for table in (_MODELS, _EXAMPLES)[max(0, version - 2) :]:
                connection.execute(table.replace("CREATE TABLE", "CREATE TEMP TABLE"))
        connection.execute("PRAGMA query_only = ON")
        yield connection


@contextlib.contextmanager
def refusing(path: Path, verb: str) -> Iterator[None]:
    """Turn what SQLite, or a write, ends in into a refusal."""
    try:
        yield
    except NotStored as error:
        refuse(str(error), "What it holds is safe; free the disk, or wait for the other process, then run the command again.")
    except sqlite3.Error as error:
        if "not a database" in str(error):
            refuse(f"{path} is not a ledger: it is not an SQLite file.", "Choose another --ledger; a new file is made.")
        if "malformed" in str(error):
            refuse(f"the ledger {path} is damaged: {error}.", "keras-dropout runs verify says what is wrong; go back to a copy.")
        mend = "Check the permissions and the disk, or choose another --ledger."
        refuse(
            f"the ledger {path} {_reason(error, verb)}", "Wait until that process has ended." if "locked" in str(error) else mend
        )


def make_schema(connection: sqlite3.Connection) -> None:
    """Make the tables and views; inside a transaction where one is open."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)


def put_row(connection: sqlite3.Connection, row: dict[str, Any]) -> None:
    """Write a run, all columns of both tables, over the one of the same key if there is one."""
    for table, columns in (("runs", RUN_COLUMNS), ("details", DETAIL_COLUMNS)):
        places = ", ".join(f":{name}" for name in columns.split(", "))
        connection.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})", row)


def select_keys(connection: sqlite3.Connection, query: str, keys: Iterable[str]) -> Iterator[tuple]:
    """The rows of a query that ends in `key IN`, in as few queries as SQLite's limit of parameters allows."""
    wanted = list(dict.fromkeys(keys))
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        yield from connection.execute(f"{query} ({', '.join('?' * len(some))})", some)


def read_npy(packed: bytes) -> np.ndarray:
    """The array in a `predictions` column."""
    return np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False)


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    smallest = np.min_scalar_type(values.max(initial=0)) if values.dtype.kind in "iu" else np.dtype("<f4")
    np.save(file, values.astype(smallest.newbyteorder("<")))
    return file.getvalue()


def now() -> str:
    """The time as the ledger writes it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _connect_to_read(path: Path) -> sqlite3.Connection:
    def connect(how: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=PATIENCE, isolation_level=None)

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


def _check_header(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the schema, 0 for an empty file; refuse what is no ledger, or newer."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != _APPLICATION_ID:
        refuse(f"{path} is an SQLite file, but not a ledger.", "Choose another --ledger; a new file is made.")
    if version > SCHEMA_VERSION:
        refuse(f"{path} was written by a newer keras-dropout (schema {version}).", "Upgrade with pip install -U keras-dropout.")
    return version


def _reason(error: Exception, verb: str) -> str:
    if "locked" in str(error):
        return f"is locked: another process has held it for {PATIENCE:g} s."
    return f"cannot be {verb}: {error}."


def _kept(connection: sqlite3.Connection, keys: Iterable[str]) -> set[str]:
    return {key for (key,) in select_keys(connection, "SELECT key FROM models WHERE key IN", keys)}


def _get(connection: sqlite3.Connection, keys: Iterable[str], each_example: bool) -> dict[str, Result]:
    keys = list(keys)
    large = "test_losses, predictions, calibration" if each_example else "NULL, NULL, NULL"
    columns = f"key, status, seconds, epochs, metrics, curves, {large}, error, best_epoch, log"
    query = f"SELECT {columns} FROM runs JOIN details USING (key) WHERE key IN"
    found = {}
    for key, status, seconds, epochs, *texts, losses, predictions, calibration, error, best, log in select_keys(
        connection, query, keys
    ):
        losses = None if losses is None else np.frombuffer(zlib.decompress(losses), "<f4")
        more = {
            "predictions": None if predictions is None else read_npy(predictions),
            "calibration": None if calibration is None else json.loads(calibration),
        }
        found[key] = Result(status, seconds, epochs, *map(json.loads, texts), losses, error, best_epoch=best, log=log, **more)
    return {key: found[key] for key in keys if key in found}
