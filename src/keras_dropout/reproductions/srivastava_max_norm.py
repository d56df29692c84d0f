"""Srivastava et al. 2014, table 9: dropout with max-norm against other regularisers."""

import functools

import keras
import numpy as np

from keras_dropout.companions import MaxNorm
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import on_garments

_DROPOUT, _L2, _NORM = "dropout", "L2", "max-norm"
_STRENGTHS = {_L2: (0.001, 0.003, 0.01), _NORM: (2, 1, 3)}


def _parts(quick: bool) -> dict[str, Part]:
    examples, units, epochs, tried = (2000, 256, 80, 2) if quick else (10_000, 512, 60, 3)
    part = functools.partial(on_garments, (units, units), 0.05, {_DROPOUT: {"input": 0.2, "hidden": 0.5}}, examples, epochs)
    penalties = {f"{_L2} {each:g}": part(regularizer=keras.regularizers.L2(each)) for each in _STRENGTHS[_L2][:tried]}
    return penalties | {f"{_NORM} {each}": part(constraint=MaxNorm(each)) for each in _STRENGTHS[_NORM][:tried]}


def _loss(found: Found, variant: str, kind: str) -> np.ndarray:
    """Return the test loss at the strength of L2 or max-norm with the lowest mean validation loss over seeds."""
    parts = [part for part in found.comparisons if part.startswith(kind)]
    means = {part: np.nan_to_num(found.values("validation_loss", variant, part), nan=np.inf).mean() for part in parts}
    return found.values("test_loss", variant, min(means, key=means.__getitem__))


REPRODUCTION = Reproduction(
    name="srivastava-max-norm",
    title="Dropout with max-norm against other regularisers",
    claim="Dropout with max-norm has the lowest error, before dropout with L2, max-norm alone and L2 alone.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, table 9",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss: L2 minus dropout with max-norm",
            lambda found: _loss(found, "none", _L2) - _loss(found, _DROPOUT, _NORM),
            above=0.0,
            published="error on MNIST 1.62 % with L2, 1.05 % with dropout and max-norm",
        ),
        Expectation(
            "test loss: max-norm minus dropout with max-norm",
            lambda found: _loss(found, "none", _NORM) - _loss(found, _DROPOUT, _NORM),
            above=0.0,
            published="error on MNIST 1.35 % with max-norm, 1.05 % with dropout and max-norm",
        ),
        Expectation(
            "test loss: dropout with L2 minus dropout with max-norm",
            lambda found: _loss(found, _DROPOUT, _L2) - _loss(found, _DROPOUT, _NORM),
            above=0.0,
            published="error on MNIST 1.25 % with dropout and L2, 1.05 % with dropout and max-norm",
        ),
    ),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, smaller layers, two in place of three; the loss, not "
    "the error, decides. Of two strengths (quick) or three of each regulariser the one with the least validation loss counts.",
    changed="Sizes and epochs.",
    quick_seconds=140,
)
