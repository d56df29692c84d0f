"""Layers whose rates are learned, or decided by the weights.

All of them wrap a layer with a kernel. Regularisers and divergences are added as losses in each call, in training and at
inference, as Keras does for a `kernel_regularizer`: `evaluate` reports what `fit` minimised.
"""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_choice, check_flag, check_positive, check_rate, refuse
from keras_dropout.layers.base import LayerWrapper, Number, Rate, check_floating

__all__ = ["ConcreteDropout", "SparseVariationalDropout", "Standout", "TargetedDropout", "VariationalDropout"]

_EPSILON = 1e-8  # under a square root or in a logarithm
_KL_WEIGHT = "1 / N for a mean loss over N training examples; 0 switches it off."


class _OnKernel(LayerWrapper):
    """A wrapper that reads or changes its layer's kernel. `kinds` are the layers that it can wrap, if not all."""

    kinds: tuple[type, ...] = ()

    def __init__(self, layer: keras.Layer, seed: int | None, numbers: Mapping[str, float], **kwargs: Any):
        super().__init__(layer, **kwargs)
        if self.kinds and not isinstance(layer, self.kinds):
            names = " or ".join(kind.__name__ for kind in self.kinds)
            refuse(
                f"{type(self).__name__}: layer must be a {names} layer; got {layer!r}.", "Wrap the layer with the weights itself."
            )
        self.start(seed, **numbers)

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        if not isinstance(getattr(self.layer, "kernel", None), keras.Variable):
            refuse(
                f"{type(self).__name__}: layer must have one variable `kernel`; {self.layer!r} has none.",
                "Wrap a Dense, EinsumDense or convolution layer.",
            )
        self.check_kernel()

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.built:
            self.check_kernel()  # the layer may have been quantized since
        return super().__call__(*args, **options)

    def check_kernel(self) -> None:
        """Refuse a quantized kernel: its numbers are those of the weights only up to a scale, and are not trained."""
        if "float" not in (kind := keras.backend.standardize_dtype(self.layer.kernel.dtype)):
            refuse(
                f"{type(self).__name__}: layer must have a floating-point kernel; that of {self.layer!r} is {kind}.",
                "Train first, and quantize the trained model without its dropout: keras_dropout.strip(model).",
            )

    def add_numbers(self, name: str, shape: tuple, start: float, constraint: Any = None) -> keras.Variable:
        """Return a new weight of numbers that are learned in float32 and begin at `start`."""
        initial = keras.initializers.Constant(start)
        return self.add_weight(name=name, shape=shape, initializer=initial, dtype="float32", autocast=False, constraint=constraint)

    def kernel(self) -> Any:
        """Return the kernel with which the layer computes, in float32 or better."""
        used = ops.cast(self.layer.kernel, self.layer.compute_dtype)
        return ops.cast(used, keras.backend.result_type(used.dtype, "float32"))

    def with_kernel(self, kernel: Any) -> keras.Layer:
        """Return a layer like the wrapped one, with another kernel."""
        self.check_kernel()
        twin = type(self.layer).from_config(self.layer.get_config())
        twin.build_from_config(self.layer.get_build_config())
        twin.set_weights(self.layer.get_weights())
        twin.kernel.assign(ops.cast(kernel, twin.kernel.dtype))
        return twin

    def check_built(self, what: str) -> None:
        if not self.built:
            refuse(
                f"{type(self).__name__}: there is no {what} before the layer has weights.", "Call it on inputs, or build it, first."
            )


class _OnSum(_OnKernel):
    """A wrapper that acts on its layer's weighted sums, before bias and activation."""

    kinds: tuple[type, ...] = (keras.layers.Dense, keras.layers.Conv2D)

    def inputs(self, inputs: Any) -> Any:
        check_floating(type(self).__name__, inputs)
        return ops.cast(inputs, self.layer.compute_dtype)

    def sum(self, inputs: Any, kernel: Any) -> Any:
        """Return the weighted sums, linear in inputs and kernel, in the dtype of the inputs."""
        kernel = ops.cast(kernel, inputs.dtype)
        return (
            ops.matmul(inputs, kernel) if isinstance(self.layer, keras.layers.Dense) else self.layer.convolution_op(inputs, kernel)
        )

    def noisy_sum(self, inputs: Any, kernel: Any, variance: Any) -> Any:
        """Return the sums for weights of this mean and variance, drawn anew for each example from the moments of the sums."""
        mean, real = self.sum(inputs, kernel), variance.dtype
        deviation = ops.sqrt(self.sum(ops.square(ops.cast(inputs, real)), variance) + _EPSILON)
        drawn = deviation * ops.cast(noise.normal(self.stream.next(), tuple(ops.shape(mean))), real)
        return ops.cast(ops.cast(mean, real) + drawn, mean.dtype)

    def biased(self, sums: Any) -> Any:
        if self.layer.bias is None:
            return sums
        bias = ops.cast(self.layer.bias, sums.dtype)
        first = getattr(self.layer, "data_format", "") == "channels_first"
        return sums + (ops.reshape(bias, (-1, 1, 1)) if first else bias)


class _LearnedRate(_OnKernel):
    """A wrapper that learns its rates, as log(rate / (1 - rate)) in one weight.

    `rate` reads the mean of the learned rates, to six digits; setting it sets all of them. The config has the rate last set.
    """

    highest = 1.0  # limit of the rates; 1 itself is not allowed
    constraint: Callable[[Any], Any] | None = None

    def __init__(self, rate: float, layer: keras.Layer, seed: int | None, numbers: Mapping[str, float], **kwargs: Any):
        super().__init__(layer, seed, numbers, **kwargs)
        self.rate = rate

    @property
    def rate(self) -> float:
        if not self.built:
            return self._rate
        logit = ops.convert_to_numpy(self.logit).astype("float64")
        return float(f"{np.mean(1 / (1 + np.exp(-logit))):.6g}")

    @rate.setter
    def rate(self, value: float) -> None:
        value = check_rate(type(self).__name__, value)
        if not 0 < value <= self.highest or value == 1:
            refuse(
                f"{type(self).__name__}: rate must be in (0, {self.highest:g}{')' if self.highest == 1 else ']'}; got {value!r}.",
                "It is learned as log(rate / (1 - rate)), which has no end; start at 0.1, say.",
            )
        self._rate = value
        if self.built:
            self.logit.assign(ops.full(self.logit.shape, _logit(value), "float32"))

    def logit_shape(self) -> tuple:
        return ()

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.logit = self.add_numbers("logit", self.logit_shape(), _logit(self._rate), self.constraint)

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self._rate}


@keras.saving.register_keras_serializable("keras_dropout")
class ConcreteDropout(_LearnedRate):
    """Drop inputs of a layer with a rate that is learned, through a mask that has a gradient.

        y = layer(x * (1 - z) / (1 - rate)),    z = sigmoid((logit(rate) + logit(u)) / temperature),    u ~ U(0, 1)
        loss += weight_regularizer * sum(kernel^2) / (1 - rate)
              + dropout_regularizer * K * (rate ln rate + (1 - rate) ln(1 - rate)),    K input features

    Shapes:        those of the layer, which may be any with a `kernel`.
    Inference:     y = layer(x).
    Arguments:     rate: the initial rate, in (0, 1). The learned rate is one number, a weight named logit (keep it out of
                   weight decay). layer: the layer. temperature: the lower, the closer z is to 0 or 1, and the noisier the
                   gradient. weight_regularizer, dropout_regularizer: for a mean loss over N training examples and a prior
                   of length scale l on the weights,

                       cross-entropy, or any mean of -ln p(y)          l^2 / (2 N)      1 / N
                       squared error without 1/2, noise variance 1/tau l^2 / (tau N)    2 / (tau N)

                   (l = 0.01 to 1); they can be changed at any time. spatial: one draw per example and channel instead of one per
                   unit; by default for convolutions only, along their data_format. seed: whole number.
    Source:        Gal, Hron and Kendall 2017, arXiv:1705.07832.
    Differs from:  the authors' code: it is deterministic at inference, like other dropout; the losses are those of the current
                   weights in each call (Keras 3 forgets losses that are added when building); and data_format is obeyed. The
                   mask is biased where rate is not 1/2: at temperature 0.1 its mean at rate 0.1 is 0.8988 instead of 0.9, at
                   2/3, the authors' choice for images, 0.8547.

    >>> layer = ConcreteDropout(0.1, keras.layers.Dense(3), seed=0)
    >>> y = layer(np.ones((2, 4), "float32"), training=True)
    >>> layer.rate, len(layer.losses), [tuple(w.shape) for w in layer.weights]
    (0.1, 1, [(), (4, 3), (3,)])
    """

    in_config = ("temperature", "spatial")
    weight_regularizer = Number("l^2 / (2 N) for a mean cross-entropy over N examples; 0 switches it off.", least=0)
    dropout_regularizer = Number("1 / N for a mean cross-entropy over N examples; 0 switches it off.", least=0)

    def __init__(
        self,
        rate: float,
        layer: keras.Layer,
        *,
        temperature: float = 0.1,
        weight_regularizer: float = 1e-6,
        dropout_regularizer: float = 1e-5,
        spatial: bool | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        regularizers = {"weight_regularizer": weight_regularizer, "dropout_regularizer": dropout_regularizer}
        super().__init__(rate, layer, seed, regularizers, **kwargs)
        self.temperature = check_positive("ConcreteDropout: temperature", temperature, "The authors use 0.1.")
        self.spatial = None if spatial is None else check_flag("ConcreteDropout: spatial", spatial)

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("ConcreteDropout", inputs)
        channels = 1 if getattr(self.layer, "data_format", "") == "channels_first" else len(inputs.shape) - 1
        self.add_loss(self._loss(inputs.shape[channels]))
        if training:
            shape = tuple(ops.shape(inputs))
            if hasattr(self.layer, "kernel_size") if self.spatial is None else self.spatial:
                shape = tuple(n if axis in (0, channels) else 1 for axis, n in enumerate(shape))
            logit = ops.convert_to_tensor(self.logit)
            kept = ops.sigmoid(-(logit + noise.logistic(self.stream.next(), shape)) / self.temperature)
            inputs = inputs * ops.cast(kept / ops.sigmoid(-logit), inputs.dtype)
        return self.call_layer(inputs, training)

    def _loss(self, features: int) -> Any:
        logit, state = ops.convert_to_tensor(self.logit), self.state
        rate, rest = ops.sigmoid(logit), ops.sigmoid(-logit)
        negative_entropy = rate * ops.log_sigmoid(logit) + rest * ops.log_sigmoid(-logit)
        weights = ops.cast(ops.sum(ops.square(self.kernel())), "float32") / rest
        return state.weight_regularizer * weights + state.dropout_regularizer * features * negative_entropy


@keras.saving.register_keras_serializable("keras_dropout")
class VariationalDropout(_OnSum, _LearnedRate):
    """Gaussian dropout around a Dense layer whose rates are learned, by variational inference.

        W_ij ~ N(w_ij, a_ij w_ij^2),    a = rate / (1 - rate),    anew for each example
        loss += kl_weight * sum(-(ln(a) / 2 + 1.16145124 a - 1.50204118 a^2 + 0.58629921 a^3))

    Shapes:        those of the layer.
    Inference:     y = layer(x), with the mean weights.
    Arguments:     rate: the initial rate, in (0, 0.5]; then the mean of the learned rates. layer: a Dense layer. noise: "weights",
                   independent for each weight, drawn on the sums (two products instead of one; type A in the paper), or
                   "inputs", one factor per input unit, so that the outputs' noise is correlated (type B). per: one rate for the
                   "layer", for each input "unit", or, with noise on the weights, for each "weight". kl_weight: 1 / N for a mean
                   loss over N training examples; can be changed at any time, as to rise from 0 at first. seed: whole number.
    Source:        Kingma, Salimans and Welling 2015, arXiv:1506.02557.
    Differs from:  Edward2's DenseVariationalDropout, which is SparseVariationalDropout. The sum is over the random quantities: all
                   weights with noise on the weights, the input units with noise on the inputs. It leaves out the
                   divergence's unknown constant, so it may be below 0. The polynomial is accurate to 0.04 for a <= 1
                   and rewards noise without limit beyond: rates stay at 0.5 or less.

    >>> layer = VariationalDropout(0.2, keras.layers.Dense(3), per="unit", kl_weight=1e-3, seed=0)
    >>> y = layer(np.ones((2, 4), "float32"), training=True)
    >>> layer.rate, [tuple(w.shape) for w in layer.weights]
    (0.2, [(4,), (4, 3), (3,)])
    """

    in_config = ("noise", "per")
    kinds = (keras.layers.Dense,)
    highest = 0.5
    kl_weight = Number(_KL_WEIGHT, least=0)

    def __init__(
        self,
        rate: float,
        layer: keras.Layer,
        *,
        noise: str = "weights",
        per: str = "layer",
        kl_weight: float,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, layer, seed, {"kl_weight": kl_weight}, **kwargs)
        self.noise = check_choice("noise for VariationalDropout", noise, ("weights", "inputs"))
        choices = ("layer", "unit", "weight") if noise == "weights" else ("layer", "unit")
        self.per = check_choice(f"per for VariationalDropout with noise on the {noise}", per, choices)

    @staticmethod
    def constraint(logit: Any) -> Any:
        return ops.minimum(logit, 0)

    def logit_shape(self) -> tuple:
        return {"layer": (), "unit": (self.layer.kernel.shape[0],), "weight": tuple(self.layer.kernel.shape)}[self.per]

    def call(self, inputs: Any, training: bool = False) -> Any:
        inputs, kernel = self.inputs(inputs), self.kernel()
        logit = ops.convert_to_tensor(self.logit)
        # An optimiser other than Keras's does not know the constraint. At 0 itself the gradient is that from inside the bound.
        log_alpha = ops.where(logit > 0, 0.0, logit)
        self.add_loss(self.state.kl_weight * self._divergence(log_alpha))
        if not training:
            return self.call_layer(inputs, training)
        if self.noise == "weights":
            alpha = ops.cast(ops.exp(log_alpha[:, None] if self.per == "unit" else log_alpha), kernel.dtype)
            return self.activated(self.biased(self.noisy_sum(inputs, kernel, alpha * ops.square(kernel))))
        factor = 1 + ops.exp(log_alpha / 2) * noise.normal(self.stream.next(), tuple(ops.shape(inputs)))
        return self.call_layer(inputs * ops.cast(factor, inputs.dtype), training)

    def _divergence(self, log_alpha: Any) -> Any:
        alpha = ops.exp(log_alpha)
        each = -(log_alpha / 2 + alpha * (1.16145124 + alpha * (-1.50204118 + alpha * 0.58629921)))
        random = self.layer.kernel.shape if self.noise == "weights" else self.layer.kernel.shape[:1]
        return ops.mean(each) * math.prod(random)


@keras.saving.register_keras_serializable("keras_dropout")
class SparseVariationalDropout(_OnSum):
    """Learn the noise of each weight without bound, and leave out at inference the weights that are mostly noise.

        W_ij ~ N(w_ij, s_ij^2) anew for each example,    a = s^2 / w^2, log a in [-8, 8]
        loss += kl_weight * sum(0.63576 - 0.63576 sigmoid(1.87320 + 1.48695 log a) + ln(1 + 1 / a) / 2)

    Shapes:        those of the layer.
    Inference:     y = layer(x) with w_ij = 0 where log a_ij >= threshold.
    Arguments:     layer: a Dense or Conv2D layer. threshold: 3 means a rate of 0.95. kl_weight: 1 / N for a mean loss over N
                   training examples; the authors raise it from 0 to that, linearly from epoch 5 to 20, and it can be changed
                   at any time. log_variance: the initial log s^2. seed: whole number. `sparsity` is the share of weights left
                   out, and `pruned()` returns a plain layer without them.
    Source:        Molchanov, Ashukha and Vetrov 2017, arXiv:1701.05369.
    Differs from:  the authors' code: a weight of exactly 0 is allowed, and the noise uses s^2 even where log a is clipped. Unlike
                   Edward2's DenseVariationalDropout, it leaves weights out at inference. Each weight has its rate, a / (1 + a).

    >>> layer = SparseVariationalDropout(keras.layers.Dense(3), kl_weight=1e-3, log_variance=10.0, seed=0)
    >>> y = layer(np.ones((2, 4), "float32"), training=True)
    >>> layer.sparsity, float(np.abs(np.asarray(layer.pruned().kernel)).sum())
    (1.0, 0.0)
    """

    in_config = ("log_variance",)
    kl_weight = Number(_KL_WEIGHT, least=0)
    threshold = Number("It is compared with log(variance / mean^2) of a weight; the authors use 3.")

    def __init__(
        self,
        layer: keras.Layer,
        *,
        threshold: float = 3.0,
        kl_weight: float,
        log_variance: float = -10.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, seed, {"threshold": threshold, "kl_weight": kl_weight}, **kwargs)
        given: Any = log_variance
        if not isinstance(given, numbers.Real) or not math.isfinite(given):
            refuse(
                f"SparseVariationalDropout: log_variance must be a finite number; got {given!r}.",
                "It is the logarithm of the weights' initial variance; the authors use -10.",
            )
        self.log_variance = float(given)

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.log_sigma2 = self.add_numbers("log_sigma2", self.layer.kernel.shape, self.log_variance)

    @property
    def sparsity(self) -> float:
        """The share of weights that are left out at inference."""
        self.check_built("sparsity")
        return float(ops.convert_to_numpy(self._noisy(self._log_alpha())).mean())

    def pruned(self) -> keras.Layer:
        """Return a plain layer with zeros for the weights left out: its outputs are those of this layer at inference."""
        self.check_built("pruned layer")
        return self.with_kernel(self._sparse_kernel())

    def call(self, inputs: Any, training: bool = False) -> Any:
        inputs = self.inputs(inputs)
        self.add_loss(self.state.kl_weight * self._divergence())
        if not training:
            return self.call_layer(inputs, training, values=[(self.layer.kernel, self._sparse_kernel())])
        kernel = self.kernel()
        variance = ops.cast(ops.exp(ops.convert_to_tensor(self.log_sigma2)), kernel.dtype)
        return self.activated(self.biased(self.noisy_sum(inputs, kernel, variance)))

    def _log_alpha(self) -> Any:
        log_alpha = self.log_sigma2 - ops.cast(ops.log(ops.square(self.kernel()) + _EPSILON), "float32")
        return ops.clip(log_alpha, -8, 8)

    def _noisy(self, log_alpha: Any) -> Any:
        return log_alpha >= self.state.threshold

    def _sparse_kernel(self) -> Any:
        return ops.where(self._noisy(self._log_alpha()), 0.0, self.kernel())

    def _divergence(self) -> Any:
        log_alpha = self._log_alpha()
        return ops.sum(0.63576 - 0.63576 * ops.sigmoid(1.87320 + 1.48695 * log_alpha) + ops.softplus(-log_alpha) / 2)


@keras.saving.register_keras_serializable("keras_dropout")
class Standout(_OnSum):
    """Keep each unit of a layer with a probability that grows with its own weighted sum.

        y = m * f(z),    z = x W + b,    m ~ Bernoulli(pi), one draw per unit,    pi = sigmoid(alpha z + beta)

    Shapes:        those of the layer.
    Inference:     y = pi * f(z), the mean of the training outputs.
    Arguments:     layer: a Dense or Conv2D layer, with its activation f. alpha: 1 follows the weights, 0 is dropout at the rate
                   sigmoid(-beta), below 0 large sums are dropped. beta: the higher, the more is kept. Both can be changed
                   at any time. seed: whole number.
    Source:        Ba and Frey 2013, Adaptive dropout for training deep neural networks, NeurIPS 26.
    Differs from:  other dropout: kept units are not scaled, because their probabilities are part of the network. There is no
                   rate: each unit has its own, 1 - pi. No gradient goes through pi.

    >>> layer = Standout(keras.layers.Dense(2, kernel_initializer="ones"), alpha=0.0, beta=0.0, seed=0)
    >>> np.asarray(layer(np.ones((1, 3), "float32"))).tolist()
    [[1.5, 1.5]]
    """

    alpha = Number("1 follows the layer's weights, 0 ignores them.")
    beta = Number("The higher it is, the more units are kept; 0 to begin with.")

    def __init__(self, layer: keras.Layer, *, alpha: float = 1.0, beta: float = 0.0, seed: int | None = None, **kwargs: Any):
        super().__init__(layer, seed, {"alpha": alpha, "beta": beta}, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        inputs = self.inputs(inputs)
        sums = self.biased(self.sum(inputs, self.layer.kernel))
        outputs = self.activated(sums)
        logit = self.state.alpha * ops.cast(ops.stop_gradient(sums), "float32") + self.state.beta
        if not training:
            return outputs * ops.cast(ops.sigmoid(logit), outputs.dtype)
        kept = noise.kept(self.stream.next(), ops.sigmoid(-logit), tuple(ops.shape(sums)))
        return ops.where(kept, outputs, ops.zeros((), outputs.dtype))


@keras.saving.register_keras_serializable("keras_dropout")
class TargetedDropout(_OnKernel):
    """Drop weights at random, but only the smallest of them, so that they can be left out after training.

        y = layer(x) with w_ij * m_ij,    m_ij ~ Bernoulli(1 - rate) if |w_ij| is among the least of its column, else 1

    Shapes:        those of the layer, which may be any with a `kernel` whose last axis is that of the outputs.
    Inference:     y = layer(x).
    Arguments:     rate: probability in [0, 1] that a candidate is dropped. layer: the layer. targeted: share of candidates, in
                   [0, 1], rounded to whole weights of a column or whole columns; the paper's usual pair is rate 0.66, targeted
                   0.75. Can be changed at any time, as can the rate. by: "weights", the least |w| of each column, or "units",
                   the columns of least norm. seed: whole number. `pruned()` gives a plain layer with zeros for the candidates.
    Source:        Gomez et al. 2019, arXiv:1905.13678.
    Differs from:  tensor2tensor: kept candidates are not scaled by 1 / (1 - rate). The aim is a network that works without them,
                   not one that keeps its mean. A share of rate * targeted of the weights is dropped, by one mask for the
                   whole batch. Among equal weights, exactly the requested number are candidates.

    >>> layer = TargetedDropout(1.0, keras.layers.Dense(1, use_bias=False), targeted=0.5, seed=0)
    >>> layer.build((None, 4))
    >>> layer.layer.set_weights([np.array([[3.0], [-1.0], [2.0], [-4.0]], "float32")])
    >>> np.asarray(layer(np.eye(4, dtype="float32"), training=True)).ravel().tolist()
    [3.0, 0.0, 0.0, -4.0]
    """

    in_config = ("by",)
    rate = Rate()
    targeted = Rate()

    def __init__(
        self,
        rate: float,
        layer: keras.Layer,
        *,
        targeted: float = 0.5,
        by: str = "weights",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, seed, {"rate": rate, "targeted": targeted}, **kwargs)
        self.by = check_choice("by for TargetedDropout", by, ("weights", "units"))

    def pruned(self, share: float | None = None) -> keras.Layer:
        """Return a plain layer with zeros for the smallest `share` of its weights or whole units; the candidates by default."""
        self.check_built("pruned layer")
        share = self.targeted if share is None else check_rate("TargetedDropout", share, "share")
        kernel = ops.convert_to_tensor(self.layer.kernel)
        return self.with_kernel(ops.where(self._least(kernel, share), ops.zeros((), kernel.dtype), kernel))

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("TargetedDropout", inputs)
        if not training:
            return self.call_layer(inputs, training)
        kernel = ops.convert_to_tensor(self.layer.kernel)
        candidates = self._least(kernel, self.state.targeted)
        kept = noise.kept(self.stream.next(), self.state.rate, tuple(candidates.shape))
        dropped = ops.where(ops.logical_and(candidates, ops.logical_not(kept)), ops.zeros((), kernel.dtype), kernel)
        return self.call_layer(inputs, training, values=[(self.layer.kernel, dropped)])

    def _least(self, kernel: Any, share: Any) -> Any:
        """Return True for the smallest `share` of each column, or of all columns. It goes by rank, so that ties add no more."""
        sizes, shape = ops.abs(ops.reshape(kernel, (-1, kernel.shape[-1]))), tuple(kernel.shape)
        if self.by == "units":
            sizes, shape = ops.sum(ops.square(ops.cast(sizes, "float32")), axis=0)[:, None], (kernel.shape[-1],)
        ranks = ops.argsort(ops.argsort(sizes, axis=0), axis=0)
        return ops.reshape(ops.cast(ranks, "float32") < ops.round(share * sizes.shape[0]), shape)


def _logit(rate: float) -> float:
    return math.log(rate) - math.log1p(-rate)
