"""Layers that drop whole inputs of a model: conditions, modalities, fields."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_choice, check_flag, refuse
from keras_dropout.layers.base import MaskLayer, Rate, check_floating

__all__ = ["ConditionDropout", "ModalityDropout"]


class _OnInputs(MaskLayer):
    """A layer for one tensor or a list of them, each (batch, ...)."""

    def check_inputs(self, inputs: Any) -> None:
        each = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        check_floating(type(self).__name__, *each)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask


def _per_example(kept: Any, like: Any) -> Any:
    """Return decisions (batch,) in a shape that broadcasts to a tensor (batch, ...)."""
    return ops.reshape(kept, (-1,) + (1,) * (len(like.shape) - 1))


@keras.saving.register_keras_serializable("keras_dropout")
class ConditionDropout(_OnInputs):
    """Replace the condition of a generative model by a null embedding in some examples, for guidance without a classifier.

        y_i = null_i where all or the i-th is dropped, else x_i,    all ~ Bernoulli(rate),    i-th ~ Bernoulli(each), per example

    Condition i is dropped in a share rate + (1 - rate) each of the examples, and all together in rate + (1 - rate) each^k.

    Shapes:        (batch, ...), or a list of k such tensors -> the same.
    Inference:     y = x. For the unconditional prediction of guidance call `layer.unconditional(x)`.
    Arguments:     rate: fraction of examples that lose all conditions together, in [0, 1]; 0.1 to 0.2 in the paper. each: fraction
                   of the others that loses a condition alone, for each of them. null: "zeros", or "learned", one weight per
                   condition, of its shape, from 0 on. seed: whole number. A null embedding that is known, as that of an empty
                   prompt, is set by `layer.nulls[i].assign(value)`, and stays so if the layer is not `trainable`.
    Source:        Ho and Salimans 2022, arXiv:2207.12598.
    Differs from:  Dropout in that nothing is scaled, and what is dropped is a whole condition. A layer with rate 0.1 of its own on
                   each of two conditions would drop both in 1 % of the examples; one here on both drops them together in 10 %.
                   For class ids use WordDropout(rate, unknown=classes, protect=()).

    >>> text, image = np.ones((5, 2), "float32"), np.ones((5, 3), "float32")
    >>> y = ConditionDropout(0.5, seed=1)([text, image], training=True)
    >>> [np.asarray(each)[:, 0].astype(int).tolist() for each in y]
    [[0, 1, 1, 0, 1], [0, 1, 1, 0, 1]]
    """

    in_config = ("null",)
    each = Rate()

    def __init__(self, rate: float, *, each: float = 0.0, null: str = "zeros", seed: int | None = None, **kwargs: Any):
        super(MaskLayer, self).__init__(**kwargs)
        self.start(seed, rate=rate, each=each)
        self.null = check_choice("null for ConditionDropout", null, ("zeros", "learned"))
        self.nulls: list[keras.Variable] = []
        if null == "zeros":
            self._build_at_init()

    def build(self, input_shape: Any) -> None:
        shapes = input_shape if isinstance(input_shape[0], (list, tuple)) else [input_shape]
        for number, shape in enumerate(shapes if self.null == "learned" else ()):
            if None in shape[1:]:
                told = f"ConditionDropout: a learned null embedding needs a condition of fixed size; got shape {tuple(shape)}."
                refuse(told, 'Give the size in the Input of the model, or write null="zeros".')
            self.nulls.append(self.add_weight(name=f"null_{number}", shape=tuple(shape[1:]), initializer="zeros"))
        self.built = True

    def unconditional(self, inputs: Any) -> Any:
        """Return the null embedding of each condition, for all examples."""
        conditions = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        found = [ops.broadcast_to(null, ops.shape(x)) for x, null in zip(conditions, self._nulls(conditions))]
        return found if isinstance(inputs, (list, tuple)) else found[0]

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        if not training:
            return inputs
        conditions = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        state, batch = self.stream.next(), ops.shape(conditions[0])[0]
        together = noise.kept(noise.fold(state, 0), self.state.rate, (batch,), conditions[0])
        found = []
        for number, (x, null) in enumerate(zip(conditions, self._nulls(conditions)), start=1):
            alone = noise.kept(noise.fold(state, number), self.state.each, (batch,), x)
            found.append(ops.where(_per_example(ops.logical_and(together, alone), x), x, null))
        return found if isinstance(inputs, (list, tuple)) else found[0]

    def _nulls(self, conditions: Sequence) -> list:
        if self.null == "learned":
            return [ops.cast(null, x.dtype) for x, null in zip(conditions, self.nulls)]
        return [ops.zeros((), x.dtype) for x in conditions]


@keras.saving.register_keras_serializable("keras_dropout")
class ModalityDropout(_OnInputs):
    """Drop whole modalities, or fields of a table, in some examples, but never all of an example's.

        y_i = x_i m_i,    m_i ~ Bernoulli(1 - rate), per example and modality; if all would be dropped, one of them stays

    Each of k modalities is dropped in a share rate - rate^k / k of the examples.

    Shapes:        a list of k tensors (batch, ...) -> the same; or one tensor (batch, k, ...), as of k embedded fields.
    Inference:     y = x.
    Arguments:     rate: as above, in [0, 1]; 1 leaves one modality of each example. presence: whether an output (batch, k) follows,
                   1 where a modality is present and 0 where it was dropped, so that the model can tell it from a zero.
                   seed: whole number.
    Source:        Neverova et al. 2015, ModDrop, arXiv:1501.00102.
    Differs from:  the paper, which lets all modalities of an example be dropped. Nothing is scaled, as there.

    >>> sound, video = np.ones((6, 2), "float32"), np.ones((6, 3), "float32")
    >>> *y, present = ModalityDropout(0.5, presence=True, seed=0)([sound, video], training=True)
    >>> [np.asarray(each)[:, 0].astype(int).tolist() for each in y], bool((np.asarray(present).max(axis=1) == 1).all())
    ([[0, 0, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]], True)
    """

    in_config = ("presence",)

    def __init__(self, rate: float, *, presence: bool = False, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.presence = check_flag("ModalityDropout: presence", presence)

    def check_inputs(self, inputs: Any) -> None:
        super().check_inputs(inputs)
        several = isinstance(inputs, (list, tuple))
        if (several and len(inputs) < 2) or (not several and (len(inputs.shape) < 2 or inputs.shape[1] == 1)):
            given = f"a list of {len(inputs)}" if several else f"shape {tuple(inputs.shape)}"
            refuse(
                f"ModalityDropout: inputs must be two modalities or more; got {given}.",
                "Give a list of tensors, or one tensor (batch, modalities, ...); one input alone is dropped by StochasticDepth.",
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        several = isinstance(inputs, (list, tuple))
        first = inputs[0] if several else inputs
        size = (ops.shape(first)[0], len(inputs) if several else ops.shape(inputs)[1])
        kept = noise.kept_in_part(self.stream.next(), self.state.rate, size) if training else ops.ones(size, "bool")
        if several:
            found = [ops.where(_per_example(kept[:, n], x), x, ops.zeros((), x.dtype)) for n, x in enumerate(inputs)]
        else:
            found = [ops.where(ops.reshape(kept, size + (1,) * (len(inputs.shape) - 2)), inputs, ops.zeros((), inputs.dtype))]
        found += [ops.cast(kept, self.compute_dtype)] if self.presence else []
        return found if several or self.presence else found[0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        several = isinstance(input_shape[0], (list, tuple))
        shapes = [tuple(each) for each in input_shape] if several else [tuple(input_shape)]
        present = [(shapes[0][0], len(shapes) if several else shapes[0][1])] if self.presence else []
        return [*shapes, *present] if several or present else shapes[0]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        masks = list(mask) if isinstance(mask, (list, tuple)) else [mask]
        return [*masks, None] if self.presence else mask
