"""Find training settings near those of a study: other learning rates, a weight decay, early stopping. Loads Keras.

A change that an optimizer would not obey is not offered: the optimizer is made with it, and looked at.
"""

import contextlib
import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_dropout.bench import own_training
from keras_dropout.bench.records import Study
from keras_dropout.bench.study import own_classes

NORMALIZED_DECAY = 0.025  # Loshchilov and Hutter's, for AdamW and SGDW: see `usual_decay`
_STEPS = (0, 1, 7, 100, 1_000, 10_000, 100_000)  # at which two learning rates are compared


def scaled_rate(study: Study, factor: float) -> dict[str, Any] | None:
    """Return the setting that multiplies a study's learning rate by a factor, throughout its schedule if it has one.

    Return None if the optimizer does not obey: a learning rate, or a schedule, of the user's own.
    """
    rate = own_training.optimizer_config(study.compiled).get("learning_rate")
    if isinstance(rate, Mapping):
        config = {name: _times(value, factor) if name in own_training.RATES else value for name, value in rate["config"].items()}
        training = {"learning_rate": {**rate, "config": config}}
    elif isinstance(rate, int | float):
        training = {"learning_rate": _times(rate, factor)}
    else:
        return None
    try:
        before, after = (_rates(study.trained_by(each)) for each in ({}, training))
    except Exception:  # a schedule of the user's own may raise anything
        return None
    return training if np.allclose(after, factor * before, rtol=1e-4, atol=0) and (before > 0).any() else None


def other_decay(study: Study, decay: float | None) -> dict[str, Any] | None:
    """Return the setting of a weight decay, None for none; None if the optimizer does not obey, as one of the user's own may."""
    if "weight_decay" not in own_training.optimizer_config(study.compiled):
        return None
    for value in (None, 0.0) if decay is None else (decay,):  # AdamW takes no None
        with contextlib.suppress(Exception):
            if _optimizer(study.trained_by({"weight_decay": value})).weight_decay == value:
                return {"weight_decay": value}
    return None


def decay_of(study: Study) -> float | None:
    """Return the weight decay of a study's optimizer; None if there is none."""
    config = own_training.optimizer_config(study.compiled)
    return config.get("weight_decay") or config.get("adam_weight_decay") or None


def usual_decay(study: Study) -> float | None:
    """Return a weight decay of usual strength for a study, rounded to two digits; None without a learning rate.

    A weight decay that suits one length of training does nothing in a shorter one. So Loshchilov and Hutter (2019, Decoupled weight
    decay regularization, ICLR) normalise it: each of N steps takes 0.025 / sqrt(N) of each weight away, the number that their
    code has for AdamW and SGDW on CIFAR-10. Keras multiplies a weight decay by the learning rate, and by its schedule as they do.
    """
    steps = study.epochs * -(-study.data.train // study.batch_size)
    try:
        rate = _rates(study).max()
    except Exception:
        return None
    return float(f"{NORMALIZED_DECAY / math.sqrt(steps) / rate:.2g}") if rate > 0 else None


def usual_patience(epochs: int) -> int:
    """Return a tenth of the epochs, at least two: the epochs to wait for a smaller validation loss."""
    return max(2, math.ceil(epochs / 10))


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, list | tuple):
        return [_times(each, factor) for each in value]
    return float(np.float32(value) * np.float32(factor)) if isinstance(value, int | float) else value


def _optimizer(study: Study) -> Any:
    """Make the optimizer of a study; of a wrapper, return the optimizer inside."""
    import keras

    with own_classes.known(study.objects):
        found = keras.optimizers.deserialize(copy.deepcopy(dict(study.compiled["optimizer"])))  # Keras changes what it is given
    return getattr(found, "inner_optimizer", found)


def _rates(study: Study) -> np.ndarray:
    """Return the learning rates that a study's optimizer has at some steps."""
    import keras

    optimizer, found = _optimizer(study), []
    for step in _STEPS:
        optimizer.iterations.assign(step)
        found.append(float(np.asarray(keras.ops.convert_to_numpy(optimizer.learning_rate))))
    return np.array(found)
