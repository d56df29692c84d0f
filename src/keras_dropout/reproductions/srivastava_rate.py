"""Srivastava et al. 2014, figure 9a: how the error depends on the rate."""

import itertools

from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import on_garments

RATES = (0.2, 0.4, 0.6, 0.8, 0.9)


def _parts(quick: bool) -> dict[str, Part]:
    examples, epochs = (3000, 40) if quick else (10_000, 60)
    variants = {f"rate {rate}": {"hidden": rate} for rate in RATES}
    return {"rates": on_garments((256, 256), 0.02, variants, examples, epochs)}


REPRODUCTION = Reproduction(
    name="srivastava-rate",
    title="The effect of the dropout rate",
    claim="The test error is U-shaped in the rate and flat between keeping 0.4 and 0.8; the training error rises with the rate.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 9a",
    parts=_parts,
    expectations=(
        difference("test_loss", "none", "rate 0.6", "the error is smallest between keeping 0.4 and 0.8"),
        difference("test_loss", "rate 0.9", "rate 0.6", "the error rises again where little is kept"),
        *(
            difference("train_loss", higher, lower, "the training error rises with the rate")
            for lower, higher in itertools.pairwise(("none", *(f"rate {rate}" for rate in RATES)))
        ),
    ),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, two hidden layers of 256 in place of three of 2048, "
    "SGD with momentum 0.9 and a learning rate that falls from 0.02 to 0; the loss, not the error, decides.",
    quick_seconds=90,
)
