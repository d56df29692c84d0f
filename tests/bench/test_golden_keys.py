"""Run keys stay what they are: those of models with our layers, wrappers, schedules and inner models, as the ledgers of users have
them. Keras writes the modules of layers into configs, and configs are in the keys: a layer that moves would train each ledger anew.

`golden_keys.json` was written by `python tests/bench/test_golden_keys.py`. It is written again only together with a new
`NUMERIC_VERSION`, or with another Keras, whose configs differ.
"""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_dropout as kd
from keras_dropout import companions
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.records import Variant
from keras_dropout.bench.study import recipes
from keras_dropout.reproductions import networks

L = keras.layers
FILE = Path(__file__).with_name("golden_keys.json")


def images():
    return np.random.default_rng(0).random((40, 6, 6, 2)).astype("float32")


def steps():
    return np.random.default_rng(0).random((40, 5, 4)).astype("float32")


def words():
    return np.random.default_rng(0).integers(2, 30, (40, 5)).astype("int32")


def sequential(*layers):
    return lambda: keras.Sequential([*(layer() for layer in layers), L.Flatten(), L.Dense(3, "softmax")])


def nested():
    def inner():
        return keras.Sequential([keras.Input((5,)), L.Dense(6, "relu"), kd.Dropout(0.2), L.Dense(5)])

    x = keras.Input((5, 4))
    y = L.GlobalAveragePooling1D()(L.TimeDistributed(inner())(L.Dense(5)(x)))
    return keras.Model(x, L.Dense(3, "softmax")(kd.StochasticDepth(0.1)(inner()(y)) + y))


def attention():
    x = keras.Input((5,), dtype="int32")
    y = kd.EmbeddingDropout(0.1, L.Embedding(30, 8))(kd.WordDropout(0.1, unknown=1)(x))
    for wrapper in (kd.AttentionDropout, kd.DropKey, kd.DropHead):
        y = L.LayerNormalization()(y + wrapper(0.2, L.MultiHeadAttention(2, 4))(y))
    return keras.Model(x, L.Dense(3, "softmax")(L.GlobalAveragePooling1D()(kd.TokenDropout(0.1)(y))))


def bounded():
    bound = companions.MaxNorm(3.0)
    layers = [L.Dense(8, "relu", kernel_constraint=bound, name="first"), networks.LocallyConnected2D(3, 2), kd.Dropout(0.5)]
    return keras.Sequential([keras.Input((6, 6, 2)), layers[1], L.Flatten(), layers[0], layers[2], L.Dense(3, "softmax")])


def network(*layers):
    """A model of these layers, each made when the model is, and a classifier."""
    return keras.Sequential([*layers, L.Flatten(), L.Dense(3, "softmax")])


SCHEDULES = {
    "linear": {"hidden": "linear(0.5, 0.0)"},
    "depth": {"hidden": "GaussianDropout(curriculum(0.4), over_depth=True)"},
    "steps": {"last": kd.schedules.Step([0.0, 0.5], at=[0.5])},
}
MODELS = {
    "units": (
        steps,
        lambda: network(L.Dense(8), kd.Dropout(0.2), L.Dense(8), kd.GaussianDropout(0.3), L.Dense(8, "selu"), kd.AlphaDropout(0.1)),
    ),
    "regions": (
        images,
        lambda: network(
            kd.Cutout(0.5, size=2),
            L.Conv2D(4, 3, padding="same"),
            kd.SpatialDropout2D(0.2),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            kd.DropBlock2D(0.1, block_size=2),
            L.BatchNormalization(),
        ),
    ),
    "weights": (
        steps,
        lambda: network(
            kd.DropConnect(0.3, L.Dense(8, "relu")),
            kd.TargetedDropout(0.5, L.Dense(8)),
            kd.WeightDrop(0.2, L.LSTM(4, return_sequences=True)),
        ),
    ),
    "learned": (
        steps,
        lambda: network(
            kd.ConcreteDropout(0.5, L.Dense(8, "relu"), weight_regularizer=1e-6),
            kd.VariationalDropout(0.3, L.Dense(8), kl_weight=1e-3),
            kd.SparseVariationalDropout(L.Dense(8), kl_weight=1e-3),
            kd.Standout(L.Dense(8)),
        ),
    ),
    "steps": (
        steps,
        lambda: network(
            kd.LockedDropout(0.1),
            kd.VariationalRNNDropout(0.2, L.LSTM(4, return_sequences=True)),
            kd.Zoneout(0.1, L.GRU(4, return_sequences=True)),
            kd.RecurrentDropout(0.2, L.LSTM(4, return_sequences=True)),
        ),
    ),
    "attention": (words, attention),
    "a model in a model": (steps, nested),
    "a bound and a network of the reproductions": (images, bounded),
    "a class, traced": (steps, recipes.CustomModel),
    "layers of Keras": (
        steps,
        lambda: network(L.Dense(8), L.Dropout(0.2), L.LSTM(4, dropout=0.1, return_sequences=True), L.SpatialDropout1D(0.1)),
    ),
}


def keys(name, ledger):
    """The keys of seed 0, by variant: ready variants and schedules."""
    x, make = MODELS[name]
    inputs, model = x(), make()
    model(inputs[:1])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    part = (inputs, np.arange(len(inputs)) % 3)
    variants = ["hidden", "last", "as-built", *(Variant.of(*each) for each in SCHEDULES.items())]
    plan = make_plan(model, (part, part), variants=variants, seeds=1, epochs=2, engine="reference", backend="jax", ledger=ledger)
    return {run.variant.name: run.key for run in plan.study.runs()}


def write():
    """Write the keys as they are now."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: keys(name, Path(folder, "runs.db")) for name in MODELS}
    FILE.write_text(json.dumps({"keras": keras.__version__, "keys": found}, indent=1) + "\n")


@pytest.mark.parametrize("name", MODELS)
def test_keys_stay(name, tmp_path):
    golden = json.loads(FILE.read_text())
    if golden["keras"] != keras.__version__:
        pytest.skip(f"the keys are those of Keras {golden['keras']}, whose configs differ")
    assert keys(name, tmp_path / "runs.db") == golden["keys"][name]


if __name__ == "__main__":
    write()
