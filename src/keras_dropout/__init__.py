"""Every dropout there is for Keras 3, and a bench that says where and how much of it a model wants.

The names below are loaded when they are first used, so that the command's `--help` never waits for a framework.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAYERS = """
AlphaDropout AttentionDropout ConcreteDropout Cutout DropBlock1D DropBlock2D DropBlock3D DropConnect DropEdge DropHead DropKey
DropPath Dropout EmbeddingDropout FeatureAlphaDropout GaussianDropout LayerDrop LoRADropout LockedDropout PatchDropout
RandomErasing RecurrentDropout ScheduledDropPath ShakeDrop ShakeShake SparseVariationalDropout SpatialDropout1D
SpatialDropout2D SpatialDropout3D Standout StochasticDepth TargetedDropout TokenDropout VariationalDropout
VariationalRNNDropout WeightDrop WordDropout Zoneout linear_decay
"""
_HOME = dict.fromkeys(_LAYERS.split(), "layers") | {
    "BadInput": "errors",
    "MaxNorm": "companions",
    "MultiSampleDropout": "companions",
    "RDrop": "companions",
    "RateScheduler": "callbacks",
    "check": "models.mistakes",
    "compare": "bench.compare",
    "place": "models.placement",
    "reproduce": "reproductions",
    "set_rate": "models.placement",
    "sites": "models.placement",
    "strip": "models.placement",
    "thin": "thinning",
    "tune": "bench.tuning.tune",
}
_MODULES = ("calibration", "ensemble", "metrics", "moments", "schedules", "uncertainty")
_WITHOUT_KERAS = ("calibration", "errors", "metrics", "schedules")
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _HOME:
        raise AttributeError(f"module 'keras_dropout' has no attribute {name!r}")
    home = _HOME.get(name, name)
    if home not in _WITHOUT_KERAS:
        importlib.import_module("keras_dropout.frameworks").choose()
    module = importlib.import_module(f"keras_dropout.{home}")
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
