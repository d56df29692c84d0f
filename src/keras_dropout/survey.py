"""The old place of `keras_dropout.models.survey` and of what is beside it now."""

from keras_dropout.models.dropping import *  # noqa: F403
from keras_dropout.models.fitting import *  # noqa: F403
from keras_dropout.models.survey import *  # noqa: F403
