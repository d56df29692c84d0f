"""Liu et al. 2023, figure 2 and table 1: dropout only early in training, for a network that underfits."""

from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import on_garments
from keras_dropout.schedules import Early


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (30_000, 12) if quick else (60_000, 18)
    variants = {"standard": {"hidden": 0.1}, "early": {"hidden": Early(0.1, 1 / 6)}}
    return {"underfitting": on_garments((32, 32, 32), 0.05, variants, examples, epochs, 100)}


REPRODUCTION = Reproduction(
    name="liu-early",
    title="Early dropout against underfitting",
    claim="Dropout in the first sixth of training alone gives an underfitting network a lower training loss at the end than "
    "dropout throughout, and than none.",
    source="Liu et al. 2023, arXiv:2303.01500, table 1",
    parts=_parts,
    expectations=(
        difference(
            "train_loss",
            "none",
            "early",
            "lower with early dropout, and 73.9 % right with none, 74.3 with early dropout (ViT-T, ImageNet)",
        ),
        difference("train_loss", "standard", "early", "lower with early dropout, and 67.9 % right with standard dropout"),
        difference("train_loss", "standard", "none", "standard dropout makes underfitting worse"),
    ),
    differs="A perceptron of three hidden layers of 32 on Fashion-MNIST in place of a transformer on ImageNet, a few epochs of SGD "
    "with momentum 0.9 and a learning rate that falls from 0.05 to 0, without augmentation; the rate, 0.1, and the share of "
    "training that has dropout are those of the paper.",
    quick_seconds=45,
)
