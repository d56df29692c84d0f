"""Public data sets of the recipes: scikit-learn's digits and Fashion-MNIST."""

import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.data import splits
from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.errors import refuse

DATA_VARIABLE = "KERAS_DROPOUT_DATA"
_DIGITS_TEST = 360


def digits(train: int | None = None, test: int | None = None) -> Data:
    """Load scikit-learn's digits: 1,797 grey images of 8x8 with values 0 to 16, of which 360 are the test data.

    They are drawn at random by class, always the same, and all parts are in random order: the file is in the order of its writers,
    so its last images are those of other people than the first. `train` and `test` as in `Data.first`.
    """
    bunch = of_scikit_learn("digits")
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x, y = bunch.images[order].astype("uint8"), bunch.target[order].astype("uint8")
    split = splits.divide(len(y), test=_DIGITS_TEST / len(y), validation=0, classes=y)
    parts = [Part(x[rows], y[rows]) for rows in (split.train, split.test)]
    return Data("digits", parts[0], parts[1], validation=200, divide_by=16.0).first(train, test)


def of_scikit_learn(name: str, **options: Any) -> Any:
    """Return the data set that scikit-learn loads under this name."""
    try:
        from sklearn import datasets
    except ImportError:
        refuse(f"the data set {name} needs scikit-learn, which is not installed.", "pip install 'keras-dropout[digits]'")
    return getattr(datasets, f"load_{name.replace(' ', '_')}")(**options)


_FASHION_MNIST = {  # file: sha256 of its decompressed content
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_DEBIAN_PACKAGE = "dataset-fashion-mnist"
_DEBIAN_FOLDER = "usr/share/datasets/fashion-mnist"


def fashion_mnist(data_dir: str | os.PathLike | None = None, train: int | None = None, test: int | None = None) -> Data:
    """Load Fashion-MNIST (Xiao et al. 2017): 60,000 and 10,000 grey images of 28x28, uint8, in 10 classes, in random order.

    `train` and `test` as in `Data.first`.

    If `data_dir` or KERAS_DROPOUT_DATA names a folder, only this folder is searched. Otherwise the files come from Keras's cache or
    from the folder of the Debian package. If neither has them, they are downloaded into Keras's cache, from Keras's source or from
    the Debian package.
    """
    folder = _find_fashion_mnist(data_dir)
    arrays = [_read_idx(folder / name, digest) for name, digest in _FASHION_MNIST.items()]
    train_part, test_part = Part(arrays[0], arrays[1]), Part(arrays[2], arrays[3])
    return Data("fashion-mnist", train_part, test_part, validation=5000, divide_by=255.0, classes=GARMENTS).first(train, test)


def named_place(data_dir: str | os.PathLike | None) -> Path | None:
    """Return the folder that `data_dir` or KERAS_DROPOUT_DATA names for ready data sets, if any: only it is then searched."""
    given = data_dir or os.environ.get(DATA_VARIABLE)
    return Path(given) if given else None


def _find_fashion_mnist(data_dir: str | os.PathLike | None) -> Path:
    folder = named_place(data_dir)
    if folder is not None:
        if not folder.is_dir():
            refuse(f"the data folder {folder} does not exist.", f"Give a folder that holds {', '.join(_FASHION_MNIST)}.")
        for candidate in (folder / "fashion-mnist", folder):
            if _has_any(candidate):
                return candidate
        refuse(f"{folder} holds no Fashion-MNIST file.", f"Put {', '.join(_FASHION_MNIST)} there.")
    cache = keras_datasets() / "fashion-mnist"
    for candidate in (cache, Path("/") / _DEBIAN_FOLDER):
        if _has_any(candidate):
            return candidate
    print("Fashion-MNIST is not on this machine: downloading it (30 MB).", file=sys.stderr)
    if _download_as_keras() or _unpack_debian_package(cache):
        return cache
    refuse(
        "Fashion-MNIST is not on this machine and could not be downloaded.",
        f"Put {', '.join(_FASHION_MNIST)} in a folder and name it with --data-dir or {DATA_VARIABLE}.",
    )


def keras_datasets() -> Path:
    """Return the folder in which Keras keeps the downloads of `keras.datasets`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def _has_any(folder: Path) -> bool:
    # One file is enough to choose a folder: missing files are then reported instead of searched elsewhere.
    return any((folder / name).is_file() for name in _FASHION_MNIST)


def _download_as_keras() -> bool:
    import keras

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its bar on stdout, which belongs to the results
            for name in _FASHION_MNIST:
                keras.utils.get_file(name, origin=_ORIGIN + name, cache_subdir="datasets/fashion-mnist")
    except Exception:  # network errors are of many kinds, and there is one more source
        shutil.rmtree(keras_datasets() / "fashion-mnist", ignore_errors=True)
        return False
    return True


def _unpack_debian_package(target: Path) -> bool:
    """Fetch the Debian package without root and copy its files to `target`; return False without apt or network."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    with tempfile.TemporaryDirectory() as temporary:
        lists, cache = Path(temporary, "lists"), Path(temporary, "cache")
        for folder in (lists, cache):
            (folder / "partial").mkdir(parents=True)
        own = [f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oAPT::Sandbox::User="]
        download = ["download", "-q", _DEBIAN_PACKAGE]
        attempts: Iterable[list[list[str]]] = ([download], [[*own, "update", "-q"], [*own, *download]])
        for commands in attempts:  # first with the machine's own package lists, then with freshly downloaded ones
            runs = (subprocess.run(["apt-get", *arguments], cwd=temporary, capture_output=True) for arguments in commands)
            if all(run.returncode == 0 for run in runs):
                break
        for package in Path(temporary).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, Path(temporary, "unpacked")], check=True, capture_output=True)
            target.mkdir(parents=True, exist_ok=True)
            for name in _FASHION_MNIST:
                shutil.copy(Path(temporary, "unpacked", _DEBIAN_FOLDER, name), target / name)
            return True
    return False


def _read_idx(path: Path, digest: str) -> np.ndarray:
    """Read the array in a gzipped IDX file of bytes; refuse a file whose content is not the published one."""
    fix = "Delete it and run again, or get a whole copy."
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        refuse(f"{path} is missing.", f"The folder must hold all of {', '.join(_FASHION_MNIST)}.")
    except (EOFError, gzip.BadGzipFile, zlib.error):
        refuse(f"{path} is broken or truncated: it does not unpack.", fix)
    except OSError as error:
        refuse(f"{path} cannot be read: {error.strerror}.", "Check its permissions.")
    if hashlib.sha256(content).hexdigest() != digest:
        refuse(f"{path} is not the published file: its content has another checksum.", fix)
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
