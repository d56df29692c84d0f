"""Gal and Ghahramani 2016, recurrent networks: the same mask at every step against a new mask at each step."""

from keras_dropout.bench.data.text import characters
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus
from keras_dropout.reproductions.networks import language_model


def _parts(quick: bool) -> dict[str, Part]:
    length, units, epochs = (40_000, 96, 60) if quick else (100_000, 192, 60)
    return {
        "characters": Part(
            lambda: language_model(81, units, 5e-3, "characters-lstm"),
            lambda data_dir: characters(length, window=32),
            {"per step": {"embedding": 0.3, "lstm": 0.3}, "same mask": {"lstm": "VariationalRNNDropout(0.3)"}},
            epochs,
            25,
        )
    }


REPRODUCTION = Reproduction(
    name="gal-recurrent",
    title="The same mask at every step of a recurrent network",
    claim="Dropout with one mask for all steps, on the recurrent connections too, has a smaller test loss than none, and than "
    "masks drawn anew at each step on inputs and outputs.",
    source="Gal and Ghahramani 2016, arXiv:1512.05287, table 1",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss per character: none minus same mask",
            minus("test_loss", "none", "same mask"),
            above=0.0,
            published="without any dropout the network overfits",
        ),
        Expectation(
            "test loss per character: per step minus same mask",
            minus("test_loss", "per step", "same mask"),
            above=0.0,
            published="test perplexity 75.2 against 78.4 of masks drawn at each step (Zaremba et al. 2014), large LSTM on Penn "
            "Treebank",
        ),
    ),
    shows=("test_loss", "test_accuracy", "train_loss"),
    differs="Characters of Python's language reference in place of the words of Penn Treebank, one small LSTM layer in place of "
    "two, Adam, one rate of 0.3 everywhere; the per-step arm has input and output dropped, the other input and state.",
    changed="Sizes and epochs, after it was not reproduced with earlier ones.",
    quick_seconds=150,
)
