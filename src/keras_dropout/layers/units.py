"""Layers that drop single units."""

from typing import Any

import keras

from keras_dropout.errors import refuse
from keras_dropout.layers.base import MaskLayer


@keras.saving.register_keras_serializable("keras_dropout")
class Dropout(MaskLayer):
    """Drop single units at random in training, and scale the others up so that the mean is kept.

        y = x * m / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per unit

    Shapes:        any shape -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of units dropped, in [0, 1]; 1 gives zeros. noise_shape: shape of the mask, None on an axis
                   for the input's own size, 1 to share one draw along it. seed: whole number; layers with the same seed
                   draw the same masks in the same order.
    Source:        Hinton et al. 2012, arXiv:1207.0580; Srivastava et al. 2014, JMLR 15:1929-1958.
    Differs from:  keras.layers.Dropout in that `rate` can be changed at any time, also from 0, without compiling again; the
                   position in the sequence of masks is saved with the model; a dropped nan or inf becomes 0; and the mask
                   is recomputed in backward instead of stored. The paper scales at test time instead.

    >>> import numpy as np
    >>> y = Dropout(0.5, seed=0)(np.ones((4, 8), "float32"), training=True)
    >>> sorted({float(v) for v in np.asarray(y).ravel()})
    [0.0, 2.0]
    """

    def __init__(self, rate: float, noise_shape: tuple | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = None if noise_shape is None else _check_noise_shape(noise_shape)

    def mask_shape(self, shape: tuple) -> tuple:
        if self.noise_shape is None:
            return shape
        fits = len(self.noise_shape) == len(shape)
        # A symbolic size (TensorFlow's dynamic batch) can only be compared at run time, where broadcasting does it.
        if not fits or any(isinstance(n, int) and isinstance(m, int) and m not in (1, n) for m, n in zip(self.noise_shape, shape)):
            refuse(
                f"Dropout: noise_shape {self.noise_shape} does not broadcast to inputs of shape {shape}.",
                "Give one entry per axis: None for the input's own size, or 1 to share the mask along the axis.",
            )
        return tuple(n if m is None else m for m, n in zip(self.noise_shape, shape))

    def get_config(self) -> dict:
        return {**super().get_config(), "noise_shape": self.noise_shape}


def _check_noise_shape(noise_shape: object) -> tuple:
    entries = tuple(noise_shape) if isinstance(noise_shape, (tuple, list)) else (noise_shape,)
    whole = all(n is None or (isinstance(n, int) and not isinstance(n, bool) and n > 0) for n in entries)
    if isinstance(noise_shape, (tuple, list)) and whole:
        return entries
    refuse(
        f"Dropout: noise_shape must be a tuple of whole numbers above 0 and None; got {noise_shape!r}.",
        "For inputs (batch, steps, features), (None, 1, None) shares the mask over the steps.",
    )
