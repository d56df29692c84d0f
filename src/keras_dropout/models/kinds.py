"""The kinds of layers that other modules distinguish, each named once. Add a new layer of Keras here.

They are listed by class; by name if a class is not public, such as that of an operation of `keras.ops`, or is another library's.
"""

import re

import keras

from keras_dropout import layers

L = keras.layers


def _each_rank(*names: str, ranks: tuple[int, ...] = (1, 2, 3)) -> tuple[type[keras.Layer], ...]:
    return tuple(getattr(L, f"{name}{rank}D") for name in names for rank in ranks)


# Weighted sums.
PLAIN_CONVOLUTIONS = _each_rank("Conv")
SPLIT_CONVOLUTIONS = _each_rank("SeparableConv", "DepthwiseConv", ranks=(1, 2))
TRANSPOSED_CONVOLUTIONS = tuple(getattr(L, f"Conv{rank}DTranspose") for rank in (1, 2, 3))
CONVOLUTIONS = (*PLAIN_CONVOLUTIONS, *SPLIT_CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)
MAP_CONVOLUTIONS = tuple(each for each in CONVOLUTIONS if "1D" not in each.__name__)  # their outputs are maps or volumes
ATTENTIONS = (L.MultiHeadAttention, L.GroupQueryAttention)

# Activations.
RECTIFIERS = (L.ReLU, L.LeakyReLU, L.PReLU)
UNIT_ACTIVATIONS = (*RECTIFIERS, L.ELU)  # they act on each unit alone
ACTIVATIONS = (L.Activation, *UNIT_ACTIVATIONS, L.Softmax)

# The first fixes the variance of a batch; the others fix that of each example, in training as at prediction.
NORMALISATIONS = (L.BatchNormalization, L.LayerNormalization, L.GroupNormalization, L.RMSNormalization, L.UnitNormalization)

# Each output is an input, or nothing.
RESHAPES = (L.Flatten, L.Reshape, L.Permute)
EDGES = _each_rank("ZeroPadding", "Cropping")

# Each output comes from inputs of its own channel.
UPSAMPLING = _each_rank("UpSampling")
MAX_POOLINGS = _each_rank("MaxPooling")
AVERAGE_POOLINGS = _each_rank("AveragePooling")
GLOBAL_AVERAGE_POOLINGS = _each_rank("GlobalAveragePooling")
POOLINGS = (*MAX_POOLINGS, *AVERAGE_POOLINGS, *_each_rank("GlobalMaxPooling"), *GLOBAL_AVERAGE_POOLINGS)

# By name: layers and operations whose outputs are the inputs in another order or shape; operations of keras.ops that move entries;
# operations that prepare an input if all but one of their arguments are numbers.
SAME_VALUES = {*(each.__name__ for each in RESHAPES), "Identity", "Transpose", "Squeeze", "ExpandDims", "RepeatVector"}
MOVING_OPERATIONS = ("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Concatenate")
ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Cast")

# Dropout, Keras's and ours. Each of Keras's has a twin of ours with the same name and the same options.
KERAS_SPATIAL = _each_rank("SpatialDropout")
KERAS_DROPOUT = (L.Dropout, L.GaussianDropout, L.AlphaDropout, *KERAS_SPATIAL)
UNIT_DROPOUT = (L.Dropout, L.GaussianDropout, layers.Dropout, layers.GaussianDropout)
ALPHA_DROPOUT = (L.AlphaDropout, layers.AlphaDropout)
CHANNEL_DROPOUT = (*KERAS_SPATIAL, *(getattr(layers, each.__name__) for each in KERAS_SPATIAL), layers.LockedDropout)

# Dropout of other libraries, by name: layers that pass on their input except in training; classes whose option "rate" is a dropout
# rate; dropout options. Options that give the kept share are 1 if nothing is dropped.
_FOREIGN = r"DropPath|StochasticDepth|DropBlock([123]D)?"
FOREIGN_DROPOUT = re.compile(rf"({_FOREIGN})$")
RATED_CLASSES = re.compile(rf"({_FOREIGN}|Dropout([123]D)?|DropConnect)$")
DROPOUT_OPTIONS = re.compile(r"dropout|(^|_)drop(s?$|_?(path|prob|rate|connect|block))|stochastic_depth|survival|keep_prob")
KEPT_OPTIONS = re.compile("survival|keep")


def is_preprocessing(kind: type) -> bool:
    """Return whether a class is one of Keras's for preprocessing and augmentation."""
    return ".preprocessing." in kind.__module__
