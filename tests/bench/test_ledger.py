"""The ledger on real SQLite files: round trips, sharing, and files that are no ledger."""

import dataclasses
import io
import json
import multiprocessing
import os
import re
import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dropout.bench.ledger import schema, store
from keras_dropout.bench.ledger.admin import verify
from keras_dropout.bench.ledger.lookup import asked_for, examples, kept, latest_study, models, peek, studies
from keras_dropout.bench.ledger.schema import SCHEMA_VERSION, NotStored, refusing
from keras_dropout.bench.ledger.store import Ledger, check_ledger_path
from keras_dropout.bench.records import DataFacts, Result, Run, Study, Variant
from keras_dropout.errors import BadInput

STUDY = Study(
    "t", DataFacts("d", "f", 9, 1, 2), {}, {"loss": "mse"}, "held-out", "jax", "compiled", 1, 1, (0,), (Variant("none", {}),)
)
# The file as the first version made it.
VERSION_1 = """
CREATE TABLE studies (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, target TEXT NOT NULL, command TEXT NOT NULL, versions TEXT NOT NULL,
    machine TEXT NOT NULL, runs TEXT NOT NULL
);
CREATE TABLE runs (
    key TEXT PRIMARY KEY, target TEXT NOT NULL, variant TEXT NOT NULL, seed INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')), seconds REAL NOT NULL, epochs INTEGER NOT NULL,
    metrics TEXT NOT NULL, curves TEXT NOT NULL, test_losses BLOB, error TEXT, config TEXT NOT NULL, versions TEXT NOT NULL,
    machine TEXT NOT NULL, finished TEXT NOT NULL
);
PRAGMA application_id = 0x4B445250;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
# The file as the second version made it.
VERSION_2 = """
CREATE TABLE studies (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, target TEXT NOT NULL, command TEXT NOT NULL, versions TEXT NOT NULL,
    machine TEXT NOT NULL, runs TEXT NOT NULL
);
CREATE TABLE runs (
    key TEXT PRIMARY KEY, target TEXT NOT NULL, variant TEXT NOT NULL, seed INTEGER NOT NULL, backend TEXT, engine TEXT,
    status TEXT NOT NULL CHECK (status IN ('done', 'diverged', 'failed')), seconds REAL NOT NULL, epochs INTEGER NOT NULL,
    best_epoch INTEGER, metrics TEXT NOT NULL, error TEXT, finished TEXT NOT NULL
);
CREATE TABLE details (
    key TEXT PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE, curves TEXT NOT NULL, log TEXT NOT NULL, config TEXT NOT NULL,
    versions TEXT NOT NULL, machine TEXT NOT NULL, test_losses BLOB
);
CREATE TABLE checkpoints (key TEXT PRIMARY KEY, epoch INTEGER NOT NULL, state BLOB NOT NULL, written TEXT NOT NULL);
CREATE VIEW results AS
    SELECT key, target, variant, seed, backend, engine, status, epochs, seconds,
        json_extract(number, '$.test_loss') AS test_loss, json_extract(number, '$.test_accuracy') AS test_accuracy,
        json_extract(number, '$.validation_loss') AS validation_loss, json_extract(number, '$.train_loss') AS train_loss,
        error, finished
    FROM (SELECT *, CASE WHEN json_valid(metrics) THEN metrics END AS number FROM runs);
CREATE VIEW means AS
    SELECT target, variant, count(*) AS runs, avg(test_loss) AS test_loss, avg(test_accuracy) AS test_accuracy
    FROM results WHERE status = 'done' GROUP BY target, variant;
PRAGMA application_id = 0x4B445250;
PRAGMA user_version = 2;
PRAGMA journal_mode = WAL;
"""
LOSSES = zlib.compress(np.array([0.1, np.nan, 3], "<f4").tobytes())
CONFIG = '{"backend": "torch", "engine": "reference"}'
THEN = "2026-01-02T03:04:05+00:00"
RUNS_OF_1 = [
    ("a", "t", "none", 0, "done", 1.25, 3, '{"test_loss": 0.1, "best_epoch": 2}', '{"loss": [3.0, 2.0]}', LOSSES, None, CONFIG),
    ("b", "t", "half", 1, "diverged", 0.1, 1, '{"test_loss": NaN}', "{}", None, None, CONFIG),
    ("c", "t", "half", 2, "failed", 0.0, 0, "{}", "{}", None, "out of memory", "no JSON"),
]
finite = st.floats(allow_nan=False, allow_infinity=False)


def run(key="k"):
    return Run(key, STUDY.variants[0], 0)


def result(loss=1.0, status="done", **more):
    return Result(status, 1.5, 3, {"test_loss": loss} if status == "done" else {}, {"loss": [3.0, 2.0]}, np.ones(2, "f4"), **more)


@settings(max_examples=40, deadline=None)
@given(
    metrics=st.dictionaries(st.text(), finite),
    curves=st.dictionaries(st.text(), st.lists(finite, max_size=5)),
    losses=st.lists(st.floats(width=32), max_size=50),
)
def test_what_goes_in_comes_out(tmp_path_factory, metrics, curves, losses):
    path = tmp_path_factory.mktemp("ledger") / "runs.db"
    stored = Result("done", 2.25, 7, metrics, curves, np.array(losses, "f4"))
    with Ledger(path) as ledger:
        ledger.put(STUDY, run(), stored, {"keras": "3"}, {"cores": 2})
        found = ledger.get(["k", "other"])
    assert list(found) == ["k"]
    assert found["k"] == stored
    np.testing.assert_array_equal(found["k"].test_losses, np.array(losses, "f4"))
    assert peek(path, ["k"])["k"] == stored


def test_a_finished_run_is_never_overwritten_and_a_failed_one_is(tmp_path):
    with Ledger(tmp_path / "runs.db") as ledger:
        ledger.put(STUDY, run("a"), result(1.0), {}, {})
        ledger.put(STUDY, run("a"), result(2.0), {}, {})
        ledger.put(STUDY, run("b"), result(status="failed", error="out of memory"), {}, {})
        assert ledger.get("b")["b"].error == "out of memory"
        ledger.put(STUDY, run("b"), result(3.0), {}, {})
        ledger.put(STUDY, run("c"), result(status="diverged"), {}, {})
        ledger.put(STUDY, run("c"), result(4.0), {}, {})
        found = ledger.get("abc")
    assert found["a"].metrics == {"test_loss": 1.0}
    assert found["b"].metrics == {"test_loss": 3.0}
    assert found["c"].status == "diverged"


def test_a_run_that_has_lost_its_details_is_stored_again(tmp_path):
    with Ledger(tmp_path / "runs.db") as ledger:
        ledger.put(STUDY, run("a"), result(1.0), {}, {})
        with ledger.transaction() as connection:
            connection.execute("DELETE FROM details")
        assert ledger.get("a") == {}
        ledger.put(STUDY, run("a"), result(1.0), {}, {})
        assert ledger.get("a")["a"].metrics == {"test_loss": 1.0}


def _write_many(folder, first, barrier):
    for number in range(20):
        barrier.wait(60)  # so that both make the file
        with Ledger(folder / f"new{number}.db"):
            pass
    barrier.wait(60)
    for number in range(first, first + 40):
        with Ledger(folder / "runs.db") as ledger:
            ledger.put(STUDY, run(str(number)), result(float(number)), {}, {})


def test_two_processes_share_a_new_ledger(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_write_many, args=(tmp_path, first, barrier)) for first in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(peek(tmp_path / "runs.db", map(str, range(60)))) == 60


def test_it_is_readable_by_plain_sqlite(tmp_path):
    with Ledger(tmp_path / "runs.db") as ledger:
        ledger.put_study(STUDY, "the command", {}, {})
        ledger.put(STUDY, run(), result(), {"keras": "3"}, {})
    connection = sqlite3.connect(tmp_path / "runs.db")
    assert connection.execute("SELECT variant, status, json_extract(metrics, '$.test_loss') FROM runs").fetchall() == [
        ("none", "done", 1.0)
    ]
    assert connection.execute("SELECT command FROM studies").fetchall() == [("the command",)]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_peek_makes_and_changes_nothing(tmp_path):
    assert peek(tmp_path / "runs.db", ["k"]) == {}
    assert list(tmp_path.iterdir()) == []


def _other_sqlite(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE things (x)")
    connection.commit()


def _newer(path):
    with Ledger(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.commit()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("not a database, but long enough to be one"), "not an SQLite file"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"x" * 500), "not a"),
        (_other_sqlite, "not a ledger"),
        (_newer, "newer keras-dropout"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(tmp_path, make, words):
    path = tmp_path / "runs.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(BadInput) as caught:
        Ledger(path)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    if before is not None:
        assert path.read_bytes() == before


@pytest.mark.parametrize("path", ["/proc/keras-dropout.db", "no/such/folder/runs.db"])
def test_a_place_that_cannot_be_written_is_refused(path):
    with pytest.raises(BadInput):
        check_ledger_path(path)


def version_1(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        rows = [(*run, '{"keras": "3"}', '{"cores": 2}', THEN) for run in RUNS_OF_1]
        connection.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * 15)})", rows)
        connection.execute("INSERT INTO studies VALUES (7, ?, 't', 'cmd', '{}', '{}', ?)", (THEN, '[{"key": "a"}, {"key": "z"}]'))
        connection.commit()
    return path


def version_2(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2)
        for key, target, variant, seed, status, seconds, epochs, metrics, curves, losses, error, config in RUNS_OF_1:
            best, metrics = (2, '{"test_loss":0.1}') if key == "a" else (None, metrics)
            backend, engine = (None, None) if key == "c" else ("torch", "reference")
            row = (key, target, variant, seed, backend, engine, status, seconds, epochs, best, metrics, error, THEN)
            connection.execute(f"INSERT INTO runs VALUES ({', '.join('?' * 13)})", row)
            row = (key, curves, "", config, '{"keras": "3"}', '{"cores": 2}', losses)
            connection.execute(f"INSERT INTO details VALUES ({', '.join('?' * 7)})", row)
        connection.execute("INSERT INTO checkpoints VALUES ('z', 4, ?, ?)", (b"state", THEN))
        connection.execute("INSERT INTO studies VALUES (7, ?, 't', 'cmd', '{}', '{}', ?)", (THEN, '[{"key": "a"}, {"key": "z"}]'))
        connection.commit()
    return path


def version_3(path):
    path = version_2(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE models (key TEXT PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE, archive BLOB NOT NULL);"
            "PRAGMA user_version = 3"
        )
    return path


OLDER = {1: version_1, 2: version_2, 3: version_3}


def assert_nothing_is_lost(results):
    assert list(results) == ["a", "b", "c"]
    a, b, c = results.values()
    assert a == Result("done", 1.25, 3, {"test_loss": 0.1}, {"loss": [3.0, 2.0]}, best_epoch=2)
    assert a.test_losses.tobytes() == zlib.decompress(LOSSES)
    assert (b.status, str(b.metrics["test_loss"]), b.test_losses) == ("diverged", "nan", None)
    assert c == Result("failed", 0.0, 0, error="out of memory")


def version_of(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("PRAGMA user_version").fetchone()[0]


@pytest.mark.parametrize("version", OLDER)
def test_an_older_ledger_is_read_as_it_is(tmp_path, version):
    path = OLDER[version](tmp_path / "runs.db")
    before = path.read_bytes()
    assert_nothing_is_lost(peek(path, "abc"))
    assert (kept(path, "abc"), list(models(path, "abc"))) == (set(), [])
    assert asked_for(path) == [{"a", "z"}]
    assert examples(path, "f") is None
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", OLDER)
def test_the_tables_of_an_older_ledger_are_found_sound(tmp_path, version):
    found = verify(OLDER[version](tmp_path / "runs.db"))
    assert [each for each in found.problems if each["where"] in ("schema", "file")] == []


@pytest.mark.parametrize("version", OLDER)
def test_an_older_ledger_that_is_written_to_is_brought_up_to_date_and_loses_nothing(tmp_path, version):
    path = OLDER[version](tmp_path / "runs.db")
    with Ledger(path) as ledger:
        assert_nothing_is_lost(ledger.get("abc"))
        assert ledger.checkpoints("z") == ({} if version == 1 else {"z": (4, b"state")})
        ledger.put(STUDY, run("d"), result(model=b"archive", predictions=np.array([3, 0])), {}, {})
        ledger.put_examples("f", {"kind": "none"}, {"answers": np.arange(2)})
    assert peek(path, "d")["d"].predictions.tolist() == [3, 0]
    assert examples(path, "f")[1]["answers"].tolist() == [0, 1]
    assert version_of(path) == SCHEMA_VERSION == 4
    assert list(models(path, "abcd")) == [("d", b"archive")]
    assert asked_for(path) == [{"a", "z"}]
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT key, target, variant, seed, status, seconds, epochs, metrics, curves, test_losses, error, config, versions, "
            "machine, finished, backend, engine, log FROM runs JOIN details USING (key) WHERE key != 'd' ORDER BY key"
        ).fetchall()
    added = [("torch", "reference", "")] * 2 + [(None, None, "")]
    before = [(*run, '{"keras": "3"}', '{"cores": 2}', THEN, *more) for run, more in zip(RUNS_OF_1, added)]
    before[0] = (*before[0][:7], '{"test_loss":0.1}', *before[0][8:])  # the best epoch, among the metrics then, has a column now
    assert rows == before


def test_a_ledger_that_was_brought_up_to_date_has_the_tables_of_a_new_one(tmp_path):
    columns = []
    for make in (lambda path: path, *OLDER.values()):
        path = make(tmp_path / f"{len(columns)}.db")
        with Ledger(path), closing(sqlite3.connect(path)) as connection:
            names = sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            about = ("table_info", "foreign_key_list")
            columns.append({name: [connection.execute(f"PRAGMA {each}({name})").fetchall() for each in about] for name in names})
    assert all(each == columns[0] for each in columns)
    assert {"models", "examples"} <= set(columns[0])


def _open(path, barrier):
    barrier.wait()
    with Ledger(path) as ledger:
        assert_nothing_is_lost(ledger.get("abc"))


@pytest.mark.parametrize("version", OLDER)
def test_two_processes_bring_a_ledger_up_to_date_at_once(tmp_path, version):
    path = OLDER[version](tmp_path / "runs.db")
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    openers = [context.Process(target=_open, args=(path, barrier)) for _ in range(2)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
        assert opener.exitcode == 0
    assert_nothing_is_lost(peek(path, "abc"))


KILLED_AT = [(1, at) for at in ("ALTER", "PRAGMA user_version =", "INSERT INTO details", "DROP", "COMMIT")]
KILLED_AT += [(2, at) for at in ("CREATE TABLE models", "PRAGMA user_version =", "COMMIT")]
KILLED_AT += [(3, at) for at in ("ALTER TABLE studies", "CREATE TABLE examples")]


@pytest.mark.parametrize(("version", "statement"), KILLED_AT)
def test_killed_while_it_is_brought_up_to_date_it_is_as_it_was(tmp_path, version, statement):
    path = OLDER[version](tmp_path / "runs.db")
    code = f"""
import os, sqlite3
from keras_dropout.bench.ledger.store import Ledger
class Killed(sqlite3.Connection):
    def execute(self, sql, *more):
        if sql.strip().startswith({statement!r}):
            os.kill(os.getpid(), 9)
        return super().execute(sql, *more)
connect = sqlite3.connect
sqlite3.connect = lambda *values, **more: connect(*values, **more, factory=Killed)
Ledger({str(path)!r})
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGKILL
    assert version_of(path) == version
    assert_nothing_is_lost(peek(path, "abc"))
    with Ledger(path) as ledger:
        assert_nothing_is_lost(ledger.get("abc"))


def test_results_come_in_the_order_asked_for_and_without_losses_if_they_are_not_needed(tmp_path):
    keys = [str(number) for number in range(1200)]
    with Ledger(tmp_path / "runs.db") as ledger:
        for key in keys[::600]:
            ledger.put(STUDY, run(key), result(float(key), log=f"printed by {key}"), {}, {})
        found = ledger.get(reversed(keys), each_example=False)
        whole = ledger.get(keys)
    assert list(found) == ["600", "0"]
    assert found["600"].log == "printed by 600"
    assert [each.test_losses for each in found.values()] == [None, None]
    assert whole["0"].test_losses.tolist() == [1, 1]


@pytest.mark.parametrize("values", [np.array([0, 9, 4]), np.array([300]), np.array([], int), np.array([0.1, -2.5], "float32")])
def test_predictions_come_back_as_they_were(tmp_path, values):
    with Ledger(tmp_path / "runs.db") as ledger:
        ledger.put(STUDY, run("a"), result(predictions=values, calibration={"plain": {"x": [0.5, None]}}), {}, {})
    found = peek(tmp_path / "runs.db", "a")["a"]
    assert found.predictions.tolist() == values.tolist()
    assert found.predictions.dtype.kind == ("f" if values.dtype.kind == "f" else "u")
    assert found.calibration == {"plain": {"x": [0.5, None]}}
    assert peek(tmp_path / "runs.db", "a", each_example=False)["a"].predictions is None


def test_a_study_gathers_what_is_said_of_it(tmp_path):
    path = tmp_path / "runs.db"
    with Ledger(path) as ledger:
        number = ledger.put_study(STUDY, "the command", {}, {}, {"plan": {"margin": 0.1}})
        ledger.add_to_study(number, {"timing": {"seconds": 3}})
    document = latest_study(path)["document"]
    said = json.loads(json.dumps(STUDY.document()))
    assert document == {"study": said, "plan": {"margin": 0.1}, "timing": {"seconds": 3}}
    assert Study.from_document(document["study"], {("none", 0): "k"}).runs() == [run("k")]
    assert latest_study(path, number=number + 1) is None


def test_a_checkpoint_is_kept_until_its_run_is_finished(tmp_path):
    with Ledger(tmp_path / "runs.db") as ledger:
        for key in "abc":
            ledger.put_checkpoint(key, 1, b"old")
            ledger.put_checkpoint(key, 2, key.encode())
        assert ledger.checkpoints("abx") == {"a": (2, b"a"), "b": (2, b"b")}
        ledger.put(STUDY, run("a"), result(), {}, {})
        ledger.put(STUDY, run("b"), result(status="failed", error="killed"), {}, {})
        ledger.put(STUDY, run("c"), result(status="diverged"), {}, {})
        assert ledger.checkpoints("abc") == {"b": (2, b"b")}
        ledger.put(STUDY, run("b"), result(), {}, {})
        assert ledger.checkpoints("abc") == {}


def test_a_model_comes_with_its_run_and_is_never_overwritten(tmp_path):
    path = tmp_path / "runs.db"
    with Ledger(path) as ledger:
        ledger.put(STUDY, run("a"), result(1.0), {}, {})
        ledger.put(STUDY, run("b"), result(model=b"of b"), {}, {})
        ledger.put(STUDY, run("c"), result(status="diverged"), {}, {})
        assert ledger.kept("abc") == {"b"}
        ledger.put(STUDY, run("a"), result(2.0, model=b"of a"), {}, {})  # trained again, for its model
        ledger.put(STUDY, run("b"), result(model=b"another"), {}, {})
        ledger.put(STUDY, run("c"), result(model=b"of no run that is done"), {}, {})
        assert ledger.kept("abc") == kept(path, "abc") == {"a", "b"}
        found = ledger.get("abc")
    assert list(models(path, "cbxab")) == [("b", b"of b"), ("a", b"of a")]
    assert found["a"].metrics == {"test_loss": 1.0}
    assert found["b"].model is None  # memory does not grow with the models


def test_models_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "runs.db"
    with Ledger(path) as ledger:
        for key in "ab":
            ledger.put(STUDY, run(key), result(model=key.encode()), {}, {})
    found = models(path, "ab")
    assert next(found) == ("a", b"a")
    with Ledger(path) as ledger, ledger.transaction() as connection:  # nobody waits for a reader that has not ended
        connection.execute("DELETE FROM models")
    assert next(found) == ("b", b"b")
    assert list(models(path, "ab")) == list(models(tmp_path / "none.db", "ab")) == []


def test_a_model_that_is_too_large_is_told_and_its_run_can_be_stored_without_it(tmp_path):
    with Ledger(tmp_path / "runs.db") as ledger:
        ledger._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        for put in (
            lambda: ledger.put(STUDY, run(), result(model=bytes(100_001)), {}, {}),
            lambda: ledger.put_checkpoint("k", 1, bytes(100_001)),
        ):
            with pytest.raises(NotStored, match=r"runs\.db cannot be written: .*too (big|large)"):
                put()
        assert ledger.get("k") == {}
        ledger.put(STUDY, run(), result(), {}, {})
        assert list(ledger.get("k")) == ["k"]


def test_the_latest_study_says_which_of_its_runs_there_are(tmp_path):
    path = tmp_path / "runs.db"
    assert latest_study(path) is None
    more = dataclasses.replace(STUDY, target="u", seeds=(3, 4), variants=(Variant("none", {}), Variant("half", {"hidden": {}})))
    runs = more.runs()
    with Ledger(path) as ledger:
        assert latest_study(path) is None
        ledger.put_study(STUDY, "first", {}, {})
        ledger.put_study(more, "second", {}, {})
        ledger.put(more, runs[0], result(model=b"archive"), {}, {})
        ledger.put(more, runs[3], result(status="failed", error="killed"), {}, {})
    found = latest_study(path)
    assert (found["target"], found["command"]) == ("u", "second")
    assert [(each["key"], each["variant"], each["seed"]) for each in found["runs"]] == [
        (each.key, each.variant.name, each.seed) for each in runs
    ]
    assert [(each["status"], each["model"]) for each in found["runs"]] == [
        ("done", True),
        (None, False),
        (None, False),
        ("failed", False),
    ]
    assert (found["config"]["data"], found["config"]["epochs"]) == (STUDY.data.fingerprint, 1)
    assert {"placement", "seed"}.isdisjoint(found["config"])
    assert found["placements"] == {"none": {}, "half": {"hidden": {}}}
    first = latest_study(path, "t")
    assert (first["command"], first["config"], len(first["runs"])) == ("first", {}, 1)
    assert latest_study(path, "v") is None


def test_a_clock_that_is_set_back_reorders_no_studies(tmp_path, monkeypatch):
    with Ledger(tmp_path / "r.db") as ledger:
        for minute, command in ((30, "first"), (10, "after the clock was set back"), (40, "last"), (5, "set back again")):
            monkeypatch.setattr(store, "now", lambda minute=minute: f"2026-01-01T12:{minute}:00.000+00:00")
            ledger.put_study(STUDY, command, {}, {})
            assert latest_study(tmp_path / "r.db")["command"] == command
            for run in STUDY.runs():
                ledger.put(STUDY, run, Result("done", 1.0, 1, {"test_loss": 1.0}, {}), {}, {})
    assert [each["command"] for each in studies(tmp_path / "r.db")][::3] == ["first", "set back again"]


def test_studies_are_listed_and_read_as_they_were_noted(tmp_path, monkeypatch):
    path, more = tmp_path / "r.db", dataclasses.replace(STUDY, seeds=(3, 4), variants=(Variant("none", {}), Variant("half", {})))
    times = iter(("2026-01-01T12:00:00.000+00:00", "2026-01-01T12:00:01.000+00:00", "2026-01-01T12:00:02.000+00:00"))
    monkeypatch.setattr(store, "now", lambda: next(times))
    with Ledger(path) as ledger:
        assert ledger.put_study(STUDY, "first", {}, {}) == 1
        assert ledger.put_study(more, "second", {"keras": "3.15"}, {"cores": 2}, {"notes": ["one"]}) == 2
        ledger.put(more, more.runs()[1], result(), {}, {})
        ledger.add_to_study(2, {"winner": "half"})
        with ledger.transaction() as connection:
            connection.execute("UPDATE studies SET document = NULL WHERE id = 1")
        ledger.add_to_study(1, {"winner": None})
    first, second = studies(path)
    assert first == {
        "number": 1,
        "started": "2026-01-01T12:00:00.000+00:00",
        "target": "t",
        "variants": ["none"],
        "runs": 1,
        "done": 0,
        "resample_split": False,
        "command": "first",
    }
    assert second == first | {
        "number": 2,
        "started": "2026-01-01T12:00:01.000+00:00",
        "variants": ["none", "half"],
        "runs": len({run.key for run in more.runs()}),
        "done": 1,
        "command": "second",
    }
    found = latest_study(path)
    assert {name: found[name] for name in ("id", "started", "target", "command", "versions", "machine")} == {
        "id": 2,
        "started": "2026-01-01T12:00:01.000+00:00",
        "target": "t",
        "command": "second",
        "versions": {"keras": "3.15"},
        "machine": {"cores": 2},
    }
    assert found["document"] == {"study": more.document(), "notes": ["one"], "winner": "half"}
    assert latest_study(path, number=1)["document"] == {"winner": None}


def test_what_decides_a_run_and_what_it_ran_on_is_stored(tmp_path):
    path = tmp_path / "r.db"
    with Ledger(path) as ledger:
        ledger.put(STUDY, run(), Result("done", 1.0, 1, {}, {}), {"keras": "3.15"}, {"cores": 2})
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT config, versions, machine, test_losses, predictions, calibration FROM details"
        config, versions, machine, *large = connection.execute(query).fetchone()
    assert config == json.dumps(STUDY.deciding(STUDY.variants[0], 0), sort_keys=True)
    assert (json.loads(versions), json.loads(machine)) == ({"keras": "3.15"}, {"cores": 2})
    assert large == [None, None, None]


def test_losses_and_predictions_take_no_more_room_than_they_need(tmp_path):
    """Whatever their type was."""
    path, losses = tmp_path / "r.db", np.array([0.25, 0.5])
    predictions = {"classes": np.array([0, 255]), "many classes": np.array([0, 256]), "values": np.array([0.25, 300.5])}
    with Ledger(path) as ledger:
        for key, each in predictions.items():
            ledger.put(STUDY, run(key), Result("done", 1.0, 1, {}, {}, losses, predictions=each), {}, {})
    found = peek(path, predictions)
    assert [each.predictions.dtype for each in found.values()] == ["uint8", "<u2", "<f4"]
    for key, each in found.items():
        assert each.test_losses.tolist() == losses.tolist()
        assert each.predictions.tolist() == predictions[key].tolist()


def test_examples_are_kept_once(tmp_path):
    with Ledger(tmp_path / "r.db") as ledger:
        assert not ledger.has_examples("f")
        ledger.put_examples("f", {"kind": "images"}, {"answers": np.arange(2)})
        ledger.put_examples("f", {"kind": "none"}, {"answers": np.arange(3)})
        assert ledger.has_examples("f")
        assert not ledger.has_examples("g")
    about, arrays = examples(tmp_path / "r.db", "f")
    assert (about, arrays["answers"].tolist()) == ({"kind": "images"}, [0, 1])


def test_a_study_that_cannot_be_read_is_refused(tmp_path):
    path = version_1(tmp_path / "runs.db")  # whose study names no seeds
    with pytest.raises(BadInput, match="is damaged: study 7 cannot be read"):
        latest_study(path)


def test_the_documented_queries_run(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "ledger.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert len(queries) >= 3
    path = version_1(tmp_path / "runs.db")
    with Ledger(path) as ledger:
        ledger.put_study(STUDY, "the command", {}, {})
        for key in "xy":
            ledger.put(STUDY, run(key), result(0.3), {"keras": "3"}, {})
    with closing(sqlite3.connect(path)) as connection:
        for query in queries:
            assert connection.execute(query).fetchall(), query
        made = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        means = connection.execute("SELECT variant, runs, test_loss FROM means").fetchall()
        shown = connection.execute("SELECT status, test_loss, test_accuracy FROM results WHERE key IN ('b', 'x')").fetchall()
    assert made == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert means == [("none", 3, pytest.approx((0.1 + 0.3 + 0.3) / 3))]
    assert sorted(shown) == [("diverged", None, None), ("done", 0.3, None)]


def text(path):
    path.write_text("no database, but sixteen characters and more")
    return path


def database(path, **pragmas):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        for name, value in pragmas.items():
            connection.execute(f"PRAGMA {name} = {value}")
    return path


def damaged(path, change):
    with Ledger(path) as ledger, ledger.transaction() as connection:
        connection.execute("INSERT INTO studies VALUES (5, '', 't', 'c', '{}', '{}', '[]', NULL)")
        connection.execute("INSERT INTO runs VALUES ('k', 't', 'v', 0, 'jax', 'compiled', 'done', 1, 1, NULL, '{}', NULL, '')")
        connection.execute("INSERT INTO details VALUES ('k', '{}', '', '{}', '{}', '{}', NULL, NULL, NULL)")
        connection.execute("INSERT INTO examples VALUES ('f', '{}', x'00')")
        connection.execute(change)
    return path


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{}], object))
    return file.getvalue()


def cut(path):
    with Ledger(path) as ledger:
        for number in range(50):
            ledger.put(STUDY, run(f"{number}"), result(), {}, {})
        ledger.vacuum()
    os.truncate(path, 8192)
    return path


ANOTHER = "Name another ledger; given a new name, keras-dropout compare makes one."
VERIFY = "keras-dropout runs verify --ledger {quoted} says what is wrong; go back to a copy."
NO_JSON = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1).\n"
MESSAGES = {
    "folder": (lambda at: peek(at.parent, "k"), "the ledger {folder} is a folder.\nName a file, for example runs.db."),
    "text": (lambda at: peek(text(at), "k"), "{at} is not a ledger: it is not an SQLite file.\n" + ANOTHER),
    "text, to write": (lambda at: Ledger(text(at)), "{at} is not a ledger: it is not an SQLite file.\n" + ANOTHER),
    "none": (lambda at: studies(at), "there is no ledger {at}.\n" + ANOTHER),
    "no folder": (
        lambda at: Ledger(at / "no" / "runs.db"),
        "the ledger's folder {at}/no does not exist.\nMake it first: mkdir -p '{at}/no'",
    ),
    "other": (lambda at: peek(database(at), "k"), "{at} is an SQLite file, but not a ledger.\n" + ANOTHER),
    "newer": (
        lambda at: peek(database(at, application_id=schema.APPLICATION_ID, user_version=9), "k"),
        "{at} was written by a newer keras-dropout (schema 9).\nUpgrade with pip install -U keras-dropout.",
    ),
    "study": (
        lambda at: studies(damaged(at, "UPDATE studies SET runs = '[3]'")),
        "the ledger {at} is damaged: study 5 cannot be read: its runs are no list of keys, variants and seeds.\n" + VERIFY,
    ),
    "what studies asked for": (
        lambda at: asked_for(damaged(at, "UPDATE studies SET runs = '{broken'")),
        "the ledger {at} is damaged: study 5 cannot be read: " + NO_JSON + VERIFY,
    ),
    "latest study": (
        lambda at: latest_study(damaged(at, "UPDATE studies SET versions = '{'")),
        "the ledger {at} is damaged: study 5 cannot be read: " + NO_JSON + VERIFY,
    ),
    "examples": (
        lambda at: examples(damaged(at, "UPDATE examples SET arrays = x'0102'"), "f"),
        "the ledger {at} is damaged: the examples of data f cannot be read: File is not a zip file.\n" + VERIFY,
    ),
    "metrics": (
        lambda at: peek(damaged(at, "UPDATE runs SET metrics = '{'"), "k"),
        "the ledger {at} is damaged: run k: " + NO_JSON + VERIFY,
    ),
    "curves of text": (
        lambda at: peek(damaged(at, """UPDATE details SET curves = '{"loss": "abc"}'"""), "k"),
        "the ledger {at} is damaged: run k: its curves are not numbers.\n" + VERIFY,
    ),
    "a metric that is null": (
        lambda at: peek(damaged(at, """UPDATE runs SET metrics = '{"test_loss": null}'"""), "k"),
        "the ledger {at} is damaged: run k: its metrics are not numbers.\n" + VERIFY,
    ),
    "losses": (
        lambda at: peek(damaged(at, "UPDATE details SET test_losses = x'00'"), "k"),
        "the ledger {at} is damaged: run k: what is packed is cut off, or too large.\n" + VERIFY,
    ),
    "losses cut": (
        lambda at: peek(damaged(at, f"UPDATE details SET test_losses = x'{zlib.compress(b'123').hex()}'"), "k"),
        "the ledger {at} is damaged: run k: buffer size must be a multiple of element size.\n" + VERIFY,
    ),
    "an object": (
        lambda at: peek(damaged(at, f"UPDATE details SET predictions = x'{zlib.compress(pickled()).hex()}'"), "k"),
        "the ledger {at} is damaged: run k: an array holds objects.\n" + VERIFY,
    ),
    "no array": (
        lambda at: peek(damaged(at, f"UPDATE details SET predictions = x'{zlib.compress(b'').hex()}'"), "k"),
        "the ledger {at} is damaged: run k: EOF: reading magic string, expected 8 bytes got 0.\n" + VERIFY,
    ),
    "pages": (
        lambda at: peek(cut(at), map(str, range(50))),
        "the ledger {at} is damaged: database disk image is malformed.\n" + VERIFY,
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_wrong_and_how_to_mend_it(tmp_path, name):
    act, message = MESSAGES[name]
    at = tmp_path / "my runs.db"  # a shell needs it quoted
    with pytest.raises(BadInput) as caught:
        act(at)
    assert str(caught.value) == message.format(at=at, folder=at.parent, quoted=shlex.quote(str(at)))


def puts(ledger):
    yield lambda: ledger.put(STUDY, run("n"), result(), {}, {})
    yield lambda: ledger.put_study(STUDY, "the command", {}, {})
    yield lambda: ledger.put_checkpoint("n", 1, b"state")


def test_what_another_process_prevents_is_told_and_the_ledger_stays_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    with Ledger(tmp_path / "runs.db") as ledger, closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for put in puts(ledger):
            with pytest.raises(NotStored) as caught:
                put()
            assert str(caught.value).endswith("runs.db is locked: another process has held it for 0.05 s.")
        assert ledger.get("n") == {}
        other.execute("ROLLBACK")
        for put in puts(ledger):
            put()
        assert list(ledger.get("n")) == ["n"]


def test_a_ledger_that_another_process_keeps_to_itself_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "runs.db"
    with Ledger(path) as ledger:
        ledger.put(STUDY, run(), result(), {}, {})
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        for attempt in (lambda: Ledger(path), lambda: peek(path, "k")):
            with pytest.raises(BadInput, match="is locked: another process has held it") as caught:
                attempt()
            assert len(str(caught.value).splitlines()) == 2
    assert list(peek(path, "k")) == ["k"]


def assert_filled_up_and_usable_again(ledger, make_room):
    """Losses that do not compress, until the disk is full."""
    stored = []

    def fill_up():
        for number in range(1000):
            losses = np.random.default_rng(number).normal(size=5000).astype("f4")
            ledger.put(STUDY, run(f"{number}"), Result("done", 1.0, 1, {"test_loss": 1.0}, test_losses=losses), {}, {})
            stored.append(f"{number}")

    with pytest.raises(NotStored) as caught:
        fill_up()
    assert re.search(r"cannot be written: (database or disk is full|disk I/O error)\.$", str(caught.value))
    assert "\n" not in str(caught.value)
    assert stored
    assert list(ledger.get([*stored, str(len(stored))])) == stored
    make_room()
    for put in puts(ledger):
        put()
    assert list(ledger.get([*stored, "n"])) == [*stored, "n"]


def _fill_up(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    with Ledger(path) as ledger:
        no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        assert_filled_up_and_usable_again(ledger, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, no_limit))


def test_what_is_not_stored_is_refused_in_two_lines(tmp_path):
    with pytest.raises(BadInput) as caught, refusing(tmp_path / "runs.db", "written"):
        raise NotStored("the ledger runs.db cannot be written: database or disk is full.")
    first, second = str(caught.value).splitlines()
    assert first == "the ledger runs.db cannot be written: database or disk is full."
    assert second.startswith("What it holds is safe")


def test_a_file_that_may_not_grow(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_fill_up, args=(tmp_path / "runs.db",))
    process.start()
    process.join(100)
    assert process.exitcode == 0
    assert version_of(tmp_path / "runs.db") == SCHEMA_VERSION


@pytest.fixture
def small_disk(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk(small_disk):
    (small_disk / "other").write_bytes(b"x" * 300_000)
    with Ledger(small_disk / "runs.db") as ledger:
        assert_filled_up_and_usable_again(ledger, (small_disk / "other").unlink)


def test_a_read_only_disk(small_disk):
    path = version_1(small_disk / "runs.db")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert_nothing_is_lost(peek(path, "abc"))
    with pytest.raises(BadInput, match="cannot be written: Read-only file system"):
        Ledger(path)


@contextmanager
def only_reading(folder):
    """What permissions do not bind, root, is nobody meanwhile."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.fixture
def folder():
    """One whose parents everybody may enter, as pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("mode", [0o444, 0o666])
def test_a_read_only_ledger_is_read_and_not_written(folder, mode):
    """In a folder that is read-only too; a file that can be written alone does not help SQLite."""
    path = folder / "runs.db"
    with Ledger(path) as ledger:
        ledger.put(STUDY, run(), result(), {}, {})
    before = path.read_bytes()
    path.chmod(mode)
    with only_reading(folder):
        assert list(peek(path, "k")) == ["k"]
        for new in (path, folder / "new.db"):
            with pytest.raises(BadInput, match="cannot be written: ") as caught:
                Ledger(new)
            assert len(str(caught.value).splitlines()) == 2
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]


def test_what_a_killed_command_left_is_read_only_where_it_can_be_written(tmp_path, folder):
    """Its write-ahead log cannot be read without writing an index of it."""
    path, copy = tmp_path / "runs.db", folder / "runs.db"
    with Ledger(path) as ledger:
        ledger.put(STUDY, run(), result(), {}, {})
        for end in ("", "-wal"):
            Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    with only_reading(folder), pytest.raises(BadInput, match="what it wrote is still in runs"):
        peek(copy, "k")
    assert list(peek(copy, "k")) == ["k"]
