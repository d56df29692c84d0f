"""Object detection: dropout methods for feature maps, when a network predicts the box of an object in a scene."""

from keras import optimizers

from keras_dropout.bench.data.scenes import boxes
from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import localiser, on_maps


def _parts(quick: bool) -> dict[str, Part]:
    train, epochs = (600, 30) if quick else (3_000, 60)
    return {
        "boxes": Part(
            lambda: localiser(32, 4, optimizers.Adam(2e-3), "box-of-a-bag"),
            lambda data_dir: boxes(data_dir, train=train, test=1_000, size=32),
            on_maps("conv_2", "conv_3"),
            epochs,
            25,
        )
    }


REPRODUCTION = Reproduction(
    name="ghiasi-detection",
    title="Object detection",
    claim="Dropping blocks of feature maps improves object detection.",
    source="Ghiasi, Lin and Le 2018, arXiv:1810.12890, section 4.2; dropout in detection is named in the tutorial",
    parts=_parts,
    expectations=(
        difference(
            "test_loss", "none", "blocks", "36.8 to 38.4 AP, RetinaNet on COCO", label="test loss (squared error of the box)"
        ),
        difference("test_loss", "units", "blocks", "not given", above=None),
    ),
    shows=("test_loss", "test_mae", "train_loss"),
    differs="One box in scenes composed by rule of Fashion-MNIST garments, as shares of the scene's side, in place of COCO, and "
    "a small network in place of RetinaNet; squared error in place of average precision.",
    quick_seconds=100,
)
