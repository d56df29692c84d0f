"""Layers that drop tokens: words of a vocabulary, ids of a sequence, vectors of a sequence; and noise on the vectors."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask  # they have no public names

from keras_dropout import noise
from keras_dropout.errors import check_choice, check_rate, check_whole, refuse
from keras_dropout.layers.base import LayerWrapper, MaskLayer, MaskWrapper, NoiseLayer, Number, check_floating, check_tensor

__all__ = ["EmbeddingDropout", "NEFTune", "RandomLTD", "TokenDropout", "WordDropout"]


@keras.saving.register_keras_serializable("keras_dropout")
class EmbeddingDropout(MaskWrapper):
    """Drop words of the vocabulary: wherever a dropped word occurs, its vector is 0.

        y_t = E[x_t] * m[x_t] / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per word of the vocabulary

    Shapes:        whole numbers of any shape, (batch, ...) -> (batch, ..., features).
    Inference:     y = layer(x).
    Arguments:     rate: fraction of words dropped, in [0, 1]; 0.1 in AWD-LSTM. layer: a keras.layers.Embedding. per: "batch", one
                   set of words for a whole call, or "sequence", another one for each example. seed: whole number.
    Source:        Gal and Ghahramani 2016, arXiv:1512.05287 (per sequence); Merity et al. 2017, arXiv:1708.02182 (per batch).
    Differs from:  AWD-LSTM's and fastai's layers, which make a mask of the vocabulary's size. Here a draw is a function of the
                   word's id, so the cost is that of the words that occur. The padding mask is the embedding's own.

    >>> layer = EmbeddingDropout(0.5, keras.layers.Embedding(9, 4, embeddings_initializer="ones"), seed=1)
    >>> ops.convert_to_numpy(layer(np.array([[1, 2, 3, 1], [3, 2, 1, 1]]), training=True))[..., 0].tolist()
    [[2.0, 0.0, 2.0, 2.0], [2.0, 0.0, 2.0, 2.0]]
    """

    in_config = ("per",)

    def __init__(self, rate: float, layer: keras.Layer, *, per: str = "batch", seed: int | None = None, **kwargs: Any):
        if not isinstance(layer, keras.layers.Embedding):
            refuse(
                f"EmbeddingDropout: layer must be a keras.layers.Embedding; got {layer!r}.",
                "Write the rate first, then the embedding; for vectors that come from elsewhere use TokenDropout.",
            )
        super().__init__(rate, layer, seed=seed, **kwargs)
        self.per = check_choice("per for EmbeddingDropout", per, ("batch", "sequence"))
        self.autocast = False  # as in Embedding: ids in floating point would lose their last digits

    def call(self, inputs: Any, training: bool = False) -> Any:
        vectors = self.call_layer(inputs, training)
        if not training:
            return vectors
        words = ops.cast(inputs, "int32")
        sequence = None
        if self.per == "sequence":
            sequence = ops.reshape(ops.arange(ops.shape(words)[0], dtype="int32"), (-1,) + (1,) * (len(words.shape) - 1))
        kept = noise.kept_at(self.stream.next(), self.state.rate, words, sequence)
        return noise.masked(vectors, ops.expand_dims(kept, -1), noise.scale(self.state.rate))


@keras.saving.register_keras_serializable("keras_dropout")
class WordDropout(MaskLayer):
    """Replace words by the unknown word: ids come in, ids go out.

        y_t = unknown where m_t = 0, else x_t,    m_t ~ Bernoulli(1 - rate), one draw per token; m_t = 1 if x_t is protected

    Shapes:        whole numbers of any shape and type -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of the unprotected tokens that become unknown, in [0, 1]. unknown: the id that replaces them.
                   protect: ids that stay, by default 0, the usual padding; add a sequence's start and end. seed: whole number.
    Source:        Dai and Le 2015, arXiv:1511.01432; Bowman et al. 2015, arXiv:1511.06349, for the inputs of a decoder.
    Differs from:  TokenDropout, which sets vectors to 0: here the model also learns the unknown word's vector. Not in Keras.

    >>> np.asarray(WordDropout(0.9, unknown=1, seed=0)(np.array([[5, 6, 7, 0, 0]]), training=True)).tolist()
    [[1, 1, 1, 0, 0]]
    """

    in_config = ("unknown", "protect")

    def __init__(self, rate: float, unknown: int, *, protect: Iterable[int] = (0,), seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.unknown = check_whole("WordDropout: unknown", unknown, 0, "It is the id that replaces a word.")
        if isinstance(protect, str) or not isinstance(protect, Iterable):
            refuse(f"WordDropout: protect must be a tuple of ids; got {protect!r}.", "Write (0,) for padding, () for none.")
        self.protect = tuple(check_whole("WordDropout: ids to protect", i, 0, "They are ids of the vocabulary.") for i in protect)

    def drop(self, inputs: Any, state: Any) -> Any:
        stays = noise.kept(state, self.state.rate, tuple(ops.shape(inputs)))
        for word in self.protect:
            stays = ops.logical_or(stays, ops.equal(inputs, ops.cast(word, inputs.dtype)))
        return ops.where(stays, inputs, ops.cast(self.unknown, inputs.dtype))

    def check_inputs(self, inputs: Any) -> None:
        check_tensor("WordDropout", inputs)
        kind = keras.backend.standardize_dtype(inputs.dtype)
        if "int" not in kind:
            refuse(
                f"WordDropout: inputs must be ids, whole numbers; got {kind}.",
                'Write keras.Input(shape, dtype="int32"), and put the layer in front of the embedding.',
            )
        largest = max(self.unknown, *self.protect, 0)
        if largest > np.iinfo(kind).max:
            refuse(f"WordDropout: id {largest} does not fit inputs of type {kind}.", "Give the inputs as int32.")

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        self.check_inputs(inputs)
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


@keras.saving.register_keras_serializable("keras_dropout")
class TokenDropout(MaskLayer):
    """Drop whole tokens: all of a token's vector is 0.

        y_t = x_t * m_t * scale,    m_t ~ Bernoulli(1 - rate), one draw per token
        scale = 1 / (1 - rate) for "rate",    tokens / kept tokens of the sequence for "kept",    1 for "none"

    With "kept" the mean over a sequence is the mean over its kept tokens, and at least one token is kept.

    Shapes:        (batch, tokens, features) -> the same.
    Inference:     y = x.
    Arguments:     rate: fraction of tokens dropped, in [0, 1]; 0.3 in deep averaging networks. scale: "rate", which keeps each
                   token's mean; "kept", for averages over tokens (GlobalAveragePooling1D); "none". Tokens that Keras's mask marks
                   as padding do not count. seed: whole number.
    Source:        Iyyer et al. 2015, ACL, "Deep unordered composition rivals syntactic methods" (scale "kept").
    Differs from:  deep averaging networks' code: the shape stays. SpatialDropout1D drops features, along all tokens.

    >>> y = np.asarray(TokenDropout(0.5, scale="kept", seed=1)(np.ones((1, 6, 2), "float32"), training=True))
    >>> sorted({float(v) for v in y.ravel()}), y.mean(axis=1).tolist()
    ([0.0, 2.0], [[1.0, 1.0]])
    """

    in_config = ("scale",)
    ranks = range(3, 4)
    layout = "(batch, tokens, features)"

    def __init__(self, rate: float, *, scale: str = "rate", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.scale = check_choice("scale for TokenDropout", scale, ("rate", "kept", "none"))

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        self.check_inputs(inputs)
        if not training:
            return inputs
        state, (batch, tokens, _) = self.stream.next(), ops.shape(inputs)
        if self.scale != "kept":
            return noise.bernoulli_product(inputs, state, self.state.rate, (batch, tokens, 1), scaled=self.scale == "rate")
        present = ops.ones((batch, tokens), "bool") if mask is None else ops.cast(mask, "bool")
        kept = ops.logical_and(noise.kept_in_part(state, self.state.rate, (batch, tokens), present), present)
        present, left = (ops.sum(ops.cast(each, "float32"), axis=1, keepdims=True) for each in (present, kept))
        return noise.masked(inputs, ops.expand_dims(kept, -1), ops.expand_dims(present / ops.maximum(left, 1), -1))


@keras.saving.register_keras_serializable("keras_dropout")
class RandomLTD(LayerWrapper):
    """Let random tokens pass by a layer in training: it computes only the others, and all tokens go on in their order.

        y[kept] = layer(x[kept]),    y[others] = x[others],    k of the tokens kept, each subset equally likely

    k = tokens - round(rate * tokens), at least 1, of the tokens behind the prefix, for each example a subset of its own. The layer
    sees a shorter sequence, which saves its time; unlike PatchDropout, no token is lost to the layers behind.

    Shapes:        (batch, tokens, features) -> the same, as the layer's.
    Inference:     y = layer(x).
    Arguments:     rate: fraction of tokens that pass by, in [0, 1). layer: a layer or block that keeps the shape, with its shortcut
                   inside. prefix: leading tokens that the layer always gets (a class token). seed: whole number.
    Source:        Yao et al. 2022, arXiv:2211.11586: all but the first and the last layer of a transformer.
    Differs from:  the paper by a rate that stays: there it falls to 0 over training. A layer that looks at absolute positions gets
                   those of the shorter sequence. The rate decides a shape, so a new rate needs a new layer.

    >>> layer = RandomLTD(0.5, keras.layers.Rescaling(3.0), seed=0)
    >>> y = np.asarray(layer(np.ones((1, 6, 1), "float32"), training=True))
    >>> sorted(float(v) for v in y.ravel())
    [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    """

    in_config = ("rate", "prefix")

    def __init__(self, rate: float, layer: keras.Layer, *, prefix: int = 0, seed: int | None = None, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self._rate = check_rate("RandomLTD", rate, one_is="the layer would get no token")
        self.start(seed)
        self.prefix = check_whole("RandomLTD: prefix", prefix, 0, "It is the number of leading tokens that never pass by.")

    @property
    def rate(self) -> float:
        """The fraction of tokens that pass by the layer in training."""
        return self._rate

    def call(self, inputs: Any, training: bool = False) -> Any:
        check_floating("RandomLTD", inputs)
        if len(inputs.shape) != 3 or inputs.shape[1] is None or inputs.shape[1] <= self.prefix:
            refuse(
                f"RandomLTD: inputs must be (batch, tokens, features) with a known number of tokens above the prefix of "
                f"{self.prefix}; got shape {tuple(inputs.shape)}.",
                "Give the number of tokens in the model's Input.",
            )
        if not training or self.rate == 0:
            return self._same_shape(self.call_layer(inputs, training), inputs)
        batch, free = ops.shape(inputs)[0], inputs.shape[1] - self.prefix
        order = ops.cast(ops.argsort(noise.uniform(self.stream.next(), (batch, free), inputs), axis=1), "int32")
        count = max(1, free - round(self.rate * free))
        kept, others = (ops.sort(each, axis=1) + self.prefix for each in (order[:, :count], order[:, count:]))
        first = ops.broadcast_to(ops.arange(self.prefix, dtype="int32"), (batch, self.prefix))
        kept = ops.concatenate([first, kept], axis=1)
        given, mask = _at(inputs, kept), get_keras_mask(inputs)
        if mask is not None:
            set_keras_mask(given, ops.take_along_axis(mask, kept, axis=1))
        outputs = self._same_shape(self.call_layer(given, training), given)
        outputs = ops.concatenate([outputs, ops.cast(_at(inputs, others), outputs.dtype)], axis=1)
        return _at(outputs, ops.cast(ops.argsort(ops.concatenate([kept, others], axis=1), axis=1), "int32"))

    def _same_shape(self, outputs: Any, inputs: Any) -> Any:
        if tuple(outputs.shape) != tuple(inputs.shape):
            refuse(
                f"RandomLTD: the layer must keep the shape; it makes {tuple(outputs.shape)} of {tuple(inputs.shape)}.",
                "Wrap a residual block or a layer of the same width.",
            )
        return outputs


def _at(values: Any, tokens: Any) -> Any:
    return ops.take_along_axis(values, ops.expand_dims(tokens, -1), axis=1)


@keras.saving.register_keras_serializable("keras_dropout")
class NEFTune(NoiseLayer):
    """Add uniform noise to the embeddings of a sequence in training, the less the longer the sequence.

        y = x + alpha / sqrt(tokens * features) * e,    e ~ U(-1, 1), one draw per unit

    Shapes:        (batch, tokens, features) -> the same.
    Inference:     y = x.
    Arguments:     alpha: size of the noise, whose norm over a sequence is alpha / sqrt(3) in the mean square; 5 to 15 in the paper.
                   Can be changed at any time. seed: whole number. Put it behind the embedding, before anything else. Tokens that
                   Keras's mask marks as padding do not count.
    Source:        Jain et al. 2023, arXiv:2310.05914, for the fine-tuning of language models on instructions.
    Differs from:  the usual hooks, which count padding: there the noise of an example depends on the longest one of its batch.
                   There is no rate, and nothing is dropped.

    >>> y = np.asarray(NEFTune(5.0, seed=0)(np.zeros((1, 10, 40), "float32"), training=True))
    >>> bool(0.24 < np.abs(y).max() <= 0.25), round(float(np.sqrt((y**2).sum())), 1)  # 5 / sqrt(400), 5 / sqrt(3)
    (True, 2.9)
    """

    ranks = range(3, 4)
    layout = "(batch, tokens, features)"
    alpha = Number("It is 5 to 15 in the paper; 0 adds nothing.", least=0)

    def __init__(self, alpha: float, *, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, alpha=alpha, **kwargs)

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        self.check_inputs(inputs)
        if not training:
            return inputs
        batch, tokens, features = ops.shape(inputs)
        present = ops.cast(tokens, "float32")
        if mask is not None:
            present = ops.maximum(ops.sum(ops.cast(mask, "float32"), axis=1), 1)[:, None, None]
        size = ops.convert_to_tensor(self.state.alpha) * ops.rsqrt(present * ops.cast(features, "float32"))
        draws = 2 * noise.uniform(self.stream.next(), (batch, tokens, features), inputs) - 1
        return inputs + ops.cast(size * draws, inputs.dtype)
