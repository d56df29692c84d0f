"""The dropout layers, grouped by what is dropped."""

from keras_dropout.layers.paths import (
    DropEdge,
    DropPath,
    LayerDrop,
    ScheduledDropPath,
    ShakeDrop,
    ShakeShake,
    StochasticDepth,
    linear_decay,
)
from keras_dropout.layers.regions import (
    Cutout,
    DropBlock1D,
    DropBlock2D,
    DropBlock3D,
    PatchDropout,
    RandomErasing,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from keras_dropout.layers.units import AlphaDropout, Dropout, FeatureAlphaDropout, GaussianDropout

__all__ = [
    "AlphaDropout",
    "Cutout",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "DropEdge",
    "DropPath",
    "Dropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "LayerDrop",
    "PatchDropout",
    "RandomErasing",
    "ScheduledDropPath",
    "ShakeDrop",
    "ShakeShake",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",
    "linear_decay",
]
