"""The ledger on real SQLite files: round trips, sharing, and files that are no ledger."""

import multiprocessing
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dropout.bench.ledger import SCHEMA_VERSION, Ledger, check_ledger_path, peek
from keras_dropout.bench.records import DataFacts, Result, Run, Study, Variant
from keras_dropout.errors import BadInput

STUDY = Study(
    "t", DataFacts("d", "f", 9, 1, 2), {}, {"loss": "mse"}, "held-out", "jax", "compiled", 1, 1, (0,), (Variant("none", {}),)
)
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


def _write_many(path, first, barrier):
    barrier.wait()
    for number in range(first, first + 40):
        with Ledger(path) as ledger:
            ledger.put(STUDY, run(str(number)), result(float(number)), {}, {})


def test_two_processes_share_a_new_ledger(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_write_many, args=(tmp_path / "runs.db", first, barrier)) for first in (0, 20)]
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
