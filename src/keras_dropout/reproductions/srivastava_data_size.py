"""Srivastava et al. 2014, figure 10: how the gain from dropout depends on the size of the data set."""

import numpy as np

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import perceptron, sgd

SIZES = (100, 500, 2000, 10_000)
_DROPOUT, _BATCH = "dropout", 30  # the batch size, for 90, 450, 1,800 and 9,000 images


def _part(size: int, units: int, updates: int) -> Part:
    steps = size * 9 // 10 // _BATCH
    return Part(
        lambda: perceptron((28, 28), (units, units), sgd(0.02, updates)),
        lambda data_dir: fashion_mnist(data_dir, train=size),
        {_DROPOUT: {"input": 0.2, "hidden": 0.5}},
        updates // steps,
        _BATCH,
    )


def _parts(quick: bool) -> dict[str, Part]:
    units, updates = (256, 2000) if quick else (512, 5000)
    return {_name(size): _part(size, units, updates) for size in SIZES}


def _name(size: int) -> str:
    return f"{size} images"


def _gain(found: Found, size: int) -> np.ndarray:
    """Return by how much dropout lowers the test loss."""
    return found.values("test_loss", part=_name(size)) - found.values("test_loss", _DROPOUT, _name(size))


REPRODUCTION = Reproduction(
    name="srivastava-data-size",
    title="The effect of the size of the data set",
    claim="With very few examples dropout does not help; with more of them the gain rises up to a point and then declines.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 10",
    parts=_parts,
    expectations=(
        Expectation(
            "gain in test loss: 2,000 images minus 100",
            lambda found: _gain(found, 2000) - _gain(found, 100),
            above=0.0,
            published="the gain from dropout rises with the size of the data set up to a point",
        ),
        Expectation(
            "gain in test loss: 2,000 images minus 10,000",
            lambda found: _gain(found, 2000) - _gain(found, 10_000),
            above=0.0,
            published="and then declines",
        ),
        Expectation(
            "gain in test loss with 100 images",
            lambda found: _gain(found, 100),
            below=0.0,
            published="with 100 and 500 examples dropout gives no improvement",
        ),
    ),
    differs="Fashion-MNIST in place of MNIST, two hidden layers of 256 (quick) or 512 in place of three of 1,024 and 2,048; the "
    "loss, not the error, decides. Each size has as many updates, too few for 10,000 images: there the dropout network underfits.",
    quick_seconds=110,
)
