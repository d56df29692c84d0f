"""A run that stops between two epochs and goes on in another process ends in the same bytes as one that never stopped."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.ledger.checkpoints import Best, Checkpoint
from keras_dropout.bench.training import trainer as training
from keras_dropout.bench.training.messages import Anew, Checkpointed, Ended, Epoch, Paused
from keras_dropout.bench.training.trainer import Trainer, _Due

L = keras.layers
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.lists(
    arrays.arrays(st.sampled_from(["float32", "float64", "float16", "int32", "uint32", "bool"]), arrays.array_shapes(min_dims=0)),
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 99), st.dictionaries(st.text(), st.lists(finite)), finite, values, st.none() | st.tuples(finite, values))
def test_what_goes_in_comes_out(epoch, curves, seconds, now, best):
    best = Best() if best is None else Best(best[0], epoch, best[1])
    found = Checkpoint.from_bytes(Checkpoint(epoch, curves, seconds, now, best).to_bytes())
    assert (found.epoch, found.curves, found.seconds) == (epoch, curves, seconds)
    assert found.best[:2] == best[:2]
    for ours, theirs in zip([*found.values, *found.best.values], [*now, *best.values], strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours, theirs)


def test_bfloat16_keeps_its_bits():
    value = keras.ops.convert_to_numpy(keras.ops.cast([1.1, -2.7, 1e-30], "bfloat16"))
    found = Checkpoint.from_bytes(Checkpoint(1, {}, 0.0, [value]).to_bytes()).values[0]
    assert found.dtype == value.dtype
    assert found.tobytes() == value.tobytes()


def a_model(optimizer):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.GaussianNoise(0.1, seed=3),
            L.Dense(16, "relu"),
            L.BatchNormalization(),
            L.Dense(8, "relu"),
            L.Dense(3, "softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def moving_average():
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 100), use_ema=True, ema_momentum=0.9)


CASES = {
    "adam": {"optimizer": lambda: "adam"},
    "moving averages and a decaying learning rate": {"optimizer": moving_average},
    "early stopping": {"optimizer": lambda: keras.optimizers.SGD(0.5), "early_stopping": 2, "epochs": 30},
    "class weights": {"optimizer": lambda: "sgd", "class_weight": {0: 1.0, 1: 3.0, 2: 1.0}},
}


def of_another_model(state):
    """As it would be where another Keras's optimizer has a variable more."""
    past = Checkpoint.from_bytes(state)
    return dataclasses.replace(past, values=past.values[:-1]).to_bytes()


def of_other_shapes(state):
    past = Checkpoint.from_bytes(state)
    return dataclasses.replace(past, values=[value[..., None] for value in past.values]).to_bytes()


def with_header(arrays=(), content=b"", **said):
    """A checkpoint with a header of one's own."""
    header = {"epoch": 1, "curves": {}, "seconds": 0.0, "arrays": arrays, "of_best": 0, "best": None} | said
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


DEEP = b"[" * 100_000
NO_CHECKPOINTS = {
    "empty": b"",
    "letters": b"x" * 99,
    "text": "text",
    "nothing": None,
    "an empty header": (2).to_bytes(8, "little") + b"{}",
    "a deep header": len(DEEP).to_bytes(8, "little") + DEEP,
    "a large shape": with_header([["float32", [10**12]]]),
    "shapes of large numbers": with_header([["float32", [10**30, 10**30]]]),
    "all that is left": with_header([["uint8", [-1]]], b"1234"),
    "a shape of truth": with_header([["uint8", [True, 2.0]]], b"12"),
    "more than is told": with_header([["uint8", [1]]], b"12"),
    "objects": with_header([["object", [1]]], bytes(8)),
    "several types": with_header([[["f4", "f4"], [1]]], bytes(8)),
    "an epoch of text": with_header(epoch="1"),
    "an epoch that is no number": with_header(epoch=float("nan")),
    "curves of text": with_header(curves={"loss": "abc"}),
    "curves of lists": with_header(curves={"loss": [[1.0]]}),
    "curves that are a list": with_header(curves=[1.0]),
    "seconds of text": with_header(seconds="long"),
    "a best of text": with_header(best=["low", "first"]),
    "a best without a loss": with_header(best=[None, 1]),
}


@pytest.mark.parametrize("content", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_one_kind_of_error(content):
    with pytest.raises(ValueError, match="it cannot be read"):
        Checkpoint.from_bytes(content)


def of_many_epochs(state):
    """The order of the examples would be drawn anew that often."""
    return dataclasses.replace(Checkpoint.from_bytes(state), epoch=10**15).to_bytes()


def with_a_best_of_other_shapes(state):
    return dataclasses.replace(Checkpoint.from_bytes(state), best=Best(0.5, 1, [np.zeros(3, "f4")])).to_bytes()


UNUSABLE = {"a variable fewer": of_another_model, "other shapes": of_other_shapes}


@pytest.mark.parametrize("engine", ["compiled", "reference", "stacked"])
def test_a_run_whose_checkpoint_cannot_be_used_begins_anew(engine, tmp_path):
    if engine != "reference" and keras.backend.backend() != "jax":
        pytest.skip("this engine runs on JAX")
    x = np.random.default_rng(0).normal(size=(120, 6)).astype("float32")
    data, settings = ((x, np.arange(120) % 3), (x, np.arange(120) % 3)), {"backend": keras.backend.backend(), "engine": engine}
    plan = make_plan(a_model("adam"), data, variants={"a": {"hidden": 0.2}}, epochs=2, seeds=2, ledger=tmp_path / "r", **settings)
    trainer, runs = Trainer(plan.study, plan.data.parts("held-out"), 1.0), plan.study.runs()[1::2]
    told = list(trainer.follow(runs, settings={"checkpoint_every": 1}))
    whole = {each.key: each.result for each in told if isinstance(each, Ended)}
    states = {each.key: each.state for each in told if type(each) is Checkpointed}
    bad, good = states
    for spoil in (of_many_epochs, with_a_best_of_other_shapes):
        first = next(trainer.follow(runs, states | {bad: spoil(states[bad])}))
        assert isinstance(first, Anew)
        assert first.key == bad
    for name, spoil in UNUSABLE.items():
        told = list(trainer.follow(runs, states | {bad: spoil(states[bad])}))
        assert [each.key for each in told if isinstance(each, Anew)] == [bad], name
        epochs = {run.key: [each.epoch for each in told if isinstance(each, Epoch) and each.key == run.key] for run in runs}
        assert epochs == {bad: [1, 2], good: [2]}, name
        for each in told:
            if isinstance(each, Ended):
                same(each.result, whole[each.key])


# On the other backends make test has the optimizer with the most values: what is restored is the same in the others.
ALWAYS = set(CASES) if keras.backend.backend() == "jax" else {"moving averages and a decaying learning rate"}


@pytest.mark.parametrize("case", [pytest.param(case, marks=[] if case in ALWAYS else [pytest.mark.slow]) for case in CASES])
@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_resumed_run_ends_in_the_same_bytes(engine, case, tmp_path):
    if engine == "compiled" and keras.backend.backend() != "jax":
        pytest.skip("the compiled engine runs on JAX")
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 120)
    x = generator.normal(size=(120, 6)).astype("float32") + y[:, None]
    options = {"epochs": 7, **CASES[case]}
    plan = make_plan(
        a_model(options.pop("optimizer")()),
        ((x[:90], y[:90]), (x[90:], y[90:])),
        variants={"a": {"hidden": "linear(0.5, 0.1)"}},
        backend=keras.backend.backend(),
        engine=engine,
        batch_size=16,
        seeds=1,
        ledger=tmp_path / "r.db",
        **options,
    )
    run = plan.study.runs()[-1]

    def trainer():
        return Trainer(plan.study, plan.data.parts("held-out"), 1.0)

    *told, ended = trainer().follow((run,), settings={"checkpoint_every": 2})
    whole = ended.result
    checkpoints = {each.epoch: each.state for each in told if isinstance(each, Checkpointed)}
    assert list(checkpoints) == list(range(2, whole.epochs, 2))
    other = trainer()
    for epoch in (min(checkpoints), max(checkpoints)):
        first, *_, last = other.follow((run,), {run.key: checkpoints[epoch]})
        assert first.epoch == epoch + 1
        same(last.result, whole)
    # In pieces of three epochs.
    state, until = {}, 3
    while isinstance(last := list(other.follow((run,), state, until))[-1], Paused):
        assert last.epoch == until
        state, until = {run.key: last.state}, until + 3
    same(last.result, whole)
    assert whole.status == "done"


def same(one, other):
    assert one.metrics == other.metrics
    assert one.curves == other.curves
    assert (one.epochs, one.best_epoch, one.status) == (other.epochs, other.best_epoch, other.status)
    np.testing.assert_array_equal(one.test_losses, other.test_losses)


def test_without_a_setting_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    settings = {
        "variants": {"a": {"hidden": 0.2}},
        "backend": keras.backend.backend(),
        "engine": "reference",
        "epochs": 5,
        "seeds": 1,
    }
    plan = make_plan(a_model("sgd"), (x, np.arange(60) % 3), ledger=tmp_path / "r", **settings)
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1.0)

    def epochs_with_a_checkpoint(every):
        told = trainer.follow(plan.study.runs()[1:], settings={"checkpoint_every": every})
        return [each.epoch for each in told if isinstance(each, Checkpointed)]

    assert epochs_with_a_checkpoint(None) == []  # it is over in less than half a minute
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "_CHECKPOINT_SHARE", 1e9)
    assert epochs_with_a_checkpoint(plan.settings["checkpoint_every"]) == [1, 2, 3, 4]  # none of the last epoch
    assert epochs_with_a_checkpoint(3) == [3]
    assert epochs_with_a_checkpoint(0) == []


def test_checkpoints_by_the_clock_take_a_fiftieth_of_the_time(monkeypatch):
    """Epochs of ten seconds; what a checkpoint takes decides how many go by until the next."""
    now = 0.0
    monkeypatch.setattr(training.time, "perf_counter", lambda: now)
    for cost, gap in ((0.1, 30), (0.6, 30), (4.0, 200), (30.0, 1500)):
        due, taken = _Due(None), []
        for epoch in range(1, 600):
            now += 10
            due.look()
            if due(epoch):
                with due.timed():
                    now += cost
                taken.append(now)
        gaps = np.diff(taken)
        assert gap <= gaps.min() <= gaps.max() <= gap + 10 + cost, cost
        assert len(taken) * cost / taken[-1] <= 0.0205, cost
