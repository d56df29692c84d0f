"""Temperatures: known ones are found, brute force finds no better, and the laws of scaling hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from keras_dropout import metrics
from keras_dropout.calibration import HIGHEST, LOWEST, apply_temperature, fit_temperature
from keras_dropout.errors import BadInput


def simulated(examples, temperature, classes=5, seed=0):
    """Logits for which `temperature` is right, and classes drawn so."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(examples, classes))
    y = (special.softmax(z, axis=-1).cumsum(axis=-1) < rng.random((examples, 1))).sum(axis=-1)
    return temperature * z, np.minimum(y, classes - 1)


def exact_nll(z, y, temperature):
    return -np.take_along_axis(special.log_softmax(z / temperature, axis=-1), y[..., None], axis=-1).mean()


logits_and_classes = st.tuples(st.integers(1, 20), st.integers(2, 4)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays("float64", shape, elements=st.integers(-30, 30).map(lambda n: n / 4)),
        hnp.arrays("int64", shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    """Within four standard errors: the information on b = 1 / T is the variance of the logits under the prediction."""
    z, y = simulated(20_000, temperature)
    p = special.softmax(z / temperature, axis=-1)
    information = ((p * z**2).sum(axis=-1) - (p * z).sum(axis=-1) ** 2).sum()
    error = temperature**2 / math.sqrt(information)  # of T, by the delta method
    for found in (fit_temperature(z, y, logits=True), fit_temperature(special.softmax(z, axis=-1), y)):
        assert abs(found - temperature) < 4 * error
    assert error < 0.03 * temperature


def test_probabilities_and_logits_give_the_same():
    z, y = simulated(500, 1.5)
    p = special.softmax(z, axis=-1)
    inside = p.min(axis=-1) > metrics.CLIP
    z, p, y = z[inside], p[inside], y[inside]
    temperature = fit_temperature(z + 7, y, logits=True)
    assert fit_temperature(p, y) == pytest.approx(temperature, rel=1e-6)
    np.testing.assert_allclose(apply_temperature(p, temperature), apply_temperature(z, temperature, logits=True), atol=1e-12)
    np.testing.assert_allclose(apply_temperature(p, temperature), special.softmax(z / temperature, axis=-1), atol=1e-12)


@settings(deadline=None)
@given(logits_and_classes)
def test_brute_force_finds_nothing_better(case):
    z, y = case
    temperature = fit_temperature(z, y, logits=True)
    assert LOWEST <= temperature <= HIGHEST
    grid = np.geomspace(LOWEST, HIGHEST, 401)
    assert exact_nll(z, y, temperature) <= min(exact_nll(z, y, each) for each in grid) + 1e-9
    assert exact_nll(z, y, temperature) <= exact_nll(z, y, 1.0) + 1e-9


def test_the_temperature_is_that_of_a_fine_grid():
    z, y = simulated(400, 1.7)
    grid = np.geomspace(1, 3, 20_001)
    best = grid[np.argmin([exact_nll(z, y, each) for each in grid])]
    assert fit_temperature(z, y, logits=True) == pytest.approx(best, rel=1e-4)


@settings(deadline=None)
@given(logits_and_classes)
def test_the_score_never_rises_where_it_was_fitted(case):
    """As `metrics.nll` has it, with the clip; up to the 1e-7 that it moves."""
    z, y = case
    p = special.softmax(4 * z, axis=-1)  # many zeros and ones
    assert metrics.nll(apply_temperature(p, fit_temperature(p, y)), y) <= metrics.nll(p, y) + 1e-6


@given(logits_and_classes, st.floats(LOWEST, HIGHEST))
def test_no_temperature_changes_the_classes(case, temperature):
    p = special.softmax(case[0], axis=-1)
    scaled = apply_temperature(p, temperature)
    np.testing.assert_allclose(scaled.sum(axis=-1), 1)
    largest = np.take_along_axis(scaled, p.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    np.testing.assert_allclose(largest, scaled.max(axis=-1), rtol=1e-9)
    surer = scaled.max(axis=-1) - p.max(axis=-1)
    assert (surer <= 1e-6).all() if temperature >= 1 else (surer >= -1e-6).all()


def test_temperatures_act_one_after_the_other():
    p = special.softmax(simulated(50, 1.0)[0], axis=-1)
    np.testing.assert_allclose(apply_temperature(apply_temperature(p, 2.0), 1.5), apply_temperature(p, 3.0), atol=1e-6)
    np.testing.assert_allclose(apply_temperature(p, 1.0), p, atol=1e-6)


def test_data_without_a_best_temperature_end_on_a_bound():
    separated = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(separated, [0, 1]) == LOWEST
    assert fit_temperature(np.eye(2), [0, 1]) == LOWEST
    assert fit_temperature(separated, [1, 0]) == HIGHEST
    assert fit_temperature(np.full((3, 2), 0.5), [0, 1, 1]) == 1
    assert np.isfinite(apply_temperature(np.eye(3), LOWEST)).all()


def test_a_probability_of_0_counts_as_the_clip():
    """Without it one certain error would say that nothing is known: T would be the upper bound."""
    p, y = np.eye(3)[np.arange(60) % 3], np.arange(60) % 3
    y[:5] = (y[:5] + 1) % 3
    temperature = fit_temperature(p, y)
    assert temperature == pytest.approx(fit_temperature(np.log(np.maximum(p, metrics.CLIP)), y, logits=True))
    # Softmax gives the 55 of 60 that are right.
    assert apply_temperature(p, temperature).max(axis=-1) == pytest.approx(55 / 60)


def test_one_column_is_a_sigmoid():
    z, y = simulated(400, 2.0, classes=2)
    column = z[:, 1:] - z[:, :1]
    expected = fit_temperature(z, y, logits=True)
    assert fit_temperature(column, y, logits=True) == pytest.approx(expected)
    assert fit_temperature(special.expit(column), y) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(apply_temperature(column, expected, logits=True)[:, 1], special.expit(column[:, 0] / expected))


def test_pixels_count_like_examples():
    z, y = simulated(240, 2.0)
    expected = fit_temperature(z, y, logits=True)
    assert fit_temperature(z.reshape(4, 6, 10, 5), y.reshape(4, 6, 10), logits=True) == pytest.approx(expected)
    assert apply_temperature(z.reshape(4, 60, 5), 2.0, logits=True).shape == (4, 60, 5)


def test_a_model_that_is_too_sure_is_mended_on_examples_it_has_not_seen():
    """A linear model of few digits without any penalty: sure of all, and calibrated by one number from other digits."""
    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(C=1e4, max_iter=5000).fit(x[:300] / 16, y[:300])
    p, (validation, test) = model.predict_proba(x / 16), (slice(300, 1000), slice(1000, None))
    temperature = fit_temperature(p[validation], y[validation])
    assert temperature > 1.5
    before, after = (metrics.classification(each[test], y[test]) for each in (p, apply_temperature(p, temperature)))
    for name in ("nll", "brier", "ece", "ece_equal_mass", "ece_debiased", "smooth_ece"):
        assert after[name] < before[name], name
    assert after["accuracy"] == before["accuracy"]


@pytest.mark.parametrize(
    ("outputs", "y", "logits", "says"),
    [
        ([[2.0, -1.0]], [0], False, "logits=True"),
        ([[2.0, -1.0]], [2], True, "from 0 to 1"),
        ([[2.0, -1.0]], [0, 1], True, "shape"),
        ([[np.inf, 0.0]], [0], True, "below infinity"),
        ([[-np.inf, 0.0]], [1], True, "finite"),
        ([[np.nan, 0.0]], [0], True, "nan"),
        (np.empty((0, 2)), [], False, "at least one"),
    ],
)
def test_what_is_no_prediction_is_refused(outputs, y, logits, says):
    with pytest.raises(BadInput, match=says):
        fit_temperature(outputs, y, logits=logits)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf, "warm"])
def test_what_is_no_temperature_is_refused(temperature):
    with pytest.raises(BadInput, match="temperature"):
        apply_temperature([[0.5, 0.5]], temperature)
