"""The kinds of layers that other modules tell apart, each named once. A new layer of Keras is added here.

By class; by name where a class is not public, as that of an operation of `keras.ops`, or is another library's.
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
UNIT_ACTIVATIONS = (*RECTIFIERS, L.ELU)  # of each unit alone
ACTIVATIONS = (L.Activation, *UNIT_ACTIVATIONS, L.Softmax)

# The first sets the variance of a batch; the others set that of each example, in training as at prediction.
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

# By name: outputs are the inputs in another order or shape; operations of keras.ops that move entries; those that prepare an
# input where all but one of their arguments are numbers.
SAME_VALUES = {*(each.__name__ for each in RESHAPES), "Identity", "Transpose", "Squeeze", "ExpandDims", "RepeatVector"}
MOVING_OPERATIONS = ("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Concatenate")
ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Cast")

# Dropout, Keras's and ours. Keras's have a twin here of the same name and with the same options.
KERAS_SPATIAL = _each_rank("SpatialDropout")
KERAS_DROPOUT = (L.Dropout, L.GaussianDropout, L.AlphaDropout, *KERAS_SPATIAL)
UNIT_DROPOUT = (L.Dropout, L.GaussianDropout, layers.Dropout, layers.GaussianDropout)
ALPHA_DROPOUT = (L.AlphaDropout, layers.AlphaDropout)
CHANNEL_DROPOUT = (*KERAS_SPATIAL, *(getattr(layers, each.__name__) for each in KERAS_SPATIAL), layers.LockedDropout)

# Dropout of other libraries, by name. Layers that pass on what they get, except in training; classes whose option "rate" is a rate
# of dropout; options that are one, of which those that say what is kept are 1 where nothing is dropped.
_FOREIGN = r"DropPath|StochasticDepth|DropBlock([123]D)?"
FOREIGN_DROPOUT = re.compile(rf"({_FOREIGN})$")
RATED_CLASSES = re.compile(rf"({_FOREIGN}|Dropout([123]D)?|DropConnect)$")
DROPOUT_OPTIONS = re.compile(r"dropout|(^|_)drop(s?$|_?(path|prob|rate|connect|block))|stochastic_depth|survival|keep_prob")
KEPT_OPTIONS = re.compile("survival|keep")


def is_preprocessing(kind: type) -> bool:
    """Whether a class is one of Keras's for preprocessing and augmentation."""
    return ".preprocessing." in kind.__module__
