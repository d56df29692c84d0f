"""Tompson et al. 2015: dropping whole channels when a network predicts points of a body in an image."""

from keras import optimizers

from keras_dropout.bench.data.scenes import keypoints
from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import localiser, on_maps


def _parts(quick: bool) -> dict[str, Part]:
    train, epochs = (800, 40) if quick else (3_000, 60)
    return {
        "points": Part(
            lambda: localiser(32, 8, optimizers.Adam(1e-3), "points-of-a-boot"),
            lambda data_dir: keypoints(data_dir, train=train, test=1_000, size=32),
            on_maps("conv_2", "conv_3"),
            epochs,
            25,
        )
    }


REPRODUCTION = Reproduction(
    name="tompson-pose",
    title="Pose estimation",
    claim="Where points of a body are located, dropping whole channels prevents overfitting, and does it better than dropping "
    "single units.",
    source="Tompson et al. 2015, arXiv:1411.4280, section 3.2; dropout in pose estimation is named in the tutorial",
    parts=_parts,
    expectations=(
        difference(
            "test_loss",
            "none",
            "channels",
            "whole channels dropped improve the result on small training sets",
            label="test loss (squared error of the points)",
        ),
        difference("test_loss", "units", "channels", "dropping single units does not regularise where neighbours are correlated"),
    ),
    shows=("test_loss", "test_mae", "train_loss"),
    differs="Four ends of a boot in scenes composed by rule of Fashion-MNIST garments in place of the joints of people, and "
    "coordinates in place of heat maps.",
    quick_seconds=150,
)
