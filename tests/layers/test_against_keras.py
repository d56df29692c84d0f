"""What a drop-in must do better than Keras's own layers: each test shows Keras 3.15 failing, where it does, and ours not.

Where a failure is Keras's on some backends only, the test says which.
"""

import itertools

import keras
import numpy as np
import pytest
from keras import layers as theirs
from keras import ops

import keras_dropout as ours
from keras_dropout import BadInput

BACKEND = keras.backend.backend()
SHAPES = {
    "Dropout": (64, 5, 16),
    "GaussianDropout": (64, 5, 16),
    "AlphaDropout": (64, 5, 16),
    "SpatialDropout1D": (64, 5, 16),
    "SpatialDropout2D": (64, 3, 2, 16),
    "SpatialDropout3D": (64, 2, 3, 2, 16),
}
SPATIAL = [name for name in SHAPES if name.startswith("Spatial")]
ONE_IS_REFUSED = ["GaussianDropout", "AlphaDropout"]
every_layer = pytest.mark.parametrize("name", SHAPES)
both = pytest.mark.parametrize("library", [theirs, ours], ids=["keras", "ours"])


def numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def ones(name):
    return np.ones(SHAPES[name], "float32")


def train(layer, name):
    return numpy(layer(ones(name), training=True))


def shared_axes(y):
    return [axis for axis in range(y.ndim) if (y == y.take([0], axis)).all()]


# The same arguments.

ARGUMENTS = {
    "Dropout": [(0.4, (None, 1, None), 3), (np.float32(0.25),), (0.4, None, None)],
    "GaussianDropout": [(0.4, 3), (0,)],
    "AlphaDropout": [(0.4, (None, 1, None), 3), (0.4, None, None)],
    "SpatialDropout1D": [(0.4, 3, "its_name", "mixed_bfloat16"), (1,)],
    "SpatialDropout2D": [(0.4, "channels_first", 3, "its_name", "mixed_bfloat16"), (0.4, "Channels_Last")],
    "SpatialDropout3D": [(0.4, "channels_first", 3, "its_name", "mixed_bfloat16"), (0.4, "channels_last")],
}
ALL_ARGUMENTS = [(name, values) for name, several in ARGUMENTS.items() for values in several]


@pytest.mark.parametrize(("name", "values"), ALL_ARGUMENTS)
def test_arguments_mean_the_same_in_the_same_order(name, values):
    mine, other = getattr(ours, name)(*values), getattr(theirs, name)(*values)
    for attribute in ("seed", "noise_shape", "data_format"):
        if hasattr(other, attribute) and hasattr(mine, attribute):
            assert getattr(mine, attribute) == getattr(other, attribute), attribute
    assert mine.rate == pytest.approx(other.rate)
    assert mine.dtype_policy.name == other.dtype_policy.name
    if "its_name" in values:
        assert mine.name == "its_name"


@every_layer
def test_a_config_of_keras_makes_ours(name):
    other = getattr(theirs, name)(0.3, seed=5, name="d", dtype="float16")
    mine = getattr(ours, name).from_config(other.get_config())
    assert (mine.rate, mine.seed, mine.name, mine.compute_dtype) == (0.3, 5, "d", "float16")


@every_layer
def test_what_every_layer_of_keras_accepts(name):
    layer = getattr(ours, name)(0.3, seed=1, name="d", dtype="bfloat16", trainable=False)
    assert (layer.name, layer.compute_dtype, layer.trainable) == ("d", "bfloat16", False)


@both
@pytest.mark.parametrize("name", ["Dropout", "AlphaDropout"])
@pytest.mark.parametrize(
    ("noise_shape", "shared"),
    [
        ((None, 1, None), [1]),
        ([None, 1, 16], [1]),
        ((64, None, 1), [2]),
        ((None, None, None), []),
        ((1, 1, 1), [0, 1, 2]),
        ((16,), [0, 1]),  # leading axes that are left out are shared
        ((5, 1), [0, 2]),
        ((), [0, 1, 2]),
        (range(1, 2), [0, 1, 2]),  # whatever can be iterated
    ],
    ids=str,
)
def test_noise_shape(library, name, noise_shape, shared):
    layer = getattr(library, name)(0.5, noise_shape=noise_shape, seed=1)
    assert shared_axes(train(layer, name)) == shared


@pytest.mark.parametrize("noise_shape", [(2, 1, 16), (1, 64, 5, 16)], ids=str)
def test_a_noise_shape_that_does_not_broadcast_is_refused(noise_shape):
    with pytest.raises(Exception, match=r"broadcast|incompatible|size|shape"):
        theirs.Dropout(0.5, noise_shape=(2, 1, 16))(ones("Dropout"), training=True)
    with pytest.raises(BadInput, match="does not broadcast"):
        ours.Dropout(0.5, noise_shape=noise_shape)(ones("Dropout"), training=True)


@both
@pytest.mark.parametrize("noise_shape", ["abc", (0, 1), (-1,), (1.5,), 3], ids=str)
def test_a_noise_shape_that_is_none_is_refused(library, noise_shape):
    with pytest.raises(ValueError, match="noise_shape"):
        library.Dropout(0.5, noise_shape=noise_shape)


@both
@pytest.mark.parametrize(("name", "rank"), list(zip(SPATIAL, (4, 3, 3))))
def test_a_wrong_rank_is_refused_when_a_model_is_made(library, name, rank):
    with pytest.raises(ValueError, match=r"ndim=|rank"):
        getattr(library, name)(0.5)(keras.Input((4,) * (rank - 1)))


# Rate 1, and rates that change.


@both
@pytest.mark.parametrize("name", [name for name in SHAPES if name not in ONE_IS_REFUSED])
def test_rate_one_gives_zeros(library, name):
    assert not train(getattr(library, name)(1.0, seed=0), name).any()


@pytest.mark.parametrize("name", ONE_IS_REFUSED)
def test_rate_one_is_refused_where_it_has_no_meaning(name):
    other = getattr(theirs, name)(1.0)  # accepted, and then
    with pytest.raises(ZeroDivisionError):
        train(other, name)
    with pytest.raises(BadInput, match=r"\[0, 1\)"):
        getattr(ours, name)(1.0)
    layer = getattr(ours, name)(0.5)
    with pytest.raises(BadInput, match=r"\[0, 1\)"):
        layer.rate = 1
    assert layer.rate == 0.5


@every_layer
def test_a_layer_made_with_rate_zero_can_be_raised(name):
    other, mine = (getattr(library, name)(0.0, seed=0) for library in (theirs, ours))
    for layer in (other, mine):
        np.testing.assert_array_equal(train(layer, name), ones(name))
        layer.rate = 0.5
    with pytest.raises(AttributeError, match="seed_generator"):
        train(other, name)
    assert not np.array_equal(train(mine, name), ones(name))


def loss_by_rate(library, name):
    """A layer and a function that trains an epoch of one step and returns the mean square of what the layer adds to ones."""
    layer = getattr(library, name)(0.2, seed=0)
    inputs = keras.Input(SHAPES[name][1:])
    model = keras.Model(inputs, layer(inputs) + 0 * keras.layers.Dense(16)(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((512, *SHAPES[name][1:]), "float32")
    return layer, lambda: model.fit(x, x, batch_size=512, verbose=0).history["loss"][0]


def expected_loss(name, rate):
    if name == "AlphaDropout":
        saturation = -1.7580993408473766
        a = ((1 - rate) * (1 + rate * saturation**2)) ** -0.5
        b = -a * rate * saturation
        return (1 - rate) * (a + b - 1) ** 2 + rate * (a * saturation + b - 1) ** 2
    return rate / (1 - rate)


@every_layer
def test_a_rate_changed_between_steps_is_obeyed_in_fit(name):
    """Keras compiles the first rate into its step on JAX and TensorFlow."""
    (other, their_fit), (mine, our_fit) = (loss_by_rate(library, name) for library in (theirs, ours))
    for rate, frozen in ((0.2, 0.2), (0.8, 0.2 if BACKEND != "torch" else 0.8)):
        other.rate = mine.rate = rate
        # 8,192 draws at least; a square of the noise has a standard deviation below 8 at rate 0.8, below 1 at 0.2
        assert our_fit() == pytest.approx(expected_loss(name, rate), rel=0.12)
        assert their_fit() == pytest.approx(expected_loss(name, frozen), rel=0.12)


# Configuration and saving.


@pytest.mark.parametrize("name", SPATIAL)
def test_a_round_trip_keeps_policy_and_trainable(name):
    """Keras writes the dtype of its variables for the policy, leaves `trainable` out and refuses it."""
    with pytest.raises(TypeError, match="trainable"):
        getattr(theirs, name)(0.3, trainable=False)
    for library in (theirs, ours):
        layer = getattr(library, name)(0.3, dtype="mixed_bfloat16")
        layer.trainable = False
        twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        found = (twin.dtype_policy.name, twin.compute_dtype, twin.trainable)
        assert found == (("mixed_bfloat16", "bfloat16", False) if library is ours else ("float32", "float32", True))


@every_layer
def test_a_saved_model_goes_on_with_its_masks(name, tmp_path):
    """In Keras the state of the seed is lost (keras-team/keras#19796): a loaded model draws its first masks again."""
    goes_on, starts_again = {}, {}
    for library in (theirs, ours):
        inputs = keras.Input(SHAPES[name][1:])
        model = keras.Model(inputs, getattr(library, name)(0.5, seed=3)(inputs))
        first = train(model, name)
        model.save(tmp_path / "model.keras")
        loaded = train(keras.saving.load_model(tmp_path / "model.keras"), name)
        goes_on[library] = np.array_equal(loaded, train(model, name))
        starts_again[library] = np.array_equal(loaded, first)
    assert goes_on == {theirs: False, ours: True}
    assert starts_again == {theirs: True, ours: False}


def network(library, name):
    keras.utils.set_random_seed(5)
    inputs = keras.Input(SHAPES[name][1:])
    x = keras.layers.Dense(16, activation="selu")(inputs)
    x = getattr(library, name)(0.4)(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


@every_layer
def test_weights_files_go_both_ways(name, tmp_path):
    for source, target in itertools.permutations((theirs, ours)):
        trained, model = network(source, name), network(target, name)
        values = [np.random.default_rng(0).normal(size=w.shape) for w in trained.get_weights()]
        trained.set_weights(values)
        trained.save_weights(tmp_path / "model.weights.h5")
        model.load_weights(tmp_path / "model.weights.h5")
        for value, loaded in zip(values, model.get_weights(), strict=True):
            np.testing.assert_allclose(loaded, value, rtol=1e-6)
        np.testing.assert_allclose(numpy(model(ones(name))), numpy(trained(ones(name))), rtol=1e-5, atol=1e-5)


def test_a_weights_file_carries_the_masks_between_our_layers(tmp_path):
    model, other = network(ours, "Dropout"), network(ours, "Dropout")
    train(model, "Dropout")
    model.layers[2].rate = 0.7
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert other.layers[2].rate == 0.7
    np.testing.assert_array_equal(train(other, "Dropout"), train(model, "Dropout"))


@every_layer
def test_weights_and_their_counts_are_those_of_keras(name):
    """Seeded alike, the initial weights too: replacing the layers changes nothing but the masks."""
    other, mine = network(theirs, name), network(ours, name)
    assert mine.count_params() == other.count_params()
    assert len(getattr(ours, name)(0.5).weights) == 0
    for a, b in zip(mine.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(numpy(mine(ones(name))), numpy(other(ones(name))))


# Masks.


def same_masks(library, name):
    """(j, k) where step j of seed 7 draws what step k of seed 8 draws."""
    layers = [getattr(library, name)(0.5, seed=seed) for seed in (7, 8)]
    one, other = ([train(layer, name) for _ in range(5)] for layer in layers)
    return [(j, k) for j in range(5) for k in range(5) if np.array_equal(one[j], other[k])]


@every_layer
def test_neighbouring_seeds_never_meet(name):
    """In Keras on torch seed s + 1 is seed s one step ahead."""
    assert same_masks(theirs, name) == ([(k + 1, k) for k in range(4)] if BACKEND == "torch" else [])
    assert same_masks(ours, name) == []


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_in_fit(name, policy):
    """Keras had failed here (keras-team/keras#19437); 3.15 does not, on no backend."""
    inputs = keras.Input(SHAPES[name][1:])
    layer = getattr(ours, name)(0.3, seed=1, dtype=policy)
    dense = keras.layers.Dense(2, dtype=policy)
    model = keras.Model(inputs, dense(layer(inputs)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = numpy(dense.kernel)
    loss = model.fit(ones(name), np.zeros((*SHAPES[name][:-1], 2)), epochs=2, batch_size=64, verbose=0).history["loss"]
    assert np.isfinite(loss).all()
    change = numpy(dense.kernel) - before
    assert np.isfinite(change).all()
    assert change.any()
    assert keras.backend.standardize_dtype(layer(ones(name), training=True).dtype) == layer.compute_dtype


def test_gaussian_noise_in_bfloat16_has_mean_one():
    """Keras on JAX draws the noise in bfloat16, whose coarse uniforms have a mean that is off."""
    x = np.ones((1000, 1000), "float32")

    def error(library):
        y = numpy(library.GaussianDropout(0.3, seed=1, dtype="bfloat16")(x, training=True)).astype("float64")
        return abs(y.mean() - 1) / (y.std() / 1000)

    assert error(ours) < 5
    if BACKEND == "jax":
        assert error(theirs) > 5


def test_a_dropped_nan_is_zero():
    x = np.full((50, 50), np.nan, "float32")
    y = numpy(ours.Dropout(0.5, seed=0)(x, training=True))
    assert abs(np.isnan(y).mean() - 0.5) < 5 * 0.5 / 50
    assert not y[~np.isnan(y)].any()
