"""compare() from Python, on the reader's own model; what a comparison gives; the report."""

import dataclasses
import html.parser
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.stats
from made_up import made_up_execution
from rich.console import Group

import keras_dropout
from keras_dropout.bench import power, statistics
from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.report.tables import comparison_tables
from keras_dropout.bench.report.verdict import verdict
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.training import trainer
from keras_dropout.display import as_text
from keras_dropout.errors import BadInput

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the comparison starts its own processes")


def made_up(tmp_path, difference=0.1, **settings) -> ShownComparison:
    """A real study with results that are numbers of ours: variant k is `difference * k` better than the baseline."""
    study = make_plan("digits-mlp", ledger=tmp_path / "r.db", epochs=2, **settings).study
    results = {}
    for run in study.runs():
        rank = [variant.name for variant in study.variants].index(run.variant.name)
        noise = np.random.default_rng([run.seed, rank]).normal(0, 0.005)
        loss = 1 + 0.3 * run.seed - difference * rank + noise
        metrics = {"test_loss": loss, "test_accuracy": 1 - loss / 4, "train_loss": loss / 2}
        curves = {name: [loss, loss] for name in ("loss", "accuracy", "validation_loss", "validation_accuracy")}
        results[run.key] = Result("done", 1.0, 2, metrics, curves)
    return ShownComparison(study, results, {"wall_seconds": 1.0}, "keras-dropout compare digits-mlp")


def with_losses(found: ShownComparison) -> ShownComparison:
    """With a loss for each of 300 test examples."""
    easy = np.random.default_rng(0).normal(0, 0.5, 300)
    for number, (key, result) in enumerate(found.results.items()):
        losses = result.metrics["test_loss"] + easy + np.random.default_rng(number).normal(0, 0.1, 300)
        found.results[key] = dataclasses.replace(result, test_losses=losses.astype("float32"))
    return found


FIGURES = {
    "seeds",
    "diverged",
    "baseline_diverged",
    "effect_size",
    "resolution",
    "share_better",
    "share_worse",
    "contrary",
    "wilcoxon_p",
    "wilcoxon_p_adjusted",
    "interval_new_examples",
    "detectable_difference",
    "wanted_difference",
    "pairs_needed",
    "pairs_needed_interval",
    "pairing_gain",
    "pairing_gain_interval",
    "unpaired_seeds",
    "equivalence",
    "anytime_p",
    "anytime_p_adjusted",
}


def test_pairing_by_seed_finds_what_the_spread_over_seeds_hides(tmp_path):
    found = made_up(tmp_path)
    assert found.verdicts == {
        name: {"test_loss": "better", "test_accuracy": "better"} for name in ("as-published", "hidden", "last")
    }
    assert found.differences("test_loss")["hidden"].mean == pytest.approx(-0.2, abs=0.02)
    assert found.differences("test_loss", baseline="last")["hidden"].verdict == "worse"


def test_runs_of_the_same_figures_are_no_verdict(tmp_path):
    """Of three variants one differs, one has a rate of 0, and one was asked for something that changed nothing."""
    variants = {"off": {"hidden": 0.0}, "idle": {"hidden": 0.5}, "real": {"last": 0.2}}
    found = made_up(tmp_path, variants=variants)
    for run in found.study.runs():
        if run.variant.name in ("off", "idle"):
            found.results[run.key] = found.results[found.study.key(found.study.variants[0], run.seed)]
    assert found.identical == {"off": "a rate of 0 drops nothing", "idle": "the dropout that was asked for changed nothing"}
    words = {name: each["test_loss"] for name, each in found.verdicts.items()}
    assert words == {"off": "identical", "idle": "identical", "real": "better"}
    assert [warning.partition(":")[0] for warning in found.warnings()] == ["off", "idle"]
    assert "a rate of 0 drops nothing" in " ".join(str(found).split())
    assert "exactly that of none" in found.save_report(tmp_path / "r.html").read_text()
    one = found.study.key(found.study.variants[2], 3)  # a single figure that differs: then it is a comparison
    metrics = {**found.results[one].metrics, "test_loss": found.results[one].metrics["test_loss"] + 1e-7}
    found.results[one] = dataclasses.replace(found.results[one], metrics=metrics)
    assert list(found.identical) == ["off"]


def test_too_few_seeds_are_said(tmp_path):
    found = made_up(tmp_path, seeds=5)
    assert set(found.verdicts["hidden"].values()) == {"no difference shown"}
    assert any("cannot show a difference" in warning for warning in found.warnings())


def test_the_leaking_split_is_said(tmp_path):
    assert any("also trained on" in warning for warning in made_up(tmp_path, split="as-published").warnings())
    assert made_up(tmp_path).warnings() == []


def test_a_study_cut_short_is_said_and_gives_no_advice_to_change_the_model(tmp_path):
    """The loss of one variant falls with each seed until the last epoch; that of the others has levelled out."""
    found = made_up(tmp_path)
    assert found.document()["unfinished_curves"] == found.unfinished_curves == []
    assert "place(model" in found.save_report(tmp_path / "whole.html").read_text()
    last = next(variant for variant in found.study.variants if variant.name == "last")
    for seed in found.study.seeds:
        key = found.study.key(last, seed)
        loss = found.results[key].metrics["test_loss"]
        found.results[key] = dataclasses.replace(
            found.results[key], curves={"loss": [loss, loss], "validation_loss": [2 * loss, loss]}
        )
    assert found.document()["unfinished_curves"] == found.unfinished_curves == ["last"]
    assert "The validation loss still falls at the last of 2 epochs (last): trained" in " ".join(str(found).split())
    page = found.save_report(tmp_path / "short.html").read_text()
    assert "Train on before you act on it" in page
    assert "place(model" not in page
    stopped = dataclasses.replace(found, study=dataclasses.replace(found.study, early_stopping=1))
    leaking = dataclasses.replace(found, study=dataclasses.replace(found.study, split="as-published"))
    assert (stopped.unfinished_curves, leaking.unfinished_curves) == ([], [])


def test_the_document_has_the_promised_fields(tmp_path):
    document = json.loads(json.dumps(made_up(tmp_path).document(), allow_nan=False))
    assert {"study", "variants", "comparisons", "timing"} <= set(document)
    assert {"target", "data", "backend", "engine", "epochs", "batch_size", "seeds"} <= set(document["study"])
    assert {"name", "fingerprint", "train", "validation", "test"} <= set(document["study"]["data"])
    hidden = next(variant for variant in document["variants"] if variant["name"] == "hidden")
    assert hidden["placement"]["hidden_1"] == {"kind": "Dropout", "rate": 0.2}
    assert {"key", "seed", "status", "test_loss", "test_accuracy", "seconds", "epochs"} <= set(hidden["runs"][0])
    assert hidden["mean"]["test_loss"] == pytest.approx(np.mean([run["test_loss"] for run in hidden["runs"]]))
    assert {
        "variant",
        "baseline",
        "metric",
        "higher_is_better",
        "difference",
        "interval",
        "p",
        "p_adjusted",
        "pairs",
        "verdict",
    } | FIGURES == set(document["comparisons"][0])


def test_figures_are_those_of_their_functions(tmp_path):
    found = with_losses(made_up(tmp_path))
    losses = {name: found.values(name, "test_loss") for name in ("none", "hidden")}
    pairs, each = losses["hidden"] - losses["none"], found.figures("test_loss")["hidden"]
    assert each["effect_size"] == pytest.approx((1 - 3 / (4 * (len(pairs) - 1) - 1)) * pairs.mean() / pairs.std(ddof=1))
    assert each["share_better"] == 1
    assert found.figures("test_accuracy")["hidden"]["share_better"] == 1
    assert (each["wilcoxon_p"], each["wilcoxon_p_adjusted"]) == (0.03125, 3 * 0.03125)
    sd, rows = pairs.std(ddof=1), 6  # three variants, two metrics
    assert each["detectable_difference"] == pytest.approx(power.detectable_difference(sd, 6, rows))
    assert each["wanted_difference"] == pytest.approx(abs(pairs.mean()))
    assert each["pairs_needed"] == power.pairs_needed(sd, pairs.mean(), rows) == 6
    assert each["pairs_needed_interval"] == [power.pairs_needed(end, pairs.mean(), rows) for end in power.sd_interval(sd, 6)]
    assert each["pairing_gain"] == pytest.approx(statistics.pairing_gain(losses["hidden"], losses["none"]))
    assert each["pairing_gain_interval"] == list(statistics.pairing_gain_interval(losses["hidden"], losses["none"]))
    low, high = each["interval_new_examples"]
    inner = found.differences("test_loss")["hidden"].interval
    assert low < inner[0] < inner[1] < high
    assert found.figures("test_accuracy")["hidden"]["interval_new_examples"] is None


def test_a_margin_is_said_everywhere(tmp_path):
    found = with_losses(made_up(tmp_path))
    found.margin = 0.25
    assert {name: words["test_loss"] for name, words in found.verdicts.items()} == {
        "as-published": "better, but within the margin",
        "hidden": "better, but within the margin",
        "last": "better",
    }
    assert found.verdicts["hidden"]["test_accuracy"] == "better"  # the margin is one of test loss
    assert found.document()["comparisons"][0]["equivalence"]["within"] > 0.99
    text = found.save_report(tmp_path / "report.html").read_text()
    for words in ("within the margin", "90 % interval", "was said not to matter", "better by more with probability"):
        assert words in text
    assert "margin 0.25: 90 % interval" in str(found)


def test_the_tables_fit_a_terminal(tmp_path):
    assert max(map(len, str(with_losses(made_up(tmp_path)).with_details()).splitlines())) <= 100


def test_the_answer_is_the_last_thing_said(tmp_path):
    found = with_losses(made_up(tmp_path))
    said = verdict(found.document())
    for shown in (found, found.with_details()):
        assert " ".join(str(shown).split()).endswith(f"{said.headline} {said.advice}")
    assert "seeds needed" not in str(found)
    assert "seeds needed" in str(found.with_details())


def test_a_running_study_has_no_verdict_before_all_seeds_have_ended(tmp_path):
    found = with_losses(made_up(tmp_path))
    for run in found.study.runs():
        if run.variant.name == "hidden" and run.seed > 1:
            del found.results[run.key]
    total = len(found.study.seeds)
    now, later = (as_text(Group(*comparison_tables(found, running))) for running in (True, False))
    assert f"2 of {total} seeds" in now
    assert f"2 of {total} seeds" not in later
    assert not any("difference" in line for line in now.splitlines() if "2 of" in line)


def sampled(tmp_path, **settings) -> ShownComparison:
    """With metrics of 20 samples: without dropout those of plain predictions, else an NLL lower by 0.05 or so."""
    found = made_up(tmp_path, samples=20, **settings)
    for run in found.study.runs():
        result = found.results[run.key]
        loss, gain = result.metrics["test_loss"], 0.0 if run.variant.name == "none" else 0.05 + 0.001 * run.seed
        metrics = {"nll": loss, "brier": loss / 2, "ece": loss / 10, "mc_nll": loss - gain, "mc_brier": loss / 2 - gain}
        metrics |= {"mc_ece": loss / 10 - gain, "mc_accuracy": 1 - loss / 4 + gain}
        metrics = result.metrics | {f"test_{name}": value for name, value in metrics.items()}
        found.results[run.key] = dataclasses.replace(result, metrics=metrics)
    return found


def test_samples_are_compared_with_the_baseline_and_with_plain_predictions(tmp_path):
    found = sampled(tmp_path)
    assert set(found.verdicts["last"]) == {
        *(f"test_{name}" for name in ("loss", "accuracy", "nll", "brier", "ece")),
        *(f"test_mc_{name}" for name in ("nll", "accuracy", "brier", "ece")),
    }
    assert set(found.verdicts["last"].values()) == {"better"}  # lower, and of accuracies higher
    rows = {(row["variant"], row["metric"]): row for row in found.document()["monte_carlo"]}
    assert {variant for variant, _ in rows} == {"as-published", "hidden", "last"}
    row = rows["hidden", "test_nll"]
    gains = -0.05 - 0.001 * np.arange(6)
    half = scipy.stats.t.ppf(0.975, 5) * gains.std(ddof=1) / np.sqrt(6)
    assert row["difference"] == pytest.approx(gains.mean())
    assert row["interval"] == pytest.approx([gains.mean() - half, gains.mean() + half])
    assert row["pairs"] == 6
    assert rows["hidden", "test_accuracy"]["difference"] == pytest.approx(-gains.mean())
    assert "monte_carlo" not in made_up(tmp_path).document()


def test_metrics_of_samples_have_tables_of_their_own(tmp_path):
    found = sampled(tmp_path, seeds=6)
    text = str(found)
    assert max(map(len, text.splitlines())) <= 100
    assert "hidden: 20 samples against its own plain predictions, paired over 6 seed(s): nll -0.0525" in text
    assert "none: 20 samples" not in text
    assert text.count("Monte-Carlo │") == 3  # a row for each variant with dropout
    rows = [line for line in text.splitlines() if line.count("│") == 7]
    assert [sum(f"│ {name} " in row for row in rows) for name in ("nll", "mc nll", "brier")] == [0, 3, 3]  # nll is the loss
    assert "test nll" not in text
    page = found.save_report(tmp_path / "report.html").read_text()
    shown = page[: page.index('<section id="made"')]
    assert "hidden: 20 samples against its own plain predictions" in shown
    assert "test mc brier" in shown
    assert "test nll" not in shown
    assert shown.count("<svg") == made_up(tmp_path).save_report(tmp_path / "plain.html").read_text().count("<svg")
    for name, result in found.results.items():  # of a weighted loss the NLL is something else
        found.results[name] = dataclasses.replace(result, metrics=result.metrics | {"test_loss": 2 * result.metrics["test_loss"]})
    assert sum("│ nll " in row for row in str(found).splitlines()) >= 3


def test_verdicts_of_added_seeds_are_those_of_the_race(tmp_path):
    found = made_up(tmp_path, seeds=6)
    assert (found.race, found.raced()) == (None, {})  # no seeds are added
    assert set(found.verdicts["hidden"].values()) == {"better"}
    found.max_seeds = 30
    assert set(found.verdicts["hidden"].values()) == {"no difference shown"}  # the first look is at seven
    assert found.race.racing == ["as-published", "hidden", "last"]
    found = made_up(tmp_path, seeds=7)
    found.max_seeds = 30
    assert set(found.verdicts["hidden"].values()) == {"better"}
    assert found.raced() == {name: {"seeds": 7, "stopped": "decided"} for name in found.others}
    assert any("The verdicts allow for that" in warning for warning in found.warnings())
    assert "The verdicts allow for that" in " ".join(str(found).split())
    assert "allows for it" in found.save_report(tmp_path / "report.html").read_text()


def test_seeds_are_added_until_there_are_verdicts_and_the_same_command_goes_on(tmp_path, monkeypatch):
    """`hidden` is better by 0.1, but for the first seed."""
    plan = make_plan("digits-mlp", ledger=tmp_path / "r.db", epochs=1, workers=9, seeds="auto", max_seeds=20, variants=["hidden"])
    trained = made_up_execution(
        monkeypatch,
        lambda run: {"test_loss": 1 - (run.variant.name == "hidden") * (0.1 if run.seed else -0.1)},
        interrupt_at=20,
    )
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, quiet=True)
    found = carry_out(plan, quiet=True)
    assert len(set(trained)) == len(trained)  # nothing is trained again
    # 7 pairs are the fewest for a verdict, 4 seeds keep 9 workers busy, and with one seed against it takes 13.
    assert len(trained) == 1 + 2 * 14
    assert found.document()["study"]["seeds"] == list(range(13))
    assert found.raced() == {"hidden": {"seeds": 13, "stopped": "decided"}}
    assert (found.missing, found.verdicts) == (0, {"hidden": {"test_loss": "better"}})
    assert carry_out(plan, quiet=True).document()["comparisons"] == found.document()["comparisons"]
    assert retrieve(tmp_path / "r.db").document()["comparisons"] == found.document()["comparisons"]


def test_adding_seeds_ends_with_the_budget(tmp_path, monkeypatch):
    plan = make_plan("digits-mlp", ledger=tmp_path / "r.db", epochs=1, workers=2, seeds="auto", max_seeds=9, variants=["hidden"])
    made_up_execution(monkeypatch, lambda run: {"test_loss": 1 + (0.13 + 0.2 * (run.seed % 3 - 1)) * (run.variant.name == "none")})
    found = carry_out(plan, quiet=True)
    assert len(found.study.seeds) == 9
    assert found.verdicts == {"hidden": {"test_loss": "no difference shown"}}


def test_schedules_are_in_the_document_and_the_report(tmp_path):
    nasty = "<script>alert(1)</script>"
    variants = {
        nasty: {"hidden": "linear(0.5, 0.0)", "last": "late(0.25, start=0.5)"},
        "deep": {"hidden": "GaussianDropout(curriculum(0.4), over_depth=True)"},
        "fixed": {"hidden": 0.125},
        "learned": {"hidden_1": "Standout()"},
    }
    found = made_up(tmp_path, variants=variants)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert {variant["name"]: variant["schedule"] for variant in document["variants"]} == {
        "none": None,
        nasty: {"hidden_1": "linear(0.5, 0.0)", "hidden_2": "late(0.25, start=0.5)"},
        "deep": {"hidden_1": "curriculum(0.2)", "hidden_2": "curriculum(0.4)"},
        "fixed": None,
        "learned": None,
    }
    assert document["variants"][1]["placement"]["hidden_2"]["schedule"] == {"kind": "late", "rate": 0.25, "start": 0.5}
    text = found.save_report(tmp_path / "report.html").read_text()
    assert "<h3>Schedules</h3>" in text
    assert "hidden_1: GaussianDropout curriculum(0.2)" in text
    assert "hidden_1: Dropout 0.125" in text
    assert "hidden_1: Standout" in text
    assert "deep: hidden_2</text>" in text
    assert nasty not in text
    assert "<h3>Schedules</h3>" not in made_up(tmp_path).save_report(tmp_path / "report.html").read_text()


def diverge(found, name, *seeds):
    """Have the runs of a variant with these seeds diverge."""
    for run in found.study.runs():
        if run.variant.name == name and run.seed in seeds:
            found.results[run.key] = Result("diverged", 1.0, 1)


def rows_of(found, metric="test_loss"):
    return {row["variant"]: row for row in found.document()["comparisons"] if row["metric"] == metric}


def test_a_run_that_diverged_is_the_worst_of_all(tmp_path):
    """Of 12 seeds 6 diverged, and the others are clearly better: that shows nothing, in no metric, and no rank says it does."""
    found = made_up(tmp_path, seeds=12, variants=["hidden"])
    assert found.verdicts["hidden"] == {"test_loss": "better", "test_accuracy": "better"}
    diverge(found, "hidden", 0, 2, 4, 6, 8, 10)
    for metric in found.metrics:
        row = rows_of(found, metric)["hidden"]
        assert (row["pairs"], row["seeds"], row["diverged"], row["baseline_diverged"]) == (6, 12, 6, 0)
        assert (row["verdict"], row["share_better"], row["share_worse"]) == ("no difference shown", 0.5, 0.5)
        assert row["wilcoxon_p"] > 0.05
    page = verdict(found.report_document())
    assert "over 6 of 12 seeds. " in page.headline
    assert "6 of its 12 runs diverged, which counts as the worst of all. The mean is that of the 6 pairs" in page.headline
    assert (page.code, row["contrary"]) == (None, None)
    assert page.advice.startswith("Undecided, as runs diverged")
    assert "6 run(s) diverged. Verdicts and ranks count such a run as the worst of all" in " ".join(found.warnings())
    assert "│     6 │" in str(found)  # the table says of how many pairs the mean is


def test_a_placement_of_which_some_runs_diverge_is_advised_with_their_share(tmp_path):
    found = made_up(tmp_path, seeds=12, variants=["hidden"])
    diverge(found, "hidden", 3)
    page, row = verdict(found.report_document()), rows_of(found)["hidden"]
    assert row["verdict"] == "better in most runs"
    assert row["contrary"] == {"seed": 3, "difference": None}
    assert "Shown by 11 of 12 seeds. 1 of its 12 runs diverged" in page.headline
    assert page.code is not None
    assert "With it, 1 of 12 runs diverged." in page.advice


def test_what_diverges_always_is_worse_and_a_baseline_that_does_is_worse_than_the_variant(tmp_path):
    found = made_up(tmp_path, variants=["hidden"])
    diverge(found, "hidden", *range(6))
    assert set(found.verdicts["hidden"].values()) == {"worse"}
    assert rows_of(found)["hidden"]["difference"] is None
    assert verdict(found.report_document()).tone == "worse"
    assert "Verdict on Dropout 0.2 at hidden_1 and hidden_2: worse." in found.save_report(tmp_path / "r.html").read_text()
    found = made_up(tmp_path, variants=["hidden"], difference=0.0)
    diverge(found, "none", *range(6))
    assert (set(found.verdicts["hidden"].values()), found.diverged) == ({"better"}, [])
    diverge(found, "hidden", *range(6))  # both: a tie
    assert found.identical == {}
    assert found.verdicts == {}


def test_pairs_of_which_both_diverged_are_ties(tmp_path):
    found = made_up(tmp_path, seeds=8, variants=["hidden"])
    for name in ("none", "hidden"):
        diverge(found, name, 0, 1)
    row = rows_of(found)["hidden"]
    assert (row["pairs"], row["seeds"], row["verdict"], row["share_better"]) == (6, 8, "better", 0.75)
    assert row["p"] == pytest.approx(2 / 2**6)


def test_a_run_that_diverged_counts_while_seeds_are_added(tmp_path):
    found = made_up(tmp_path, seeds=12, variants=["hidden"])
    found.max_seeds = 12
    assert (found.verdicts["hidden"]["test_loss"], found.raced()["hidden"]["stopped"]) == ("better", "decided")
    diverge(found, "hidden", 0, 2, 4, 6, 8, 10)
    assert (found.verdicts["hidden"]["test_loss"], found.raced()["hidden"]["stopped"]) == ("no difference shown", "cannot win")
    diverge(found, "hidden", *range(12))
    found.results[found.study.key(found.study.variants[0], 0)].metrics["test_loss"] = 1.0
    assert set(found.verdicts["hidden"].values()) == {"worse"}


def with_accuracy(found, accuracy):
    """With test accuracies of `accuracy(variant, seed)`."""
    for run in found.study.runs():
        result = found.results[run.key]
        metrics = result.metrics | {"test_accuracy": accuracy(run.variant.name, run.seed)}
        found.results[run.key] = dataclasses.replace(result, metrics=metrics)
    return found


def test_differences_of_rounding_are_none(tmp_path):
    """Six losses that differ by one float32 rounding, and accuracies that differ by less than a test example, show nothing."""
    found = made_up(tmp_path, variants=["hidden"])
    examples, ulp = found.study.data.test, float(np.finfo("float32").eps)
    for run in found.study.runs():
        lower = run.variant.name == "hidden"
        loss = np.float32(0.3 + 0.01 * run.seed) * (1 - ulp * lower)
        found.results[run.key] = dataclasses.replace(found.results[run.key], metrics={"test_loss": float(loss)})
    with_accuracy(found, lambda name, seed: (300 + seed % 3 + (name == "hidden") * (seed < 5)) / examples)
    row = rows_of(found)["hidden"]
    assert row["difference"] < 0
    assert (row["p"], row["verdict"], row["share_better"], row["wilcoxon_p"]) == (1, "no difference shown", 0, 1)
    assert found.verdicts["hidden"]["test_accuracy"] == "no difference shown"
    page = verdict(found.report_document())
    assert "0.000000" not in page.headline
    assert page.advice.startswith("The difference is as small as the rounding of the figures, which is none")
    with_accuracy(found, lambda name, seed: (300 + seed % 3 + (name == "hidden")) / examples)
    assert found.verdicts["hidden"]["test_accuracy"] == "better"  # one example more, always


def test_accuracy_that_is_no_share_of_the_examples_has_no_such_resolution(tmp_path):
    """As of pixels, or with weights."""
    found = with_accuracy(made_up(tmp_path), lambda name, seed: 0.9 + 0.0001 * seed + 0.0005 * (name == "hidden"))
    assert 1 / found.study.data.test > 0.0005
    assert found.verdicts["hidden"]["test_accuracy"] == "better"


def test_the_nll_that_is_the_loss_counts_once(tmp_path):
    found = sampled(tmp_path)
    assert found.repeated == ["test_nll"]
    loss, nll = (found.differences(metric)["hidden"] for metric in ("test_loss", "test_nll"))
    assert (nll.p_adjusted, nll.verdict) == (loss.p_adjusted, loss.verdict)
    assert nll.mean == pytest.approx(loss.mean)


def unclear(name, seed):
    """An accuracy that is better in 7 of 8 seeds: p alone is 0.0156 or so, and not enough beside many other metrics."""
    return 0.9 + (name == "hidden") * (0.01 + 0.001 * seed if seed else -0.0035)


def test_a_primary_metric_leads(tmp_path):
    found = with_accuracy(made_up(tmp_path, seeds=8, variants=["hidden"], primary="test_accuracy"), unclear)
    found.primary = "test_accuracy"
    document = found.report_document()
    assert document["study"]["primary"] == "test_accuracy"
    page = verdict(document)
    assert page.headline.startswith("Dropout 0.2 at hidden_1 and hidden_2 makes the test accuracy higher by")
    assert "test accuracy difference of" not in str(found)
    assert "test accuracy difference of" in str(found.with_details())
    assert "named before, is a family of its own" in found.save_report(tmp_path / "r.html").read_text()
    found.margin = 0.1
    assert found.verdicts["hidden"] == {"test_accuracy": "better, but within the margin", "test_loss": "better"}


def test_a_primary_metric_is_a_family_of_its_own(tmp_path):
    found = made_up(tmp_path, seeds=8, variants=["hidden", "last"], difference=0.0)
    with_accuracy(found, lambda name, seed: 0.9 + (name == "hidden") * (0.004 if seed > 1 else -0.003) + 0.001 * (seed * 7 % 5))
    alone = statistics.compare_family(found._rows("test_accuracy", "none"))
    together = found.differences("test_accuracy")
    found.primary = "test_accuracy"
    assert found.differences("test_accuracy") == alone
    assert alone["hidden"].p_adjusted < together["hidden"].p_adjusted
    found = sampled(tmp_path, variants=["hidden"])
    found.primary = "test_nll"  # is the test loss, which then leads with it
    assert found.differences("test_loss") == statistics.compare_family(found._rows("test_loss", "none"))


def test_what_fails_a_gate(tmp_path):
    """Worse in any metric, with a primary metric in that one, but not within the margin; in most runs too; and what diverged."""
    found = with_accuracy(made_up(tmp_path, seeds=12, variants=["hidden"]), lambda name, seed: 0.9 - 0.05 * (name == "hidden"))
    assert found.harmful() == [("hidden", "test_accuracy")]
    found.primary = "test_loss"
    assert found.harmful() == []
    found.primary, found.margin = "test_accuracy", 0.1
    assert found.verdicts["hidden"]["test_accuracy"] == "worse, but within the margin"
    assert found.harmful() == []
    found.margin = None
    diverge(found, "none", 7)
    assert found.verdicts["hidden"]["test_accuracy"] == "worse in most runs"
    assert found.harmful() == [("hidden", "test_accuracy")]
    diverge(found, "hidden", 5)
    assert found.harmful() == [("hidden", "test_accuracy"), ("hidden", "diverged")]


def test_a_primary_metric_decides_while_seeds_are_added(tmp_path):
    found = with_accuracy(made_up(tmp_path, seeds=10, variants=["hidden"]), lambda name, seed: 0.9 + 0.01 * (-1) ** seed)
    found.max_seeds = 10
    assert found.raced() == {"hidden": {"seeds": 7, "stopped": "decided"}}
    found.primary = "test_accuracy"
    assert found.raced()["hidden"]["stopped"] != "decided"


def test_a_primary_metric_that_is_missing_is_refused_and_changes_no_run(tmp_path):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    keys = [{run.key for run in make_plan("digits-mlp", ledger=tmp_path / "r.db", **more).study.runs()} for more in ({}, PRIMARY)]
    assert keys[0] == keys[1]
    with pytest.raises(BadInput) as caught:
        make_plan("digits-mlp", ledger=tmp_path / "r.db", primary="test_auc", samples=2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    names = ("loss", "accuracy", "brier", "ece", "mc_accuracy", "mc_brier", "mc_ece", "mc_nll", "nll", "scaled_nll")
    listed = ", ".join(f"test_{name}" for name in names)
    assert str(caught.value).splitlines() == ["the study has no metric test_auc.", f"Use one of {listed}."]


PRIMARY = {"primary": "test_accuracy"}


def test_a_primary_metric_that_only_a_run_can_show_is_refused_after_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "metrics_before_training", lambda *_: [])
    plan = make_plan("digits-mlp", ledger=tmp_path / "r.db", epochs=1, workers=1, variants=["hidden"], primary="test_auc")
    trained = made_up_execution(monkeypatch, lambda run: {"test_loss": 1.0})
    with pytest.raises(BadInput) as caught:
        carry_out(plan, quiet=True)
    assert str(caught.value).splitlines() == ["the study has no metric test_auc.", "Use one of test_loss."]
    assert len(trained) == 1


def test_within_the_margin_needs_six_seeds_and_while_seeds_are_added_the_last(tmp_path):
    for seeds, words in ((5, "no difference shown"), (6, "same within the margin")):
        found = made_up(tmp_path, seeds=seeds, variants=["hidden"], difference=0.0)
        found.margin = 0.05
        assert found.verdicts["hidden"]["test_loss"] == words
    found.max_seeds = 7
    assert found.verdicts["hidden"]["test_loss"] == "no difference shown"
    assert "Only the last of these seeds can show that a difference is within the margin" in " ".join(found.warnings())
    found.max_seeds = 6
    assert found.verdicts["hidden"]["test_loss"] == "same within the margin"
    diverge(found, "hidden", 0)
    assert found.verdicts["hidden"]["test_loss"] == "no difference shown"


def test_missing_failed_and_diverged_runs_are_shown_and_left_out(tmp_path):
    found = made_up(tmp_path)
    runs = {(run.variant.name, run.seed): run.key for run in found.study.runs()}
    found.results[runs["hidden", 0]] = Result("diverged", 1.0, 1)
    found.results[runs["last", 1]] = Result("failed", 1.0, 0, error="OutOfMemory: too big")
    del found.results[runs["last", 2]]
    text = str(found)
    assert found.diverged == ["hidden"]
    assert found.differences("test_loss")["hidden"].pairs == 5
    assert found.differences("test_loss")["last"].pairs == 4
    for words in ("1 run(s) diverged", "1 run(s) failed", "1 run(s) are not finished"):
        assert words in text
    json.dumps(found.document(), allow_nan=False)


def test_to_frame_has_a_row_per_run(tmp_path):
    frame = made_up(tmp_path).to_frame()
    assert len(frame) == 24
    assert frame.groupby("variant")["test_loss"].mean().idxmin() == "last"


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href") and not (value or "").startswith("#")]


def test_the_report_is_one_file_that_needs_no_network(tmp_path):
    text = made_up(tmp_path).save_report(tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.addresses == []
    assert page.tags.count("svg") == 10  # two metrics: differences, runs, training, validation, gap
    assert page.tags.count("script") == 2  # the data, and what sorts, filters and saves
    assert len(text) < 1_000_000
    for words in ("keras-dropout compare digits-mlp", "fingerprint", f"keras {keras.__version__}", "Paired differences to none"):
        assert words in text
    embedded = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(embedded)["comparisons"] == made_up(tmp_path).document()["comparisons"]
    assert list(tmp_path.glob("*.html")) == [tmp_path / "report.html"]


def test_the_report_escapes_what_users_name(tmp_path):
    nasty = "<script>alert(1)</script>"
    found = made_up(tmp_path, variants={nasty: {"hidden": 0.5}})
    found.command = f"compare --variant '{nasty}'"
    text = found.save_report(tmp_path / "report.html").read_text()
    assert Page(text).tags.count("script") == 2
    assert "&lt;script&gt;alert(1)" in text


def test_a_report_of_nothing_yet_is_a_page(tmp_path):
    found = made_up(tmp_path)
    found.results.clear()
    assert "24 run(s) are not finished" in found.save_report(tmp_path / "report.html").read_text()


OWN_MODEL = """
import keras, numpy as np
import keras_dropout

rng = np.random.default_rng(0)
x, y = rng.normal(size=(300, 8)).astype("float32"), rng.integers(0, 2, 300)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
before = model.get_weights()
data = (x[:200], y[:200]), (x[200:], y[200:])
found = keras_dropout.compare(model, data, variants={"half": {"hidden": 0.5}}, seeds=2, epochs=2)
assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
print(found.to_frame().to_json(orient="records"))
"""


def test_own_model_in_a_script_without_a_guard(tmp_path):
    """Workers must not run the user's script again; and the second time nothing is trained."""
    (tmp_path / "script.py").write_text(OWN_MODEL)
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        outputs.append(json.loads(done.stdout))
    assert outputs[0] == outputs[1]
    assert [row["status"] for row in outputs[0]] == ["done"] * 4


def test_the_same_study_made_again_has_the_same_keys(tmp_path):
    """Whatever names Keras counts up in between."""
    first, again = (make_plan("digits-mlp", ledger=tmp_path / "r.db").study for _ in range(2))
    assert [run.key for run in first.runs()] == [run.key for run in again.runs()]
    first, again = (own(ledger=tmp_path / "r.db", optimizer="adam", engine="compiled").study for _ in range(2))
    assert [run.key for run in first.runs()] == [run.key for run in again.runs()]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    first, again = (own(model=model, ledger=tmp_path / "r.db", engine="compiled").study for _ in range(2))
    assert [run.key for run in first.runs()] == [run.key for run in again.runs()]


def test_ready_variants_of_an_own_model(tmp_path):
    study = own(ledger=tmp_path / "r.db").study
    assert [variant.name for variant in study.variants] == ["none", "hidden", "last"]
    assert len({run.key for run in study.runs()}) == 2 * 6  # its one hidden layer is its last
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    assert [variant.name for variant in own(model=model, ledger=tmp_path / "r.db").study.variants] == [
        "none",
        "as-built",
        "hidden",
        "last",
    ]


def own(**settings):
    model = settings.pop("model", None) or keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]
    )
    if settings.pop("compile", True):
        model.compile("sgd", "mse")
    x = np.arange(150, dtype="float32").reshape(50, 3)
    return make_plan(model, settings.pop("data", ((x, x[:, 0]), (x, x[:, 0]))), **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"compile": False}, "not compiled"),
        ({"data": None}, "needs data"),
        ({"split": "as-published"}, "for recipes"),
        ({"variants": {"a": {"nowhere": 0.5}}}, "unknown site"),
        ({"variants": {"a": {"hidden": 1.0}}}, "got 1.0"),
        ({"variants": {"a": {"hidden": {"kind": "Dropuot", "rate": 0.1}}}}, "no dropout layer 'Dropuot'"),
        ({"variants": {"a": {"hidden": keras_dropout.Dropout(0.5)}}, "baseline": "b"}, "unknown baseline"),
        ({"variants": {"none": {"hidden": 0.5}}}, "is the model without dropout"),
        ({"seeds": [1, -2]}, "got -2"),
        ({"seeds": [2**63]}, "seed must be at most 9,223,372,036,854,775,807"),
        ({"seeds": 2.5}, "got 2.5"),
        ({"seeds": "automatic"}, "got 'automatic'"),
        ({"seeds": "auto", "max_seeds": 0}, "max seeds must be"),
        ({"seeds": "auto", "max_seeds": 5, "variants": {"a": {"hidden": 0.1}}}, "at least 6"),
        ({"max_seeds": 20}, "Use --seeds auto"),
        ({"primary": "accuracy"}, "primary must name a metric on the test data; got 'accuracy'"),
        ({"primary": 3}, "primary must name a metric on the test data; got 3"),
        ({"primary": "test_accuracy"}, "the study has no metric test_accuracy.\nUse one of test_loss."),
        ({"primary": "test_mc_nll"}, "the study has no metric test_mc_nll."),
        ({"margin": 0.0}, "margin must be"),
        ({"margin": -0.1}, "margin must be"),
        ({"margin": float("nan")}, "margin must be"),
        ({"learning_rate": float("nan")}, "got nan"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_made(settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        own(**settings)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("PatchDropout(linear(0.5, 0.0))", "cannot follow a schedule"),
        ("Dropout(0.5, over_depth=3)", "over_depth"),
        ({"kind": "Dropout", "rate": 0.5, "schedule": {"kind": "lineal"}}, "unknown schedule"),
    ],
    ids=str,
)
def test_schedules_that_cannot_be_are_refused(rate, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        make_plan("digits-mlp", variants={"a": {"hidden_1": rate}}, ledger=tmp_path / "r.db")


def test_a_damaged_checkpoint_costs_the_epochs_before_it_and_no_run(tmp_path, capsys):
    """Also one that a ledger of an earlier version keeps of a run that failed for it."""
    plan = own(variants={"half": {"hidden": 0.5}}, seeds=1, epochs=2, workers=1, ledger=tmp_path / "r.db")
    with Ledger(plan.ledger) as ledger:
        for run in plan.study.runs():
            ledger.put(plan.study, run, Result("failed", 1.0, 0, error="ValueError: buffer is smaller"), {}, {})
            ledger.put_checkpoint(run.key, 1, b"damaged")
    found = carry_out(plan)
    assert [result.status for result in found.results.values()] == ["done", "done"]
    assert capsys.readouterr().err.count("its checkpoint cannot be used") == 2
    with Ledger(plan.ledger) as ledger:
        assert ledger.checkpoints(found.results) == {}


def test_a_dead_worker_costs_its_run_and_the_next_try_makes_it_good(tmp_path):
    """SIGKILL to a worker in the middle: that run fails and says so, the others are trained; then only it is trained again."""
    plan = make_plan("digits-mlp", variants=["hidden"], seeds=2, epochs=3, workers=1, ledger=tmp_path / "r.db")
    killer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, signal, sys, time\n"
            "while True:\n"
            "    pids = open(f'/proc/{sys.argv[1]}/task/{sys.argv[1]}/children').read().split()\n"
            "    for pid in pids:\n"
            "        if int(pid) != os.getpid() and b'spawn_main' in open(f'/proc/{pid}/cmdline', 'rb').read():\n"
            "            time.sleep(0.2); os.kill(int(pid), signal.SIGKILL); sys.exit()\n"
            "    time.sleep(0.05)\n",
            str(os.getpid()),
        ]
    )
    first = carry_out(plan, quiet=True)
    killer.wait(30)
    assert [error for _, error in first.failed] == [f"the worker process died (exit code {-signal.SIGKILL})"]
    assert sum(result.status == "done" for result in first.results.values()) == 3
    second = carry_out(plan, quiet=True)
    assert second.failed == []
    assert second.timing["model_epochs"] == 3
    other = make_plan("digits-mlp", variants=["hidden"], seeds=2, epochs=3, workers=2, ledger=tmp_path / "other.db")
    untouched = carry_out(other, quiet=True)
    assert {key: result.metrics for key, result in second.results.items()} == {k: r.metrics for k, r in untouched.results.items()}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_other_backends_train(backend, tmp_path):
    found = keras_dropout.compare(
        "digits-mlp", variants={"hidden": "hidden"}, seeds=1, epochs=5, backend=backend, ledger=Path(tmp_path, "r.db"), quiet=True
    )
    assert found.failed == []
    for result in found.results.values():
        assert result.metrics["test_accuracy"] > 0.7


def test_ctrl_c_is_heeded_also_where_python_drops_it(tmp_path):
    """While garbage is collected a KeyboardInterrupt is printed and forgotten."""
    script = tmp_path / "study.py"
    script.write_text(
        "import gc, os, signal, sys\n"
        "from keras_dropout.bench import compare\n"
        "from keras_dropout.bench.study import planning\n"
        "plan = compare.make_plan('digits-mlp', epochs=2000, seeds=3, workers=1, ledger='r.db')\n"
        "class Display(compare.Display):\n"
        "    def ended(self, *arguments):\n"
        "        super().ended(*arguments)\n"
        "        press = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "        gc.callbacks.append(press); gc.collect(); gc.callbacks.remove(press)\n"
        "compare.Display = Display\n"
        "try:\n"
        "    compare.carry_out(plan, quiet=True)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(len(plan.known()))\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert "Exception ignored" in done.stderr
    assert done.returncode == 1, done.stderr
