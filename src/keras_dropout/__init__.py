"""Every dropout method for Keras 3, and a bench that finds where a model needs dropout and how much.

The names below load on first use, so the command's `--help` never waits for a framework.
"""

import importlib
from typing import Any

from keras_dropout import examples

__version__ = "0.1.0"

_HOME = examples.HOMES | {
    "BadInput": "errors",
    "RateScheduler": "callbacks",
    "adopt": "models.in_place",
    "check": "models.mistakes",
    "compare": "bench.compare",
    "compare_scores": "bench.own_scores",
    "place": "models.placement",
    "reproduce": "reproductions",
    "set_rate": "models.placement",
    "sites": "models.placement",
    "strip": "models.placement",
    "thin": "thinning",
    "tune": "bench.tuning.tune",
}
_MODULES = ("calibration", "ensemble", "metrics", "moments", "schedules", "uncertainty")
_WITHOUT_KERAS = ("bench.own_scores", "calibration", "errors", "metrics", "schedules")
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _HOME:
        raise AttributeError(f"module 'keras_dropout' has no attribute {name!r}")
    home = _HOME.get(name, name)
    frameworks = importlib.import_module("keras_dropout.frameworks")
    if home not in _WITHOUT_KERAS:
        frameworks.choose()
    with frameworks.needing(f"keras_dropout.{name}"):
        module = importlib.import_module(f"keras_dropout.{home}")
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
