"""Scenes composed by rule of real Fashion-MNIST garments: data for segmentation, detection and keypoints."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from keras_dropout.bench.data.dataset import Data, Part, tenth
from keras_dropout.bench.data.public_sets import GARMENTS, fashion_mnist
from keras_dropout.errors import check_choice, check_whole, refuse

_GARMENT = 28  # pixels a side, as published
_SIDES = (14, 22)  # of a garment in a scene, pixels
_SOLID = 16  # brightness above which a pixel is of the garment; scans have some dust around it
_TRIES = 8  # places that are drawn for a garment; it goes to the one with the least of it on others
_TEXTURE, _NOISE = 90, 12  # brightness: the background's most, and the standard deviation of every pixel's noise
_FIX = "For example train=2000, test=1000."


class _Piece(NamedTuple):
    """A garment where it stands in a scene."""

    pixels: np.ndarray
    solid: np.ndarray  # of the same shape: which pixels are of the garment
    label: int
    top: int
    left: int

    def area(self) -> tuple[slice, slice]:
        side = len(self.pixels)
        return slice(self.top, self.top + side), slice(self.left, self.left + side)


def segmentation(
    data_dir: str | os.PathLike | None = None, train: int = 2000, test: int = 1000, size: int = 40, seed: int = 0
) -> Data:
    """Which garment is at each pixel: x (scenes, size, size, 1), uint8, y (scenes, size, size), 0 background, 1 to 10 garments.

    A scene has two or three garments of random classes, 14 to 22 pixels a side, on a grey texture with noise; they overlap little,
    and later ones cover earlier ones. Test scenes have garments of the Fashion-MNIST test data, others of its training data, each
    in one scene only. The first scenes of a seed are the same, however many there are; a tenth of training is for validation.
    `data_dir` is where Fashion-MNIST is.
    """

    def answer(pieces: list[_Piece]) -> np.ndarray:
        y = np.zeros((size, size), "uint8")
        for piece in pieces:
            y[piece.area()][piece.solid] = 1 + piece.label
        return y

    return _composed("segmentation", data_dir, (train, test), size, seed, None, answer, ("background", *GARMENTS))


def boxes(
    data_dir: str | os.PathLike | None = None,
    train: int = 2000,
    test: int = 1000,
    size: int = 40,
    seed: int = 0,
    target: str = "Bag",
) -> Data:
    """Where the only `target` is: x as in `segmentation`, y (scenes, 4), float32: its box's centre x and y, width and height.

    All are shares of the scene's side, x from the left and y from the top. Beside the target, which nothing covers, are one or
    two garments of other classes. There are at most 6,000 training and 1,000 test scenes: each has a target of its own.
    """

    def answer(pieces: list[_Piece]) -> np.ndarray:
        rows, columns = _silhouette(pieces[-1])
        left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
        return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], "float32") / size

    return _composed("boxes", data_dir, (train, test), size, seed, target, answer)


def keypoints(
    data_dir: str | os.PathLike | None = None,
    train: int = 2000,
    test: int = 1000,
    size: int = 40,
    seed: int = 0,
    target: str = "Ankle boot",
) -> Data:
    """Points of the only `target`: y (scenes, 8), float32: x and y of its highest, lowest, leftmost and rightmost point.

    The points are centres of pixels of its silhouette, as shares of the scene's side; of several that are as high, or as far left,
    the middle. Scenes as in `boxes`.
    """

    def answer(pieces: list[_Piece]) -> np.ndarray:
        rows, columns = _silhouette(pieces[-1])
        ends = (rows == rows.min(), rows == rows.max(), columns == columns.min(), columns == columns.max())
        return (np.array([(columns[end].mean(), rows[end].mean()) for end in ends], "float32").reshape(-1) + 0.5) / size

    return _composed("keypoints", data_dir, (train, test), size, seed, target, answer)


def _silhouette(piece: _Piece) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in the scene, of the garment's pixels."""
    rows, columns = np.nonzero(piece.solid)
    return rows + piece.top, columns + piece.left


def _composed(
    task: str,
    data_dir: str | os.PathLike | None,
    numbers: tuple[int, int],
    size: int,
    seed: int,
    target: str | None,
    answer: Callable[[list[_Piece]], np.ndarray],
    classes: tuple[str, ...] = (),
) -> Data:
    for role, number, least in zip(("train", "test"), numbers, (2, 1)):
        check_whole(role, number, least, _FIX)
    check_whole("size", size, _GARMENT, "It is the side of a scene in pixels: for example 40.")
    check_whole("seed", seed, 0, "For example 0.")
    if target is not None:
        check_choice("target", target, GARMENTS)
    source = fashion_mnist(data_dir)
    parts = {}
    for stream, (role, number) in enumerate(zip(("train", "test"), numbers)):
        random = np.random.default_rng([seed, stream])
        scenes = _scenes(role, source, number, size, target, random)
        x, y = zip(*((_drawn(pieces, size, random), answer(pieces)) for pieces in scenes))
        parts[role] = Part(np.stack(x)[..., None], np.stack(y))
    name = f"{task} of {target or 'garments'}"
    return Data(name, parts["train"], parts["test"], validation=tenth(numbers[0]), divide_by=255.0, classes=classes)


def _scenes(
    role: str, source: Data, number: int, size: int, target: str | None, random: np.random.Generator
) -> Iterator[list[_Piece]]:
    """The garments of each scene, from the back to the front; a target is the last."""
    images, labels = getattr(source, role)[:2]
    order = random.permutation(len(labels))
    wanted = labels[order] == GARMENTS.index(target) if target else np.zeros(len(order), bool)
    targets, others = order[wanted], order[~wanted]
    most = min(len(others) // (2 if target else 3), len(targets) if target else len(others))
    if number > most:
        refuse(f"{role} must be at most {most:,}: each scene has garments of its own; got {number:,}.", _FIX)
    used = 0
    for scene in range(number):
        more = int(random.integers(1, 3)) if target else int(random.integers(2, 4))
        chosen = [*others[used : used + more], *targets[scene : scene + 1]]
        used += more
        taken = np.zeros((size, size), bool)
        pieces: list[_Piece] = []
        for index in reversed(chosen):  # the target finds a free place, the others beside it
            piece = _placed(images[index], int(labels[index]), taken, random)
            taken[piece.area()] |= piece.solid
            pieces.insert(0, piece)
        yield pieces


def _placed(image: np.ndarray, label: int, taken: np.ndarray, random: np.random.Generator) -> _Piece:
    """The garment in a random size, at the one of a few random places where it lies on other garments least."""
    side = int(random.integers(_SIDES[0], _SIDES[1] + 1))
    rows = np.arange(side) * _GARMENT // side  # whole numbers only: the same pixels on every machine
    pixels = image[np.ix_(rows, rows)]
    solid = pixels > _SOLID
    places = random.integers(0, len(taken) - side + 1, (_TRIES, 2))
    pieces = [_Piece(pixels, solid, label, int(top), int(left)) for top, left in places]
    return min(pieces, key=lambda piece: int((taken[piece.area()] & solid).sum()))


def _drawn(pieces: list[_Piece], size: int, random: np.random.Generator) -> np.ndarray:
    """The scene's picture, (size, size), uint8."""
    coarse = random.integers(0, _TEXTURE + 1, (-(-size // 8) + 1,) * 2)
    ends = np.arange(size) // 8, np.arange(size) % 8 / 8
    lines = coarse[ends[0]] * (1 - ends[1][:, None]) + coarse[ends[0] + 1] * ends[1][:, None]
    canvas = lines[:, ends[0]] * (1 - ends[1]) + lines[:, ends[0] + 1] * ends[1]
    for piece in pieces:
        canvas[piece.area()][piece.solid] = piece.pixels[piece.solid]
    return np.clip(canvas + random.normal(0, _NOISE, canvas.shape), 0, 255).astype("uint8")
