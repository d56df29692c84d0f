"""The ledger's file: its tables, what became of them from version to version, and what SQLite's errors mean.

What a run came to is a row of `runs`, one of `details`, and one of `models` where its model is kept; `studies` says which runs a
command asked for, and what a report says of them; `checkpoints` holds runs that are not finished, `examples` some test data.
docs/ledger.md describes the tables for people with plain sqlite3.
"""

import contextlib
import json
import shlex
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from keras_dropout.errors import refuse

SCHEMA_VERSION = 4
LARGEST = 2**63 - 1  # of SQLite's whole numbers
PATIENCE = 60.0  # seconds to wait for another process's transaction
RUN_COLUMNS = "key, target, variant, seed, backend, engine, status, seconds, epochs, best_epoch, metrics, error, finished"
DETAIL_COLUMNS = "key, curves, log, config, versions, machine, test_losses, predictions, calibration"
STUDY_COLUMNS = "started, target, command, versions, machine, runs, document"
APPLICATION_ID = 0x4B445250  # "KDRP": tells our files from other SQLite files
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


# Where there is no ledger.
ANOTHER = "Name another ledger; given a new name, keras-dropout compare makes one."


def verify(path: str | Path) -> str:
    """Return the command that says what is damaged in a ledger."""
    return f"keras-dropout runs verify --ledger {shlex.quote(str(path))}"


class NotStored(Exception):
    """SQLite could not write. The text is one line that says why; what the ledger held before is safe."""


class Damaged(Exception):
    """Something stored cannot be read. The text says what, and why."""


@contextlib.contextmanager
def refusing(path: Path, verb: str) -> Iterator[None]:
    """Turn what SQLite, a write, or damaged content ends in into a refusal."""
    try:
        yield
    except NotStored as error:
        refuse(str(error), "What it holds is safe; free the disk, or wait for the other process, then run the command again.")
    except sqlite3.Error as error:
        if "not a database" in str(error):
            refuse(f"{path} is not a ledger: it is not an SQLite file.", ANOTHER)
        if "malformed" in str(error):
            refuse(f"the ledger {path} is damaged: {error}.", f"{verify(path)} says what is wrong; go back to a copy.")
        mend = "Check the permissions and the disk, or name another ledger."
        refuse(f"the ledger {path} {reason(error, verb)}", "Wait until that process has ended." if "locked" in str(error) else mend)
    except (Damaged, UnicodeDecodeError, json.JSONDecodeError) as error:
        refuse(f"the ledger {path} is damaged: {error}.", f"{verify(path)} says what is wrong; go back to a copy.")


def make_schema(connection: sqlite3.Connection) -> None:
    """Make the tables and views; inside a transaction where one is open."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)


def bring_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """Make of an older file one of this version; inside a transaction."""
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
    """Make an older file look like one of this version to this connection, without changing it."""
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


def check_header(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the schema, 0 for an empty file; refuse what is no ledger, or newer."""
    # In one statement: another command may be making the file at this moment.
    version, application, tables = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if tables and application != APPLICATION_ID:
        refuse(f"{path} is an SQLite file, but not a ledger.", ANOTHER)
    if version > SCHEMA_VERSION:
        refuse(f"{path} was written by a newer keras-dropout (schema {version}).", "Upgrade with pip install -U keras-dropout.")
    return version


def reason(error: Exception, verb: str) -> str:
    if "locked" in str(error):
        return f"is locked: another process has held it for {PATIENCE:g} s."
    return f"cannot be {verb}: {error}."


def select_keys(connection: sqlite3.Connection, query: str, keys: Iterable[str]) -> Iterator[tuple]:
    """The rows of a query that ends in `key IN`, in as few queries as SQLite's limit of parameters allows."""
    wanted = list(dict.fromkeys(keys))
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        yield from connection.execute(f"{query} ({', '.join('?' * len(some))})", some)
