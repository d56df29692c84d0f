"""Ghiasi, Lin and Le 2018, DropBlock: blocks of a feature map against single units and whole channels."""

import keras

from keras_dropout.bench.data.cifar import cifar10
from keras_dropout.bench.reproduction import Expectation, Found, Part, Reproduction
from keras_dropout.reproductions.networks import maps, on_maps, sgd


def network(steps: int) -> keras.Model:
    """Four convolutions of 3x3, two to a size of maps, and global average pooling."""
    inputs = keras.Input((16, 16, 3), name="pixels")
    x = inputs
    for number, filters in enumerate((24, 24, 48, 48), 1):
        x = maps(x, filters, f"conv_{number}")
        if number == 2:
            x = keras.layers.MaxPooling2D(2, name="pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax", name="classes")(x), name="cifar-convnet")
    model.compile(sgd(0.03, steps), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _parts(quick: bool) -> dict[str, Part]:
    train, test, epochs, batch = (600, 3_000, 40, 25) if quick else (5_000, 10_000, 60, 50)
    steps = epochs * (train * 9 // 10) // batch
    return {
        "CIFAR-10": Part(
            lambda: network(steps),
            lambda data_dir: cifar10(data_dir, train=train, test=test, size=16),
            on_maps("conv_3", "conv_4"),
            epochs,
            batch,
        )
    }


def _gap(found: Found, variant: str) -> object:
    return found.values("test_loss", variant) - found.values("train_loss", variant)


REPRODUCTION = Reproduction(
    name="ghiasi-dropblock",
    title="Blocks of a map against single units",
    claim="Dropping blocks of the feature maps generalises better than no dropout, and better than dropping single units.",
    source="Ghiasi, Lin and Le 2018, arXiv:1810.12890, table 1",
    parts=_parts,
    expectations=(
        Expectation(
            "test accuracy: blocks minus none",
            lambda found: found.values("test_accuracy", "blocks") - found.values("test_accuracy"),
            above=0.0,
            published="76.51 to 78.13 %, ResNet-50 on ImageNet",
        ),
        Expectation(
            "test accuracy: blocks minus units",
            lambda found: found.values("test_accuracy", "blocks") - found.values("test_accuracy", "units"),
            above=0.0,
            published="blocks are better than units",
        ),
        Expectation(
            "gap of loss, test minus train: none minus blocks",
            lambda found: _gap(found, "none") - _gap(found, "blocks"),
            above=0.0,
            published="blocks regularise",
        ),
    ),
    shows=("test_accuracy", "test_loss", "train_loss"),
    differs="A convolutional network of four layers on a part of CIFAR-10 in 16x16, with rates of 0.1 in its last two layers, in "
    "place of ResNet-50 on ImageNet; the rate stays, in the paper it grows over training.",
    quick_seconds=120,
)
