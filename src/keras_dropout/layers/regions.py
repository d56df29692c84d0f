"""Layers that drop regions: whole channels, blocks, squares of an image, patches of a sequence."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.backends import current
from keras_dropout.errors import check_choice, check_flag, check_range, check_rate, check_whole, refuse
from keras_dropout.layers.base import ChannelLayer, RateAtCall, Stochastic, check_floating

__all__ = [
    "Cutout",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "PatchDropout",
    "RandomErasing",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
]


def _of_rank(rank: int, layout: str, doc: str) -> Callable[[type[ChannelLayer]], type[ChannelLayer]]:
    """Finish the class for one number of spatial axes."""

    def finish(cls: type[ChannelLayer]) -> type[ChannelLayer]:
        cls.__doc__ = doc.format(name=cls.__name__, layout=layout, example=(1, *[6] * (rank - 2), 8))
        cls.ranks, cls.layout = range(rank, rank + 1), layout
        return keras.saving.register_keras_serializable("keras_dropout")(cls)

    return finish


_SPATIAL = """Drop whole channels at random in training, and scale the others up so that the mean is kept.

        y = x * m / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per example and channel

    Shapes:        {layout}, or channels first -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of channels dropped, in [0, 1]; 1 gives zeros. data_format: "channels_last" or
                   "channels_first"; Keras's setting if left out. seed: whole number.
    At call:       rate, a tensor of rates as in Dropout, one for each draw: 1 on each spatial axis.
    Source:        Tompson et al. 2015, arXiv:1411.4280.
    Differs from:  keras.layers.{name} as Dropout differs from Keras's; its dtype policy and `trainable` survive a round trip; and
                   SpatialDropout1D can have channels first too.

    >>> y = {name}(0.5, seed=0)(np.ones({example}, "float32"), training=True)
    >>> bool((np.asarray(y).reshape(-1, 8) == np.asarray(y).reshape(-1, 8)[0]).all())
    True
    """


@_of_rank(3, "(batch, steps, channels)", _SPATIAL)
class SpatialDropout1D(RateAtCall, ChannelLayer):
    def __init__(self, rate: float, seed: int | None = None, name: str | None = None, dtype: Any = None, **kwargs: Any):
        kwargs.setdefault("data_format", "channels_last")  # Keras's layer knows no other
        super().__init__(rate, seed=seed, name=name, dtype=dtype, **kwargs)


class _SpatialDropout(RateAtCall, ChannelLayer):
    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(rate, data_format=data_format, seed=seed, name=name, dtype=dtype, **kwargs)


@_of_rank(4, "(batch, height, width, channels)", _SPATIAL)
class SpatialDropout2D(_SpatialDropout):
    pass


@_of_rank(5, "(batch, depth, height, width, channels)", _SPATIAL)
class SpatialDropout3D(_SpatialDropout):
    pass


_DROP_BLOCK = """Drop contiguous blocks of a feature map, and rescale by the kept fraction.

        y = x * m * count(m) / sum(m),    m = 0 on every block whose corner is drawn with probability gamma

    Blocks lie wholly inside the map and may overlap. gamma is solved from the rate so that the expected share of dropped
    units, including all overlaps, is the rate.

    Shapes:        {layout}, or channels first -> the same.
    Inference:     y = x.
    Arguments:     rate: expected fraction of units dropped, in [0, 1]. block_size: edge of a block, one number or one per
                   axis, odd or even, at most the map's. gamma: "solved", or "paper" for the paper's formula, which
                   leaves out overlaps and so drops less than the rate. shared_channels: one mask for all channels of
                   an example; by default each channel has its own, as in the paper's algorithm. data_format, seed: as
                   in SpatialDropout.
    Source:        Ghiasi, Lin and Le 2018, arXiv:1810.12890. Its defaults: block_size 7, rate 0.1 rising linearly.
    Differs from:  the paper in gamma (above), and by scaling each example by its own share instead of the batch's, so
                   that examples do not affect each other. timm draws blocks across the border (0.21 dropped for 0.1
                   on 14 x 14 with blocks of 7); torchvision refuses even blocks; KerasCV mixes up height and width.

    >>> y = {name}(0.3, block_size=2, seed=0)(np.ones({example}, "float32"), training=True)
    >>> round(float(np.asarray(y).mean()), 4)
    1.0
    """


class _DropBlock(ChannelLayer):
    """A layer that drops blocks, for any number of spatial axes."""

    in_config = ("block_size", "gamma", "shared_channels")
    ranks: range

    def __init__(
        self,
        rate: float,
        block_size: int | tuple[int, ...],
        *,
        gamma: str = "solved",
        shared_channels: bool = False,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, data_format=data_format, seed=seed, **kwargs)
        self.block_size = _sizes(type(self).__name__, "block_size", block_size, self.ranks[0] - 2)
        self.gamma = check_choice(f"gamma for {type(self).__name__}", gamma, ("solved", "paper"))
        self.shared_channels = check_flag("shared_channels", shared_channels)

    def drop(self, inputs: Any, state: Any) -> Any:
        shape, axes = tuple(ops.shape(inputs)), self.spatial_axes(len(inputs.shape))
        sizes = tuple(shape[axis] for axis in axes)
        corners = [n - b + 1 for n, b in zip(sizes, self.block_size)]
        seeds = list(shape)
        for axis, n in zip(axes, corners):
            seeds[axis] = n
        if self.shared_channels:
            seeds[self.channel_axis(len(shape))] = 1
        rates, gammas = (ops.convert_to_tensor(values, "float32") for values in _gamma_table(sizes, self.block_size, self.gamma))
        gamma = _interpolate(ops.convert_to_tensor(self.state.rate), rates, gammas)
        return noise.product(_blocks, inputs, state, gamma, tuple(seeds), axes=axes, blocks=self.block_size)

    def check_inputs(self, inputs: Any) -> None:
        super().check_inputs(inputs)
        name = type(self).__name__
        sizes = tuple(inputs.shape[axis] for axis in self.spatial_axes(len(inputs.shape)))
        if None in sizes:
            refuse(f"{name}: the map's size must be known; got shape {tuple(inputs.shape)}.", "Give it in the model's Input.")
        if any(b > n for n, b in zip(sizes, self.block_size)):
            refuse(
                f"{name}: blocks of {self.block_size} do not fit a map of {sizes}.",
                f"Use a block_size of at most {min(sizes)}, or put the layer where the map is larger.",
            )


@_of_rank(3, "(batch, steps, channels)", _DROP_BLOCK)
class DropBlock1D(_DropBlock):
    pass


@_of_rank(4, "(batch, height, width, channels)", _DROP_BLOCK)
class DropBlock2D(_DropBlock):
    pass


@_of_rank(5, "(batch, depth, height, width, channels)", _DROP_BLOCK)
class DropBlock3D(_DropBlock):
    pass


def _blocks(x: Any, state: Any, gamma: Any, shape: tuple, *, axes: tuple[int, ...], blocks: tuple[int, ...]) -> Any:
    """Return x times the DropBlock mask whose corners have `shape`, scaled example by example."""
    draws = current().draws(state, shape, x)
    dropped = draws < ops.cast(ops.round(gamma * 2**24), draws.dtype)
    for axis, block in zip(axes, blocks):
        dropped = _dilate(dropped, axis, block)
    per_example = tuple(range(1, len(shape)))
    kept_share = 1 - ops.mean(ops.cast(dropped, "float32"), axis=per_example, keepdims=True)
    scale = ops.where(kept_share > 0, 1 / ops.maximum(kept_share, 1e-30), 0)
    real = keras.backend.result_type(x.dtype, "float32")
    return ops.where(dropped, ops.zeros((), x.dtype), ops.cast(ops.cast(x, real) * ops.cast(scale, real), x.dtype))


def _dilate(drawn: Any, axis: int, block: int) -> Any:
    """Return whether each position of the longer axis is within `block` behind a drawn corner. The width doubles by steps."""
    margin = [(0, 0)] * len(drawn.shape)
    margin[axis] = (block - 1, block - 1)
    covered, width = ops.pad(drawn, margin), 1
    while width < block:
        step = min(width, block - width)
        length = covered.shape[axis]
        covered = ops.logical_or(_cut(covered, axis, 0, length - step), _cut(covered, axis, step, length))
        width += step
    return covered


def _cut(x: Any, axis: int, start: int, stop: int) -> Any:
    return x[tuple(slice(start, stop) if k == axis else slice(None) for k in range(len(x.shape)))]


@functools.lru_cache
def _gamma_table(sizes: tuple[int, ...], blocks: tuple[int, ...], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rates in [0, 1], and for each the probability of a corner that gives it."""
    rates = np.linspace(0, 1, 2049)
    corners = [n - b + 1 for n, b in zip(sizes, blocks)]
    if kind == "paper":
        factor = math.prod(n / (b * m) for n, b, m in zip(sizes, blocks, corners))
        return rates, np.minimum(rates * factor, 1)
    # A position is dropped by any of the corners whose block covers it: n(i) of them along an axis.
    per_axis = []
    for n, b in zip(sizes, blocks):
        i = np.arange(n)
        per_axis.append(np.minimum.reduce([i + 1, n - i, np.full(n, b), np.full(n, n - b + 1)]))
    counts, weights = np.unique(functools.reduce(np.multiply.outer, per_axis), return_counts=True)
    weights = weights / weights.sum()
    low, high = np.zeros_like(rates), np.ones_like(rates)
    for _ in range(60):
        middle = (low + high) / 2
        share = 1 - ((1 - middle)[:, None] ** counts) @ weights
        low, high = np.where(share < rates, middle, low), np.where(share < rates, high, middle)
    return rates, (low + high) / 2


def _interpolate(rate: Any, rates: Any, values: Any) -> Any:
    cell = ops.minimum(ops.floor(rate * 2048), 2047)
    first = ops.cast(cell, "int32")
    left, right = ops.take(values, first), ops.take(values, first + 1)
    return left + (right - left) * (rate * 2048 - cell)


@keras.saving.register_keras_serializable("keras_dropout")
class Cutout(ChannelLayer):
    """Set one square of each image to 0 in training.

        y = x * m,    m = 0 on a square of edge `size` around a centre uniform over all pixels, cut off at the border

    Shapes:        (batch, height, width, channels), or channels first -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of images that lose a square, in [0, 1]; 1 in the paper. size: edge in pixels, one number or
                   (height, width). data_format, seed: as in SpatialDropout2D.
    Source:        DeVries and Taylor 2017, arXiv:1708.04552. Sizes: 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN.
    Differs from:  nothing in the paper: a square may lie partly outside, the rest is not scaled, and 0 means the mean of
                   normalised images. keras.layers.RandomErasing draws the size too and fills with noise.

    >>> y = Cutout(1, size=4, seed=3)(np.ones((1, 9, 9, 3), "float32"), training=True)
    >>> 4 <= int((np.asarray(y)[0, :, :, 0] == 0).sum()) <= 16
    True
    """

    in_config = ("size",)
    ranks = range(4, 5)
    layout = "(batch, height, width, channels)"

    def __init__(
        self, rate: float, size: int | tuple[int, int], *, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, data_format=data_format, seed=seed, **kwargs)
        self.size = _sizes("Cutout", "size", size, 2)

    def drop(self, inputs: Any, state: Any) -> Any:
        axes = self.spatial_axes(4)
        return noise.product(_square, inputs, state, self.state.rate, (ops.shape(inputs)[0], 3), axes=axes, size=self.size)


def _square(x: Any, state: Any, rate: Any, shape: tuple, *, axes: tuple[int, ...], size: tuple[int, ...]) -> Any:
    draws = current().draws(state, shape, x)
    outside = draws[:, 0] >= ops.cast(ops.round(rate * 2**24), draws.dtype)
    firsts = []
    for k, (axis, edge) in enumerate(zip(axes, size), start=1):
        centre = ops.floor(ops.cast(draws[:, k], "float32") / 2**24 * ops.cast(ops.shape(x)[axis], "float32"))
        firsts.append(centre - edge // 2)
    stays = ops.logical_or(ops.reshape(outside, (-1, 1, 1, 1)), _outside(x, axes, firsts, size))
    return ops.where(stays, x, ops.zeros((), x.dtype))


def _outside(x: Any, axes: tuple[int, ...], firsts: Sequence, edges: Sequence) -> Any:
    """Return whether each position of an image is outside the rectangle that begins at `firsts` and has `edges`, one per image."""
    result = False
    for axis, first, edge in zip(axes, firsts, edges):
        first, edge = (n if isinstance(n, int) else ops.reshape(n, (-1, 1, 1, 1)) for n in (first, edge))
        index = ops.reshape(ops.cast(ops.arange(ops.shape(x)[axis]), "float32"), [-1 if a == axis else 1 for a in range(4)])
        result = ops.logical_or(result, ops.logical_or(index < first, index >= first + edge))
    return result


@keras.saving.register_keras_serializable("keras_dropout")
class RandomErasing(ChannelLayer):
    """Fill a rectangle of random size, proportions and place in each image in training.

        y = value inside, x outside;    area / image ~ U(scale),    log(height / width) ~ U(log ratio),    place ~ U(where it fits)

    Shapes:        (batch, height, width, channels), or channels first -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of images that get a rectangle, in [0, 1]; 0.5 in the paper. scale: least and largest share of
                   the image, 0.02 to 0.4 in the paper. ratio: least and largest height / width. value: the fill value.
                   data_format, seed: as in SpatialDropout2D.
    Source:        Zhong et al. 2020, arXiv:1708.04896; defaults as torchvision's.
    Differs from:  the paper and torchvision, which try until a rectangle fits or give up after ten times. Ours draws the ratio
                   from those at which the area fits: the rectangle is always inside the image. The paper fills with noise.
                   In keras.layers.RandomErasing factor=1.0 erases from half of the images, and area and ratio are not as requested.

    >>> y = np.asarray(RandomErasing(1, scale=(0.25, 0.25), ratio=(1, 1), seed=0)(np.ones((1, 8, 8, 3), "float32"), training=True))
    >>> int((y[0, :, :, 0] == 0).sum())
    16
    """

    in_config = ("scale", "ratio", "value")
    ranks = range(4, 5)
    layout = "(batch, height, width, channels)"

    def __init__(
        self,
        rate: float,
        *,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float = 0.0,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, data_format=data_format, seed=seed, **kwargs)
        what, shares = "numbers, low and high, above 0", "It is a share of the image, as in (0.02, 0.33)."
        self.scale = check_range("RandomErasing: scale", scale, f"{what} and at most 1", shares, above=0, most=1)
        self.ratio = check_range("RandomErasing: ratio", ratio, what, "It is height / width, as in (0.3, 3.3).", above=0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            refuse(f"RandomErasing: value must be a number; got {value!r}.", "0 is the mean of normalised images.")
        self.value = float(value)

    def drop(self, inputs: Any, state: Any) -> Any:
        axes = self.spatial_axes(4)
        batch, *_ = ops.shape(inputs)
        height, width = (ops.cast(ops.shape(inputs)[axis], "float32") for axis in axes)
        erased = ops.logical_not(noise.kept(noise.fold(state, 0), self.state.rate, (batch, 1, 1, 1)))
        share, turn, *places = ops.unstack(noise.uniform(noise.fold(state, 1), (4, batch)), 4)
        share = self.scale[0] + (self.scale[1] - self.scale[0]) * share
        # Both edges fit where area / width**2 <= ratio <= height**2 / area; the share is at most 1, so that some ratio always does.
        fits = ops.log(share * height / width), ops.log(height / (share * width))
        low, high = (ops.minimum(ops.maximum(fits[0], math.log(end)), fits[1]) for end in self.ratio)
        stretch = ops.exp((low + (high - low) * turn) / 2)
        root = ops.sqrt(share * height * width)
        edges = [ops.minimum(ops.maximum(ops.round(n), 1), most) for n, most in ((root * stretch, height), (root / stretch, width))]
        firsts = [ops.floor(place * (n - edge + 1)) for place, edge, n in zip(places, edges, (height, width))]
        inside = ops.logical_and(erased, ops.logical_not(_outside(inputs, axes, firsts, edges)))
        return ops.where(inside, ops.cast(self.value, inputs.dtype), inputs)


@keras.saving.register_keras_serializable("keras_dropout")
class PatchDropout(Stochastic, keras.Layer):
    """Remove a random subset of the patches (tokens) of a sequence in training, which makes it shorter.

        y = x[:, prefix tokens and k of the others],    k = max(1, patches - round(rate * patches)), each subset equally likely

    Shapes:        (batch, tokens, features) -> (batch, prefix + k, features) in training, the same at inference.
    Inference:     y = x.
    Arguments:     rate: fraction of patches removed, in [0, 1); 0.5 in the paper. prefix: leading tokens that always stay
                   (a class token). ordered: keep the order of the tokens. seed: whole number.
    Source:        Liu et al. 2022, arXiv:2208.07220; Li et al. 2022, arXiv:2212.00794. Put it behind the position embeddings.
    Differs from:  the other layers: the rate decides a shape, so it is fixed, and a new rate needs a new layer. timm keeps
                   int(patches * (1 - rate)), which truncates (9 of 100 at rate 0.9), and does not order.

    >>> tuple(PatchDropout(0.9, prefix=1, seed=0)(np.ones((2, 101, 4), "float32"), training=True).shape)
    (2, 11, 4)
    """

    in_config = ("rate", "prefix", "ordered")

    def __init__(self, rate: float, *, prefix: int = 1, ordered: bool = True, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._rate = check_rate("PatchDropout", rate, one_is="no patch is left")
        self.start(seed)
        self.prefix = check_whole("PatchDropout: prefix", prefix, 0, "It is the number of leading tokens that always stay.")
        self.ordered = check_flag("ordered", ordered)
        self._build_at_init()

    @property
    def rate(self) -> float:
        """The fraction of patches removed in training."""
        return self._rate

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        check_floating("PatchDropout", inputs)
        kept = self._kept_patches(tuple(inputs.shape))
        if not training or self.rate == 0:
            return inputs
        batch, tokens, _ = ops.shape(inputs)
        scores = noise.uniform(self.stream.next(), (batch, tokens - self.prefix), inputs)
        chosen = ops.argsort(scores, axis=1)[:, :kept]
        chosen = (ops.sort(chosen, axis=1) if self.ordered else chosen) + self.prefix
        patches = ops.take_along_axis(inputs, ops.expand_dims(ops.cast(chosen, "int32"), -1), axis=1)
        return ops.concatenate([inputs[:, : self.prefix], patches], axis=1)

    def _kept_patches(self, shape: tuple) -> int:
        if len(shape) != 3 or shape[1] is None:
            refuse(
                f"PatchDropout: inputs must be (batch, tokens, features) with a known number of tokens; got shape {shape}.",
                "Give the number of tokens in the model's Input.",
            )
        patches = shape[1] - self.prefix
        if patches < 1:
            refuse(f"PatchDropout: no patch is left behind {self.prefix} prefix tokens of {shape[1]}.", "Use a smaller prefix.")
        return max(1, patches - round(self.rate * patches))

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        if mask is not None:
            refuse("PatchDropout: a padding mask cannot be passed on.", "Put it before padding matters, or use WordDropout.")

    def compute_output_spec(self, inputs: Any, training: bool = False, mask: Any = None) -> keras.KerasTensor:
        self._kept_patches(tuple(inputs.shape))
        # A model has one shape for training and inference: leave the number of tokens open if training changes it.
        tokens = inputs.shape[1] if self.rate == 0 else None
        return keras.KerasTensor((inputs.shape[0], tokens, inputs.shape[2]), dtype=self.compute_dtype)


def _sizes(owner: str, name: str, value: object, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    if len(values) != count:
        refuse(f"{owner}: {name} must be one number or {count} of them; got {value!r}.", "Give one per spatial axis.")
    return tuple(check_whole(f"{owner}: {name}", n, 1, "It is a length in units of the map.") for n in values)
