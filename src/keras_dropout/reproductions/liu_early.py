"""Liu et al. 2023, figure 2 and table 1: dropout only early in training, for a network that underfits."""

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import perceptron, sgd
from keras_dropout.schedules import Early

RATE, UNTIL = 0.1, 1 / 6


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch = (30_000, 12, 100) if quick else (60_000, 18, 100)
    steps = epochs * examples * 9 // 10 // batch
    return {
        "underfitting": Part(
            lambda: perceptron((28, 28), (32, 32, 32), sgd(0.05, steps), name="mlp-784-32-32-32-10"),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {"standard": {"hidden": RATE}, "early": {"hidden": Early(RATE, UNTIL)}},
            epochs,
            batch,
        )
    }


REPRODUCTION = Reproduction(
    name="liu-early",
    title="Early dropout against underfitting",
    claim="Dropout in the first sixth of training alone gives an underfitting network a lower training loss at the end than "
    "dropout throughout, and than none.",
    source="Liu et al. 2023, arXiv:2303.01500, table 1",
    parts=_parts,
    expectations=(
        Expectation(
            "train loss, dropout off: none minus early",
            minus("train_loss", "none", "early"),
            above=0.0,
            published="lower with early dropout, and 73.9 % right with none, 74.3 with early dropout (ViT-T, ImageNet)",
        ),
        Expectation(
            "train loss, dropout off: standard minus early",
            minus("train_loss", "standard", "early"),
            above=0.0,
            published="lower with early dropout, and 67.9 % right with standard dropout",
        ),
        Expectation(
            "train loss, dropout off: standard minus none",
            minus("train_loss", "standard", "none"),
            above=0.0,
            published="standard dropout makes underfitting worse",
        ),
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="A perceptron of three hidden layers of 32 on Fashion-MNIST in place of a transformer on ImageNet, a few epochs of SGD "
    "with momentum 0.9 and a learning rate that falls from 0.05 to 0, without augmentation; the rate, 0.1, and the share of "
    "training that has dropout are those of the paper.",
    quick_seconds=45,
)
