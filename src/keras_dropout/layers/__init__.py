"""The dropout layers, grouped by what is dropped."""

from keras_dropout.layers.paths import DropPath, LayerDrop, ScheduledDropPath, ShakeDrop, StochasticDepth, linear_decay
from keras_dropout.layers.regions import (
    Cutout,
    DropBlock1D,
    DropBlock2D,
    DropBlock3D,
    PatchDropout,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from keras_dropout.layers.units import AlphaDropout, Dropout, FeatureAlphaDropout, GaussianDropout
from keras_dropout.layers.weights import DropConnect, LoRADropout, WeightDrop

__all__ = [
    "AlphaDropout",
    "Cutout",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "DropConnect",
    "DropPath",
    "Dropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "LayerDrop",
    "LoRADropout",
    "PatchDropout",
    "ScheduledDropPath",
    "ShakeDrop",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",
    "WeightDrop",
    "linear_decay",
]
