"""CIFAR-10 in the published files and as JPEG copies, both small and written here; and a whole copy where there is one."""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_dropout.bench.data import cifar, public_sets
from keras_dropout.bench.data.cifar import cifar10
from keras_dropout.errors import BadInput

TRAIN, TEST = 8, 3  # images of each class
WHOLE = Path(os.environ.get(public_sets.DATA_VARIABLE, "."), "cifar-10-jpeg.tar.gz")


def refusal(act):
    with pytest.raises(BadInput) as caught:
        act()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    return lines[0]


@pytest.fixture(autouse=True)
def no_place(monkeypatch, tmp_path):
    """No data named, nothing in Keras's cache, and no network."""
    monkeypatch.delenv(public_sets.DATA_VARIABLE, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))

    def refused(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", refused)


def picture(label, number):
    """Smooth, so that JPEG keeps it: red tells the class, green the number; the first row is darker."""
    image = np.full((32, 32, 3), (20 * label + 10, 10 * number + 40, 128), "uint8")
    image[:16] //= 2
    return image


@pytest.fixture
def published(monkeypatch, tmp_path):
    """cifar-10-batches-py with few images in random order, in place of the published ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    names = {"_TRAIN": (tuple(cifar._TRAIN), TRAIN), "_TEST": (tuple(cifar._TEST), TEST)}
    for which, (files, number) in names.items():
        labels = random.permutation(np.repeat(np.arange(10), number))
        seen, images = [0] * 10, []
        for label in labels:
            images.append(picture(label, seen[label]).transpose(2, 0, 1).reshape(-1))
            seen[label] += 1
        digests = {}
        for name, rows in zip(files, np.array_split(np.arange(len(labels)), len(files))):
            content = pickle.dumps({b"data": np.array(images)[rows], b"labels": labels[rows].tolist()}, protocol=2)
            (folder / name).write_bytes(content)
            digests[name] = hashlib.md5(content).hexdigest()
        monkeypatch.setattr(cifar, which, digests)
    return folder


def images(label, role):
    for number in range(TRAIN if role == "train" else TEST):
        content = io.BytesIO()
        Image.fromarray(picture(label, number)).save(content, "jpeg", quality=95, subsampling=0)
        yield f"{role}/{cifar.CLASSES[label]}/{number:04}.jpg", content.getvalue()


@pytest.fixture(params=["folder", "archive"])
def copy(request, tmp_path):
    """A folder that holds a JPEG copy."""
    files = [file for role in ("train", "test") for label in range(10) for file in images(label, role)]
    place = tmp_path / "data"
    place.mkdir()
    if request.param == "archive":
        with tarfile.open(place / "cifar-10-jpeg.tar.gz", "w:gz") as archive:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files:
            (place / "cifar-10-jpeg" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "cifar-10-jpeg" / name).write_bytes(content)
    return place


def check(found, size=32, tolerance=0):
    """The pictures are those of their classes, in turn; those of a class in their own order."""
    for part in (found.train, found.test):
        assert part.x.dtype == part.y.dtype == np.uint8
        np.testing.assert_array_equal(part.y, np.arange(len(part.y)) % 10)
        expected = [picture(label, n // 10)[:: 32 // size, :: 32 // size] for n, label in enumerate(part.y)]
        np.testing.assert_allclose(part.x.astype(int), expected, atol=tolerance)
    assert (found.divide_by, found.classes) == (255, cifar.CLASSES)


def test_the_published_files(published):
    found = cifar10(published.parent)
    check(found)
    assert (found.name, len(found.train.y), len(found.test.y), found.validation) == ("cifar-10", 80, 30, 8)
    assert cifar10(published).fingerprint() == found.fingerprint()


def test_the_published_archive(published, tmp_path):
    path = tmp_path / "elsewhere" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(published, "cifar-10-batches-py")
    assert cifar10(path).fingerprint() == cifar10(path.parent).fingerprint() == cifar10(published).fingerprint()


def test_a_jpeg_copy_is_named_so(copy, monkeypatch):
    found = cifar10(copy)
    check(found, tolerance=4)
    assert (found.name, len(found.train.y), len(found.test.y), found.validation) == ("cifar-10, JPEG copy", 80, 30, 8)
    (inner,) = copy.iterdir()
    assert cifar10(inner).fingerprint() == found.fingerprint()
    monkeypatch.setenv(public_sets.DATA_VARIABLE, str(copy))
    assert cifar10().fingerprint() == found.fingerprint()


def test_the_published_files_come_before_a_copy(published, copy):
    published.rename(copy / published.name)
    assert cifar10(copy).name == "cifar-10"


def test_the_keras_cache_has_the_published_files(published, tmp_path):
    cache = tmp_path / "home" / "datasets" / "cifar-10-batches-py-target"
    cache.mkdir(parents=True)
    published.rename(cache / published.name)
    check(cifar10())


@pytest.mark.parametrize(("train", "test"), [(20, 10), (25, 7), (80, 30)])
def test_fewer_images_are_the_beginning_of_all(published, copy, train, test):
    for place, tolerance in ((published, 0), (copy, 4)):
        whole, few = cifar10(place), cifar10(place, train, test)
        check(few, tolerance=tolerance)
        assert (len(few.train.y), len(few.test.y)) == (train, test)
        assert few.fingerprint() == whole.first(train, test).fingerprint()


def test_only_what_is_asked_for_is_decoded(copy):
    broken = b"no image"
    if (copy / "cifar-10-jpeg").exists():
        (copy / "cifar-10-jpeg" / "train" / "cat" / "0005.jpg").write_bytes(broken)
        check(cifar10(copy, 50), tolerance=4)
        assert "0005.jpg is no image" in refusal(lambda: cifar10(copy, 60))


@pytest.mark.parametrize("size", [16, 8])
def test_small_images_are_means(published, size):
    check(cifar10(published, size=size), size)


def test_means_are_of_neighbouring_pixels():
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("uint8")
    found = cifar._smaller(x, 16)
    assert found[1, 2, 3, 1] == np.floor(x[1, 4:6, 6:8, 1].mean() + 0.5)
    assert abs(found.mean() - x.mean()) < 0.5


def test_other_content_is_not_unpickled(published):
    """A pickle can run anything: here it would write a file."""
    planted = published.parent / "planted"

    class Planted:
        def __reduce__(self):
            return (open, (str(planted), "w"))

    (published / "data_batch_3").write_bytes(pickle.dumps(Planted()))
    assert "data_batch_3 is not the published file" in refusal(lambda: cifar10(published))
    assert not planted.exists()


def test_what_is_missing_is_named(published, copy):
    (published / "data_batch_2").unlink()
    assert "has no data_batch_2" in refusal(lambda: cifar10(published))
    if (copy / "cifar-10-jpeg").exists():
        (copy / "cifar-10-jpeg" / "test").rename(copy / "gone")
        assert "no copy of CIFAR-10" in refusal(lambda: cifar10(copy))


def test_class_folders_of_something_else_are_no_copy(tmp_path):
    for role in ("train", "test"):
        for name in ("airplane", "zebra"):
            (tmp_path / role / name).mkdir(parents=True)
            Image.fromarray(picture(0, 0)).save(tmp_path / role / name / "0.png")
    assert "no copy of CIFAR-10" in refusal(lambda: cifar10(tmp_path))


def test_a_broken_archive_is_refused(published, copy):
    for path in (copy / "cifar-10-jpeg.tar.gz", copy / "cifar-10-python.tar.gz"):
        path.write_bytes(b"\x1f\x8b" + bytes(100))
        assert path.name in refusal(lambda path=path: cifar10(path))


def test_no_data_are_refused_in_two_lines(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert "holds no CIFAR-10" in refusal(lambda: cifar10(tmp_path / "empty"))
    assert "does not exist" in refusal(lambda: cifar10(tmp_path / "no"))
    monkeypatch.setenv(public_sets.DATA_VARIABLE, str(tmp_path / "empty"))
    assert "holds no CIFAR-10" in refusal(cifar10)
    monkeypatch.delenv(public_sets.DATA_VARIABLE)
    assert "could not be downloaded" in refusal(cifar10)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"train": 81}, {"test": 31}, {"test": 1.5}, {"size": 20}, {"size": 64}])
def test_sizes_that_there_are_not_are_refused(published, wrong):
    assert next(iter(wrong)) in refusal(lambda: cifar10(published, **wrong))


def test_fashion_mnist_may_lie_beside_it(copy):
    (copy / "fashion-mnist").mkdir()
    for name in public_sets._FASHION_MNIST:
        (copy / "fashion-mnist" / name).touch()
    assert public_sets._find_fashion_mnist(copy) == copy / "fashion-mnist"
    assert cifar10(copy).name == "cifar-10, JPEG copy"


@pytest.mark.skipif(not WHOLE.is_file(), reason=f"{WHOLE.name} is not in the folder that {public_sets.DATA_VARIABLE} names")
def test_the_beginning_of_a_whole_copy():
    """Its colours have the means that are known of CIFAR-10's training images."""
    found = cifar10(WHOLE, train=2000, test=500, size=16)
    assert (found.name, found.train.x.shape, found.test.x.shape) == ("cifar-10, JPEG copy", (2000, 16, 16, 3), (500, 16, 16, 3))
    np.testing.assert_allclose(found.train.x.mean(axis=(0, 1, 2)) / 255, (0.491, 0.482, 0.447), atol=0.015)
