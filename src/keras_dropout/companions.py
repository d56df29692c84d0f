"""Dropout's companions: ways to train a model that has dropout, and a bound on its weights."""

from typing import Any

import keras
from keras import ops

from keras_dropout.errors import check_choice, check_flag, check_positive, check_whole, refuse
from keras_dropout.layers.units import Dropout

__all__ = ["MaxNorm", "MultiSampleDropout", "RDrop"]


@keras.saving.register_keras_serializable("keras_dropout")
class RDrop(keras.Model):
    """Train a model to give the same prediction under two masks.

        loss = (L1 + L2) / 2 + alpha * (KL(p1 || p2) + KL(p2 || p1)) / 2

    p1 and p2 are the predictions of two passes over the batch, each pass with its own masks. L is the compiled loss of the model.
    The divergence is averaged over the same elements as a loss, with the same sample weights and the same padding mask.

    Shapes:        those of the model, which has one output.
    Inference:     the model alone, also in evaluation. Metrics in training are those of the first pass.
    Arguments:     model: a built classifier with dropout in it. alpha: weight of the divergence, 0 or more. outputs: "classes" for
                   one distribution along the last axis (softmax), "labels" for a yes or no in each entry (sigmoid), whose
                   divergences are averaged. from_logits: whether the outputs are logits, as in Keras's losses.
    Source:        Liang et al. 2021, arXiv:2106.14448. Their alpha: 5 for translation, 0.1 to 1 for fine-tuning.
    Differs from:  the paper, which sums the two losses. Ours takes their mean, so that the loss, and with it the learning rate, is
                   that of training without RDrop. The paper's alpha is therefore twice ours. The authors' README code sums the
                   divergence over batch and classes. We make two calls, not one call with a doubled batch, so a mask that is shared
                   by a batch also differs between the passes. Batch normalisation sees both passes.

    >>> model = keras.Sequential([keras.Input((4,)), Dropout(0.5), keras.layers.Dense(3, "softmax")])
    >>> RDrop(model, alpha=0.5).predict(ops.ones((2, 4)), verbose=0).shape
    (2, 3)
    """

    def __init__(
        self, model: keras.Model, *, alpha: float = 1.0, outputs: str = "classes", from_logits: bool = False, **kwargs: Any
    ):
        if not (isinstance(model, keras.Model) and model.built):
            refuse(f"RDrop: model must be a built Keras model; got {model!r}.", "Call it once, or begin it with keras.Input.")
        super().__init__(**kwargs)
        self.model = model
        if alpha != 0:
            check_positive("RDrop: alpha", alpha, "It is the weight of the divergence; 0 leaves it out.")
        self.alpha = float(alpha)
        self.divergence = _Divergence(check_choice("outputs for RDrop", outputs, ("classes", "labels")), from_logits)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.model(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        first = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training:
            return first
        if isinstance(y_pred, (list, tuple, dict)):
            refuse(
                f"RDrop: the model must have one output; got {len(y_pred)}.", "Add a second pass in a `compute_loss` of your own."
            )
        other = self(x, training=True)
        second = super().compute_loss(x, y, other, sample_weight, training)
        return (first + second) / 2 + self.alpha * self.divergence(y_pred, other, sample_weight)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.model.compute_output_shape(input_shape)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "alpha": self.alpha,
            "outputs": self.divergence.outputs,
            "from_logits": self.divergence.from_logits,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "RDrop":
        return cls(**_with_models(config, ("model",), custom_objects))


class _Divergence(keras.losses.Loss):
    """The divergence (KL(p || q) + KL(q || p)) / 2, reduced, weighted and masked like Keras's losses."""

    def __init__(self, outputs: str, from_logits: bool):
        super().__init__(name="divergence")
        self.outputs, self.from_logits = outputs, check_flag("from_logits", from_logits)

    def call(self, p: Any, q: Any) -> Any:
        if self.outputs == "classes" and p.shape[-1] == 1:
            refuse(
                "RDrop: a distribution needs two classes or more along the last axis; got 1 output.",
                'For a sigmoid write outputs="labels".',
            )
        p, log_p = self._with_logarithm(p)
        q, log_q = self._with_logarithm(q)
        each = (p - q) * (log_p - log_q) / 2
        return ops.sum(each, axis=-1) if self.outputs == "classes" else ops.mean(each, axis=-1)

    def _with_logarithm(self, outputs: Any) -> tuple[Any, Any]:
        """Return probabilities and their logarithms; for a yes or no, the log odds, which join the terms of p and 1 - p."""
        if self.outputs == "classes":
            if self.from_logits:
                return ops.softmax(outputs), ops.log_softmax(outputs)
            return outputs, ops.log(ops.maximum(outputs, keras.config.epsilon()))
        if self.from_logits:
            return ops.sigmoid(outputs), outputs
        inside = ops.clip(outputs, keras.config.epsilon(), 1 - keras.config.epsilon())
        return outputs, ops.log(inside) - ops.log1p(-inside)


@keras.saving.register_keras_serializable("keras_dropout")
class MultiSampleDropout(keras.Model):
    """Train the head of a model on several masks of the same features, and average the losses.

        loss = 1/samples * sum_k L(y, head(m_k f / (1 - rate))),    f = trunk(x), computed once,    m_k ~ Bernoulli(1 - rate)

    Shapes:        those of head(trunk(x)). In training (samples * batch, ...): all examples under the first mask, then under the
                   second, and so on. Targets and sample weights are repeated to match, for the losses and for the metrics.
    Inference:     y = head(trunk(x)), once and without dropout.
    Arguments:     rate, seed: as in Dropout. trunk, head: layers or models. samples: number of masks, 8 in the paper.
    Source:        Inoue 2019, arXiv:1905.09788.
    Differs from:  much published code, which averages the logits: a different, weaker method. With one sample it equals Dropout
                   between trunk and head, with the same masks. A loss with the reduction "sum" also sums over the samples.

    >>> model = MultiSampleDropout(0.5, keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax"), samples=4)
    >>> tuple(model(ops.ones((2, 5))).shape), tuple(model(ops.ones((2, 5)), training=True).shape)
    ((2, 3), (8, 3))
    """

    def __init__(
        self, rate: float, trunk: keras.Layer, head: keras.Layer, *, samples: int = 8, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        for name, part in (("trunk", trunk), ("head", head)):
            if not isinstance(part, keras.Layer):
                refuse(f"MultiSampleDropout: {name} must be a Keras layer or model; got {part!r}.", "The rate comes first.")
        self.samples = check_whole("MultiSampleDropout: samples", samples, 1, "It is the number of masks; 8 in the paper.")
        self.trunk, self.head = trunk, head
        self.repeat = _Repeat(self.samples)
        self.dropout = Dropout(rate, seed=seed)
        self.built = trunk.built and head.built

    @property
    def rate(self) -> float:
        """The fraction of features dropped; setting it takes effect at the next step."""
        return self.dropout.rate

    @rate.setter
    def rate(self, value: float) -> None:
        self.dropout.rate = value

    def build(self, input_shape: Any) -> None:
        if not self.trunk.built:
            self.trunk.build(input_shape)
        if not self.head.built:
            self.head.build(self.trunk.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool = False) -> Any:
        features = self.trunk(inputs, training=training)
        if training:
            features = self.dropout(self.repeat(features), training=True)
        return self.head(features, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return super().compute_loss(x, _repeated(y, y_pred), y_pred, _repeated(sample_weight, y_pred), training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return super().compute_metrics(x, _repeated(y, y_pred), y_pred, _repeated(sample_weight, y_pred))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.head.compute_output_shape(self.trunk.compute_output_shape(input_shape))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "rate": self.rate,
            "trunk": keras.saving.serialize_keras_object(self.trunk),
            "head": keras.saving.serialize_keras_object(self.head),
            "samples": self.samples,
            "seed": self.dropout.seed,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "MultiSampleDropout":
        return cls(**_with_models(config, ("trunk", "head"), custom_objects))


class _Repeat(keras.Layer):
    """A layer that repeats a batch and its padding mask along the first axis."""

    def __init__(self, times: int):
        super().__init__()
        self.times, self.supports_masking = times, True

    def call(self, inputs: Any) -> Any:
        return ops.concatenate([inputs] * self.times, axis=0)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None if mask is None else self.call(mask)


def _repeated(values: Any, y_pred: Any) -> Any:
    """Repeat the targets or weights of a batch as often as the predictions repeat it; at inference that is once."""
    rows = ops.shape(keras.tree.flatten(y_pred)[0])[0]

    def follow(each: Any) -> Any:
        size = ops.shape(each)[0]
        same = isinstance(size, int) and isinstance(rows, int) and size == rows
        return each if same else ops.take(each, ops.arange(rows) % size, axis=0)

    return keras.tree.map_structure(lambda each: None if each is None else follow(each), values)


@keras.saving.register_keras_serializable("keras_dropout")
class MaxNorm(keras.constraints.Constraint):
    """Bound the norm of each unit's incoming weights, the usual companion of dropout.

        w <- w * min(1, limit / |w|),    |w| over all weights of one unit, or of one filter of a convolution

    Use:           keras.layers.Dense(100, kernel_constraint=MaxNorm(3.0)); Keras applies it after each step of the optimiser. It
                   allows a large learning rate with dropout; without it, such a rate would make the weights explode.
    Arguments:     limit: largest norm, above 0; 3 to 4 in the paper. units: axis or axes of the kernel that index the units: -1 for
                   Dense and convolutions, -2 for transposed ones, (-2, -1) for depthwise ones and the projections of attention.
    Source:        Srivastava et al. 2014, JMLR 15:1929-1958, after Srebro and Shraibman 2005.
    Differs from:  keras.constraints.MaxNorm, whose default takes the norm over axis 0 alone, for a convolution over the rows of the
                   kernel: filters can keep several times the limit. Weights within the limit stay the same, bit for bit.

    >>> kernel = MaxNorm(3.0)(ops.ones((3, 3, 4, 2)))
    >>> [round(float(norm), 5) for norm in ops.sqrt(ops.sum(kernel**2, axis=(0, 1, 2)))]
    [3.0, 3.0]
    """

    def __init__(self, limit: float = 3.0, *, units: int | tuple[int, ...] = -1):
        self.limit = check_positive("MaxNorm: limit", limit, "It is the largest norm of a unit's incoming weights.")
        self.units = tuple(units) if isinstance(units, (list, tuple)) else (units,)
        if not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in self.units) or not self.units:
            refuse(f"MaxNorm: units must be an axis or several; got {units!r}.", "It is -1 for Dense and convolutions.")

    def __call__(self, w: Any) -> Any:
        w = ops.convert_to_tensor(w)
        real = ops.cast(w, keras.backend.result_type(w.dtype, "float32"))
        units = {axis % len(w.shape) for axis in self.units}
        incoming = tuple(axis for axis in range(len(w.shape)) if axis not in units)
        norm = ops.sqrt(ops.sum(ops.square(real), axis=incoming, keepdims=True))
        return ops.cast(real * (self.limit / ops.maximum(norm, self.limit)), w.dtype)

    def get_config(self) -> dict:
        return {"limit": self.limit, "units": list(self.units)}


def _with_models(config: dict, names: tuple[str, ...], custom_objects: dict | None) -> dict:
    models = {name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects) for name in names}
    return {**config, **models}
