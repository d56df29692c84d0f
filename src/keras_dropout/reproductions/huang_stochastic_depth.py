"""Huang et al. 2016, stochastic depth: residual branches are dropped at random, later ones more often."""

import keras

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.layers import StochasticDepth, linear_decay
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import classifier, sgd

BLOCKS = 12


def network(steps: int) -> keras.Model:
    """Build a residual network of dense blocks, with batch normalisation as in the paper and rates that rise to 0.5 with depth."""
    inputs = keras.Input((28, 28), name="pixels")
    x = keras.layers.Dense(64, "relu", name="entry")(keras.layers.Flatten(name="flatten")(inputs))
    for number, rate in enumerate(linear_decay(0.5, BLOCKS), 1):
        branch = keras.layers.BatchNormalization(name=f"normal_{number}")(x)
        branch = keras.layers.Dense(64, "relu", name=f"wide_{number}")(branch)
        branch = keras.layers.Dense(64, name=f"back_{number}")(branch)
        x = keras.layers.Add(name=f"sum_{number}")([x, StochasticDepth(rate, mode="batch", name=f"depth_{number}")(branch)])
    x = keras.layers.ReLU(name="exit")(keras.layers.BatchNormalization(name="normal")(x))
    return classifier(inputs, x, sgd(0.05, steps), f"residual-mlp-{BLOCKS}-blocks")


def _parts(quick: bool) -> dict[str, Part]:
    train, epochs, batch = (3_000, 40, 50) if quick else (10_000, 60, 50)
    steps = epochs * (train * 9 // 10) // batch
    return {
        "depth": Part(lambda: network(steps), lambda data_dir: fashion_mnist(data_dir, train=train), ["as-built"], epochs, batch)
    }


REPRODUCTION = Reproduction(
    name="huang-stochastic-depth",
    title="Stochastic depth",
    claim="A deep residual network whose branches are dropped in training, the later the more, has a smaller test error.",
    source="Huang et al. 2016, arXiv:1603.09382, table 1",
    parts=_parts,
    expectations=(
        Expectation(
            "test accuracy: stochastic depth minus none",
            minus("test_accuracy", "as-built", "none"),
            above=0.0,
            published="error of 6.41 to 5.25 %, ResNet-110 on CIFAR-10",
        ),
        Expectation(
            "test loss: none minus stochastic depth", minus("test_loss", "none", "as-built"), above=0.0, published="not given"
        ),
        Expectation(
            "gap of loss, test minus train: none minus stochastic depth",
            lambda found: found.gap() - found.gap("as-built"),
            above=0.0,
            published="the training error is larger, the test error smaller",
        ),
    ),
    shows=("test_accuracy", "test_loss", "train_loss"),
    differs="Twelve residual blocks of dense layers on a part of Fashion-MNIST in place of 54 of convolutions on CIFAR-10; "
    "survival is made up for in training, not at prediction, which is the same in expectation.",
    quick_seconds=35,
)
