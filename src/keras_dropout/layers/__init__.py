"""The dropout layers, grouped by what is dropped."""

from keras_dropout.layers.attention import AttentionDropout, DropHead, DropKey
from keras_dropout.layers.learned import ConcreteDropout, SparseVariationalDropout, Standout, TargetedDropout, VariationalDropout
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
from keras_dropout.layers.steps import LockedDropout, RecurrentDropout, VariationalRNNDropout, Zoneout
from keras_dropout.layers.tokens import EmbeddingDropout, TokenDropout, WordDropout
from keras_dropout.layers.units import AlphaDropout, Dropout, FeatureAlphaDropout, GaussianDropout
from keras_dropout.layers.weights import DropConnect, LoRADropout, WeightDrop

__all__ = [
    "AlphaDropout",
    "AttentionDropout",
    "ConcreteDropout",
    "Cutout",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "DropConnect",
    "DropEdge",
    "DropHead",
    "DropKey",
    "DropPath",
    "Dropout",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "LayerDrop",
    "LoRADropout",
    "LockedDropout",
    "PatchDropout",
    "RandomErasing",
    "RecurrentDropout",
    "ScheduledDropPath",
    "ShakeDrop",
    "ShakeShake",
    "SparseVariationalDropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "Standout",
    "StochasticDepth",
    "TargetedDropout",
    "TokenDropout",
    "VariationalDropout",
    "VariationalRNNDropout",
    "WeightDrop",
    "WordDropout",
    "Zoneout",
    "linear_decay",
]
