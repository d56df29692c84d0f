"""The ledger's file: its tables, their changes from version to version, and the meaning of SQLite's errors.

A result is a row of `runs`, a row of `details`, and a row of `models` if the model is kept. `studies` lists the runs that each
command asked for, with text for reports. `checkpoints` holds unfinished runs, and `examples` holds some test data.
docs/ledger.md describes the tables for users of plain sqlite3.
"""

import contextlib
import json
import re
import shlex
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from keras_dropout.errors import refuse

SCHEMA_VERSION = 4
LARGEST = 2**63 - 1  # SQLite's largest whole number
PATIENCE = 60.0  # seconds to wait for another process's transaction
MOST_STEPS = 10**9  # of SQLite's virtual machine, about a minute; a query takes some tens of steps per row
_STEPS_AT_ONCE = 10**5  # take milliseconds; then Ctrl-C takes effect
RUN_COLUMNS = "key, target, variant, seed, backend, engine, status, seconds, epochs, best_epoch, metrics, error, finished"
DETAIL_COLUMNS = "key, curves, log, config, versions, machine, test_losses, predictions, calibration"
STUDY_COLUMNS = "started, target, command, versions, machine, runs, document"
APPLICATION_ID = 0x4B445250  # "KDRP": distinguishes ledgers from other SQLite files
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
# Large values are in a separate table, the largest last, so that SQLite lists runs without reading them.
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
_TABLE_OF_1 = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY, target TEXT NOT NULL, variant TEXT NOT NULL, seed INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')), seconds REAL NOT NULL, epochs INTEGER NOT NULL,
    metrics TEXT NOT NULL, curves TEXT NOT NULL, test_losses BLOB, error TEXT, config TEXT NOT NULL, versions TEXT NOT NULL,
    machine TEXT NOT NULL, finished TEXT NOT NULL
)"""
# The tables that SQLite's ANALYZE creates.
_STATISTICS = ("CREATE TABLE sqlite_stat1(tbl,idx,stat)", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)")
# Version 1 had one table, with the best epoch among the metrics; these queries convert it to the later tables.
_RUNS_OF_1 = """
    SELECT key, target, variant, seed, json_extract(settings, '$.backend') AS backend,
        json_extract(settings, '$.engine') AS engine, status, seconds, epochs, json_extract(numbers, '$.best_epoch') AS best_epoch,
        CASE WHEN json_type(numbers, '$.best_epoch') IS NULL THEN metrics ELSE json_remove(numbers, '$.best_epoch') END AS metrics,
        error, finished
    FROM (SELECT *, CASE WHEN json_valid(config) THEN config END AS settings,
        CASE WHEN json_valid(metrics) THEN metrics END AS numbers FROM main.{table})"""
_LACKING = "CAST(NULL AS BLOB) AS predictions, CAST(NULL AS TEXT) AS calibration"
_DETAILS_OF_1 = f"SELECT key, curves, '' AS log, config, versions, machine, test_losses, {_LACKING} FROM main.{{table}}"

# The fix to offer when there is no ledger.
ANOTHER = "Name another ledger; given a new name, keras-dropout compare makes one."


class NotStored(Exception):
    """A failure of SQLite to write. The text gives the reason in one line; the previous contents of the ledger are safe."""


class Damaged(Exception):
    """A failure to read stored content. The text says which content, and why."""


def _plain(sql: str) -> str:
    """Return a statement without comments and insignificant white space."""
    sql = re.sub(r"--[^\n]*", "", sql).replace("IF NOT EXISTS ", "")
    return re.sub(r"\s*([(),=])\s*|\s+", lambda found: found[1] or " ", sql, flags=re.ASCII).strip()


_TYPES = {"TEXT": str, "INTEGER": int, "REAL": float, "BLOB": bytes}
# Column -> allowed Python types; a column name has the same type in all tables.
KINDS = {
    name: (_TYPES[kind],) if must else (_TYPES[kind], type(None))
    for name, kind, must in re.findall(r"^    (\w+) (TEXT|INTEGER|REAL|BLOB)( NOT NULL| PRIMARY KEY)?", _SCHEMA, re.MULTILINE)
}


def made(version: int) -> dict[str, str]:
    """Return the tables and views of a file of this version, as plain SQL by name."""
    found = {sql.split("(")[0].split()[2]: sql for sql in map(_plain, _SCHEMA.split(";"))}
    for table, column in _SINCE_4 if version < 4 else ():
        found[table] = found[table].replace(f",{column}", "")
    if version == 1:
        return {"studies": found["studies"], "runs": _plain(_TABLE_OF_1)}
    later = {"models": 3, "examples": 4}
    return {name: sql for name, sql in found.items() if version >= later.get(name, 1)}


def foreign(connection: sqlite3.Connection, version: int) -> list[str]:
    """Return the triggers, views, tables and indexes in a file that this package did not create, as "trigger 'name'".

    A trigger changes what is written; a view, an index expression or a generated column may never end.
    """
    known = {*(made(version).values() if version else ()), *_STATISTICS}
    found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    return [
        f"{kind!s:.9} {name!r:.40}"
        for kind, name, sql in found
        if not (sql is None if kind == "index" else _plain(str(sql)) in known)  # SQLite itself creates an index for each key
    ]


class Watch:
    """A guard for a connection to an untrusted file.

    A value of a wrong type raises `Damaged`; Ctrl-C and a limit on steps stop endless queries.
    """

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self.renew()
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.row_factory = _checked
        connection.set_progress_handler(self._ends, _STEPS_AT_ONCE)

    def renew(self) -> None:
        """Reset the limit on steps."""
        self._left = MOST_STEPS

    def limit_values(self) -> None:
        """Limit the size of a value to the size of the file; only a damaged file whose pages form a loop could hold more."""
        pages, size = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(max(pages * size, 10**6), 2**31 - 1))

    def _ends(self) -> bool:
        # SQLite calls this method, and Python raises KeyboardInterrupt in it. SQLite then reports an interruption.
        self._left -= _STEPS_AT_ONCE
        return self._left < 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Turn an interruption of SQLite into its cause: KeyboardInterrupt, or `Damaged` at the limit on steps."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error) != "interrupted":
                raise
            if self._left < 0:
                raise Damaged("reading it does not end") from error
            raise KeyboardInterrupt from error


def _checked(cursor: sqlite3.Cursor, row: tuple) -> tuple:
    for (name, *_), value in zip(cursor.description, row):
        if name in KINDS and not isinstance(value, KINDS[name]):
            key = next((f"{value!s:.64}: " for (name, *_), value in zip(cursor.description, row) if name == "key"), "")
            raise Damaged(f"{key and 'run '}{key}its {name} is {type(value).__name__}, not {KINDS[name][0].__name__}")
    return row


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    ledger = shlex.quote(str(path))
    refuse(
        f"the ledger {path} is damaged: {error}.",
        f"keras-dropout runs verify --ledger {ledger} says what is wrong; go back to a copy.",
    )


@contextlib.contextmanager
def refusing(path: Path, verb: str) -> Iterator[None]:
    """Turn errors of SQLite, failed writes and damaged content into refusals."""
    try:
        yield
    except NotStored as error:
        refuse(str(error), "What it holds is safe; free the disk, or wait for the other process, then run the command again.")
    except (sqlite3.DataError, Damaged, UnicodeDecodeError, json.JSONDecodeError) as error:  # DataError: larger than the file
        _refuse_damaged(path, error)
    except sqlite3.Error as error:
        if str(error) == "interrupted":
            raise KeyboardInterrupt from error
        if "not a database" in str(error):
            refuse(f"{path} is not a ledger: it is not an SQLite file.", ANOTHER)
        if "malformed" in str(error):
            _refuse_damaged(path, error)
        fix = "Check the permissions and the disk, or choose another --ledger."
        refuse(f"the ledger {path} {reason(error, verb)}", "Wait until that process has ended." if "locked" in str(error) else fix)


def make_schema(connection: sqlite3.Connection) -> None:
    """Create the tables and views, inside the open transaction if there is one."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)


def bring_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """Upgrade an older file to this version, inside a transaction."""
    if version == 1:
        connection.execute("ALTER TABLE runs RENAME TO runs_of_1")
        connection.execute("ALTER TABLE studies ADD COLUMN document TEXT")
    if version < 2:
        make_schema(connection)
    elif version < SCHEMA_VERSION:
        for table, column in _SINCE_4:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        for table in (_MODELS, _EXAMPLES)[version - 2 :]:
            connection.execute(table)
    if version < SCHEMA_VERSION:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    if version == 1:
        runs, details = (select.format(table="runs_of_1") for select in (_RUNS_OF_1, _DETAILS_OF_1))
        connection.execute(f"INSERT INTO runs ({RUN_COLUMNS}) {runs}")
        connection.execute(f"INSERT INTO details ({DETAIL_COLUMNS}) {details}")
        connection.execute("DROP TABLE runs_of_1")


def look_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """Make an older file look like one of this version to this connection, without changing the file."""
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


def check_header(connection: sqlite3.Connection, path: Path, strict: bool = True) -> int:
    """Return the schema version, 0 for an empty file; refuse a file that is no ledger, is newer, or (`strict`) has foreign tables.

    Call it inside a transaction: another command may be creating the file at the same time.
    """
    # Uses PRAGMA statements, as a file may contain a view called pragma_user_version.
    version, application = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id"))
    tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    if (tables and application != APPLICATION_ID) or version < 0:
        refuse(f"{path} is an SQLite file, but not a ledger.", ANOTHER)
    if version > SCHEMA_VERSION:
        refuse(f"{path} was written by a newer keras-dropout (schema {version}).", "Upgrade with pip install -U keras-dropout.")
    if strict and (found := foreign(connection, version)):
        refuse(
            f"the ledger {path} has what keras-dropout does not make: {', '.join(found[:3])}{', …' if found[3:] else ''}.",
            "It can change what is stored, or never end: drop with SQLite what you added yourself, or go back to a copy.",
        )
    return version


def reason(error: Exception, verb: str) -> str:
    if "locked" in str(error):
        return f"is locked: another process has held it for {PATIENCE:g} s."
    return f"cannot be {verb}: {error}."


def select_keys(connection: sqlite3.Connection, query: str, keys: Iterable[str]) -> Iterator[tuple]:
    """Yield the rows of a query that ends in `key IN`, with 500 keys per query because SQLite limits parameters."""
    wanted = list(dict.fromkeys(keys))
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        yield from connection.execute(f"{query} ({', '.join('?' * len(some))})", some)
