"""Krueger et al. 2017, zoneout: random units of a recurrent state keep their value from the previous step."""

from keras_dropout.bench.data.text import characters
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import language_model


def _parts(quick: bool) -> dict[str, Part]:
    length, units, epochs = (40_000, 96, 60) if quick else (100_000, 192, 60)
    return {
        "characters": Part(
            lambda: language_model(81, units, 5e-3, "characters-lstm"),
            lambda data_dir: characters(length, window=32),
            {"zoneout": {"lstm": "Zoneout(0.15)"}, "recurrent dropout": {"lstm": "RecurrentDropout(0.25)"}},
            epochs,
            25,
        )
    }


REPRODUCTION = Reproduction(
    name="krueger-zoneout",
    title="Zoneout in a language model",
    claim="Zoneout lowers the test loss of a language model of characters.",
    source="Krueger et al. 2017, arXiv:1606.01305, section 4",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss per character: none minus zoneout",
            minus("test_loss", "none", "zoneout"),
            above=0.0,
            published="zoneout improves on no regularisation on characters of Penn Treebank",
        ),
        Expectation(
            "test loss per character: recurrent dropout minus zoneout",
            minus("test_loss", "recurrent dropout", "zoneout"),
            published="as good as recurrent dropout without memory loss, or better",
        ),
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="Characters of Python's language reference in place of Penn Treebank, a small LSTM, one rate of 0.15 for cells and "
    "states in place of 0.5 and 0.05.",
    changed="Sizes and epochs, after it was not reproduced with earlier ones.",
    quick_seconds=105,
)
