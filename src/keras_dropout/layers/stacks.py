"""Layers that drop units of a stack of layers and compute only what is kept."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_rate, check_whole, refuse
from keras_dropout.layers.base import LayerWrapper, check_floating

__all__ = ["ThinnedStack"]

L = keras.layers
WEIGHTED = (L.Dense, L.Conv1D, L.Conv2D, L.Conv3D)
_ACTIVATIONS = (L.Activation, L.ReLU, L.LeakyReLU, L.ELU)
# Each output comes from inputs of its own channel.
_KINDS = ("MaxPooling", "AveragePooling", "UpSampling", "ZeroPadding", "Cropping")
_CHANNELWISE = tuple(getattr(L, f"{kind}{rank}D") for kind in _KINDS for rank in (1, 2, 3))


@keras.saving.register_keras_serializable("keras_dropout")
class ThinnedStack(LayerWrapper):
    """Drop blocks of hidden units of a stack of layers in training, and compute only those that are kept.

        h_i = a(h_{i-1} W[kept of i-1, kept of i] + b[kept of i]) * blocks / k,    y = h_n W[kept of n, :] + b

    Each hidden layer of the stack has blocks of `block_size` neighbouring units (of channels, in convolutions). k of them are kept,
    k = blocks - round(rate * blocks), each set of k equally likely, one set for all examples of a group. The products, forward
    and backward, have the size of what is kept.

    Shapes:        those of the stack.
    Inference:     y = layer(x): all units.
    Arguments:     rate: fraction of the hidden units dropped, in [0, 1). layer: a keras.Sequential of two or more Dense or Conv
                   layers, with activations and pooling between them; the last one's units are all kept. block_size: units that
                   are dropped together; it divides the width of each hidden layer. By default the largest of up to 16 that leaves
                   16 blocks or more: larger blocks are hardly faster, and regularise less well. groups: parts of the batch with
                   sets of their own, which costs speed. seed: whole number.
    Source:        Srivastava et al. 2014, JMLR 15:1929-1958, whose thinned networks are what is trained; fixed numbers of units
                   kept for a batch as in Song et al. 2018, arXiv:1805.08939.
    Differs from:  Dropout by the masks: shared by the examples of a group and by the units of a block, with a fixed number kept.
                   Like PatchDropout's, the rate decides a shape, so a new rate needs a new layer.

    >>> stack = keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(3)])
    >>> layer = ThinnedStack(0.5, stack, block_size=16, seed=0)
    >>> tuple(layer(np.ones((8, 20), "float32"), training=True).shape), layer.kept_blocks(64)
    ((8, 3), 2)
    """

    in_config = ("rate", "block_size", "groups")

    def __init__(
        self,
        rate: float,
        layer: keras.Sequential,
        *,
        block_size: int | None = None,
        groups: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        self._rate = check_rate("ThinnedStack", rate, one_is="no unit is left")
        self.start(seed)
        fix = "It is the number of units dropped together."
        self.block_size = None if block_size is None else check_whole("ThinnedStack: block_size", block_size, 1, fix)
        self.groups = check_whole("ThinnedStack: groups", groups, 1, "It is the number of parts of a batch.")
        if not isinstance(layer, keras.Sequential):
            refuse(
                f"ThinnedStack: layer must be a keras.Sequential; got {layer!r}.",
                "Write the rate first, then keras.Sequential([Dense(…), Dense(…)]).",
            )
        weighted = [each for each in layer.layers if isinstance(each, WEIGHTED)]
        if len(weighted) < 2:
            refuse(
                f"ThinnedStack: the stack must have two or more Dense or Conv layers; it has {len(weighted)}.",
                "Put the layer that takes the hidden units into the stack, too.",
            )
        for number, each in enumerate(layer.layers):
            reason = why_not(each, hidden=each is not weighted[-1])
            if reason is None and number > layer.layers.index(weighted[-1]):
                reason = "it comes behind the last layer with weights"
            if reason:
                refuse(f"ThinnedStack: {type(each).__name__} {each.name!r} cannot be in the stack: {reason}.", "Leave it outside.")
        for each in weighted[:-1]:
            self.kept_blocks(_width(each))

    @property
    def rate(self) -> float:
        """The fraction of hidden units dropped in training, up to a whole number of blocks."""
        return self._rate

    def block_of(self, width: int) -> int:
        """Return how many units are dropped together in a hidden layer of this width."""
        size = self.block_size or next((n for n in range(16, 1, -1) if width % n == 0 and width // n >= 16), 1)
        if width % size:
            fitting = next(n for n in range(min(size, width), 0, -1) if width % n == 0)
            refuse(
                f"ThinnedStack: block_size must divide the width of each hidden layer; {size} does not divide {width}.",
                f"Write block_size={fitting}, or leave it out.",
            )
        return size

    def kept_blocks(self, width: int) -> int:
        """Return how many blocks are kept of a hidden layer of this width; refuse a width of which the rate leaves all or none."""
        size = self.block_of(width)
        blocks = width // size
        kept = blocks - round(self.rate * blocks)
        if self.rate > 0 and not 0 < kept < blocks:
            number = "none" if kept else "all"
            refuse(
                f"ThinnedStack: at rate {self.rate:g}, {number} of {blocks} blocks of {size} units would be dropped.",
                "Use a smaller block_size." if size > 1 else "Use another rate, or a wider layer.",
            )
        return kept

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.input_spec = self.layer.input_spec

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("ThinnedStack", inputs)
        if not training or self.rate == 0:
            return self.call_layer(inputs, training)
        state, inputs = self.stream.next(), ops.cast(inputs, self.compute_dtype)
        if self.groups == 1:
            return self.thinned(inputs, state)
        size = -(-ops.shape(inputs)[0] // self.groups)
        parts = [inputs[number * size : (number + 1) * size] for number in range(self.groups)]
        return ops.concatenate([self.thinned(part, noise.fold(state, number)) for number, part in enumerate(parts)])

    def thinned(self, values: Any, state: Any) -> Any:
        """Return the outputs of the stack for one set of kept blocks."""
        scale, rows, last = 1.0, None, next(each for each in reversed(self.layer.layers) if isinstance(each, WEIGHTED))
        for number, layer in enumerate(self.layer.layers):
            if not isinstance(layer, WEIGHTED):
                values = layer(values)
                continue
            values = ops.cast(values, layer.compute_dtype)
            if rows is not None:  # here, because an activation of its own may be between
                values = values * ops.cast(scale, values.dtype)
            columns = None
            if layer is not last:
                columns, width = self.kept_of(layer, noise.fold(state, number)), _width(layer)
                scale = width / (self.kept_blocks(width) * self.block_of(width))
            values, rows = self._product(layer, values, rows, columns), columns
        return values

    def kept_of(self, layer: keras.Layer, state: Any) -> Any:
        """Return the kept blocks of a hidden layer, in order."""
        width = _width(layer)
        scores = noise.uniform(state, (width // self.block_of(width),))
        return ops.sort(ops.cast(ops.argsort(scores)[: self.kept_blocks(width)], "int32"))

    def _product(self, layer: Any, values: Any, rows: Any, columns: Any) -> Any:
        """Return what a layer makes of the kept inputs for its kept units."""
        kernel, bias = ops.convert_to_tensor(layer.kernel), layer.bias
        kernel = self._taken(self._taken(kernel, rows, -2), columns, -1)
        bias = None if bias is None else self._taken(ops.convert_to_tensor(bias), columns, -1)
        kernel, bias = (None if each is None else ops.cast(each, layer.compute_dtype) for each in (kernel, bias))
        if isinstance(layer, L.Dense):
            values = ops.matmul(values, kernel)
        else:
            values = _convolved(layer, values, kernel)
            if bias is not None and layer.data_format == "channels_first":
                bias = ops.reshape(bias, (-1,) + (1,) * layer.rank)
        return layer.activation(values if bias is None else values + bias)

    def _taken(self, weight: Any, blocks: Any, axis: int) -> Any:
        """Return these blocks of a weight along an axis."""
        if blocks is None:
            return weight
        axis, shape = axis % len(weight.shape), tuple(weight.shape)
        before, behind = shape[:axis], shape[axis + 1 :]
        size = self.block_of(shape[axis])
        split = ops.reshape(weight, (*before, shape[axis] // size, size, *behind))
        return ops.reshape(ops.take(split, blocks, axis=axis), (*before, -1, *behind))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return previous_mask if all(each.supports_masking for each in self.layer.layers) else None


def why_not(layer: keras.Layer, hidden: bool) -> str | None:
    """Return why a layer cannot be in a thinned stack; None if it can. `hidden` says that its units are dropped."""
    kind = type(layer)
    if isinstance(layer, WEIGHTED):
        if not any(kind.call is each.call for each in WEIGHTED) or getattr(layer, "quantization_mode", None) is not None:
            return "its computation is its own"
        if getattr(layer, "groups", 1) != 1:
            return "its groups of channels would be torn"
        if layer.activity_regularizer is not None:
            return "its activity regularizer needs all units"
        activation = layer.activation
    elif isinstance(layer, _ACTIVATIONS):
        activation = layer
    else:
        return None if isinstance(layer, _CHANNELWISE) else "it is no Dense, Conv, activation or pooling layer"
    return "its activation does not act on each unit alone" if hidden and not _acts_alone(activation) else None


def _acts_alone(activation: Any) -> bool:
    """Return whether an activation, called on half of the units, gives the half of what it gives for all."""
    values = np.linspace(-2, 2, 6, dtype="float32").reshape(1, 6)
    with keras.StatelessScope():
        whole, half = (ops.convert_to_numpy(activation(ops.convert_to_tensor(each))) for each in (values, values[:, ::2]))
    return whole.shape == values.shape and np.allclose(whole[:, ::2], half, atol=1e-6)


def _width(layer: Any) -> int:
    return layer.units if isinstance(layer, L.Dense) else layer.filters


def _convolved(layer: Any, values: Any, kernel: Any) -> Any:
    padding = layer.padding
    if padding == "causal":
        values, padding = ops.pad(values, layer._compute_causal_padding()), "valid"
    options = {"strides": list(layer.strides), "dilation_rate": layer.dilation_rate, "data_format": layer.data_format}
    return ops.conv(values, kernel, padding=padding, **options)
