"""Ledgers that somebody made to do harm: what SQLite would run by itself is refused before anything is read, and ends."""

import os
import signal
import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest

from keras_dropout.bench.ledger import schema
from keras_dropout.bench.ledger.admin import delete, merge, vacuum, verify
from keras_dropout.bench.ledger.lookup import examples, kept, latest_study, models, peek, reading, studies
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import DataFacts, Result, Study, Variant
from keras_dropout.errors import BadInput

STUDY = Study(
    "t", DataFacts("d", "f", 9, 1, 2), {}, {"loss": "mse"}, "held-out", "jax", "compiled", 1, 1, (0,), (Variant("none", {}),)
)
(RUN,) = STUDY.runs()
NUMBERS = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"  # which has no end
EDIT = "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, {}) WHERE name = 'runs'"
FOREIGN = {
    "a trigger that rewrites what is stored": (
        """CREATE TRIGGER t AFTER INSERT ON runs BEGIN UPDATE runs SET metrics = '{"test_loss": 0.0}'; END""",
        "trigger 't'",
    ),
    "a view in place of a table": (f"ALTER TABLE runs RENAME TO r2; CREATE VIEW runs AS {NUMBERS} SELECT r2.* FROM r2, r", "'r2'"),
    "a view in place of a pragma": (f"CREATE VIEW pragma_user_version AS {NUMBERS} SELECT n AS user_version FROM r", "pragma_user"),
    "a view that is not ours": ("DROP VIEW means; CREATE VIEW means AS SELECT 1 AS runs", "view 'means'"),
    "an index": ("CREATE INDEX i ON runs (target)", "index 'i'"),
    "an index of an expression": ("CREATE INDEX i ON runs (lower(target))", "index 'i'"),
    "a generated column": ("ALTER TABLE runs ADD COLUMN g AS (hex(zeroblob(9000)))", "table 'runs'"),
    "a virtual table": ("CREATE VIRTUAL TABLE v USING fts5(words)", "table 'v'"),
    "a table that keeps runs from being deleted": ("CREATE TABLE f (key REFERENCES runs (key) ON DELETE RESTRICT)", "table 'f'"),
    "an order of letters": (EDIT.format("'key TEXT', 'key TEXT COLLATE NOCASE'"), "table 'runs'"),
    "a condition": (EDIT.format("'seconds REAL', 'seconds REAL CHECK (seconds > hex(zeroblob(9000)))'"), "table 'runs'"),
    "a name with a terminal's escape": ('CREATE VIEW "\x1b]0;x\x07" AS SELECT 1', r"view '\x1b]0;x\x07'"),
    "a file of no version with tables": ("PRAGMA user_version = 0", "table 'checkpoints'"),
}
READERS = (
    lambda path: peek(path, [RUN.key]),
    lambda path: kept(path, [RUN.key]),
    lambda path: list(models(path, [RUN.key])),
    latest_study,
    studies,
    lambda path: examples(path, "f"),
    Ledger,
    lambda path: list(merge(path.with_name("ours.db"), [path])),
    lambda path: delete(path, [RUN.key], [], sure=True),
    vacuum,
)


def fill(path):
    with Ledger(path) as ledger:
        ledger.put_study(STUDY, "the command", {}, {})
        ledger.put(STUDY, RUN, Result("done", 1.5, 3, {"test_loss": 0.5}, {"loss": [3.0]}, np.ones(2, "f4"), model=b"x"), {}, {})
        ledger.put_examples("f", {"kind": "none"}, {"answers": np.arange(2)})
    return path


def attack(path, statements):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
        connection.commit()
    return path


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_ours_is_refused_before_anything_is_read(tmp_path, name):
    statements, words = FOREIGN[name]
    path = attack(fill(tmp_path / "runs.db"), statements)
    before = path.read_bytes()
    for read in READERS:
        with pytest.raises(BadInput) as caught:
            read(path)
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"the ledger {path} has what keras-dropout does not make: ")
        assert words in first
        assert "go back to a copy" in second
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", FOREIGN)
def test_verify_tells_what_is_not_ours_and_reads_no_row(tmp_path, name):
    statements, words = FOREIGN[name]
    found = verify(attack(fill(tmp_path / "runs.db"), statements))
    assert any(words in problem["what"] for problem in found.problems if problem["where"] == "schema")
    assert (found.runs, found.studies) == (0, 0)


def test_what_was_added_can_be_dropped_as_the_refusal_says(tmp_path):
    path = attack(fill(tmp_path / "runs.db"), FOREIGN["an index"][0])
    with pytest.raises(BadInput):
        peek(path, [RUN.key])
    attack(path, "DROP INDEX i")
    assert list(peek(path, [RUN.key])) == [RUN.key]
    with Ledger(path):
        pass


@pytest.mark.parametrize("statements", ["ANALYZE", "DROP VIEW means", "PRAGMA journal_mode = DELETE", "VACUUM"])
def test_what_does_no_harm_is_read(tmp_path, statements):
    path = attack(fill(tmp_path / "runs.db"), statements)
    assert list(peek(path, [RUN.key])) == [RUN.key]
    with Ledger(path) as ledger:
        assert list(ledger.get([RUN.key])) == [RUN.key]


def test_a_version_below_all_is_no_ledger(tmp_path):
    path = attack(fill(tmp_path / "runs.db"), "PRAGMA user_version = -5")
    for read in READERS:
        with pytest.raises(BadInput, match="is an SQLite file, but not a ledger"):
            read(path)


def test_a_value_of_another_type_is_told_with_its_run(tmp_path):
    path = attack(fill(tmp_path / "runs.db"), "UPDATE runs SET seconds = 'abc'")
    with pytest.raises(BadInput, match=f"is damaged: run {RUN.key}: its seconds is str, not float"):
        peek(path, [RUN.key])
    assert {"where": f"run {RUN.key}", "what": "its seconds cannot be of the type text"} in verify(path).problems


def test_ctrl_c_ends_a_query(tmp_path):
    path = fill(tmp_path / "runs.db")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), reading(path) as connection:
        connection.execute(f"{NUMBERS} SELECT count(*) FROM r").fetchall()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with Ledger(path) as ledger:
        with pytest.raises(KeyboardInterrupt), ledger.transaction() as connection:
            connection.execute(f"{NUMBERS} SELECT count(*) FROM r").fetchall()
        assert list(ledger.get([RUN.key])) == [RUN.key]


def test_what_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "MOST_STEPS", 10**6)
    path = fill(tmp_path / "runs.db")
    with pytest.raises(BadInput, match="is damaged: reading it does not end"), reading(path) as connection:
        connection.execute(f"{NUMBERS} SELECT count(*) FROM r").fetchall()
    with Ledger(path) as ledger:  # each transaction has as many steps
        for _ in range(3):
            with ledger.transaction() as connection:
                connection.execute(f"{NUMBERS} SELECT n FROM r LIMIT 60000").fetchall()


@pytest.mark.parametrize("name", [":memory:", "file:runs.db", "file:runs.db?mode=memory", "file::memory:"])
def test_what_sqlite_takes_for_no_file_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for read in (Ledger, studies, lambda path: peek(path, "k")):
        with pytest.raises(BadInput) as caught:
            read(name)
        assert str(caught.value) == f"the ledger must be the name of a file; got {name!r}.\nName a file, for example runs.db."
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "runs.db")
    for read in (Ledger, studies):
        with pytest.raises(BadInput, match="is no file that can be kept"):
            read(tmp_path / "runs.db")


def test_a_file_system_that_has_no_write_ahead_log_is_refused_at_once(tmp_path, monkeypatch):
    def connect(path, _connect=sqlite3.connect, **options):
        return _connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, **options)  # one that has no shared memory

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(BadInput, match="its file system has no memory that programs share") as caught:
        Ledger(tmp_path / "runs.db")
    assert len(str(caught.value).splitlines()) == 2
