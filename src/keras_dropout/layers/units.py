"""Layers that drop single units, each anew, by fixed masks, or from a place on."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_number, check_whole, refuse
from keras_dropout.layers.base import ChannelLayer, MaskLayer, NoiseLayer, Rate, RateAtCall
from keras_dropout.masks import numpy_draws

__all__ = ["AlphaDropout", "Dropout", "FeatureAlphaDropout", "GaussianDropout", "Masksembles", "NestedDropout"]


class _UnitLayer(MaskLayer):
    """A layer with Keras's `noise_shape`."""

    in_config = ("noise_shape",)

    def __init__(self, rate: float, noise_shape: tuple | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = None if noise_shape is None else _check_noise_shape(type(self).__name__, noise_shape)

    def mask_shape(self, shape: tuple) -> tuple:
        if self.noise_shape is None:
            return shape
        entries = (1,) * (len(shape) - len(self.noise_shape)) + self.noise_shape
        # A symbolic size (TensorFlow's dynamic batch) can only be compared at run time, where broadcasting does it.
        clash = any(isinstance(n, int) and isinstance(m, int) and m not in (1, n) for m, n in zip(entries, shape))
        if clash or len(entries) > len(shape):
            refuse(
                f"{type(self).__name__}: noise_shape {self.noise_shape} does not broadcast to inputs of shape {shape}.",
                "Give one entry per axis: None for the input's own size, or 1 to share the mask along the axis.",
            )
        return tuple(n if m is None else m for m, n in zip(entries, shape))


@keras.saving.register_keras_serializable("keras_dropout")
class Dropout(RateAtCall, _UnitLayer):
    """Drop single units at random in training, and scale the others up so that the mean is kept.

        y = x * m / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per unit

    Shapes:        any shape -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of units dropped, in [0, 1]; 1 gives zeros. noise_shape: shape of the mask, None on an axis
                   for the input's own size, 1 to share one draw along it; leading axes that it lacks count as 1. seed: whole
                   number; layers with the same seed draw the same masks in the same order.
    At call:       rate, a tensor of rates instead of the layer's own, which then has no effect; one for each draw: (batch, 1) for
                   one per example of (batch, units), (1, units) for one per unit, or the full shape. The draws are the same,
                   each unit is scaled by its own 1 / (1 - rate), no gradient goes into the rates, and one outside of [0, 1]
                   makes nan. In mixed precision Keras first rounds them to the compute type.
    Source:        Hinton et al. 2012, arXiv:1207.0580; Srivastava et al. 2014, JMLR 15:1929-1958.
    Differs from:  keras.layers.Dropout in that `rate` can be changed at any time, also from 0, without compiling again; the
                   position in the sequence of masks is saved with the model; a dropped nan or inf becomes 0; and the mask
                   is recomputed in backward instead of stored. The paper scales at test time instead.

    >>> y = Dropout(0.5, seed=0)(np.ones((4, 8), "float32"), training=True)
    >>> sorted({float(v) for v in np.asarray(y).ravel()})
    [0.0, 2.0]
    >>> y = Dropout(0.5, seed=0)(np.ones((2, 4), "float32"), training=True, rate=np.array([[0.0], [1.0]], "float32"))
    >>> np.asarray(y).tolist()
    [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """


@keras.saving.register_keras_serializable("keras_dropout")
class GaussianDropout(MaskLayer):
    """Multiply each unit by Gaussian noise of the mean and variance that dropout's mask has.

        y = x * e,    e ~ N(1, rate / (1 - rate)), one draw per unit

    Shapes:        any shape -> the same.
    Inference:     y = x.
    Arguments:     rate: as in Dropout, in [0, 1). seed: whole number.
    Source:        Srivastava et al. 2014, JMLR 15:1929-1958, section 10; Wang and Manning 2013.
    Differs from:  keras.layers.GaussianDropout as Dropout differs from Keras's; rate 1, where the variance is infinite, is
                   refused. Nothing is exactly 0, and e is negative with probability Phi(-sqrt((1 - rate) / rate)), 16 % at 0.5.

    >>> y = GaussianDropout(0.2, seed=0)(np.ones((500, 500), "float32"), training=True)
    >>> round(float(np.var(np.asarray(y))), 2)
    0.25
    """

    rate = Rate(one_is="the noise has infinite variance")

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)

    def drop(self, inputs: Any, state: Any) -> Any:
        return noise.gaussian_product(inputs, state, self.state.rate, tuple(ops.shape(inputs)))


@keras.saving.register_keras_serializable("keras_dropout")
class Select(keras.layers.Layer):
    """Select the entries of the last axis at `indices`, in their order: the part of a tensor that a thinned network keeps.

    Shapes:        (batch, ..., n) -> (batch, ..., len(indices)).

    >>> np.asarray(Select([0, 2])(np.array([[5.0, 6.0, 7.0]]))).tolist()
    [[5.0, 7.0]]
    """

    def __init__(self, indices: Iterable[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.indices = [int(index) for index in indices]
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return ops.take(inputs, self.indices, axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], len(self.indices))

    def get_config(self) -> dict:
        return {**super().get_config(), "indices": self.indices}


@keras.saving.register_keras_serializable("keras_dropout")
class NestedDropout(MaskLayer):
    """Keep the first units of a code, up to a random one, so that they come to be ordered by what they are worth.

        y_j = x_j where j <= b, else 0,    P(b >= j) = (1 - rate)^(j - 1), j = 1 .. units, one draw b per example

    Shapes:        (batch, ..., units) -> the same.
    Inference:     y = x. For a shorter code take the first units, y[..., :b].
    Arguments:     rate: probability in [0, 1] that a unit is dropped where the one before it is kept: b is geometric, and 1 keeps
                   the first unit alone, which always stays. seed: whole number.
    Source:        Rippel, Gelbart and Adams 2014, arXiv:1402.0915.
    Differs from:  Dropout in that nothing is scaled, as in the paper. The paper also stops the training of units that have
                   converged ("unit sweeping"), which is not here.

    >>> y = np.asarray(NestedDropout(0.2, seed=0)(np.ones((4, 8), "float32"), training=True)).astype(int)
    >>> ["".join(map(str, row)) for row in y.tolist()]
    ['11111100', '11110000', '11111100', '11111100']
    """

    def drop(self, inputs: Any, state: Any) -> Any:
        shape = tuple(ops.shape(inputs))
        draws = noise.uniform(state, (shape[0],) + (1,) * (len(shape) - 1), inputs)
        reach = ops.power(1 - ops.convert_to_tensor(self.state.rate), ops.cast(ops.arange(shape[-1]), "float32"))
        return ops.where(draws < reach, inputs, ops.zeros((), inputs.dtype))


@keras.saving.register_keras_serializable("keras_dropout")
class Masksembles(NoiseLayer):
    """Make a model an ensemble of some networks that share weights, by masks that are drawn once.

        y = x * M_k,    k = example mod masks in training,    M_k in {0, 1}^units fixed, each with the same number of ones

    The layers of a model belong together: the k-th network has the k-th mask in each of them. In the mean two masks have a share
    1 / scale of their ones in common, and every unit is in one of them at least: each keeps
    units / (scale (1 - (1 - 1 / scale)^masks)) units.

    Shapes:        (batch, ..., units) -> the same.
    Inference:     y = x * mean of the masks. `keras-dropout uncertainty` and `predict_samples` go through the
                   networks themselves, sample after sample: as many samples as masks give each of them once.
    Arguments:     masks: number of networks; 4 in the paper. scale: 1 and all masks are alike, the more the less they overlap; 1.5
                   to 4 in the paper. seed: whole number. The masks are saved with the model; `rate` is the share that one drops.
    Source:        Durasov et al. 2021, arXiv:2012.08334.
    Differs from:  the authors' code, where a batch is cut into as many parts as there are masks, at prediction too, so that its
                   size must be a multiple. Ours takes any, and predicts by the mean mask unless it is asked for samples. It is
                   part of the network at prediction too, so `strip` leaves it in.

    >>> layer = Masksembles(4, 2.0, seed=0)
    >>> y = np.asarray(layer(np.ones((8, 16), "float32"), training=True))
    >>> bool((y[:4] == y[4:]).all()), sorted(set(y.sum(axis=1).tolist())), layer.rate
    (True, [9.0], 0.4375)
    """

    in_config = ("masks", "scale")
    at_prediction = True

    def __init__(self, masks: int = 4, scale: float = 2.0, *, seed: int | None = None, **kwargs: Any):
        super(MaskLayer, self).__init__(**kwargs)
        self.start(seed)
        self.masks = check_whole("Masksembles: masks", masks, 2, "It is the number of networks; 4 is usual.")
        self.scale = check_number("Masksembles: scale", scale, "It is 1.5 to 4 in the paper.")
        if self.scale < 1:
            refuse(f"Masksembles: scale must be at least 1; got {scale!r}.", "At 1 all masks are alike; 1.5 to 4 in the paper.")

    def build(self, input_shape: tuple) -> None:
        table = _overlapping(self.stream._seed_words, self.masks, input_shape[-1], self.scale)
        # Position -1 is by example; samples at prediction set another one.
        for name, value in {"table": table.astype("float32"), "member": np.array([-1], "int32")}.items():
            variable = keras.Variable("zeros", value.shape, str(value.dtype), trainable=False, autocast=False, name=name)
            variable.assign(value)
            setattr(self.state, name, variable)
        self.rate = float(1 - table[0].mean())
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        table = ops.convert_to_tensor(self.state.table)
        if not training:
            return inputs * ops.cast(ops.mean(table, axis=0), inputs.dtype)
        self.stream.next()  # a call in training is a step here too
        shape, member = tuple(ops.shape(inputs)), ops.convert_to_tensor(self.state.member)
        by_example = ops.cast(ops.arange(shape[0]), "int32")
        rows = ops.take(table, ops.mod(ops.where(member < 0, by_example, member), self.masks), axis=0)
        rows = ops.reshape(rows, (shape[0],) + (1,) * (len(shape) - 2) + (shape[-1],))
        return inputs * ops.cast(rows, inputs.dtype)


def _overlapping(words: tuple[int, int], masks: int, units: int, scale: float) -> np.ndarray:
    """Return (masks, units) of which each has as many ones, at random places of which none is left out."""
    ones = max(1, round(units / (scale * (1 - (1 - 1 / scale) ** masks))))
    for attempt in range(2000):  # draw from some places more, until as many as there are units are used
        places = max(ones, round(ones * scale) + (0, 1, -1, 2, -2)[attempt % 5])
        order = numpy_draws(words, attempt, masks * places).reshape(masks, places).argsort(axis=1, kind="stable")
        found = np.zeros((masks, places), bool)
        np.put_along_axis(found, order[:, :ones], True, axis=1)
        found = found[:, found.any(axis=0)]
        if found.shape[1] == units:
            return found
    refuse(
        f"Masksembles: there are no {masks} masks of {units} units at scale {scale:g}.",
        f"Use a smaller scale or more masks: each has {ones} ones.",
    )


SATURATION = -1.0507009873554805 * 1.6732632423543772  # what selu(x) tends to for x -> -inf
_NOTHING_LEFT = "nothing is left whose variance could be kept"


@keras.saving.register_keras_serializable("keras_dropout")
class AlphaDropout(_UnitLayer):
    """Set units to the value at which SELU saturates, and keep mean 0 and variance 1.

        y = A (m x + (1 - m) s) + B,    m ~ Bernoulli(1 - rate),    s = -1.7580993408473766
        A = ((1 - rate) (1 + rate s^2))^(-1/2),    B = -A rate s

    Shapes:        any shape -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of units dropped, in [0, 1); 0.05 to 0.1 in the paper. noise_shape, seed: as in Dropout.
    Source:        Klambauer et al. 2017, arXiv:1706.02515.
    Differs from:  keras.layers.AlphaDropout as Dropout differs from Keras's; rate 1 is refused when the layer is made. Mean and
                   variance are kept only for inputs of mean 0 and variance 1, as behind SELU with lecun_normal weights.

    >>> y = AlphaDropout(0.5, seed=0)(np.zeros((4, 8), "float32"), training=True)
    >>> sorted({round(float(v), 4) for v in np.asarray(y).ravel()})
    [-0.7792, 0.7792]
    """

    rate = Rate(one_is=_NOTHING_LEFT)

    def drop(self, inputs: Any, state: Any) -> Any:
        return _alpha(inputs, state, self.state.rate, self.mask_shape(tuple(ops.shape(inputs))))


@keras.saving.register_keras_serializable("keras_dropout")
class FeatureAlphaDropout(ChannelLayer):
    """Alpha dropout of whole features: set all of a channel to the value at which SELU saturates.

        y as in AlphaDropout, with one draw m per example and channel

    Shapes:        (batch, ..., channels), or (batch, channels, ...) with channels first -> the same; rank 3 or more.
    Inference:     y = x.
    Arguments:     rate: fraction of channels dropped, in [0, 1). data_format, seed: as in SpatialDropout2D.
    Source:        Klambauer et al. 2017, arXiv:1706.02515; as torch.nn.FeatureAlphaDropout.
    Differs from:  torch's in that the channels' axis can be either. Not in Keras.

    >>> y = FeatureAlphaDropout(0.5, seed=1)(np.zeros((1, 5, 6), "float32"), training=True)
    >>> bool((np.asarray(y) == np.asarray(y)[:, :1]).all())
    True
    """

    rate = Rate(one_is=_NOTHING_LEFT)
    ranks = range(3, 99)
    layout = "(batch, ..., channels)"

    def drop(self, inputs: Any, state: Any) -> Any:
        return _alpha(inputs, state, self.state.rate, self.mask_shape(tuple(ops.shape(inputs))))


def _alpha(x: Any, state: Any, rate: Any, shape: tuple) -> Any:
    # m x + (1 - m) s = m (x - s) + s: one product with one mask.
    real = keras.backend.result_type(x.dtype, "float32")
    product = noise.bernoulli_product(ops.cast(x, real) - SATURATION, state, rate, shape, scaled=False)
    kept = ops.cast(1 - ops.convert_to_tensor(rate), real)
    scale = ops.rsqrt(kept * (1 + (1 - kept) * SATURATION**2))
    return ops.cast(scale * (product + kept * SATURATION), x.dtype)


def _check_noise_shape(owner: str, noise_shape: object) -> tuple:
    entries = tuple(noise_shape) if isinstance(noise_shape, Iterable) and not isinstance(noise_shape, str) else ("not a shape",)
    if all(n is None or (isinstance(n, int) and not isinstance(n, bool) and n > 0) for n in entries):
        return entries
    refuse(
        f"{owner}: noise_shape must be a tuple of whole numbers above 0 and None; got {noise_shape!r}.",
        "For inputs (batch, steps, features), (None, 1, None) shares the mask over the steps.",
    )
