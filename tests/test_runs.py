"""`keras-dropout runs` as its users meet it, on real ledgers, with damage planted in them."""

import csv
import dataclasses
import io
import json
import sqlite3
import subprocess
import sys
import zipfile
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dropout import cli
from keras_dropout.bench.ledger import admin, schema
from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.ledger.lookup import models, peek
from keras_dropout.bench.ledger.schema import SCHEMA_VERSION
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import DataFacts, Result, Study, Variant

STUDY = Study(
    "digits",
    DataFacts("d", "f", 9, 1, 2),
    {"class_name": "Sequential"},
    {"loss": "mse"},
    "held-out",
    "jax",
    "compiled",
    2,
    32,
    tuple(range(6)),
    (Variant("none", {}), Variant("half", {"hidden": {"kind": "Dropout", "rate": 0.5}})),
)
RUNS = {(run.variant.name, run.seed): run for run in STUDY.runs()}
DB = "keras-dropout.db"  # the default


def done(loss=0.25, **more):
    curves = {"loss": [1 / 3, 0.1], "validation_loss": [0.5, loss]}
    losses, more = np.array([loss, loss], "f4"), {"predictions": np.array([1, 0])} | more
    return Result("done", 1.5, 2, {"test_loss": loss, "test_accuracy": 2 / 3}, curves, losses, **more)


def zipped(text):
    """An archive, as a model's is one; always the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        files.writestr(zipfile.ZipInfo("config.json"), text)
    return content.getvalue()


FAILED = Result("failed", 0.5, 0, error="ValueError: no [such] thing", log="a line\nanother\n")
DIVERGED = Result("diverged", 0.5, 1, {}, {"loss": [9.0]})


def fill(path, results):
    """A ledger with these results, by variant and seed."""
    with Ledger(path) as ledger:
        ledger.put_study(STUDY, "keras-dropout compare digits", {"keras": "3"}, {"cores": 2})
        ledger.put_examples(STUDY.data.fingerprint, {"kind": "none"}, {"answers": np.arange(2)})
        for name, result in results.items():
            ledger.put(STUDY, RUNS[name], result, {"keras": "3"}, {"cores": 2})
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(here, monkeypatch, capsys):
    """The command in this process: its exit status, what it printed, and what it complained of."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["keras-dropout", "runs", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code, *capsys.readouterr())

    return command


@pytest.fixture
def three(here):
    return fill(DB, {("none", 0): done(0.5), ("half", 0): FAILED, ("half", 1): DIVERGED})


def sql(path, statement, *values):
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(statement, values).fetchall()
        connection.commit()
    return found


def keys(*names):
    return [RUNS[name].key for name in names]


def listed(runs, *options):
    status, out, err = runs("list", "--json", *options)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_no_keras_is_loaded(three):
    code = (
        "import sys; sys.argv = ['keras-dropout', 'runs', *sys.argv[1:]]\n"
        "from keras_dropout.cli import main\n"
        "try: main()\n"
        "finally: assert not {'keras', 'jax', 'tensorflow', 'torch'} & set(sys.modules), 'loaded'"
    )
    for arguments in (["--help"], [], ["export", "a.csv"], ["verify"], ["delete", "--all", "--yes"]):
        ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, ""), arguments


def test_runs_alone_is_a_table_of_all_the_newest_last(three, runs):
    status, out, err = runs()
    assert (status, err) == (0, "")
    assert runs("list") == (status, out, err)
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert rows == [key[:8] for key in keys(("none", 0), ("half", 0), ("half", 1))]
    assert "0.5000" in out
    assert out.endswith("3 run(s) in keras-dropout.db\n")
    assert runs("--limit", 1)[1].endswith("3 run(s) in keras-dropout.db, the newest 1 shown\n")


def test_the_list_as_data(three, runs):
    first, second, third = listed(runs)
    assert first.pop("finished")
    assert first == {
        "key": RUNS["none", 0].key,
        "target": "digits",
        "variant": "none",
        "seed": 0,
        "backend": "jax",
        "engine": "compiled",
        "status": "done",
        "seconds": 1.5,
        "epochs": 2,
        "best_epoch": None,
        "metrics": {"test_loss": 0.5, "test_accuracy": 2 / 3},
        "error": None,
        "model": False,
    }
    assert second["error"] == FAILED.error
    assert third["status"] == "diverged"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--variant", "half"], [("half", 0), ("half", 1)]),
        (["--status", "done", "--status", "failed"], [("none", 0), ("half", 0)]),
        (["--seed", 0, "--variant", "half"], [("half", 0)]),
        (["--target", "digits", "--limit", 2], [("half", 0), ("half", 1)]),
        (["--target", "other"], []),
        (["--since", "2000-01-01"], [("none", 0), ("half", 0), ("half", 1)]),
        (["--since", "2999-01-01T12:00+02:00"], []),
    ],
)
def test_filters(three, runs, options, found):
    assert [run["key"] for run in listed(runs, *options)] == keys(*found)


def test_since_counts_the_run_that_ended_then(three, runs):
    when = listed(runs)[1]["finished"]
    assert keys(("half", 0))[0] in [run["key"] for run in listed(runs, "--since", when)]


def test_show_tells_everything_of_a_run(three, runs):
    key = RUNS["none", 0].key
    found = json.loads(runs("show", key[:6], "--json")[1])
    assert found["curves"] == done(0.5).curves
    assert found["config"] == STUDY.deciding(STUDY.variants[0], 0)
    assert found["versions"] == {"keras": "3"}
    assert found["machine"] == {"cores": 2}
    assert found["test_losses"] == {"count": 2, "mean": 0.5}
    status, out, err = runs("show", key)
    assert (status, err) == (0, "")
    for words in (key, "0.666667", "keras 3", "cores 2", "0.3333 0.1", "config batch size"):
        assert words in out


def test_show_has_the_error_and_the_log_of_a_run_that_failed(three, runs):
    key = RUNS["half", 0].key
    assert FAILED.error in runs("show", key)[1]
    assert runs("show", key, "--log") == (0, FAILED.log, "")


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=10, deadline=None)
@given(metrics=st.lists(st.dictionaries(st.sampled_from(["test_loss", "test_mae", "train_loss"]), finite), min_size=1, max_size=5))
def test_exported_numbers_are_exact(tmp_path_factory, metrics):
    folder = tmp_path_factory.mktemp("export")
    results = {("none", seed): Result("done", 1.5, 2, each, {"loss": [*each.values()]}) for seed, each in enumerate(metrics)}
    path = fill(folder / "runs.db", results)
    for file, curves in (("runs.csv", []), ("curves.csv", ["--curves"])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["", "runs", "export", str(folder / file), "--ledger", str(path), *curves])
            with pytest.raises(SystemExit):  # with 2 where there are no curves
                cli.main()
    with (folder / "runs.csv").open(newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    for seed, each in enumerate(metrics):
        row = rows[RUNS["none", seed].key]
        assert {name: float(row[name]) for name in row if name.split("_")[0] in ("test", "train") and row[name]} == each
        assert (int(row["seed"]), float(row["seconds"])) == (seed, 1.5)
    if any(metrics):
        with (folder / "curves.csv").open(newline="") as file:
            curves = {(row["key"], int(row["epoch"])): float(row["loss"]) for row in csv.DictReader(file)}
        losses = {(RUNS["none", s].key, n): x for s, each in enumerate(metrics) for n, x in enumerate(each.values(), 1)}
        assert curves == losses


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_export_in_every_format(three, here, runs, ending):
    assert runs("export", f"a.{ending}", "--status", "done", "--status", "failed") == (0, f"a.{ending}: 2 row(s)\n", "")
    assert runs("export", f"c.{ending}", "--curves")[0] == 0
    if ending == "csv":
        rows = list(csv.DictReader((here / "a.csv").read_text().splitlines()))
        assert [row["test_loss"] for row in rows] == ["0.5", ""]
        return
    if ending == "json":
        rows, epochs = (json.loads((here / f"{name}.json").read_text()) for name in "ac")
    else:
        pandas = pytest.importorskip("pyarrow.parquet")
        rows, epochs = (pandas.read_table(f"{name}.parquet").to_pylist() for name in "ac")
    assert [(row["key"], row["test_loss"], row["error"]) for row in rows] == [
        (RUNS["none", 0].key, 0.5, None),
        (RUNS["half", 0].key, None, FAILED.error),
    ]
    shown = [(row["variant"], row["seed"], row["epoch"], row["loss"], row["validation_loss"]) for row in epochs]
    assert shown == [("none", 0, 1, 1 / 3, 0.5), ("none", 0, 2, 0.1, 0.5), ("half", 1, 1, 9.0, None)]


def test_export_writes_over_a_file_only_when_told_to(three, here, runs):
    (here / "a.csv").write_text("precious")
    assert runs("export", "a.csv")[0] == 2
    assert (here / "a.csv").read_text() == "precious"
    assert runs("export", "a.csv", "--force")[0] == 0
    assert "test_loss" in (here / "a.csv").read_text()
    assert {path.name for path in here.iterdir()} == {DB, "a.csv"}


def test_export_that_cannot_be_written_to_the_end_leaves_nothing(three, here, runs, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    status, _, err = runs("export", "a.csv")
    assert (status, err.splitlines()[0]) == (2, "keras-dropout: a.csv cannot be written: No space left on device.")
    assert [path.name for path in here.iterdir()] == [DB]


def test_parquet_without_pyarrow_names_the_extra(three, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = runs("export", "a.parquet")
    assert status == 2
    assert "pip install 'keras-dropout[tables]'" in err


def test_merge_copies_replaces_and_tells_conflicts(here, runs):
    fill("one.db", {("none", 0): done(0.5), ("half", 0): FAILED, ("half", 1): done(0.3), ("none", 1): done(0.1)})
    other = {("none", 0): done(0.5), ("half", 0): done(0.4), ("half", 1): done(0.7), ("half", 2): done(0.2), ("none", 1): FAILED}
    fill("two.db", other)
    before = peek("one.db", keys(("half", 1)))
    status, out, err = runs("merge", "two.db", "--ledger", "one.db")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "two.db: 1 run(s) copied, 1 replaced, 2 were there",
        f"conflict: run {RUNS['half', 1].key} has other results in two.db; one.db keeps its own",
    ]
    found = peek("one.db", keys(*RUNS))
    assert len(found) == 5
    assert found[RUNS["half", 0].key] == done(0.4)
    assert found[RUNS["none", 1].key] == done(0.1)
    assert found[RUNS["half", 1].key] == before[RUNS["half", 1].key] == done(0.3)
    assert runs("verify", "--ledger", "one.db")[0] == 0


def test_merge_takes_models_also_for_runs_that_are_there(here, runs):
    fill("one.db", {("none", 0): done(0.5), ("none", 1): done(0.1), ("half", 0): FAILED, ("half", 1): done(0.3)})
    of_one = zipped("of one")
    with Ledger("one.db") as ledger:
        ledger.put(STUDY, RUNS["none", 1], done(0.1, model=of_one), {}, {})
    other = {("none", 0): 0.5, ("none", 1): 0.1, ("half", 0): 0.4, ("half", 1): 0.7, ("half", 2): 0.2}
    fill("two.db", {name: done(loss, model=zipped(str(name))) for name, loss in other.items()})
    status, out, _ = runs("merge", "two.db", "--ledger", "one.db")
    assert status == 1  # half, seed 1 is a conflict
    assert out.splitlines()[0] == "two.db: 1 run(s) copied, 1 replaced, 2 were there; 3 model(s) copied"
    expected = {RUNS[name].key: zipped(str(name)) for name in other if name != ("half", 1)} | {RUNS["none", 1].key: of_one}
    assert dict(models("one.db", keys(*RUNS))) == expected
    assert runs("merge", "two.db", "--ledger", "one.db")[1].splitlines()[0] == "two.db: 0 run(s) copied, 0 replaced, 4 were there"
    assert runs("verify", "--ledger", "one.db")[:2] == (
        0,
        "5 run(s), 4 model(s), 2 study(s) (7 run(s) asked for are not there): no problem(s)\n",
    )


outcomes = st.dictionaries(st.sampled_from(sorted(RUNS)), st.booleans(), max_size=8)


def contents(path):
    results = peek(path, keys(*RUNS))
    both = ("test_losses", "predictions")
    return {key: (each, [str(getattr(each, name)) for name in both]) for key, each in results.items()}


@settings(max_examples=12, deadline=None)
@given(one=outcomes, two=outcomes)
def test_merging_is_idempotent_and_its_order_does_not_count(tmp_path_factory, one, two):
    """A run ends in the same wherever it is trained; but it may fail here and not there."""
    folder = tmp_path_factory.mktemp("merge")
    for name, ended in (("one", one), ("two", two)):
        fill(folder / name, {run: done(run[1] / 7) if well else FAILED for run, well in ended.items()})
    merged = []
    for name, sources in (("a", ["one", "two"]), ("b", ["two", "one"]), ("c", ["one", "two", "one", "two"])):
        assert not any(found.conflicts for found in admin.merge(folder / name, [folder / source for source in sources]))
        merged.append(contents(folder / name))
    assert merged[0] == merged[1] == merged[2]
    assert set(merged[0]) == set(keys(*one, *two))
    for run in {*one, *two}:
        assert (merged[0][RUNS[run].key][0].status == "done") == (one.get(run, False) or two.get(run, False))
    (again,) = admin.merge(folder / "a", [folder / "c"])
    assert (again.copied, again.replaced) == (0, 0)
    documents = [json.loads(document) for (document,) in sql(folder / "c", "SELECT document FROM studies")]
    assert [each["study"]["target"] for each in documents] == [STUDY.target] * 2
    assert len(sql(folder / "c", "SELECT * FROM examples")) == 1


def test_a_source_is_taken_whole_or_not_at_all(three, here, runs):
    fill("two.db", {("none", seed): done() for seed in range(6)})
    sql("two.db", "DROP TABLE studies")
    status, _, err = runs("merge", "two.db")
    assert status == 2
    assert err.startswith("keras-dropout: the ledger two.db cannot be read: no such table: studies.")
    assert len(listed(runs)) == 3


DETAIL = "UPDATE details SET {} WHERE key = '" + RUNS["none", 1].key + "'"
RUN = "UPDATE runs SET {} WHERE key = '" + RUNS["none", 1].key + "'"
HOSTILE = {
    "a key that is no hash": (
        "UPDATE details SET key = 'x' || key; UPDATE runs SET key = 'x' || key",
        "not the hash of its config",
    ),
    "a key that is code": ("UPDATE details SET key = CAST(key AS BLOB)", "its key cannot be of the type blob"),
    "another config": (DETAIL.format("config = '{}'"), "not the hash of its config"),
    "a target of bytes": (RUN.format("target = x'ff00'"), "its target cannot be of the type blob"),
    "seconds of text": (RUN.format("seconds = 'long'"), "its seconds cannot be of the type text"),
    "a seed that is no whole number": (RUN.format("seed = 0.5"), "its seed cannot be of the type real"),
    "a name without an end": (RUN.format("variant = hex(zeroblob(9000))"), "its variant has 18,000 characters"),
    "a status": ("PRAGMA ignore_check_constraints = ON; " + RUN.format("status = 'best'"), "its status is none of"),
    "metrics": (RUN.format("""metrics = '{"test_loss": "0"}'"""), "its metrics cannot be read"),
    "metrics that are deep": (RUN.format("metrics = '" + "[" * 9000 + "'"), "its metrics cannot be read"),
    "curves": (DETAIL.format("curves = '[1]'"), "its curves cannot be read"),
    "losses": (DETAIL.format("test_losses = x'00'"), "its test losses cannot be read"),
    "losses of text": (DETAIL.format("test_losses = 'x'"), "its test_losses cannot be of the type text"),
    "versions": (DETAIL.format("versions = '3'"), "its versions cannot be read"),
    "a model": ("UPDATE models SET archive = 'x'", "its archive cannot be of the type text"),
    "a study's runs": ("UPDATE studies SET runs = '[{\"key\": {}}]'", "its runs cannot be read"),
    "a study's document": ("UPDATE studies SET document = '3'", "its document cannot be read"),
    "a study's command": ("UPDATE studies SET command = x'00'", "its command cannot be of the type blob"),
    "examples": ("UPDATE examples SET arrays = x'00'", "their arrays cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_taken_of_a_ledger_with_one_bad_row(here, runs, name):
    fill("ours.db", {("none", 0): done(0.5)})
    fill("theirs.db", {("none", seed): done(0.1 * seed, model=zipped("a model")) for seed in range(1, 4)})
    statements, words = HOSTILE[name]
    with closing(sqlite3.connect("theirs.db")) as connection:
        connection.executescript(statements)
    ours = [sql("ours.db", f"SELECT * FROM {table}") for table in ("runs", "details", "models", "studies", "examples")]
    status, out, err = runs("merge", "theirs.db", "--ledger", "ours.db")
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("keras-dropout: nothing is taken of the ledger theirs.db, which is damaged: ")
    assert words in first
    assert second.startswith("keras-dropout runs verify --ledger theirs.db lists all; ")
    assert [sql("ours.db", f"SELECT * FROM {table}") for table in ("runs", "details", "models", "studies", "examples")] == ours
    assert words in runs("verify", "--ledger", "theirs.db")[1]
    assert runs("merge", "theirs.db", "--ledger", "new.db")[0] == 2
    assert not Path("new.db").exists()


def test_a_ledger_is_taken_when_its_bad_run_is_out_of_it_as_the_refusal_says(here, runs):
    fill("ours.db", {("none", 0): done(0.5)})
    fill("theirs.db", {("none", seed): done(0.1 * seed) for seed in range(1, 4)})
    key = RUNS["none", 1].key
    sql("theirs.db", "UPDATE runs SET metrics = '[]' WHERE key = ?", key)
    assert runs("merge", "theirs.db", "--ledger", "ours.db")[0] == 2
    assert runs("delete", key, "--ledger", "theirs.db", "--yes")[0] == 0
    assert runs("merge", "theirs.db", "--ledger", "ours.db")[1] == "theirs.db: 2 run(s) copied, 0 replaced, 0 were there\n"


def test_a_merge_brings_no_trigger(here, runs):
    fill("ours.db", {("none", 0): done(0.5)})
    fill("theirs.db", {("none", 1): done(0.1)})
    sql("theirs.db", "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM details; END")
    status, _, err = runs("merge", "theirs.db", "--ledger", "ours.db")
    assert (status, len(err.splitlines())) == (2, 2)
    assert "trigger 't'" in err
    assert len(listed(runs, "--ledger", "ours.db")) == 1


def on_disk(secret):
    """Whether a piece of it is in a file of this folder."""
    content = b"".join(file.read_bytes() for file in Path.cwd().iterdir())
    return any(secret[start : start + 20] in content for start in range(0, len(secret) - 20, 20))


def test_what_is_deleted_is_not_in_the_bytes_of_the_file(here, runs):
    """Nor in its log, which is beside it while another command has it open."""
    answers, log = np.random.default_rng(0).integers(0, 256, 5000).astype("u1"), "printed by the run that goes"
    fill(DB, {("none", 0): done(0.5), ("none", 1): done(0.1, log=log)})
    sql(DB, "DELETE FROM examples")  # those of `fill`
    with Ledger(DB) as ledger:
        ledger.put_examples(STUDY.data.fingerprint, {"kind": "none"}, {"answers": answers})
        ((secret,),) = sql(DB, "SELECT arrays FROM examples")
        assert on_disk(secret)
        assert on_disk(log.encode())
        assert runs("delete", "--examples") == (
            2,
            "",
            f"keras-dropout: test examples of 1 data set(s) of {DB} would be deleted; nothing was.\nAdd --yes to delete them.\n",
        )
        assert runs("delete", "--examples", "--yes") == (0, f"test examples of 1 data set(s) deleted from {DB}\n", "")
        assert not on_disk(secret)
        assert on_disk(log.encode())
        assert runs("delete", RUNS["none", 1].key, "--yes")[0] == 0
        assert not on_disk(log.encode())
        assert list(ledger.get(keys(*RUNS))) == keys(("none", 0))
    assert runs("delete", "--examples", "--all", "--yes")[0] == 2


def test_examples_go_with_the_last_run_on_their_data(three, runs):
    assert runs("delete", "--status", "failed", "--yes")[0] == 0
    assert len(sql(DB, "SELECT * FROM examples")) == 1
    assert runs("delete", "--all", "--yes")[0] == 0
    assert sql(DB, "SELECT * FROM examples") == []


def test_what_a_reader_keeps_in_the_log_is_told(three, runs, monkeypatch):
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    with closing(sqlite3.connect(DB, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM runs").fetchall()
        status, _, err = runs("delete", "--examples", "--yes")
        assert status == 2
        assert err.splitlines()[0].startswith("keras-dropout: they are deleted, but not yet out of the file's bytes: ")
        assert err.splitlines()[1].endswith(f"keras-dropout runs vacuum --ledger {DB}")
    assert runs("vacuum")[0] == 0
    assert sql(DB, "SELECT * FROM examples") == []


@pytest.mark.parametrize("name", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1"])
def test_no_cell_of_a_csv_is_a_formula(here, runs, name):
    with Ledger(DB) as ledger:
        ledger.put(STUDY, STUDY.runs()[1], Result("done", 1.5, 2, {"test_loss": -0.25, name: 2.0}, {name: [-1.5]}), {}, {})
    sql(DB, "UPDATE runs SET target = ?, variant = ?", name, name)  # a study has none of these signs; an older ledger can
    assert runs("export", "a.csv")[0] == runs("export", "c.csv", "--curves")[0] == runs("export", "a.json")[0] == 0
    for file in ("a.csv", "c.csv"):
        with (here / file).open(newline="", encoding="utf-8") as opened:
            head, row = csv.reader(opened)
        cells = dict(zip(head, row))
        assert (cells["target"], cells["variant"]) == (f"'{name}", f"'{name}")
        assert float(cells[f"'{name}"]) == (2.0 if file == "a.csv" else -1.5)
    assert float(dict(zip(*csv.reader((here / "a.csv").open(newline="", encoding="utf-8"))))["test_loss"]) == -0.25
    assert json.loads((here / "a.json").read_text())[0]["variant"] == name


def test_a_name_that_is_no_unicode_is_exported(here, runs):
    with Ledger(DB) as ledger:
        ledger.put(STUDY, RUNS["none", 0], Result("done", 1.5, 2, {"test_\ud800": 2.0}, {}), {}, {})
    assert runs("export", "a.csv")[0] == 0
    assert "test_\\ud800" in (here / "a.csv").read_text().splitlines()[0]


def test_delete_says_how_many_first(three, runs):
    status, out, err = runs("delete", "--variant", "half")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "keras-dropout: 2 run(s) of keras-dropout.db would be deleted; nothing was.",
        "Add --yes to delete them.",
    ]
    assert len(listed(runs)) == 3
    assert runs("delete", "--variant", "half", "--yes") == (0, "2 run(s) deleted from keras-dropout.db\n", "")
    assert [run["key"] for run in listed(runs)] == keys(("none", 0))
    assert sql(DB, "SELECT key FROM details") == [tuple(keys(("none", 0)))]
    assert runs("delete", RUNS["none", 0].key[:5], "--yes")[0] == 0
    assert listed(runs) == []


def test_everything_is_deleted_only_when_that_is_said(three, runs):
    assert runs("delete", "--yes")[0] == 2
    assert runs("delete", "--all")[0] == 2
    assert len(listed(runs)) == 3
    assert runs("delete", "--all", "--yes")[0] == 0
    assert listed(runs) == []


def test_models_go_with_their_runs(here, runs):
    fill(DB, {("none", seed): done(model=zipped(f"{seed}")) for seed in range(3)})
    assert runs("delete", "--seed", 1, "--yes")[0] == 0
    assert [key for key, _ in models(DB, keys(*RUNS))] == keys(("none", 0), ("none", 2))
    sql(DB, "DELETE FROM runs WHERE seed = 2")  # another program leaves the model
    assert "belongs to no run that is done" in runs("verify")[1]
    assert runs("vacuum")[0] == 0
    assert [key for key, _ in models(DB, keys(*RUNS))] == keys(("none", 0))
    assert runs("verify")[0] == 0


def test_a_model_is_taken_out_as_it_was_put_in(here, runs):
    fill(DB, {("none", 0): done(model=zipped("the model")), ("none", 1): done()})
    key = RUNS["none", 0].key
    assert runs("model", key[:6], "-o", "a.keras") == (0, "a.keras\n", "")
    assert (here / "a.keras").read_bytes() == zipped("the model")
    assert runs("model", key, "-o", "a.keras")[0] == 2
    sql(DB, "UPDATE models SET archive = ?", zipped("another"))
    assert runs("model", key, "-o", "a.keras", "--force")[0] == 0
    assert (here / "a.keras").read_bytes() == zipped("another")
    assert {path.name for path in here.iterdir()} == {DB, "a.keras"}
    assert {run["seed"]: run["model"] for run in listed(runs)} == {0: True, 1: False}  # in either order: they end at once
    assert sorted(line.split("│")[-3].strip() for line in runs()[1].splitlines() if line.startswith("│")) == ["", "kept"]
    assert json.loads(runs("show", key, "--json")[1])["model"] is True
    assert f"keras-dropout runs model {key[:8]} -o" in runs("show", key)[1]
    assert "keras-dropout runs model" not in runs("show", RUNS["none", 1].key)[1]
    assert runs("export", "a.csv")[0] == 0
    assert {row["seed"]: row["model"] for row in csv.DictReader((here / "a.csv").read_text().splitlines())} == {
        "0": "True",
        "1": "False",
    }


def test_vacuum_drops_what_nobody_will_use(three, runs):
    sql(DB, "DELETE FROM runs WHERE key = ?", *keys(("none", 0)))  # another program leaves the details
    with Ledger(DB) as ledger:
        waiting, stranger = RUNS["none", 3].key, "of no study"
        for key in (waiting, RUNS["half", 0].key, stranger):
            ledger.put_checkpoint(key, 1, Checkpoint(1, {}, 0.0, [np.zeros(500_000, "u1")]).to_bytes())
    status, out, err = runs("vacuum")
    assert (status, err) == (0, "")
    assert "1 checkpoint(s) dropped" in out
    before, after = (int(number.replace(",", "")) for number in (out.split()[1], out.split()[4]))
    assert before - after > 400_000
    assert runs("verify")[0] == 0
    assert len(sql(DB, "SELECT * FROM examples")) == 1
    with Ledger(DB) as ledger:
        assert set(ledger.checkpoints([waiting, RUNS["half", 0].key, stranger])) == {waiting, RUNS["half", 0].key}


def test_a_sound_ledger_is_verified(three, runs):
    assert runs("verify") == (0, "3 run(s), 1 study(s) (9 run(s) asked for are not there): no problem(s)\n", "")
    assert json.loads(runs("verify", "--json")[1]) == {"runs": 3, "models": 0, "studies": 1, "missing": 9, "problems": []}


FAULTS = {
    "a digit of the config": ("UPDATE details SET config = replace(config, '\"epochs\": 2', '\"epochs\": 3')", "not the hash"),
    "a wrong key": ("UPDATE runs SET key = 'ff' || substr(key, 3)", "is in details but not in runs"),
    "a wrong key throughout": ("UPDATE details SET key = 'f'; UPDATE runs SET key = 'f'", "not the hash"),
    "metrics that are no JSON": ("UPDATE runs SET metrics = '{\"test_loss\": '", "its metrics cannot be read"),
    "metrics that are a list": ("UPDATE runs SET metrics = '[]'", "its metrics cannot be read"),
    "metrics that are not finite": ("UPDATE runs SET metrics = '{\"test_loss\": NaN}'", "no finite numbers"),
    "curves that are no JSON": ("UPDATE details SET curves = ''", "its curves cannot be read"),
    "versions that are no JSON": ("UPDATE details SET versions = 'x'", "its versions cannot be read"),
    "truncated losses": ("UPDATE details SET test_losses = substr(test_losses, 1, 9)", "test losses cannot be read"),
    "losses that are text": ("UPDATE details SET test_losses = 'x'", "test losses cannot be read"),
    "a metric that is null": ("UPDATE runs SET metrics = '{\"test_loss\": null}'", "its metrics cannot be read"),
    "a curve that is text": ('UPDATE details SET curves = \'{"loss": "abc"}\'', "its curves cannot be read"),
    "a curve with a text": ('UPDATE details SET curves = \'{"loss": [1.0, "abc"]}\'', "its curves cannot be read"),
    "a study's runs": ("UPDATE studies SET runs = '[1]'", "its runs cannot be read"),
    "no details": ("DELETE FROM details", "is in runs but not in details"),
    "a table that lacks a column": ("ALTER TABLE details DROP COLUMN log", "table 'details' is not as keras-dropout makes it"),
    "a truncated model": ("UPDATE models SET archive = substr(archive, 1, 60)", "the archive cannot be read"),
    "a model that is text": ("UPDATE models SET archive = 'x'", "the archive cannot be read"),
    "a model of a run that failed": ("UPDATE runs SET status = 'failed'", "belongs to no run that is done"),
    "no models": ("DROP TABLE models", "models is not as keras-dropout makes it"),
    "predictions that are text": ("UPDATE details SET predictions = 'x'", "its predictions cannot be read"),
    "calibration that is no JSON": ("UPDATE details SET calibration = '['", "its calibration cannot be read"),
    "a study's document": ("UPDATE studies SET document = '['", "its document cannot be read"),
    "truncated examples": ("UPDATE examples SET arrays = substr(arrays, 1, 40)", "their arrays cannot be read"),
    "examples that are anything": ("UPDATE examples SET about = 'x'", "what they are cannot be read"),
    "a truncated checkpoint": ("INSERT INTO checkpoints VALUES ('k', 1, x'0102', '')", "the run will begin anew"),
    "no view": ("DROP VIEW means", "means is not as keras-dropout makes it"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_verify_finds(here, runs, name):
    fill(DB, {("none", 0): done(model=zipped("a model"))})
    statements, words = FAULTS[name]
    for statement in statements.split("; "):
        sql(DB, statement)
    status, out, err = runs("verify")
    assert (status, err) == (1, "")
    assert words in out
    problems = json.loads(runs("verify", "--json")[1])["problems"]
    assert any(words in problem["what"] for problem in problems)
    assert all(problem["where"] for problem in problems)


def test_verify_finds_losses_that_are_wrong_in_number_or_not_finite(here, runs):
    few = dataclasses.replace(done(), test_losses=np.zeros(1, "f4"))
    fill(DB, {("none", 0): done(), ("none", 1): done(), ("none", 2): few, ("half", 0): done()})
    sql(
        DB,
        "UPDATE details SET test_losses = ? WHERE key = ?",
        zlib.compress(np.array([np.nan] * 2, "<f4").tobytes()),
        *keys(("half", 0)),
    )
    assert {(each["where"], each["what"]) for each in json.loads(runs("verify", "--json")[1])["problems"]} == {
        (f"run {RUNS['none', 2].key}", "has 1 test losses; other runs on the same data have 2"),
        (f"run {RUNS['half', 0].key}", "is done, but has test losses that are not finite"),
    }


def test_verify_finds_a_digit_of_a_model(here, runs):
    fill(DB, {("none", 0): done(model=zipped("a model"))})
    sql(DB, "UPDATE models SET archive = ?", zipped("a model").replace(b"a model", b"a modem"))
    assert json.loads(runs("verify", "--json")[1])["problems"] == [
        {"where": f"model of run {RUNS['none', 0].key}", "what": "config.json cannot be read"}
    ]


def test_verify_finds_a_page_that_is_overwritten(here, runs):
    fill(DB, {run: done(log="x" * 9000) for run in RUNS})
    with open(DB, "r+b") as file:
        file.seek(10 * 4096)
        file.write(b"\xff" * 4096)
    status, out, err = runs("verify")
    assert (status, err) == (1, "")
    assert "file: " in out


NOT_NUMBERS = "its metrics are not numbers"
METRICS = {
    "x": "Expecting value: line 1 column 1 (char 0)",
    '{"test_loss": null}': NOT_NUMBERS,
    '{"test_loss": "0.5"}': NOT_NUMBERS,
    '{"test_loss": '
    + "[" * 5000
    + "]" * 5000
    + "}": "maximum recursion depth exceeded while decoding a JSON array from a unicode string",
}


@pytest.mark.parametrize("metrics", METRICS, ids=range(len(METRICS)))
@pytest.mark.parametrize("arguments", [["list"], ["show", RUNS["none", 0].key], ["export", "a.csv"]])
def test_a_damaged_run_is_two_lines(here, runs, arguments, metrics):
    fill(DB, {("none", 0): done()})
    sql(DB, "UPDATE runs SET metrics = ?", metrics)
    status, out, err = runs(*arguments)
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f"keras-dropout: the ledger {DB} is damaged: the metrics of run {RUNS['none', 0].key} cannot be read: {METRICS[metrics]}.",
        f"keras-dropout runs verify --ledger {DB} says what is wrong; go back to a copy.",
    ]


DETAILS = {
    "no details": ("DELETE FROM details", "run {key} has no details."),
    "losses of text": ("UPDATE details SET test_losses = 'abc'", "run {key}: its test_losses is str, not bytes."),
    "curves of text": (
        """UPDATE details SET curves = '{"loss": "abc"}'""",
        "the curves of run {key} cannot be read: its curves are not numbers.",
    ),
    "a whole number above all floats": (
        f"""UPDATE details SET curves = '{{"loss": [{10**400}]}}'""",
        None,
    ),
}


@pytest.mark.parametrize("name", DETAILS)
def test_details_that_are_damaged_are_two_lines(here, runs, name):
    fill(DB, {("none", 0): done()})
    key, (statement, words) = RUNS["none", 0].key, DETAILS[name]
    sql(DB, statement)
    status, _, err = runs("show", key)
    assert (status, len(err.splitlines())) == ((2, 2) if words else (0, 0))
    assert (words or "").format(key=key) in err


COMMANDS = {
    "list": [],
    "show": ["abcd"],
    "model": ["abcd", "-o", "a.keras"],
    "export": ["a.csv"],
    "merge": ["keras-dropout.db", "--ledger", "new.db"],
    "delete": ["--all", "--yes"],
    "vacuum": [],
    "verify": [],
}


def newer(path):
    fill(path, {})
    sql(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


LEDGERS = {
    "missing": (lambda path: None, "there is no ledger keras-dropout.db"),
    "newer": (newer, f"was written by a newer keras-dropout (schema {SCHEMA_VERSION + 1})"),
    "another SQLite file": (lambda path: sql(path, "CREATE TABLE things (x)"), "is an SQLite file, but not a ledger"),
    "text": (lambda path: path.write_text("this is no database at all"), "it is not an SQLite file"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", LEDGERS)
def test_what_is_no_ledger_is_two_lines_and_exit_2(here, runs, name, kind):
    make, words = LEDGERS[kind]
    make(here / DB)
    before = {path: path.is_file() and path.read_bytes() for path in here.iterdir()}
    status, out, err = runs(name, *COMMANDS[name])
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert words in err.splitlines()[0]
    assert {path: path.is_file() and path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_locked_ledger_is_two_lines_and_exit_2(three, here, runs, name, monkeypatch):
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    with closing(sqlite3.connect(DB, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        status, out, err = runs(name, *COMMANDS[name])
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "keras-dropout: the ledger keras-dropout.db is locked: another process has held it for 0.05 s.",
        "Wait until that process has ended.",
    ]


BAD = {
    "unknown key": (["show", "ffff0000ffff"], "has no run ffff0000ffff"),
    "short key": (["show", "abc"], "at least 4 of its digits"),
    "wildcard": (["show", "%%%%"], "has no run %%%%"),
    "key of a model": (["model", "ffff0000ffff", "-o", "a.keras"], "has no run ffff0000ffff"),
    "no model": (["model", RUNS["none", 0].key, "-o", "a.keras"], "is not kept"),
    "file of a model": (["model", RUNS["none", 0].key, "-o", "a.h5"], "must be a .keras file"),
    "key to delete": (["delete", "ffff0000", "--yes"], "has no run ffff0000"),
    "key and filter": (["delete", "ffff0000", "--seed", "1", "--yes"], "must be told in one way"),
    "ending": (["export", "a.xls"], ".csv or .parquet or .json"),
    "folder": (["export", "no/a.csv"], "cannot be written there"),
    "none to export": (["export", "a.csv", "--seed", "77"], "no such run is in the ledger"),
    "status": (["list", "--status", "don"], "unknown status 'don'"),
    "since": (["list", "--since", "yesterday"], "must be a date or a time; got 'yesterday'"),
    "limit": (["list", "--limit", "0"], "--limit must be a whole number of at least 1"),
    "seed": (["list", "--seed", "x"], "--seed"),
    "since before there was time": (["list", "--since", "0001-01-01T00:00+14:00"], "must be a date or a time; got '0001"),
    "a limit too large": (["list", "--limit", "9" * 20], "--limit must be at most 9,223,372,036,854,775,807"),
    "a seed too large": (["list", "--seed", "9" * 20], "seed must be at most 9,223,372,036,854,775,807"),
    "merge with itself": (["merge", DB], "is the ledger to merge into"),
    "missing source": (["merge", "other.db"], "there is no ledger other.db"),
    "unknown command": (["lst"], "lst"),
    "unknown option": (["--frob"], "--frob"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_two_lines_and_exit_2(three, here, runs, name):
    arguments, words = BAD[name]
    status, out, err = runs(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert words in err.splitlines()[0]
    assert [path.name for path in here.iterdir()] == [DB]


def test_a_beginning_that_several_keys_have(three, runs):
    sql(DB, "PRAGMA foreign_keys = OFF")
    for number, key in enumerate(keys(("none", 0), ("half", 0))):
        sql(DB, "UPDATE runs SET key = ? WHERE key = ?", f"abcd{number}", key)
    status, _, err = runs("show", "abcd")
    assert status == 2
    assert "several runs begin with abcd: abcd0, abcd1" in err
