"""Training settings of a variant's own, and of worlds: they act in each engine, and decide the keys. On every backend."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_dropout.bench import own_training
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.records import Run, Variant
from keras_dropout.bench.study import other_training
from keras_dropout.bench.training.build import build, make
from keras_dropout.bench.training.messages import Ended
from keras_dropout.bench.training.trainer import Trainer

L = keras.layers
BACKEND = keras.backend.backend()
ENGINES = ("compiled", "reference", "stacked") if BACKEND == "jax" else ("reference",)
_rng = np.random.default_rng(0)
X = _rng.normal(size=(160, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int32") + (X[:, 1] > 0.5)
SCHEDULES = keras.optimizers.schedules


def planned(tmp_path, optimizer, epochs=3, **settings):
    model = keras.Sequential([keras.Input((5,)), L.Dense(8, "relu"), L.Dense(3, "softmax")], name="mine")
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    settings = {"seeds": 1, "epochs": epochs, "batch_size": 16, "engine": ENGINES[0], "ledger": tmp_path / "r.db"} | settings
    return make_plan(model, ((X[:120], Y[:120]), (X[120:], Y[120:])), variants=["hidden"], backend=BACKEND, **settings)


def trained(plan, engine, *variants):
    """The results of variants, seed 0, trained in one trainer."""
    study = dataclasses.replace(plan.study, engine=engine, variants=(*plan.study.variants, *variants))
    trainer = Trainer(study, plan.data.parts(study.split), plan.data.divide_by)
    runs = [Run(study.key(each, 0), each, 0) for each in (study.variants[0], *variants)]
    found = {told.key: told.result for told in trainer.follow(runs, settings={"keep_weights": True}) if isinstance(told, Ended)}
    return [found[run.key] for run in runs]


def norm(result):
    """The length of all kernels of a trained model."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.keras")
        file.write_bytes(result.model)
        model = keras.saving.load_model(file)
    return float(np.sqrt(sum(np.square(each.kernel.numpy()).sum() for each in model.layers if hasattr(each, "kernel"))))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_setting_acts_as_in_a_study_that_has_it(engine, tmp_path):
    """Variants of one trainer, whose programs are shared where they may be, against studies compiled with the setting."""
    changes = [{"learning_rate": 0.004}, {"weight_decay": 0.5}, {"weight_decay": 5.0}, {"learning_rate": 0.03, "weight_decay": 0.5}]
    plan = planned(tmp_path, keras.optimizers.Adam(0.01))
    plain, *others = trained(plan, engine, *(Variant(f"none {n}", {}, change) for n, change in enumerate(changes)))
    assert len({one.metrics["test_loss"] for one in (plain, *others)}) == 5
    for change, found in zip(changes, others):
        optimizer = keras.optimizers.Adam(**({"learning_rate": 0.01} | change))
        (expected,) = trained(planned(tmp_path, optimizer), engine)
        for name, value in expected.metrics.items():
            np.testing.assert_allclose(found.metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=f"{change} {name}")
    assert norm(others[2]) < 0.9 * norm(others[1]) < 0.99 * norm(plain)


@pytest.mark.parametrize("engine", ENGINES)
def test_early_stopping_of_a_variant_ends_its_run_alone(engine, tmp_path):
    plan = planned(tmp_path, keras.optimizers.SGD(8.0), epochs=12)
    plain, stopped = trained(plan, engine, Variant("stopped", {}, {"early_stopping": 1}))
    losses = plain.curves["validation_loss"]
    assert (plain.epochs, plain.best_epoch) == (12, None)
    assert stopped.epochs < 12
    assert stopped.best_epoch == stopped.epochs - 1 == np.argmin(losses[: stopped.epochs]) + 1
    np.testing.assert_allclose(stopped.metrics["validation_loss"], losses[stopped.best_epoch - 1], rtol=1e-5)


def test_keys_are_those_of_the_settings_wherever_they_come_from(tmp_path):
    study = planned(tmp_path, keras.optimizers.Adam(0.01)).study
    own = Variant("mine", {}, {"learning_rate": float(np.float32(0.02)), "early_stopping": 3})
    with_own = dataclasses.replace(study, variants=(*study.variants, own))
    elsewhere = planned(tmp_path, keras.optimizers.Adam(0.02), early_stopping=3).study
    assert with_own.key(own, 0) == elsewhere.key(elsewhere.variants[0], 0) != study.key(study.variants[0], 0)
    as_it_is = Variant("as it is", {}, {"early_stopping": None, "weight_decay": None})
    assert dataclasses.replace(study, variants=(*study.variants, as_it_is)).key(as_it_is, 0) == study.key(study.variants[0], 0)
    kept = type(study).from_document(with_own.document(), {})
    assert kept.variants == with_own.variants
    assert (kept.of(kept.variants[-1]).early_stopping, kept.early_stopping) == (3, None)


@pytest.mark.parametrize(
    "rate",
    [
        0.01,
        SCHEDULES.ExponentialDecay(0.1, 10, 0.9),
        SCHEDULES.PiecewiseConstantDecay([5, 20], [0.1, 0.01, 0.001]),
        SCHEDULES.PolynomialDecay(0.1, 50, end_learning_rate=0.02),
        SCHEDULES.InverseTimeDecay(0.1, 10, 0.5),
        SCHEDULES.CosineDecay(0.01, 50, alpha=0.1, warmup_target=0.1, warmup_steps=10),
        SCHEDULES.CosineDecayRestarts(0.1, 20),
    ],
    ids=lambda rate: type(rate).__name__,
)
def test_the_optimizer_of_a_run_has_the_scaled_rate(rate, tmp_path):
    wrapped = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate))
    for optimizer in (keras.optimizers.Adam(rate), wrapped):
        study = planned(tmp_path, optimizer).study
        for factor in (0.5, 2.0):
            model, _ = make(study.trained_by(other_training.scaled_rate(study, factor)), study.variants[0])
            plain, _ = make(study, study.variants[0])
            assert np.allclose(rates(model), factor * rates(plain), rtol=1e-5)


def rates(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    found = []
    for step in (0, 3, 12, 40, 400):
        optimizer.iterations.assign(step)
        found.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    return np.array(found)


@pytest.mark.parametrize(
    "name",
    ["Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Muon", "Nadam", "RMSprop", "SGD"],
)
def test_each_optimizer_of_keras_takes_and_loses_a_weight_decay(name, tmp_path):
    study = planned(tmp_path, getattr(keras.optimizers, name)()).study
    for decay in (None, 0.3):
        model, _ = build(study.trained_by(other_training.other_decay(study, decay)), study.runs()[0])
        before = [np.array(each) for each in model.get_weights()]
        model.optimizer.learning_rate.assign(0.1)
        model.optimizer.build(model.trainable_variables)
        model.optimizer.apply([keras.ops.zeros(each.shape) for each in model.trainable_variables], model.trainable_variables)
        expected = [each * (1 - 0.1 * (decay or 0)) for each in before]
        for found, each in zip(model.get_weights(), expected):
            np.testing.assert_allclose(found, each, rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Stubborn(keras.optimizers.SGD):
    """An optimizer that keeps its own rate and decay, whatever it is told."""

    def __init__(self, learning_rate=0.1, weight_decay=None, **settings):
        super().__init__(0.1, weight_decay=None, **settings)


@keras.saving.register_keras_serializable("tests")
class Steady(SCHEDULES.LearningRateSchedule):
    """A schedule without a rate that could be scaled."""

    def __call__(self, step):
        return 0.01

    def get_config(self):
        return {}


def test_what_an_optimizer_does_not_obey_is_not_offered(tmp_path):
    study = planned(tmp_path, Stubborn(), engine="reference").study
    assert other_training.scaled_rate(study, 2.0) is other_training.other_decay(study, 0.1) is None
    study = planned(tmp_path, keras.optimizers.Adam(Steady()), engine="reference").study
    assert other_training.scaled_rate(study, 0.5) is None
    assert other_training.other_decay(study, 0.1) == {"weight_decay": 0.1}
    with pytest.raises(ValueError, match="has no weight_decay"):
        own_training.compiled_with({"optimizer": {"class_name": "Mine", "config": {}}}, {"weight_decay": 1.0})


def test_the_usual_decay_takes_as_much_away_in_each_optimizer(tmp_path):
    """By Loshchilov and Hutter's normalised 0.025: a step takes 0.025 / sqrt(steps) away at the highest learning rate."""
    for optimizer, rate in ((keras.optimizers.SGD(0.1), 0.1), (keras.optimizers.Adam(SCHEDULES.CosineDecay(0.001, 10)), 0.001)):
        study = planned(tmp_path, optimizer, epochs=4).study
        steps = 4 * -(-study.data.train // 16)
        assert other_training.usual_decay(study) * rate == pytest.approx(0.025 / steps**0.5, rel=0.05)
    assert [other_training.usual_patience(epochs) for epochs in (1, 20, 21, 60)] == [2, 2, 3, 6]


def test_a_change_that_is_ignored_is_seen(tmp_path, monkeypatch):
    """The planted faults: settings that do not reach the optimizer, and a program that was compiled with other settings."""
    with monkeypatch.context() as fault:
        fault.setattr(own_training, "compiled_with", lambda compiled, training: compiled)
        with pytest.raises(AssertionError):
            test_a_setting_acts_as_in_a_study_that_has_it(ENGINES[-1], tmp_path)
        study = planned(tmp_path, keras.optimizers.Adam(0.01)).study
        assert other_training.scaled_rate(study, 2.0) is other_training.other_decay(study, 0.1) is None
    if BACKEND == "jax":
        from keras_dropout.bench.training import compiled

        monkeypatch.setattr(compiled, "architecture", lambda variant: str(variant.placement))
        with pytest.raises(AssertionError):
            test_a_setting_acts_as_in_a_study_that_has_it("compiled", tmp_path)


def test_settings_are_said_in_words():
    said = own_training.training_text({"learning_rate": 0.0020000000949949026, "weight_decay": None, "early_stopping": 5})
    assert said == "learning rate 0.002, no weight decay, early stopping 5"
    schedule = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.2, "decay_steps": 9, "warmup_target": None}}
    assert own_training.training_text({"learning_rate": schedule}) == "learning rate CosineDecay(initial_learning_rate=0.2)"
