"""Srivastava et al. 2014, figure 4: dropout helps networks of many shapes, with the same settings."""

from keras_dropout.reproductions.framework import Part, Reproduction, difference
from keras_dropout.reproductions.networks import on_garments

HIDDEN = ((128, 128), (256, 256), (128, 128, 128), (256, 256, 256))


def _parts(quick: bool) -> dict[str, Part]:
    examples, wider = (2000, 1) if quick else (5000, 2)
    variants = {"dropout": {"input": 0.2, "hidden": 0.5}}
    return {_name(hidden): on_garments([wider * units for units in hidden], 0.02, variants, examples, 60) for hidden in HIDDEN}


def _name(hidden: tuple[int, ...]) -> str:
    width = {128: "narrow", 256: "wide"}[hidden[0]]
    return f"{len(hidden)} {width} layers"


REPRODUCTION = Reproduction(
    name="srivastava-widths",
    title="Dropout in networks of different shapes",
    claim="With the same settings, rates too, dropout lowers the error of networks of different widths and depths.",
    source="Srivastava et al. 2014, JMLR 15:1929-1958, figure 4",
    parts=_parts,
    expectations=tuple(
        difference(
            "test_loss",
            "none",
            "dropout",
            "the errors with dropout lie below those without, for each network",
            part=part,
            label=f"test loss, {part}",
        )
        for part in map(_name, HIDDEN)
    ),
    differs="Fashion-MNIST in place of MNIST, a part of its training images, two and three layers of 128 and 256 (twice as wide "
    "where not quick) in place of larger ones; the loss, not the error, decides, and the accuracy, shown too, does not follow it "
    "in each network.",
    quick_seconds=75,
)
