"""The search for a placement, and the sweep: what is asked, what is trained, what is chosen by, and what is said of it.

Most of it on losses that are a function of ours of placement, seed and epoch, in place of training.
"""

import contextlib
import dataclasses
import json
import sqlite3
import sys

import keras
import numpy as np
import optuna
import pytest

import keras_dropout
from keras_dropout import cli
from keras_dropout.bench import own_training
from keras_dropout.bench.execution.scheduler import Execution
from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result
from keras_dropout.bench.report.verdict import verdict
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.settings import SAMPLERS
from keras_dropout.bench.study import study_file
from keras_dropout.bench.training.build import make
from keras_dropout.bench.tuning import search, spaces
from keras_dropout.bench.tuning.sweep import Sweep
from keras_dropout.bench.tuning.tune import plan_tuning, tune
from keras_dropout.errors import BadInput

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")
SPACE = "hidden_1=0:0.6:7, hidden_2=0:0.6:7"


class Training:
    """Stands in for the workers. The end of each run is best at rates of 0.3; early on, the smaller the better."""

    def __init__(self, interrupt_after=None):
        self.trained = []  # (placement, seed, epochs)
        self.interrupt_after = interrupt_after

    def __call__(self, execution, runs, until=None):
        study, ledger, observer = execution.plan.study, execution.ledger, execution.observer
        for run in runs:
            if self.interrupt_after is not None and len(self.trained) == self.interrupt_after:
                raise KeyboardInterrupt
            curves = {"validation_loss": [self.loss(run, epoch, study.epochs) for epoch in range(1, (until or study.epochs) + 1)]}
            observer.started(0, run, 0)
            self.trained.append((str(run.variant).partition("=")[2], run.seed, until or study.epochs))
            if until is None:
                ledger.put(study, run, self.result(run, curves), {}, {})
            else:
                ledger.put_checkpoint(run.key, until, Checkpoint(until, curves, 0.0, []).to_bytes())
        found = ledger.get([run.key for run in runs])
        for run in runs if until is None else ():
            yield run, found[run.key]
            observer.ended(0, run, found[run.key])

    def rates(self, run):
        return [spec["rate"] for spec in (run.variant.placement or {}).values()] + [0.0, 0.0]

    def loss(self, run, epoch, epochs):
        rates, noise = self.rates(run), np.random.default_rng([run.seed, *(round(1000 * rate) for rate in self.rates(run))])
        return 0.3 + sum((rate - 0.3 * epoch / epochs) ** 2 for rate in rates[:2]) + noise.normal(0, 0.002)

    def result(self, run, curves):
        test = self.test_loss(run)
        metrics = {"test_loss": test, "validation_loss": curves["validation_loss"][-1], "train_loss": 0.1}
        return Result("done", 1.0, len(curves["validation_loss"]), metrics, curves | {"loss": curves["validation_loss"]})

    def test_loss(self, run):
        return 0.4


@pytest.fixture
def train(monkeypatch):
    def with_(training):
        monkeypatch.setattr(Execution, "train", lambda *given: training(*given))
        monkeypatch.setattr(Execution, "__enter__", lambda execution: execution)
        return training

    return with_


def go(tmp_path, name="r.db", **settings):
    settings = {"epochs": 6, "seeds": 2, "space": SPACE, "quiet": True} | settings
    return tune("digits-mlp", ledger=tmp_path / name, **settings)


def told(found):
    return json.dumps([trial.document() for trial in found.trials])


# --- the space ---------------------------------------------------------------------------------------------------------------


def every_point(space):
    memory = optuna.create_study()
    for point in space.points():
        memory.enqueue_trial(point)
    return [space.ask(memory.ask()) for _ in range(space.size)]


def test_a_space_has_choices_ranges_and_kinds_that_share_parentheses():
    space = spaces.parse("input=0:0.3:4, hidden=Dropout|GaussianDropout(0:0.6:3) | early(0.5, until=0.2:0.4:2), last=0.5")
    assert [choice.text for choice in space.sites["hidden"]] == [
        "Dropout(0:0.6:3)",
        "GaussianDropout(0:0.6:3)",
        "early(0.5, until=0.2:0.4:2)",
    ]
    points = every_point(space)
    assert space.size == len(points) == 4 * (3 + 3 + 2)
    assert len({json.dumps(point) for point in points}) == len(points)
    assert {point["input"] for point in points} == {"0.0", "0.1", "0.2", "0.3"}
    assert {point["hidden"] for point in points} > {"GaussianDropout(0.3)", "early(0.5, until=0.4)"}
    assert {point["last"] for point in points} == {"0.5"}
    assert spaces.parse(str(space)) == space


def test_a_site_twice_has_the_choices_of_both_and_whole_numbers_stay_whole():
    space = spaces.parse({"a": "DropBlock2D(0.1, block_size=3:5)"})
    assert [point["a"] for point in every_point(space)] == [f"DropBlock2D(0.1, block_size={size})" for size in (3, 4, 5)]
    assert spaces.parse("a=0.1, a=linear(0:0.6:2, 0)") == spaces.parse("a=0.1 | linear(0:0.6:2, 0)")


def test_the_default_space_is_of_the_groups_that_the_model_has():
    dense = keras.layers.Dense
    deep = keras.Sequential([keras.Input((9,)), dense(8, "relu"), dense(8, "relu"), dense(2)])
    assert str(spaces.default(deep)) == "input=0 | 0.05:0.3:6, hidden=0:0.6, last=0:0.6"
    small = keras.Sequential([keras.Input((9,)), dense(8, "relu"), dense(2)])
    assert list(spaces.default(small).sites) == ["input", "hidden"]
    words = keras.Sequential([keras.Input((9,), dtype="int32"), keras.layers.Embedding(5, 4), keras.layers.LSTM(4), dense(2)])
    kinds = spaces.default(words, ("Dropout", "WordDropout")).sites
    assert [choice.text for choice in kinds["input"]] == ["0", "WordDropout(0.05:0.3:6)"]
    assert [choice.text for choice in kinds["hidden"]] == ["0:0.6"]


# --- the search --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_search_asks_the_same(sampler, train, tmp_path):
    settings = {"sampler": sampler} | ({"space": "hidden=0:0.6:4"} if sampler == "grid" else {"trials": 12})
    first, training = go(tmp_path, **settings), train(Training())
    again = go(tmp_path, "other.db", **settings)
    assert told(first) == told(again)
    assert training.trained
    if sampler != "grid":
        assert told(go(tmp_path, "third.db", seed=1, **settings)) != told(first)


@pytest.fixture(autouse=True)
def _not_really(train):
    train(Training())


def test_a_search_that_was_interrupted_goes_on_the_same_way(train, tmp_path):
    whole = train(Training())
    found = go(tmp_path, "whole.db", trials=12)
    for after in (0, 5, 13):
        train(Training(interrupt_after=after))
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, f"{after}.db", trials=12)
        rest = train(Training())
        assert told(go(tmp_path, f"{after}.db", trials=12)) == told(found)
        assert rest.trained == whole.trained[after:]
    nothing = train(Training())
    assert told(go(tmp_path, "whole.db", trials=12)) == told(found)
    assert nothing.trained == []


def test_a_search_goes_the_same_way_where_checkpoints_are_damaged(train, tmp_path):
    whole = train(Training())
    found = go(tmp_path, "whole.db", trials=12)
    train(Training(interrupt_after=5))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "cut.db", trials=12)
    with contextlib.closing(sqlite3.connect(tmp_path / "cut.db")) as ledger, ledger:
        ledger.execute("UPDATE checkpoints SET state = substr(state, 1, 20)")
    again = train(Training())
    assert told(go(tmp_path, "cut.db", trials=12)) == told(found)
    assert again.trained == whole.trained


def test_a_grid_tries_every_point_once(tmp_path):
    found = go(tmp_path, sampler="grid", space="hidden_1=0:0.6:4, hidden_2=0 | GaussianDropout(0.2:0.4:2)")
    placements = [trial.text for trial in found.trials]
    assert len(placements) == len(set(placements)) == 12
    assert {"", "hidden_1=0.6, hidden_2=GaussianDropout(0.4)", "hidden_2=GaussianDropout(0.2)"} <= set(placements)


def test_halving_trains_the_best_third_of_each_round_on_and_the_best_of_all_on_more_seeds(train, tmp_path):
    training = train(Training())
    found = go(tmp_path, trials=18)
    for number in (0, 9):
        at_half = sorted(found.trials[number : number + 9], key=lambda trial: trial.losses[3])
        assert all(trial.done for trial in at_half[:3])
        assert not any(trial.done for trial in at_half[3:])
        assert [set(trial.losses) for trial in at_half] == [{3, 6}] * 3 + [{3}] * 6
    finalists = [trial for trial in found.trials if trial.finals]
    assert len(finalists) == search.FINALISTS
    assert max(trial.loss for trial in finalists) <= min(t.loss for t in found.trials if t.done and not t.finals)
    assert found.winner == min(finalists, key=lambda trial: trial.score)
    searched = [(text, seed, epochs) for text, seed, epochs in training.trained if seed >= 1000]
    assert {seed for _, seed, _ in searched} == {1000, 1001, 1002}
    assert sum(epochs == 3 for *_, epochs in searched) == len({trial.text for trial in found.trials})  # the same is one run
    assert found.timing["model_epochs"] == search._cost(18, (3, 6)) == 18 * 3 + 6 * 3 + 6 * 6


def test_without_halving_each_trial_is_trained_to_the_end(train, tmp_path):
    training = train(Training())
    found = go(tmp_path, trials=4, halving=False)
    assert all(trial.done for trial in found.trials)
    assert {epochs for *_, epochs in training.trained} == {6}


def test_the_search_finds_the_best_rates(tmp_path):
    found = go(tmp_path, trials=45)
    assert all(0.2 <= spec["rate"] <= 0.4 for spec in found.winner.variant.placement.values())
    assert len(found.winner.variant.placement) == 2


def test_the_test_data_decide_nothing(train, tmp_path):
    """Test losses that would say the opposite leave every trial and the winner as they are."""

    class Contrary(Training):
        def test_loss(self, run):
            return 10 * abs(sum(self.rates(run)[:2]) - 0.6) if run.seed >= 1000 else 0.4

    found = go(tmp_path)
    train(Contrary())
    assert told(go(tmp_path, "contrary.db")) == told(found)
    assert found.fresh("test_loss")[0] == pytest.approx(0.4)


def test_the_fresh_figure_is_of_other_seeds_and_the_optimistic_one_smaller(train, tmp_path):
    class Luck(Training):
        def loss(self, run, epoch, epochs):
            return 0.3 + np.random.default_rng([run.seed, *(round(1000 * r) for r in self.rates(run))]).normal(0, 0.05)

    train(Luck())
    found = go(tmp_path, seeds=6)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    winner = document["search"]["winner"]
    assert winner["optimistic"]["validation_loss"] < winner["fresh"]["validation_loss"]["mean"]
    low, high = winner["fresh"]["validation_loss"]["interval"]
    assert low < 0.3 < high
    assert [variant["name"] for variant in document["variants"]] == ["none", "as-published", "tuned"]
    assert document["study"]["seeds"] == [0, 1, 2, 3, 4, 5]
    assert "winner's curse" in str(found)
    text = found.save_report(tmp_path / "r.html").read_text()
    assert "winner's curse" in text or "winner&#39;s curse" in text
    assert "in the search (optimistic)" in text
    said = " ".join(str(found).split())
    assert f"The winner had {len(found.trials)} trials, none and as-published had none:" in said
    assert "the validation examples are those that chose. The test loss is not: expect that." in said
    assert winner["chosen_by"] == "validation_loss"


def test_luck_with_the_validation_examples_stays_on_fresh_seeds(train, tmp_path):
    """What a placement has by these examples alone, it has with every seed; on the test data it has none of it."""

    class Luck(Training):
        def loss(self, run, epoch, epochs):
            return 0.3 + np.random.default_rng([round(1000 * r) for r in self.rates(run)]).normal(0, 0.05)

        def test_loss(self, run):
            return 0.3 + np.random.default_rng([run.seed, *(round(1000 * r) for r in self.rates(run))]).normal(0, 0.005)

    train(Luck())
    found = go(tmp_path, seeds=6)
    assert found.fresh("validation_loss")[0] < 0.27
    low, high = found.fresh("test_loss")[1]
    assert low < 0.3 < high


def test_what_diverged_is_the_worst_and_what_failed_is_said(train, tmp_path):
    class Bad(Training):
        def result(self, run, curves):
            if len(run.variant.placement or {}) == 2 and run.seed == 1000:
                return Result("failed", 1.0, 0, error="OutOfMemory: too big")
            if run.variant.placement and run.seed == 1000:
                return Result("diverged", 1.0, 6, {}, curves)
            return super().result(run, curves)

    train(Bad())
    found = go(tmp_path, sampler="grid", space="hidden_1=0:0.4:3, hidden_2=0:0.4:2", halving=False)
    assert {trial.document()["status"] for trial in found.trials} == {"failed", "diverged", "done"}
    assert found.placement == ""
    assert "The search found no dropout." in str(found)
    assert "OutOfMemory" in str(found)
    with pytest.raises(BadInput, match="no trial could be trained to the end: all diverged"):
        go(tmp_path, sampler="grid", space="hidden_1=0.2:0.4:3", halving=False)


def test_a_winner_that_diverged_on_a_further_seed_has_no_mean(train, tmp_path):
    class Fragile(Training):
        def result(self, run, curves):
            if run.seed == search.FINAL_SEEDS[0]:
                return Result("diverged", 1.0, 6, {}, {})
            return super().result(run, curves)

    train(Fragile())
    found = go(tmp_path, trials=3, halving=False)
    assert found.winner.finals
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["search"]["winner"]["optimistic"] == {"validation_loss": None}
    assert "diverged or failed on one of the search's further seeds" in str(found)
    assert "inf" not in str(found).split()
    assert "further seeds" in found.save_report(tmp_path / "r.html").read_text()
    with contextlib.closing(sqlite3.connect(tmp_path / "r.db")) as ledger:
        assert not [text for (text,) in ledger.execute("SELECT document FROM studies") if text and "Infinity" in text]


def test_early_stopping_counts_the_best_epoch(tmp_path):
    found = go(tmp_path, trials=3, early_stopping=2, halving=False)
    with Ledger(tmp_path / "r.db") as ledger:
        study = dataclasses.replace(found.search.study, variants=tuple(trial.variant for trial in found.trials), baseline="trial 0")
        curves = [ledger.get([study.key(trial.variant, 1000)]).popitem()[1].curves for trial in found.trials]
    assert [trial.loss for trial in found.trials] == [min(curve["validation_loss"]) for curve in curves]


def test_samples_are_for_the_comparison_alone(tmp_path):
    planned = search.plan_search("digits-mlp", ledger=tmp_path / "r.db", epochs=6, samples=5)
    assert (planned.plan.study.samples, planned.study.samples) == (5, None)
    without = search.plan_search("digits-mlp", ledger=tmp_path / "r.db", epochs=6)
    assert [run.key for run in planned.study.runs()] == [run.key for run in without.study.runs()]


def test_a_budget_buys_trials(tmp_path):
    planned = search.plan_search("digits-mlp", ledger=tmp_path / "r.db", epochs=6, budget=100)
    assert planned.model_epochs <= 100 < search._cost(planned.trials + 1, planned.rungs)
    assert search.plan_search("digits-mlp", ledger=tmp_path / "r.db", epochs=6, budget=9999, trials=5).trials == 5


# --- the sweep ---------------------------------------------------------------------------------------------------------------


class Tunable(Training):
    """The model without dropout is best at twice its learning rate and without weight decay."""

    def __init__(self, **given):
        super().__init__(**given)
        self.of_baseline = []  # (training, key, seed, epochs)

    def __call__(self, execution, runs, until=None):
        study = execution.plan.study
        own = [run for run in runs if run.variant.training is not None]
        self.of_baseline += [(run.variant.training, run.key, run.seed, until or study.epochs) for run in own]
        yield from super().__call__(execution, runs, until)

    def off(self, run):
        training = run.variant.training
        return 0.1 * np.log2(training.get("learning_rate", 0.1) / 0.2) ** 2 + 0.05 * bool(training.get("weight_decay"))

    def loss(self, run, epoch, epochs):
        if run.variant.training is None:
            return super().loss(run, epoch, epochs)
        return 0.1 + self.off(run) + 0.1 / epoch

    def test_loss(self, run):
        return 0.4 - 0.001 * run.seed if run.variant.training is None else 0.2 + self.off(run) + 0.002 * run.seed


def test_the_baseline_has_as_many_trials_of_its_training(train, tmp_path):
    training = train(Tunable())
    found = go(tmp_path, seeds=6, tune_baseline=True, report=tmp_path / "page.html")
    trials, winner = found.baseline_trials, search.winner_of(found.baseline_trials).variant.training
    assert len(trials) == len(found.trials) == 18
    assert trials[0].text == "as it is"
    assert len({key for _, key, seed, _ in training.of_baseline if seed == search.SEARCH_SEED}) > 12  # other settings, other runs
    epochs = {of: sorted(max(trial.losses) for trial in each) for of, each in (("placement", found.trials), ("training", trials))}
    assert epochs["placement"] == epochs["training"]
    assert sum(bool(trial.finals) for trial in trials) == search.FINALISTS
    assert {seed for *_, seed, _ in training.of_baseline} == {search.SEARCH_SEED, *search.FINAL_SEEDS, *range(6)}
    rates = [trial.variant.training.get("learning_rate", 0.1) for trial in trials]
    assert 0.024 < min(rates) < 0.08 < 0.13 < max(rates) < 0.41
    assert 0.12 < winner["learning_rate"] < 0.33

    # What is found is trained on fresh seeds, and is what the tuned placement is compared with.
    study = found.comparison.study
    assert (study.baseline, study.variants[-1].training) == ("none, tuned", winner)
    model, _ = make(study, study.variants[-1])
    assert float(model.optimizer.learning_rate) == pytest.approx(winner["learning_rate"])
    assert len({study.key(variant, 0) for variant in study.variants}) == len(study.variants)
    assert found.comparison.verdicts["tuned"]["test_loss"] == "worse"
    said = " ".join(found.sentences())
    text = own_training.training_text(winner)
    assert f"The winner had 18 trials, and so had none, tuned (learning rate, weight decay, early stopping): {text}." in said
    assert "Against none, tuned: test loss +0.1" in said

    document = found.document()["search"]["baseline"]
    assert document["winner"]["training"] == winner
    assert document["winner"]["fresh"]["test_loss"]["mean"] == pytest.approx(
        found.comparison.values("none, tuned", "test_loss").mean()
    )
    assert [row["name"] for row in found.document()["variants"] if row.get("training")] == ["none, tuned"]
    page = (tmp_path / "page.html").read_text()
    assert f"no dropout; {text}" in page
    whole = verdict(found.comparison.report_document() | {"unfinished_curves": []})  # those made up still fall
    assert whole.headline.startswith(
        "The model as it is built (as-published) makes the test loss higher by 0.1"
    )  # not the one of none
    assert whole.advice == f"Leave dropout out, and train with {text}. Without dropout:"
    assert retrieve(tmp_path / "r.db").report_document()["search"]["baseline"] == json.loads(json.dumps(document))

    before = len(training.trained)
    assert told(go(tmp_path, seeds=6, tune_baseline=True)) == told(found)
    assert len(training.trained) == before


def test_what_does_not_reach_the_optimizer_is_not_said_to_be_tried(tmp_path, monkeypatch):
    """The planted fault: settings of training that the optimizer never gets."""
    monkeypatch.setattr(own_training, "compiled_with", lambda compiled, training: compiled)
    planned = plan_tuning("digits-mlp", space=SPACE, tune_baseline=True, ledger=tmp_path / "r.db")
    assert list(planned.baseline.space.choices) == ["early_stopping"]


def test_without_it_the_sentence_names_the_way_out(train, tmp_path):
    train(Tunable())
    found = go(tmp_path)
    assert "was not tried. --tune-baseline tries it." in " ".join(found.sentences())
    assert found.comparison.study.baseline == "none"
    assert "baseline" not in found.document()["search"]


def test_the_baselines_search_has_the_settings_of_the_model(tmp_path):
    planned = plan_tuning(
        "digits-mlp", space=SPACE, sampler="grid", early_stopping=4, epochs=40, tune_baseline=True, ledger=tmp_path / "r.db"
    )
    assert (planned.baseline.sampler, planned.baseline.trials) == ("random", planned.trials)
    assert planned.model_epochs == 2 * search._cost(planned.trials, planned.rungs)
    choices = planned.baseline.space.choices
    assert [each.get("early_stopping", "own") for _, each in choices["early_stopping"]] == [None, 10, "own"]
    (first,) = planned.baseline.space.first
    assert first == {"learning_rate": 6, "weight_decay": 0, "early_stopping": 2}
    rates = [each.get("learning_rate", 0.1) for _, each in choices["learning_rate"]]
    assert np.allclose(np.diff(np.log2(rates)), 1 / 3)
    assert (rates[0], rates[-1]) == (pytest.approx(0.025), pytest.approx(0.4))
    with pytest.raises(BadInput, match="that of the baseline's own search"):
        go(tmp_path, variants={"none, tuned": {"hidden": 0.2}})


def test_the_sweep_has_a_run_for_each_rate_and_seed_and_finds_the_best_rate(train, tmp_path):
    training = train(Training())
    found = go(tmp_path, space=None, sweep="hidden_1=GaussianDropout(0:0.6:7)", seeds=6)
    assert len(training.trained) == 6 * (2 + 6)  # rate 0 is the baseline
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    curve = document["sweep"]["curves"]["validation_loss"]
    assert curve["best"] == pytest.approx(0.3)
    assert curve["not_worse"] == pytest.approx([0.3])
    assert curve["best_interval"] == [curve["not_worse"][0], curve["not_worse"][-1]]
    assert [p > 0.05 for p in curve["p"]] == [rate in curve["not_worse"] for rate in curve["rates"]]
    said = "of 7 rates, 0.3 has the smallest mean validation loss. Each other rate is shown to be worse (95 % for all together)."
    assert said in " ".join(str(found).split())
    assert "●" in str(found)
    assert "natural cubic spline" in found.save_report(tmp_path / "s.html").read_text()


def test_one_seed_gives_a_curve_without_an_interval(tmp_path):
    found = go(tmp_path, space=None, sweep="hidden_1=0:0.6:3", seeds=1)
    assert json.loads(json.dumps(found.document(), allow_nan=False))["sweep"]["curves"]["test_loss"]["low"] is None
    assert "1 seed cannot show a rate to be worse: give 5 or more." in " ".join(str(found).split())
    found.save_report(tmp_path / "s.html")


def test_rates_that_are_not_worse_are_said_in_spans():
    found = Sweep("hidden", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [], None)
    assert found._spans([0.1, 0.2, 0.4]) == "0.1 to 0.2, 0.4"
    assert found._spans([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) == "0 to 0.5"


# --- bad input ---------------------------------------------------------------------------------------------------------------

TUNE = ("tune", "digits-mlp", "--ledger", "runs.db")
BAD = {
    "one point": (["--space", "hidden=0.3"], "leaves no choice"),
    "no site": (["--space", ""], "is not SITE=LOW:HIGH"),
    "no choice": (["--space", "hidden="], "is not SITE=LOW:HIGH"),
    "an empty choice": (["--space", "hidden=0:0.3 | | 0.5"], "empty choice"),
    "a choice twice": (["--space", "hidden=0:0.3 | 0:0.3"], "same choice twice"),
    "unknown site": (["--space", "nowhere=0:0.3"], "unknown site 'nowhere'"),
    "unknown layer": (["--space", "hidden=Dropuot(0:0.3)"], "no dropout layer 'Dropuot'"),
    "rate above 1": (["--space", "hidden=0:1.2"], "got 1.2"),
    "rate 1": (["--space", "hidden=0.5:1.0"], "got 1.0"),
    "rate below 0": (["--space", "hidden=-0.1:0.3"], "got -0.1"),
    "a range that falls": (["--space", "hidden=0.5:0.1"], "must rise"),
    "a range of one": (["--space", "hidden=0:0.5:1"], "2 values or more"),
    "not a range": (["--space", "hidden=0:x"], "cannot read the range"),
    "unknown kind": (["--kind", "Dropuot"], "Dropuot fits no site"),
    "kind and space": (["--kind", "Dropout", "--space", "hidden=0:0.3"], "a search space and kinds together"),
    "0 trials": (["--trials", "0"], "trials must be"),
    "unknown sampler": (["--sampler", "cmaes"], "unknown sampler 'cmaes'"),
    "negative seed": (["--seed", "-1"], "seed must be"),
    "a seed that NumPy cannot take": (["--seed", "99999999999"], "seed must be at most 4,294,967,295"),
    "too small a budget": (["--budget", "5"], "at least 30 model-epochs"),
    "a grid too large": (["--sampler", "grid", "--trials", "5"], "points; got 5 trials"),
    "a grid over budget": (["--sampler", "grid", "--space", "hidden=0:0.6:9", "--budget", "100"], "budget must be at least"),
    "a sweep of one": (["--sweep", "hidden=0:0.6:1"], "2 values or more"),
    "a grid without end": (["--sampler", "grid", "--space", "hidden=0:0.6:99999999"], "points must be at most 10,000"),
    "a sweep without end": (["--sweep", "hidden=0:0.6:99999999"], "rates must be at most 1,000"),
    "a sweep over two sites": (["--sweep", "hidden=0:0.6:3, input=0:0.3:3"], "over one site"),
    "a sweep over two ranges": (["--sweep", "hidden=linear(0:0.6:3, 0:0.3:3)"], "over one range"),
    "sweep and space": (["--sweep", "hidden=0:0.6:3", "--space", "hidden=0:0.3"], "sweep and space together"),
    "sweep and a baseline": (["--sweep", "hidden=0:0.6:3", "--tune-baseline"], "sweep and tune_baseline together"),
    "robust": (["--robust"], "got a search"),
    "sweep and trials": (["--sweep", "hidden=0:0.6:3", "--trials", "3"], "sweep and trials together"),
    "as published": (["--split", "as-published"], "trains on the validation data"),
    "a name taken": (["--variant", "tuned=hidden=0.2"], "is the winner's"),
    "report without folder": (["--report", "no/r.html"], "cannot be written there"),
}
CONTRADICTORY = {
    "sweep and space": ('[tune]\nsweep = "hidden=0:0.6:3"\n[space]\nhidden = "0:0.3"', "sweep and space together"),
    "kinds and space": ('[tune]\nkinds = ["Dropout"]\n[space]\nhidden = "0:0.3"', "a search space and kinds together"),
    "a word for a flag": ('[tune]\nhalving = "no"', "halving must be True or False; got 'no'"),
    "one kind": ('[tune]\nkinds = "Dropuot"', "Dropuot fits no site"),
    "a kind that is a number": ("[tune]\nkinds = [5]", "kinds must be names of methods; got [5]"),
    "no choice": ('[space]\nhidden = "0.2"', "leaves no choice"),
    "not a text": ("[space]\nhidden = 0.2", "a search space is a text"),
    "a sweep with seeds auto": ('seeds = "auto"\n[tune]\nsweep = "hidden=0:0.6:3"', "got auto"),
    "unknown name": ("[tune]\ntrails = 3", "unknown name 'trails'"),
    "space is no table": ('space = "hidden=0:0.3"', "space must be a table"),
}


def refusal(tmp_path, monkeypatch, capsys, *arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *arguments])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 2, err
    assert sorted(tmp_path.rglob("*")) == before
    return err.splitlines()[0]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_two_lines_and_exit_2(name, tmp_path, monkeypatch, capsys):
    arguments, words = BAD[name]
    assert words in refusal(tmp_path, monkeypatch, capsys, *TUNE, *arguments)


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_a_contradictory_study_file_too(name, tmp_path, monkeypatch, capsys):
    content, words = CONTRADICTORY[name]
    (tmp_path / "study.toml").write_text(content)
    assert words in refusal(tmp_path, monkeypatch, capsys, *TUNE, "--study", "study.toml")


def test_seeds_of_the_search_cannot_be_fresh_ones(tmp_path):
    with pytest.raises(BadInput, match="1001 is the search's own"):
        go(tmp_path, seeds=[0, 1001])


def test_a_study_file_says_it_all_and_a_comparison_refuses_it(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('target = "digits-mlp"\nseeds = 2\n[space]\nhidden = "0:0.6:3"\n[tune]\nsampler = "grid"\nhalving = false\n')
    settings = study_file.read(path, tuning=True)
    assert settings == {"target": "digits-mlp", "seeds": 2, "space": {"hidden": "0:0.6:3"}, "sampler": "grid", "halving": False}
    with pytest.raises(BadInput, match="are for a search"):
        study_file.read(path)


def test_ctrl_c_says_how_to_go_on(train, tmp_path, monkeypatch, capsys):
    train(Training(interrupt_after=4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *TUNE, "--trials", "9", "--epochs", "4"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "keras-dropout tune digits-mlp --ledger runs.db --trials 9 --epochs 4"


# --- for real ----------------------------------------------------------------------------------------------------------------


def test_the_command_on_real_data(monkeypatch, capsys, tmp_path):
    """Two trials, the better one trained on, and the comparison; the second time nothing is trained, and all is the same."""
    monkeypatch.undo()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.chdir(tmp_path)
    arguments = [*TUNE, "--space", "hidden=0:0.6", "--trials", "2", "--epochs", "2", "--seeds", "1", "--json", "--quiet"]
    arguments += ["--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *arguments])
    documents = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        documents.append(json.loads(capsys.readouterr().out))
    first, again = documents
    assert sorted(trial["epochs"] for trial in first["search"]["trials"]) == [1, 2]
    assert again["timing"]["model_epochs"] == 0
    for document in documents:
        del document["timing"], document["search"]["timing"]
    assert first == again
    assert first["variants"][-1]["name"] == "tuned"
    assert keras_dropout.tune is tune


def test_what_is_compared_on_the_test_part_is_counted_and_trials_are_not(train, tmp_path):
    train(Training())
    found = go(tmp_path, trials=9, seeds=6)
    assert found.comparison.asked.placements_judged == found.document()["placements_judged"] == len(found.comparison.others) == 2
    assert found.comparison.asked.looks == go(tmp_path, trials=9, seeds=6).comparison.asked.looks == ()
    swept = go(tmp_path, sweep="hidden=0.1:0.5:3", space=None, seeds=7)
    names = {variant.name for variant in swept.comparison.study.variants}
    assert swept.comparison.asked.placements_judged == len(names | {"tuned"}) - 1
    assert [look.variants for look in swept.comparison.asked.looks] == [("tuned", "as-published")]


def test_the_winner_can_be_compared_on_seeds_that_are_added(train, tmp_path):
    class Better(Training):
        def test_loss(self, run):
            return (
                0.4 + 0.01 * np.random.default_rng([run.seed, len(run.variant.name)]).normal() - 0.1 * (run.variant.name == "tuned")
            )

    training = Better()
    train(training)
    found = go(tmp_path, trials=3, seeds="auto", max_seeds=12)
    assert found.comparison.raced()["tuned"] == {"seeds": 7, "stopped": "decided"}
    assert found.comparison.verdicts["tuned"]["test_loss"] == "better"
    assert "on 7 fresh seeds" in str(found)
    before = list(training.trained)
    again = go(tmp_path, trials=3, seeds="auto", max_seeds=12)
    assert training.trained == before
    assert again.comparison.raced() == found.comparison.raced()
