"""Scenes composed of real Fashion-MNIST garments: data for segmentation, detection and keypoints."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from keras_dropout.bench.data.dataset import Data, Part, tenth
from keras_dropout.bench.data.public_sets import GARMENTS, fashion_mnist
from keras_dropout.errors import check_choice, check_whole, refuse

_GARMENT = 28  # pixels a side, as published
_SIDES = (14, 22)  # of a garment in a scene, pixels
_SOLID = 16  # brightness above which a pixel belongs to the garment; scans have some dust around it
_TRIES = 8  # random places tried for a garment; the place with the least overlap is used
_TEXTURE, _NOISE = 90, 12  # brightness: the background's maximum, and the standard deviation of the pixel noise
_FIX = "For example train=2000, test=1000."


class _Piece(NamedTuple):
    """A garment and its place in a scene."""

    pixels: np.ndarray
    solid: np.ndarray  # same shape: which pixels belong to the garment
    label: int
    top: int
    left: int

    def area(self) -> tuple[slice, slice]:
        side = len(self.pixels)
        return slice(self.top, self.top + side), slice(self.left, self.left + side)


def segmentation(
    data_dir: str | os.PathLike | None = None, train: int = 2000, test: int = 1000, size: int = 40, seed: int = 0
) -> Data:
    """Make data for segmentation: x (scenes, size, size, 1), uint8, y (scenes, size, size), 0 background, 1 to 10 garments.

    A scene has two or three garments of random classes, 14 to 22 pixels a side, on a grey texture with noise. Garments overlap
    little, and later ones cover earlier ones. Test scenes use garments of the Fashion-MNIST test data, training scenes those of its
    training data, and each garment appears in one scene only. The first scenes of a seed are the same for any number of scenes. A
    tenth of training is for validation. `data_dir` is the folder of Fashion-MNIST.
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
    """Make data with the box of the only `target`: x as in `segmentation`, y (scenes, 4), float32: centre x and y, width, height.

    All are shares of the scene's side, x from the left and y from the top. A scene also has one or two garments of other classes,
    and nothing covers the target. Each scene has its own target, so there are at most 6,000 training and 1,000 test scenes.
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
    """Make data with points of the only `target`: y (scenes, 8), float32: x and y of its top, bottom, leftmost and rightmost point.

    The points are centres of pixels of the silhouette, as shares of the scene's side. If several pixels are equally high, low
    or far to a side, the point is their mean. Scenes are composed as in `boxes`.
    """

    def answer(pieces: list[_Piece]) -> np.ndarray:
        rows, columns = _silhouette(pieces[-1])
        ends = (rows == rows.min(), rows == rows.max(), columns == columns.min(), columns == columns.max())
        return (np.array([(columns[end].mean(), rows[end].mean()) for end in ends], "float32").reshape(-1) + 0.5) / size

    return _composed("keypoints", data_dir, (train, test), size, seed, target, answer)


def _silhouette(piece: _Piece) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the garment's pixels in the scene."""
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
    """Yield the garments of each scene, from back to front; a target is the last."""
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
        for index in reversed(chosen):  # place the target first, on free ground, then the others around it
            piece = _placed(images[index], int(labels[index]), taken, random)
            taken[piece.area()] |= piece.solid
            pieces.insert(0, piece)
        yield pieces


def _placed(image: np.ndarray, label: int, taken: np.ndarray, random: np.random.Generator) -> _Piece:
    """Place the garment in a random size, at the one of a few random places with the least overlap."""
    side = int(random.integers(_SIDES[0], _SIDES[1] + 1))
    rows = np.arange(side) * _GARMENT // side  # whole numbers only, for the same pixels on every machine
    pixels = image[np.ix_(rows, rows)]
    solid = pixels > _SOLID
    places = random.integers(0, len(taken) - side + 1, (_TRIES, 2))
    pieces = [_Piece(pixels, solid, label, int(top), int(left)) for top, left in places]
    return min(pieces, key=lambda piece: int((taken[piece.area()] & solid).sum()))


def _drawn(pieces: list[_Piece], size: int, random: np.random.Generator) -> np.ndarray:
    """Draw the picture of the scene, (size, size), uint8."""
    coarse = random.integers(0, _TEXTURE + 1, (-(-size // 8) + 1,) * 2)
    ends = np.arange(size) // 8, np.arange(size) % 8 / 8
    lines = coarse[ends[0]] * (1 - ends[1][:, None]) + coarse[ends[0] + 1] * ends[1][:, None]
    canvas = lines[:, ends[0]] * (1 - ends[1]) + lines[:, ends[0] + 1] * ends[1]
    for piece in pieces:
        canvas[piece.area()][piece.solid] = piece.pixels[piece.solid]
    return np.clip(canvas + random.normal(0, _NOISE, canvas.shape), 0, 255).astype("uint8")
