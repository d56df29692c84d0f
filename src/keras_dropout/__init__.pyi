# What a type checker is told of the names that `__init__.py` loads when they are first used: tests/test_types.py.
# ruff: noqa: F403 - the modules of layers have an __all__; a checker takes what they import with a star as public

from keras_dropout import calibration, ensemble, metrics, moments, schedules, uncertainty
from keras_dropout.bench.compare import compare
from keras_dropout.bench.own_scores import compare_scores
from keras_dropout.bench.tuning.tune import tune
from keras_dropout.callbacks import RateScheduler
from keras_dropout.companions import MaxNorm, MultiSampleDropout, RDrop
from keras_dropout.errors import BadInput
from keras_dropout.layers import *
from keras_dropout.models.in_place import adopt
from keras_dropout.models.mistakes import check
from keras_dropout.models.placement import place, set_rate, sites, strip
from keras_dropout.reproductions import reproduce
from keras_dropout.thinning import thin

__version__: str
__all__ = [
    "BadInput",
    "MaxNorm",
    "MultiSampleDropout",
    "RDrop",
    "RateScheduler",
    "adopt",
    "calibration",
    "check",
    "compare",
    "compare_scores",
    "ensemble",
    "metrics",
    "moments",
    "place",
    "reproduce",
    "schedules",
    "set_rate",
    "sites",
    "strip",
    "thin",
    "tune",
    "uncertainty",
]
_HOME: dict[str, str]
