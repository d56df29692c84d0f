"""Training functions: the user's own training in `compare`. What a variant gives is used or the run fails; killed runs go on."""

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_dropout
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result, Run
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.study.training_function import is_training_function
from keras_dropout.bench.training.function_trainer import FunctionTrainer
from keras_dropout.bench.training.messages import Anew, Checkpointed, Ended, Epoch
from keras_dropout.errors import BadInput

EXAMPLES = Path(__file__).parents[2] / "examples" / "trainings"
L = keras.layers
WITH = {"dropout": {"hidden": 0.5}}


def planned(function, variants=WITH, **settings):
    return make_plan(function, variants=variants, **{"seeds": 1, **settings})


def told(function, variants=WITH, seed=0, variant=-1, checkpoint=None, **settings):
    """The messages of one run, of the last variant by default."""
    study = planned(function, variants, **settings).study
    run = next(run for run in study.runs() if run.variant == study.variants[variant] and run.seed == seed)
    trainer = FunctionTrainer(study)
    trainer._function = function  # itself, not its copy in the study, so that it can tell what it saw
    return list(trainer.follow([run], {} if checkpoint is None else {run.key: checkpoint}))


def result(function, *arguments, **options) -> Result:
    *_, last = told(function, *arguments, **options)
    assert isinstance(last, Ended)
    return last.result


def quick(run):
    """A training of no time, whose figures depend on seed and rate alone."""
    noise = np.random.default_rng(run.seed).normal()
    return {"test_loss": 1 + 0.1 * noise - 0.2 * run.rate("hidden")}


def net():
    return keras.Sequential([L.Input((4,)), L.Dense(8, "relu"), L.Dense(1)])


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_variant_gives_rates_by_name():
    asked = []

    def train(run):
        asked.append((run.variant, run.rate("hidden"), run.rate("other")))
        return {"test_loss": 1.0}

    assert result(train).status == result(train, variant=0).status == "done"
    assert asked == [("dropout", 0.5, 0.0), ("none", 0.0, 0.0)]


def test_the_model_as_built_has_the_rates_of_the_function():
    def train(run):
        return {"test_loss": run.rate("hidden", 0.3)}

    assert result(train, ["as-built"]).metrics == {"test_loss": 0.3}
    assert "does not say its rate" in result(quick, ["as-built"]).error
    assert "is the model as built" in result(lambda run: {"test_loss": 1}, ["as-built"]).error


def test_a_schedule_is_followed_by_what_is_done():
    def train(run):
        return {"test_loss": run.rate("hidden", progress=0.25)}

    assert result(train, {"falling": {"hidden": "linear(0.4, 0)"}}).metrics["test_loss"] == pytest.approx(0.3)
    assert "does not say how much of it is done" in result(quick, {"falling": {"hidden": "linear(0.4, 0)"}}).error
    assert "gives GaussianDropout" in result(quick, {"other": {"hidden": "GaussianDropout(0.2)"}}).error


def test_what_a_variant_gives_is_used_or_the_run_fails():
    def late(run):
        run.rate("hidden")
        run.log({"loss": 1.0}, 1)
        pytest.fail("the function was not stopped at its first epoch")

    error = result(quick, {"wrong": {"hiden": 0.5}}).error
    assert "gives 'hiden', which the function did not use" in error
    assert "Did you mean hidden?" in error
    assert "gives 'more'" in result(late, {"wrong": {"hidden": 0.5, "more": 0.2}}).error

    def deaf(run):
        try:
            run.log({"loss": 1.0}, 1)
        except ValueError:
            return {"test_loss": 1.0}

    assert "did not use" in result(deaf).error, "a refusal that the function catches still fails the run"


def test_epochs_are_read_or_the_run_fails():
    assert "did not read run.epochs" in result(quick, epochs=3).error

    def train(run):
        return {"test_loss": run.rate("hidden") + run.epochs}

    assert result(train, epochs=3).metrics == {"test_loss": 3.5}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned nothing"),
        (0.3, "which are numbers by name"),
        ({}, "which are numbers by name"),
        ({"test_loss": "low"}, "which is no number"),
        ({"test_loss": True}, "which is no number"),
        ({"test_loss": [1, 2]}, "which is no number"),
        ({"seed": 1.0}, "which no metric can have"),
        (({"test_loss": 5.0}, [1.0, 2.0]), "the mean of the losses of the test examples is 1.5"),
        (({"test_loss": 1.5}, [[1.0], [2.0]]), "got shape (2, 1)"),
    ],
)
def test_what_cannot_be_a_result_fails(returned, words):
    found = result(lambda run: (run.rate("hidden"), returned)[1])
    assert found.status == "failed"
    assert words in found.error


def test_losses_of_examples_give_the_test_loss():
    found = result(lambda run: (run.rate("hidden"), ({"test_accuracy": 0.5}, [1.0, 2.0]))[1])
    assert found.metrics == {"test_accuracy": 0.5, "test_loss": 1.5}
    np.testing.assert_array_equal(found.test_losses, [1, 2])


def test_figures_that_are_not_finite_are_a_run_that_diverged():
    def train(run):
        run.rate("hidden")
        run.log({"loss": 1.0}, 1)
        try:
            run.log({"loss": float("nan")}, 2)
        except Exception:
            pytest.fail("the function could catch the end of its run")

    found = result(train)
    assert (found.status, found.curves, found.epochs) == ("diverged", {"loss": [1.0]}, 2)
    assert result(lambda run: {"test_loss": run.rate("hidden") * float("inf")}).status == "diverged"


def test_an_error_is_the_result_and_its_traceback_is_printed(capfd):
    def train(run):
        raise KeyError("no such column")

    assert result(train).error == "KeyError: 'no such column'"
    assert "Traceback" in capfd.readouterr().err


def test_epochs_are_logged_once_and_in_order():
    def logged(*calls):
        def train(run):
            run.rate("hidden")
            for metrics, epoch in calls:
                run.log(metrics, epoch)
            return {"test_loss": 1.0}

        return told(train)

    *epochs, last = logged(({"loss": 2.0}, 1), ({"loss": 1.0}, 2))
    assert [(each.epoch, each.logs) for each in epochs if isinstance(each, Epoch)] == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert (last.result.curves, last.result.epochs) == ({"loss": [2.0, 1.0]}, 2)
    for calls, words in [
        ((({"loss": 1.0}, 0),), "from 1; got 0"),
        ((({"loss": 1.0}, 2),), "got epoch 2"),
        ((({"loss": 1.0}, 1), ({"loss": 1.0}, 1)), "got epoch 1"),
        ((({"loss": 1.0}, 1), ({"other": 1.0}, 2)), "with other"),
    ]:
        assert words in logged(*calls)[-1].result.error


def walk(run):
    """A training that draws from NumPy and Python in each epoch, and keeps its state in checkpoints."""
    import random

    state, first = np.zeros(3), 0
    run.rate("hidden")
    if saved := run.resume():
        first, state = saved.epoch, saved.state["state"]
    for epoch in range(first + 1, 5):
        state = state + np.random.random(3) + random.random()  # noqa: NPY002 - what a training of one's own may do
        run.log({"loss": state.sum()}, epoch)
        run.checkpoint({"state": state}, epoch)
    return {"test_loss": state.sum()}


def test_a_run_that_is_resumed_ends_in_the_same_figures():
    whole = told(walk, seed=0)
    states = {each.epoch: each.state for each in whole if isinstance(each, Checkpointed)}
    assert list(states) == [1, 2, 3, 4]
    for epoch, state in states.items():
        again = told(walk, checkpoint=state)
        assert again[-1].result.metrics == whole[-1].result.metrics
        assert again[-1].result.curves == whole[-1].result.curves
        assert sum(isinstance(each, Epoch) for each in again) == 4 - epoch
    assert result(walk, seeds=[0, 1], seed=1).metrics != whole[-1].result.metrics


def test_random_numbers_that_are_not_seeded_anew_are_seen(monkeypatch):
    """The fault that the test above must see: generators that go on from their first seed."""
    whole = told(walk)
    state = next(each.state for each in whole if isinstance(each, Checkpointed))
    monkeypatch.setattr("keras_dropout.bench.training.function_trainer.TrainingRun._seed_after", lambda self, epoch: None)
    assert told(walk, checkpoint=state)[-1].result.metrics != told(walk)[-1].result.metrics


@pytest.mark.parametrize("state", [b"bytes\0", {"a": np.arange(3), "b": np.float32(2)}, [np.eye(2), np.array(True)]])
def test_a_state_comes_back_in_its_form(state):
    def train(run):
        run.rate("hidden")
        if saved := run.resume():
            found.append(saved)
        else:
            run.checkpoint(state, 3)
        return {"test_loss": 1.0}

    found = []
    kept = next(each.state for each in told(train) if isinstance(each, Checkpointed))
    assert told(train, checkpoint=kept)[-1].result.status == "done"
    assert found[0].epoch == 3
    back = found[0].state
    assert type(back) is type(state)
    if isinstance(state, bytes):
        assert back == state
    else:
        pairs = zip(back.items(), state.items()) if isinstance(state, dict) else zip(enumerate(back), enumerate(state))
        for (name, value), (wanted_name, wanted) in pairs:
            assert (name, value.dtype, value.shape) == (wanted_name, np.asarray(wanted).dtype, np.asarray(wanted).shape)
            np.testing.assert_array_equal(value, wanted)


def test_a_state_that_cannot_be_stored_fails():
    for state, words in [("text", "got str"), ([np.array([object()])], "got one of object"), ({1: np.eye(2)}, "got dict")]:
        assert words in result(lambda run, state=state: (run.rate("hidden"), run.checkpoint(state, 1))).error


def test_a_damaged_checkpoint_begins_anew():
    for state in (b"nothing", Checkpoint(1, {}, 0.0, [np.eye(2)]).to_bytes()):
        first, *_, last = told(walk, checkpoint=state)
        assert isinstance(first, Anew)
        assert last.result.metrics == result(walk).metrics


def test_place_puts_the_variant_in_and_the_baseline_out():
    seen = {}

    def train(run):
        built = keras.Sequential([L.Input((4,)), L.Dense(8, "relu"), L.Dropout(0.9), L.Dense(1)])
        model = run.place(built)
        seen[run.variant] = [(type(layer), layer.rate) for layer in model.layers if hasattr(layer, "rate")]
        model(np.ones((8, 4)), training=True)
        return {"test_loss": 1.0}

    variants = {"as-built": True, "dropout": {"hidden": 0.25}}
    for number in range(3):
        assert result(train, variants, variant=number).status == "done"
    assert seen == {"none": [], "as-built": [(L.Dropout, 0.9)], "dropout": [(keras_dropout.Dropout, 0.25)]}


def test_a_model_that_is_placed_and_not_trained_fails():
    def train(run):
        built = net()
        run.place(built)
        built.compile("sgd", "mse")
        built.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        return {"test_loss": 1.0}

    assert "was never called in training" in result(train).error
    assert result(train, variant=0).status == "done"


def test_dropout_that_does_not_act_fails(monkeypatch):
    """The fault: a layer whose output is what it got."""
    monkeypatch.setattr("keras_dropout.layers.base.MaskLayer.call", lambda self, x, training=False: x)

    def train(run):
        run.place(net())
        pytest.fail("the run was not stopped")

    assert "does not act" in result(train).error


def test_several_models_are_told_apart_by_their_parts():
    masks = []

    def train(run):
        one, two = (run.place(net(), part) for part in ("one", "two"))
        placed = [layer for model in (one, two) for layer in model.layers if isinstance(layer, keras_dropout.Dropout)]
        masks[:] = [keras.ops.convert_to_numpy(layer(np.ones((9, 9)), training=True)) for layer in placed]
        return {"test_loss": len(placed)}

    assert result(train, {"x": {"one.hidden": 0.5, "two.hidden": 0.5}}).metrics["test_loss"] == 2
    assert not np.array_equal(*masks), "each model has masks of its own"
    assert result(train, {"x": {"two.hidden": 0.5}}).metrics["test_loss"] == 1
    assert "gives 'three.hidden'" in result(train, {"x": {"three.hidden": 0.5}}).error
    assert "takes a Keras model; got int" in result(lambda run: run.place(3)).error


def test_a_function_is_known_by_its_parameter(tmp_path):
    Path("train.py").write_text("def train(run):\n    pass\ndef build(input_shape):\n    pass\n")
    assert is_training_function(quick)
    assert is_training_function("train.py:train")
    assert not any(map(is_training_function, ("train.py:build", "digits-mlp", "model.keras", net, net(), Run)))
    assert not is_training_function("train.py:train", "data.csv"), "with data, a name is that of a model's function"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variants": None}, "no variant to compare"),
        ({"variants": ["hidden"]}, "unknown variant"),
        ({"data": np.eye(2)}, "got data too"),
        ({"samples": 5}, "samples is for a model"),
        ({"robust": True}, "robust is for a model"),
        ({"resample_split": True}, "resample_split is for a model"),
        ({"keep_weights": True}, "keep_weights is for a model"),
        ({"early_stopping": 3}, "early_stopping is for a model"),
        ({"engine": "compiled"}, "engine is for a model"),
        ({"checkpoint_every": 1}, "checkpoint_every is for a model"),
        ({"uses": "missing.csv"}, "does not exist"),
        ({"lower_is_better": ["a"], "higher_is_better": ["a"]}, "both higher and lower"),
        ({"primary": 3}, "primary must name a metric"),
    ],
)
def test_what_a_training_function_cannot_have_is_refused_before_training(settings, words):
    with pytest.raises(BadInput, match=words):
        keras_dropout.compare(quick, settings.pop("data", None), **{"variants": WITH, **settings})
    assert not Path("keras-dropout.db").exists()


def test_settings_of_a_training_function_are_not_for_a_model():
    for name, value in (("uses", ["a.csv"]), ("higher_is_better", ["a"])):
        with pytest.raises(BadInput, match=f"{name} is for a training function"):
            make_plan("digits-mlp", **{name: value})
    with pytest.raises(BadInput, match="got a search"):
        keras_dropout.tune(quick)


def key(**settings):
    return planned(settings.pop("function", quick), **settings).study.runs()[-1].key


def test_the_key_is_of_code_variant_seed_and_named_files():
    def other(run):
        return {"test_loss": run.rate("hidden") + 1}

    Path("data").mkdir()
    Path("data/a.csv").write_text("1")
    known = {key(), key(function=other), key(variants={"dropout": {"hidden": 0.4}}), key(seeds=2), key(epochs=2)}
    known |= {key(uses="data"), key(uses=["data/a.csv"]), key(backend={"jax": "torch"}.get(keras.backend.backend(), "jax"))}
    assert len(known) == 8
    assert key() in known
    assert key(variants={"renamed": {"hidden": 0.5}}, lower_is_better=["x"], primary="x", margin=0.1) == key()
    before = key(uses="data")
    Path("data/a.csv").write_text("2")
    assert key(uses="data") != before
    Path("train.py").write_text("def train(run):\n    return {}\n")
    before = key(function="train.py:train")
    Path("train.py").write_text("def train(run):\n    return {} \n")
    assert key(function="train.py:train") != before


def test_a_key_stays_what_it_is():
    """That of a ledger of users: it is written anew only together with a new `NUMERIC_VERSION`."""
    Path("train.py").write_text("def train(run):\n    return {'test_loss': run.rate('hidden')}\n")
    assert key(function="train.py:train", backend="jax") == "f1e275f19af0fcf6381c9dc0f1635503"


def finished(function, variants=WITH, seeds=6, **settings) -> ShownComparison:
    """A comparison, trained here."""
    from keras_dropout.bench.compare import check_metrics, so_far

    plan = planned(function, variants, seeds=seeds, **settings)
    ended = {each.key: each.result for each in FunctionTrainer(plan.study).follow(plan.study.runs()) if isinstance(each, Ended)}
    with Ledger(plan.ledger) as ledger:
        for run in plan.study.runs():
            ledger.put(plan.study, run, ended[run.key], {}, {})
        number = ledger.put_study(plan.study, "a test", {}, {}, plan.document())
    found = so_far(plan, plan.study, ended, "")
    found.number = number
    check_metrics(found)
    return found


def test_figures_verdict_and_page(tmp_path):
    def train(run):
        noise, rate = np.random.default_rng(run.seed).normal(), run.rate("hidden")
        for epoch in (1, 2):
            run.log({"generator_loss": 2.0 - rate - epoch / 10}, epoch)
        return {"distance": 1 + 0.01 * noise - rate, "test_accuracy": 0.5 + 0.001 * noise, "validation_loss": 1.0}

    with pytest.raises(BadInput, match="a higher or a lower 'distance' is better is not known"):
        finished(train)
    found = finished(train, lower_is_better="distance")
    assert found.deciding == "distance", "the first metric leads"
    assert found.verdicts["dropout"]["distance"] == "better"
    assert finished(train, higher_is_better="distance").verdicts["dropout"]["distance"] == "worse"
    assert finished(train, lower_is_better="distance", primary="test_accuracy").deciding == "test_accuracy"
    with pytest.raises(BadInput, match="has no metric test_loss"):
        finished(train, lower_is_better="distance", primary="test_loss")
    page = found.save_report("page.html").read_text()
    assert "Dropout 0.5 at hidden makes the distance lower by 0.5" in page
    assert "Generator loss" in page, "what was logged is drawn"
    for absent in ("The network", "train loss", "batch size", "Test examples", "keras_dropout.place", "trained elsewhere"):
        assert absent not in page
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["study"]["function"] == {"name": "train", "uses": {}, "rising": [], "falling": ["distance"]}
    assert document["study"]["epochs"] is document["study"]["engine"] is None
    assert "test loss" not in str(found)


def test_a_difference_of_exactly_zero_is_a_finding():
    found = finished(lambda run: {"test_loss": float(run.seed + 0 * run.rate("hidden"))})
    assert found.verdicts == {"dropout": {"test_loss": "identical"}}
    assert "nothing was compared" in found.warnings()[0]


def test_losses_of_other_examples_give_no_interval_for_examples():
    def train(run):
        losses = np.random.default_rng(run.seed).random(5 + (run.seed == 1))
        return {"test_accuracy": 0.5 + 0.1 * run.rate("hidden")}, losses

    assert finished(train).figures("test_loss")["dropout"]["interval_new_examples"] is None


LOOP = """
import io
import time

import numpy as np
import torch


def train(run):
    torch.set_num_threads(1)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True).tanh()
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(run.rate("hidden")), torch.nn.Linear(16, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    first = 0
    if saved := run.resume():
        first, (weights, moments) = saved.epoch, torch.load(io.BytesIO(saved.state))
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    for epoch in range(first + 1, 9):
        for rows in torch.randperm(64).split(16):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        run.log({"loss": torch.nn.functional.mse_loss(model(x), y).item()}, epoch)
        model.train()
        state = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), state)
        run.checkpoint(state.getvalue(), epoch)
        time.sleep(PAUSE)
    model.eval()
    return {"test_loss": torch.nn.functional.mse_loss(model(x), y)}
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_a_torch_loop_killed_with_9_ends_in_the_same_figures():
    Path("train.py").write_text(LOOP.replace("PAUSE", "0.4"))
    command = [
        sys.executable,
        "-m",
        "keras_dropout.cli",
        "compare",
        "train.py:train",
        "--variant",
        "half=hidden=0.5",
        "--seeds",
        "1",
    ]
    command += ["--workers", "1", "--quiet", "--json"]
    going = subprocess.Popen([*command, "--ledger", "killed.db"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline, epoch = time.monotonic() + 120, 0
    while epoch < 3 and time.monotonic() < deadline and going.poll() is None:
        time.sleep(0.1)
        if Path("killed.db").exists():
            try:
                with sqlite3.connect("file:killed.db?mode=ro", uri=True) as ledger:
                    epoch = max([0, *(row[0] for row in ledger.execute("SELECT epoch FROM checkpoints"))])
            except sqlite3.OperationalError:
                continue
    os.kill(going.pid, signal.SIGKILL)
    going.wait()
    assert 3 <= epoch < 8, going.stderr.read().decode()
    again, whole = (
        json.loads(subprocess.run([*command, "--ledger", name], capture_output=True, text=True, check=True).stdout)
        for name in ("killed.db", "whole.db")
    )
    runs = [[{**run, "seconds": 0} for variant in each["variants"] for run in variant["runs"]] for each in (again, whole)]
    assert runs[0] == runs[1]
    assert {run["status"] for run in runs[0]} == {"done"}
    curves = [{key: found.curves for key, found in retrieve(Path(name)).results.items()} for name in ("killed.db", "whole.db")]
    assert curves[0] == curves[1]
    assert all(len(each["loss"]) == 8 for each in curves[0].values())
    found = retrieve(Path("killed.db"))
    assert found.document()["study"]["function"]["name"] == "train.py:train"
    assert "half" in found.save_report("page.html").read_text()


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "placement", "metrics"),
    [
        ("torch_loop", {"hidden": 0.5}, {"test_loss", "test_accuracy"}),
        ("vae", {"decoder.hidden": 0.1, "encoder.hidden": 0.1}, {"test_loss"}),
        ("distillation", {"hidden": 0.2}, {"test_loss", "test_accuracy"}),
        ("gan", {"discriminator.hidden": 0.3, "generator.hidden": 0.3}, {"test_frechet_distance"}),
    ],
    ids=["torch_loop", "vae", "distillation", "gan"],
)
def test_the_examples_train_and_their_dropout_acts(name, placement, metrics):
    pytest.importorskip("sklearn")
    if name == "torch_loop":
        pytest.importorskip("torch")
    if name == "gan" and keras.backend.backend() != "tensorflow":
        pytest.skip("its train_step is TensorFlow's")
    train = example(name).train
    with_it = told(train, {"x": placement}, epochs=1)
    without = told(train, {"x": placement}, epochs=1, variant=0)
    for messages in (with_it, without):
        assert messages[-1].result.status == "done", messages[-1].result.error
        assert messages[-1].result.metrics.keys() == metrics
        assert any(isinstance(each, Epoch) for each in messages)
    assert with_it[-1].result.metrics != without[-1].result.metrics
    assert told(train, {"x": placement}, epochs=1)[-1].result.metrics == with_it[-1].result.metrics, "a run comes again"


def test_the_parameter_is_all_that_is_needed():
    """Objects of a run are not needed to call a function: a stand-in with the same names will do."""
    assert quick(SimpleNamespace(seed=0, rate=lambda name: 0.0))["test_loss"] > 0
