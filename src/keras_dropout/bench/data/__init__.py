"""Data of a study: in memory, from streams and from files; and the public sets of the recipes."""

from keras_dropout.bench.data.dataset import Data, Part, from_arrays
from keras_dropout.bench.data.public_sets import digits, fashion_mnist

__all__ = ["Data", "Part", "digits", "fashion_mnist", "from_arrays"]
