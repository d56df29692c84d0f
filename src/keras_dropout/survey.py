"""The old location of `keras_dropout.models.survey` and of the modules now beside it."""

from keras_dropout.models.dropping import *  # noqa: F403
from keras_dropout.models.fitting import *  # noqa: F403
from keras_dropout.models.survey import *  # noqa: F403
