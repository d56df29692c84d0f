"""Semantic segmentation: dropout methods for feature maps on scenes of garments, with a class for each pixel."""

import keras

from keras_dropout.bench.data.scenes import segmentation
from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import maps, on_maps

SIZE = 32


def network() -> keras.Model:
    """Build a network that halves the maps twice and doubles them twice, with skip connections between maps of equal size."""
    inputs = keras.Input((SIZE, SIZE, 1), name="scene")
    fine = maps(inputs, 8, "fine")
    coarse = maps(keras.layers.MaxPooling2D(2, name="pool_1")(fine), 16, "coarse")
    middle = maps(keras.layers.MaxPooling2D(2, name="pool_2")(coarse), 32, "middle")
    x = keras.layers.Concatenate(name="join_1")([keras.layers.UpSampling2D(2, name="up_1")(middle), coarse])
    x = maps(x, 16, "joined")
    x = keras.layers.Concatenate(name="join_2")([keras.layers.UpSampling2D(2, name="up_2")(x), fine])
    outputs = keras.layers.Conv2D(11, 1, activation="softmax", name="classes")(x)
    model = keras.Model(inputs, outputs, name="segmentation-of-scenes")
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _parts(quick: bool) -> dict[str, Part]:
    train, epochs = (200, 40) if quick else (1_000, 60)
    return {
        "scenes": Part(
            network,
            lambda data_dir: segmentation(data_dir, train=train, test=500, size=SIZE),
            on_maps("coarse", "middle", "joined"),
            epochs,
            10,
        )
    }


REPRODUCTION = Reproduction(
    name="ghiasi-segmentation",
    title="Semantic segmentation",
    claim="Dropping blocks of feature maps improves semantic segmentation.",
    source="Ghiasi, Lin and Le 2018, arXiv:1810.12890, section 4.3; dropout in segmentation is named in the tutorial",
    parts=_parts,
    expectations=(
        difference("test_loss", "none", "blocks", "segmentation on PASCAL VOC improves"),
        difference("test_accuracy", "blocks", "none", "not given", above=None, label="test accuracy of pixels"),
        difference("test_loss", "units", "blocks", "blocks remove what neighbours still tell when single units are dropped"),
    ),
    differs="Scenes composed by rule of Fashion-MNIST garments in place of PASCAL VOC, a small network trained from nothing in "
    "place of RetinaNet, and a rate of 0.1 with blocks of 3.",
    quick_seconds=140,
)
