"""Krueger et al. 2017, zoneout: random units of a recurrent state keep their value from the previous step."""

from keras_dropout.reproductions.framework import Reproduction, difference
from keras_dropout.reproductions.networks import on_characters

_VARIANTS = {"zoneout": {"lstm": "Zoneout(0.15)"}, "recurrent dropout": {"lstm": "RecurrentDropout(0.25)"}}

REPRODUCTION = Reproduction(
    name="krueger-zoneout",
    title="Zoneout in a language model",
    claim="Zoneout lowers the test loss of a language model of characters.",
    source="Krueger et al. 2017, arXiv:1606.01305, section 4",
    parts=lambda quick: {"characters": on_characters(quick, _VARIANTS)},
    expectations=(
        difference(
            "test_loss",
            "none",
            "zoneout",
            "zoneout improves on no regularisation on characters of Penn Treebank",
            label="test loss per character",
        ),
        difference(
            "test_loss",
            "recurrent dropout",
            "zoneout",
            "as good as recurrent dropout without memory loss, or better",
            above=None,
            label="test loss per character",
        ),
    ),
    differs="Characters of Python's language reference in place of Penn Treebank, a small LSTM, one rate of 0.15 for cells and "
    "states in place of 0.5 and 0.05.",
    changed="Sizes and epochs, after it was not reproduced with earlier ones.",
    quick_seconds=105,
)
