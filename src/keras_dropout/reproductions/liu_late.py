"""Liu et al. 2023, late dropout: dropout only in the later part of training, for a network that overfits."""

from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import on_garments
from keras_dropout.schedules import Late


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (3000, 48) if quick else (10_000, 60)
    variants = {"standard": {"hidden": 0.4}, "late": {"hidden": Late(0.4, 1 / 6)}}
    return {"overfitting": on_garments((256, 256), 0.02, variants, examples, epochs)}


REPRODUCTION = Reproduction(
    name="liu-late",
    title="Late dropout against overfitting",
    claim="Dropout that begins after the first sixth of training improves an overfitting network, by more than dropout throughout.",
    source="Liu et al. 2023, arXiv:2303.01500",
    parts=_parts,
    expectations=(
        difference("test_loss", "none", "late", "late dropout regularises networks that overfit"),
        difference(
            "test_accuracy", "late", "standard", "82.3 % with late, 81.6 % with standard stochastic depth (ViT-B, ImageNet)"
        ),
    ),
    differs="A perceptron on a part of Fashion-MNIST in place of a transformer on ImageNet, and dropout of hidden units in place "
    "of stochastic depth, at the same rate, 0.4, and from the same share of training on.",
    quick_seconds=60,
)
