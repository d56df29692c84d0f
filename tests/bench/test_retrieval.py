"""Studies are read back from ledgers as they were carried out, without a framework."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.ledger.lookup import studies
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.tuning.tune import carry_out_tuning, plan_tuning
from keras_dropout.cli import app
from keras_dropout.errors import BadInput

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="studies start their own processes")


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("retrieval") / "runs.db"
    variants = {"half": {"hidden": 0.5}, "late": {"hidden": "late(0.4, start=0.5)"}}
    plan = make_plan("digits-mlp", variants=variants, seeds=2, epochs=2, samples=3, margin=0.01, ledger=path, workers=1)
    return carry_out(plan, quiet=True, command="the command")


def copied(found, path):
    """The ledger of what was found, in a file of its own."""
    with closing(sqlite3.connect(found.ledger)) as whole, closing(sqlite3.connect(path)) as copy:
        whole.backup(copy)
    return path


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def as_data(document):
    return json.loads(json.dumps(document, allow_nan=False))


def test_what_is_read_back_is_what_was_found(carried_out):
    found = retrieve(carried_out.ledger)
    here, there = (as_data(each.report_document()) for each in (carried_out, found))
    assert there["made"].pop("started") is not None
    assert here["made"].pop("started") is None
    assert there == here
    assert str(found) == str(carried_out)
    assert found.command == "the command"


def test_it_has_all_that_a_report_shows(carried_out):
    document = carried_out.report_document()
    assert {name for name, value in document.items() if value is None} == set()
    confusion, calibration, examples = document["confusion"], document["calibration"], document["examples"]
    accuracy = np.array([1 / 360 * np.trace(confusion["mean"][name]) for name in ("none", "half", "late")])
    assert accuracy == pytest.approx([variant["mean"]["test_accuracy"] for variant in document["variants"]], abs=1e-6)
    for curves in calibration.values():
        for kind in ("plain", "monte_carlo"):
            assert [sum(run["count"]) for run in curves[kind]["reliability"]["runs"]] == [360, 360]
    for number, run in enumerate(calibration["half"]["plain"]["risk_coverage"]["runs"]):
        assert run[-1] == pytest.approx(1 - carried_out.values("half", "test_accuracy")[number], abs=1e-6)
    assert (examples["kind"], examples["count"], examples["stored"]) == ("images", 360, 360)
    for each in examples["disputed"]:
        shares = [np.mean(np.equal(v["predictions"], each["answer"])) for v in each["variants"].values()]
        assert np.ptp(shares) > 0
        assert np.shape(each["pixels"]) == (8, 8)


def test_no_framework_is_loaded(carried_out):
    code = (
        "import sys; from keras_dropout.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'keras', 'jax', 'tensorflow', 'torch', 'optuna'} & set(sys.modules), sorted(sys.modules)"
    )
    page = carried_out.ledger.with_name("page.html")
    found = subprocess.run(
        [sys.executable, "-c", code, "report", str(carried_out.ledger), "-o", str(page)], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{page}\n", "")
    assert "<h1" in page.read_text()


def test_the_command_lists_the_studies_and_gives_one_as_json(carried_out, tmp_path):
    def report(*arguments):
        return CliRunner().invoke(app, ["report", str(carried_out.ledger), *arguments])

    (row,) = json.loads(report("--list", "--json").stdout)
    assert (row["target"], row["variants"], row["runs"], row["done"]) == ("digits-mlp", ["none", "half", "late"], 6, 6)
    assert ("6 of 6" in report("--list").stdout, report("--list", "--target", "other", "--json").stdout) == (True, "[]\n")
    document, before = json.loads(report("--json").stdout), as_data(carried_out.report_document())
    assert (document["pairs"], document["comparisons"]) == (before["pairs"], before["comparisons"])
    refused = report("-o", str(tmp_path / "page.txt")).exception
    assert isinstance(refused, BadInput)
    assert str(refused).startswith("the report must be an .html file; got ")
    assert report("--json", "-o", str(tmp_path / "page.txt")).stdout == report("--json").stdout  # which is not written
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_page_that_is_interrupted(carried_out, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carried_out.save_report(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_study_that_runs_is_shown_so_far(carried_out, tmp_path):
    path = copied(carried_out, tmp_path / "part.db")
    change(
        path,
        "DELETE FROM runs WHERE seed = 1 AND variant != 'none'",
        "DELETE FROM details WHERE key NOT IN (SELECT key FROM runs)",
    )
    found = retrieve(path)
    assert found.missing == 2
    assert "2 run(s) are not finished yet." in found.warnings()
    assert {row["pairs"] for row in found.document()["comparisons"]} == {1}
    found.save_report(tmp_path / "page.html")
    assert (studies(path)[0]["done"], studies(path)[0]["runs"]) == (4, 6)


def test_a_study_of_an_earlier_version_is_read_from_its_runs(carried_out, tmp_path):
    path = copied(carried_out, tmp_path / "old.db")
    change(path, "UPDATE studies SET document = NULL", "UPDATE details SET predictions = NULL, calibration = NULL")
    found = retrieve(path)
    document, before = as_data(found.report_document()), as_data(carried_out.report_document())
    for name in ("curves", "pairs"):
        assert document[name] == before[name]
    assert [variant["runs"] for variant in document["variants"]] == [variant["runs"] for variant in before["variants"]]
    assert [*document["variants"][1]["placement"].values()] == [*before["variants"][1]["placement"].values()]
    assert document["study"]["data"]["test"] == 360
    assert (document["examples"], document["calibration"]) == (None, None)
    assert [row["difference"] for row in document["comparisons"]] == [row["difference"] for row in before["comparisons"]]
    found.save_report(tmp_path / "page.html")
    change(path, "DELETE FROM runs", "DELETE FROM details")
    with pytest.raises(BadInput, match="has no finished run"):
        retrieve(path)


def test_the_latest_study_of_a_target_or_one_by_its_number(carried_out, tmp_path):
    path = copied(carried_out, tmp_path / "two.db")
    columns = "command, versions, machine, runs, document"
    change(path, f"INSERT INTO studies (started, target, {columns}) SELECT '2999-01-01', 'other', {columns} FROM studies")
    assert [row["target"] for row in studies(path)] == ["digits-mlp", "other"]
    first = studies(path)[0]["number"]
    assert retrieve(path).number == first + 1
    assert retrieve(path, target="digits-mlp").number == retrieve(path, number=first).number == first
    refused = [({"target": "none such"}, "no study of 'none such'"), ({"number": 99}, "no study 99")]
    for more, words in (*refused, ({"number": 10**20}, "study must be at most 9,223,372,036,854,775,807")):
        with pytest.raises(BadInput, match=words):
            retrieve(path, **more)


def test_a_ledger_that_is_not_there_or_damaged_is_refused(carried_out, tmp_path):
    with pytest.raises(BadInput, match="there is no ledger"):
        retrieve(tmp_path / "none.db")
    path = copied(carried_out, tmp_path / "bad.db")
    change(path, "UPDATE studies SET document = '{\"study\": {}}'")
    with pytest.raises(BadInput, match="is damaged"):
        retrieve(path)


def test_a_sweep_is_read_back_with_its_curve(tmp_path):
    planned = plan_tuning("digits-mlp", sweep="hidden=0:0.4:3", seeds=2, epochs=1, ledger=tmp_path / "s.db", workers=1)
    found = carry_out_tuning(planned, quiet=True)
    read = retrieve(tmp_path / "s.db")
    assert as_data(read.report_document())["sweep"] == as_data(found.document())["sweep"]


def test_what_a_run_that_diverged_predicted_is_left_out(carried_out, tmp_path):
    path = copied(carried_out, tmp_path / "diverged.db")
    change(path, "UPDATE runs SET status = 'diverged' WHERE variant = 'half' AND seed = 1")
    found, whole = (each.report_document() for each in (retrieve(path), carried_out))
    assert len(found["calibration"]["half"]["plain"]["reliability"]["runs"]) == 1
    assert {tuple(each["variants"]["half"]["predictions"])[1] for each in found["examples"]["disputed"]} == {None}
    assert found["confusion"]["mean"]["none"] == whole["confusion"]["mean"]["none"]
    assert found["confusion"]["mean"]["half"] != whole["confusion"]["mean"]["half"]
