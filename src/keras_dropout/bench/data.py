"""Data sets: found, verified, split and fingerprinted. Images stay uint8 until they are on the device."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.records import DataFacts
from keras_dropout.errors import check_choice, refuse

DATA_VARIABLE = "KERAS_DROPOUT_DATA"
SPLITS = ("held-out", "as-published")
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """Training and test arrays. The model sees x / divide_by in float32; where divide_by is 1 it sees x as it is.

    The first `validation` training examples are the validation data.
    """

    name: str
    train: Arrays = field(repr=False)
    test: Arrays = field(repr=False)
    validation: int
    divide_by: float = 1.0

    def parts(self, split: str) -> dict[str, Arrays]:
        """The arrays of "train", "validation" and "test".

        In "held-out" the validation examples are left out of training. In "as-published" they stay in it: a leak, kept to
        reproduce experiments that were made so.
        """
        check_choice("split", split, SPLITS)
        x, y = self.train
        start = self.validation if split == "held-out" else 0
        return {"train": (x[start:], y[start:]), "validation": (x[: self.validation], y[: self.validation]), "test": self.test}

    def facts(self, split: str) -> DataFacts:
        """Name, fingerprint and sizes."""
        sizes = {part: len(y) for part, (_, y) in self.parts(split).items()}
        return DataFacts(self.name, self.fingerprint(), **sizes)

    def fingerprint(self) -> str:
        """A hash of the contents, types and shapes of all arrays, and of the scale."""
        digest = hashlib.sha256(repr(float(self.divide_by)).encode())
        for array in (*self.train, *self.test):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:32]


def from_arrays(data: Any, validation_split: float = 0.1, name: str = "arrays") -> Data:
    """Data from ((x_train, y_train), (x_test, y_test)).

    A share `validation_split` of the training examples, drawn at random but always the same, is held out as validation data.
    """
    form = "Pass ((x_train, y_train), (x_test, y_test)), as keras.datasets gives them."
    try:
        train, test = (tuple(np.asarray(array) for array in part) for part in data)
        (x, y), (x_test, y_test) = train, test
    except (TypeError, ValueError):
        refuse(f"data must be two pairs of arrays; got {type(data).__name__}.", form)
    for part, inputs, answers in (("training", x, y), ("test", x_test, y_test)):
        if inputs.ndim < 1 or answers.ndim < 1 or len(inputs) != len(answers) or not len(inputs):
            refuse(f"the {part} data have {inputs.shape} inputs and {answers.shape} answers.", form)
        if inputs.dtype == object or answers.dtype == object:
            refuse(f"the {part} data are not plain arrays.", "Pass arrays of one number type and shape.")
    if not 0 < validation_split < 1:
        refuse(f"validation_split must lie between 0 and 1; got {validation_split!r}.", "For example 0.1.")
    held_out = max(1, round(len(x) * validation_split))
    if held_out == len(x):
        refuse("no training example is left beside the validation data.", "Pass more data or a smaller validation_split.")
    order = np.random.default_rng(0).permutation(len(x))
    return Data(name, (x[order], y[order]), (x_test, y_test), held_out)


def digits() -> Data:
    """scikit-learn's digits: 1,797 grey images of 8x8 with values 0 to 16; the last 360 are the test data."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        refuse("the data set digits needs scikit-learn, which is not installed.", "pip install 'keras-dropout[digits]'")
    bunch = load_digits()
    x, y = bunch.images.astype("uint8"), bunch.target.astype("uint8")
    return Data("digits", (x[:1437], y[:1437]), (x[1437:], y[1437:]), validation=200, divide_by=16.0)


_FASHION_MNIST = {  # file: sha256 of its decompressed content
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_DEBIAN_PACKAGE = "dataset-fashion-mnist"
_DEBIAN_FOLDER = "usr/share/datasets/fashion-mnist"


def fashion_mnist(data_dir: str | os.PathLike | None = None) -> Data:
    """Fashion-MNIST (Xiao et al. 2017): 60,000 and 10,000 grey images of 28x28, uint8, in 10 classes.

    Looked for in `data_dir` or the folder that KERAS_DROPOUT_DATA names (then only there), in Keras's cache, and where the
    Debian package puts it; else downloaded as Keras does it, or from the Debian package, into Keras's cache.
    """
    folder = _find_fashion_mnist(data_dir)
    arrays = [_read_idx(folder / name, digest) for name, digest in _FASHION_MNIST.items()]
    return Data("fashion-mnist", (arrays[0], arrays[1]), (arrays[2], arrays[3]), validation=5000, divide_by=255.0)


def _find_fashion_mnist(data_dir: str | os.PathLike | None) -> Path:
    given = data_dir or os.environ.get(DATA_VARIABLE)
    if given:
        folder = Path(given)
        if not folder.is_dir():
            refuse(f"the data folder {folder} does not exist.", f"Give a folder that holds {', '.join(_FASHION_MNIST)}.")
        for candidate in (folder / "fashion-mnist", folder):
            if _has_any(candidate):
                return candidate
        refuse(f"{folder} holds no Fashion-MNIST file.", f"Put {', '.join(_FASHION_MNIST)} there.")
    cache = _keras_cache()
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


def _keras_cache() -> Path:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "datasets" / "fashion-mnist"


def _has_any(folder: Path) -> bool:
    # One file is enough to settle on a folder: what is missing beside it is then named, not passed over.
    return any((folder / name).is_file() for name in _FASHION_MNIST)


def _download_as_keras() -> bool:
    import keras

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its bar on stdout, which belongs to the results
            for name in _FASHION_MNIST:
                keras.utils.get_file(name, origin=_ORIGIN + name, cache_subdir="datasets/fashion-mnist")
    except Exception:  # whatever the network does, there is one more way
        shutil.rmtree(_keras_cache(), ignore_errors=True)
        return False
    return True


def _unpack_debian_package(target: Path) -> bool:
    """Fetch the Debian package without root and move its files to `target`; False where there is no apt or no network."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    with tempfile.TemporaryDirectory() as temporary:
        lists, cache = Path(temporary, "lists"), Path(temporary, "cache")
        for folder in (lists, cache):
            (folder / "partial").mkdir(parents=True)
        own = [f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oAPT::Sandbox::User="]
        download = ["download", "-q", _DEBIAN_PACKAGE]
        attempts: Iterable[list[list[str]]] = ([download], [[*own, "update", "-q"], [*own, *download]])
        for commands in attempts:  # the machine's own package lists first; else fresh ones of our own
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
    """The array in a gzipped IDX file of bytes, after its content was found to be the published one."""
    mend = "Delete it and run again, or get a whole copy."
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        refuse(f"{path} is missing.", f"The folder must hold all of {', '.join(_FASHION_MNIST)}.")
    except (EOFError, gzip.BadGzipFile, zlib.error):
        refuse(f"{path} is broken or truncated: it does not unpack.", mend)
    except OSError as error:
        refuse(f"{path} cannot be read: {error.strerror}.", "Check its permissions.")
    if hashlib.sha256(content).hexdigest() != digest:
        refuse(f"{path} is not the published file: its content has another checksum.", mend)
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
