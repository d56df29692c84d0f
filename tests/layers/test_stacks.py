"""A thinned stack against the same masks applied the ordinary way, and what it must leave alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_dropout import BadInput, ThinnedStack, noise
from keras_dropout.masks import Stream

numpy = ops.convert_to_numpy
L = layers


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def dense():
    return [
        L.Dense(16, "tanh", bias_initializer="normal"),
        L.Dense(24),
        L.Activation("gelu"),
        L.Dense(5, bias_initializer="normal"),
    ]


def convolutions(data_format="channels_last", rank=2):
    conv, pool = getattr(L, f"Conv{rank}D"), getattr(L, f"MaxPooling{rank}D")
    options = {"data_format": data_format, "bias_initializer": "normal"}
    return [
        conv(8, 3, padding="same" if rank > 1 else "causal", activation="relu", **options),
        pool(2, data_format=data_format),
        conv(16, 2, strides=2, **options),
        L.LeakyReLU(),
        conv(3, 1, **options),
    ]


def ordinary(body, shape):
    """The stack with each hidden layer's mask, an input of its own, multiplied behind its activation."""
    inputs, masks = keras.Input(shape[1:]), []
    values = inputs
    for layer, following in zip(body, [*body[1:], None]):
        values = layer(values)
        activations = (L.Activation, L.LeakyReLU)
        if (
            following is not None
            and not isinstance(following, activations)
            and not isinstance(layer, L.MaxPooling1D | L.MaxPooling2D)
        ):
            masks.append(keras.Input(values.shape[1:]))
            values = L.Multiply()([values, masks[-1]])
    return keras.Model([inputs, *masks], values)


def step(model, x, y):
    """What one step of gradient descent at rate 1 subtracts from each weight: its gradient."""
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(x, y, batch_size=len(y), shuffle=False, verbose=0)
    return [old - new for old, new in zip(before, model.get_weights())]


def kept_units(layer, state, weighted):
    """Which units of each hidden layer are kept, as the layer draws its blocks."""
    for each in weighted:
        number = layer.layer.layers.index(each)
        blocks = numpy(layer.kept_of(each, noise.fold(state, number)))
        width = each.units if isinstance(each, L.Dense) else each.filters
        size = layer.block_of(width)
        kept = np.zeros(width, "float32")
        for block in blocks:
            kept[block * size : (block + 1) * size] = 1
        yield kept * width / kept.sum()


FIRST = [] if keras.backend.backend() == "tensorflow" else ["channels_first"]  # TensorFlow has no such convolution on a CPU
STACKS = {
    "dense": (dense, (12, 7), -1),
    "dense of sequences": (dense, (6, 3, 7), -1),
    "convolutions 1D": (lambda: convolutions(rank=1), (6, 12, 4), -1),
    **{
        f"convolutions {each}": (lambda each=each: convolutions(each), (6, 9, 9, 9), {"channels_last": -1}.get(each, 1))
        for each in ["channels_last", *FIRST]
    },
}


@pytest.mark.parametrize(("kind", "groups"), [*((kind, 1) for kind in STACKS), ("dense", 3), ("convolutions channels_last", 3)])
def test_outputs_and_gradients_are_those_of_the_same_masks_applied_the_ordinary_way(kind, groups):
    make, shape, axis = STACKS[kind]
    body, x = make(), normal(*shape)
    layer = ThinnedStack(0.5, keras.Sequential(body), block_size=4, groups=groups, seed=3)
    inputs = keras.Input(shape[1:])
    thinned = keras.Model(inputs, layer(inputs))
    twin = [type(each).from_config(each.get_config()) for each in body]
    model = ordinary(twin, shape)
    model.set_weights(thinned.get_weights())
    state, weighted = Stream(3).next(), [each for each in body if each.weights][:-1]
    states = [state] if groups == 1 else [noise.fold(state, number) for number in range(groups)]
    masks = []
    for given, *each in zip(model.inputs[1:], *(list(kept_units(layer, one, weighted)) for one in states)):
        rows = np.repeat(np.stack(each), shape[0] // groups, axis=0)
        broad = rows.reshape(len(rows), *(rows.shape[1] if n == axis % len(given.shape) else 1 for n in range(1, len(given.shape))))
        masks.append(np.broadcast_to(broad, (shape[0], *given.shape[1:])).copy())
    y = normal(shape[0], *thinned.output_shape[1:], seed=5)
    expected = numpy(model([x, *masks]))
    layer.stream.reseed(3)
    np.testing.assert_allclose(numpy(thinned(x, training=True)), expected, atol=2e-5)
    assert not np.allclose(numpy(thinned(x)), expected, atol=1e-3)
    layer.stream.reseed(3)
    for ours, theirs in zip(step(thinned, x, y), step(model, [x, *masks], y), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_what_is_dropped_gets_no_gradient_and_half_of_the_blocks_is_dropped():
    body = [L.Dense(32), L.Dense(2)]
    model = keras.Sequential([keras.Input((5,)), ThinnedStack(0.5, keras.Sequential(body), block_size=4, seed=0)])
    kernel, bias, following, _ = step(model, normal(9, 5), normal(9, 2))
    moved = kernel.any(axis=0)
    assert moved.reshape(8, 4).any(axis=1).sum() == 4
    np.testing.assert_array_equal(moved.reshape(8, 4).all(axis=1), moved.reshape(8, 4).any(axis=1))
    np.testing.assert_array_equal(moved, bias != 0)
    np.testing.assert_array_equal(moved, following.any(axis=1))


def test_each_block_is_kept_equally_often_and_pairs_are_not_tied():
    layer = ThinnedStack(0.5, keras.Sequential([L.Dense(8), L.Dense(1)]), block_size=2, seed=1)
    layer.build((None, 3))
    kept = np.zeros((600, 4))
    for row in kept:
        row[numpy(layer.kept_of(layer.layer.layers[0], layer.stream.next()))] = 1
    assert (kept.sum(axis=1) == 2).all()
    assert np.abs(kept.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(600)
    together = (kept.T @ kept)[np.triu_indices(4, 1)] / 600  # each of the six pairs: 1 / 6
    assert np.abs(together - 1 / 6).max() < 5 * np.sqrt(5 / 36 / 600)


def test_hidden_layers_and_groups_have_masks_of_their_own():
    layer = ThinnedStack(0.5, keras.Sequential([L.Dense(64), L.Dense(64), L.Dense(1)]), block_size=1, groups=2, seed=1)
    layer.build((None, 3))
    state = layer.stream.next()
    sets = [mask for group in (0, 1) for mask in kept_units(layer, noise.fold(state, group), layer.layer.layers[:2])]
    assert len({tuple(each) for each in sets}) == 4


@pytest.mark.parametrize(("width", "size"), [(1024, 16), (256, 16), (100, 5), (32, 2), (31, 1), (1000, 10), (8, 1)])
def test_blocks_are_as_large_as_leaves_sixteen(width, size):
    layer = ThinnedStack(0.5, keras.Sequential([L.Dense(width), L.Dense(1)]))
    assert layer.block_of(width) == size
    assert layer.kept_blocks(width) == width // size - round(0.5 * (width // size))


class Own(L.Dense):
    def call(self, inputs):
        return -super().call(inputs)


@pytest.mark.parametrize(
    ("words", "layers", "options"),
    [
        ("two or more Dense or Conv", [L.Dense(8)], {}),
        ("block_size=5", [L.Dense(10), L.Dense(1)], {"block_size": 8}),
        ("none of 1 blocks", [L.Dense(8), L.Dense(1)], {"block_size": 8}),
        ("none of 2 blocks", [L.Dense(8), L.Dense(1)], {"block_size": 4, "rate": 0.1}),
        ("another rate", [L.Dense(4), L.Dense(1)], {"rate": 0.1}),
        ("all of 2 blocks", [L.Dense(8), L.Dense(1)], {"block_size": 4, "rate": 0.9}),
        ("each unit alone", [L.Dense(8, "softmax"), L.Dense(1)], {"block_size": 4}),
        (
            "each unit alone",
            [L.Dense(8), L.Activation(lambda x: x - ops.mean(x, -1, keepdims=True)), L.Dense(1)],
            {"block_size": 4},
        ),
        ("its computation is its own", [Own(8), L.Dense(1)], {"block_size": 4}),
        ("groups of channels", [L.Conv1D(8, 1), L.Conv1D(4, 1, groups=2)], {"block_size": 4}),
        ("activity regularizer", [L.Dense(8, activity_regularizer="l2"), L.Dense(1)], {"block_size": 4}),
        ("no Dense, Conv", [L.Dense(8), L.Dropout(0.5), L.Dense(1)], {"block_size": 4}),
        ("no Dense, Conv", [L.Conv1D(8, 1), L.Flatten(), L.Dense(1)], {"block_size": 4}),
        ("behind the last layer", [L.Dense(8), L.Dense(1), L.ReLU()], {"block_size": 4}),
    ],
)
def test_stacks_that_cannot_be_meant_are_refused_in_two_lines(words, layers, options):
    with pytest.raises(BadInput) as refusal:
        ThinnedStack(options.pop("rate", 0.5), keras.Sequential(layers), **options)
    assert words in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 2


def test_the_last_layer_may_have_any_activation_and_penalties_of_weights_count_once():
    body = [L.Dense(8, kernel_regularizer=keras.regularizers.L2(0.1)), L.Dense(3, "softmax")]
    layer = ThinnedStack(0.5, keras.Sequential(body), block_size=2, seed=0)
    y = numpy(layer(normal(4, 5), training=True))
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose([float(numpy(each)) for each in layer.losses], [0.1 * (numpy(body[0].kernel) ** 2).sum()], rtol=1e-5)
