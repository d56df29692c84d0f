"""R-Drop, multi-sample dropout and max-norm: their losses against numpy, and whole trainings, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, Dropout, MaxNorm, MultiSampleDropout, RDrop, StochasticDepth

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype("float32")
Y = RNG.integers(0, 3, 50)
WEIGHTS = RNG.uniform(0.5, 2, 50).astype("float32")


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def classifier(activation="softmax", rate=0.5, width=3, **options):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, "tanh", **options), Dropout(rate, seed=5), keras.layers.Dense(width, activation)]
    return keras.Sequential([keras.Input((6,)), *layers])


def two_passes(model):
    return numpy(model(X, training=True)), numpy(model(X, training=True))


def training_loss(model, x=X, y=Y, sample_weight=None):
    """The loss of one training step, as the trainer computes it."""
    sample_weight = None if sample_weight is None else ops.convert_to_tensor(sample_weight)
    return float(model.compute_loss(x, ops.convert_to_tensor(y), model(x, training=True), sample_weight, training=True))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(axis=-1)


# R-Drop


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_rdrop_loss_of_classes(from_logits, weights):
    activation = None if from_logits else "softmax"
    model = RDrop(classifier(activation), alpha=0.7, from_logits=from_logits)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits))
    p, q = two_passes(classifier(activation))
    p, q = (softmax(p), softmax(q)) if from_logits else (p, q)
    w = np.ones(50) if weights is None else weights
    rows = np.arange(50)
    expected = -(w * (np.log(p[rows, Y]) + np.log(q[rows, Y]))).mean() / 2 + 0.7 * (w * (kl(p, q) + kl(q, p))).mean() / 2
    assert training_loss(model, sample_weight=weights) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("from_logits", [False, True])
def test_rdrop_loss_of_labels(from_logits):
    activation = None if from_logits else "sigmoid"
    model = RDrop(classifier(activation), alpha=0.7, outputs="labels", from_logits=from_logits)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=from_logits))
    y = RNG.integers(0, 2, (50, 3)).astype("float32")
    p, q = two_passes(classifier(activation))
    p, q = (1 / (1 + np.exp(-p)), 1 / (1 + np.exp(-q))) if from_logits else (p, q)
    losses = [-(y * np.log(r) + (1 - y) * np.log(1 - r)).mean() for r in (p, q)]
    pair = [np.stack([r, 1 - r], axis=-1) for r in (p, q)]
    expected = sum(losses) / 2 + 0.7 * (kl(*pair) + kl(*pair[::-1])).mean() / 2
    assert training_loss(model, y=y) == pytest.approx(expected, rel=1e-4)


def test_rdrop_without_dropout_is_plain_training():
    plain, model = classifier(rate=0), RDrop(classifier(rate=0), alpha=100)
    for each in (plain, model):
        each.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        each.fit(X, Y, batch_size=20, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_rdrop_counts_regularisation_once():
    regularised = {"kernel_regularizer": keras.regularizers.L2(0.1), "activity_regularizer": keras.regularizers.L2(0.1)}
    plain, model = classifier(rate=0, **regularised), RDrop(classifier(rate=0, **regularised))
    for each in (plain, model):
        each.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    losses = [each.fit(X, Y, batch_size=50, verbose=0).history["loss"][0] for each in (plain, model)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_rdrop_gradient_goes_through_both_passes():
    """The step that `fit` takes, against finite differences of the loss with the same masks."""
    rate = 0.1

    def make():
        model = RDrop(classifier(), alpha=3.0)
        model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
        return model

    model = make()
    before = [w.copy() for w in model.get_weights()]
    model.fit(X, Y, batch_size=50, epochs=1, shuffle=False, verbose=0)
    directions = [RNG.normal(size=w.shape) for w in before]
    moved = sum(((new - old) * d).sum() for new, old, d in zip(model.get_weights(), before, directions))
    losses = []
    for step in (1e-2, -1e-2):
        shifted = make()
        shifted.set_weights([w + step * d for w, d in zip(before, directions)])
        losses.append(training_loss(shifted))
    assert -moved / rate == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=2e-2)


def test_rdrop_divergence_is_symmetric_and_not_negative():
    p, q = softmax(RNG.normal(size=(2, 40, 5))).astype("float32")
    divergence = RDrop(classifier()).divergence
    assert float(divergence(p, q)) == pytest.approx(float(divergence(q, p)), rel=1e-5)
    assert float(divergence(p, q)) == pytest.approx((kl(p, q) + kl(q, p)).mean() / 2, rel=1e-4)
    assert float(divergence(p, p)) == 0
    sure = np.eye(5, dtype="float32")
    assert np.isfinite(float(divergence(sure, sure[::-1].copy())))


def test_rdrop_sees_masks_that_a_batch_shares():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    branch = StochasticDepth(0.5, mode="batch", seed=3)(keras.layers.Dense(6)(inputs))
    model = RDrop(keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Add()([inputs, branch]))))
    passes = [(model(X, training=True), model(X, training=True)) for _ in range(10)]
    assert max(float(model.divergence(*pair)) for pair in passes) > 1e-3


def test_rdrop_leaves_padding_out():
    def make(rate):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Embedding(9, 4, mask_zero=True), Dropout(rate, seed=2), keras.layers.Dense(3, "softmax")]
        return keras.Sequential([keras.Input((4,), dtype="int32"), *layers])

    ids = np.array([[1, 2, 0, 0], [3, 4, 5, 0], [6, 7, 8, 1]])
    y = RNG.integers(0, 3, (3, 4))
    model = RDrop(make(0.5), alpha=2.0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    twin = make(0.5)
    p, q = numpy(twin(ids, training=True)), numpy(twin(ids, training=True))
    real = ids > 0
    loss = [-np.log(np.take_along_axis(r, y[..., None], -1))[..., 0][real].mean() for r in (p, q)]
    expected = sum(loss) / 2 + 2.0 * (kl(p, q) + kl(q, p))[real].mean() / 2
    assert training_loss(model, ids, y) == pytest.approx(expected, rel=1e-4)


def test_rdrop_is_the_model_outside_training(tmp_path):
    inner = classifier()
    model = RDrop(inner, alpha=0.5, name="twice")
    for each in (model, inner):
        each.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=16, epochs=2, sample_weight=WEIGHTS, validation_data=(X, Y), verbose=0).history
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(history)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), inner.evaluate(X, Y, verbose=0), rtol=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), inner.predict(X, verbose=0), rtol=1e-6)
    assert [w.path for w in model.weights] == [w.path for w in inner.weights]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (type(loaded), loaded.alpha, loaded.name) == (RDrop, 0.5, "twice")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)
    assert training_loss(loaded) == pytest.approx(training_loss(model), rel=1e-5)
    loaded.fit(X, Y, verbose=0)


BAD_RDROP = [
    (lambda: RDrop(keras.layers.Dense(2)), "model must be"),
    (lambda: RDrop(keras.Sequential([keras.layers.Dense(2)])), "must be a built"),
    (lambda: RDrop(classifier(), alpha=-1), "alpha must be"),
    (lambda: RDrop(classifier(), outputs="numbers"), "unknown outputs"),
    (lambda: RDrop(classifier(), from_logits=1), "from_logits must be"),
    (lambda: RDrop(classifier("sigmoid", width=1)).divergence(np.ones((2, 1)), np.ones((2, 1))), "needs two classes"),
]


@pytest.mark.parametrize(("call", "words"), BAD_RDROP, ids=lambda value: value if isinstance(value, str) else "")
def test_rdrop_refuses_in_two_lines(call, words):
    refused(call, words)


# multi-sample dropout


def parts(rate=0.5, samples=1, **options):
    keras.utils.set_random_seed(1)
    trunk, head = keras.layers.Dense(8, "tanh"), keras.layers.Dense(3, "softmax")
    model = MultiSampleDropout(rate, trunk, head, samples=samples, seed=5, **options)
    model.build((None, 6))
    return model


def compiled(model, rate=0.1):
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_one_sample_is_dropout():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, "tanh"), Dropout(0.5, seed=5), keras.layers.Dense(3, "softmax")]
    plain, model = compiled(keras.Sequential([keras.Input((6,)), *layers])), compiled(parts())
    np.testing.assert_allclose(numpy(model(X, training=True)), numpy(plain(X, training=True)), rtol=1e-5)
    logs = [each.fit(X, Y, batch_size=16, epochs=3, shuffle=False, sample_weight=WEIGHTS, verbose=0) for each in (plain, model)]
    for key, values in logs[0].history.items():
        np.testing.assert_allclose(logs[1].history[key], values, rtol=1e-4, err_msg=key)
    for ours, theirs in zip(model.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_the_losses_are_averaged_not_the_outputs(weights):
    samples = numpy(parts(samples=8)(X, training=True)).reshape(8, 50, 3)
    w = np.ones(50) if weights is None else weights
    losses = [-(w * np.log(p[np.arange(50), Y])).mean() for p in samples]
    model = compiled(parts(samples=8))
    assert training_loss(model, sample_weight=weights) == pytest.approx(np.mean(losses), rel=1e-4)
    averaged = -(w * np.log(samples.mean(axis=0)[np.arange(50), Y])).mean()
    assert averaged < 0.999 * np.mean(losses)


def test_each_sample_has_a_mask_of_its_own():
    keras.utils.set_random_seed(1)
    model = MultiSampleDropout(0.5, keras.layers.Identity(), keras.layers.Identity(), samples=8, seed=1)
    kept = numpy(model(np.ones((100, 40), "float32"), training=True)).reshape(8, -1) / 2
    assert set(np.unique(kept)) == {0, 1}
    agree = np.corrcoef(kept)[np.triu_indices(8, 1)]
    assert np.abs(agree).max() < 5 / np.sqrt(4000)


def test_metrics_are_of_all_samples_and_batches_may_be_short():
    model = compiled(parts(samples=4), rate=0.0)
    logs = model.fit(X, Y, batch_size=16, sample_weight=WEIGHTS, validation_data=(X, Y), shuffle=False, verbose=0).history
    twin = parts(samples=4)
    hits = [(numpy(twin(X[i : i + 16], training=True)).argmax(-1) == np.tile(Y[i : i + 16], 4)).mean() for i in range(0, 50, 16)]
    assert logs["accuracy"][0] == pytest.approx(np.average(hits, weights=[16, 16, 16, 2]), rel=1e-5)
    np.testing.assert_allclose([logs["val_loss"][0], logs["val_accuracy"][0]], model.evaluate(X, Y, verbose=0), rtol=1e-5)
    expected = numpy(model.head(model.trunk(X)))
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(numpy(model(X)), expected, rtol=1e-5)


def test_its_rate_can_change_between_fits():
    model = compiled(parts(rate=0.0, samples=2), rate=0.0)
    settings = {"batch_size": 50, "verbose": 0}
    plain = model.fit(X, Y, **settings).history["loss"][0]
    model.rate = 0.9
    assert model.rate == 0.9
    assert abs(model.fit(X, Y, **settings).history["loss"][0] - plain) > 0.01
    model.rate = 0
    assert model.fit(X, Y, **settings).history["loss"][0] == pytest.approx(plain, rel=1e-5)


def test_it_leaves_padding_out():
    def make(samples):
        keras.utils.set_random_seed(1)
        embedding, head = keras.layers.Embedding(9, 4, mask_zero=True), keras.layers.Dense(3, "softmax")
        return compiled(MultiSampleDropout(0.5, embedding, head, samples=samples, seed=4))

    ids = np.array([[1, 2, 0, 0], [3, 4, 5, 0], [6, 7, 8, 1]])
    y = RNG.integers(0, 3, (3, 4))
    p = numpy(make(3)(ids, training=True))
    loss = -np.log(np.take_along_axis(p, np.tile(y, (3, 1))[..., None], -1))[..., 0]
    assert training_loss(make(3), ids, y) == pytest.approx(loss[np.tile(ids > 0, (3, 1))].mean(), rel=1e-4)


def test_several_outputs_are_repeated_alike():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    head = keras.Model(inputs, {"class": keras.layers.Dense(3, "softmax", name="a")(inputs), "size": keras.layers.Dense(1)(inputs)})
    model = MultiSampleDropout(0.5, keras.layers.Dense(8), head, samples=3)
    model.compile("adam", {"class": "sparse_categorical_crossentropy", "size": "mse"})
    history = model.fit(X, {"class": Y, "size": X[:, :1]}, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_it_is_saved_and_goes_on(tmp_path):
    model = compiled(parts(rate=0.3, samples=3, name="many"))
    model.fit(X, Y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (type(loaded), loaded.rate, loaded.samples, loaded.name) == (MultiSampleDropout, 0.3, 3, "many")
    np.testing.assert_allclose(numpy(loaded(X, training=True)), numpy(model(X, training=True)), rtol=1e-5)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)
    loaded.fit(X, Y, verbose=0)


BAD_MULTI = [
    ((1.5, keras.layers.Dense(2), keras.layers.Dense(2)), {}, "got 1.5"),
    ((keras.layers.Dense(2), keras.layers.Dense(2), 0.5), {}, "head must be"),
    ((0.5, keras.layers.Dense(2), keras.layers.Dense(2)), {"samples": 0}, "samples must be"),
    ((0.5, keras.layers.Dense(2), keras.layers.Dense(2)), {"seed": 0.5}, "seed must be"),
]


@pytest.mark.parametrize(("arguments", "options", "words"), BAD_MULTI, ids=[words for *_, words in BAD_MULTI])
def test_multi_sample_refuses_in_two_lines(arguments, options, words):
    refused(lambda: MultiSampleDropout(*arguments, **options), words)


# max-norm


KERNELS = {"dense": ((30, 7), -1), "convolution": ((3, 3, 4, 5), -1), "depthwise": ((3, 3, 4, 2), (-2, -1))}


def norms(kernel, units):
    units = {axis % kernel.ndim for axis in np.atleast_1d(units)}
    return np.sqrt((kernel.astype("float64") ** 2).sum(axis=tuple(a for a in range(kernel.ndim) if a not in units)))


@pytest.mark.parametrize("name", KERNELS)
def test_norms_are_bounded_and_what_is_inside_is_not_touched(name):
    shape, units = KERNELS[name]
    kernel = RNG.normal(size=shape).astype("float32")
    limit = float(np.median(norms(kernel, units)))
    bounded = ops.convert_to_numpy(MaxNorm(limit, units=units)(kernel))
    before, after = norms(kernel, units), norms(bounded, units)
    np.testing.assert_allclose(after, np.minimum(before, limit), rtol=1e-5)
    inside = np.broadcast_to(before < limit, kernel.shape)
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(bounded[inside], kernel[inside])
    np.testing.assert_array_equal(numpy(MaxNorm(limit, units=units)(0 * kernel)), 0)


def test_keras_max_norm_leaves_filters_above_the_limit():
    kernel = RNG.normal(size=(3, 3, 4, 5)).astype("float32")
    assert norms(ops.convert_to_numpy(keras.constraints.MaxNorm(1.0)(kernel)), -1).min() > 2
    assert norms(ops.convert_to_numpy(MaxNorm(1.0)(kernel)), -1).max() < 1 + 1e-5
    dense = kernel.reshape(-1, 5)
    np.testing.assert_allclose(numpy(MaxNorm(1.0)(dense)), numpy(keras.constraints.MaxNorm(1.0)(dense)), rtol=1e-5)


def test_max_norm_in_training_and_in_a_saved_model(tmp_path):
    keras.utils.set_random_seed(1)
    large = {"kernel_initializer": keras.initializers.RandomNormal(stddev=5)}
    layers = [
        keras.layers.Conv2D(4, 3, kernel_constraint=MaxNorm(1.5), **large),
        keras.layers.Flatten(),
        keras.layers.Dense(3, "softmax", kernel_constraint=MaxNorm(0.8), **large),
    ]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    model.fit(RNG.normal(size=(50, 6, 6, 1)), Y, batch_size=50, verbose=0)
    for layer, limit in ((layers[0], 1.5), (layers[2], 0.8)):
        np.testing.assert_allclose(norms(ops.convert_to_numpy(layer.kernel), -1), limit, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    constraint = keras.saving.load_model(tmp_path / "model.keras").layers[0].kernel_constraint
    assert (type(constraint), constraint.limit, constraint.units) == (MaxNorm, 1.5, (-1,))


def test_max_norm_of_half_precision_does_not_overflow():
    bounded = MaxNorm(3.0)(ops.full((4, 2), 300.0, dtype="float16"))
    assert keras.backend.standardize_dtype(bounded.dtype) == "float16"
    np.testing.assert_allclose(norms(ops.convert_to_numpy(bounded), -1), 3, rtol=1e-3)


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"limit": "3"}, {"units": 1.5}, {"units": ()}, {"units": (True,)}], ids=str)
def test_max_norm_refuses_in_two_lines(arguments):
    refused(lambda: MaxNorm(**arguments), "MaxNorm: ")


def refused(call, words):
    with pytest.raises(BadInput) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" in str(caught.value)
