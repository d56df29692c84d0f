"""Srivastava et al. 2014, figure 4: dropout helps networks of many shapes, with the same settings."""

import functools

import numpy as np

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import perceptron, sgd

_DROPOUT = "dropout"
HIDDEN = ((128, 128), (256, 256), (128, 128, 128), (256, 256, 256))


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch, wider = (2000, 60, 50, 1) if quick else (5000, 60, 50, 2)
    steps = epochs * examples * 9 // 10 // batch

    def part(hidden: tuple[int, ...]) -> Part:
        units = [wider * each for each in hidden]
        name = "-".join(map(str, ("mlp", 784, *units, 10)))
        return Part(
            lambda: perceptron((28, 28), units, sgd(0.02, steps), name=name),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {_DROPOUT: {"input": 0.2, "hidden": 0.5}},
            epochs,
            batch,
        )

    return {_name(hidden): part(hidden) for hidden in HIDDEN}


def _name(hidden: tuple[int, ...]) -> str:
    width = {128: "narrow", 256: "wide"}[hidden[0]]
    return f"{len(hidden)} {width} layers"


def _gain(part: str, found: Found) -> np.ndarray:
    return found.values("test_loss", part=part) - found.values("test_loss", _DROPOUT, part)


REPRODUCTION = Reproduction(
    name="srivastava-widths",
    title="Dropout in networks of different shapes",
    claim="With the same settings, rates too, dropout lowers the error of networks of different widths and depths.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 4",
    parts=_parts,
    expectations=tuple(
        Expectation(
            f"test loss, {part}: none minus dropout",
            functools.partial(_gain, part),
            above=0.0,
            published="the errors with dropout lie below those without, for each network",
        )
        for part in map(_name, HIDDEN)
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, two and three layers of 128 and 256 (twice as wide "
    "where not quick) in place of larger ones; the loss, not the error, decides, and the accuracy, shown too, does not follow it "
    "in each network.",
    quick_seconds=75,
)
