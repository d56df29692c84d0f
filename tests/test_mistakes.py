"""Known mistakes: each rule finds the model that has it, alone and nested, and leaves alone those that nearly do.

What the evidence says that Keras does is measured again here.
"""

import re

import keras
import numpy as np
import pytest
from foreign_layers import FOREIGN, model_with

import keras_dropout as kd
from keras_dropout import BadInput, check
from keras_dropout.models.evidence import KNOWN
from keras_dropout.models.inspection import rate
from keras_dropout.models.mistakes import RULES

L = keras.layers
BACKEND = keras.backend.backend()


def lstm(units, **options):
    return L.LSTM(units, recurrent_initializer="zeros", **options)  # orthogonal ones take seconds to compile


def gru(units, **options):
    return L.GRU(units, recurrent_initializer="zeros", **options)


def chain(shape, *layers, dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype, name="x"), *layers], name="chain")


def vector(*layers):
    """Layers between two dense ones: units of mean 0 before, an output behind."""
    return chain((8,), L.Dense(6, name="first"), *layers, L.Dense(2, name="out"))


def image(*layers):
    return chain((8, 8, 2), L.Conv2D(4, 3, activation="relu", name="conv"), *layers, L.Flatten(), L.Dense(2))


def sequence(*layers):
    return chain((5, 4), *layers, L.Dense(2))


def graph(call, shape=(8,)):
    inputs = keras.Input(shape, name="x")
    return keras.Model(inputs, call(inputs), name="functional")


def attention(layer, **options):
    return graph(lambda x: L.Dense(2)(keras.tree.flatten(layer(x, x, **options))[0]), (5, 8))


def nested(model):
    inputs = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    around = keras.Model(inputs, model(inputs))
    return with_loss(around) if model.compiled else around


def with_loss(model):
    model.compile("sgd", "mse")
    return model


def hand_made_attention(x):
    weights = L.Dropout(0.1)(L.Softmax()(L.Dot((2, 2))([x, x])))
    return L.Dense(2)(L.Dot((2, 1))([weights, x]))


def after_selu_in_a_branch(x):
    return L.Dense(2)(L.Add()([L.AlphaDropout(0.1)(L.Flatten()(L.Dense(8, "selu")(x))), x]))


@keras.saving.register_keras_serializable("tests")
class AlwaysOn(L.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


@keras.saving.register_keras_serializable("tests")
class Passing(L.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=training)


@keras.saving.register_keras_serializable("tests")
class TrainingWrapper(L.Wrapper):
    def __init__(self, layer, on=True, **options):
        super().__init__(layer, **options)
        self.on = on

    def call(self, inputs, training=None):
        return self.layer(inputs, training=True if self.on else training)


def normalised():
    return chain((8,), L.Dense(4), L.BatchNormalization(name="norm"))


# rule, the layer it names, a model that has the mistake and no other
HAVE = {
    "dropout directly before": ("dropout-before-batch-normalisation", "d", lambda: vector(L.Dropout(0.5, name="d"), bn())),
    "ours": ("dropout-before-batch-normalisation", "d", lambda: vector(kd.GaussianDropout(0.5, name="d"), bn())),
    "dropout further before": (
        "dropout-before-batch-normalisation",
        "d",
        lambda: vector(L.ReLU(), L.Dropout(0.5, name="d"), L.Dense(5), L.ReLU(), bn()),
    ),
    "softmax in the layer": (
        "dropout-after-softmax",
        "d",
        lambda: chain((8,), L.Dense(3, "softmax"), L.Dropout(0.2, name="d")),
    ),
    "softmax of its own, reshaped": (
        "dropout-after-softmax",
        "d",
        lambda: chain((8,), L.Dense(4), L.Softmax(), L.Reshape((2, 2)), kd.Dropout(0.2, name="d")),
    ),
    "softmax as operation": (
        "dropout-after-softmax",
        "d",
        lambda: graph(lambda x: L.Dropout(0.2, name="d")(keras.ops.softmax(L.Dense(3)(x)))),
    ),
    "logits": ("dropout-on-logits", "d", lambda: chain((8,), L.Dense(3), L.Dropout(0.2, name="d"))),
    "before the softmax": ("dropout-on-logits", "d", lambda: chain((8,), L.Dense(3), L.Dropout(0.2, name="d"), L.Softmax())),
    "regression": (
        "dropout-on-logits",
        "d",
        lambda: with_loss(chain((5, 4), lstm(1), kd.Dropout(0.2, name="d"))),
    ),
    "features that a loss sees": (
        "dropout-on-logits",
        "d",
        lambda: with_loss(chain((8,), L.Dense(4, "relu"), L.LayerNormalization(), L.Dropout(0.2, name="d"))),
    ),
    "the second call of a layer": (
        "dropout-on-logits",
        "d",
        lambda: graph(lambda x: called_twice(L.Dropout(0.1, name="d"), L.Dense(4, "relu"), L.Dense(3), x)),
    ),
    "tied embeddings": (
        "dropout-on-logits",
        "d",
        lambda: graph(lambda x: tied(L.ReversibleEmbedding(9, 4), x, L.Dropout(0.1, name="d")), (5,)),
    ),
    "before Masking": (
        "dropout-before-masking",
        "d",
        lambda: chain((6, 3), L.Dropout(0.5, name="d"), L.Masking(-1.0), L.GlobalAveragePooling1D(), L.Dense(1)),
    ),
    "before Masking of zeros, reshaped": (
        "dropout-before-masking",
        "d",
        lambda: chain((18,), kd.Dropout(0.5, name="d"), L.Reshape((6, 3)), L.Masking(), L.GlobalAveragePooling1D(), L.Dense(1)),
    ),
    "before a Masking whose mask nobody gets": (
        "dropout-before-masking",
        "d",
        lambda: chain((6, 3), L.Dropout(0.5, name="d"), L.Masking(-1.0), L.Flatten(), L.Dense(1)),
    ),
    "before a mask made by hand": ("dropout-before-masking", "d", lambda: graph(masked_by_hand, (6, 3))),
    "words that become padding": (
        "dropout-before-masking",
        "d",
        lambda: chain(
            (6,),
            kd.WordDropout(0.5, 0, name="d"),
            L.Embedding(9, 4, mask_zero=True),
            L.GlobalAveragePooling1D(),
            L.Dense(1),
            dtype="int32",
        ),
    ),
    "ids": (
        "dropout-of-ids",
        "d",
        lambda: chain((6,), L.Dropout(0.2, name="d"), L.Embedding(9, 4, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(1)),
    ),
    "softmax as a layer in the layer": (
        "dropout-after-softmax",
        "d",
        lambda: chain((8,), L.Dense(3, L.Softmax()), L.Dropout(0.2, name="d")),
    ),
    "maps": ("elementwise-on-convolution-maps", "d", lambda: image(L.Dropout(0.2, name="d"))),
    "maps, normalised and pooled": (
        "elementwise-on-convolution-maps",
        "d",
        lambda: image(bn(), L.ReLU(), L.MaxPooling2D(), kd.GaussianDropout(0.2, name="d")),
    ),
    "maps of a residual block": (
        "elementwise-on-convolution-maps",
        "d",
        lambda: graph(lambda x: L.Flatten()(L.Dropout(0.2, name="d")(L.Add()([x, L.Conv2D(2, 1)(x)])))[:, :3] * 1.0, (4, 4, 2)),
    ),
    "volumes": (
        "elementwise-on-convolution-maps",
        "d",
        lambda: chain((4, 4, 4, 1), L.Conv3D(2, 2), L.Dropout(0.2, name="d"), L.Flatten(), L.Dense(1)),
    ),
    "images in time": (
        "elementwise-on-convolution-maps",
        "d",
        lambda: chain((3, 6, 6, 1), L.TimeDistributed(L.Conv2D(2, 3)), L.Dropout(0.2, name="d"), L.Flatten(), L.Dense(1)),
    ),
    "rate 0": ("keras-rate-0", "d", lambda: vector(L.Dropout(0.0, name="d"))),
    "rate 0, Gaussian": ("keras-rate-0", "d", lambda: vector(L.GaussianDropout(0, name="d"))),
    "rate 0, set": (
        "keras-rate-0",
        "d",
        lambda: sequence(set_to(0.3, L.SpatialDropout1D(0.0, name="d"))),
    ),
    "alpha behind relu": ("alpha-without-selu", "d", lambda: vector(L.ReLU(), L.AlphaDropout(0.1, name="d"))),
    "alpha behind linear": ("alpha-without-selu", "d", lambda: vector(kd.AlphaDropout(0.1, name="d"))),
    "selu, dropout": ("selu-with-plain-dropout", "d", lambda: vector(L.Activation("selu"), L.Dropout(0.1, name="d"))),
    "selu, spatial": (
        "selu-with-plain-dropout",
        "d",
        lambda: sequence(L.Conv1D(4, 3, activation="selu"), kd.SpatialDropout1D(0.1, name="d"), L.Flatten()),
    ),
    "one seed": ("shared-seed", "d", lambda: vector(L.Dropout(0.1, seed=7, name="d"), L.ReLU(), L.Dropout(0.1, seed=7))),
    "one seed of ours": (
        "shared-seed",
        "d",
        lambda: vector(kd.Dropout(0.1, seed=7, name="d"), kd.DropConnect(0.1, L.Dense(3), per="batch", seed=7)),
    ),
    "recurrent": (
        "recurrent-dropout",
        "r",
        lambda: sequence(lstm(3, recurrent_dropout=0.2, name="r")),
    ),
    "recurrent, both ways": (
        "recurrent-dropout",
        "r",
        lambda: sequence(L.Bidirectional(gru(3, recurrent_dropout=0.2), name="r")),
    ),
    "attention": ("attention-dropout", "a", lambda: attention(L.MultiHeadAttention(2, 4, dropout=0.1, name="a"))),
    "grouped attention": ("attention-dropout", "a", lambda: attention(L.GroupQueryAttention(4, 2, 1, dropout=0.1, name="a"))),
    "frozen": (
        "training-frozen",
        "d",
        lambda: graph(lambda x: L.Dense(2)(L.Dropout(0.5, name="d")(L.Dense(4)(x), training=True))),
    ),
    "frozen model": (
        "training-frozen",
        "chain",
        lambda: graph(lambda x: L.Dense(2)(vector(L.Dropout(0.2))(x, training=True))),
    ),
    "always on": ("drops-at-prediction", "d", lambda: vector(AlwaysOn(0.5, name="d"))),
    "always on around": ("drops-at-prediction", "w", lambda: vector(TrainingWrapper(L.Dropout(0.5), name="w"))),
    "normalisation in a wrapper": (
        "mc-wrapper-batch-normalisation",
        "w",
        lambda: vector(TrainingWrapper(L.BatchNormalization(), name="w")),
    ),
    "normalisation in a frozen model": (
        "mc-wrapper-batch-normalisation",
        "chain",
        lambda: graph(lambda x: L.Dense(2)(normalised()(x, training=True))),
    ),
    "kept 0.8 of the input": (
        "keep-probability-as-rate",
        "d",
        lambda: chain((8,), L.Rescaling(2.0), L.Dropout(0.8, name="d"), L.Dense(2)),
    ),
    "kept 0.6 of the input": ("keep-probability-as-rate", "d", lambda: chain((8,), kd.Dropout(0.6, name="d"), L.Dense(2))),
    "kept 0.9 inside": ("keep-probability-as-rate", "d", lambda: vector(L.Dropout(0.9, name="d"))),
}

HAVE_NOT = {
    "normalisation before dropout": lambda: vector(bn(), L.Dropout(0.5)),
    "a frozen normalisation": lambda: vector(L.Dropout(0.5), L.BatchNormalization(trainable=False)),
    "normalised for each example between": lambda: vector(L.Dropout(0.5), L.LayerNormalization(), bn()),
    "whole examples before normalisation": lambda: vector(L.Dropout(0.5, noise_shape=(None, 1)), bn()),
    "dropout on another branch": lambda: graph(
        lambda x: L.Dense(2)(L.Add()([L.Dropout(0.5)(L.Dense(4)(x)), L.BatchNormalization()(L.Dense(4)(x))]))
    ),
    "attention made by hand": lambda: graph(hand_made_attention, (5, 8)),
    "gates of a mixture": lambda: graph(
        lambda x: L.Dense(2)(L.Multiply()([L.Dropout(0.2)(L.Dense(8, "softmax")(x)), x])),
    ),
    "dropout before the softmax layer": lambda: chain((8,), L.Dense(4, "relu"), L.Dropout(0.2), L.Dense(3, "softmax")),
    "dropout before an output convolution": lambda: image(L.SpatialDropout2D(0.2), L.Conv2D(1, 1)),
    "dropout of the only input": lambda: chain((8,), L.Dropout(0.2), L.Flatten()),
    "channels of maps": lambda: image(L.SpatialDropout2D(0.2), kd.DropBlock2D(0.2, 3)),
    "maps by noise shape": lambda: image(L.Dropout(0.2, noise_shape=(None, 1, 1, None))),
    "features that are normalised": lambda: chain((8,), L.Dense(4), L.LayerNormalization(), L.Dropout(0.2)),
    "features of relu": lambda: chain((8,), L.Dense(4), L.ReLU(), L.Dropout(0.2)),
    "features of a recurrent layer": lambda: chain((5, 4), lstm(3), L.Dropout(0.2)),
    "tied embeddings, dropout before": lambda: graph(lambda x: tied(L.ReversibleEmbedding(9, 4), x), (5,)),
    "dropout behind Masking": lambda: chain((6, 3), L.Masking(-1.0), L.Dropout(0.5), L.GlobalAveragePooling1D(), L.Dense(1)),
    "many features before Masking of zeros": lambda: chain(
        (6, 99), L.Dropout(0.1), L.Masking(), L.GlobalAveragePooling1D(), L.Dense(1)
    ),
    "words that do not become padding": lambda: chain(
        (6,), kd.WordDropout(0.5, 1), L.Embedding(9, 4, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(1), dtype="int32"
    ),
    "a mask of something else": lambda: graph(masked_by_another, (6, 3)),
    "a comparison that is no mask": lambda: graph(rectified_by_hand, (6, 3)),
    "maps that are vectors": lambda: image(L.GlobalAveragePooling2D(keepdims=True), L.Dropout(0.2), L.Conv2D(3, 1)),
    "flattened maps": lambda: image(L.Flatten(), L.Dropout(0.2)),
    "an image itself": lambda: chain((8, 8, 2), L.Dropout(0.2), L.Conv2D(2, 3), L.Flatten(), L.Dense(2)),
    "steps of a sequence": lambda: sequence(L.Conv1D(4, 3), L.Dropout(0.2)),
    "rate 0 of ours": lambda: vector(kd.Dropout(0.0)),
    "a rate lowered to 0": lambda: vector(set_to(0.0, L.Dropout(0.3))),
    "attention without dropout, which has a layer of rate 0": lambda: attention(L.MultiHeadAttention(2, 4)),
    "alpha behind selu": lambda: vector(L.Activation("selu"), L.AlphaDropout(0.1)),
    "alpha behind selu, reshaped, in a branch": lambda: graph(after_selu_in_a_branch),
    "alpha before selu": lambda: vector(kd.AlphaDropout(0.1), L.Activation("selu")),
    "alpha on standardised inputs": lambda: chain((8,), L.AlphaDropout(0.1), L.Dense(2)),
    "features of selu": lambda: sequence(L.Conv1D(4, 3, activation="selu"), kd.FeatureAlphaDropout(0.1), L.Flatten()),
    "seeds far apart": lambda: vector(L.Dropout(0.1, seed=7), L.Dropout(0.1, seed=70_007), kd.Dropout(0.1, seed=7)),
    "one layer with a seed, used twice": lambda: graph(twice),
    "no seeds": lambda: vector(L.Dropout(0.1), L.Dropout(0.1)),
    "neighbouring seeds of ours": lambda: vector(kd.Dropout(0.1, seed=7), kd.Dropout(0.1, seed=8)),
    "dropout of recurrent inputs": lambda: sequence(lstm(3, dropout=0.2)),
    "an activation without a fused kernel": lambda: sequence(lstm(3, activation="relu", recurrent_dropout=0.2)),
    "no fused kernel wanted": lambda: sequence(gru(3, use_cudnn=False, recurrent_dropout=0.2)),
    "a layer without a fused kernel": lambda: sequence(L.SimpleRNN(3, recurrent_dropout=0.2)),
    "recurrent dropout of ours": lambda: sequence(kd.WeightDrop(0.2, lstm(3))),
    "attention whose scores are wanted": lambda: attention(L.MultiHeadAttention(2, 4, dropout=0.1), return_attention_scores=True),
    "attention dropout of ours": lambda: attention(kd.AttentionDropout(0.1, L.MultiHeadAttention(2, 4))),
    "training=False": lambda: graph(lambda x: L.Dense(2)(L.Dropout(0.5)(L.Dense(4)(x), training=False))),
    "a subclass that passes training on": lambda: vector(Passing(0.5)),
    "a wrapper that passes training on": lambda: vector(TrainingWrapper(L.Dropout(0.5), on=False)),
    "normalisation in a wrapper that passes training on": lambda: vector(TrainingWrapper(L.BatchNormalization(), on=False)),
    "half of the input": lambda: chain((8,), L.Dropout(0.5), L.Dense(2)),
    "0.7 inside": lambda: vector(L.Dropout(0.7)),
    "no dropout": vector,
    "an embedding": lambda: chain((5,), L.Embedding(9, 4), L.SpatialDropout1D(0.2), lstm(3), L.Dense(2), dtype="int32"),
}


def called_twice(drop, first, second, x):
    return drop(second(drop(first(x))))


def tied(embedding, x, *behind):
    x = L.Dropout(0.1)(L.Dense(4)(embedding(x)))
    x = embedding(x, reverse=True)
    return behind[0](x) if behind else x


def masked_by_hand(x):
    x = L.Dropout(0.5, name="d")(x)
    return L.Dense(1)(L.GlobalAveragePooling1D()(L.Dense(4)(x), mask=keras.ops.any(x != 0, -1)))


def masked_by_another(x):
    """The mask of the concatenation is made from the shape of what is dropped, not from its values."""
    both = L.Concatenate(axis=1)([L.Masking(-1.0)(x), L.Dropout(0.5)(x)])
    return L.Dense(1)(L.GlobalAveragePooling1D()(both))


def rectified_by_hand(x):
    x = L.Dropout(0.5)(L.Dense(4)(x))
    return L.Dense(1)(L.GlobalAveragePooling1D()(keras.ops.where(x > 0, x, 0.0)))


def bn():
    return L.BatchNormalization(name="norm")


def set_to(rate, layer):
    layer.rate = rate
    return layer


def twice(x):
    drop = L.Dropout(0.1, seed=7)
    return L.Dense(2)(drop(L.Dense(4)(drop(L.Dense(4)(x)))))


def found(model, data=None):
    return [(mistake.rule, mistake.layer) for mistake in check(model, data)]


@pytest.mark.parametrize(("rule", "layer", "make"), HAVE.values(), ids=HAVE)
def test_it_finds_the_mistake_and_no_other(rule, layer, make):
    ((name, path),) = found(make())
    assert name == rule
    assert path.split("/")[-1] == layer


@pytest.mark.parametrize(("rule", "layer", "make"), HAVE.values(), ids=HAVE)
def test_it_finds_the_mistake_in_a_nested_model(rule, layer, make):
    model = make()
    ((name, path),) = found(nested(model))
    assert name == rule
    assert path.split("/")[0] == model.name
    assert path.split("/")[-1] == layer


@pytest.mark.parametrize("make", HAVE_NOT.values(), ids=HAVE_NOT)
def test_it_leaves_alone_what_nearly_is_a_mistake(make):
    assert found(make()) == []
    assert found(nested(make())) == []


def test_every_rule_is_tried_described_and_known():
    assert {rule for rule, _, _ in HAVE.values()} | {"live-rate", "neighbouring-seeds"} == set(RULES) == set(KNOWN)
    assert all(rule.__doc__ for rule in RULES.values())
    assert all(all(known) for known in KNOWN.values())


def test_what_is_true_of_many_layers_is_one_entry():
    names = [f"d{number}" for number in range(18)]
    (mistake,) = check(vector(*(L.Dropout(0.0, name=name) for name in names)))
    assert mistake.rule == "keras-rate-0"
    assert mistake.what == "Dropout 'd0' was made with rate 0 and drops nothing. The same holds for 17 more: d1, d2, d3, …."
    two = check(vector(L.Dropout(0.0, name="a"), set_to(0.3, L.Dropout(0.0, name="b"))))
    assert [(each.rule, each.layer) for each in two] == [("keras-rate-0", "a"), ("keras-rate-0", "b")]


# What is measured of a padding mask


PADDED = np.where((np.arange(6) < 3)[:, None], np.random.default_rng(0).normal(size=(20, 6, 3)), -1).astype("float32")


def test_the_share_of_the_padding_that_counts_as_data_is_measured():
    model = chain((6, 3), L.Dropout(0.5, name="d"), L.Masking(-1.0, name="masking"), L.GlobalAveragePooling1D(), L.Dense(1))
    (mistake,) = check(model, PADDED)
    assert "'masking' and 1 more" in mistake.what
    assert "100% of the padded steps count as data, and 0% of the others as padding (measured on 20 rows of" in mistake.what
    (mistake,) = check(model)
    assert "100% of the padded steps count as data, and 0% of the others as padding (measured on made-up" in mistake.what


def test_the_share_of_the_data_that_counts_as_padding_is_that_of_the_formula():
    """All of n features are dropped with probability rate ** n: of a step of 3 at rate 0.5, 12.5 %."""
    model = chain((60, 3), L.Dropout(0.5, name="d"), L.Masking(), L.GlobalAveragePooling1D(), L.Dense(1))
    (mistake,) = check(model, np.where(PADDED == -1, 0, PADDED).repeat(10, 1))
    counted, lost = map(int, re.search(r"training (\d+)% of .* and (\d+)% of", mistake.what).groups())
    assert counted == 0
    assert lost == pytest.approx(12.5, abs=3)  # 7200 steps, in part of one mask


def test_dropped_ids_are_other_words():
    words = dropped_values(L.Dropout(0.5, seed=1), np.full((4, 50), 3.0, "float32"))
    assert set(words.ravel().tolist()) == {0, 6}


def test_a_mistake_as_text_and_as_plain_values():
    (mistake,) = check(HAVE["logits"][2]())
    document = mistake.document()
    assert list(document) == ["rule", "layer", "what", "evidence", "source", "mend"]
    assert all(value in str(mistake) for name, value in document.items() if name != "layer")
    assert "0.2" in mistake.what


# What is measured on the data


def numbers(mistake):
    """What a mistake says of the variance: mean, least, greatest, channels, rows."""
    found = re.search(r"training ([\d.]+) times .* of (\d+) channels, ([\d.]+) to ([\d.]+); measured on (\d+) rows", mistake.what)
    mean, channels, least, greatest, rows = map(float, found.groups())
    return mean, least, greatest, int(channels), int(rows)


def images(rows, shape=(8, 8, 2)):
    return np.random.default_rng(0).normal(0.5, 1, (rows, *shape)).astype("float32")


def shift_in_keras(model, x):
    """Moving variance that the model's batch normalisation learns / variance of what goes into it at prediction."""
    (norm,) = (layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization))
    norm.momentum = 0.0  # the variance of one batch
    before = keras.Model(model.inputs[0], norm.input)
    seen = []
    for _ in range(40):
        model(x, training=True)
        seen.append(keras.ops.convert_to_numpy(norm.moving_variance))
    return np.mean(seen, 0) / keras.ops.convert_to_numpy(before(x)).var(axis=0)


def test_the_variance_shift_is_that_of_the_formula():
    """For a channel of mean c and variance v: ((c^2 + v) / (1 - rate) - c^2) / v."""
    x = np.random.default_rng(0).normal(1, 2, (256, 40)).astype("float32")
    (mistake,) = check(chain((40,), kd.Dropout(0.4), L.BatchNormalization(), L.Dense(2)), x)
    mean, variance = x.mean(0), x.var(0)
    expected = ((mean**2 + variance) / 0.6 - mean**2) / variance
    assert numbers(mistake)[0] == pytest.approx(expected.mean(), rel=0.03)
    assert numbers(mistake)[1] < numbers(mistake)[0] < numbers(mistake)[2]
    assert numbers(mistake)[3:] == (40, 256)


def test_a_normalisation_may_be_called_by_keyword():
    inputs = keras.Input((40,))
    model = keras.Model(inputs, L.Dense(2)(L.BatchNormalization()(inputs=kd.Dropout(0.4)(inputs=inputs))))
    (mistake,) = check(model, np.random.default_rng(0).normal(1, 2, (256, 40)).astype("float32"))
    assert numbers(mistake)[3:] == (40, 256)


@pytest.mark.parametrize("around", [lambda model: model, nested], ids=["alone", "nested"])
def test_the_variance_shift_is_what_the_normalisation_learns(around):
    model = chain(
        (8, 8, 2),
        L.Conv2D(4, 3, activation="relu"),
        kd.SpatialDropout2D(0.5),
        L.Flatten(),
        L.Dropout(0.5),
        L.Dense(9),
        bn(),
        L.Dense(2),
    )
    x = images(250)  # both figures are estimates: of 100 images they are 3.6 % apart, one standard deviation
    (mistake,) = check(around(model), (x, np.zeros(250)))
    assert numbers(mistake)[0] == pytest.approx(shift_in_keras(model, x).mean(), rel=0.1)
    assert numbers(mistake)[3:] == (9, 250)


def test_channels_are_those_of_the_normalised_axis_and_constant_ones_are_left_out():
    x = images(64, (3, 7))
    x[:, 1] = 0
    (mistake,) = check(chain((3, 7), L.Dropout(0.5), L.BatchNormalization(axis=1), L.Flatten(), L.Dense(2)), x)
    assert numbers(mistake)[3] == 2


def test_a_small_shift_is_only_reported_without_data():
    model = chain((8,), L.Dropout(0.05), L.BatchNormalization(), L.Dense(2))
    x = np.random.default_rng(0).normal(0, 1, (512, 8))
    assert found(model, x) == []
    assert [rule for rule, _ in found(model)] == ["dropout-before-batch-normalisation"]


def test_without_data_the_least_shift_directly_behind_the_dropout():
    (mistake,) = check(vector(L.Dropout(0.2), bn()))
    assert "1.25 times" in mistake.what
    (mistake,) = check(vector(L.Dropout(0.2), L.Dense(3), bn()))
    assert "give data" in mistake.what


def test_several_inputs_in_each_form():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = L.BatchNormalization()(L.Dropout(0.5)(L.Concatenate()([a, b])))
    model = keras.Model({"a": a, "b": b}, L.Dense(1)(joined))
    x = {"a": images(50, (4,)), "b": images(50, (3,))}
    for data in (x, (x, np.zeros(50)), [x["a"], x["b"]], ([x["a"], x["b"]], np.zeros(50)), (x["a"], x["b"])):
        (mistake,) = check(model, data)
        assert numbers(mistake)[3:] == (7, 50)


def test_nothing_in_the_model_changes():
    model = graph(lambda x: L.Dense(2)(L.BatchNormalization()(AlwaysOn(0.5)(kd.Dropout(0.5)(normalised()(x, training=True))))))
    model.compile("adam", "mse")
    x = images(64, (8,))
    model.fit(x, np.zeros((64, 2)), verbose=0)

    def state():
        return [np.array(keras.ops.convert_to_numpy(v)) for v in (*model.variables, *model.optimizer.variables)]

    before = state()
    names = {mistake.rule for mistake in check(model, x)}
    assert names == {
        "dropout-before-batch-normalisation",
        "drops-at-prediction",
        "mc-wrapper-batch-normalisation",
    }
    assert all(np.array_equal(a, b) for a, b in zip(before, state(), strict=True))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (np.zeros((9, 5)), r"input 'x' takes rows of shape \(8,\), two at least; got an array of shape \(9, 5\)"),
        (np.zeros((1, 8)), "two at least"),
        ([np.zeros((9, 8))] * 3, r"the model has 1 inputs \(x\); got 3 arrays"),
        ({"y": np.zeros((9, 8))}, "the model's inputs are x; got y"),
        (np.full((9, 8), "a"), "takes numbers"),
        (np.full((9, 8), np.nan), "nan or inf"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, line):
    with pytest.raises(BadInput, match=line):
        check(vector(L.Dropout(0.5), bn()), data)


@pytest.mark.parametrize("model", [None, L.Dense(3), keras.Sequential()])
def test_what_is_no_model_or_has_no_layers_is_refused(model):
    with pytest.raises(BadInput):
        check(model)


# Models whose calls are not in a graph


class Subclassed(keras.Model):
    """Followed where `call` only calls layers; not where it uses the values it gets."""

    def __init__(self, *layers, followed=True, on=None):
        super().__init__()
        self.all, self.followed, self.on = layers, followed, on

    def call(self, x, training=None):
        if not self.followed and float(keras.ops.convert_to_numpy(x).sum()) > 1e9:
            return x
        for layer in self.all:
            options = {"training": training if self.on is None else self.on} if layer._call_has_training_arg else {}
            x = layer(x, **options)
        return x


def built(*layers, shape=(8,), **options):
    model = Subclassed(*layers, **options)
    model(images(2, shape))
    return model


def test_a_subclassed_model_that_can_be_followed():
    assert found(built(L.Dense(4), L.Dropout(0.5, name="d"), L.BatchNormalization(), L.Dense(2))) == [
        ("dropout-before-batch-normalisation", "d")
    ]


def test_of_a_model_that_cannot_be_followed_the_layers_are_checked():
    layers = [
        L.MultiHeadAttention(2, 4, dropout=0.1, name="attention"),
        lstm(3, recurrent_dropout=0.2, name="recurrent"),
        L.Dropout(0.0, name="never"),
        L.Dropout(0.1, seed=7, name="one"),
        L.Dropout(0.2, seed=7, name="two"),
    ]

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = layers

        def call(self, x, training=None):
            if keras.ops.convert_to_numpy(x).sum() > 1e9:
                return x
            x = self.parts[1](self.parts[0](x, x, training=training), training=training)
            for layer in self.parts[2:]:
                x = layer(x, training=training)
            return x

    model = Own()
    model(images(2, (5, 8)))
    with pytest.warns(UserWarning, match="only single layers were checked, not their order: Own is a subclassed model"):
        assert found(model) == [
            ("keras-rate-0", "never"),
            ("shared-seed", "one"),
            ("recurrent-dropout", "recurrent"),
            ("attention-dropout", "attention"),
        ]


@pytest.mark.filterwarnings("ignore:only single layers")
def test_a_model_that_turns_training_on_itself_is_found_with_data():
    model = built(L.Dense(6), L.Dropout(0.5), L.BatchNormalization(), on=True)
    assert found(model) == []
    assert found(model, images(20, (8,))) == [("drops-at-prediction", model.name), ("mc-wrapper-batch-normalisation", model.name)]
    assert found(built(L.Dense(6), L.Dropout(0.5), L.BatchNormalization(), followed=False), images(20, (8,))) == []


@pytest.mark.parametrize("name", ["frozen", "always on", "normalisation in a wrapper", "rate 0", "one seed of ours"])
def test_a_saved_model_has_its_mistakes_still(name, tmp_path):
    rule, layer, make = HAVE[name]
    make().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert found(loaded) == [(rule, layer)]


# Layers that others wrote


@pytest.mark.parametrize("data", [None, images(6, (6, 8))], ids=["structure", "data"])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("calls", [1, 2])
def test_layers_of_others_are_no_mistakes(name, calls, data):
    assert found(model_with(name, calls), data) == []


@keras.saving.register_keras_serializable("tests")
class DropPath(L.Layer):
    """Has a known name, and any attribute."""

    def __init__(self, **attributes):
        super().__init__(name="d")
        for name, value in attributes.items():
            setattr(self, name, value)

    def call(self, x, training=None):
        return x


class Unreadable(DropPath):
    @property
    def rate(self):
        raise RuntimeError("not today")

    activation = noise_shape = seed = rate


ODD_RATES = {
    "missing": {},
    "None": {"rate": None},
    "text": {"rate": "0.5"},
    "not a number": {"rate": float("nan")},
    "a pair of texts": {"rate": ("low", "high")},
    "a function": {"rate": lambda step: 0.5},
    "a flag": {"rate": True},
}


@pytest.mark.parametrize("attributes", ODD_RATES.values(), ids=ODD_RATES)
def test_a_rate_that_is_no_number_is_not_known(attributes):
    assert rate(DropPath(**attributes)) == 0
    assert found(vector(DropPath(**attributes))) == []


def test_a_rate_may_be_a_variable_or_a_tensor():
    for value in (keras.Variable(0.25, trainable=False), keras.ops.convert_to_tensor(0.25), np.float32(0.25)):
        assert rate(DropPath(rate=value)) == 0.25
    (mistake,) = check(chain((8,), L.Dense(3), DropPath(rate=value)))
    assert mistake.what.startswith("DropPath 'd' (rate 0.25) stands behind the output layer")


def test_a_rate_may_be_an_option_of_another_name():
    class DropPath(L.Layer):
        def get_config(self):
            return {"dropout_rate": 0.25}

    assert rate(DropPath()) == 0.25


def test_attributes_that_raise_are_not_known():
    assert found(vector(Unreadable())) == []


def test_seeds_of_others_are_not_compared():
    seeds = [keras.random.SeedGenerator(3) for _ in range(2)]
    layers = [DropPath(rate=0.1, seed=seed, seeds=seed) for seed in (*seeds, None, 3, 3)]
    for number, layer in enumerate(layers):
        layer.name = f"d{number}"
    assert found(vector(*layers)) == []


def test_what_a_layer_of_others_ends_with_is_not_known():
    class FeedForward(L.Layer):
        """Its activation is that in the middle."""

        def __init__(self):
            super().__init__()
            self.activation, self.one, self.two = keras.activations.selu, L.Dense(9), L.Dense(6)

        def call(self, x):
            return self.two(self.activation(self.one(x)))

    class Own(L.Dense):
        pass

    assert found(vector(FeedForward(), L.Dropout(0.1))) == []
    assert found(vector(Own(6, "selu"), L.Dropout(0.1, name="d"))) == [("selu-with-plain-dropout", "d")]


class Failing(TrainingWrapper):
    def call(self, x, training=None):
        if keras.src.backend.common.global_state.get_global_attribute("fails", False):
            raise RuntimeError("no run\ntoday")
        return super().call(x, training)


def test_a_model_that_cannot_run_is_checked_for_the_rest_and_refused_with_data():
    model = vector(Failing(L.Dropout(0.5)), L.Dense(4), L.Dropout(0.0, name="d"))
    set_fails = keras.src.backend.common.global_state.set_global_attribute
    set_fails("fails", True)
    try:
        assert found(model) == [("keras-rate-0", "d")]
        with pytest.raises(BadInput, match="cannot be run on the data: RuntimeError: no run today"):
            check(model, images(4, (8,)))
    finally:
        set_fails("fails", False)


def test_tensors_tables_and_triples_are_data():
    import pandas as pd

    model, x = chain((40,), kd.Dropout(0.4), L.BatchNormalization(), L.Dense(2)), images(30, (40,))
    forms = [x, pd.DataFrame(x), keras.ops.convert_to_tensor(x), (x, x, x), [x], x.astype("float64")]
    if BACKEND == "torch":
        forms.append(keras.ops.convert_to_tensor(x).requires_grad_())
    for form in forms:
        (mistake,) = check(model, form)
        assert numbers(mistake)[3:] == (40, 30)


def test_a_stream_is_refused_with_a_way_out_that_works():
    class Set(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images(20, (8,)), np.zeros(20)

    model = vector(L.Dropout(0.5), bn())
    for data in (Set(), ((images(20, (8,)), np.zeros(20)) for _ in range(2))):
        with pytest.raises(BadInput, match=r"expected arrays; got .*\n.*x, y = next\(iter\(data\)\)"):
            check(model, data)
        x, _ = next(iter(data))
        assert len(check(model, x)) == 1


@pytest.mark.parametrize("data", [3, "x.npy", [[1, 2], [3]], [], (), {}, np.float32(3), [np.zeros((4, 8)), None]])
@pytest.mark.filterwarnings("ignore:only single layers")
def test_what_is_no_array_is_refused(data):
    for model in (vector(L.Dropout(0.5), bn()), built(L.Dense(6), followed=False)):
        with pytest.raises(BadInput, match=r"^data: "):
            check(model, data)


@pytest.mark.filterwarnings("ignore:only single layers")
def test_a_model_that_cannot_be_followed_takes_a_dict():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop = L.Dropout(0.5)

        def call(self, x, training=None):
            assert keras.ops.convert_to_numpy(x["b"]).sum() < 1e9
            return self.drop(x["a"] + x["b"], training=True)

    model, x = Own(), {"a": images(4, (8,)), "b": images(4, (8,))}
    model(x)
    assert found(model, x) == [("drops-at-prediction", model.name)]


def test_a_deep_model_is_checked():
    x = inputs = keras.Input((4,))
    for _ in range(150):  # Keras itself builds less than a thousand
        x = L.Identity()(L.Dropout(0.1)(x))
    assert found(keras.Model(inputs, L.Dense(2)(x))) == []


# What the evidence says of Keras


def trained(*layers):
    model = vector(*layers)
    model.compile("sgd", "mse")
    model.fit(images(32, (8,)), np.zeros((32, 2)), verbose=0)
    return model


def dropped(layer, shape=(40, 50), calls=1):
    """Which units a layer drops at its next calls."""
    return np.stack([keras.ops.convert_to_numpy(layer(np.ones(shape, "float32"), training=True)) == 0 for _ in range(calls)])


def dropped_values(layer, x):
    return keras.ops.convert_to_numpy(layer(x, training=True))


def test_a_live_rate_is_a_suspicion_where_keras_ignores_it():
    model = trained(L.Dropout(0.5, name="d"))
    assert found(model) == []
    model.get_layer("d").rate = 0.1
    assert found(model) == ([] if BACKEND == "torch" else [("live-rate", "d")])
    model.compile("sgd", "mse")
    assert found(model) == []
    assert found(trained(kd.Dropout(0.5, name="d"))) == []


def test_a_live_rate_of_ours_is_no_mistake():
    model = trained(kd.Dropout(0.5, name="d"))
    kd.set_rate(model, 0.1)
    assert found(model) == []


def test_neighbouring_seeds_meet_on_torch_only():
    model = vector(L.Dropout(0.5, seed=3, name="a"), L.Dropout(0.5, seed=4, name="b"))
    assert found(model) == ([("neighbouring-seeds", "b")] if BACKEND == "torch" else [])
    a, b = (dropped(layer, calls=3) for layer in model.layers[1:3])
    assert (a[1:] == b[:-1]).all() == (BACKEND == "torch")


@pytest.mark.parametrize("home", [L, kd], ids=["Keras's", "ours"])
def test_layers_with_one_seed_draw_the_same_numbers(home):
    def masks(rate, shape=(40, 50)):
        return dropped(home.Dropout(rate, seed=7), shape, 2)

    assert (masks(0.5) == masks(0.5)).all()
    assert masks(0.5)[masks(0.2)].all()  # what 0.2 drops, 0.5 drops
    assert (masks(0.5, (10, 50)).ravel()[:500] == masks(0.5)[0].ravel()[:500]).all()


def test_a_layer_of_rate_0_cannot_be_raised():
    with pytest.raises(AttributeError):
        trained(set_to(0.3, L.Dropout(0.0)))


def test_fixed_training_is_obeyed_in_a_plain_call_only():
    model, x = HAVE["frozen"][2](), images(64, (8,))
    same = [
        np.array_equal(*(keras.ops.convert_to_numpy(call(x)) for _ in range(2)))
        for call in (model, lambda x: model(x, training=False), lambda x: model.predict(x, verbose=0))
    ]
    assert same == [False, True, True]


def test_dropped_probabilities_cost_the_loss_its_gradient_or_make_it_nan():
    loss = keras.losses.categorical_crossentropy(np.eye(3, dtype="float32")[[1, 1]], np.array([[0.4, 0, 1], [0, 0, 0]], "float32"))
    values = keras.ops.convert_to_numpy(loss)
    assert values[0] == pytest.approx(-np.log(1e-7), abs=0.01)
    assert np.isnan(values[1])


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("make", [lambda **o: L.MultiHeadAttention(2, 4, **o), lambda **o: L.GroupQueryAttention(4, 2, 1, **o)])
def test_dropout_keeps_attention_from_the_fused_path_at_prediction(make, rate, monkeypatch):
    fused = []
    layer, x = make(dropout=rate), images(2, (5, 8))
    ops = __import__(type(layer).__module__, fromlist=["ops"]).ops
    original = ops.dot_product_attention
    monkeypatch.setattr(ops, "dot_product_attention", lambda *args, **options: fused.append(1) or original(*args, **options))
    layer(x, x, training=False)
    assert bool(fused) == (rate == 0)


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_dropout_keeps_layers_from_the_fused_kernel_at_prediction(kind, rate, monkeypatch):
    tried = []
    layer = {"lstm": lstm, "gru": gru}[kind](3, recurrent_dropout=rate)
    backend = __import__(type(layer).__module__, fromlist=["backend"]).backend

    def kernel(*args, **options):
        tried.append(1)
        raise NotImplementedError

    monkeypatch.setattr(backend, kind, kernel)
    layer(images(2, (5, 4)), training=False)
    assert bool(tried) == (rate == 0)
