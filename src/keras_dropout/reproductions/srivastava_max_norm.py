"""Srivastava et al. 2014, table 9: dropout with max-norm against other regularisers."""

from typing import Any

import keras
import numpy as np

from keras_dropout.bench.data import fashion_mnist
from keras_dropout.bench.reproduction import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import perceptron, sgd

_DROPOUT = "dropout"
_L2, _NORMS = (0.0003, 0.001, 0.003), (1.0, 2.0, 3.0)


def _parts(quick: bool) -> dict[str, Part]:
    examples, units, epochs, batch = (2000, 128, 40, 50) if quick else (10_000, 256, 40, 50)
    steps = epochs * examples * 9 // 10 // batch

    def part(**options: Any) -> Part:
        return Part(
            lambda: perceptron((28, 28), (units, units), sgd(0.05, steps), name=f"mlp-784-{units}-{units}-10", **options),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {_DROPOUT: {"input": 0.2, "hidden": 0.5}},
            epochs,
            batch,
        )

    penalties = {_l2(strength): part(regularizer=keras.regularizers.L2(strength)) for strength in _L2}
    return penalties | {_norm(most): part(constraint=keras.constraints.MaxNorm(most)) for most in _NORMS}


def _l2(strength: float) -> str:
    return f"L2 {strength:g}"


def _norm(most: float) -> str:
    return f"max-norm {most:g}"


def _loss(found: Found, variant: str, parts: list[str]) -> np.ndarray:
    """The test loss of the part whose validation loss is lowest, in the mean over seeds."""
    means = {part: found.values("validation_loss", variant, part).mean() for part in parts}
    return found.values("test_loss", variant, min(means, key=means.get))


_WITH_L2, _WITH_NORM = [_l2(strength) for strength in _L2], [_norm(most) for most in _NORMS]

REPRODUCTION = Reproduction(
    name="srivastava-max-norm",
    title="Dropout with max-norm against other regularisers",
    claim="Dropout with max-norm has the lowest error, before dropout with L2, max-norm alone and L2 alone.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, table 9",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss: L2 minus dropout with max-norm",
            lambda found: _loss(found, "none", _WITH_L2) - _loss(found, _DROPOUT, _WITH_NORM),
            above=0.0,
            published="error on MNIST 1.62 % with L2, 1.05 % with dropout and max-norm",
        ),
        Expectation(
            "test loss: max-norm minus dropout with max-norm",
            lambda found: _loss(found, "none", _WITH_NORM) - _loss(found, _DROPOUT, _WITH_NORM),
            above=0.0,
            published="error on MNIST 1.35 % with max-norm, 1.05 % with dropout and max-norm",
        ),
        Expectation(
            "test loss: dropout with L2 minus dropout with max-norm",
            lambda found: _loss(found, _DROPOUT, _WITH_L2) - _loss(found, _DROPOUT, _WITH_NORM),
            above=0.0,
            published="error on MNIST 1.25 % with dropout and L2, 1.05 % with dropout and max-norm",
        ),
    ),
    shows=("test_loss", "test_accuracy", "validation_loss"),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, two hidden layers of 128 (quick) or 256 in place of "
    "three of 1,024 and 2,048; the loss, not the error, decides. Each has that of three strengths whose validation loss is lowest.",
    quick_seconds=90,
)
