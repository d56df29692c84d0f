"""Layers that drop weights, or replace them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_choice, check_flag, check_rate, check_whole, refuse
from keras_dropout.layers.base import LayerWrapper, MaskWrapper, Rate, check_floating, check_tensor
from keras_dropout.masks import LEVELS, derive_seed, numpy_draws, seed_words

__all__ = ["DropConnect", "LoRADropout", "Mixout", "WeightDrop", "dare"]


class _WeightWrapper(MaskWrapper):
    """A layer that wraps another one and drops its weights."""

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.input_spec = self.layer.input_spec

    def kernel(self) -> keras.Variable:
        """Return the layer's kernel, which must be one variable."""
        kernel = getattr(self.layer, "kernel", None)
        if not isinstance(kernel, keras.Variable) or "float" not in keras.backend.standardize_dtype(kernel.dtype):
            refuse(
                f"{type(self).__name__}: layer must have a kernel that is one floating-point variable; got {self.layer!r}.",
                "Wrap a layer such as Dense, EinsumDense or Conv2D; for recurrent layers use WeightDrop, with LoRA LoRADropout.",
            )
        return kernel

    def masked(self, weight: Any, state: Any) -> Any:
        """Return the weight with a mask of its own shape."""
        weight = ops.convert_to_tensor(weight)
        return noise.bernoulli_product(weight, state, self.state.rate, tuple(weight.shape))


# They do not act on each unit alone: their mean under noise is not an integral over one normal variable.
_COUPLED = tuple(getattr(keras.activations, name) for name in ("softmax", "log_softmax", "sparsemax", "glu"))
# The trapezoidal rule with the normal density: more exact than Gauss-Hermite with as many points where the spread is wide.
NORMAL_POINTS = np.linspace(-5.5, 5.5, 33)
NORMAL_WEIGHTS = np.exp(-(NORMAL_POINTS**2) / 2) / np.exp(-(NORMAL_POINTS**2) / 2).sum()


@keras.saving.register_keras_serializable("keras_dropout")
class DropConnect(_WeightWrapper):
    """Drop single weights of a layer at random in training, and scale the others up so that their mean is kept.

        y = a(x (W * M) / (1 - rate) + b * m / (1 - rate)),    M, m ~ Bernoulli(1 - rate), one draw per weight

    Shapes:        those of the layer.
    Inference:     "mean": y = a(x W + b). "gaussian": y = E[a(u)], where u ~ N(x W + b, rate / (1 - rate) (x^2 W^2 + b^2)) has the
                   moments of training; exact for linear and relu, else a sum over 33 points (error 1e-8 for tanh if the
                   standard deviation of u is 1, 1e-4 if it is 3; 3e-3 of it for an activation with a corner).
    Arguments:     rate: fraction of weights dropped, in [0, 1). layer: the layer. per: "example", separate masks for each entry
                   of the first axis, for Dense only, at the cost of batch x kernel; or "batch", one mask for the whole batch,
                   for any layer with a `kernel`. drop_bias: whether the bias is dropped too. inference: "mean" or "gaussian",
                   the latter for Dense with an activation that acts on each unit alone. seed: whole number.
    Source:        Wan et al. 2013, ICML, PMLR 28(3):1058-1066: rate 0.5, a mask per example, biases masked, Gaussian inference.
    Differs from:  the paper by scaling in training, by "mean" as the default at inference, and by "gaussian", which computes the
                   mean that the paper estimates from 1000 samples. EfficientNet's "drop connect" is StochasticDepth.

    >>> layer = DropConnect(0.5, keras.layers.Dense(4, kernel_initializer="ones", use_bias=False), seed=0)
    >>> y = np.asarray(layer(np.ones((100, 1), "float32"), training=True))
    >>> sorted({float(v) for v in y.ravel()}), bool((y == y[:1]).all())
    ([0.0, 2.0], False)
    """

    in_config = ("per", "drop_bias", "inference")
    rate = Rate(one_is="no weight is left to make up for those dropped")

    def __init__(
        self,
        rate: float,
        layer: keras.Layer,
        *,
        per: str = "example",
        drop_bias: bool = True,
        inference: str = "mean",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, layer, seed=seed, **kwargs)
        self.per = check_choice("per for DropConnect", per, ("example", "batch"))
        self.drop_bias = check_flag("DropConnect: drop_bias", drop_bias)
        self.inference = check_choice("inference for DropConnect", inference, ("mean", "gaussian"))
        if per == "example" and not _is_plain(layer, keras.layers.Dense):
            refuse(
                f'DropConnect: per="example" masks the kernel of a Dense layer that is not quantized; got {layer!r}.',
                'Write per="batch", one mask of the kernel for the whole batch.',
            )
        if inference == "gaussian" and not _is_plain(layer, keras.layers.Dense):
            refuse(
                f'DropConnect: inference="gaussian" is for a Dense layer that is not quantized; got {layer!r}.',
                'Write inference="mean".',
            )
        if inference == "gaussian" and (layer.activation in _COUPLED or isinstance(layer.activation, keras.layers.Softmax)):
            refuse(
                f'DropConnect: inference="gaussian" needs an activation of each unit alone; got {layer.activation!r}.',
                'Write inference="mean", or put the activation into a layer of its own behind this one.',
            )

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.dropped_weights()

    def dropped_weights(self) -> list[keras.Variable]:
        """Return the layer's kernel, and its bias if that is dropped too."""
        kernel, bias = self.kernel(), getattr(self.layer, "bias", None)
        return [kernel, bias] if self.drop_bias and isinstance(bias, keras.Variable) else [kernel]

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("DropConnect", inputs)
        if not training:
            return self.expected(inputs) if self.inference == "gaussian" else self.call_layer(inputs, training)
        state = self.stream.next()
        if self.per == "example":
            return self.activated(self.for_each_example(inputs, state))
        dropped = enumerate(self.dropped_weights())
        return self.call_layer(inputs, training, [(weight, self.masked(weight, noise.fold(state, n))) for n, weight in dropped])

    def for_each_example(self, inputs: Any, state: Any) -> Any:
        """Return the values before activation, with separate masks for each example."""
        dtype = self.layer.compute_dtype
        batch, *middle, last = ops.shape(inputs)

        def masked(weight: Any, number: int) -> Any:
            each = ops.broadcast_to(ops.cast(weight, dtype), (batch, *weight.shape))
            return noise.bernoulli_product(each, noise.fold(state, number), self.state.rate, (batch, *weight.shape))

        kernel, *bias = self.dropped_weights()
        rows = ops.reshape(ops.cast(inputs, dtype), (batch, math.prod(middle), last))
        values = ops.matmul(rows, masked(kernel, 0))
        if bias:
            values = values + ops.expand_dims(masked(bias[0], 1), 1)
        elif self.layer.bias is not None:
            values = values + ops.cast(self.layer.bias, dtype)
        return ops.reshape(values, (batch, *middle, kernel.shape[-1]))

    def expected(self, inputs: Any) -> Any:
        """Return the mean of the activation over normal inputs with the moments of training."""
        layer = self.layer
        real = keras.backend.result_type(layer.compute_dtype, "float32")  # squares overflow in half precision
        x, kernel = ops.cast(inputs, real), ops.cast(layer.kernel, real)
        mean, variance = ops.matmul(x, kernel), ops.matmul(ops.square(x), ops.square(kernel))
        if layer.bias is not None:
            bias = ops.cast(layer.bias, real)
            mean = mean + bias
            variance = variance + ops.square(bias) if self.drop_bias else variance
        rate = ops.cast(self.state.rate, real)
        return self.regularized(_normal_mean(layer.activation, mean, variance * rate / (1 - rate)))


_NEVER = -1  # the number of no step


@keras.saving.register_keras_serializable("keras_dropout")
class Mixout(_WeightWrapper):
    """Replace single weights of a layer at random in training by those that it began with, and keep their mean.

        y = layer(x) with w0 + M (w - w0) / (1 - rate),    M ~ Bernoulli(1 - rate), one draw per weight, for the whole batch

    w0 are the weights of the pretrained layer: those that it has in its first training step. They are saved with the model.

    Shapes:        those of the layer.
    Inference:     y = layer(x).
    Arguments:     rate: fraction of weights replaced, in [0, 1]; 0.7 to 0.9 in the paper; 1 gives w0. layer: any layer with a
                   `kernel`; a bias is left alone. origin: "start", as above, or "zero", which is DropConnect with a mask per
                   batch. seed: whole number. `restart()` takes the present weights for w0, as after other ones were loaded.
    Source:        Lee, Cho and Kang 2020, arXiv:1909.11299.
    Differs from:  the authors' code in the gradient of w, which is that of the formula, M / (1 - rate), and there M. In the first
                   step nothing is replaced, since w = w0.

    >>> layer = Mixout(0.5, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"), seed=0)
    >>> y = layer(np.eye(6, dtype="float32"), training=True)  # the first step
    >>> layer.layer.set_weights([np.full((6, 1), 4.0, "float32")])
    >>> sorted(set(np.asarray(layer(np.eye(6, dtype="float32"), training=True)).ravel().tolist()))  # w0, and w0 + (w - w0) / 0.5
    [1.0, 7.0]
    """

    in_config = ("origin",)

    def __init__(self, rate: float, layer: keras.Layer, *, origin: str = "start", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, layer, seed=seed, **kwargs)
        self.origin = check_choice("origin for Mixout", origin, ("start", "zero"))

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        for name, shape, dtype in (("w0", self.kernel().shape, "float32"), ("takes_w0", (), "int32")):
            variable = keras.Variable("zeros", tuple(shape), dtype, trainable=False, autocast=False, name=name)
            setattr(self.state, name, variable)
        if self.origin == "zero":
            self.state.takes_w0.assign(_NEVER)

    def restart(self) -> None:
        """Take the weights of the next training step for w0."""
        self.state.takes_w0.assign(ops.cast(self.state.stream[2], "int32"))

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("Mixout", inputs)
        if not training:
            return self.call_layer(inputs, training)
        kernel = ops.convert_to_tensor(self.kernel())
        state = self.stream.next()
        # In the step of that number, and once: samples at prediction begin with step 0 again.
        held, number = ops.convert_to_tensor(self.state.w0), ops.convert_to_tensor(self.state.takes_w0)
        now = ops.equal(ops.cast(state[2], "int32"), number)
        w0 = ops.where(now, ops.cast(ops.stop_gradient(kernel), "float32"), held)
        self.state.w0.assign(w0)
        self.state.takes_w0.assign(ops.where(now, _NEVER, number))
        w0 = ops.cast(w0, kernel.dtype)
        return self.call_layer(inputs, training, [(self.kernel(), w0 + self.masked(kernel - w0, noise.fold(state, 0)))])


@keras.saving.register_keras_serializable("keras_dropout")
class WeightDrop(_WeightWrapper):
    """Drop single weights between the hidden states of a recurrent layer at random in training.

        h_t = cell(x_t, h_{t-1}; U * M / (1 - rate)),    M ~ Bernoulli(1 - rate) of U's shape, one for the batch and all steps

    Shapes:        those of the layer; also takes its `initial_state` and `mask`.
    Inference:     the layer as it is.
    Arguments:     rate: fraction of the recurrent weights dropped, in [0, 1]. layer: LSTM, GRU, SimpleRNN, RNN of cells that have
                   a `recurrent_kernel`, also stacked, or Bidirectional of these; each kernel has its mask. seed: whole number.
    Source:        Merity, Keskar and Socher 2017, arXiv:1708.02182: rate 0.5.
    Differs from:  the paper's code: nothing is dropped at inference, where the code's option `variational` does drop.

    >>> ones = {"recurrent_initializer": "ones", "kernel_initializer": "ones", "activation": "linear"}
    >>> layer = WeightDrop(0.5, keras.layers.SimpleRNN(1, return_sequences=True, **ones), seed=0)
    >>> calls = [layer(np.ones((1, 3, 1), "float32"), training=True) for _ in range(20)]
    >>> sorted({tuple(float(h) for h in np.asarray(y).ravel()) for y in calls})
    [(1.0, 1.0, 1.0), (1.0, 3.0, 7.0)]
    """

    def __init__(self, rate: float, layer: keras.Layer, *, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, layer, seed=seed, **kwargs)
        if _cells(layer) == [layer]:
            refuse(f"WeightDrop: layer must be a recurrent layer; got {layer!r}.", "Use DropConnect for the kernels of others.")

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "LayerWrapper":
        if "go_backwards" in config:  # Bidirectional asks in this way for the same layer in the other direction
            refuse("WeightDrop cannot be inside of a Bidirectional.", "Put it around: WeightDrop(rate, Bidirectional(layer)).")
        return super().from_config(config, custom_objects)

    def build(self, sequences_shape: tuple, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape)
        self.recurrent_kernels()

    def recurrent_kernels(self) -> list[keras.Variable]:
        """Return the kernels between hidden states, one for each cell."""
        kernels = [getattr(cell, "recurrent_kernel", None) for cell in _cells(self.layer)]
        if not all(isinstance(kernel, keras.Variable) for kernel in kernels):
            refuse(
                f"WeightDrop: each cell must have a variable recurrent_kernel; got {_cells(self.layer)!r}.",
                "Name the cell's kernel so, or use one of Keras's cells.",
            )
        return kernels

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        check_floating("WeightDrop", sequences)
        given = {"initial_state": initial_state, "mask": mask}
        options = {name: value for name, value in given.items() if value is not None}
        if not training:
            return self.call_layer(sequences, training, **options)
        state = self.stream.next()
        kernels = enumerate(self.recurrent_kernels())
        values = [(kernel, self.masked(kernel, noise.fold(state, n))) for n, kernel in kernels]
        return self.call_layer(sequences, training, values, **options)

    def inner_variables(self) -> list[keras.Variable]:
        states = getattr(self.layer, "states", None)  # of a stateful layer: Keras does not list them
        return [*self.layer.variables, *keras.tree.flatten(states or [])]

    def compute_output_shape(self, sequences_shape: tuple, initial_state_shape: Any = None) -> Any:
        return self.layer.compute_output_shape(sequences_shape)


@keras.saving.register_keras_serializable("keras_dropout")
class LoRADropout(_WeightWrapper):
    """Drop inputs of a layer's low-rank adapter at random in training; the layer's own kernel gets all inputs.

        y = a(x W + b + alpha / rank * (x * m / (1 - rate)) A B),    m ~ Bernoulli(1 - rate), one draw per input unit

    Shapes:        those of the layer.
    Inference:     the layer as it is, y = a(x (W + alpha / rank * A B) + b).
    Arguments:     rate: fraction of the adapter's inputs dropped, in [0, 1]. layer: Dense, EinsumDense or Embedding with LoRA, by
                   `lora_rank` or `enable_lora`; it may be quantized to int8 or int4, before or after. The inputs of an Embedding
                   are one-hot: one draw per token. seed: whole number.
    Source:        Hu et al. 2021, arXiv:2106.09685; as `lora_dropout` in PEFT. On quantized layers: Dettmers et al. 2023, "QLoRA",
                   arXiv:2305.14314.
    Differs from:  Keras, which has no dropout in its adapters; PEFT drops nothing in the adapter of an embedding. Keras saves an
                   adapter merged into the kernel and loads A = B = 0: a loaded model predicts the same (a quantized one within its
                   quantization), but its adapter has to be started anew before training goes on.

    >>> layer = LoRADropout(0.5, keras.layers.Dense(2, lora_rank=1), seed=0)
    >>> x = np.ones((4, 3), "float32")
    >>> bool(np.allclose(layer(x, training=True), layer(x), atol=1e-6))  # B is 0 at first
    True
    """

    def __init__(self, rate: float, layer: keras.Layer, *, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, layer, seed=seed, **kwargs)
        if not _calls_as(layer, keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding) or not layer.lora_rank:
            refuse(
                f"LoRADropout: layer must be Dense, EinsumDense or Embedding with LoRA; got {layer!r}.",
                "Make it with lora_rank=..., or call its enable_lora(rank) first.",
            )
        if isinstance(layer, keras.layers.Embedding):
            self.autocast = False  # as in Embedding: ids in floating point would lose their last digits
        self.check_quantization()

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "LayerWrapper":
        made = super().from_config(config, custom_objects)
        made.layer.lora_alpha = config["layer"]["config"]["lora_alpha"]  # a layer that Keras builds from its config loses it
        return made

    def build(self, input_shape: tuple) -> None:
        alpha = self.layer.lora_alpha
        super().build(input_shape)
        self.layer.lora_alpha = alpha

    def check_quantization(self) -> None:
        """Refuse a quantization in which Keras leaves the adapter out. A layer may be quantized after it was wrapped."""
        if self.layer.quantization_mode not in (None, "int8", "int4"):
            refuse(
                f"LoRADropout: Keras has no adapter on a layer quantized by {self.layer.quantization_mode}; got {self.layer!r}.",
                'Quantize the layer with quantize("int8").',
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_quantization()
        tokens = isinstance(self.layer, keras.layers.Embedding)
        (check_tensor if tokens else check_floating)("LoRADropout", inputs)
        if not training:
            return self.call_layer(inputs, training)
        # The layer's own sum already has the adapter with all inputs, so add only the change that dropout makes.
        values = self.before_activation(inputs)
        values = values + ops.cast(self.layer.lora_alpha / self.layer.lora_rank * self.change(inputs), values.dtype)
        return self.regularized(values) if tokens else self.activated(values)

    def before_activation(self, inputs: Any) -> Any:
        """Return what the layer computes, quantized or not, without its activation and without what a call of it adds as losses."""
        layer = self.layer
        bare = object.__new__(type(layer))  # the same variables; a copy by Keras would have others
        vars(bare).update(vars(layer), activation=None)
        if not isinstance(layer, keras.layers.Embedding):
            inputs = ops.cast(inputs, layer.compute_dtype)
        return bare.quantized_call(inputs, training=True) if layer.quantization_mode else bare.call(inputs)

    def change(self, inputs: Any) -> Any:
        """Return how much dropout changes the adapter's outputs, before their scale alpha / rank."""
        layer, dtype = self.layer, self.layer.compute_dtype
        if isinstance(layer, keras.layers.Embedding):
            a, b = (ops.cast(weight, dtype) for weight in (layer.lora_embeddings_a, layer.lora_embeddings_b))
            rows = ops.take(a, ops.cast(inputs, "int32"), axis=0)
            return ops.matmul(self.dropped(rows, (*ops.shape(inputs), 1)) - rows, b)
        a, b = (ops.cast(weight, dtype) for weight in (layer.lora_kernel_a, layer.lora_kernel_b))
        x = ops.cast(inputs, dtype)
        difference = self.dropped(x, tuple(ops.shape(x))) - x
        if isinstance(layer, keras.layers.Dense):
            return ops.matmul(ops.matmul(difference, a), b)
        return ops.einsum(layer.equation, difference, ops.matmul(a, b))

    def dropped(self, values: Any, mask_shape: tuple) -> Any:
        """Return values with a fresh mask of this shape."""
        return noise.bernoulli_product(values, self.stream.next(), self.state.rate, mask_shape)


def _calls_as(layer: keras.Layer, *kinds: type[keras.Layer]) -> bool:
    """Return whether the layer computes as one of `kinds` does, so that its computation can be repeated here."""
    return any(type(layer).call is kind.call for kind in kinds)


def dare(weights: Sequence, base: Sequence, rate: float, *, seed: int = 0) -> list[np.ndarray]:
    """Drop most of what fine-tuning changed in the weights, and scale the rest up, to merge models by adding the changes.

        w' = base + m (w - base) / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per weight

    Shapes:        lists of arrays, as `model.get_weights()` gives them -> the same. What is no floating point comes from `weights`.
    Arguments:     weights: of the fine-tuned model. base: of the model before that. rate: in [0, 1); 0.9 and more in the paper.
                   seed: whole number; another one for each model that is merged.
    Source:        Yu et al. 2024, arXiv:2311.03099.
    Differs from:  Mixout, which does this in each training step and keeps w at prediction: here it is done once, after training.

    >>> w = dare([np.full((2, 8), 1.5, "float32")], [np.ones((2, 8), "float32")], 0.75, seed=3)
    >>> sorted(set(w[0].ravel().tolist()))
    [1.0, 3.0]
    """
    rate = check_rate("dare", rate, one_is="nothing of the change is left")
    check_whole("dare: seed", seed, 0, "It is the seed of the mask.")
    pairs = [tuple(np.asarray(ops.convert_to_numpy(each)) for each in pair) for pair in zip(weights, base)]
    if len(weights) != len(base) or any(new.shape != old.shape for new, old in pairs):
        refuse("dare: weights and base must be arrays of the same shapes, in the same order.", "Take both from one architecture.")
    found = []
    for number, (new, old) in enumerate(pairs):
        if "float" not in str(new.dtype):
            found.append(new)
            continue
        draws = numpy_draws(seed_words(derive_seed(seed, "dare", number)), 0, new.size).reshape(new.shape)
        level = round(float(np.float32(rate)) * LEVELS)
        change = (new.astype("float32") - old.astype("float32")) * np.float32(LEVELS / max(LEVELS - level, 1))
        found.append(np.where(draws >= level, old + change, old).astype(new.dtype))
    return found


def _is_plain(layer: keras.Layer, *kinds: type[keras.Layer]) -> bool:
    """Return whether the layer computes as one of `kinds` does, and is not quantized."""
    return _calls_as(layer, *kinds) and layer.quantization_mode is None


def _cells(layer: Any) -> list:
    """Return the cells inside a recurrent layer; the layer itself if it has none."""
    parts = [getattr(layer, name) for name in ("forward_layer", "backward_layer", "cell") if hasattr(layer, name)]
    parts += getattr(layer, "cells", [])
    return [cell for part in parts for cell in _cells(part)] or [layer]


def _normal_mean(activation: Any, mean: Any, variance: Any) -> Any:
    """Return E[activation(u)] for u ~ N(mean, variance)."""
    if activation is keras.activations.linear:
        return mean
    spread = ops.sqrt(ops.maximum(variance, 1e-20))  # above 0, because it is a divisor below
    if activation is keras.activations.relu:
        z = mean / spread
        return mean * (1 + ops.erf(z / math.sqrt(2))) / 2 + spread * ops.exp(-ops.square(z) / 2) / math.sqrt(2 * math.pi)
    return sum(float(weight) * activation(mean + float(point) * spread) for point, weight in zip(NORMAL_POINTS, NORMAL_WEIGHTS))
