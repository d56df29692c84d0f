"""Gal and Ghahramani 2016, recurrent networks: the same mask at every step against a new mask at each step."""

from keras_dropout.reproductions.framework import Reproduction, difference
from keras_dropout.reproductions.networks import on_characters

_VARIANTS = {"per step": {"embedding": 0.3, "lstm": 0.3}, "same mask": {"lstm": "VariationalRNNDropout(0.3)"}}

REPRODUCTION = Reproduction(
    name="gal-recurrent",
    title="The same mask at every step of a recurrent network",
    claim="Dropout with one mask for all steps, on the recurrent connections too, has a smaller test loss than none, and than "
    "masks drawn anew at each step on inputs and outputs.",
    source="Gal and Ghahramani 2016, arXiv:1512.05287, table 1",
    parts=lambda quick: {"characters": on_characters(quick, _VARIANTS)},
    expectations=(
        difference("test_loss", "none", "same mask", "without any dropout the network overfits", label="test loss per character"),
        difference(
            "test_loss",
            "per step",
            "same mask",
            "test perplexity 75.2 against 78.4 of masks drawn at each step (Zaremba et al. 2014), large LSTM on Penn Treebank",
            label="test loss per character",
        ),
    ),
    differs="Characters of Python's language reference in place of the words of Penn Treebank, one small LSTM layer in place of "
    "two, Adam, one rate of 0.3 everywhere; the per-step arm has input and output dropped, the other input and state.",
    changed="Sizes and epochs, after it was not reproduced with earlier ones.",
    quick_seconds=150,
)
