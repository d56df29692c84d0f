"""The ensemble that dropout stands for: counted by hand, enumerated, averaged; and the command."""

import contextlib
import itertools
import json
import math
import shutil
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import keras_dropout as kd
from keras_dropout import BadInput, cli, ensemble, sampling
from keras_dropout.ensemble import Networks, Units, average, exact_average, networks

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="thinned networks that all examples share need JAX")


def fill(model, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, spread, w.shape) for w in model.get_weights()])
    return model


def chain(shape, *layers):
    return fill(keras.Sequential([keras.Input(shape), *layers]))


def one_layer(rate, outputs=3, activation="softmax"):
    return chain((10,), kd.Dropout(rate), L.Dense(outputs, activation))


def deep():
    return chain((4,), kd.Dropout(0.2), L.Dense(7, "relu"), L.Dropout(0.5), L.Dense(3, "softmax"))


def examples(size, count=6, seed=1):
    return np.random.default_rng(seed).normal(size=(count, size)).astype("float32")


# How many there are.


def test_decisions_by_layer():
    shared = kd.Dropout(0.25)
    inputs = keras.Input((6, 6, 2))
    x = L.SpatialDropout2D(0.4, name="channels")(L.Conv2D(5, 3)(inputs))
    x = shared(L.Dense(8)(shared(L.Flatten()(kd.Dropout(0.5, noise_shape=(None, 1, 4, 1), name="rows")(x)))))
    found = networks(keras.Model(inputs, L.Dense(2)(kd.Dropout(0.0)(x))))
    assert [(each.kind, each.decisions) for each in found.layers] == [
        ("SpatialDropout2D", 5),
        ("Dropout", 4),
        ("Dropout", 80),
        ("Dropout", 8),
    ]
    assert found.decisions == 97
    assert found.count == 2**97
    rate = found.layers[0].rate
    q = (rate**2 + (1 - rate) ** 2) ** 5 * 0.5**4 * (0.25**2 + 0.75**2) ** 88
    assert found.coincidence == pytest.approx(q)


def test_a_rate_of_one_leaves_no_decision():
    assert networks(chain((3,), kd.Dropout(1.0), L.Dense(4), kd.Dropout(0.5), L.Dense(2))).count == 16


def counted(*layers):
    return Networks(tuple(Units(f"d{n}", "Dropout", rate, size) for n, (rate, size) in enumerate(layers)))


def enumerated(*layers):
    """The probability of each network."""
    rates = [rate for rate, size in layers for _ in range(size)]
    return np.array(
        [math.prod(r if off else 1 - r for r, off in zip(rates, bits)) for bits in itertools.product((0, 1), repeat=len(rates))]
    )


@pytest.mark.parametrize("layers", [((0.5, 6),), ((0.2, 3), (0.7, 4), (0.2, 2)), ((0.01, 8),)])
@pytest.mark.parametrize("draws", [1, 2, 30, 5000])
def test_the_expected_number_of_different_networks(layers, draws):
    p = enumerated(*layers)
    found = counted(*layers).visited(draws)
    assert found.expected == pytest.approx((1 - (1 - p) ** draws).sum(), rel=1e-9)
    assert found.lower <= found.expected * (1 + 1e-9)
    assert found.expected <= found.upper
    assert counted(*layers).coincidence == pytest.approx((p**2).sum())


def test_large_networks_have_the_expectation_or_its_bounds():
    assert counted((0.2, 784), (0.5, 1000)).visited(3_600_000).expected == pytest.approx(3_600_000, rel=1e-9)
    many = counted((0.1, 500), (0.2, 500), (0.3, 500)).visited(1000)
    assert many.expected is None
    assert (many.lower, many.upper) == (pytest.approx(1000), 1000)
    assert counted((0.5, 3)).visited(10**6).upper == 8


class Recorder(L.Layer):
    """Notes which units come in as zero, example by example, in training."""

    def __init__(self, note):
        super().__init__()
        self.note = note

    def call(self, x, training=False):
        if training:
            self.note(map(tuple, np.asarray(x) != 0))
        return x


def test_a_real_training_visits_as_many():
    seen, size, rate, count, epochs = [], 8, 0.3, 40, 5
    model = keras.Sequential([keras.Input((size,)), kd.Dropout(rate, seed=1), Recorder(seen.extend), L.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    seen.clear()  # of what Keras computes to find the shapes
    model.fit(np.ones((count, size), "float32"), np.zeros(count), epochs=epochs, batch_size=8, verbose=0)
    assert len(seen) == count * epochs
    p, rng = enumerated((rate, size)), np.random.default_rng(0)
    spread = np.std([len(np.unique(rng.choice(len(p), count * epochs, p=p))) for _ in range(2000)])
    expected = networks(model).visited(count * epochs).expected
    assert abs(len(set(seen)) - expected) < 4 * spread
    assert 50 < expected < 120  # far from all draws, and from all networks


# All of them.


@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize(("outputs", "activation"), [(3, "softmax"), (1, "sigmoid")])
def test_of_one_layer_the_geometric_mean_is_weight_scaling(rate, outputs, activation):
    """Baldi and Sadowski 2013."""
    found = exact_average(one_layer(rate, outputs, activation), examples(10))
    assert found.networks == 1024
    np.testing.assert_allclose(found.geometric, found.scaled, atol=1e-5)
    assert np.abs(found.arithmetic - found.scaled).max() > 0.01


def test_of_a_deep_network_it_is_not():
    found = exact_average(deep(), examples(4))
    assert found.networks == 2**11
    assert np.abs(found.geometric - found.scaled).max() > 1e-3
    np.testing.assert_allclose([found.arithmetic.sum(-1), found.geometric.sum(-1)], 1, atol=1e-6)


def test_all_of_them_one_by_one():
    """Against numpy, network by network."""
    model, x = deep(), examples(4)
    (w1, b1, w2, b2), sums = [each.astype("float64") for each in model.get_weights()], np.zeros((2, 6, 3))
    for bits in itertools.product((0, 1), repeat=11):
        m1, m2 = np.array(bits[:4]), np.array(bits[4:])
        weight = np.prod(np.where(m1, 0.8, 0.2)) * np.prod(np.where(m2, 0.5, 0.5))
        z = (np.maximum((x * m1 / 0.8) @ w1 + b1, 0) * m2 / 0.5) @ w2 + b2
        sums += weight * np.array([softmax(z, axis=-1), log_softmax(z, axis=-1)])
    found = exact_average(model, x)
    np.testing.assert_allclose(found.arithmetic, sums[0], atol=1e-5)
    np.testing.assert_allclose(found.geometric, softmax(sums[1], axis=-1), atol=1e-5)


def test_inputs_go_by_their_names():
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    model = fill(keras.Model([b, a], L.Dense(3, "softmax")(L.Concatenate()([kd.Dropout(0.5)(b), a]))))
    x = {"a": examples(3, seed=1), "b": examples(3, seed=2)}
    found, expected = exact_average(model, x), exact_average(model, [x["b"], x["a"]])
    np.testing.assert_array_equal(found.arithmetic, expected.arithmetic)
    np.testing.assert_allclose(found.scaled, model.predict([x["b"], x["a"]], verbose=0), atol=1e-6)


def test_logits_and_a_rate_of_one():
    model = chain((10,), kd.Dropout(0.5), L.Dense(3))
    found = exact_average(model, examples(10), logits=True)
    np.testing.assert_allclose(found.geometric, found.scaled, atol=1e-5)
    model = chain((2,), L.Dense(3), kd.Dropout(1.0), L.Dense(3, "softmax"))
    found = exact_average(model, examples(2))
    assert found.networks == 1
    np.testing.assert_allclose(found.arithmetic, np.broadcast_to(softmax(model.get_weights()[-1]), (6, 3)), atol=1e-6)


def test_a_wrong_weight_is_seen(monkeypatch):
    """Were all networks weighed alike at rate 0.2, the law would not hold."""
    monkeypatch.setattr(ensemble.math, "log1p", lambda value: math.log(-value))
    found = exact_average(one_layer(0.2), examples(10))
    assert np.abs(found.geometric / found.geometric.sum(-1, keepdims=True) - found.scaled).max() > 1e-3


def test_averages_of_samples_go_to_those_of_all():
    model, x = deep(), examples(4, 8)
    y = np.arange(8) % 3
    found, all_ = average(model, x, y, samples=3000, seed=2), exact_average(model, x)
    nll = [-np.log(p[np.arange(8), y]).mean() for p in (all_.arithmetic, all_.geometric)]
    assert found.scores[-1].nll == pytest.approx(nll[0], rel=0.03)
    assert found.scores[-1].geometric_nll == pytest.approx(nll[1], rel=0.03)
    assert found.scaled_nll == pytest.approx(-np.log(all_.scaled[np.arange(8), y]).mean(), rel=1e-4)


# Some of them.


def by_hand(model, x, y, samples, size, masks):
    """(error, NLL) of each group of `size` networks, (arithmetic, geometric), from all outputs at once."""
    passes = sampling.Passes(model, masks=masks, seed=4)
    p = np.concatenate([found["outputs"] for _, _, found in passes.run(x, samples)], axis=0)
    p = np.clip(p.astype("float64"), 1e-7, 1 - 1e-7)[: samples // size * size].reshape(samples // size, size, *p.shape[1:])
    rows = np.arange(len(y))
    means = p.mean(axis=1), softmax(np.log(p).mean(axis=1), axis=-1)
    return [[((m.argmax(-1) != y).mean(), -np.log(m[rows, y]).mean()) for m in mean] for mean in means]


@pytest.mark.parametrize("masks", sampling.MASKS)
def test_scores_are_those_of_all_outputs_at_once(masks):
    model, x = deep(), examples(4, 40)
    y = np.random.default_rng(0).integers(0, 3, 40)
    found = average(model, x, y, samples=100, seed=4, masks=masks)
    assert [(score.networks, score.groups) for score in found.scores] == [(1, 100), (3, 33), (10, 10), (30, 3), (100, 1)]
    for score in found.scores:
        arithmetic, geometric = by_hand(model, x, y, 100, score.networks, masks)
        assert (score.error, score.nll) == pytest.approx(tuple(np.mean(arithmetic, axis=0)))
        assert (score.geometric_error, score.geometric_nll) == pytest.approx(tuple(np.mean(geometric, axis=0)))
        if score.groups > 1:
            assert (score.error_sd, score.nll_sd) == pytest.approx(tuple(np.std(arithmetic, axis=0, ddof=1)))
        else:
            assert score.nll_sd is None
    assert found.scores[0].members_nll == pytest.approx(found.scores[0].nll)


@pytest.mark.parametrize("seed", range(4))
def test_jensen(seed):
    """The NLL of the arithmetic mean is at most the mean of its members', also where probabilities are clipped."""
    model = fill(deep(), seed, spread=5.0)
    x, y = examples(4, 30, seed), np.random.default_rng(seed).integers(0, 3, 30)
    found = average(model, x, y, samples=130, seed=seed)
    assert all(score.nll <= score.members_nll + 1e-12 for score in found.scores)
    assert found.scores[-1].nll < found.scores[0].nll
    assert found.scaled_nll > 0


def test_groups_go_across_blocks_and_batches(monkeypatch):
    model, x = deep(), examples(4, 40)
    y = np.arange(40) % 3
    whole = average(model, x, y, samples=100, seed=4)
    monkeypatch.setattr(ensemble, "_BLOCK", 7)
    monkeypatch.setattr(sampling, "_BATCH", 9)
    small = average(model, x, y, samples=100, seed=4)
    for one, other in zip(whole.scores, small.scores):
        assert (one.nll, one.geometric_nll, one.error) == pytest.approx((other.nll, other.geometric_nll, other.error), rel=1e-6)


def test_memory_does_not_grow_with_the_samples():
    model, x = chain((10,), kd.Dropout(0.5), L.Dense(10, "softmax")), examples(10, 200)
    y = np.arange(200) % 10

    def peak(samples):
        tracemalloc.start()
        average(model, x, y, samples=samples)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(200)
    assert peak(3000) < 1.5 * peak(200)


def test_one_sigmoid_unit_and_one_hot_labels():
    model, x, y = one_layer(0.5, 1, "sigmoid"), examples(10, 12), np.arange(12) % 2
    found = average(model, x, y, samples=3)
    assert found.classes == 2
    p = model.predict(x, verbose=0)[:, 0]
    assert found.scaled_nll == pytest.approx(-np.log(np.where(y, p, 1 - p)).mean(), rel=1e-5)
    assert found.scaled_error == np.mean((p > 0.5) != y)
    assert average(model, x, np.eye(2)[y], samples=3).document() == average(model, x, y[:, None], samples=3).document()


def test_what_is_not_counted_is_averaged_all_the_same():
    model = chain((8, 2), kd.DropBlock1D(0.3, 2), L.Flatten(), L.Dense(3, "softmax"))
    found = average(model, np.ones((4, 8, 2), "float32"), np.arange(4) % 3, samples=3)
    assert found.networks is None
    assert "DropBlock1D" in found.notes[0]
    assert "weight scaling" in str(found)


def steps():
    return chain((5, 4), kd.Dropout(0.5), L.Dense(3, "softmax"))


REFUSED = {
    "no probabilities": (lambda: average(chain((4,), kd.Dropout(0.5), L.Dense(3)), examples(4), [0] * 6), "--logits"),
    "no classes": (lambda: average(deep(), examples(4), np.ones((6, 2))), "one class number for each"),
    "another number of labels": (lambda: average(deep(), examples(4), [0] * 5), "one class number for each"),
    "a class too many": (lambda: average(deep(), examples(4), [3] * 6), "from 0 to 2"),
    "quantities": (lambda: average(deep(), examples(4), [0.5] * 6), "from 0 to 2"),
    "sequences": (lambda: average(steps(), np.ones((2, 5, 4)), [0, 1]), "no classification"),
    "0 samples": (lambda: average(deep(), examples(4), [0] * 6, samples=0), "samples must be"),
    "no dropout": (lambda: average(chain((4,), L.Dense(3, "softmax")), examples(4), [0] * 6), "no randomness"),
    "too many networks": (lambda: exact_average(chain((17,), kd.Dropout(0.5), L.Dense(2, "softmax")), examples(17)), "2**17"),
    "two arrays": (lambda: exact_average(deep(), [examples(4)] * 2), "has 1 inputs"),
    "another shape": (lambda: exact_average(deep(), examples(5)), "takes examples of shape (4,)"),
    "another name": (lambda: exact_average(deep(), {"x": examples(4)}), "the model's inputs are"),
    "blocks": (lambda: networks(chain((8, 2), kd.DropBlock1D(0.3, 2), L.Flatten(), L.Dense(3))), "no independent decision"),
    "no fixed size": (lambda: networks(chain((None, 2), kd.Dropout(0.3), L.Dense(3))), "no fixed size"),
    "nothing to count": (lambda: networks(chain((4,), L.Dense(3))), "no dropout layer"),
    "0 draws": (lambda: counted((0.5, 3)).visited(0), "draws must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, words = REFUSED[case]
    with pytest.raises(BadInput) as refused:
        call()
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


# The command.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("files")):
        write_files()
        return Path.cwd()


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(files, tmp_path, dirs_exist_ok=True))


def write_files():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype("float32")
    y = (x[:, 0] + 0.3 * rng.normal(size=200) > 0).astype("int32")
    np.savez("data.npz", x=x, y=y)
    np.savez("quantities.npz", x=x, y=x[:, 1])
    model = chain((4,), L.Dense(16, "relu"), kd.Dropout(0.5), L.Dense(2, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save("new.keras")
    model.fit(x, y, epochs=2, verbose=0)
    model.save("model.keras")
    kd.strip(model).save("bare.keras")
    chain((4,), L.Dense(16, "relu"), kd.Dropout(0.5), L.Dense(2)).save("logits.keras")
    chain((4,), kd.GaussianDropout(0.5), L.Dense(2, "softmax")).save("noise.keras")


def command(capsys, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["keras-dropout", "ensemble", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_the_command(folder, capsys, monkeypatch):
    status, out, _ = command(capsys, monkeypatch, "model.keras", "--data", "data.npz", "--samples", "10", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["networks"]["networks"] == 2**16
    assert document["visited"]["draws"] == 144 * 20
    assert [each["networks"] for each in document["averages"]] == [1, 3, 10]
    assert document["notes"] == []
    status, out, _ = command(capsys, monkeypatch, "logits.keras", "--data", "data.npz", "--samples", "3", "--logits")
    assert status == 0
    assert "weight scaling" in out
    *_, epochs = command(capsys, monkeypatch, "new.keras", "--data", "data.npz", "--samples", 2, "--epochs", 3, "--examples", 7)[:2]
    assert "shows 21 examples" in epochs
    assert "not trained" not in epochs  # a file may hold weights without what trained them
    assert "not trained" in command(capsys, monkeypatch, "digits-mlp", "--samples", 2)[1]


def test_the_command_writes_a_thinned_network(folder, capsys, monkeypatch):
    status, out, err = command(capsys, monkeypatch, "model.keras", "--thin", "-o", "thinned.keras", "--sample", 3)
    assert (status, out) == (0, "thinned.keras\n")
    thinned, whole = (keras.models.load_model(name) for name in ("thinned.keras", "model.keras"))
    x = examples(4)
    np.testing.assert_allclose(thinned.predict(x, verbose=0), kd.thin(whole, 0, 3).predict(x, verbose=0), atol=1e-6)
    assert f"{thinned.count_params():,}" in err
    assert thinned.count_params() < whole.count_params()
    _, out, _ = command(
        capsys, monkeypatch, "model.keras", "--data", "data.npz", "--samples", 2, "--thin", "-o", "t.keras", "--json"
    )
    document = json.loads(out)
    assert document["thinned"]["after"][0]["units"] < 16
    assert document["samples"] == 2


DATA = ("--data", "data.npz")
BAD = {
    "0 samples": (("model.keras", *DATA, "--samples", "0"), "samples must be"),
    "no dropout": (("bare.keras", *DATA), "no randomness"),
    "no data": (("model.keras",), "no data"),
    "no labels": (("model.keras", "--data", "quantities.npz"), "not labelled with classes"),
    "no probabilities": (("logits.keras", *DATA), "--logits"),
    "no such recipe": (("digits",), "unknown recipe"),
    "a recipe's own data": (("digits-mlp", *DATA), "has data of its own"),
    "thin without a name": (("model.keras", "--thin"), "the output must be"),
    "a name without thin": (("model.keras", *DATA, "-o", "new.keras"), "--output is for --thin"),
    "a file that is there": (("model.keras", "--thin", "-o", "model.keras"), "is there already"),
    "a sample below 0": (("model.keras", "--thin", "-o", "t.keras", "--sample", "-1"), "sample must be"),
    "no thinned network": (("noise.keras", "--thin", "-o", "t.keras"), "GaussianDropout"),
    "unknown masks": (("model.keras", *DATA, "--masks", "one"), "unknown masks"),
    "shared masks elsewhere": (("model.keras", *DATA, "--backend", "torch"), "--masks independent"),
    "0 epochs": (("model.keras", *DATA, "--epochs", "0"), "epochs must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_the_command_refuses(case, folder, capsys, monkeypatch):
    arguments, words = BAD[case]
    before = sorted(path.name for path in folder.iterdir())
    status, out, err = command(capsys, monkeypatch, *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 2
    assert sorted(path.name for path in folder.iterdir()) == before
