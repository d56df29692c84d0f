"""Scores of one's own: the same statistics as a study's, on a table from anywhere; what cannot be compared is refused."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import keras_dropout
from keras_dropout.bench.own_scores import compare_scores, is_scores
from keras_dropout.bench.statistics import sign_flip_p
from keras_dropout.cli import app
from keras_dropout.errors import BadInput


def table(pairs=6, variants=("none", "hidden", "last"), difference=-0.1):
    """Variant k is `difference * k` from the first in loss, and nothing but noise in accuracy."""
    draws = np.random.default_rng(0)
    rows = [
        {
            "variant": name,
            "seed": seed,
            "loss": 1 + 0.3 * seed + difference * rank + draws.normal(0, 0.01),
            "accuracy": draws.random(),
        }
        for rank, name in enumerate(variants)
        for seed in range(pairs)
    ]
    return pd.DataFrame(rows)


def test_a_file_a_frame_and_columns_are_the_same(tmp_path):
    frame = table()
    frame.to_csv(tmp_path / "scores.csv", index=False)
    frame.sample(frac=1, random_state=1).to_csv(tmp_path / "shuffled.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "scores.parquet")
    of_frame = compare_scores(frame)
    assert {name: each["loss"] for name, each in of_frame.verdicts.items()} == {"hidden": "better", "last": "better"}
    assert {name: each["accuracy"] for name, each in of_frame.verdicts.items()} == dict.fromkeys(
        ["hidden", "last"], "no difference shown"
    )
    comparisons = {
        (row["variant"], row["metric"]): (row["difference"], row["p"], row["p_adjusted"], row["verdict"])
        for row in of_frame.document()["comparisons"]
    }
    for other in (tmp_path / "scores.csv", tmp_path / "shuffled.tsv", str(tmp_path / "scores.parquet"), frame.to_dict("list")):
        for row in compare_scores(other).document()["comparisons"]:
            expected = comparisons[row["variant"], row["metric"]]
            assert (row["difference"], row["p"], row["p_adjusted"]) == pytest.approx(expected[:3])
            assert row["verdict"] == expected[3]


def test_the_figures_are_those_of_the_pairs():
    frame = table()
    wide = frame.pivot(index="seed", columns="variant", values="loss")
    row = next(
        row for row in compare_scores(frame).document()["comparisons"] if (row["variant"], row["metric"]) == ("last", "loss")
    )
    pairs = (wide["last"] - wide["none"]).to_numpy()
    assert row["difference"] == pytest.approx(pairs.mean())
    assert row["p"] == sign_flip_p([pairs])[0] == 2 / 2**6
    assert row["pairs"] == 6


def test_everything_that_a_comparison_offers(tmp_path):
    found = compare_scores(table(), report=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "epochs" not in page[page.index('<section id="made"') : page.index("The runs")]
    assert "dropout" not in page[page.index("<main>") : page.index('<section id="made"')].lower()
    assert "last makes the loss lower by 0.2" in page
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["study"]["epochs"] is document["study"]["backend"] is document["study"]["data"]["train"] is None
    assert {"wilcoxon_p", "pairs_needed", "effect_size"} <= set(document["comparisons"][0])
    assert "loss" in str(found)
    assert len(found.to_frame()) == 18


def test_missing_scores_leave_their_pair_out_and_are_said():
    frame = table(8)
    frame.loc[(frame.variant == "hidden") & (frame.seed == 3), "loss"] = np.nan
    frame = frame[~((frame.variant == "last") & (frame.seed == 5))]
    found = compare_scores(frame)
    assert {name: each.pairs for name, each in found.differences("loss").items()} == {"hidden": 7, "last": 7}
    assert found.differences("accuracy")["hidden"].pairs == 8
    assert any(warning.startswith("3 score(s) are missing") for warning in found.warnings())
    assert not any("not finished" in warning for warning in found.warnings())


def test_seeds_may_be_names_and_columns_may_be_called_otherwise():
    frame = table().rename(columns={"variant": "method", "seed": "fold"})
    frame["fold"] = "fold " + frame["fold"].astype(str)
    frame["host"], frame["day"], frame["nothing"], frame["seconds"] = "gpu0", "2024-01-01", None, 12.5
    found = compare_scores(frame, variant_column="method", seed_column="fold", lower_is_better=["seconds"])
    assert found.verdicts["hidden"]["loss"] == "better"
    assert found.notes == ("columns without numbers are left out: host, day, nothing",)
    assert set(found.to_frame()["seconds"]) == {12.5}


def test_which_side_is_better():
    frame = table().rename(columns={"loss": "latency"})
    assert compare_scores(frame, lower_is_better=["latency"]).verdicts["last"]["latency"] == "better"
    assert compare_scores(frame, higher_is_better=["latency"]).verdicts["last"]["latency"] == "worse"
    with pytest.raises(BadInput, match="whether a higher or a lower 'latency' is better is not known"):
        compare_scores(frame)
    with pytest.raises(BadInput, match="both higher and lower"):
        compare_scores(frame, lower_is_better=["latency"], higher_is_better=["latency"])
    with pytest.raises(BadInput, match="there is no metric 'speed'"):
        compare_scores(frame, lower_is_better=["latency", "speed"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: pd.concat([frame, frame.iloc[[0]]]), "variant 'none' and seed 0 more than once"),
        (lambda frame: frame[frame.variant == "none"], "one variant, 'none'"),
        (lambda frame: frame[frame.variant != "none"], "no variant 'none'"),
        (lambda frame: frame.assign(loss=["n/a", *frame["loss"][1:]]), "the metric 'loss' holds 'n/a'"),
        (lambda frame: frame.assign(loss=frame["loss"].map("{:.3f}".format).str.replace(".", ",")), "holds '1,0"),
        (lambda frame: frame.assign(loss=[*frame["loss"].astype(str)[:-1], "diverged"]), "holds 'diverged'"),
        (lambda frame: frame.assign(accuracy=frame["accuracy"].map("{:.1%}".format)), "the metric 'accuracy' holds"),
        (lambda frame: frame.assign(status=1.0), "has a metric 'status'"),
        (lambda frame: frame.assign(seed=[str(seed) for seed in frame["seed"][:-1]] + ["0"]), "seed 0 more than once"),
        (lambda frame: frame[["variant", "seed"]], "no column of numbers"),
        (lambda frame: frame.assign(seed=[None, *frame["seed"][1:]]), "row 1 has no seed"),
        (lambda frame: frame.drop(columns="seed"), "no seed column 'seed'"),
        (lambda frame: frame.iloc[:0], "has no rows"),
        (lambda frame: [1, 2], "must be a table"),
    ],
    ids=lambda each: "" if callable(each) else each,
)
def test_what_cannot_be_compared_is_refused(change, words):
    with pytest.raises(BadInput) as refused:
        compare_scores(change(table()))
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


def test_the_command_takes_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table().rename(columns={"variant": "method"}).to_csv("scores.csv", index=False)
    done = CliRunner().invoke(app, ["compare", "scores.csv", "--variant-column", "method", "--json", "--report", "page.html"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["comparisons"][0]["verdict"] == "better"
    assert (tmp_path / "page.html").exists()
    assert list(tmp_path.glob("*.db")) == []
    command = ["compare", "scores.csv", "--variant-column", "method", "--baseline", "last", "--fail-if", "worse"]
    assert CliRunner().invoke(app, command).exit_code == 1
    done = CliRunner().invoke(app, [*command, "--primary", "accuracy", "--margin", "0.01", "--json"])
    assert done.exit_code == 0  # worse in the loss alone
    study = json.loads(done.stdout)["study"]
    assert (study["primary"], study["margin"], study["baseline"]) == ("accuracy", 0.01, "last")
    refused = CliRunner().invoke(app, ["compare", "scores.csv", "--epochs", "3"])
    assert isinstance(refused.exception, BadInput)
    assert str(refused.exception).startswith("--epochs says how runs are trained")
    for option in (["--target", "loss"], ["--variant", "hidden"], ["--dry-run"]):
        refused = CliRunner().invoke(app, ["compare", "scores.csv", *option])
        assert str(refused.exception).startswith(f"{option[0]} says how runs are trained")
    refused = CliRunner().invoke(app, ["compare", "digits-mlp", "--seed-column", "fold"])
    assert str(refused.exception).startswith("--seed-column is for a table of scores")


def test_a_table_is_no_model_and_a_model_no_table(tmp_path):
    assert [is_scores(name) for name in ("a.csv", "a.TSV", "a.csv.gz", "a.parquet")] == [True] * 4
    assert [is_scores(name) for name in ("model.keras", "model.py:csv", "digits-mlp", "a.csv:build")] == [False] * 4
    assert not is_scores("a.csv", "data.csv")


def test_a_run_that_diverged_is_the_worst():
    frame = table(8)
    frame.loc[(frame.variant == "last") & (frame.seed == 0), "loss"] = np.inf
    found = compare_scores(frame, primary="loss")
    row = next(row for row in found.document()["comparisons"] if (row["variant"], row["metric"]) == ("last", "loss"))
    assert (row["diverged"], row["pairs"], row["seeds"]) == (1, 7, 8)
    assert row["p"] > 2 / 2**7
    assert found.diverged == ["last"]


def test_primary_margin_and_power():
    found = compare_scores(table(), primary="accuracy", margin=0.9, power=0.25)
    rows = {(row["variant"], row["metric"]): row for row in found.document()["comparisons"]}
    assert found.deciding == "accuracy"
    assert rows["last", "accuracy"]["wanted_difference"] == 0.25
    assert rows["last", "accuracy"]["equivalence"]["margin"] == 0.9
    assert rows["last", "loss"]["equivalence"] is None
    with pytest.raises(BadInput, match="unknown primary metric 'speed'"):
        compare_scores(table(), primary="speed")
    with pytest.raises(BadInput, match="power must be a number above 0"):
        compare_scores(table(), power=0)


def test_no_framework_is_loaded(tmp_path):
    table().to_csv(tmp_path / "scores.csv", index=False)
    code = (
        "import sys, keras_dropout; print(keras_dropout.compare_scores('scores.csv').verdicts);"
        "assert not {'keras', 'jax', 'tensorflow', 'torch'} & set(sys.modules), 'a framework is loaded'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert keras_dropout.compare_scores is compare_scores
