"""The old place of `keras_dropout.models.survey`."""

from keras_dropout.models.survey import *  # noqa: F403
