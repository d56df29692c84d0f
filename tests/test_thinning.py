"""A thinned network is the masked one: on random architectures, with the masks computed by numpy from the formulas."""

import os
import subprocess
import sys
import zlib

import keras
import numpy as np
import oracles
import pytest

import keras_dropout as kd
from keras_dropout import BadInput, sampling, thin, thinning
from keras_dropout.masks import derive_seed
from keras_dropout.models import graph

L = keras.layers
JAX = keras.backend.backend() == "jax"
SEED = 5


def masked(model, x, sample, seed=SEED):
    """What the model gives each example with the masks of one sample: as in training, but for normalisations; the slow way.

    Keras's dropout layers must have been replaced by ours. The states are numpy's.
    """
    streams = {id(layer.stream.state): layer.stream for layer in model._flatten_layers() if hasattr(layer, "stream")}
    words = {key: oracles.state(derive_seed(seed, "samples", number)) for number, key in enumerate(streams)}
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    for layer in norms:
        layer.trainable = False
    found = []
    for row in x:
        for key, stream in streams.items():
            stream.state.assign(oracles.fold(oracles.fold(oracles.fold(words[key], sample), 0), 0))
        found.append(keras.ops.convert_to_numpy(model(row[None], training=True))[0])
    for layer in norms:
        layer.trainable = True
    return np.array(found)


def randomise(model, rng):
    """Weights of all kinds away from their starting values, so that a unit that is missing or moved is seen."""
    for layer in model._flatten_layers():
        if not isinstance(layer, keras.Model) and layer.weights and not list(layer._flatten_layers(include_self=False)):
            new = [rng.normal(0, 0.7, w.shape).astype("float32") for w in layer.get_weights()]
            if isinstance(layer, L.BatchNormalization):
                new[-1] = np.abs(new[-1]) + 0.5
            layer.set_weights(new)
    return model


def random_vectors(rng):
    """A network of vectors with branches, sums, joins, normalisations, nested models and shared dropout."""
    pick = rng.integers
    inputs = keras.Input((3, 4))
    shared = kd.Dropout(float(rng.uniform(0.1, 0.8)))
    x = [shared(L.Flatten()(inputs)), L.Flatten()(shared(inputs)), L.Flatten()(inputs)][pick(3)]
    for _ in range(pick(2, 5)):
        width = int(pick(2, 9))
        x = L.Dense(width, activation=str(rng.choice(["relu", "tanh", "sigmoid", "linear", "softmax"])), use_bias=bool(pick(2)))(x)
        what = pick(9)
        if what == 0:
            x = L.BatchNormalization()(x)
        elif what == 1:
            x = L.LayerNormalization()(x)
        elif what == 2:
            x = L.Add()([x, kd.Dropout(0.5)(L.Dense(width)(x))])
        elif what == 3:
            x = L.Concatenate()([shared(x), L.Dense(3, "relu")(x), kd.Dropout(0.4)(x)])
        elif what == 4:
            x = L.PReLU()(shared(x))
        elif what == 5:
            inner = keras.Sequential([keras.Input((width,)), L.Dense(width, "relu"), kd.Dropout(0.5), L.Dense(5)])
            x = inner(x)
        elif what == 6:
            x = L.Multiply()([shared(x), L.Dense(width, "sigmoid")(x)])
        elif what == 7:
            x = kd.StochasticDepth(0.5)(L.Dense(width)(x)) + x
        x = [shared, kd.Dropout(float(rng.choice([0.0, 0.2, 0.5, 0.9]))), kd.Dropout(1.0)][rng.choice(3, p=[0.48, 0.48, 0.04])](x)
        if pick(3) == 0:
            x = [L.BatchNormalization(), L.Activation("sigmoid"), L.ReLU(), L.LayerNormalization()][pick(4)](x)
    return keras.Model(inputs, L.Dense(3, "softmax")(shared(x))), rng.normal(size=(2, 3, 4)).astype("float32")


def random_images(rng):
    pick = rng.integers
    inputs = keras.Input((8, 8, 3))
    x = kd.SpatialDropout2D(0.3)(inputs) if pick(2) else inputs
    for _ in range(pick(1, 4)):
        channels = int(pick(2, 7))
        x = L.Conv2D(channels, 3, padding="same", activation=str(rng.choice(["relu", "elu", "linear"])))(x)
        what = pick(6)
        if what == 0:
            x = L.BatchNormalization()(x)
        elif what == 1:
            x = L.Add()([x, kd.SpatialDropout2D(0.5)(L.Conv2D(channels, 1)(x))])
        elif what == 2:
            x = L.DepthwiseConv2D(3, padding="same")(kd.SpatialDropout2D(0.5)(x))
        elif what == 3:
            x = L.PReLU(shared_axes=[1, 2])(x)
        elif what == 4:
            x = L.Concatenate()([x, kd.SpatialDropout2D(0.5)(L.Conv2D(2, 1)(x))])
        x = kd.SpatialDropout2D(float(rng.choice([0.2, 0.5, 0.9])))(x)
        x = [L.MaxPooling2D(2, padding="same"), L.AveragePooling2D(2, padding="same"), L.ReLU(), L.UpSampling2D()][pick(4)](x)
    x = kd.Dropout(0.6)(x) if (flat := pick(2)) and pick(2) else x
    x = L.Flatten()(x) if flat else [L.GlobalAveragePooling2D(), L.GlobalMaxPooling2D()][pick(2)](x)
    x = kd.Dropout(0.3)(x)
    return keras.Model(inputs, L.Dense(2)(x)), rng.normal(size=(2, 8, 8, 3)).astype("float32")


KINDS = {"vectors": (random_vectors, 8), "images": (random_images, 3)}
CASES = [(kind, number) for kind, (_, count) in KINDS.items() for number in range(count)]


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_it_is_the_masked_network(kind, number):
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
    model, x = KINDS[kind][0](rng)
    randomise(model, rng)
    before = [np.array(w) for w in model.get_weights()]
    sample = int(rng.integers(1000))
    thinned = thin(model, SEED, sample)
    assert not any(sampling.drops(layer) for layer in thinned._flatten_layers())
    got = keras.ops.convert_to_numpy(thinned(x, training=False))
    np.testing.assert_allclose(got, masked(model, x, sample), rtol=2e-4, atol=2e-5)
    assert all(map(np.array_equal, before, model.get_weights()))


def classifier(dropout=kd.Dropout, rates=(0.2, 0.5, 0.5)):
    layers = [L.Flatten(), dropout(rates[0]), L.Dense(20, "relu"), dropout(rates[1]), L.Dense(12, "relu"), dropout(rates[2])]
    model = keras.Sequential([keras.Input((4, 4)), *layers, L.Dense(3, "softmax", name="classes")])
    return randomise(model, np.random.default_rng(0))


X = np.random.default_rng(1).normal(size=(5, 4, 4)).astype("float32")


@pytest.mark.skipif(not JAX, reason="Passes shares masks on JAX")
@pytest.mark.parametrize("dropout", [kd.Dropout, L.Dropout])
def test_it_is_what_passes_gives(dropout):
    model = classifier(dropout)
    (_, _, found), *_ = sampling.Passes(model, masks="shared", seed=9).run(X, 4)
    for sample in range(4):
        np.testing.assert_allclose(thin(model, 9, sample).predict(X, verbose=0), found["outputs"][sample], atol=2e-6)
    assert not np.allclose(thin(model, 9, 0).predict(X, verbose=0), found["outputs"][1], atol=1e-3)


@pytest.mark.skipif(not JAX, reason="Passes shares masks on JAX")
def test_keras_own_layers_on_channels():
    layers = [L.Conv2D(6, 3, activation="relu"), L.SpatialDropout2D(0.5), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()]
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers, L.SpatialDropout2D(0.5), L.GlobalAveragePooling2D(), L.Dense(2)])
    randomise(model, np.random.default_rng(3))
    x = np.random.default_rng(4).normal(size=(3, 8, 8, 2)).astype("float32")
    (_, _, found), *_ = sampling.Passes(model, masks="shared", seed=2).run(x, 2)
    np.testing.assert_allclose(thin(model, 2, 1).predict(x, verbose=0), found["outputs"][1], rtol=1e-4, atol=1e-5)


def test_dropped_units_are_gone_and_the_rest_is_scaled_in_the_next_kernel():
    model = classifier()
    thinned = thin(model, SEED, 3)
    assert [type(layer).__name__ for layer in thinned.layers] == ["InputLayer", "Flatten", "Select", "Dense", "Dense", "Dense"]
    state = {n: oracles.fold(oracles.fold(oracles.fold(oracles.state(derive_seed(SEED, "samples", n)), 3), 0), 0) for n in range(3)}
    kept = [oracles.kept(state[n], rate, (1, size))[0] for n, (rate, size) in enumerate([(0.2, 16), (0.5, 20), (0.5, 12)])]
    first, second, last = (layer.get_weights() for layer in thinned.layers[3:])
    for (kernel, bias), old, rows, columns, scale in [
        (first, model.layers[2], kept[0], kept[1], 1.25),
        (second, model.layers[4], kept[1], kept[2], 2),
        (last, model.layers[6], kept[2], np.ones(3, bool), 2),
    ]:
        np.testing.assert_allclose(kernel, old.get_weights()[0][rows][:, columns] * scale, rtol=1e-6)
        np.testing.assert_array_equal(bias, old.get_weights()[1][columns])
    assert thinning.sizes(thinned)[0][2:] == (kept[1].sum(), (kept[0].sum() + 1) * kept[1].sum())


@pytest.mark.parametrize("rate", [0.1, 0.7, 0.99, 1.0])
def test_single_entries_in_front_of_a_flatten(rate):
    """Also where a whole channel goes with them, where a sum needs what is dropped, and with one scale behind another."""
    inputs = keras.Input((2, 5))
    dropped = kd.Dropout(rate)(kd.SpatialDropout1D(0.5)(L.Dense(4, name="made")(inputs)))
    one, two = L.Flatten()(dropped), L.Flatten()(dropped)
    x = L.Concatenate()([L.Dense(3)(one), L.Add()([two, L.Dense(8)(one)])])
    model = randomise(keras.Model(inputs, L.Dense(2)(x)), np.random.default_rng(6))
    x = np.random.default_rng(3).normal(size=(3, 2, 5)).astype("float32")
    for sample in range(2):
        np.testing.assert_allclose(thin(model, SEED, sample).predict(x, verbose=0), masked(model, x, sample), rtol=1e-4, atol=1e-5)


def test_what_place_puts_on_images():
    model = kd.place(classifier(), {"input": 0.3, "hidden": 0.5})
    thinned = thin(model, SEED, 1)
    np.testing.assert_allclose(thinned.predict(X, verbose=0), masked(model, X, 1), atol=2e-6)
    assert thinned.count_params() < model.count_params() / 2


@pytest.mark.parametrize("rates", [(1.0, 0.5, 0.5), (0.2, 1.0, 0.5), (0.2, 0.5, 1.0), (1.0, 1.0, 1.0)])
def test_where_everything_is_dropped_one_zero_unit_stays(rates):
    model = classifier(rates=rates)
    np.testing.assert_allclose(thin(model, SEED, 1).predict(X, verbose=0), masked(model, X, 1), atol=2e-6)


def test_a_layer_normalisation_sees_all_its_units():
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(8, name="made"), kd.Dropout(0.5), L.LayerNormalization(), kd.Dropout(0.5), L.Dense(2, name="y")]
    )
    thinned = thin(randomise(model, np.random.default_rng(2)), SEED, 0)
    sizes = {path: units for path, _, units, _ in thinning.sizes(thinned)}
    assert sizes["made"] == 8
    assert thinned.get_layer("y").get_weights()[0].shape[0] < 8


def test_padding_masks_go_along():
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), L.Embedding(9, 6, mask_zero=True), kd.SpatialDropout1D(0.5), L.GlobalAveragePooling1D()]
        + [L.Dense(3)]
    )
    randomise(model, np.random.default_rng(2))
    words = np.array([[3, 4, 0, 0, 0], [1, 2, 3, 4, 5]])
    np.testing.assert_allclose(thin(model, SEED, 2).predict(words, verbose=0), masked(model, words, 2), atol=2e-6)


def test_a_subclass_that_can_be_followed():
    class Followed(keras.Model):
        def __init__(self):
            super().__init__()
            self.made, self.dropout, self.used = L.Dense(9, "relu"), kd.Dropout(0.5), L.Dense(2)

        def call(self, x, training=False):
            return self.used(self.dropout(self.dropout(self.made(x), training=training), training=training))

    model, x = Followed(), np.random.default_rng(3).normal(size=(4, 5)).astype("float32")
    model(x)
    np.testing.assert_allclose(thin(model, SEED, 2).predict(x, verbose=0), masked(model, x, 2), atol=2e-6)


def test_compile_settings_and_the_saved_file_keep(tmp_path):
    model = classifier()
    model.compile(keras.optimizers.SGD(0.125), "sparse_categorical_crossentropy", metrics=["accuracy"])
    thinned = thin(model, SEED, 4)
    assert float(keras.ops.convert_to_numpy(thinned.optimizer.learning_rate)) == 0.125
    thinned.fit(X, np.arange(5) % 3, epochs=1, verbose=0)
    thinned.save(tmp_path / "thinned.keras")
    program = (
        "import sys, keras, numpy as np, keras_dropout.layers\n"
        "x = np.random.default_rng(1).normal(size=(5, 4, 4)).astype('float32')\n"
        "np.save(sys.argv[2], keras.models.load_model(sys.argv[1]).predict(x, verbose=0))"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "thinned.keras", tmp_path / "y.npy"], check=True, env=os.environ)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), thinned.predict(X, verbose=0), atol=1e-6)


def block(*layers, shape=(6, 4)):
    return keras.Sequential([keras.Input(shape), *layers, L.Activation("relu"), L.Flatten(), L.Dense(2)])


REFUSED = {
    "elementwise on a map": (lambda: block(kd.Dropout(0.5, name="here")), "Dropout 'here' drops single entries"),
    "Keras's on a map": (lambda: block(L.Dropout(0.5, name="here")), "Dropout 'here' drops single entries"),
    "DropBlock": (lambda: block(kd.DropBlock1D(0.5, 2, name="here")), "DropBlock1D 'here' drops in a way"),
    "TokenDropout": (lambda: block(kd.TokenDropout(0.5, name="here")), "TokenDropout 'here' drops in a way"),
    "Gaussian": (lambda: block(kd.GaussianDropout(0.5, name="here"), shape=(6,)), "GaussianDropout 'here' drops in a way"),
    "a recurrent layer's own": (lambda: block(L.LSTM(3, dropout=0.5, name="here")), "LSTM 'here' drops in a way"),
    "a wrapper": (lambda: block(kd.DropConnect(0.5, L.Dense(3), name="here"), shape=(6,)), "DropConnect 'here' drops in a way"),
    "TimeDistributed": (lambda: block(L.TimeDistributed(kd.Dropout(0.5), name="here")), "TimeDistributed 'here' drops in a way"),
    "channels first": (lambda: block(kd.SpatialDropout1D(0.5, data_format="channels_first", name="here")), "another axis"),
    "no dropout": (lambda: block(), "no dropout layer with a rate above 0"),
    "rate 0": (lambda: block(kd.Dropout(0.0)), "no dropout layer with a rate above 0"),
    "not a model": (lambda: L.Dense(3), "expected a Keras model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, words = REFUSED[case]
    with pytest.raises(BadInput) as refused:
        thin(make())
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("options", [{"seed": -1}, {"sample": -1}, {"sample": 1.5}, {"sample": 2**32}])
def test_numbers_that_cannot_be(options):
    with pytest.raises(BadInput):
        thin(classifier(), **options)


def test_a_fault_is_seen(monkeypatch):
    """With rows of the kernel taken as if none were dropped before them, the comparison with the masked network fails."""
    model = classifier()
    right = masked(model, X, 3)
    states = thinning._factors

    def moved(*arguments):
        return [None if factor is None else np.roll(factor, 1) for factor in states(*arguments)]

    monkeypatch.setattr(thinning, "_factors", moved)
    assert not np.allclose(thin(model, SEED, 3).predict(X, verbose=0), right, atol=1e-3)


def test_calls_keep_their_order_when_a_model_is_copied():
    """The masks of a layer with several calls follow their order; here there are some at one depth."""
    inputs, dropout = keras.Input((6,)), kd.Dropout(0.5)
    x = L.Add()([dropout(L.Dense(5, name=f"d{n}")(inputs)) for n in (3, 1, 2, 0)])
    model = keras.Model(inputs, L.Dense(2)(x))
    once, again = graph.read(model), graph.read(graph.copy(model))
    assert [(c.path, c.inputs, c.outputs) for c in once.calls] == [(c.path, c.inputs, c.outputs) for c in again.calls]
    x = np.random.default_rng(3).normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(thin(model, SEED, 2).predict(x, verbose=0), masked(model, x, 2), atol=2e-6)
