"""Layers that make an activation random."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_range, refuse
from keras_dropout.layers.base import MaskLayer, NoiseLayer

__all__ = ["DropActivation", "RReLU"]


@keras.saving.register_keras_serializable("keras_dropout")
class DropActivation(MaskLayer):
    """Drop the activation of single units at random in training: what is dropped stays linear.

        y = m f(x) + (1 - m) x,    m ~ Bernoulli(1 - rate), one draw per unit

    Shapes:        any shape -> the same.
    Inference:     y = (1 - rate) f(x) + rate x, the mean of the training outputs; a leaky ReLU of slope `rate` if f is relu.
    Arguments:     rate: fraction of units whose activation is dropped, in [0, 1]; 0.05 in the paper. activation: f, by name or a
                   function, which keeps the shape. seed: whole number. It takes the place of an activation layer.
    Source:        Liang, Khoo and Yang 2018, arXiv:1811.05850.
    Differs from:  Dropout, which drops the unit. It is part of the network at prediction too, so `strip` leaves it in.

    >>> y = DropActivation(0.5, seed=0)(np.full((1, 8), -1.0, "float32"), training=True)
    >>> sorted({float(v) for v in np.asarray(y).ravel()})
    [-1.0, 0.0]
    """

    at_prediction = True

    def __init__(self, rate: float, *, activation: str | Callable = "relu", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        try:
            self.activation = keras.activations.get(activation)
        except (ValueError, TypeError):
            refuse(f"DropActivation: there is no activation {activation!r}.", "Name one of Keras's, as relu, or give a function.")

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        active = self.activation(inputs)
        if training:
            return ops.where(noise.kept(self.stream.next(), self.state.rate, tuple(ops.shape(inputs)), inputs), active, inputs)
        rate = ops.cast(self.state.rate, inputs.dtype)
        return (1 - rate) * active + rate * inputs

    def get_config(self) -> dict:
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable("keras_dropout")
class RReLU(NoiseLayer):
    """Rectify with a random slope for negative values in training: a leaky ReLU whose leak is drawn anew for each unit.

        y = x where x >= 0, else a x,    a ~ U(slopes), one draw per unit

    Shapes:        any shape -> the same.
    Inference:     y with the mean slope, (low + high) / 2.
    Arguments:     slopes: least and largest slope. seed: whole number. It takes the place of an activation layer.
    Source:        Xu et al. 2015, arXiv:1505.00853.
    Differs from:  the paper, which draws the divisor from U(3, 8) and divides by its mean at prediction, a slope of 0.18. As in
                   torch.nn.RReLU the slope itself is uniform, and 0.23 at prediction. There is no rate, and it is part of the
                   network at prediction too, so `strip` leaves it in.

    >>> layer = RReLU((0.25, 0.5), seed=0)
    >>> y = np.asarray(layer(np.array([[-1.0, 2.0]], "float32"), training=True))
    >>> bool(-0.5 <= y[0, 0] <= -0.25), float(y[0, 1]), np.asarray(layer(np.array([[-1.0, 2.0]], "float32"))).tolist()
    (True, 2.0, [[-0.375, 2.0]])
    """

    at_prediction = True
    in_config = ("slopes",)

    def __init__(self, slopes: tuple[float, float] = (1 / 8, 1 / 3), *, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.slopes = check_range("RReLU: slopes", slopes, "finite numbers, low and high", "The usual ones are (1 / 8, 1 / 3).")

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        low, high = self.slopes
        slope: Any = (low + high) / 2
        if training:
            slope = ops.cast(low + (high - low) * noise.uniform(self.stream.next(), tuple(ops.shape(inputs)), inputs), inputs.dtype)
        return ops.where(inputs >= 0, inputs, slope * inputs)
