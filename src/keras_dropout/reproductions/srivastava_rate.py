"""Srivastava et al. 2014, figure 9a: how the error depends on the rate."""

import functools

import numpy as np

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Found, Part, Reproduction, minus
from keras_dropout.reproductions.networks import perceptron, sgd

RATES = (0.2, 0.4, 0.6, 0.8, 0.9)
_RISES = tuple(zip((0.0, *RATES), RATES))


def _variant(rate: float) -> str:
    return f"rate {rate:g}" if rate else "none"


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch = (3000, 40, 50) if quick else (10_000, 60, 50)
    steps = epochs * examples * 9 // 10 // batch
    return {
        "rates": Part(
            lambda: perceptron((28, 28), (256, 256), sgd(0.02, steps), name="mlp-784-256-256-10"),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {_variant(rate): {"hidden": rate} for rate in RATES},
            epochs,
            batch,
        )
    }


def _rise(low: float, high: float, found: Found) -> np.ndarray:
    return found.values("train_loss", _variant(high)) - found.values("train_loss", _variant(low))


REPRODUCTION = Reproduction(
    name="srivastava-rate",
    title="The effect of the dropout rate",
    claim="The test error is U-shaped in the rate and flat between keeping 0.4 and 0.8; the training error rises with the rate.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 9a",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss: none minus rate 0.6",
            minus("test_loss", "none", "rate 0.6"),
            above=0.0,
            published="the error is smallest between keeping 0.4 and 0.8",
        ),
        Expectation(
            "test loss: rate 0.9 minus rate 0.6",
            minus("test_loss", "rate 0.9", "rate 0.6"),
            above=0.0,
            published="the error rises again where little is kept",
        ),
        *(
            Expectation(
                f"train loss, dropout off: rate {high:g} minus {_variant(low)}",
                functools.partial(_rise, low, high),
                above=0.0,
                published="the training error rises with the rate",
            )
            for low, high in _RISES
        ),
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, two hidden layers of 256 in place of three of 2048, "
    "SGD with momentum 0.9 and a learning rate that falls from 0.02 to 0; the loss, not the error, decides.",
    quick_seconds=90,
)
