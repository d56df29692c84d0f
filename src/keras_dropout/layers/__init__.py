"""The dropout layers, grouped by what is dropped."""
# ruff: noqa: F403 - each module has an __all__

from keras_dropout.examples import LAYERS as _LAYERS
from keras_dropout.layers import adopted as _adopted  # noqa: F401 - registers what saved models name
from keras_dropout.layers.activations import *
from keras_dropout.layers.attention import *
from keras_dropout.layers.inputs import *
from keras_dropout.layers.learned import *
from keras_dropout.layers.paths import *
from keras_dropout.layers.regions import *
from keras_dropout.layers.spectrograms import *
from keras_dropout.layers.stacks import *
from keras_dropout.layers.steps import *
from keras_dropout.layers.tokens import *
from keras_dropout.layers.units import *
from keras_dropout.layers.weights import *

globals()["__all__"] = _LAYERS  # not by its name: tools that read it there want literals, and use each module's own
