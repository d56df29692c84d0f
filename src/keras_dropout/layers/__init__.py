"""The dropout layers, grouped by what is dropped."""

from keras_dropout.layers.units import Dropout

__all__ = ["Dropout"]
