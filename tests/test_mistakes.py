"""Known mistakes: each rule finds the model that has it, alone and nested, and leaves alone those that nearly do."""

import keras
import pytest

import keras_dropout as kd
from keras_dropout import check
from keras_dropout.evidence import KNOWN
from keras_dropout.mistakes import RULES

L = keras.layers
TORCH = keras.backend.backend() == "torch"


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
    return keras.Model(inputs, model(inputs))


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
    "regression": ("dropout-on-logits", "d", lambda: chain((5, 4), L.LSTM(1), kd.Dropout(0.2, name="d"))),
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
        lambda: vector(set_to(0.3, L.SpatialDropout1D(0.0, name="d"), L.Reshape((2, 3))), L.Flatten()),
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
    "recurrent": ("recurrent-dropout", "r", lambda: sequence(L.LSTM(3, recurrent_dropout=0.2, name="r"))),
    "recurrent, both ways": (
        "recurrent-dropout",
        "r",
        lambda: sequence(L.Bidirectional(L.GRU(3, recurrent_dropout=0.2), name="r")),
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
    "maps that are vectors": lambda: image(L.GlobalAveragePooling2D(keepdims=True), L.Dropout(0.2), L.Conv2D(3, 1)),
    "flattened maps": lambda: image(L.Flatten(), L.Dropout(0.2)),
    "an image itself": lambda: chain((8, 8, 2), L.Dropout(0.2), L.Conv2D(2, 3), L.Flatten(), L.Dense(2)),
    "steps of a sequence": lambda: sequence(L.Conv1D(4, 3), L.Dropout(0.2)),
    "rate 0 of ours": lambda: vector(kd.Dropout(0.0)),
    "a rate lowered to 0": lambda: vector(*set_to(0.0, L.Dropout(0.3, name="d"))),
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
    "dropout of recurrent inputs": lambda: sequence(L.LSTM(3, dropout=0.2)),
    "an activation without a fused kernel": lambda: sequence(L.LSTM(3, activation="relu", recurrent_dropout=0.2)),
    "no fused kernel wanted": lambda: sequence(L.GRU(3, use_cudnn=False, recurrent_dropout=0.2)),
    "a layer without a fused kernel": lambda: sequence(L.SimpleRNN(3, recurrent_dropout=0.2)),
    "recurrent dropout of ours": lambda: sequence(kd.WeightDrop(0.2, L.LSTM(3))),
    "attention whose scores are wanted": lambda: attention(L.MultiHeadAttention(2, 4, dropout=0.1), return_attention_scores=True),
    "attention dropout of ours": lambda: attention(kd.AttentionDropout(0.1, L.MultiHeadAttention(2, 4))),
    "training=False": lambda: graph(lambda x: L.Dense(2)(L.Dropout(0.5)(L.Dense(4)(x), training=False))),
    "a subclass that passes training on": lambda: vector(Passing(0.5)),
    "a wrapper that passes training on": lambda: vector(TrainingWrapper(L.Dropout(0.5), on=False)),
    "normalisation in a wrapper that passes training on": lambda: vector(TrainingWrapper(L.BatchNormalization(), on=False)),
    "half of the input": lambda: chain((8,), L.Dropout(0.5), L.Dense(2)),
    "0.7 inside": lambda: vector(L.Dropout(0.7)),
    "no dropout": vector,
    "an embedding": lambda: chain((5,), L.Embedding(9, 4), L.SpatialDropout1D(0.2), L.LSTM(3), L.Dense(2), dtype="int32"),
}


def bn():
    return L.BatchNormalization(name="norm")


def set_to(rate, layer, *before):
    layer.rate = rate
    return keras.Sequential([*before, layer], name="s") if before else [layer]


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


def test_a_mistake_as_text_and_as_plain_values():
    (mistake,) = check(HAVE["logits"][2]())
    document = mistake.document()
    assert list(document) == ["rule", "layer", "what", "evidence", "source", "mend"]
    assert all(value in str(mistake) for name, value in document.items() if name != "layer")
    assert "0.2" in mistake.what
