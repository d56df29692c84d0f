"""The dropout layers, grouped by what is dropped."""

from keras_dropout.layers.attention import AttentionDropout, DropHead, DropKey
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
from keras_dropout.layers.tokens import EmbeddingDropout, TokenDropout, WordDropout
from keras_dropout.layers.units import AlphaDropout, Dropout, FeatureAlphaDropout, GaussianDropout

__all__ = [
    "AlphaDropout",
    "AttentionDropout",
    "Cutout",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "DropHead",
    "DropKey",
    "DropPath",
    "Dropout",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "LayerDrop",
    "PatchDropout",
    "ScheduledDropPath",
    "ShakeDrop",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",
    "TokenDropout",
    "WordDropout",
    "linear_decay",
]
