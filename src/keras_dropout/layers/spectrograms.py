"""Layers that drop bands of a spectrogram: stretches of time, ranges of frequency."""

from typing import Any

import keras
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_number, check_share, check_whole, refuse
from keras_dropout.layers.base import MaskLayer

__all__ = ["FrequencyMasking", "TimeMasking"]


class _BandMasking(MaskLayer):
    """A layer that replaces bands across an axis: the same ones in all other axes of an example."""

    in_config = ("size", "count", "share", "value", "axis")
    ranks = range(3, 99)
    layout = "(batch, time, frequency)"

    def __init__(
        self,
        rate: float,
        size: int,
        *,
        count: int = 1,
        share: float = 1.0,
        value: float = 0.0,
        axis: int,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, seed=seed, **kwargs)
        name = type(self).__name__
        self.size = check_whole(f"{name}: size", size, 1, "It is the width of the widest band.")
        self.count = check_whole(f"{name}: count", count, 1, "It is the number of bands.")
        self.share = 1.0 if share == 1 and not isinstance(share, bool) else check_share(f"{name}: share", share)
        self.value = check_number(f"{name}: value", value, "0 is the mean of normalised spectrograms.")
        self.axis = check_whole(f"{name}: axis", axis, 1, "It is counted from the batch, which is 0.")

    def check_inputs(self, inputs: Any) -> None:
        super().check_inputs(inputs)
        if self.axis >= len(inputs.shape):
            refuse(
                f"{type(self).__name__}: inputs have no axis {self.axis}; got shape {tuple(inputs.shape)}.",
                f"axis is counted from the batch, which is 0; the last one here is {len(inputs.shape) - 1}.",
            )

    def drop(self, inputs: Any, state: Any, mask: Any = None) -> Any:
        batch, n = ops.shape(inputs)[0], ops.shape(inputs)[self.axis]
        index = ops.cast(ops.arange(n), "float32")
        begin, length = 0.0, ops.cast(n, "float32")
        if mask is not None:  # what is padded, before or behind, is no part of an example
            present = ops.cast(mask, "float32")
            begin, length = ops.cast(ops.argmax(present, axis=1), "float32")[:, None], ops.sum(present, axis=1, keepdims=True)
        draws = noise.uniform(state, (batch, 1 + 2 * self.count), inputs)
        most = ops.minimum(ops.floor(self.share * length + 1e-4), self.size)  # .29 x 100 is below 29
        width = ops.floor(draws[:, 1::2] * (most + 1))
        first = begin + ops.floor(draws[:, 2::2] * (length - width + 1))
        first, width = ops.expand_dims(first, 2), ops.expand_dims(width, 2)
        inside = ops.any(ops.logical_and(index >= first, index < first + width), axis=1)
        inside = ops.logical_and(inside, draws[:, :1] < ops.convert_to_tensor(self.state.rate))
        inside = ops.reshape(inside, tuple({0: batch, self.axis: n}.get(axis, 1) for axis in range(len(inputs.shape))))
        return ops.where(inside, ops.cast(self.value, inputs.dtype), inputs)


@keras.saving.register_keras_serializable("keras_dropout")
class TimeMasking(_BandMasking):
    """Replace stretches of time of a spectrogram in training.

        y = value in each of `count` bands, x elsewhere
        width ~ U{0, ..., min(size, share * steps)},    start ~ U{0, ..., steps - width}, for each band and example

    Shapes:        (batch, time, ...) -> the same; rank 3 or more.
    Inference:     y = x.
    Arguments:     rate: fraction of examples that are masked, in [0, 1]; 1 in the paper. size: the widest band, in steps; 40 to
                   100 in the paper. count: bands per example, which may overlap; 1 or 2 in the paper. share: no band is wider
                   than this share of the steps; 0.2 to 1 in the paper. value: what replaces them. axis: that of time; behind
                   keras.layers.MelSpectrogram it is 2. seed: whole number. Where Keras's mask marks padding, bands and their
                   share are those of the steps that are present.
    Source:        Park et al. 2019, SpecAugment, arXiv:1904.08779.
    Differs from:  torchaudio's TimeMasking, where one band is drawn for the whole batch by default, a width of `size` never comes,
                   and padding counts as time. 0 is the mean only of normalised spectrograms, as in the paper. Time
                   warping, the paper's third part, is no dropout and is not here.

    >>> y = np.asarray(TimeMasking(1, size=5, seed=1)(np.ones((1, 12, 3), "float32"), training=True))
    >>> y[0, :, 0].astype(int).tolist(), bool((y == y[..., :1]).all())
    ([1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1], True)
    """

    def __init__(
        self,
        rate: float,
        size: int,
        *,
        count: int = 1,
        share: float = 1.0,
        value: float = 0.0,
        axis: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, size, count=count, share=share, value=value, axis=axis, seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        self.check_inputs(inputs)
        return self.drop(inputs, self.stream.next(), mask if self.axis == 1 else None) if training else inputs


@keras.saving.register_keras_serializable("keras_dropout")
class FrequencyMasking(_BandMasking):
    """Replace ranges of frequency of a spectrogram in training.

        y = value in each of `count` bands, x elsewhere
        width ~ U{0, ..., min(size, share * channels)},    start ~ U{0, ..., channels - width}, for each band and example

    Shapes:        (batch, time, frequency, ...) -> the same; rank 3 or more.
    Inference:     y = x.
    Arguments:     as in TimeMasking, of channels of frequency; size: 15 to 30 in the paper. axis: that of frequency; behind
                   keras.layers.MelSpectrogram it is 1.
    Source:        Park et al. 2019, SpecAugment, arXiv:1904.08779.
    Differs from:  torchaudio's FrequencyMasking as TimeMasking does from torchaudio's.

    >>> y = np.asarray(FrequencyMasking(1, size=3, seed=0)(np.ones((1, 4, 8), "float32"), training=True))
    >>> y[0, 0].astype(int).tolist(), bool((y == y[:, :1]).all())
    ([1, 1, 0, 1, 1, 1, 1, 1], True)
    """

    def __init__(
        self,
        rate: float,
        size: int,
        *,
        count: int = 1,
        share: float = 1.0,
        value: float = 0.0,
        axis: int = 2,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, size, count=count, share=share, value=value, axis=axis, seed=seed, **kwargs)
