"""The old place of `keras_dropout.bench.ledger.lookup`."""

from keras_dropout.bench.ledger.lookup import *  # noqa: F403
