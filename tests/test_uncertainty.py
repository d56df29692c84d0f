"""Monte-Carlo dropout: what `predict` says of its passes is what numpy says of the same ones, and the laws of uncertainty hold."""

import tracemalloc

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import expit, logsumexp, softmax
from scipy.stats import norm

import keras_dropout
from keras_dropout import BadInput, Dropout, MultiSampleDropout, RDrop, uncertainty
from keras_dropout.sampling import Passes
from keras_dropout.uncertainty import find_outputs, fit_precision, log_likelihood, model_precision, predict

JAX = keras.backend.backend() == "jax"
rng = np.random.default_rng(0)
X = rng.normal(size=(30, 8)).astype("float32")


def network(units, activation=None, dropout=Dropout, scale=2.0, shape=(8,)):
    """Two layers with dropout between them, and weights that make the passes differ."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Dense(20, "relu", name="hidden"),
            dropout(0.4),
            keras.layers.Dense(units, activation, name="out"),
        ]
    )
    draw = np.random.default_rng(units)
    for weight in model.weights:
        weight.assign(draw.normal(0, scale / np.sqrt(weight.shape[0]), weight.shape))
    return model


def raw_passes(model, x=X, samples=20, seed=0, **options):
    """(samples, examples, …), in double precision."""
    pieces: dict[int, list] = {}
    for rows, _, found in Passes(model, seed=seed).run(x, samples, **options):
        pieces.setdefault(rows.start, []).append(found["outputs"])
    return np.concatenate([np.concatenate(groups) for groups in pieces.values()], axis=1).astype(float)


def plogp(p):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)


def entropy_of_classes(p):
    return -plogp(p).sum(-1)


def entropy_of_labels(p):
    return -(plogp(p) + plogp(1 - p)).sum(-1)


def check_against(found, passes, entropy=None, *, atol=2e-5):
    assert found.samples == len(passes)
    np.testing.assert_allclose(found.mean, passes.mean(0), atol=atol)
    np.testing.assert_allclose(found.variance, passes.var(0), atol=atol)
    if entropy is None:
        assert (found.entropy, found.expected_entropy, found.mutual_information) == (None, None, None)
        return
    total, expected = entropy(passes.mean(0)), entropy(passes).mean(0)
    np.testing.assert_allclose(found.entropy, total, atol=atol)
    np.testing.assert_allclose(found.expected_entropy, expected, atol=atol)
    np.testing.assert_allclose(found.mutual_information, total - expected, atol=2 * atol)


# 205 samples are three calls of the program, of 69, 68 and 68.
@pytest.mark.parametrize("samples", [1, 20, 205])
@pytest.mark.parametrize("logits", [False, True], ids=["softmax", "logits"])
def test_classes(samples, logits):
    model = network(4, None if logits else "softmax")
    passes = raw_passes(model, samples=samples, seed=3)
    passes = softmax(passes, axis=-1) if logits else passes
    found = predict(model, X, samples, seed=3, logits=logits)
    assert found.outputs == "classes"
    check_against(found, passes, entropy_of_classes)
    votes = (passes.argmax(-1)[..., None] == np.arange(4)).sum(0)
    np.testing.assert_allclose(found.variation_ratio, 1 - votes.max(-1) / samples, atol=1e-6)
    if samples > 1:
        assert found.mutual_information.max() > 0.05
        assert found.variation_ratio.max() > 0.1


@pytest.mark.parametrize("samples", [20, 205])
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("logits", [False, True], ids=["sigmoid", "logits"])
def test_labels(samples, labels, logits):
    model = network(labels, None if logits else "sigmoid")
    passes = raw_passes(model, samples=samples)
    passes = expit(passes) if logits else passes
    found = predict(model, X, samples, outputs="labels", logits=logits)
    assert found.outputs == "labels"
    check_against(found, passes, entropy_of_labels)
    assert found.variation_ratio is None
    assert found.mutual_information.max() > 0.05


@pytest.mark.parametrize("samples", [1, 20, 205])
def test_values(samples):
    model = network(2)
    found = predict(model, 3 * X, samples)
    assert found.outputs == "values"
    check_against(found, raw_passes(model, 3 * X, samples), atol=1e-4)
    assert np.array_equal(found.predictive_variance, found.variance)
    known = predict(model, 3 * X, samples, precision=4.0)
    np.testing.assert_allclose(known.predictive_variance, found.variance + 0.25, rtol=1e-6)


def test_values_far_from_zero_keep_their_variance():
    """Sums of squares would lose it: at 10,000 a float32 has three digits behind the point."""
    model = network(1, scale=1.0)
    model.get_layer("out").bias.assign([10_000.0])
    passes = raw_passes(model, samples=205)
    found = predict(model, X, 205)
    np.testing.assert_allclose(found.variance, passes.var(0), rtol=1e-2, atol=1e-5)


def test_quantiles():
    model, levels = network(3, "softmax"), (0.05, 0.5, 1)
    passes = raw_passes(model, samples=205)
    found = predict(model, X, 205, quantiles=levels)
    assert list(found.quantiles) == [0.05, 0.5, 1.0]
    for level in levels:
        np.testing.assert_allclose(found.quantiles[level], np.quantile(passes, level, axis=0), atol=1e-5)
    check_against(found, passes, entropy_of_classes)


def test_dense_outputs():
    model = network(3, "softmax", shape=(5, 8))
    x = rng.normal(size=(11, 5, 8)).astype("float32")
    passes = raw_passes(model, x, 120)
    found = predict(model, x, 120, quantiles=[0.9])
    assert found.mean.shape == (11, 5, 3)
    assert found.mutual_information.shape == found.variation_ratio.shape == (11, 5)
    check_against(found, passes, entropy_of_classes)
    np.testing.assert_allclose(found.quantiles[0.9], np.quantile(passes, 0.9, axis=0), atol=1e-5)
    y = rng.normal(size=(11, 5, 3))
    values = predict(model, x, 120, outputs="values", y=y, precision=2.0)
    each = norm.logpdf(y, passes, np.sqrt(1 / 2.0)).sum((-1, -2))
    np.testing.assert_allclose(values.log_likelihood, logsumexp(each, axis=0) - np.log(120), atol=1e-3)


@pytest.mark.parametrize("scale", [0.1, 2.0, 50.0], ids=["flat", "usual", "saturated"])
@pytest.mark.parametrize("outputs", ["classes", "labels"])
def test_laws(scale, outputs):
    """0 <= MI <= H(mean) <= log K; the variance of a probability is at most mean (1 - mean); a committee beats its members."""
    model = network(4, "softmax" if outputs == "classes" else "sigmoid", scale=scale)
    found = predict(model, X, 150, outputs=outputs)
    assert (found.mutual_information >= 0).all()
    assert (found.mutual_information <= found.entropy + 1e-6).all()
    assert (found.entropy <= (np.log(4) if outputs == "classes" else 4 * np.log(2)) + 1e-5).all()
    assert (found.variance <= found.mean * (1 - found.mean) + 1e-6).all()
    passes = raw_passes(model, samples=150)
    if outputs == "classes":
        assert ((found.variation_ratio >= 0) & (found.variation_ratio <= 0.75)).all()
        y = rng.integers(0, 4, len(X))
        each = passes[:, np.arange(len(X)), y].clip(1e-12)
        assert (-np.log(each.mean(0)) <= -np.log(each).mean(0) + 1e-9).all()  # Jensen
        np.testing.assert_allclose(found.mean[np.arange(len(X)), y], each.mean(0), atol=2e-5)


def test_total_variance():
    """Of answers that have the noise's variance about each pass: within the passes and between them, as the law says."""
    model, precision = network(1), 4.0
    passes = raw_passes(model, samples=100)
    found = predict(model, X, 100, precision=precision)
    draws = passes + np.random.default_rng(1).normal(0, precision**-0.5, (4000, *passes.shape))
    np.testing.assert_allclose(found.predictive_variance, draws.var((0, 1)), rtol=0.02)


def test_the_same_whatever_the_batch_and_another_for_another_seed():
    model, x = network(3, "softmax"), np.tile(X, (10, 1))
    whole = predict(model, x, 30, quantiles=[0.5])
    for again in (
        predict(model, x, 30, quantiles=[0.5]),
        predict(model, x, 30, batch_size=7),
        predict(model, x, 30, batch_size=299),
    ):
        for name in ("mean", "variance", "entropy", "mutual_information", "variation_ratio"):
            np.testing.assert_allclose(getattr(again, name), getattr(whole, name), atol=2e-6)
    assert np.abs(predict(model, x, 30, seed=1).mean - whole.mean).max() > 0.01


def test_nothing_in_the_model_changes():
    model = network(3, "softmax", keras.layers.Dropout)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [ops.convert_to_numpy(v).copy() for v in model.variables]
    assert predict(model, X, 120).mean.shape == (len(X), 3)
    assert all(np.array_equal(v, ops.convert_to_numpy(w)) for v, w in zip(before, model.variables))


def test_what_is_held_does_not_grow_with_the_samples():
    """Numpy's peak is as high with twice the samples; where quantiles need all passes it is not, and that is seen."""
    model = network(300, "softmax")
    further = 200 * len(X) * 300 * 4  # bytes of the passes that 400 samples have and 200 do not

    def growth(**options):
        peaks = []
        for samples in (200, 400):
            predict(model, X, samples, **options)  # compiles
            tracemalloc.start()
            predict(model, X, samples, **options)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        return peaks[1] - peaks[0]

    assert growth() < further / 20
    assert growth(quantiles=[0.5]) > further / 2


class Counted(keras.layers.Layer):
    """Does nothing, and counts how often Python runs through it: when a program is traced."""

    calls = 0

    def call(self, inputs):
        Counted.calls += 1
        return inputs


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch calls the layers themselves, there is nothing to trace")
@pytest.mark.parametrize("behind", [True, False], ids=["behind", "before"])
def test_a_repeated_call_compiles_nothing(behind):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(5)(inputs)
    x = Counted()(Dropout(0.5)(x)) if behind else Dropout(0.5)(Counted()(x))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    first = predict(model, X, 205)
    assert Counted.calls
    before = Counted.calls
    predict(model, X, 205)
    predict(model, X[::-1].copy(), 205, seed=7)
    model.set_weights([2 * w for w in model.get_weights()])
    keras_dropout.set_rate(model, 0.2)
    changed = predict(model, X, 205)
    assert Counted.calls == before
    assert not np.allclose(first.mean, changed.mean)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "bfloat16"])
def test_models_of_less_precision(dtype):
    """As in float32 to the digits that the type has; results are float32."""
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(dtype)
        model = network(3, "softmax")
    finally:
        keras.config.set_dtype_policy(policy)
    found = predict(model, X, 150)
    assert (found.outputs, found.mean.dtype) == ("classes", np.float32)
    assert np.isfinite(found.entropy).all()
    same = network(3, "softmax")
    same.set_weights([np.asarray(w, "float32") for w in model.get_weights()])
    check_against(found, raw_passes(same, samples=150), entropy_of_classes, atol=0.05)
    assert (found.mutual_information <= found.entropy).all()


# Regression


def test_log_likelihood():
    for shape in [(), (1,), (3,), (2, 3)]:
        passes, y = rng.normal(size=(40, 7, *shape)), rng.normal(size=(7, *shape))
        each = norm.logpdf(y, passes, np.sqrt(1 / 2.5)).reshape(40, 7, -1).sum(-1)
        np.testing.assert_allclose(log_likelihood(passes, y, 2.5), logsumexp(each, axis=0) - np.log(40), atol=1e-9)
    assert np.isfinite(log_likelihood(np.zeros((2, 1, 1)), np.full((1, 1), 1e4), 10.0)).all()  # its density is 0 as a float


def test_log_likelihood_of_predictions():
    model = network(1)
    y = rng.normal(size=30)
    passes = raw_passes(model, samples=205)
    found = predict(model, X, 205, y=y, precision=0.5)
    np.testing.assert_allclose(found.log_likelihood, log_likelihood(passes, y[:, None], 0.5), atol=1e-4)
    assert np.array_equal(predict(model, X, 205, y=y[:, None], precision=0.5).log_likelihood, found.log_likelihood)


def test_a_known_noise_is_found():
    """Each answer is one of the model's own functions plus noise. A precision's relative standard error is sqrt(2 / n)."""
    model = network(1, scale=0.3)
    x = rng.normal(size=(2000, 8)).astype("float32")
    function = raw_passes(model, x, 1, seed=99)[0]
    for precision in (0.25, 4.0):
        y = function + rng.normal(0, precision**-0.5, function.shape)
        found = fit_precision(model, x, y, 200)
        # 200 passes stand for the integral over all, which widens the error.
        assert abs(np.log(found / precision)) < 6 * np.sqrt(2 / 2000)


def test_the_precision_is_the_likeliest():
    model = network(2)
    y = rng.normal(size=(30, 2)) * 3
    found = fit_precision(model, X, y, 50, seed=2)
    passes = raw_passes(model, samples=50, seed=2)
    best = log_likelihood(passes, y, found).mean()
    grid = found * np.exp(np.linspace(-12, 12, 4001))
    assert best >= max(log_likelihood(passes, y, each).mean() for each in grid) - 1e-6
    assert best == pytest.approx(predict(model, X, 50, seed=2, y=y, precision=found).log_likelihood.mean(), abs=1e-4)


def test_many_answers_are_fitted_in_the_room_there_is(monkeypatch):
    monkeypatch.setattr(uncertainty, "_ROOM", 50 * 10)
    model, y = network(1), rng.normal(size=(30, 1))
    chosen = np.unique(np.linspace(0, 29, 10).astype(int))
    whole = fit_precision(model, X, y, 50)
    # Masks go by the place among the chosen, so that this is fitting those alone.
    assert whole == pytest.approx(fit_precision(model, X[chosen], y[chosen], 50), rel=1e-6)


def test_the_precision_that_training_implies():
    # Gal and Ghahramani 2016, equation 7: p l^2 / (2 N lambda), p the probability to be kept.
    assert model_precision(0.2, 0.5, 1000, 1e-4) == pytest.approx(0.8 * 0.25 / (2 * 1000 * 1e-4))
    assert model_precision(1, 1.0, 10, 0.1) == 0
    for arguments in [(1.5, 1.0, 10, 0.1), (0.5, 0, 10, 0.1), (0.5, 1.0, 0, 0.1), (0.5, 1.0, 10, -1)]:
        with pytest.raises(BadInput):
            model_precision(*arguments)


# What the outputs are

MANY, ONE = np.full((4, 3), 1 / 3, "float32"), np.full((4, 1), 0.3, "float32")
FAR = np.array([[-3.0, 7.0, 1.0]], "float32")


@pytest.mark.parametrize(
    ("loss", "shown", "expected"),
    [
        ("sparse_categorical_crossentropy", MANY, ("classes", False)),
        ("SparseCategoricalCrossentropy", MANY, ("classes", False)),
        (keras.losses.CategoricalCrossentropy(), MANY, ("classes", False)),
        (keras.losses.CategoricalCrossentropy(name="mine"), MANY, ("classes", False)),
        (keras.losses.categorical_crossentropy, MANY, ("classes", False)),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), FAR, ("classes", True)),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="mine"), FAR, ("classes", True)),
        ("binary_crossentropy", MANY, ("labels", False)),
        ("bce", ONE, ("labels", False)),
        ("binary_focal_crossentropy", ONE, ("labels", False)),
        (keras.losses.BinaryCrossentropy(from_logits=True), FAR, ("labels", True)),
        (keras.losses.BinaryCrossentropy(from_logits=True, name="mine"), FAR, ("labels", True)),
        ("mse", ONE, ("values", False)),
        ("mse", FAR, ("values", False)),
        (keras.losses.MeanSquaredError(), FAR, ("values", False)),
        (None, MANY, ("classes", False)),
        (None, ONE, ("values", False)),
        (None, FAR, ("values", False)),
    ],
)
def test_what_outputs_are_by_the_loss_or_the_look(loss, shown, expected):
    model = network(shown.shape[-1])
    model.compile("sgd", loss)
    assert find_outputs(model, lambda: shown) == expected


def test_what_outputs_are_as_told():
    model = network(3)
    for shown, options, expected in [
        (FAR, {"logits": True}, ("classes", True)),
        (FAR[:, :1], {"logits": True}, ("labels", True)),
        (FAR, {"outputs": "labels", "logits": True}, ("labels", True)),
        (FAR, {"outputs": "values", "logits": True}, ("values", False)),
        (MANY, {"outputs": "labels"}, ("labels", False)),
        (ONE, {"outputs": "labels"}, ("labels", False)),
        (MANY, {"outputs": "values"}, ("values", False)),
    ]:
        assert find_outputs(model, lambda shown=shown: shown, **options) == expected
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert find_outputs(model, lambda: MANY, logits=False) == ("classes", False)


def test_the_loss_of_what_trains_in_a_special_way_is_seen():
    inner = network(3)
    trunk, head = (
        keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, "relu")]),
        keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]),
    )
    for model in (RDrop(inner, from_logits=True), MultiSampleDropout(0.5, trunk, head)):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        found = predict(model, X, 5)
        assert found.outputs == "classes"
        np.testing.assert_allclose(found.mean.sum(-1), 1, atol=1e-5)


def test_what_is_asked_wrongly_is_refused():
    classes, values, far = network(3, "softmax"), network(1), network(3)
    far.compile("sgd", "sparse_categorical_crossentropy")
    inputs = keras.Input((8,))
    two = keras.Model(inputs, [Dropout(0.5)(inputs), keras.layers.Dense(1)(inputs)])
    y = np.zeros(30)
    for ask, message in [
        (lambda: predict(classes, X, 0), "samples must be a whole number of at least 1"),
        (lambda: predict(classes, X, 2.5), "samples must be a whole number"),
        (lambda: predict(far, X, 2), r"no probabilities: they lie between .*\n.*--logits"),
        (lambda: predict(values, X, 2, outputs="labels"), "no probabilities"),
        (lambda: predict(classes, X, 2, outputs="regression"), "unknown outputs 'regression'"),
        (lambda: predict(classes, X, 2, logits=1), "logits must be True or False"),
        (lambda: predict(values, X, 2, y=y), "needs the precision"),
        (lambda: predict(classes, X, 2, precision=1.0), "the outputs are classes"),
        (lambda: predict(classes, X, 2, y=np.zeros((30, 3)), precision=1.0), "the outputs are classes"),
        (lambda: predict(values, X, 2, precision=0), "precision must be a number above 0"),
        (lambda: predict(values, X, 2, precision=float("nan")), "precision must be a number above 0"),
        (lambda: predict(values, X, 2, y=y[:-1], precision=1.0), r"y must have shape \(30, 1\).*got \(29,\)"),
        (lambda: predict(values, X, 2, y=np.zeros((30, 2)), precision=1.0), r"got \(30, 2\)"),
        (lambda: predict(values, X, 2, y=["a"] * 30, precision=1.0), "y must be numbers"),
        (lambda: predict(values, X, 2, y=np.full(30, np.nan), precision=1.0), "y must be numbers"),
        (lambda: fit_precision(values, X, np.zeros((30, 4)), 2), "y must have shape"),
        (lambda: fit_precision(values, X, np.full(30, np.inf), 2), "y must be numbers"),
        (lambda: fit_precision(values, X, y, 0), "samples must be"),
        (lambda: predict(classes, X, 2, quantiles=[2]), "level must lie between 0 and 1"),
        (lambda: predict(classes, X, 2, quantiles=["low"]), "level must lie between 0 and 1"),
        (lambda: predict(classes, X, 2, quantiles=[True]), "level must lie between 0 and 1"),
        (lambda: predict(classes, X, 2, quantiles=[float("nan")]), "level must lie between 0 and 1"),
        (lambda: predict(classes, X, 2, quantiles=0.5), "quantiles"),
        (lambda: predict(values, X, 2, outputs="classes"), "two classes or more"),
        (lambda: predict(network(2), X, 2, outputs="classes"), "no probabilities"),
        (lambda: predict(two, X, 2), "has 2 outputs"),
        (lambda: predict("model.keras", X, 2), "expected a Keras model"),
        (lambda: predict(classes, X[:, :3], 2), "takes examples of shape"),
    ]:
        with pytest.raises(BadInput, match=message):
            ask()


def test_as_a_table_and_a_sentence():
    pandas = pytest.importorskip("pandas")
    found = predict(network(3, "softmax"), X, 20, quantiles=[0.05])
    table = found.to_frame()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == 30
    assert np.array_equal(table["class"], found.mean.argmax(-1))
    np.testing.assert_allclose(table["mutual_information"], found.mutual_information)
    assert "20 samples of 30 examples" in str(found)
    values = predict(network(1), X, 20, precision=1.0, y=np.zeros(30)).to_frame()
    np.testing.assert_allclose(values["sd"] ** 2, predict(network(1), X, 20).variance[:, 0] + 1, rtol=1e-5)
    dense = predict(network(3, "softmax", shape=(5, 8)), np.zeros((4, 5, 8), "float32"), 5).to_frame()
    assert len(dense) == 4


class Rounding(keras.layers.Layer):
    """Draws, and gives what it got but for the last digit."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        return inputs * (1 + 1e-7 * keras.random.uniform(ops.shape(inputs), seed=self.seeds))


def test_samples_that_differ_by_rounding_are_the_same():
    model = keras.Sequential([keras.Input((8,)), Rounding(name="hardly"), keras.layers.Dense(1)])
    with pytest.warns(UserWarning, match="All 5 samples are the same: what hardly drops does not reach the outputs") as found:
        assert 0 < predict(model, X, 5).variance.max() < 1e-10
    assert __file__ in [each.filename for each in found]


def halves(passes):
    return passes[..., : passes.shape[-1] // 2], passes[..., passes.shape[-1] // 2 :]


@pytest.mark.parametrize("units", [2, 6])
def test_a_variance_head(units):
    """Var[mean] + E[exp s], the likelihood of a mixture and its quantiles, as SciPy has them."""
    model = network(units)
    y = rng.normal(size=(30, units // 2))
    means, log_variances = halves(raw_passes(model, samples=205))
    levels = [0.025, 0.5, 0.9]
    found = predict(model, X, 205, y=y, outputs="gaussian", quantiles=levels)
    np.testing.assert_allclose(found.mean, means.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.variance, means.var(0), rtol=1e-3)
    np.testing.assert_allclose(found.noise_variance, np.exp(log_variances).mean(0), rtol=1e-3)
    np.testing.assert_allclose(found.predictive_variance, means.var(0) + np.exp(log_variances).mean(0), rtol=1e-3)
    sd = np.exp(log_variances / 2)
    each = norm.logpdf(y, means, sd).sum(-1)
    np.testing.assert_allclose(found.log_likelihood, logsumexp(each, axis=0) - np.log(205), atol=1e-3)
    for level in levels:
        np.testing.assert_allclose(norm.cdf(found.quantiles[level], means, sd).mean(0), level, atol=1e-4)
    plain = predict(model, X, 205, outputs="gaussian")  # without what keeps all passes
    np.testing.assert_allclose(plain.predictive_variance, found.predictive_variance, rtol=1e-5)
    assert "predictive variance" in str(found)
    assert found.to_frame()["sd"].to_numpy() == pytest.approx(np.sqrt(found.predictive_variance).mean(-1), rel=1e-5)


def test_a_variance_head_with_one_noise_is_a_precision():
    """A head that gives the same variance everywhere says what a precision says; the quantiles of its ends have no bounds."""
    body = network(1)
    out = keras.layers.Concatenate()([body.outputs[0], body.outputs[0] * 0 + np.log(0.25).astype("float32")])
    model = keras.Model(body.inputs, out)
    y = rng.normal(size=30)
    head = predict(model, X, 50, y=y, outputs="gaussian", quantiles=[0, 1])
    fixed = predict(body, X, 50, y=y, precision=4.0)
    np.testing.assert_allclose(head.log_likelihood, fixed.log_likelihood, rtol=1e-4)
    np.testing.assert_allclose(head.predictive_variance, fixed.predictive_variance, rtol=1e-4)
    assert np.isneginf(head.quantiles[0]).all()
    assert np.isposinf(head.quantiles[1]).all()


OF_A_HEAD = {
    "an odd number of outputs": (3, {}, "an even number of outputs; got 3"),
    "a precision, too": (2, {"precision": 2.0}, "gives the variance of the noise itself"),
    "logits": (2, {"logits": True}, "logits are of classes"),
    "answers of two": (2, {"y": np.zeros((30, 2))}, r"y must have shape \(30, 1\)"),
}


@pytest.mark.parametrize("case", OF_A_HEAD)
def test_what_does_not_go_with_a_variance_head_is_refused(case):
    units, options, said = OF_A_HEAD[case]
    with pytest.raises(BadInput, match=said):
        predict(network(units), X, 5, outputs="gaussian", **options)


def test_a_head_that_is_no_logarithm_is_refused_and_one_that_is_not_named_is_pointed_at():
    with pytest.raises(BadInput, match="is not finite"):
        predict(network(2, scale=300.0), X, 5, outputs="gaussian")
    with pytest.raises(BadInput, match='a mean and a log-variance, say outputs="gaussian"'):
        predict(network(2), X, 5, y=np.zeros(30), precision=1.0)
