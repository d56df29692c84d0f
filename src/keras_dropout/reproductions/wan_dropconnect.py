"""Wan et al. 2013, table 1 and figure 3: drop weights instead of units."""

from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import on_garments


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (3000, 50) if quick else (5000, 100)
    variants = {"dropout": {"hidden": 0.5}, "dropconnect": {"hidden": {"kind": "DropConnect", "rate": 0.5, "per": "batch"}}}
    return {"weights and units": on_garments((400, 400), 0.05, variants, examples, epochs)}


REPRODUCTION = Reproduction(
    name="wan-dropconnect",
    title="Dropping weights instead of units",
    claim="DropConnect overfits less than no dropping and does better than dropout, while training is slower.",
    source="Wan et al. 2013, PMLR 28(3):1058-1066",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss: none minus DropConnect",
            minus("test_loss", "none", "dropconnect"),
            above=0.0,
            published="a lower error on MNIST with relu units",
        ),
        Expectation(
            "test loss: dropout minus DropConnect",
            minus("test_loss", "dropout", "dropconnect"),
            above=0.0,
            published="DropConnect often does better than dropout",
        ),
        Expectation(
            "loss in training, mean of all epochs: DropConnect minus none",
            lambda found: found.curves("loss", "dropconnect").mean(1) - found.curves("loss").mean(1),
            above=0.0,
            published="training is slower with DropConnect",
        ),
    ),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, two hidden layers of 400 in place of 800, the loss in "
    "place of the error; one mask of the weights for a batch of 50 in place of one for each example, and the mean weights in place "
    "of Gaussian sums at test.",
    changed="Sizes and epochs, after it was not reproduced with earlier ones.",
    quick_seconds=80,
)
