"""The old place of `keras_dropout.bench.tuning.spaces`."""

from keras_dropout.bench.tuning.spaces import *  # noqa: F403
