"""Round trips over many architectures: put dropout in, take it out, and nothing else has changed."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import place, sites, strip
from keras_dropout.models.dropping import is_dropout
from keras_dropout.models.graph import functional

L = keras.layers
A = keras.applications


def chain(shape, *layers, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def graph(shape, build, dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, build(inputs))


def residual(x):
    for filters in (8, 8):
        y = L.BatchNormalization()(L.Conv2D(filters, 3, padding="same", use_bias=False)(x))
        y = L.Conv2D(filters, 3, padding="same")(L.ReLU()(y))
        x = L.ReLU()(L.Add()([L.Conv2D(filters, 1)(x), L.BatchNormalization()(y)]))
    return L.Dense(3)(L.GlobalAveragePooling2D()(x))


def pre_activation(x):
    x = L.Conv2D(8, 3, padding="same")(x)
    y = L.Conv2D(8, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))
    x = L.ReLU()(L.BatchNormalization()(x + y))
    return L.Dense(3)(L.Flatten()(x))


def unet(x):
    a = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2DTranspose(4, 2, strides=2)(b)
    return L.Conv2D(2, 1, activation="softmax")(L.Concatenate()([a, c]))


def transformer(ids):
    x = L.Embedding(20, 8)(ids)
    for _ in range(2):
        y = L.LayerNormalization()(x)
        x = x + L.MultiHeadAttention(2, 4)(y, y)
        y = L.Dense(16, "gelu")(L.LayerNormalization()(x))
        x = x + L.Dense(8)(y)
    return L.Dense(3, "softmax")(L.GlobalAveragePooling1D()(L.LayerNormalization()(x)))


def shared(x):
    layer, dropout = L.Dense(6, "relu", name="shared"), L.Dropout(0.4)
    return L.Dense(2)(dropout(layer(dropout(layer(x)))))


def siamese():
    tower = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), L.Dropout(0.3), L.Dense(4)], name="tower")
    one, two = keras.Input((6,), name="one"), keras.Input((6,), name="two")
    return keras.Model([one, two], L.Dense(1)(L.Subtract()([tower(one), tower(two)])))


def nested_twice():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, "relu"), L.BatchNormalization()], name="inner")
    middle = graph((6,), lambda x: L.Dense(6)(inner(L.ReLU()(inner(x)))))
    return graph((6,), lambda x: L.Dense(2)(L.ReLU()(middle(middle(x)))))


def several_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = L.Concatenate()([L.Dense(8, "relu")(a), L.Dense(8, "relu")(b)])
    return keras.Model({"a": a, "b": b}, {"kind": L.Dense(3, "softmax")(x), "size": L.Dense(1)(L.Dense(4, "tanh")(x))})


def autoencoder():
    encoder = keras.Sequential([keras.Input((6,)), L.Dense(4, "selu"), L.Dense(2)], name="encoder")
    decoder = graph((2,), lambda x: L.Dense(6)(L.AlphaDropout(0.2)(L.Dense(4, "selu")(x))))
    return graph((6,), lambda x: decoder(encoder(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.dropout, self.out = L.Dense(8), L.BatchNormalization(), L.Dropout(0.5), L.Dense(2)

    def call(self, x, training=False):
        x = ops.relu(self.norm(self.hidden(ops.reshape(x, (-1, 6))), training=training))
        return self.out(self.dropout(x, training=training))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 2, 3), "float32"))
    return model


@keras.saving.register_keras_serializable()
class Block(L.Layer):
    """A custom layer with layers inside: one site, its inside is its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.one, self.two = units, L.Dense(units, "relu", name="one"), L.Dense(units, name="two")
        self.one.trainable = False

    def build(self, shape):
        self.one.build(shape)
        self.two.build((*shape[:-1], self.units))

    def call(self, x):
        return self.two(self.one(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


SMALL = {
    "perceptron": lambda: chain((6,), L.Dense(8, "relu"), L.Dropout(0.5), L.Dense(3, "softmax")),
    "convolutions": lambda: chain(
        (8, 8, 3), L.Rescaling(1 / 255), L.RandomFlip(), L.Conv2D(4, 3), L.ReLU(), L.SpatialDropout2D(0.2), L.Flatten(), L.Dense(3)
    ),
    "separable convolutions": lambda: chain(
        (8, 8, 3), L.SeparableConv2D(4, 3), L.DepthwiseConv2D(3), L.GlobalMaxPooling2D(), L.Dense(3)
    ),
    "convolutions in time": lambda: chain(
        (9, 4), L.Conv1D(8, 3, padding="causal"), L.SpatialDropout1D(0.2), L.Flatten(), L.Dense(2)
    ),
    "convolutions in space": lambda: chain((5, 6, 6, 2), L.Conv3D(4, 3), L.GlobalAveragePooling3D(), L.Dense(2)),
    "residual": lambda: graph((8, 8, 3), residual),
    "pre-activation": lambda: graph((8, 8, 3), pre_activation),
    "u-net": lambda: graph((8, 8, 3), unet),
    "lstm": lambda: chain((9,), L.Embedding(20, 6), L.LSTM(5, return_sequences=True), L.GRU(4), L.Dense(2), dtype="int32"),
    "bidirectional": lambda: chain((9, 4), L.Bidirectional(L.LSTM(5)), L.GaussianDropout(0.3), L.Dense(2)),
    "convolutional lstm": lambda: chain((4, 6, 6, 2), L.ConvLSTM2D(3, 3), L.Flatten(), L.Dense(2)),
    "time-distributed": lambda: chain(
        (5, 4), L.TimeDistributed(L.Dense(6, "relu")), L.TimeDistributed(L.Dropout(0.3)), L.SimpleRNN(4), L.Dense(1)
    ),
    "transformer": lambda: graph((9,), transformer, dtype="int32"),
    "attention": lambda: graph((5, 8), lambda x: L.Dense(1)(L.Flatten()(L.Attention()([L.Dense(8)(x), L.Dense(8)(x)])))),
    "shared layers": lambda: graph((6,), shared),
    "siamese": siamese,
    "nested twice": nested_twice,
    "several inputs and outputs": several_outputs,
    "autoencoder": autoencoder,
    "subclassed": subclassed,
    "custom block": lambda: chain((6,), Block(8), L.LayerNormalization(), L.Dense(2)),
    "mixture of gates": lambda: graph((6,), lambda x: L.Dense(1)(L.Dense(8, "sigmoid")(x) * L.Dense(8, "tanh")(x))),
    "normalised table": lambda: chain((6,), L.Normalization(mean=1.0, variance=4.0), L.Dense(8, "relu"), L.Dense(1)),
    "einsum": lambda: chain((5, 4), L.EinsumDense("abc,cd->abd", output_shape=(5, 6)), L.UnitNormalization(), L.Dense(1)),
}
LARGE = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}


def application(name):
    size = LARGE[name]
    return getattr(A, name)(input_shape=(size, size, 3), weights=None, classes=10)


def batch(model):
    generator = np.random.default_rng(0)

    def some(tensor):
        shape = (2, *tensor.shape[1:])
        whole = "int" in tensor.dtype
        return generator.integers(0, 20, shape).astype("int32") if whole else generator.normal(size=shape).astype("float32")

    return keras.tree.map_structure(some, functional(model).input)


def predictions(model, x):
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def values(weights):
    """Weights by layer and name; the names of the models around them are not kept by Keras's own saving either."""
    names = [re.sub(r"variable_\d+$", "variable", "/".join(weight.path.split("/")[-2:])) for weight in weights]
    return dict(zip(names, map(ops.convert_to_numpy, weights)))


def check_round_trip(model):
    random_weights(model)
    x = batch(model)
    if isinstance(model, Subclassed):
        x = np.reshape(x, (2, 2, 3))
    before, weights = predictions(model, x), values(model.weights)
    placed = place(model, {"hidden": 0.3})
    bare = strip(placed)
    for changed in (placed, bare):
        for ours, theirs in zip(predictions(changed, x), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        found = values(changed.weights)
        assert found.keys() == weights.keys()
        for path, value in weights.items():
            np.testing.assert_array_equal(found[path], value)
        assert changed.count_params() == model.count_params()
        assert values(changed.trainable_weights).keys() == values(model.trainable_weights).keys()
    hidden = [site for site in sites(placed) if site.group == "hidden"]
    assert all([d["kind"] for d in site.dropout][:1] == ["Dropout"] and site.dropout[0]["rate"] == 0.3 for site in hidden)
    assert not any(site.dropout for site in sites(bare))
    assert not any(is_dropout(layer) for layer in functional(bare).layers)
    for ours, theirs in zip(predictions(model, x), before):  # the model that was given is as it was
        np.testing.assert_array_equal(ours, theirs)
    check_cover(model)


def random_weights(model):
    """Other values than a fresh model's zeros and ones, so that a weight at a wrong place shows."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(np.abs(generator.normal(0.1, 0.1, weight.shape)) if "variance" in weight.name else weight + 0.01)


def check_cover(model):
    """Every layer with weights is a site, or one that a site is behind; or it prepares the inputs, or is inside of a layer."""
    known = sites(model)
    covered = {site.name for site in known} | {name for site in known for name in site.behind}
    for layer in functional(model).layers:
        if layer.weights and not isinstance(layer, keras.Model):
            assert layer.name in covered, layer.name


@pytest.mark.parametrize("name", SMALL)
def test_round_trip(name):
    check_round_trip(SMALL[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_round_trip_of_an_application(name):
    check_round_trip(application(name))


def test_the_table_is_long_enough():
    assert len(SMALL) + len(LARGE) >= 25
