"""The dropout layers, grouped by what is dropped."""
# ruff: noqa: F403 - each module has an __all__

import typing as _typing

from keras_dropout.examples import LAYERS as _LAYERS
from keras_dropout.layers.attention import *
from keras_dropout.layers.learned import *
from keras_dropout.layers.paths import *
from keras_dropout.layers.regions import *
from keras_dropout.layers.steps import *
from keras_dropout.layers.tokens import *
from keras_dropout.layers.units import *
from keras_dropout.layers.weights import *

if not _typing.TYPE_CHECKING:  # a type checker reads each module's own
    __all__ = _LAYERS
