"""Wrappers around keras.layers.MultiHeadAttention that drop parts of the attention: weights, keys, heads."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import refuse
from keras_dropout.layers.base import MaskWrapper, check_floating

__all__ = ["AttentionDropout", "DropHead", "DropKey"]


class _AttentionWrapper(MaskWrapper):
    """A multi-head attention whose heads a subclass computes in training, by `heads`, between the layer's own projections.

    At inference the layer itself is called. Its dropout must be 0, because Keras otherwise turns fused attention off there too.
    """

    def __init__(self, rate: float, layer: keras.Layer, *, seed: int | None = None, **kwargs: Any):
        name = type(self).__name__
        if type(layer) is not keras.layers.MultiHeadAttention:  # a subclass may compute something else
            refuse(
                f"{name}: layer must be a keras.layers.MultiHeadAttention itself; got {layer!r}.",
                "Write the rate first, then the layer.",
            )
        config = layer.get_config()
        if config["dropout"]:
            refuse(
                f"{name}: the layer has a dropout of its own, {config['dropout']}.",
                "Make it with dropout=0, which keeps the fused attention on at inference, and give the rate here.",
            )
        if tuple(config["attention_axes"] or (1,)) != (1,):
            refuse(f"{name}: attention_axes must be (1,); got {config['attention_axes']}.", "Reshape to (batch, tokens, features).")
        if config.get("use_gate"):
            refuse(f"{name}: a layer with use_gate=True cannot be wrapped.", "Make it without the gate.")
        super().__init__(rate, layer, seed=seed, **kwargs)
        self._window = config.get("sliding_window")

    def heads(self, query: Any, key: Any, value: Any, allowed: Any, state: Any, wanted: bool) -> tuple[Any, Any]:
        """Return (batch, queries, heads, features) in training, and the attention scores before dropping if `wanted`."""
        raise NotImplementedError

    def __call__(self, query: Any, value: Any = None, *rest: Any, **options: Any) -> Any:
        # Here, not in `call`: Keras looks for the padding masks of the arguments that `call` gets.
        return super().__call__(query, query if value is None else value, *rest, **options)

    def build(self, query_shape: tuple, value_shape: tuple | None = None, key_shape: tuple | None = None) -> None:
        if len(query_shape) != 3:
            refuse(
                f"{type(self).__name__}: the query must have rank 3, (batch, tokens, features); got shape {tuple(query_shape)}.",
                "Reshape it.",
            )
        if not self.layer.built:
            self.layer.build(query_shape, value_shape or query_shape, key_shape)
            self.layer.built = True

    def call(
        self,
        query: Any,
        value: Any = None,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        value = query if value is None else value
        check_floating(type(self).__name__, query, value, key)
        allowed = _join(attention_mask, query_mask, value_mask, key_mask)
        if not (query_mask is None and value_mask is None and key_mask is None):
            # Keras's layer removes the padding masks from the tensors it gets. Give it copies: the caller's tensors keep theirs.
            query, value, key = (each if each is None else ops.copy(each) for each in (query, value, key))
        if not training:
            return self.layer(
                query,
                value,
                key=key,
                attention_mask=allowed,
                return_attention_scores=return_attention_scores,
                training=False,
                use_causal_mask=use_causal_mask,
            )
        near = self._near(ops.shape(query)[1], ops.shape(value)[1], use_causal_mask)
        if near is not None:
            allowed = near if allowed is None else ops.logical_and(allowed, near)
        heads, scores = self.heads(
            self.layer.query_dense(query),
            self.layer.key_dense(value if key is None else key),
            self.layer.value_dense(value),
            allowed,
            self.stream.next(),
            return_attention_scores,
        )
        outputs = self.layer.output_dense(heads)
        return (outputs, scores) if return_attention_scores else outputs

    def logits(self, query: Any, key: Any, allowed: Any) -> Any:
        """Return the inputs of the softmax, in float32 or better; entries that are not allowed get the dtype's lowest number."""
        query = query * ops.cast(1 / math.sqrt(self.layer.key_dim), query.dtype)
        logits = ops.einsum("btnf,bsnf->bnts", query, key)
        logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
        return logits if allowed is None else ops.where(allowed, logits, _lowest(logits))

    def _near(self, queries: int, keys: int, causal: bool) -> Any:
        """Return which keys each query may see by their distance; None if the distance does not matter."""
        if not causal and self._window is None:
            return None
        distance = ops.expand_dims(ops.arange(queries, dtype="int32"), 1) - ops.arange(keys, dtype="int32")
        near = distance >= 0 if causal else None
        if self._window is not None:
            window = ops.abs(distance) < self._window
            near = window if near is None else ops.logical_and(near, window)
        return ops.expand_dims(near, (0, 1))

    def compute_output_shape(self, query_shape: tuple, value_shape: tuple | None = None, key_shape: tuple | None = None) -> tuple:
        return self.layer.compute_output_shape(query_shape, value_shape or query_shape, key_shape)

    def compute_output_spec(
        self, query: Any, value: Any, key: Any = None, *_: Any, return_attention_scores: bool = False, **__: Any
    ) -> Any:
        check_floating(type(self).__name__, query, value, key)
        outputs = self.layer.compute_output_spec(query, value, key)
        if not return_attention_scores:
            return outputs
        shape = (query.shape[0], self.layer.num_heads, query.shape[1], value.shape[1])
        return outputs, keras.KerasTensor(shape, dtype=outputs.dtype)


_CALL = """Shapes:        (batch, tokens, features) -> the same, or with the layer's output_shape. Called as the layer is: (query,
                   value, key, attention_mask, return_attention_scores, use_causal_mask); the value is the query if left out.
    Inference:     y = layer(query, value, ...), with the fused attention where Keras has one. Returned scores are those before
                   dropping, in training too."""


@keras.saving.register_keras_serializable("keras_dropout")
class AttentionDropout(_AttentionWrapper):
    __doc__ = f"""Drop attention weights at random in training, and scale the others up so that their mean is kept.

        y = W_o [(m * softmax(q k / sqrt(d)) / (1 - rate)) v],    m ~ Bernoulli(1 - rate), per example, head, query and key

    {_CALL}
    Arguments:     rate: fraction of weights dropped, in [0, 1]; 0.1 in the paper. layer: a keras.layers.MultiHeadAttention with
                   dropout=0, for inputs of rank 3 and without a gate. seed: whole number.
    Source:        Vaswani et al. 2017, arXiv:1706.03762.
    Differs from:  MultiHeadAttention(dropout=rate) as Dropout differs from Keras's, and by keeping fused attention on at inference.
                   The weights of a query sum to 1 only on average. Flax shares the mask over batch and heads.

    >>> layer = AttentionDropout(0.1, keras.layers.MultiHeadAttention(num_heads=2, key_dim=4), seed=0)
    >>> tuple(layer(np.ones((3, 5, 8), "float32"), training=True, use_causal_mask=True).shape)
    (3, 5, 8)
    """

    def heads(self, query: Any, key: Any, value: Any, allowed: Any, state: Any, wanted: bool) -> tuple[Any, Any]:
        scores = _softmax(self.logits(query, key, allowed), allowed, wanted, value.dtype)
        return _mean(noise.bernoulli_product(scores, state, self.state.rate, tuple(ops.shape(scores))), value), scores


@keras.saving.register_keras_serializable("keras_dropout")
class DropKey(_AttentionWrapper):
    __doc__ = f"""Hide random keys from each query in training, before the softmax, so that the other keys share the weight.

        y = W_o [softmax(q k / sqrt(d) + b) v],    b = lowest number with probability rate, else 0, per example, head, query and key

    If all keys of a query that its mask allows would be hidden, one of them stays.

    {_CALL}
    Arguments:     rate: fraction of keys hidden, in [0, 1]; at 1 one key is left for each query. In the paper it falls with depth.
                   layer, seed: as in AttentionDropout.
    Source:        Li et al. 2022, arXiv:2208.02646.
    Differs from:  AttentionDropout: the weights of a query always sum to 1, and the mean is not kept. Common published code adds
                   -1e12, which overflows in float16 and gives equal weights where all keys are hidden.

    >>> layer = DropKey(0.9, keras.layers.MultiHeadAttention(num_heads=2, key_dim=4), seed=0)
    >>> y = layer(np.ones((3, 5, 8), "float32"), training=True)
    >>> bool(np.isfinite(ops.convert_to_numpy(y)).all())
    True
    """

    def heads(self, query: Any, key: Any, value: Any, allowed: Any, state: Any, wanted: bool) -> tuple[Any, Any]:
        logits = self.logits(query, key, allowed)
        kept = noise.kept_in_part(state, self.state.rate, tuple(ops.shape(logits)), allowed)
        # A sum, not a selection: its derivative is 1, so that backward does not need the mask; hidden keys have weight 0 there.
        hidden = logits + ops.where(kept, ops.zeros((), logits.dtype), _lowest(logits))
        scores = _softmax(logits, allowed, wanted, value.dtype) if wanted else None
        return _mean(_softmax(hidden, allowed, wanted, value.dtype), value), scores


@keras.saving.register_keras_serializable("keras_dropout")
class DropHead(_AttentionWrapper):
    __doc__ = f"""Drop whole attention heads at random in training, and scale the others by heads / kept heads.

        y = W_o [head_h * m_h * heads / sum(m)],    m ~ Bernoulli(1 - rate), one draw per example and head

    If all heads of an example would be dropped, one of them stays.

    {_CALL}
    Arguments:     rate: fraction of heads dropped, in [0, 1]; 0.2 to 0.3 in the paper. layer, seed: as in AttentionDropout.
    Source:        Zhou et al. 2020, arXiv:2004.13342, whose rate falls to 0 and rises again in training.
    Differs from:  scaling by 1 / (1 - rate): the factors of an example sum exactly to the number of heads. The mean is kept even
                   where a head is forced to stay. Common published code gives nan where no head is left. Training uses fused
                   attention too, unless the scores are requested.

    >>> layer = DropHead(0.5, keras.layers.MultiHeadAttention(num_heads=2, key_dim=4), seed=0)
    >>> tuple(layer(np.ones((3, 5, 8), "float32"), training=True).shape)
    (3, 5, 8)
    """

    def heads(self, query: Any, key: Any, value: Any, allowed: Any, state: Any, wanted: bool) -> tuple[Any, Any]:
        scores = None
        if wanted:
            scores = _softmax(self.logits(query, key, allowed), allowed, wanted, value.dtype)
            heads = _mean(scores, value)
        else:
            scale = 1 / math.sqrt(self.layer.key_dim)
            flash = keras.config.is_flash_attention_enabled()
            heads = ops.dot_product_attention(query, key, value, mask=allowed, scale=scale, flash_attention=flash)
        batch, _, number, _ = ops.shape(heads)
        kept = noise.kept_in_part(state, self.state.rate, (batch, number))
        factor = number / ops.sum(ops.cast(kept, "float32"), axis=1)
        return noise.masked(heads, ops.reshape(kept, (-1, 1, number, 1)), ops.reshape(factor, (-1, 1, 1, 1))), scores


def _join(attention_mask: Any, query_mask: Any, value_mask: Any, key_mask: Any) -> Any:
    """Join all masks into one of rank 4, (batch, heads, queries, keys) with 1 where an axis is shared, or return None.

    Keras's layer adds padding masks to an attention mask of rank 4 with the batch on the axis of the heads.
    """
    joined = None
    if attention_mask is not None:
        missing = tuple(range(4 - len(attention_mask.shape)))
        joined = ops.expand_dims(ops.cast(attention_mask, "bool"), missing if len(missing) != 1 else 1)
    for mask, axes in ((query_mask, (1, 3)), (value_mask, (1, 2)), (key_mask, (1, 2))):
        if mask is not None:
            mask = ops.expand_dims(ops.cast(mask, "bool"), axes)
            joined = mask if joined is None else ops.logical_and(joined, mask)
    return joined


def _lowest(x: Any) -> float:
    return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).min)


def _softmax(logits: Any, allowed: Any, wanted: bool, dtype: Any) -> Any:
    weights = ops.softmax(logits, axis=-1)
    if wanted and allowed is not None:
        # For a query without any key, Keras uses equal weights but returns zeros: do the same in training.
        weights = ops.where(allowed, weights, ops.zeros((), weights.dtype))
    return ops.cast(weights, dtype)


def _mean(weights: Any, value: Any) -> Any:
    return ops.einsum("bnts,bsnf->btnf", weights, value)
