"""Liu et al. 2023, late dropout: dropout only in the later part of training, for a network that overfits."""

from keras_dropout.bench.data.public_sets import fashion_mnist
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import perceptron, sgd
from keras_dropout.schedules import Late

RATE, START = 0.4, 1 / 6


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs, batch = (3000, 48, 50) if quick else (10_000, 60, 50)
    steps = epochs * examples * 9 // 10 // batch
    return {
        "overfitting": Part(
            lambda: perceptron((28, 28), (256, 256), sgd(0.02, steps), name="mlp-784-256-256-10"),
            lambda data_dir: fashion_mnist(data_dir, train=examples),
            {"standard": {"hidden": RATE}, "late": {"hidden": Late(RATE, START)}},
            epochs,
            batch,
        )
    }


REPRODUCTION = Reproduction(
    name="liu-late",
    title="Late dropout against overfitting",
    claim="Dropout that begins after the first sixth of training improves an overfitting network, by more than dropout throughout.",
    source="Liu et al. 2023, arXiv:2303.01500",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss: none minus late",
            minus("test_loss", "none", "late"),
            above=0.0,
            published="late dropout regularises networks that overfit",
        ),
        Expectation(
            "test accuracy: late minus standard",
            minus("test_accuracy", "late", "standard"),
            above=0.0,
            published="82.3 % with late, 81.6 % with standard stochastic depth (ViT-B, ImageNet)",
        ),
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="A perceptron on a part of Fashion-MNIST in place of a transformer on ImageNet, and dropout of hidden units in place "
    "of stochastic depth, at the same rate, 0.4, and from the same share of training on.",
    quick_seconds=60,
)
