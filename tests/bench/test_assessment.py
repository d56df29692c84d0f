"""What an assessment says of really trained models is what one computes by hand; laws of temperature, ensembles and shifts hold."""

import json
import math

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from keras_dropout import calibration, metrics, place, uncertainty
from keras_dropout.bench.assessment import RATES, STRENGTHS, assess
from keras_dropout.bench.data import public_sets
from keras_dropout.bench.data.dataset import Part
from keras_dropout.bench.data.shifts import SHIFTS, shift
from keras_dropout.bench.report import tables
from keras_dropout.bench.statistics import Row, compare_family, mean_interval
from keras_dropout.errors import BadInput
from keras_dropout.layers import Dropout

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="assessments are of predictions, the same on each backend")
SAMPLES = 20


def trained(shape, outputs, activation, loss, x, y, seed=0, epochs=8, rate=0.3):
    keras.utils.set_random_seed(seed)
    layers = [L.Flatten(), L.Dense(32, "relu"), Dropout(rate, seed=seed), L.Dense(outputs, activation)]
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def digits():
    """The parts of the digits as a model sees them."""
    parts = public_sets.digits().parts("held-out")
    return {name: Part(part.x.astype("float32") / 16, part.y) for name, part in parts.items()}


@pytest.fixture(scope="module")
def models(digits):
    """Three seeds of one net, trained long enough to be too sure."""
    loss = keras.losses.SparseCategoricalCrossentropy()
    return {seed: trained((8, 8), 10, "softmax", loss, *digits["train"][:2], seed=seed, epochs=15) for seed in range(3)}


@pytest.fixture(scope="module")
def single(models, digits):
    options = {"temperature": True, "use_moments": True, "samples": SAMPLES}
    return assess(models[0], digits["test"], digits["validation"], **options)


@pytest.fixture(scope="module")
def several(models, digits):
    options = {"temperature": True, "use_moments": True, "samples": SAMPLES}
    return assess(models, digits["test"], digits["validation"], **options)


def by_hand(p, y):
    """The figures straight from their definitions."""
    right = np.clip(p[np.arange(len(y)), y], 1e-7, 1)  # as in Keras
    return {
        "accuracy": float((p.argmax(1) == y).mean()),
        "nll": float(-np.log(right).mean()),
        "brier": float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean()),
    }


def numbers(value):
    """All numbers in plain values."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return [value] if isinstance(value, (int, float)) else []
    return [number for each in value for number in numbers(each)]


def test_figures_are_those_of_the_predictions(single, models, digits):
    x, y, _ = digits["test"]
    plain = models[0].predict(x, verbose=0)
    sampled = uncertainty.predict(models[0], x, SAMPLES)
    for method, p in {"plain": plain, "Monte-Carlo": sampled.mean}.items():
        found = {name: values[0] for name, values in single.values[method].items()}
        assert {name: found[name] for name in ("accuracy", "nll", "brier")} == pytest.approx(by_hand(p, y), rel=1e-5)
        assert found == pytest.approx({name: metrics.classification(p, y)[name] for name in found}, rel=1e-5)
    losses = metrics.nll_each(sampled.mean, y) - metrics.nll_each(plain, y)
    difference = next(each for each in single.differences if each["method"] == "Monte-Carlo")
    assert (difference["metric"], difference["verdict"]) == ("nll", None)
    assert difference["difference"] == pytest.approx(losses.mean(), rel=1e-4)
    assert difference["interval"] == pytest.approx(mean_interval(losses), rel=1e-4)
    for found in single.intervals.values():
        assert set(found) == {"accuracy", "nll", "brier", "ece_debiased"}
    np.testing.assert_array_equal(single.uncertainties[0].mean, sampled.mean)
    assert single.moments_error < 0.05


def test_temperature_is_no_worse_on_validation_data(single, models, digits):
    x, y, _ = digits["validation"]
    plain, temperature = models[0].predict(x, verbose=0), single.temperatures[0]
    scaled = calibration.apply_temperature(plain, temperature)
    assert metrics.nll(scaled, y) <= metrics.nll(plain, y)
    p = models[0].predict(digits["test"].x, verbose=0)
    expected = metrics.nll(calibration.apply_temperature(p, temperature), digits["test"].y)
    assert single.values["temperature"]["nll"] == pytest.approx([expected], rel=1e-5)
    assert single.values["temperature"]["accuracy"] == single.values["plain"]["accuracy"]


def test_seeds_are_paired(several, models, digits):
    assert several.seeds == (0, 1, 2)
    plain = [by_hand(model.predict(digits["test"].x, verbose=0), digits["test"].y) for model in models.values()]
    for name in ("accuracy", "nll", "brier"):
        assert several.values["plain"][name] == pytest.approx([found[name] for found in plain], rel=1e-5)
    base, methods = several.values["plain"], ("Monte-Carlo", "temperature", "moments")
    rows = {(m, n): Row(np.subtract(several.values[m][n], base[n]), n == "accuracy") for m in methods for n in base}
    found = {(each["method"], each["metric"]): each for each in several.differences}
    family = {key: row for key, row in rows.items() if found[key]["verdict"] is not None}
    assert len(family) >= 9  # of accuracy, nll and brier at least
    for key, wanted in compare_family(family).items():
        assert found[key]["difference"] == wanted.mean
        assert found[key]["interval"] == list(wanted.interval)
        assert (found[key]["p_adjusted"], found[key]["verdict"]) == (wanted.p_adjusted, wanted.verdict)
    assert len(several.temperatures) == 3
    assert several.moments_error > 0
    assert set(several.uncertainties) == {0, 1, 2}


def test_an_ensemble_is_no_worse_than_its_members_are_on_average(several):
    """-log and the square are convex (Jensen); of accuracy nothing is promised."""
    for method in ("plain", "Monte-Carlo"):
        for name in ("nll", "brier"):
            (ensemble,), members = several.values[f"ensemble, {method}"][name], several.values[method][name]
            assert ensemble < np.mean(members)


def test_the_document_is_plain_finite_and_printed(several, single):
    for found in (several, single):
        document = found.document()
        assert json.loads(json.dumps(document)) == document
        assert all(map(math.isfinite, numbers(document)))
        from rich.console import Console

        with (console := Console(width=160)).capture() as printed:
            console.print(tables.assessment(found))
        assert f"{np.mean(found.values['Monte-Carlo']['nll']):.4f}" in printed.get()
        for method in found.values:
            assert method in printed.get()


def test_a_rate_is_the_best_on_validation_data(models, digits):
    few = Part(*(each[:100] for each in digits["validation"][:2]))
    before = models[0].get_config()
    found = assess(models[0], digits["test"], few, tune_rate="nll", samples=SAMPLES)
    assert [row["rate"] for row in found.rates] == list(RATES)
    best = min(found.rates, key=lambda row: row["nll"])
    assert [row for row in found.rates if row["chosen"]] == [best]
    other = place(models[0], {"hidden": Dropout(best["rate"])})
    p = uncertainty.predict(other, few.x, SAMPLES).mean
    # Other masks than those of the layer that was there, of the same law.
    assert best["nll"] == pytest.approx(metrics.nll(p, few.y), abs=0.1)
    assert models[0].get_config() == before
    assert found.values["plain"]["nll"] == pytest.approx(
        [by_hand(models[0].predict(digits["test"].x, verbose=0), digits["test"].y)["nll"]]
    )
    assert not np.array_equal(found.uncertainties[0].mean, uncertainty.predict(models[0], digits["test"].x, SAMPLES).mean)


def test_other_data_and_shifts(models, digits):
    x, y, _ = digits["test"]
    x, y = x[:150], y[:150]
    noise = np.random.default_rng(0).random((80, 8, 8)).astype("float32")
    larger = np.repeat(np.repeat(x, 3, axis=1), 3, axis=2)[..., None]  # whose middle pixels it is made of again
    found = assess(models[0], Part(x, y), samples=SAMPLES, ood={"noise": noise, "the same": larger}, shifts=SHIFTS)
    assert {(row["data"], row["score"][:7]) for row in found.ood} >= {("noise", "entropy"), ("the same", "mutual ")}
    for row in found.ood:
        if row["data"] == "the same":
            assert row["auroc"] == pytest.approx(0.5)
    entropies = (uncertainty.predict(models[0], each, SAMPLES).entropy for each in (x, noise))
    expected = metrics.ood(*entropies)
    row = next(row for row in found.ood if row["data"] == "noise" and row["score"] == "entropy, Monte-Carlo")
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    rows = {(row["shift"], row["strength"], row["method"]): row for row in found.shifts}
    assert len(rows) == len(SHIFTS) * STRENGTHS * 2
    for kind in SHIFTS:
        p = models[0].predict(shift(x, kind, 3), verbose=0)
        assert rows[kind, 3, "plain"]["nll"] == pytest.approx(by_hand(p, y)["nll"], rel=1e-4)
    means = [np.mean([rows[kind, strength, "plain"]["accuracy"] for kind in SHIFTS]) for strength in range(1, STRENGTHS + 1)]
    assert found.values["plain"]["accuracy"][0] > means[0] > means[2] > means[4]
    # What is kept of each example is that of the test data, not of what was shifted last.
    np.testing.assert_array_equal(found.uncertainties[0].mean, uncertainty.predict(models[0], x, SAMPLES).mean)


def standardised(x, y, test):
    x = (x - x.mean(0)) / x.std(0)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype("float32"), np.asarray(y)[order]
    thirds = np.split(np.arange(len(x)), [len(x) - 2 * test, len(x) - test])
    return {name: Part(x[rows], y[rows]) for name, rows in zip(("train", "validation", "test"), thirds)}


@pytest.fixture(scope="module")
def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return standardised(x, (y - y.mean()) / y.std(), 90)


@pytest.fixture(scope="module")
def regression(diabetes):
    return trained((10,), 1, None, "mse", *diabetes["train"][:2], epochs=20)


def test_regression(regression, diabetes):
    test, validation = diabetes["test"], diabetes["validation"]
    found = assess(regression, test, validation, samples=SAMPLES)
    assert found.task == "regression"
    plain = regression.predict(test.x, verbose=0)[:, 0]
    variance = np.mean((regression.predict(validation.x, verbose=0)[:, 0] - validation.y) ** 2)
    assert found.values["plain"]["rmse"] == pytest.approx([np.sqrt(np.mean((plain - test.y) ** 2))], rel=1e-5)
    each = np.log(2 * np.pi * variance) / 2 + (plain - test.y) ** 2 / (2 * variance)
    assert found.values["plain"]["nll"] == pytest.approx([each.mean()], rel=1e-5)
    (precision,) = found.precisions
    u = uncertainty.predict(regression, test.x, SAMPLES, y=test.y, precision=precision, outputs="values")
    assert found.values["Monte-Carlo"]["nll"] == pytest.approx([-u.log_likelihood.mean()], rel=1e-5)
    assert found.values["Monte-Carlo"]["rmse"] == pytest.approx([np.sqrt(np.mean((u.mean[:, 0] - test.y) ** 2))], rel=1e-5)
    (difference,) = found.differences
    assert difference["interval"] == pytest.approx(mean_interval(-u.log_likelihood - each), rel=1e-4)
    # The precision is the likeliest on the validation data.
    likelihoods = [
        uncertainty.predict(regression, validation.x, SAMPLES, y=validation.y, precision=p, outputs="values").log_likelihood.mean()
        for p in (precision, 0.8 * precision, 1.25 * precision)
    ]
    assert likelihoods[0] == max(likelihoods)
    assert all(map(math.isfinite, numbers(found.document())))


def test_a_given_precision_is_that_of_both_methods(regression, diabetes):
    found = assess(regression, diabetes["test"], precision=2.0, samples=SAMPLES)
    assert found.precisions == [2.0]
    errors = regression.predict(diabetes["test"].x, verbose=0)[:, 0] - diabetes["test"].y
    assert found.values["plain"]["nll"] == pytest.approx([np.mean(np.log(np.pi) / 2 + errors**2)], rel=1e-5)


def test_a_column_twice_is_worth_what_it_is_once(regression, diabetes):
    """The NLL is that of an entry: of two outputs that are always the same, with answers to match, nothing changes for plain ones;
    samples may only lose by the dependence that they share."""
    twice = keras.Model(regression.inputs, L.Concatenate()([regression.outputs[0], regression.outputs[0]]))
    both = Part(diabetes["test"].x, np.stack([diabetes["test"].y] * 2, axis=1))
    one = assess(regression, diabetes["test"], precision=2.0, samples=SAMPLES)
    two = assess(twice, both, precision=2.0, samples=SAMPLES, task="regression")
    for method in ("plain", "Monte-Carlo"):
        assert two.values[method]["nll"] == pytest.approx(one.values[method]["nll"], abs=0.1)
    assert two.values["plain"]["nll"] == pytest.approx(one.values["plain"]["nll"])


def test_no_verdict_on_coverage_and_width_alone(diabetes):
    found = assess(
        {seed: trained((10,), 1, None, "mse", *diabetes["train"][:2], seed=seed, epochs=2) for seed in range(2)},
        diabetes["test"],
        diabetes["validation"],
        samples=5,
    )
    assert {each["metric"]: each["verdict"] is None for each in found.differences} == {
        "rmse": False, "nll": False, "picp": True, "mpiw": True, "crps": False
    }  # fmt: skip
    assert "ensemble, plain" not in found.values


@pytest.fixture(scope="module")
def yes_or_no():
    parts = standardised(*load_breast_cancer(return_X_y=True), 120)
    return parts, trained((30,), 1, "sigmoid", "binary_crossentropy", *parts["train"][:2], epochs=5)


def test_labels(yes_or_no):
    parts, model = yes_or_no
    x, y, _ = parts["test"]
    found = assess(model, parts["test"], parts["validation"], temperature=True, samples=SAMPLES)
    p = model.predict(x, verbose=0)[:, 0]
    assert found.values["plain"]["nll"] == pytest.approx([-np.mean(np.log(np.where(y == 1, p, 1 - p)))], rel=1e-4)
    assert found.values["plain"]["accuracy"] == [np.mean((p > 0.5) == y)]
    p = uncertainty.predict(model, x, SAMPLES).mean[:, 0]
    assert found.values["Monte-Carlo"]["nll"] == pytest.approx([-np.mean(np.log(np.where(y == 1, p, 1 - p)))], rel=1e-4)
    # A model that was not compiled says nothing of its outputs: the data do.
    bare = keras.Model(model.inputs, model.outputs)
    again = assess(bare, parts["test"], task="classification", samples=SAMPLES)
    assert again.values["plain"] == found.values["plain"]


def test_logits_are_what_softmax_makes_probabilities_of(models, digits):
    """The same weights without the softmax: the same figures."""
    *_, dropout, last = models[0].layers
    logits = L.Dense(10)
    bare = keras.Model(models[0].inputs, logits(dropout.output))
    logits.set_weights(last.get_weights())
    with pytest.raises(BadInput, match="--logits"):
        assess(bare, digits["test"], task="classification")
    told = {"samples": SAMPLES, "use_moments": True}
    one, other = assess(models[0], digits["test"], **told), assess(bare, digits["test"], logits=True, **told)
    for method, found in one.values.items():
        for name in ("accuracy", "nll", "brier"):
            assert other.values[method][name] == pytest.approx(found[name], rel=1e-4), method


class Own(keras.Model):
    """A subclass, whose graph cannot be seen."""

    def __init__(self):
        super().__init__()
        self.first, self.dropout, self.last = L.Dense(8, "relu"), L.Dropout(0.3), L.Dense(3, "softmax")

    def call(self, x, training=False):
        return self.last(self.dropout(self.first(x), training=training))


def test_a_subclass_and_one_hot_answers():
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32") + y[:, None]
    model = Own()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    found = [assess(model, Part(x, answers), samples=5).values for answers in (y, y[:, None], np.eye(3)[y])]
    assert found[0]["plain"]["nll"] == pytest.approx([by_hand(model.predict(x, verbose=0), y)["nll"]], rel=1e-5)
    assert found[1] == found[0] == found[2]


REFUSED = {
    "no labels": ({"y": None}, "one answer for each test example"),
    "too many answers": ({"y": np.zeros((20, 3), int)}, "do not fit the model's outputs"),
    "answers of a regression": ({"y": np.full(20, 0.3)}, "no whole numbers"),
    "classes that are not there": ({"y": np.full(20, 10)}, "whole numbers from 0 to 9"),
    "0 samples": ({"samples": 0}, "samples must be a whole number"),
    "temperature without data": ({"temperature": True}, "temperature needs validation data"),
    "a metric that is none": ({"tune_rate": "loss"}, "unknown metric to tune the rate by 'loss'"),
    "precision": ({"precision": 1.0}, "is for a regression"),
    "unknown shift": ({"shifts": ["fog"]}, "unknown shift 'fog'"),
    "pixels out of range": ({"x": np.full((20, 8, 8), 7.0, "float32"), "shifts": ["blur"]}, "images must lie in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, models, digits):
    options, words = REFUSED[name]
    options = {"x": digits["test"].x[:20], "y": digits["test"].y[:20], **options}
    test = Part(options.pop("x"), options.pop("y"))
    with pytest.raises(BadInput, match=words) as refused:
        assess(models[0], test, **options)
    assert len(str(refused.value).splitlines()) == 2


def test_refused_of_other_models(models, digits, regression, diabetes):
    few = Part(*(each[:20] for each in digits["test"][:2]))
    bare = place(models[0], {})
    with pytest.raises(BadInput, match=r"no randomness(.|\n)*keras_dropout.place"):
        assess(bare, few)
    with pytest.raises(BadInput, match=r"no dropout layer(.|\n)*keras_dropout.place"):
        assess(bare, few, few, tune_rate="nll")
    lacking = "There is no dropout in the model, so that there are no figures of "
    assert assess({0: bare, 1: bare}, few).notes == (f"{lacking}Monte-Carlo.",)
    both = assess({0: bare, 1: bare}, few, use_moments=True)
    assert both.notes == (f"{lacking}Monte-Carlo or moments.",)
    assert set(both.values) == {"plain", "ensemble, plain"}
    with pytest.raises(BadInput, match="this is a regression"):
        assess(regression, diabetes["test"], diabetes["validation"], ood={"other": diabetes["test"].x})
    with pytest.raises(BadInput, match="precision needs validation data"):
        assess(regression, diabetes["test"])
    several = keras.Model(models[0].inputs, [models[0].outputs[0], models[0].layers[1].output])
    with pytest.raises(BadInput, match="has 2 outputs"):
        assess(several, few)
    with pytest.raises(BadInput, match="one input, of images"):
        assess(models[0], few, ood={"two": {"a": few.x, "b": few.x}})
    with pytest.raises(BadInput, match=r"takes examples of shape \(8, 8\)"):
        assess(models[0], Part(few.x[:, :7], few.y))


@pytest.fixture(scope="module")
def fan():
    """A line whose noise grows with x, and a model that gives mean and log-variance, by the likelihood as its loss."""
    x = np.random.default_rng(0).uniform(0, 2, (900, 1)).astype("float32")
    y = (x + np.random.default_rng(1).normal(size=x.shape) * (0.05 + 0.5 * x)).astype("float32")

    def likelihood(y, out):
        return keras.ops.mean(out[:, 1:] + keras.ops.square(y - out[:, :1]) * keras.ops.exp(-out[:, 1:]))

    model = trained((1,), 2, None, likelihood, x[:500], y[:500], epochs=40, rate=0.05)
    return model, Part(x[500:700], y[500:700]), Part(x[700:], y[700:])


def test_a_variance_head_is_measured_without_fitting(fan):
    model, validation, test = fan
    found = assess(model, test, samples=SAMPLES, variance_head=True)  # without validation data: nothing is fitted
    out = keras.ops.convert_to_numpy(model(test.x))
    by_hand = metrics.regression(out[:, :1], np.exp(out[:, 1:]), test.y)
    for name, value in by_hand.items():
        assert found.values["plain"][name] == [pytest.approx(value, rel=1e-4)], name
    u = uncertainty.predict(model, test.x, SAMPLES, y=test.y, outputs="gaussian")
    assert found.values["Monte-Carlo"]["nll"] == [pytest.approx(-u.log_likelihood.mean(), rel=1e-4)]
    assert found.task == "regression"
    assert found.precisions == []
    means = keras.Model(model.inputs, model.outputs[0][:, :1])
    flat = assess(means, test, validation, samples=SAMPLES)  # the same noise for all
    assert found.values["plain"]["nll"][0] < flat.values["plain"]["nll"][0] - 0.1
    assert found.values["plain"]["rmse"][0] == pytest.approx(flat.values["plain"]["rmse"][0], rel=1e-4)


def test_a_variance_head_is_refused_where_it_does_not_fit(fan, digits, models):
    model, validation, test = fan
    with pytest.raises(BadInput, match=r"do not fit the model's outputs.*\nIf the model gives means and log-variances, say so"):
        assess(model, test, validation)
    with pytest.raises(BadInput, match="got a precision, too"):
        assess(model, test, validation, variance_head=True, precision=1.0)
    with pytest.raises(BadInput, match="this is a regression"):
        assess(model, test, validation, variance_head=True, temperature=True)
    with pytest.raises(BadInput, match="variance_head must be"):
        assess(model, test, validation, variance_head="yes")
    with pytest.raises(BadInput, match="the task is classification"):
        assess(models[0], digits["test"], task="classification", variance_head=True)
    two = keras.Model(model.inputs, [model.outputs[0][:, :1], model.outputs[0][:, 1:]])
    with pytest.raises(BadInput, match="has 2 outputs") as caught:
        assess(two, test, variance_head=True)
    joined = eval(str(caught.value).partition("means first: ")[2].removesuffix("."), {"keras": keras, "model": two})
    assert (
        assess(joined, test, samples=5, variance_head=True).values["plain"]
        == assess(model, test, samples=5, variance_head=True).values["plain"]
    )
