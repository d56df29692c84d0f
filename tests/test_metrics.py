"""Each metric against scikit-learn, Keras, a hand-worked case or a slow reference, and the laws that hold for any input."""

import itertools
import math

import keras
import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, special, stats
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from keras_dropout import metrics
from keras_dropout.errors import BadInput

METRICS = (
    metrics.accuracy,
    metrics.nll,
    metrics.brier,
    metrics.ece,
    metrics.classwise_ece,
    metrics.smooth_ece,
)

needs_brier_of_classes = pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7),
    reason="scikit-learn has the Brier score of more than two classes since 1.7",
)


def simulated(examples=1000, classes=4, sharpness=1.5, seed=0, spread=2.0):
    """Probabilities from which the classes were drawn, made `sharpness` times as sure: 1 is calibrated."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(examples, classes))
    y = (special.softmax(logits, axis=-1).cumsum(axis=-1) < rng.random((examples, 1))).sum(axis=-1)
    return special.softmax(sharpness * logits, axis=-1), np.minimum(y, classes - 1)


@st.composite
def predictions(draw):
    """A few examples, often with equal probabilities, and of 0 and 1."""
    examples, classes = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    weights = draw(hnp.arrays("float64", (examples, classes), elements=st.integers(0, 6).map(float)))
    weights[np.arange(examples), draw(hnp.arrays("int64", examples, elements=st.integers(0, classes - 1)))] += 1
    y = draw(hnp.arrays("int64", examples, elements=st.integers(0, classes - 1)))
    return weights / weights.sum(axis=-1, keepdims=True), y


scores = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=25).map(np.array)


# Proper scores


@needs_brier_of_classes
def test_scores_are_those_of_scikit_learn():
    p, y = simulated()
    assert metrics.nll(p, y) == pytest.approx(oracle.log_loss(y, p), rel=1e-9)
    assert metrics.accuracy(p, y) == oracle.accuracy_score(y, p.argmax(-1))
    assert metrics.brier(p, y) == pytest.approx(oracle.brier_score_loss(y, p, scale_by_half=False), rel=1e-9)
    p, y = simulated(classes=2)
    assert metrics.brier(p, y) == pytest.approx(2 * oracle.brier_score_loss(y, p[:, 1]), rel=1e-9)


def test_nll_is_keras_loss_where_probabilities_are_0_and_1_or_do_not_quite_sum_to_1():
    p = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5004], [1e-9, 0.5, 0.5 - 1e-9]])
    y = np.array([0, 1, 2, 0])
    expected = keras.losses.sparse_categorical_crossentropy(y, p.astype("float32"))
    np.testing.assert_allclose(metrics.nll_each(p, y), np.asarray(expected), rtol=1e-5, atol=1e-7)
    assert np.isfinite(metrics.nll(p, y))


@given(predictions())
def test_scores_are_the_means_of_the_examples(case):
    p, y = case
    onehot = np.eye(p.shape[-1])[y]
    np.testing.assert_allclose(metrics.brier_each(p, y), ((p - onehot) ** 2).sum(axis=-1), atol=1e-12)
    assert metrics.brier(p, y) == pytest.approx(metrics.brier_each(p, y).mean())
    assert metrics.nll(p, y) == pytest.approx(metrics.nll_each(p, y).mean())
    assert 0 <= metrics.brier(p, y) <= 2
    assert 0 < metrics.nll(p, y) <= -math.log(metrics.CLIP)


@given(st.integers(2, 5), st.data())
def test_no_other_report_scores_better_on_average_than_the_truth(classes, data):
    """Propriety, over all classes as often as they are true."""
    truth, other = (data.draw(hnp.arrays("float64", classes, elements=st.floats(0.01, 1))) for _ in range(2))
    truth, other = truth / truth.sum(), other / other.sum()
    for score in (metrics.nll_each, metrics.brier_each):
        honest, lie = (truth @ score(np.tile(p, (classes, 1)), np.arange(classes)) for p in (truth, other))
        assert honest <= lie + 1e-9


@needs_brier_of_classes
@given(predictions())
def test_brier_is_reliability_less_resolution_plus_uncertainty(case):
    """Murphy 1973: exact where the groups are the predictions themselves."""
    p, y = case
    onehot, base = np.eye(p.shape[-1])[y], np.eye(p.shape[-1])[y].mean(axis=0)
    _, group = np.unique(p, axis=0, return_inverse=True)
    reliability = resolution = 0.0
    for number in np.unique(group):
        inside = group == number
        seen = onehot[inside].mean(axis=0)
        reliability += inside.mean() * ((p[inside][0] - seen) ** 2).sum()
        resolution += inside.mean() * ((seen - base) ** 2).sum()
    assert metrics.brier(p, y) == pytest.approx(reliability - resolution + (base * (1 - base)).sum(), abs=1e-9)


# Calibration


def slow_ece(confidence, correct, edges):
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [i for i, c in enumerate(confidence) if low < c <= high]
        if inside:
            gap = np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


@settings(deadline=None)
@given(predictions(), st.integers(1, 20))
def test_ece_is_its_definition(case, bins):
    p, y = case
    confidence, correct = p.max(axis=-1), p.argmax(axis=-1) == y
    expected = slow_ece(confidence, correct, np.linspace(0, 1, bins + 1))
    assert metrics.ece(p, y, bins=bins) == pytest.approx(expected, abs=1e-12)
    expected = np.mean([slow_ece(p[:, k], y == k, [-1, *np.linspace(0, 1, bins + 1)[1:]]) for k in range(p.shape[-1])])
    assert metrics.classwise_ece(p, y, bins=bins) == pytest.approx(expected, abs=1e-12)


def test_ece_is_that_of_scikit_learns_curve():
    p, y = simulated(3000)
    confidence, correct = p.max(axis=-1), p.argmax(axis=-1) == y
    for binning, strategy in {"equal width": "uniform", "equal mass": "quantile"}.items():
        right, certain = calibration_curve(correct, confidence, n_bins=10, strategy=strategy)
        size = (
            np.histogram(confidence, np.linspace(0, 1, 11))[0]
            if strategy == "uniform"
            else np.histogram(confidence, np.quantile(confidence, np.linspace(0, 1, 11)))[0]
        )
        expected = np.abs(right - certain) @ size[size > 0] / size.sum()
        assert metrics.ece(p, y, bins=10, binning=binning) == pytest.approx(expected, abs=2e-4)


def test_ece_by_hand():
    p = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]])
    y = np.array([0, 0, 0, 1])
    # Both bins hold two, one of them right: |.5 - .9| and |.5 - .6|.
    assert metrics.ece(p, y, bins=5) == pytest.approx((0.4 + 0.1) / 2)
    assert metrics.ece(p, y, bins=1) == pytest.approx(0.25)


def test_bins_of_equal_mass_hold_equally_many():
    p, y = simulated(1000)
    order = np.argsort(p.max(axis=-1))
    correct, confidence = (p.argmax(axis=-1) == y)[order].reshape(8, -1), p.max(axis=-1)[order].reshape(8, -1)
    expected = np.abs(correct.mean(axis=1) - confidence.mean(axis=1)).mean()
    assert metrics.ece(p, y, bins=8, binning="equal mass") == pytest.approx(expected, abs=1e-12)


@given(st.floats(0, 2), st.floats(0.01, 1))
def test_what_chance_adds_to_a_gap_is_the_folded_normal(d, s):
    assert metrics._excess(np.array([d]), np.array([s]))[0] == pytest.approx(stats.foldnorm.mean(d / s, scale=s) - d, abs=1e-9)


def test_debiased_ece_by_hand():
    """One bin of 100 with accuracy and confidence .6: s = sqrt(.24 / 100), and the gap 0 is expected to be s sqrt(2 / pi)."""
    p, y = np.tile([0.6, 0.4], (100, 1)), np.repeat([0, 1], [60, 40])
    expected = -math.sqrt(0.24 / 100) * math.sqrt(2 / math.pi)
    assert metrics.ece(p, y, bins=1) == pytest.approx(0, abs=1e-12)
    assert metrics.ece(p, y, bins=1, debiased=True) == pytest.approx(expected)


def test_debiased_ece_is_nearer_to_the_truth():
    truth = metrics.ece(*simulated(1_000_000, sharpness=1.1))
    samples = [simulated(500, sharpness=1.1, seed=seed) for seed in range(1, 101)]
    plain, debiased = (np.mean([metrics.ece(p, y, debiased=flag) for p, y in samples]) for flag in (False, True))
    assert abs(debiased - truth) < 0.5 * abs(plain - truth)


@pytest.mark.parametrize("examples", [200, 2000])
def test_chance_alone_gives_a_calibrated_model_an_ece(examples):
    """It is what labels drawn from the probabilities give; what is called debiased takes a part of it away, not all."""
    samples = [simulated(examples, sharpness=1.0, seed=seed) for seed in range(60)]
    plain, debiased = (np.mean([metrics.ece(p, y, debiased=flag) for p, y in samples]) for flag in (False, True))
    expected = np.mean([metrics.ece_of_calibrated(p, draws=20) for p, _ in samples])
    assert expected == pytest.approx(plain, rel=0.1)
    assert 0.2 * plain < debiased < 0.7 * plain
    over = [simulated(examples, sharpness=2.0, seed=seed) for seed in range(5)]
    assert all(metrics.ece(p, y) > 2 * metrics.ece_of_calibrated(p) for p, y in over)


def test_the_ece_of_a_calibrated_model_by_hand():
    """Four examples of confidence 3/4 in one bin: the gap is |binomial / 4 - 3/4|."""
    p = np.tile([0.25, 0.75], (4, 1))
    expected = sum(stats.binom.pmf(k, 4, 0.75) * abs(k / 4 - 0.75) for k in range(5))
    assert metrics.ece_of_calibrated(p, draws=4000) == pytest.approx(expected, abs=0.01)
    assert metrics.ece_of_calibrated(p, draws=7, seed=3) == metrics.ece_of_calibrated(p, draws=7, seed=3)
    many = np.repeat(p, 50, axis=0)
    assert metrics.ece_of_calibrated(many, draws=7, seed=3) != metrics.ece_of_calibrated(many, draws=7, seed=4)
    with pytest.raises(BadInput, match="draws must be"):
        metrics.ece_of_calibrated(p, draws=0)


def slow_smooth_ece(confidence, correct):
    """Images of the kernel summed at 2,001 places, and the width by halving."""
    t = np.linspace(0, 1, 2001)

    def at(width):
        images = [side * (confidence[:, None] + 2 * k) for side in (1, -1) for k in range(-4, 5)]
        kernel = sum(np.exp(-(((t - image) / width) ** 2) / 2) for image in images) / (width * math.sqrt(2 * math.pi))
        return integrate.trapezoid(np.abs(((correct - confidence)[:, None] * kernel).mean(axis=0)), t)

    low, high = 0.0, 1.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) > middle else (low, middle)
    return low


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 1.2, 3.0])
@pytest.mark.parametrize("examples", [20, 200])
def test_smooth_ece_is_its_definition(examples, sharpness):
    p, y = simulated(examples, sharpness=sharpness)
    assert metrics.smooth_ece(p, y) == pytest.approx(slow_smooth_ece(p.max(axis=-1), p.argmax(axis=-1) == y), abs=1e-5)


def test_smooth_ece_does_not_jump_at_the_edge_of_a_bin():
    """Half the answers are right. Confidences of .499 and .501 in two bins are all wrong, of .5005 in one bin they are right."""
    y = np.tile([0, 1], 50)

    def both(*confidence):
        c = np.tile(confidence, 50)
        p = np.stack([c, 0.6 * (1 - c), 0.4 * (1 - c)], axis=-1)
        return metrics.ece(p, y, bins=2), metrics.smooth_ece(p, y), slow_smooth_ece(c, y == 0)

    (apart, smooth_apart, slow_apart), (together, smooth_together, _) = both(0.499, 0.501), both(0.5005, 0.5005)
    assert apart - together > 0.49
    assert abs(smooth_apart - smooth_together) < 0.05
    assert smooth_apart == pytest.approx(slow_apart, abs=1e-3)


def test_perfect_predictions_cost_nothing():
    y = np.array([0, 2, 1])
    found = metrics.classification(np.eye(3)[y], y)
    assert found.pop("accuracy") == 1
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=2e-7)


@settings(deadline=None)
@given(predictions(), st.randoms(use_true_random=False), st.integers(1, 20))
def test_laws_of_calibration(case, random, bins):
    p, y = case
    for binning in metrics.BINNINGS:
        plain, debiased = (metrics.ece(p, y, bins, binning, flag) for flag in (False, True))
        assert 0 <= plain <= 1
        assert debiased <= plain + 1e-12
        # Every bin's gap is a mean, so finer bins cancel less.
        assert plain >= metrics.ece(p, y, bins=1) - 1e-12
    order = list(range(len(y)))
    random.shuffle(order)
    found, again = metrics.classification(p, y, bins), metrics.classification(p[order], y[order], bins)
    assert found == pytest.approx(again, abs=1e-8)
    for name in ("accuracy", "classwise_ece", "smooth_ece", "aurc", "augrc"):
        assert 0 <= found[name] <= 1, name


@given(predictions())
def test_the_order_of_classes_does_not_matter(case):
    p, y = case
    for metric in (metrics.nll, metrics.brier, metrics.classwise_ece):
        found = metric(p, y)
        assert found >= 0
        assert metric(p[:, ::-1], p.shape[-1] - 1 - y) == pytest.approx(found)


def test_pixels_count_like_examples():
    p, y = simulated(240)
    for metric in METRICS:
        assert metric(p.reshape(4, 6, 10, 4), y.reshape(4, 6, 10)) == pytest.approx(metric(p, y)), metric.__name__
    assert metrics.nll_each(p.reshape(4, 60, 4), y.reshape(4, 60)).shape == (4, 60)
    assert metrics.classification(p.reshape(4, 60, 4), y.reshape(4, 60)) == pytest.approx(metrics.classification(p, y))


def test_the_set_is_the_metrics():
    p, y = simulated(300)
    wrong = p.argmax(axis=-1) != y
    assert metrics.classification(p, y, bins=7) == {
        "accuracy": metrics.accuracy(p, y),
        "nll": metrics.nll(p, y),
        "brier": metrics.brier(p, y),
        "ece": metrics.ece(p, y, bins=7),
        "ece_equal_mass": metrics.ece(p, y, bins=7, binning="equal mass"),
        "ece_debiased": metrics.ece(p, y, bins=7, debiased=True),
        "classwise_ece": metrics.classwise_ece(p, y, bins=7),
        "smooth_ece": metrics.smooth_ece(p, y),
        "aurc": metrics.aurc(p.max(axis=-1), wrong),
        "augrc": metrics.augrc(p.max(axis=-1), wrong),
    }


@needs_brier_of_classes
def test_real_predictions():
    """A linear model of the digits: all as scikit-learn has it, and what is known of such a model."""
    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=2000).fit(x[::2] / 16, y[::2])
    p, y = model.predict_proba(x[1::2] / 16), y[1::2]
    found = metrics.classification(p, y)
    assert found["accuracy"] == model.score(x[1::2] / 16, y)
    assert found["nll"] == pytest.approx(oracle.log_loss(y, p), rel=1e-9)
    assert found["brier"] == pytest.approx(oracle.brier_score_loss(y, p, scale_by_half=False), rel=1e-9)
    assert found["augrc"] < found["aurc"] < 1 - found["accuracy"]
    assert found["classwise_ece"] < found["ece"] < 0.1
    low, high = metrics.bootstrap_interval(metrics.accuracy, p, y)
    exact = stats.binomtest(round(found["accuracy"] * len(y)), len(y)).proportion_ci()
    np.testing.assert_allclose((low, high), exact, atol=0.005)
    foreign = model.predict_proba(np.random.default_rng(0).random((len(y), 64)))
    assert metrics.ood(-p.max(axis=-1), -foreign.max(axis=-1))["auroc"] > 0.8


# Inputs


def test_one_column_becomes_two():
    p = np.array([[0.2], [0.9]])
    for column in (p, p[:, 0]):
        np.testing.assert_allclose(metrics.as_distribution(column), [[0.8, 0.2], [0.1, 0.9]])
    np.testing.assert_allclose(metrics.as_distribution(special.logit(p), logits=True), [[0.8, 0.2], [0.1, 0.9]])
    assert metrics.as_distribution(np.full((2, 3, 3, 1), 0.5)).shape == (2, 3, 3, 2)
    several, _ = simulated(10)
    np.testing.assert_array_equal(metrics.as_distribution(several), several)
    np.testing.assert_allclose(metrics.as_distribution(np.log(several) + 3, logits=True), several)
    np.testing.assert_array_equal(metrics.as_distribution([-800.0, 800.0], logits=True), [[1, 0], [0, 1]])


GOOD = np.array([[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], "--logits"),
        ([[3.0, 1.0], [0.5, 0.5]], [0, 1], "logits=True"),
        ([[0.5, 0.502], [0.5, 0.5]], [0, 1], "summing to 1"),
        ([[np.nan, 1.0], [0.5, 0.5]], [0, 1], "nan"),
        ([[np.inf, 0.0], [0.5, 0.5]], [0, 1], "inf"),
        (GOOD, [0, 2], "from 0 to 1"),
        (GOOD, [-1, 0], "from 0 to 1"),
        (GOOD, [0.5, 0], "whole numbers"),
        (GOOD, [0, 1, 0], r"y \(3,\)"),
        (GOOD, [[0, 1], [1, 0]], "argmax"),
        (GOOD, [[0], [1]], "column"),
        (np.empty((0, 2)), [], "at least one example"),
        (GOOD[:, :1], [0, 0], "as_distribution"),
        (GOOD[0], 0, "must be of shape"),
        ("words", [0, 1], "array of numbers"),
        (None, [0, 1], "at least one example"),
    ],
)
def test_what_is_no_prediction_is_refused(p, y, says):
    for metric in (*METRICS, metrics.nll_each, metrics.brier_each, metrics.top_label, metrics.classification):
        with pytest.raises(BadInput, match=says) as caught:
            metric(p, y)
        assert len(str(caught.value).splitlines()) == 2


def test_logits_without_end_are_refused_but_for_classes_ruled_out():
    for bad in ([np.inf, 0.0], [-np.inf, -np.inf]):
        with pytest.raises(BadInput, match="logits"):
            metrics.as_distribution([bad, [1.0, 2.0]], logits=True)
    np.testing.assert_array_equal(metrics.as_distribution([[-np.inf, 0.0], [1.0, 1.0]], logits=True), [[0, 1], [0.5, 0.5]])


def test_rounding_of_small_floats_is_no_reason_to_refuse():
    p, y = simulated(500, classes=100)
    for dtype in ("float16", "float32"):
        assert metrics.nll(p.astype(dtype), y) == pytest.approx(metrics.nll(p, y), rel=2e-3)


@pytest.mark.parametrize("options", [{"bins": 0}, {"bins": 2.5}, {"binning": "width"}])
def test_bad_options_are_refused(options):
    with pytest.raises(BadInput):
        metrics.ece(GOOD, [0, 1], **options)


# Intervals


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (metrics.ece, {}),
        (metrics.ece, {"bins": 7, "binning": "equal mass", "debiased": True}),
        (metrics.smooth_ece, {}),
        (metrics.accuracy, {}),
        (metrics.nll, {}),
        (metrics.brier, {}),
    ],
)
def test_drawing_from_what_a_metric_needs_gives_the_same_interval(metric, options):
    for shape in ((200,), (40, 5)):
        p, y = simulated(200)
        p, y = p.reshape(*shape, -1), y.reshape(shape)
        plain = metrics.bootstrap_interval(lambda p, y: metric(p, y, **options), p, y, resamples=30)
        found = metrics.bootstrap_interval(metric, p, y, resamples=30, **options)
        assert found == pytest.approx(plain, rel=1e-9)
        assert found[0] < found[1]


def test_an_interval_is_scipys():
    p, y = simulated(300)
    wrong, confidence = p.argmax(axis=-1) != y, p.max(axis=-1)
    found = metrics.bootstrap_interval(metrics.aurc, confidence, wrong, level=0.9, resamples=2000)
    expected = stats.bootstrap(
        (confidence, wrong),
        metrics.aurc,
        paired=True,
        vectorized=False,
        confidence_level=0.9,
        n_resamples=2000,
        method="percentile",
        rng=1,
    ).confidence_interval
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = metrics.ece(*simulated(1_000_000, sharpness=2.0))
    hits = 0
    for seed in range(1, 101):
        low, high = metrics.bootstrap_interval(metrics.ece, *simulated(500, sharpness=2.0, seed=seed), resamples=200)
        hits += low <= truth <= high
    assert stats.binom.cdf(hits, 100, 0.95) > 1e-3


def test_pixels_of_an_image_stay_together():
    """50 images, each all right or all wrong: to draw pixels would claim 400 times as many examples."""
    wrong = np.repeat(np.arange(50) % 2, 400).reshape(50, 400)
    low, high = metrics.bootstrap_interval(np.mean, wrong)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 50), rel=0.15)


def test_every_example_may_be_drawn():
    assert metrics.bootstrap_interval(np.mean, [0.0, 1.0], resamples=200) == (0, 1)


def test_an_interval_is_the_same_for_a_seed_and_refuses_what_does_not_fit():
    p, y = simulated(100)
    first, again, other = (metrics.bootstrap_interval(metrics.ece, p, y, resamples=50, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    for bad in ({"level": 95}, {"level": "high"}, {"resamples": 1}, {"seed": -1}):
        with pytest.raises(BadInput):
            metrics.bootstrap_interval(metrics.ece, p, y, **bad)
    for arrays in ((), (y, y[1:]), (np.array(1.0),), (np.empty(0),)):
        with pytest.raises(BadInput):
            metrics.bootstrap_interval(lambda *arrays: 0.0, *arrays)


# Selective prediction


def test_risk_coverage_by_hand():
    coverage, risk = metrics.risk_coverage([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert metrics.aurc([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    # Generalised risks 0, 0, 1/4, 1/4, 1/2 at coverages 0, 1/4, ... 1.
    assert metrics.augrc([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1]) == pytest.approx((0 + 1 / 8 + 1 / 4 + 3 / 8) / 4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6))
def test_equal_confidences_count_as_the_mean_over_their_orders(cases):
    confidence, wrong = np.array(cases, dtype=float).T
    risks = []
    for order in itertools.permutations(range(len(cases))):
        order = sorted(order, key=lambda i: -confidence[i])  # stable: a random order of the equal ones
        risks.append(np.cumsum(wrong[order]) / np.arange(1, len(cases) + 1))
    np.testing.assert_allclose(metrics.risk_coverage(confidence, wrong)[1], np.mean(risks, axis=0), atol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=2, max_size=40))
def test_augrc_is_what_auroc_and_accuracy_make_it(cases):
    confidence, wrong = np.array(cases, dtype=float).T
    right = 1 - wrong.mean()
    expected = (1 - right) ** 2 / 2
    if 0 < right < 1:
        expected += (1 - oracle.roc_auc_score(1 - wrong, confidence)) * right * (1 - right)
    assert metrics.augrc(confidence, wrong) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=20))
def test_confidence_that_knows_the_errors_is_best_and_that_errs_is_worst(wrong):
    wrong = np.array(wrong, dtype=float)
    rng = np.random.default_rng(0)
    for area in (metrics.aurc, metrics.augrc):
        best, blind, some, worst = (area(c, wrong) for c in (-wrong, 0 * wrong, rng.random(len(wrong)), wrong))
        assert best - 1e-12 <= blind <= worst + 1e-12
        assert best - 1e-12 <= some <= worst + 1e-12
    assert metrics.aurc(0 * wrong, wrong) == pytest.approx(wrong.mean())
    assert metrics.augrc(0 * wrong, wrong) == pytest.approx(wrong.mean() / 2)


# Foreign data


@given(scores, scores)
def test_ood_is_scikit_learn(inside, outside):
    labels, values = np.repeat([0, 1], [len(inside), len(outside)]), np.concatenate([inside, outside])
    false, true, _ = oracle.roc_curve(labels, values, drop_intermediate=False)
    assert metrics.ood(inside, outside) == pytest.approx(
        {
            "auroc": oracle.roc_auc_score(labels, values),
            "aupr": oracle.average_precision_score(labels, values),
            "fpr95": false[np.argmax(true >= 0.95 - 1e-12)],
        },
        abs=1e-12,
    )


@given(scores, scores)
def test_laws_of_auroc(inside, outside):
    area = metrics.ood(inside, outside)["auroc"]
    assert metrics.ood(outside, inside)["auroc"] == pytest.approx(1 - area)
    assert metrics.ood(np.exp(inside), np.exp(outside))["auroc"] == area
    assert area == pytest.approx(np.mean([(o > i) + (o == i) / 2 for i in inside for o in outside]))
    assert metrics.ood(inside, inside)["auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize("size", range(1, 130))
def test_95_percent_are_counted_in_whole_examples(size):
    """Scores 1 to size on both sides: the threshold lets through the highest ceil(.95 size)."""
    score = np.arange(size)
    assert metrics.ood(score, score)["fpr95"] == math.ceil(size * 19 / 20 - 1e-9) / size


def test_scores_that_are_none_are_refused():
    for bad in ([], [np.nan], "words"):
        with pytest.raises(BadInput):
            metrics.ood([1.0], bad)
    assert metrics.ood([0.0, 1.0], [np.inf])["auroc"] == 1


# Votes


@given(hnp.arrays("int64", hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5), elements=st.integers(0, 3)))
def test_votes(votes):
    pairs = [(a != b).mean() for a, b in itertools.combinations(votes, 2)]
    assert metrics.disagreement(votes) == pytest.approx(np.mean(pairs), abs=1e-12)
    np.testing.assert_allclose(metrics.variation_ratio(votes), 1 - stats.mode(votes, axis=0).count / len(votes), atol=1e-12)


def test_bad_votes_are_refused():
    for bad in ([[0.5, 1], [1, 1]], [[0, 1]], []):
        with pytest.raises(BadInput):
            metrics.disagreement(bad)


# Regression


def normal_case(examples=400, seed=0):
    rng = np.random.default_rng(seed)
    mean, sd = rng.normal(size=examples), rng.uniform(0.5, 2, size=examples)
    return mean, sd, mean + sd * rng.normal(size=examples)


def test_regression_by_scipy_and_scikit_learn():
    mean, sd, y = normal_case()
    found = metrics.regression(mean, sd**2, y, level=0.8)
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(y, mean))
    assert found["nll"] == pytest.approx(-stats.norm.logpdf(y, mean, sd).mean())
    low, high = stats.norm.interval(0.8, mean, sd)
    assert found["picp"] == np.mean((low <= y) & (y <= high))
    assert found["mpiw"] == pytest.approx(np.mean(high - low))
    assert found["crps"] == pytest.approx(metrics.crps_gaussian(mean, sd, y))
    assert abs(found["picp"] - 0.8) < 4 * math.sqrt(0.16 / len(y))
    table = metrics.regression(*(a.reshape(100, 4) for a in (mean, sd**2, y)), level=0.8)
    assert table == pytest.approx(found)


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.floats(0.2, 3), st.floats(-5, 5))
def test_crps_of_a_normal_is_its_integral(mean, sd, y):
    """The definition: the integral of (cdf(x) - [x >= y])^2."""
    below = integrate.quad(lambda x: stats.norm.cdf(x, mean, sd) ** 2, min(y, mean) - 12 * sd, y, limit=200)[0]
    above = integrate.quad(lambda x: stats.norm.sf(x, mean, sd) ** 2, y, max(y, mean) + 12 * sd, limit=200)[0]
    assert metrics.crps_gaussian([mean], [sd], [y]) == pytest.approx(below + above, abs=1e-6)


@given(hnp.arrays("float64", st.tuples(st.integers(2, 8), st.integers(1, 4)), elements=st.integers(-9, 9).map(float)), st.data())
def test_crps_of_samples_is_its_definition(samples, data):
    y = data.draw(hnp.arrays("float64", samples.shape[1], elements=st.floats(-9, 9)))
    pairs = np.mean([np.abs(a - b) for a, b in itertools.combinations(samples, 2)], axis=0)
    np.testing.assert_allclose(metrics.crps_samples_each(samples, y), np.abs(samples - y).mean(axis=0) - pairs / 2, atol=1e-9)


def test_crps_of_samples_is_fair_and_that_of_their_distribution():
    mean, sd, y = normal_case()
    exact = metrics.crps_gaussian(mean, sd, y)
    rng = np.random.default_rng(1)
    for count, within in ((2, 0.06), (2000, 0.004)):  # two samples scatter, and are not worse
        assert metrics.crps_samples(rng.normal(mean, sd, size=(count, len(y))), y) == pytest.approx(exact, abs=within)
    few = [metrics.crps_samples(rng.normal(mean, sd, size=(2, len(y))), y) for _ in range(400)]
    assert np.mean(few) == pytest.approx(exact, abs=4 * np.std(few) / 20)


def test_interval_score_rewards_the_true_quantiles():
    mean, sd, y = normal_case(100_000)
    low, high = stats.norm.interval(0.9, mean, sd)
    true = metrics.interval_score(low, high, y, level=0.9)
    for factor in (0.7, 0.9, 1.1, 1.4):
        assert metrics.interval_score(mean + factor * (low - mean), mean + factor * (high - mean), y, level=0.9) > true
    # (low, high) is right for the first, and 1 under and 2 over for the others.
    assert metrics.interval_score([0, 0, 0], [4, 4, 4], [1, -1, 6], level=0.8) == pytest.approx((4 + 14 + 24) / 3)


def test_coverage_counts_the_limits():
    assert metrics.picp([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0.5, 1.1]) == 0.75
    assert metrics.mpiw([0, 1], [1, 4]) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.rmse(np.zeros((3, 1)), np.zeros(3)),
        lambda: metrics.rmse([np.nan], [0]),
        lambda: metrics.rmse([np.inf], [0]),
        lambda: metrics.rmse([], []),
        lambda: metrics.gaussian_nll([0], [0], [0]),
        lambda: metrics.gaussian_nll([0, 0], [1], [0, 0]),
        lambda: metrics.crps_gaussian([0], [-1], [0]),
        lambda: metrics.crps_samples([[1.0]], [0]),
        lambda: metrics.crps_samples([[1.0, 2.0], [1.0, 2.0]], [0]),
        lambda: metrics.picp([1], [0], [0]),
        lambda: metrics.mpiw([1], [0]),
        lambda: metrics.interval_score([0], [1], [0], level=95),
        lambda: metrics.regression([0], [0], [0]),
        lambda: metrics.regression([0], [1], [0], level=1),
        lambda: metrics.risk_coverage([1, 2], [0]),
    ],
)
def test_bad_numbers_are_refused(call):
    with pytest.raises(BadInput) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 2
