"""The worlds of `--robust`: which there are, what is said of them, where it is kept, and that a change without effect is seen."""

import dataclasses
import json
import sys

import keras
import numpy as np
import pytest

from keras_dropout import cli, compare
from keras_dropout.bench import own_training, robustness
from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.execution.scheduler import Execution
from keras_dropout.bench.forecast import forecast
from keras_dropout.bench.ledger.lookup import latest_study, studies
from keras_dropout.bench.records import Result
from keras_dropout.bench.report import tables
from keras_dropout.bench.report.verdict import verdict, worlds_sentences
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.display import as_text
from keras_dropout.errors import BadInput

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")
L = keras.layers
WORLDS = [
    "as asked",
    "learning rate ×½",
    "learning rate ×2",
    "epochs ×½",
    "epochs ×2",
    "early stopping",
    "weight decay",
]
_rng = np.random.default_rng(0)
X = _rng.normal(size=(120, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int32") + (X[:, 1] > 0.5)
BOTH = (X[:90], Y[:90]), (X[90:], Y[90:])


def model_with(optimizer):
    model = keras.Sequential([keras.Input((5,)), L.Dense(8, "relu"), L.Dense(3, "softmax")], name="mine")
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def made_up(monkeypatch):
    """In place of training: a test loss by world, variant and seed. Returns the keys of the runs, as they are "trained"."""

    def with_(effects, noise=0.01, stop_at=None, failing=lambda loss: None):
        trained = []

        def train(execution, runs):
            study = execution.plan.study
            world = study.target.partition(", ")[2] or "as asked"
            for run in runs:
                if len(trained) == stop_at:
                    raise KeyboardInterrupt
                trained.append(run.key)
                seed = np.random.default_rng([run.seed, WORLDS.index(world), len(run.variant.placement or {})])
                loss = 0.5 + seed.normal(0, noise) + (effects(world) if run.variant.name != "none" else 0.0)
                result = failing(loss) or Result("done", 0.1, study.epochs, {"test_loss": loss, "test_accuracy": 0.5})
                execution.ledger.put(study, run, result, {}, {})
                execution.observer.started(0, run, 0)
                yield run, result
                execution.observer.ended(0, run, result)

        monkeypatch.setattr(Execution, "train", train)
        monkeypatch.setattr(Execution, "__enter__", lambda execution: execution)
        return trained

    return with_


def go(tmp_path, **settings):
    settings = {"seeds": 6, "epochs": 8, "variants": ["hidden"], "robust": True, "quiet": True} | settings
    return compare("digits-mlp", ledger=tmp_path / "r.db", **settings)


EFFECTS = {"learning rate ×2": 0.1, "epochs ×½": 0.0}  # in the others it is better


def test_a_verdict_is_counted_where_it_is_shown_again(made_up, tmp_path):
    trained = made_up(lambda world: EFFECTS.get(world, -0.1))
    found = go(tmp_path, report=tmp_path / "page.html")
    worlds = found.document()["worlds"]
    assert [world["name"] for world in worlds] == WORLDS
    assert [world["study"] for world in worlds] == [1, 2, 3, 4, 5, 6, 7]
    assert [world["comparisons"][0]["stands"] for world in worlds] == ["holds"] * 2 + ["opposite", "not shown"] + ["holds"] * 3
    assert [world["changed"] for world in worlds][3:6] == [{"epochs": 4}, {"epochs": 16}, {"early_stopping": 2}]
    first, *_ = sentences = worlds_sentences(worlds)
    assert first == (
        "hidden, test loss: better as asked, and this holds in 5 of 7 worlds; not shown in 1 (epochs ×½); the opposite is shown "
        "in 1 (learning rate ×2)."
    )
    row = worlds[2]["comparisons"][0]
    there = retrieve(tmp_path / "r.db", number=3)
    assert there.study.target == "digits-mlp, learning rate ×2"
    assert there.rows("test_loss")[0]["difference"] == row["difference"] == pytest.approx(0.1, abs=0.02)
    assert (row["interval"], row["verdict"]) == (there.rows("test_loss")[0]["interval"], "worse")

    # The terminal, the page and the ledger say the same; a page of the ledger is of the study as asked, not of its last world.
    shown = " ".join(as_text(tables.comparison(found), 160).split())
    assert first in shown
    assert shown.count("digits-mlp") == 1
    again = retrieve(tmp_path / "r.db")
    assert (again.number, again.study.target) == (1, "digits-mlp")
    assert json.loads(json.dumps(again.document()["worlds"])) == json.loads(json.dumps(worlds))
    assert first in verdict(again.report_document()).more
    page = (tmp_path / "page.html").read_text()
    for text in (*sentences, "Does it hold in other worlds?", "as asked: -0.1", "learning rate ×2: +0.1"):
        assert text in page
    assert page.count('<td class="words">epochs ×2</td>') == 1

    done = len(trained)
    assert done == 7 * 12 == len(set(trained))
    assert go(tmp_path).document()["worlds"][2]["comparisons"] == worlds[2]["comparisons"]
    assert len(trained) == done
    assert latest_study(tmp_path / "r.db")["target"] == "digits-mlp"
    assert latest_study(tmp_path / "r.db", target="digits-mlp, epochs ×2")["target"] == "digits-mlp, epochs ×2"


def test_nothing_shown_holds_nowhere(made_up, tmp_path):
    made_up(lambda world: -0.1 if world == "epochs ×2" else 0.0)
    found = go(tmp_path)
    assert {row["stands"] for world in found.more["worlds"] for row in world["comparisons"]} == {None}
    assert worlds_sentences(found.more["worlds"])[0] == (
        "hidden, test loss: no difference shown as asked; better in 1 of 7 worlds (epochs ×2)."
    )


def test_a_world_in_which_nothing_changes_is_not_counted(made_up, tmp_path, monkeypatch):
    """The planted fault: changes that do not reach the runs. Then their figures are those as asked."""
    trained = made_up(lambda world: -0.1)
    plan = make_plan("digits-mlp", ledger=tmp_path / "r.db", seeds=6, epochs=8, variants=["hidden"], robust=True)
    worlds = robustness.worlds(plan)
    keys = [frozenset(run.key for run in each.plan.study.runs()) for each in worlds]
    assert len({*keys, frozenset(run.key for run in plan.study.runs())}) == 7

    monkeypatch.setattr(own_training, "compiled_with", lambda compiled, training: compiled)
    monkeypatch.setattr(
        robustness,
        "worlds",
        lambda plan: [
            dataclasses.replace(
                each, plan=dataclasses.replace(each.plan, study=dataclasses.replace(plan.study, target=each.plan.study.target))
            )
            for each in worlds
        ],
    )
    found = carry_out(plan, quiet=True)
    assert [world["left_out"] is None for world in found.more["worlds"]] == [True] + [False] * 6
    assert len(trained) == 12
    first, second, *_ = worlds_sentences(found.more["worlds"])
    assert first == "hidden, test loss: better as asked, and this holds in 1 of 1 world."
    assert second.startswith("Not counted: learning rate ×½ (no figure of any run differs from those as asked); ")


def test_what_a_verdict_is_in_another_world():
    cases = {
        ("better", "better in most runs"): "holds",
        ("better", "worse"): "opposite",
        ("better", "no difference shown"): "not shown",
        ("better", "same within the margin"): "not shown",
        ("worse, but within the margin", "worse"): "holds",
        ("same within the margin", "better, but within the margin"): "holds",
        ("same within the margin", "worse"): "opposite",
        ("same within the margin", "no difference shown"): "not shown",
        ("no difference shown", "better"): None,
        ("identical", "identical"): None,
    }
    assert {case: robustness.stands(*case) for case in cases} == cases


def test_the_changes_are_those_of_the_names(tmp_path):
    def planned(optimizer, **settings):
        plan = make_plan(
            model_with(optimizer), BOTH, ledger=tmp_path / "r.db", robust=True, engine="reference", **({"epochs": 5} | settings)
        )
        return plan.study, {each.name: each for each in robustness.worlds(plan)}

    study, worlds = planned(keras.optimizers.Adam(0.01))
    assert list(worlds) == WORLDS[1:]
    rates = {name: own_training.optimizer_config(each.plan.study.compiled)["learning_rate"] for name, each in worlds.items()}
    assert rates["learning rate ×½"] == pytest.approx(0.005)
    assert rates["learning rate ×2"] == pytest.approx(0.02)
    assert {rates[name] for name in WORLDS[3:]} == {own_training.optimizer_config(study.compiled)["learning_rate"]}
    assert [worlds[name].plan.study.epochs for name in WORLDS[1:]] == [5, 5, 3, 10, 5, 5]
    assert worlds["early stopping"].plan.study.early_stopping == 2
    assert own_training.optimizer_config(worlds["weight decay"].plan.study.compiled)["weight_decay"] > 0
    assert all(each.plan.study.seeds == study.seeds and each.plan.study.variants == study.variants for each in worlds.values())

    study, worlds = planned(keras.optimizers.AdamW(0.01), early_stopping=3)
    assert own_training.optimizer_config(worlds["no weight decay"].plan.study.compiled)["weight_decay"] == 0
    assert worlds["no early stopping"].plan.study.early_stopping is None
    assert worlds["epochs ×2"].plan.study.early_stopping == 3

    schedule = keras.optimizers.schedules.CosineDecay(0.1, 20)
    _, worlds = planned(keras.optimizers.SGD(schedule), epochs=1)
    assert (worlds["epochs ×½"].plan, worlds["epochs ×½"].why) == (None, "one epoch cannot be halved")
    assert "goes on by its formula" in worlds["epochs ×2"].note


def test_worlds_that_there_cannot_be_are_left_out_and_said(made_up, tmp_path):
    made_up(lambda world: -0.1)
    found = go(tmp_path, split="as-published", epochs=1)
    told = {world["name"]: world["left_out"] for world in found.more["worlds"]}
    assert told["epochs ×½"] == "one epoch cannot be halved"
    assert told["early stopping"] == "the split as-published trains on the validation data"
    first, second, *_ = worlds_sentences(found.more["worlds"])
    assert "holds in 5 of 5 worlds" in first
    assert second.startswith("Not counted: epochs ×½ (one epoch cannot be halved); early stopping (")
    found.save_report(tmp_path / "page.html")
    assert "left out" in as_text(tables.comparison(found), 160)


def test_failed_runs_of_a_world_are_said_and_tried_again(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    broken = ["learning rate ×2"]

    def effects(world):
        return float("nan") if world in broken else -0.1

    def failing(loss):
        return Result("failed", 0.1, 0, error="out of memory") if np.isnan(loss) else None

    trained = made_up(effects, failing=failing)
    line = ("compare", "digits-mlp", "--robust", "--epochs", "8", "--variant", "hidden", "--quiet", "--json")
    code, out, err = command(monkeypatch, capsys, *line)
    assert (code, [world["failed"] for world in json.loads(out)["worlds"]]) == (1, [0, 0, 6, 0, 0, 0, 0])
    assert "failed: 6 run(s) of learning rate ×2 (study 3)" in err
    broken.clear()
    before = len(trained)
    code, out, _ = command(monkeypatch, capsys, *line)
    assert (code, len(trained) - before) == (0, 6)
    assert {world["failed"] for world in json.loads(out)["worlds"]} == {0}


def test_seeds_that_are_added_and_searches_have_no_worlds(tmp_path):
    with pytest.raises(BadInput, match="got auto"):
        make_plan("digits-mlp", ledger=tmp_path / "r.db", seeds="auto", robust=True)
    from keras_dropout.bench.tuning.tune import plan_tuning

    with pytest.raises(BadInput, match="got a search"):
        plan_tuning("digits-mlp", ledger=tmp_path / "r.db", robust=True)
    with pytest.raises(BadInput, match="robust must be True or False"):
        make_plan("digits-mlp", ledger=tmp_path / "r.db", robust="yes")


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, *capsys.readouterr()


def test_the_command_says_the_cost_goes_on_after_an_interrupt_and_judges_by_the_first_world(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from keras_dropout.bench.execution import timing

    monkeypatch.setattr(timing, "estimate_seconds", lambda plan, todo: 2.0 * len(todo))
    line = ("compare", "digits-mlp", "--robust", "--epochs", "8", "--variant", "hidden", "--quiet", "--fail-if", "worse")
    made_up(lambda world: -0.1, stop_at=30)
    code, out, _ = command(monkeypatch, capsys, *line, "--dry-run")
    assert (code, "learning rate ×2: 12 of 12 runs to train, 96 model-epochs" in out) == (0, True)
    assert "  epochs ×½: 12 of 12 runs to train, 48 model-epochs\n" in out
    assert f"together {96 * 5 + 48 + 192} model-epochs\nestimated time: 3.0 minutes" in out
    code, _, err = command(monkeypatch, capsys, *line)
    assert (code, "30 finished run(s) are kept" in err) == (130, True)
    again = retrieve(tmp_path / "keras-dropout.db")
    assert [world["name"] for world in again.more["worlds"]] == WORLDS[:2]

    trained = made_up(lambda world: 0.1 if world != "as asked" else -0.1)
    code, out, _ = command(monkeypatch, capsys, *line, "--json")
    assert (code, len(trained)) == (0, 7 * 12 - 30)  # worse in other worlds fails nothing
    worlds = json.loads(out)["worlds"]
    assert [world["comparisons"][0]["stands"] for world in worlds].count("opposite") >= 4
    code, out, _ = command(monkeypatch, capsys, "report", "--json")
    assert json.loads(out)["worlds"] == worlds
    assert json.loads(out)["worlds_sentences"] == worlds_sentences(worlds)
    assert {each["target"] for each in studies("keras-dropout.db")} == {
        "digits-mlp",
        *(f"digits-mlp, {name}" for name in WORLDS[1:]),
    }
    plan = make_plan("digits-mlp", ledger="keras-dropout.db", epochs=8, variants=["hidden"])
    assert retrieve(plan.ledger, number=forecast(plan)["study"]).study.target == "digits-mlp"


def test_real_worlds_train_other_models(tmp_path):
    settings = {"variants": ["hidden"], "seeds": 1, "epochs": 6, "batch_size": 16, "engine": "compiled", "early_stopping": 2}
    plan = make_plan(model_with(keras.optimizers.Adam(0.1)), BOTH, robust=True, ledger=tmp_path / "r.db", **settings)
    figures = {}
    for each in (plan, *(world.plan for world in robustness.worlds(plan))):
        trainer = Trainer(each.study, each.data.parts("held-out"), each.data.divide_by)
        result = trainer.train(each.study.runs()[0])
        figures[each.study.target] = result.metrics["test_loss"], result.epochs
    assert {epochs for _, epochs in figures.values()} > {6}  # some stopped early, and without early stopping none did
    assert figures["mine, no early stopping"][1] == 6
    assert len(set(figures.values())) >= 6, figures  # those of more epochs may stop where the others did
