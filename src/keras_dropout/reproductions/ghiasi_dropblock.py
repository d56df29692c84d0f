"""Ghiasi, Lin and Le 2018, DropBlock: blocks of a feature map against single units and whole channels."""

import keras

from keras_dropout.bench.data.cifar import cifar10
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, difference
from keras_dropout.reproductions.networks import classifier, maps, on_maps


def network() -> keras.Model:
    """Build three convolutions of 3x3, the first two with pooling, and a dense layer."""
    x = inputs = keras.Input((16, 16, 3), name="pixels")
    for number, filters in enumerate((16, 32, 32), 1):
        x = maps(x, filters, f"conv_{number}")
        x = keras.layers.MaxPooling2D(2, name=f"pool_{number}")(x) if number < 3 else x
    x = keras.layers.Dense(64, "relu", name="hidden")(keras.layers.Flatten(name="flatten")(x))
    return classifier(inputs, x, keras.optimizers.Adam(2e-3), "cifar-convnet")


def _parts(quick: bool) -> dict[str, Part]:
    train, test, epochs, batch = (600, 3_000, 40, 25) if quick else (5_000, 10_000, 60, 50)
    return {
        "images": Part(
            network,
            lambda data_dir: cifar10(data_dir, train=train, test=test, size=16),
            on_maps("conv_2", "conv_3"),
            epochs,
            batch,
        )
    }


REPRODUCTION = Reproduction(
    name="ghiasi-dropblock",
    title="Blocks of a map against single units",
    claim="Dropping blocks of the feature maps generalises better than no dropout, and better than dropping single units.",
    source="Ghiasi, Lin and Le 2018, arXiv:1810.12890, table 1",
    parts=_parts,
    expectations=(
        difference("test_accuracy", "blocks", "none", "76.51 to 78.13 %, ResNet-50 on ImageNet"),
        difference("test_accuracy", "blocks", "units", "blocks are better than units"),
        Expectation(
            "gap of loss, test minus train: none minus blocks",
            lambda found: found.gap() - found.gap("blocks"),
            above=0.0,
            published="blocks regularise",
        ),
    ),
    shows=("test_accuracy", "test_loss", "train_loss"),
    differs="A small convolutional network on a part of CIFAR-10 in 16x16, with rates of 0.1 in its last two layers, in place of "
    "ResNet-50 on ImageNet; the rate stays, in the paper it grows over training.",
    changed="Sizes and epochs.",
    quick_seconds=90,
)
