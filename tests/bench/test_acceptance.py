"""What the loss needs, what the last layer gives and what the targets are: each combination is taken, noted or refused."""

import keras
import numpy as np
import pytest

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.bench.study.checks import check_data
from keras_dropout.errors import BadInput

L = keras.layers
N = 12
X = np.linspace(-1, 1, 3 * N, dtype="float32").reshape(N, 3)
LABELS, TWO = np.arange(N, dtype="int32") % 3, np.arange(N, dtype="int32") % 2
HOT, HOT_TWO = np.eye(3, dtype="float32")[LABELS], np.eye(2, dtype="float32")[TWO]
SHARES = (HOT + 0.5) / 2.5
SEVERAL = np.maximum(HOT, HOT[::-1])
PADDED = np.stack([HOT, HOT[::-1], 0 * HOT], axis=1)
LINE = np.linspace(-2, 3, N, dtype="float32")
UNIT = np.linspace(0, 1, N, dtype="float32")
KINDS = ("ape", "bee", "cat")
SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"


class OwnDense(L.Dense):
    """A layer of the reader's, whose call may do anything."""

    def call(self, x):
        return keras.ops.softmax(super().call(x))


@keras.saving.register_keras_serializable("test_acceptance")
def own_loss(y, z):
    return keras.ops.mean(z) + 0 * keras.ops.mean(y)


def logits(loss):
    return getattr(keras.losses, loss)(from_logits=True)


def dense(units, activation=None):
    return [L.Dense(units, activation)]


def nested(units, activation):
    return [keras.Sequential([keras.Input((3,)), L.Dense(4), L.Dense(units, activation)])]


# name: (last layers, loss, targets, names of the classes, words that are said; None: nothing is)
TAKEN = {
    "softmax and class numbers": (dense(3, "softmax"), SPARSE, LABELS, KINDS, None),
    "softmax and one-hot": (dense(3, "softmax"), CATEGORICAL, HOT, (), None),
    "softmax and shares": (dense(3, "softmax"), CATEGORICAL, SHARES, (), None),
    "softmax as a layer": ([L.Dense(3), L.Softmax()], SPARSE, LABELS, (), None),
    "softmax before a shape": ([L.Dense(3, "softmax"), L.Reshape((3,)), L.Activation("linear")], SPARSE, LABELS, (), None),
    "softmax in an inner model": (nested(3, "softmax"), SPARSE, LABELS, (), None),
    "logits and class numbers": (dense(3), logits("SparseCategoricalCrossentropy"), LABELS, (), None),
    "logits and one-hot": (dense(3), logits("CategoricalCrossentropy"), HOT, (), None),
    "logits of two classes": (dense(1), logits("BinaryCrossentropy"), TWO, (), None),
    "relu as logits": (dense(3, "relu"), logits("CategoricalCrossentropy"), HOT, (), None),
    "tanh as logits": (dense(3, "tanh"), logits("CategoricalCrossentropy"), HOT, (), "tanh, from -1 to 1"),
    "relu as a logit of two classes": (dense(1, "relu"), logits("BinaryCrossentropy"), TWO, (), "relu, from 0 to inf"),
    "one-hot steps behind the end of a sequence": (
        [L.Reshape((3, 1)), L.Dense(3, "softmax")],
        CATEGORICAL,
        PADDED,
        (),
        "at 12 of 36",
    ),
    "logarithms as logits": (dense(3, "log_softmax"), logits("SparseCategoricalCrossentropy"), LABELS, (), None),
    "sigmoid of two classes": (dense(1, "sigmoid"), BINARY, TWO, ("no", "yes"), None),
    "sigmoid of several labels": (dense(3, "sigmoid"), BINARY, SEVERAL, (), None),
    "softmax over two units for a binary loss": (dense(2, "softmax"), BINARY, HOT_TWO, (), None),
    "softmax over three units for a binary loss": (dense(3, "softmax"), BINARY, HOT, (), "takes each unit alone"),
    "sigmoid of three classes": (dense(3, "sigmoid"), SPARSE, LABELS, (), "softmax is usual"),
    "a layer of the reader's": ([OwnDense(3)], SPARSE, LABELS, (), None),
    "softplus divided by its sum": (dense(3, "softplus"), SPARSE, LABELS, (), None),
    "a quantity": (dense(1), "mse", LINE, (), None),
    "two classes as a quantity": (dense(1), "mse", TWO, ("no", "yes"), "learned as the numbers 0 and 1"),
    "class numbers that are the quantities": (dense(1), "mae", LABELS, ("0", "1", "2"), None),
    "class numbers of arrays": (dense(1), "mse", LABELS, (), None),
    "the Brier score": (dense(3, "softmax"), "mse", HOT, KINDS, None),
    "sigmoid and a share": (dense(1, "sigmoid"), "mse", UNIT, (), None),
    "relu and some negative values": (dense(1, "relu"), "mse", LINE, (), "lie between -2 and 3"),
    "counts": (dense(1, "exponential"), "poisson", LABELS, (), None),
    "a share of nothing": (dense(1), "mape", UNIT, (), "hold 0"),
    "hinge of two classes": (dense(1, "tanh"), "hinge", TWO, (), None),
    "divergence of shares": (dense(3, "softmax"), "kl_divergence", SHARES, (), None),
    "a loss of the reader's": (dense(3), own_loss, LABELS, (), None),
}

# … (words of the first line, and of the way out that is then followed: layers, loss, targets, names)
REFUSED = {
    "linear for probabilities": (dense(3), SPARSE, LABELS, (), "takes probabilities, and the output is linear"),
    "linear in an inner model": (nested(3, None), SPARSE, LABELS, (), "the output is linear"),
    "linear behind a shape": ([L.Dense(3), L.Reshape((3,))], SPARSE, LABELS, (), "the output is linear"),
    "relu for probabilities": (dense(3, "relu"), CATEGORICAL, HOT, (), "the output is relu"),
    "relu as a layer": ([L.Dense(3), L.ReLU()], CATEGORICAL, HOT, (), "the output is relu"),
    "tanh for probabilities": (dense(1, "tanh"), BINARY, TWO, (), "the output is tanh"),
    "linear for a binary loss": (dense(1), BINARY, TWO, (), 'activation="sigmoid"'),
    "linear for a divergence": (dense(3), "kl_divergence", SHARES, (), "takes probabilities"),
    "softmax for logits": (dense(3, "softmax"), logits("SparseCategoricalCrossentropy"), LABELS, (), "takes logits"),
    "sigmoid for logits": (dense(1, "sigmoid"), logits("BinaryCrossentropy"), TWO, (), "takes logits"),
    "softmax over one unit": (dense(1, "softmax"), BINARY, TWO, (), "softmax over one unit, which is 1"),
    "softmax over one unit as a quantity": (dense(1, "softmax"), "mse", UNIT, (), "softmax over one unit"),
    "one class of many": (dense(1, "sigmoid"), CATEGORICAL, UNIT, (), "over one unit is 0"),
    "three classes on one sigmoid": (dense(1, "sigmoid"), BINARY, LABELS, (), "must lie between 0 and 1"),
    "no class at all": (dense(3, "softmax"), CATEGORICAL, HOT * (LABELS > 0)[:, None], (), "sum to 1 for the loss"),
    "several labels at once": (dense(3, "softmax"), CATEGORICAL, SEVERAL, (), "shares of the classes that sum to 1"),
    "names as a quantity": (dense(1), "mse", LABELS, KINDS, "whose numbers have no distances"),
    "grades as their places": (dense(1), "mse", LABELS, ("1", "2", "5"), "--task regression"),
    "class numbers on two units": (dense(2), "mse", TWO, (), "sparse_categorical_crossentropy"),
    "class numbers on three sigmoids": (dense(3, "sigmoid"), BINARY, LABELS, (), "sparse_categorical_crossentropy"),
    "quantities as classes": (dense(3, "softmax"), SPARSE, LINE, (), "must be class numbers"),
    "a quantity beyond sigmoid": (dense(1, "sigmoid"), "mse", LINE, (), "from 0 to 1"),
    "a quantity beyond tanh": (dense(1, "tanh"), "mae", LINE, (), "from -1 to 1"),
    "counts that are negative": (dense(1), "poisson", LINE, (), "must be at least 0"),
    "counts of a linear output": (dense(1), "poisson", LABELS, (), 'activation="exponential"'),
    "logarithms of negative values": (dense(1), "msle", LINE, (), "must be at least 0"),
    "hinge of three classes": (dense(1, "tanh"), "hinge", LABELS, (), "must be -1 and 1"),
    "the angle of one number": (dense(1), "cosine_similarity", LINE, (), "sees the sign alone"),
}


def check(layers, loss, y, classes):
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", loss)
    part = Part(X, y)
    return check_data(model, Data("data", part, part, 2, classes=classes), "held-out", 4, model.get_compile_config()["loss"])


@pytest.mark.parametrize("case", TAKEN)
def test_what_goes_together_is_taken(case):
    *given, said = TAKEN[case]
    notes = check(*given)
    assert len(notes) == 0 if said is None else (notes and said in notes[0])


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case):
    *given, said = REFUSED[case]
    with pytest.raises(BadInput) as caught:
        check(*given)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "layers", "loss"),
    [
        ("linear for probabilities", dense(3, "softmax"), SPARSE),
        ("linear for probabilities", dense(3), logits("SparseCategoricalCrossentropy")),
        ("linear for a binary loss", dense(1, "sigmoid"), BINARY),
        ("softmax for logits", dense(3, "softmax"), SPARSE),
        ("softmax for logits", dense(3, "linear"), logits("SparseCategoricalCrossentropy")),
        ("softmax over one unit", dense(1, "sigmoid"), BINARY),
        ("several labels at once", dense(3, "sigmoid"), BINARY),
        ("names as a quantity", dense(3, "softmax"), SPARSE),
        ("class numbers on two units", dense(2, "softmax"), SPARSE),
        ("class numbers on two units", dense(1), "mse"),
        ("a quantity beyond sigmoid", dense(1, "linear"), "mse"),
        ("counts of a linear output", dense(1, "softplus"), "poisson"),
        ("the angle of one number", dense(1), "mse"),
    ],
)
def test_the_way_out_works(broken, layers, loss):
    _, _, y, classes, _ = REFUSED[broken]
    check(layers, loss, y, classes)


@pytest.mark.parametrize(("case", "offered"), [("linear for a binary loss", True), ("tanh for probabilities", False)])
def test_logits_are_offered_where_the_output_has_no_bounds(case, offered):
    with pytest.raises(BadInput) as caught:
        check(*REFUSED[case][:-1])
    assert ("from_logits=True" in str(caught.value)) == offered


def test_an_output_of_several_is_named():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {"kind": L.Dense(3, name="kind")(inputs), "size": L.Dense(1, name="size")(inputs)})
    model.compile("sgd", {"kind": SPARSE, "size": "mse"})
    part = Part(X, {"kind": LABELS, "size": LINE})
    with pytest.raises(BadInput, match="the output 'kind' is linear"):
        check_data(model, Data("data", part, part, 2), "held-out", 4, model.get_compile_config()["loss"])


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_layer_that_a_configuration_would_make_twice_is_refused(wrapped, tmp_path):
    """Keras writes what stands in a wrapper into the wrapper: a study would train two layers where there is one."""
    inner, inputs = keras.layers.Dense(4), keras.Input((5, 4))
    steps = (keras.layers.TimeDistributed(inner) if wrapped else inner)(inputs)
    outputs = keras.layers.Dense(3, "softmax")(inner(keras.layers.GlobalAveragePooling1D()(steps)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = (np.random.default_rng(0).normal(size=(60, 5, 4)).astype("float32"), np.arange(60) % 3)
    if wrapped:
        with pytest.raises(BadInput, match="the model has 4 weights; made again from its configuration, it has 6"):
            make_plan(model, data, engine="reference", ledger=tmp_path / "r.db")
    else:
        assert len(make_plan(model, data, engine="reference", ledger=tmp_path / "r.db").study.variants) > 1
