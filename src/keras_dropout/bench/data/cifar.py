"""CIFAR-10: the published files, or a copy as JPEG images, whose data set name says so."""

import contextlib
import hashlib
import os
import pickle
import socket
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_dropout.bench.data.dataset import Data, Part, check_number, tenth
from keras_dropout.bench.data.folders import ARCHIVES, learn_images, read_folders
from keras_dropout.bench.data.public_sets import DATA_VARIABLE, keras_datasets, named_place
from keras_dropout.errors import refuse

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = {  # file: md5, as the data set's publisher gives it
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
_TEST = {"test_batch": "40351d587109b95175f43aff81a1287e"}
_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_COPY = "cifar-10-jpeg"
_GET = (
    f"Get {_ARCHIVE} from https://www.cs.toronto.edu/~kriz/cifar.html, or lay JPEG images out as {_COPY}/train/CLASS and "
    f"{_COPY}/test/CLASS, and name their folder with --data-dir or {DATA_VARIABLE}."
)
_SIDE = 32
_PATIENCE = 30  # seconds without an answer from the network


def cifar10(
    data_dir: str | os.PathLike | None = None, train: int | None = None, test: int | None = None, size: int = _SIDE
) -> Data:
    """Load CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour images of 32x32, uint8, in 10 classes.

    If `data_dir` or KERAS_DROPOUT_DATA names a folder, only this folder is searched. It holds the published files, as the folder
    cifar-10-batches-py or the archive cifar-10-python.tar.gz, or a JPEG copy: train/CLASS/FILE and test/CLASS/FILE, in the folder
    itself or in a folder or archive cifar-10-jpeg. `data_dir` may also be the archive itself. If no folder is named, the published
    files come from Keras's cache, or Keras downloads them. The published files take precedence over a copy. JPEG is lossy, so
    results on a copy are not results on CIFAR-10: its name is "cifar-10, JPEG copy".

    `train` and `test` are numbers of images, None for all. The classes alternate, so that the first images contain all classes
    equally. A tenth of training is for validation. `size` 16 or 8 gives the means of 2x2 or 4x4 pixels.
    """
    if size not in (32, 16, 8):
        refuse(f"size must be 32, 16 or 8 pixels a side; got {size!r}.", "Leave it out for the images as they are.")
    place = named_place(data_dir)
    if place is not None and not place.exists():
        refuse(f"the data folder {place} does not exist.", _GET)
    published = _published(place) or (None if place is not None else _downloaded())
    copy = None if published else _copy(place)
    if published:
        name, parts = "cifar-10", {"train": _unpickled(published, _TRAIN, train), "test": _unpickled(published, _TEST, test)}
    elif copy:
        name, parts = "cifar-10, JPEG copy", _decoded(copy, {"train": train, "test": test})
    else:
        where = f"{place} holds no CIFAR-10." if place else "CIFAR-10 is not on this machine and could not be downloaded."
        refuse(where, _GET)
    whole = {role: Part(_smaller(x, size), y) for role, (x, y) in parts.items()}
    return Data(name, whole["train"], whole["test"], validation=tenth(len(whole["train"].y)), divide_by=255.0, classes=CLASSES)


def _published(place: Path | None) -> Path | None:
    """Find the folder or archive of the published files. One file is enough; missing files are reported later."""
    datasets = place or keras_datasets()
    inner = (_FOLDER, f"{_FOLDER}-target/{_FOLDER}", ".")
    folders = (datasets / folder for folder in inner if any((datasets / folder / name).is_file() for name in (*_TRAIN, *_TEST)))
    archives = (path for path in (datasets / _ARCHIVE, datasets) if path.is_file() and path.name == _ARCHIVE)
    return next(folders, None) or next(archives, None)


def _downloaded() -> Path | None:
    import keras

    print("CIFAR-10 is not on this machine: downloading it (170 MB).", file=sys.stderr)
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_PATIENCE)  # Keras itself waits for ever
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its bar on stdout, which belongs to the results
            keras.datasets.cifar10.load_data()
    except Exception:  # network errors are of many kinds
        return None
    finally:
        socket.setdefaulttimeout(before)
    return _published(None)


def _copy(place: Path | None) -> Path | None:
    """Find the folder or archive of a JPEG copy."""
    if place is None or place.is_file():
        return place
    inner = (place / f"{_COPY}{ending}" for ending in ("", *ARCHIVES))
    return next((path for path in inner if path.exists()), place if (place / "train" / CLASSES[0]).is_dir() else None)


def _unpickled(source: Path, names: dict[str, str], number: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Read the first images of the published files, with alternating classes."""
    batches = [pickle.loads(content, encoding="bytes") for content in _verified(source, names)]
    x = np.concatenate([batch[b"data"] for batch in batches])
    y = np.concatenate([np.array(batch[b"labels"], "uint8") for batch in batches])
    order = _in_turn(y, "train" if names is _TRAIN else "test", number)
    return x[order].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), y[order]


def _verified(source: Path, names: dict[str, str]) -> Iterator[bytes]:
    """Yield the contents of files after verifying that they are the published ones: other pickles could run any code."""
    fix = "Delete it and run again, or get a whole copy."
    try:
        if source.is_dir():
            found = {name: (source / name).read_bytes() for name in names if (source / name).exists()}
        else:
            with tarfile.open(source, "r:gz") as archive:
                members = {Path(member.name).name: member for member in archive if member.isreg()}
                found = {
                    name: file.read()
                    for name in names
                    if name in members and (file := archive.extractfile(members[name])) is not None
                }
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        refuse(f"{source} cannot be read: {error}.", fix)
    for name, digest in names.items():
        if name not in found:
            refuse(f"{source} has no {name}.", f"It must hold all of {', '.join((*_TRAIN, *_TEST))}.")
        if hashlib.md5(found[name], usedforsecurity=False).hexdigest() != digest:
            refuse(f"{source}: {name} is not the published file: its content has another checksum.", fix)
        yield found[name]


def _decoded(source: Path, numbers: dict[str, int | None]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decode the first images of a copy, with alternating classes, and no others."""
    folders = read_folders(source)
    missing = [role for role in numbers if role not in folders.parts]
    if folders.kind != "images" or folders.classes != CLASSES or missing:
        refuse(f"{source} is no copy of CIFAR-10: it must hold train/CLASS and test/CLASS of images of its 10 classes.", _GET)
    chosen = {}
    for role, number in numbers.items():
        files, y = folders.parts[role]
        order = _in_turn(y, role, number)
        chosen[role] = files[order], y[order].astype("uint8")
    encode = learn_images(chosen["train"][0], None)
    found = {role: (encode(files), y) for role, (files, y) in chosen.items()}
    shape = found["train"][0].shape[1:]
    if shape != (_SIDE, _SIDE, 3):
        refuse(f"{source} is no copy of CIFAR-10: its images have the shape {shape}, not {(_SIDE, _SIDE, 3)}.", _GET)
    return found


def _in_turn(y: np.ndarray, role: str, number: int | None) -> np.ndarray:
    """Return the indices of the first examples in the order of classes 0, 1, … 9, 0, 1, …"""
    place = np.empty(len(y), int)  # rank of each example within its class
    for each in range(len(CLASSES)):
        place[y == each] = np.arange((y == each).sum())
    return np.lexsort((y, place))[: None if number is None else check_number(role, number, len(y))]


def _smaller(x: np.ndarray, size: int) -> np.ndarray:
    """Return images of `size` pixels a side: the means of squares of pixels."""
    step = _SIDE // size
    if step == 1:
        return np.ascontiguousarray(x)
    squares = x.reshape(len(x), size, step, size, step, 3)
    return ((squares.sum(axis=(2, 4), dtype="uint32") + step**2 // 2) // step**2).astype("uint8")
