"""The methods that fit a site: by its shape, by the layers that use its output, and by the layers that a method can wrap."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_dropout import layers
from keras_dropout.errors import BadInput
from keras_dropout.examples import LAYERS
from keras_dropout.layers.base import MaskLayer, MaskWrapper
from keras_dropout.models.dropping import inner_layer, without_dropout
from keras_dropout.models.graph import Call, unchanged

# In display order. A class that is not listed fits by its type: a mask layer where its `ranks` allow it, a wrapper wherever it can
# be made.
_VALUES = ("Dropout", "GaussianDropout")
_BY_RANK = {  # without the batch
    2: ("SpatialDropout1D", "LockedDropout", "TokenDropout", "DropBlock1D"),
    3: ("SpatialDropout2D", "DropBlock2D"),
    4: ("SpatialDropout3D", "DropBlock3D"),
}
_IMAGES = ("Cutout", "RandomErasing")
_SPECTROGRAMS = ("TimeMasking", "FrequencyMasking")
_IDS = ("WordDropout",)
_EMBEDDED = ("NEFTune",)
_SELU = ("AlphaDropout", "FeatureAlphaDropout")
_ON_PATHS = ("StochasticDepth", "DropPath", "ScheduledDropPath", "ShakeDrop")
_AROUND = {
    "kernel": (
        "DropConnect",
        "Mixout",
        "ConcreteDropout",
        "VariationalDropout",
        "SparseVariationalDropout",
        "Standout",
        "TargetedDropout",
        "LoRADropout",
    ),
    "recurrent": ("VariationalRNNDropout", "RecurrentDropout", "WeightDrop", "Zoneout"),
    "embedding": ("EmbeddingDropout", "LoRADropout"),
    "attention": ("AttentionDropout", "DropKey", "DropHead"),
}
_RESIDUAL = ("LayerDrop",)  # around a layer whose output is like its input
_STACKS = ("ThinnedStack",)  # from a layer to the one that takes its units
# They take other inputs or blocks, change the shape, or belong to values of a certain meaning.
_NOWHERE = (
    *("DropEdge", "PatchDropout", "RandomLTD", "ShakeShake"),
    *("ConditionDropout", "ModalityDropout", "NestedDropout", "Masksembles"),
)
_ACTIVATIONS = ("DropActivation", "RReLU")  # in the place of an activation, not behind one
_LISTED = {
    *(*_VALUES, *_IMAGES, *_SPECTROGRAMS, *_IDS, *_EMBEDDED, *_SELU, *_ON_PATHS),
    *(*_RESIDUAL, *_STACKS, *_NOWHERE, *_ACTIVATIONS),
}.union(*_BY_RANK.values(), *_AROUND.values())
# Arguments for making a method, to see whether it can wrap a layer.
_OPTIONS: dict[str, dict[str, Any]] = {
    "DropConnect": {"rate": 0.1, "per": "batch"},
    "SparseVariationalDropout": {"kl_weight": 1.0},
    "Standout": {},
    "VariationalDropout": {"rate": 0.1, "kl_weight": 1.0},
}

Fits = Mapping[str, Callable[[], bool]]  # whether a method fits, computed only when needed, because it makes a wrapper


def always() -> bool:
    return True


def at_input(shape: tuple, dtype: str, users: list[Call]) -> Fits:
    """Return the methods for an input of this shape, without the batch, that these calls use."""
    if "int" in dtype and any(isinstance(inner_layer(user.layer), keras.layers.Embedding) for user in users):
        return dict.fromkeys(_IDS, always)
    more = {2: _SPECTROGRAMS, 3: _IMAGES}.get(len(shape), ()) if "float" in dtype else ()
    return dict.fromkeys((*on_values(shape, dtype), *more), always)


def at_layer(layer: Any, ways: list[tuple[Call, Call, list[Call] | None]], around: bool) -> Fits:
    """Return the methods for the site of a layer: those that fit at each of its calls, and those that wrap it if `around`.

    `ways` are (call, the call behind which dropout is put, the calls that use the output of the latter, or None if nothing does).
    """
    behind = [_behind(layer, end, users) for _, end, users in ways]
    found = dict.fromkeys((name for name in behind[0] if all(name in each for each in behind)), always)
    kind = _kind(layer) if around else None
    if kind:
        others = [name for name in _unlisted() if issubclass(getattr(layers, name), MaskWrapper)]
        found |= {name: functools.partial(_can_go_around, name, layer) for name in (*_AROUND[kind], *others)}
        if all(_keeps_shape(call) for call, *_ in ways):
            found |= dict.fromkeys(_RESIDUAL, always)
    return found


def _unlisted() -> list[str]:
    """Return the layers that are in no list above."""
    return [name for name in LAYERS if name not in _LISTED and isinstance(getattr(layers, name), type)]


def on_values(shape: tuple, dtype: str) -> tuple[str, ...]:
    if "float" not in dtype:
        return ()
    others = (name for name in _unlisted() if issubclass(getattr(layers, name), MaskLayer))
    fitting = (name for name in others if (ranks := getattr(layers, name).ranks) is None or len(shape) + 1 in ranks)
    return (*_VALUES, *_BY_RANK.get(len(shape), ()), *fitting)


def _behind(layer: Any, behind: Call, users: list[Call] | None) -> tuple[str, ...]:
    """Return the methods that fit behind a call of a layer."""
    found = on_values(behind.shape, behind.dtype)
    if not found or users is None:
        return ()
    if "selu" in (_activation(layer), _activation(behind.layer)):
        selu = _SELU if len(behind.shape) > 1 else _SELU[:1]  # dropout of features only where there are channels
        found = (*_VALUES, *selu, *found[len(_VALUES) :])
    if isinstance(inner_layer(layer), keras.layers.Embedding) and len(behind.shape) == 2:
        found += _EMBEDDED
    if len(users) == 1 and type(users[0].layer).__name__ == "Add" and len(users[0].inputs) > 1:
        found += _ON_PATHS
    return found


def _activation(layer: Any) -> str:
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _kind(layer: Any) -> str | None:
    """Return the kind of layer that methods can wrap; None for others."""
    if isinstance(layer, keras.layers.RNN):
        return "recurrent"
    if isinstance(layer, keras.layers.Embedding):
        return "embedding"
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return "attention"
    return "kernel" if isinstance(getattr(layer, "kernel", None), keras.Variable) else None


def _keeps_shape(call: Call) -> bool:
    inputs = call.node.input_tensors
    return len(inputs) == 1 and tuple(inputs[0].shape[1:]) == call.shape and "float" in inputs[0].dtype


def _can_go_around(name: str, layer: keras.Layer) -> bool:
    cls = getattr(layers, name)
    if not isinstance(layer, getattr(cls, "kinds", ()) or keras.Layer):
        return False
    try:
        with unchanged(layer):
            cls(layer=without_dropout(layer), **_OPTIONS.get(name, {"rate": 0.1}))
    except BadInput:
        return False
    return True
