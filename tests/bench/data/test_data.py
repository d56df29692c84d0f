"""Finding, verifying, splitting and fingerprinting data. The real Fashion-MNIST is found, or fetched, once."""

import gzip
import shutil

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.datasets import load_digits

from keras_dropout.bench.data import dataset, public_sets
from keras_dropout.errors import BadInput

IMAGES = "t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def real():
    return public_sets.fashion_mnist()


@pytest.fixture
def folder(real, tmp_path):
    """A copy of the real files, to be damaged."""
    source = public_sets._find_fashion_mnist(None)
    for name in public_sets._FASHION_MNIST:
        shutil.copy(source / name, tmp_path / name)
    return tmp_path


def refusal(act):
    with pytest.raises(BadInput) as caught:
        act()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    return lines[0]


def test_fashion_mnist_is_the_published_one(real):
    assert real.train[0].shape == (60000, 28, 28)
    assert real.test[0].shape == (10000, 28, 28)
    assert real.train[0].dtype == np.uint8
    assert np.bincount(real.train[1]).tolist() == [6000] * 10
    assert real.train[1][:5].tolist() == [9, 0, 0, 3, 0]
    assert round(float(real.train[0].mean()), 2) == 72.94


def test_held_out_examples_are_not_trained_on(real):
    parts = real.parts("held-out")
    assert {name: len(part.y) for name, part in parts.items()} == {"train": 55000, "validation": 5000, "test": 10000}
    np.testing.assert_array_equal(np.concatenate([parts["validation"][0], parts["train"][0]]), real.train[0])


def test_the_published_split_leaks(real):
    parts = real.parts("as-published")
    assert len(parts["train"][1]) == 60000
    np.testing.assert_array_equal(parts["train"][0][:5000], parts["validation"][0])


def test_a_given_folder_is_used(folder, real, monkeypatch):
    assert public_sets.fashion_mnist(folder).fingerprint() == real.fingerprint()
    monkeypatch.setenv(public_sets.DATA_VARIABLE, str(folder))
    assert public_sets._find_fashion_mnist(None) == folder


def test_the_keras_cache_comes_before_the_system(folder, monkeypatch):
    monkeypatch.delenv(public_sets.DATA_VARIABLE, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(folder / "home"))
    cache = folder / "home" / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for name in public_sets._FASHION_MNIST:
        shutil.copy(folder / name, cache / name)
    assert public_sets._find_fashion_mnist(None) == cache


def test_a_truncated_file_is_named(folder):
    content = (folder / IMAGES).read_bytes()
    for size in (0, 5, 100, len(content) // 2, len(content) - 1):
        (folder / IMAGES).write_bytes(content[:size])
        assert IMAGES in refusal(lambda: public_sets.fashion_mnist(folder))


def test_a_flipped_byte_is_noticed(folder):
    content = bytearray((folder / IMAGES).read_bytes())
    for place in (1, len(content) // 2, len(content) - 6):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        (folder / IMAGES).write_bytes(damaged)
        assert IMAGES in refusal(lambda: public_sets.fashion_mnist(folder))


def test_a_missing_file_is_named(folder):
    (folder / IMAGES).unlink()
    assert f"{IMAGES} is missing" in refusal(lambda: public_sets.fashion_mnist(folder))


def test_other_content_is_noticed(folder):
    (folder / IMAGES).write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\0"))
    assert "checksum" in refusal(lambda: public_sets.fashion_mnist(folder))


def test_a_folder_without_data_is_refused(tmp_path):
    assert "does not exist" in refusal(lambda: public_sets.fashion_mnist(tmp_path / "no"))
    assert "holds no" in refusal(lambda: public_sets.fashion_mnist(tmp_path))


def test_the_debian_package_is_unpacked_without_root(tmp_path):
    if not shutil.which("apt-get"):
        pytest.skip("needs apt-get")
    assert public_sets._unpack_debian_package(tmp_path / "fashion-mnist")
    assert public_sets.fashion_mnist(tmp_path).train[0].shape == (60000, 28, 28)


def test_digits():
    digits = public_sets.digits()
    assert (digits.train[0].shape, digits.test[0].shape) == ((1437, 8, 8), (360, 8, 8))
    assert digits.train[0].dtype == np.uint8


def test_digits_are_divided_by_class_at_random():
    """The file is in the order of its writers: its last fifth was harder than any part drawn at random."""
    digits, raw = public_sets.digits(), load_digits()
    assert np.abs(np.bincount(digits.test.y) - np.bincount(raw.target) * 360 / 1797).max() < 1
    places = {image.tobytes(): place for place, image in enumerate(raw.images.astype("uint8"))}
    assert len(places) == 1797

    def is_spread(x):
        found = np.array([places[image.tobytes()] for image in x]) / 1797
        return kstest(found, "uniform").pvalue > 0.01

    parts = digits.parts("held-out")
    assert all(is_spread(part.x) for part in parts.values())
    assert all(is_spread(part.x) for part in digits.first(200, 100).parts("held-out").values())
    assert not is_spread(raw.images[1437:].astype("uint8"))
    assert public_sets.digits().fingerprint() == digits.fingerprint()


def test_the_first_examples_have_a_tenth_for_validation(real):
    digits, few = public_sets.digits(), public_sets.digits(train=500, test=100)
    assert {name: len(part.y) for name, part in few.parts("held-out").items()} == {"train": 450, "validation": 50, "test": 100}
    np.testing.assert_array_equal(few.train.x, digits.train.x[:500])
    np.testing.assert_array_equal(few.test.y, digits.test.y[:100])
    assert public_sets.digits(test=100).validation == digits.validation == 200
    assert real.first().fingerprint() == real.fingerprint() != real.first(train=5000).fingerprint()
    assert (real.first(train=5000).validation, real.first(train=5000).classes) == (500, public_sets.GARMENTS)


@pytest.mark.parametrize("number", [0, 1, -5, 2.5, True, "5", 1438])
def test_a_number_of_examples_that_there_are_not_is_refused(number):
    assert "train must be" in refusal(lambda: public_sets.digits(train=number))


def arrays(count=20):
    x = np.arange(count * 3, dtype="float32").reshape(count, 3)
    return (x, np.arange(count)), (x[:5], np.arange(5))


def test_own_arrays_are_split_at_random_but_always_the_same():
    first, again = dataset.from_arrays(arrays(), 0.25), dataset.from_arrays(arrays(), 0.25)
    assert first.fingerprint() == again.fingerprint()
    parts = first.parts("held-out")
    assert (len(parts["train"][1]), len(parts["validation"][1])) == (15, 5)
    assert sorted([*parts["train"][1], *parts["validation"][1]]) == list(range(20))
    np.testing.assert_array_equal(parts["train"][0][:, 0], parts["train"][1] * 3)


def test_fingerprint_sees_content_type_shape_and_scale():
    (x, y), test = arrays()
    changed = x.copy()
    changed[3, 1] += 1
    variants = [
        dataset.Data("d", *pair, validation=2, divide_by=by)
        for pair, by in [
            (((x, y), test), 1.0),
            (((changed, y), test), 1.0),
            (((x.astype("float64"), y), test), 1.0),
            (((x.reshape(20, 1, 3), y), test), 1.0),
            (((x, y[::-1]), test), 1.0),
            (((x, y), (test[0] + 1, test[1])), 1.0),
            (((x, y), test), 255.0),
        ]
    ]
    assert len({each.fingerprint() for each in variants}) == len(variants)


@pytest.mark.parametrize(
    ("bad", "share"),
    [
        (None, 0.1),
        ((1, 2), 0.1),
        (((np.ones(3), np.ones(2)), (np.ones(3), np.ones(3))), 0.1),
        (((np.ones(0), np.ones(0)), (np.ones(3), np.ones(3))), 0.1),
        (((np.array(["a", None]), np.ones(2)), (np.ones(3), np.ones(3))), 0.1),
        (arrays(), 0.0),
        (arrays(), 1.5),
        (arrays(1), 0.5),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(bad, share):
    refusal(lambda: dataset.from_arrays(bad, share))


ONE_HOT = np.eye(3, dtype="float32")[np.arange(30) % 3]


@pytest.mark.parametrize("y", [list(np.arange(30) % 3), list(ONE_HOT), ONE_HOT, (np.arange(30) % 3).tolist()], ids=type)
@pytest.mark.parametrize("shape", [(4, 5), (3, 3), (30,)])
def test_a_list_of_examples_is_one_array(shape, y):
    """Each example was taken for an input of its own."""
    x = np.random.default_rng(0).random((30, *shape))
    given, expected = (list(x), y), (x, np.array(y))
    for found, plain in ((given, expected), ((given, given), (expected, expected))):
        found, plain = dataset.from_arrays(found), dataset.from_arrays(plain)
        np.testing.assert_array_equal(found.train.x, plain.train.x)
        np.testing.assert_array_equal(found.train.y, plain.train.y)


def test_a_list_of_inputs_or_outputs_is_several():
    x, y = [np.zeros((30, 2)), np.ones((30, 4))], [np.zeros((30, 1)), np.ones((30, 2))]
    for given, answers in ((x, y[0]), (x, y), (x[0], y), (x, {"a": y[0], "b": y[1]})):
        found = dataset.from_arrays(((given, answers), (given, answers)))
        for mine, theirs in ((found.test.x, given), (found.test.y, answers)):
            np.testing.assert_equal(mine, tuple(theirs) if isinstance(theirs, list) else theirs)


def test_a_refusal_of_lengths_shows_three_shapes():
    with pytest.raises(BadInput) as caught:
        dataset.from_arrays(([np.zeros((n + 5, 2)) for n in range(8)], np.zeros(30)))
    assert "shapes (5, 2) and (6, 2) and (7, 2) and 6 more: not" in str(caught.value)
