"""Kingma, Salimans and Welling 2015, figure 1: a rate learned by variational inference."""

from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, difference, minus
from keras_dropout.reproductions.networks import on_garments

WIDTHS = (24, 192)
FIXED, LEARNED = "gaussian 0.5", "variational"


def _part(width: int) -> str:
    return f"width {width}"


def _part_of(width: int, quick: bool) -> Part:
    examples, epochs = (5000, 25) if quick else (10_000, 40)
    spec = {"kind": "VariationalDropout", "rate": 0.3, "per": "unit", "kl_weight": 1 / (examples * 9 // 10)}
    variants = {
        FIXED: {"hidden": {"kind": "GaussianDropout", "rate": 0.5}},
        LEARNED: {"hidden_2": spec, "hidden_3": spec, "classes": spec},
    }
    return on_garments((width,) * 3, 0.02, variants, examples, epochs, name=f"mlp-784-3x{width}-10")


REPRODUCTION = Reproduction(
    name="kingma-variational",
    title="A rate learned by variational inference",
    claim="Variational dropout overfits less than no dropout, and underfits less than a fixed rate where the network is small.",
    source="Kingma, Salimans and Welling 2015, arXiv:1506.02557, figure 1",
    parts=lambda quick: {_part(width): _part_of(width, quick) for width in WIDTHS},
    expectations=(
        difference(
            "test_loss",
            "none",
            LEARNED,
            "a lower error than without noise",
            part=_part(192),
            label="test loss, three layers of 192",
        ),
        Expectation(
            "test accuracy, three layers of 24: variational minus Gaussian dropout at 0.5",
            minus("test_accuracy", LEARNED, FIXED, _part(24)),
            above=0.0,
            published="the advantage is largest where networks are small",
        ),
        Expectation(
            "test accuracy: that difference, three layers of 24 minus three of 192",
            lambda found: (
                found.values("test_accuracy", LEARNED, _part(24))
                - found.values("test_accuracy", FIXED, _part(24))
                - found.values("test_accuracy", LEARNED, _part(192))
                + found.values("test_accuracy", FIXED, _part(192))
            ),
            above=0.0,
            published="the advantage is largest where networks are small",
        ),
    ),
    differs="A part of Fashion-MNIST in place of MNIST, SGD with momentum in place of an adaptive method, two widths, and no "
    "dropout of the pixels.",
    quick_seconds=65,
)
