"""What drops parts of the attention, against attention written out in numpy, on the backend of this process."""

import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import AttentionDropout, BadInput, DropHead, DropKey

LAYERS = (AttentionDropout, DropKey, DropHead)
BATCH, QUERIES, KEYS, FEATURES, HEADS, WIDTH = 6, 5, 7, 4, 3, 2
RANDOM = np.random.default_rng(0)
QUERY, VALUE, KEY = (RANDOM.normal(size=(BATCH, n, FEATURES)).astype("float32") for n in (QUERIES, KEYS, KEYS))
LENGTHS = np.array([7, 5, 3, 1, 2, 0])  # the last example is nothing but padding
PRESENT = np.arange(KEYS) < LENGTHS[:, None]
ASKED = np.arange(QUERIES) < np.minimum(LENGTHS, 4)[:, None]
FREE = RANDOM.random((BATCH, QUERIES, KEYS)) < 0.7
BY_HEAD = RANDOM.random((BATCH, HEADS, QUERIES, KEYS)) < 0.7
OPTIONS = {
    "plain": {},
    "key": {"key": KEY},
    "causal": {"use_causal_mask": True},
    "padding": {"value_mask": PRESENT},
    "padding of both": {"value_mask": PRESENT, "query_mask": ASKED},
    "padding of the query": {"query_mask": ASKED},
    "padding of the key": {"key": KEY, "key_mask": PRESENT, "use_causal_mask": True},
    "mask for all": {"attention_mask": FREE[0]},
    "mask by head": {"attention_mask": BY_HEAD, "value_mask": PRESENT, "query_mask": ASKED},
    "mask in numbers": {"attention_mask": FREE.astype("int32"), "value_mask": PRESENT, "use_causal_mask": True},
}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
layers = pytest.mark.parametrize("cls", LAYERS)


def numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def tensors(arguments):
    return {name: ops.convert_to_tensor(x) if isinstance(x, np.ndarray) else x for name, x in arguments.items()}


def attention(heads=HEADS, **arguments):
    noisy = keras.initializers.RandomNormal(stddev=0.7, seed=5)
    return keras.layers.MultiHeadAttention(heads, WIDTH, bias_initializer=noisy, **arguments)


def call(layer, query=QUERY, value=VALUE, training=True, **arguments):
    return layer(ops.convert_to_tensor(query), ops.convert_to_tensor(value), training=training, **tensors(arguments))


def allowed(queries, keys, attention_mask=None, query_mask=None, value_mask=None, key_mask=None, use_causal_mask=False, **_):
    """All masks in one, (batch, heads, queries, keys)."""
    joined = np.ones((BATCH, HEADS, queries, keys), bool)
    if attention_mask is not None:
        shape = attention_mask.shape
        joined &= attention_mask.astype(bool).reshape({2: (1, 1, *shape), 3: (shape[0], 1, *shape[1:])}.get(len(shape), shape))
    if query_mask is not None:
        joined &= query_mask[:, None, :, None]
    for mask in (value_mask, key_mask):
        if mask is not None:
            joined &= mask[:, None, None, :]
    return joined & np.tril(np.ones((queries, keys), bool)) if use_causal_mask else joined


def projected(layer, query, value, key):
    dense = (layer.query_dense, layer.key_dense, layer.value_dense)
    weights = [[numpy(w) for w in each.weights] for each in dense]
    return [np.einsum("btf,fnh->bnth", x, w) + b[:, None] for x, (w, b) in zip((query, key, value), weights)]


def softmax(logits, free):
    """Over what is free; 0 elsewhere, and nan where nothing is."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True)) * free
    with np.errstate(invalid="ignore"):
        return raised / raised.sum(axis=-1, keepdims=True)


def used_weights(cls, rate, seed=3, batch=BATCH, queries=QUERIES, keys=KEYS, heads=HEADS, scores=True, **arguments):
    """What values are weighted with in training: a layer that shows it, by values and projections that are identities.

    (batch, heads, queries, keys) of weights after and before dropping. The same seed and sizes give any layer the same mask.
    """
    show = keras.layers.MultiHeadAttention(heads, keys, output_shape=heads * keys, use_bias=False)
    layer = cls(rate, show, seed=seed)
    layer.build((batch, queries, FEATURES), (batch, keys, keys), (batch, keys, FEATURES))
    show.value_dense.kernel.assign(np.eye(keys)[:, None].repeat(heads, 1))
    show.output_dense.kernel.assign(np.eye(heads * keys).reshape(heads, keys, heads * keys))
    random = np.random.default_rng(1)
    query, key = (random.normal(size=(batch, n, FEATURES)).astype("float32") for n in (queries, keys))
    arguments = {"key": key, **arguments}
    value = np.eye(keys, dtype="float32")[None].repeat(batch, 0)
    found, before = call(layer, query, value, return_attention_scores=True, **arguments)
    if not scores:
        found = layer.__class__(rate, show, seed=seed)(query, value, training=True, **tensors(arguments))
    return numpy(found).reshape(batch, queries, heads, keys).transpose(0, 2, 1, 3), numpy(before)


# the arithmetic


@options
def test_attention_dropout_is_the_formula_with_its_mask(options):
    """The mask is seen at a layer whose values are an identity, without masks; another layer of its seed must use the same."""
    used, before = used_weights(AttentionDropout, 0.4)
    m = used / before
    np.testing.assert_allclose(np.unique(m.round(3)), [0, 1.667])
    layer = AttentionDropout(0.4, attention(), seed=3)
    found, scores = call(layer, return_attention_scores=True, **options)
    q, k, v = projected(layer.layer, QUERY, VALUE, options.get("key", VALUE))
    free = allowed(QUERIES, KEYS, **options)
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(WIDTH), free)
    some = free.any(axis=-1, keepdims=True)
    weights = np.where(some, weights, 0)
    np.testing.assert_allclose(numpy(scores), weights, rtol=1e-4, atol=1e-6)
    wo, bo = (numpy(w) for w in layer.layer.output_dense.weights)
    np.testing.assert_allclose(numpy(found), np.einsum("bnth,nhf->btf", m * weights @ v, wo) + bo, rtol=1e-4, atol=1e-5)


@options
def test_drop_key_is_the_softmax_over_the_keys_left(options):
    arguments = {name: x for name, x in options.items() if name != "key"}
    used, before = used_weights(DropKey, 0.6, **arguments)
    free = allowed(QUERIES, KEYS, **options)
    some = free.any(axis=-1)
    kept = (used != 0) & free
    assert kept[some].any(axis=-1).all(), "a query has no key left"
    assert (used[some] != 0)[~free[some]].sum() == 0, "a key that the mask forbids is used"
    np.testing.assert_allclose(used[some].sum(axis=-1), 1, rtol=1e-5)
    with np.errstate(invalid="ignore"):
        renormalised = before * kept / (before * kept).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(used[some], renormalised[some], rtol=1e-4, atol=1e-7)
    assert (kept < free).any()


@options
@pytest.mark.parametrize("scores", [True, False], ids=["scores", "fused"])
def test_drop_head_scales_the_heads_left_by_their_share(options, scores):
    arguments = {name: x for name, x in options.items() if name != "key"}
    used, before = used_weights(DropHead, 0.5, scores=scores, **arguments)
    some = allowed(QUERIES, KEYS, **options).any(axis=(1, 2, 3))
    factor = used[some].sum(axis=(2, 3)) / before[some].sum(axis=(2, 3)) if scores else used[some, :, 0].sum(axis=-1)
    np.testing.assert_allclose(factor.sum(axis=1), HEADS, rtol=1e-5)
    kept = factor > 0
    np.testing.assert_allclose(factor, kept * HEADS / kept.sum(axis=1, keepdims=True), rtol=1e-5)
    rows = allowed(QUERIES, KEYS, **options).any(axis=-1)[some]
    np.testing.assert_allclose(used[some][rows], (before[some] * factor[..., None, None])[rows], rtol=1e-4, atol=1e-6)


# the draws


def independent(kept, rate, axes):
    """Neighbours along each axis agree as independent draws do."""
    chance = rate**2 + (1 - rate) ** 2
    for axis in axes:
        ahead, behind = (kept.take(range(*ends), axis) for ends in ((1, kept.shape[axis]), (0, kept.shape[axis] - 1)))
        assert abs((ahead == behind).mean() - chance) < 5 * 0.5 / np.sqrt(ahead.size), f"draws go together along axis {axis}"


def test_each_weight_has_a_draw_of_its_own():
    used, _ = used_weights(AttentionDropout, 0.3, batch=8, queries=16, keys=16, heads=4)
    assert abs((used == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / used.size)
    independent(used != 0, 0.3, range(4))
    # In the mean the weights of a query sum to 1.
    sums = used.sum(axis=-1)
    assert abs(sums.mean() - 1) < 5 * sums.std() / np.sqrt(sums.size)
    assert sums.std() > 0.05


def test_each_key_of_each_query_has_a_draw_of_its_own():
    used, _ = used_weights(DropKey, 0.3, batch=8, queries=16, keys=16, heads=4)
    assert abs((used == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / used.size)
    independent(used != 0, 0.3, range(4))


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0])
def test_of_few_keys_one_stays_and_none_more_often(rate):
    """n (1 - rate) + rate**n keys are left on average, and which one is forced to stay is a matter of chance."""
    keys = 3
    used, _ = used_weights(DropKey, rate, batch=16, queries=10, keys=keys, heads=5)
    kept = used != 0
    rows = kept[..., 0].size
    left, expected = kept.sum(axis=-1), keys * (1 - rate) + rate**keys
    assert left.min() == 1
    assert abs(left.mean() - expected) <= 5 * np.sqrt(keys * rate * (1 - rate) / rows) + 1e-6
    assert np.abs(kept.mean(axis=(0, 1, 2)) - expected / keys).max() < 5 * 0.5 / np.sqrt(rows)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_of_the_heads_of_each_example_one_stays(rate):
    batch, heads = 400, 3
    used, _ = used_weights(DropHead, rate, batch=batch, queries=2, keys=2, heads=heads)
    kept = (used != 0).all(axis=(2, 3))
    np.testing.assert_array_equal(kept, (used != 0).any(axis=(2, 3)))
    expected = heads * (1 - rate) + rate**heads
    assert kept.sum(axis=1).min() == 1
    assert abs(kept.sum(axis=1).mean() - expected) <= 5 * np.sqrt(heads * rate * (1 - rate) / batch) + 1e-6
    assert np.abs(kept.mean(axis=0) - expected / heads).max() < 5 * 0.5 / np.sqrt(batch)


# rate 0, inference, and Keras's own layer


@layers
@options
@pytest.mark.parametrize("scores", [False, True], ids=["outputs", "scores"])
def test_training_at_rate_zero_is_inference(cls, options, scores):
    layer = cls(0.0, attention(), seed=0)
    found, expected = (call(layer, training=training, return_attention_scores=scores, **options) for training in (True, False))
    for a, b in zip(found, expected) if scores else [(found, expected)]:
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-4, atol=1e-5)


@layers
@pytest.mark.parametrize("causal", [False, True])
def test_a_sliding_window_is_kept_in_training(cls, causal):
    layer = cls(0.0, attention(sliding_window=2), seed=0)
    found, expected = (call(layer, training=training, use_causal_mask=causal) for training in (True, False))
    np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-4, atol=1e-5)
    assert not np.allclose(numpy(expected), numpy(call(cls(0.0, attention()), training=False, use_causal_mask=causal)))


@layers
def test_inference_is_the_wrapped_layer_and_the_scores_in_training_are_its_own(cls):
    layer = cls(0.5, attention(), seed=0)
    arguments = {"attention_mask": FREE, "use_causal_mask": True}
    found, expected = call(layer, training=False, **arguments), call(layer.layer, training=False, **arguments)
    np.testing.assert_array_equal(numpy(found), numpy(expected))
    step = numpy(ops.cast(layer.stream.state, "float32"))
    _, before = call(layer, training=False, return_attention_scores=True, **arguments)
    np.testing.assert_array_equal(numpy(ops.cast(layer.stream.state, "float32")), step)
    outputs, scores = call(layer, return_attention_scores=True, **arguments)
    np.testing.assert_allclose(numpy(scores), numpy(before), rtol=1e-4, atol=1e-6)
    assert not np.allclose(numpy(outputs), numpy(found), atol=1e-2)


@layers
def test_the_fused_attention_stays_on_at_inference(cls, monkeypatch):
    """In Keras a dropout switches it off there too."""
    module, calls = sys.modules[keras.layers.MultiHeadAttention.__module__].ops, []
    fused = module.dot_product_attention
    monkeypatch.setattr(module, "dot_product_attention", lambda *given, **more: calls.append(1) or fused(*given, **more))
    call(attention(), training=False)
    assert len(calls) == 1
    call(attention(dropout=0.1), training=False)
    assert len(calls) == 1
    call(cls(0.1, attention()), training=False)
    assert len(calls) == 2
    call(cls(0.1, attention()), training=False, value_mask=PRESENT, use_causal_mask=True)
    assert len(calls) == 3


def test_drop_head_trains_with_the_fused_attention(monkeypatch):
    calls, fused = [], ops.dot_product_attention
    monkeypatch.setattr(ops, "dot_product_attention", lambda *given, **more: calls.append(1) or fused(*given, **more))
    call(DropHead(0.1, attention()))
    assert len(calls) == 1


# padding


class Sees(keras.layers.Layer):
    """Notes whether its input comes with a padding mask."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs, other, inputs_mask=None):
        self.seen = inputs_mask is not None
        return inputs + other


IDS = np.array([[4, 5, 6, 2, 3], [7, 8, 0, 0, 0], [9, 0, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")


@layers
@pytest.mark.parametrize("causal", [False, True])
def test_padding_by_an_embedding_is_as_in_keras_and_is_passed_on(cls, causal):
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(10, FEATURES, mask_zero=True, embeddings_initializer="random_normal")(inputs)
    wrapped = attention()
    layer = cls(0.0, wrapped, seed=0)
    plain = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(wrapped(embedded, embedded, use_causal_mask=causal)))
    ours = layer(embedded, use_causal_mask=causal)
    pooled = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(ours))
    sees = Sees()
    after = keras.Model(inputs, sees(embedded, ours))
    for training in (False, True):
        found, expected = numpy(pooled(IDS, training=training)), numpy(plain(IDS))
        np.testing.assert_allclose(found[:-1], expected[:-1], rtol=1e-4, atol=1e-5)  # the last example has no tokens to average
        after(IDS, training=training)
        assert sees.seen, "the attention has taken the padding mask off its input"


@layers
@pytest.mark.parametrize(("rate", "dtype"), [(0.99, "float32"), (1.0, "mixed_float16"), (1.0, "mixed_bfloat16")])
def test_everything_is_finite_at_any_rate_and_precision(cls, rate, dtype):
    layer = cls(rate, attention(dtype=dtype), seed=0, dtype=dtype)
    for options in ({}, OPTIONS["padding of both"], OPTIONS["mask by head"]):
        found, scores = call(layer, return_attention_scores=True, **options)
        assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
        assert keras.backend.standardize_dtype(scores.dtype) == layer.compute_dtype
        assert np.isfinite(numpy(found)).all()
        assert np.isfinite(numpy(call(layer, **options))).all()


@layers
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_draws_the_same(cls, dtype):
    def found(dtype):
        keras.utils.set_random_seed(4)
        return numpy(call(cls(0.4, attention(dtype=dtype), seed=0, dtype=dtype), value_mask=PRESENT))

    np.testing.assert_allclose(found(dtype)[:-1], found("float32")[:-1], atol=0.1)  # without the example of padding only


# in models


class Block(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.embedding = keras.layers.Embedding(10, FEATURES, mask_zero=True)
        self.attention, self.head = layer, keras.layers.Dense(1)

    def call(self, ids, training=False):
        x = self.embedding(ids)
        return self.head(x + self.attention(x, x, use_causal_mask=True, training=training))


def functional(layer):
    query, value = keras.Input((None, FEATURES)), keras.Input((None, FEATURES))
    outputs, scores = layer(query, value, return_attention_scores=True)
    assert scores.shape == (None, HEADS, None, None)
    return keras.Model([query, value], [keras.layers.Dense(1)(outputs), scores])


@layers
def test_models_train_a_step(cls):
    of_both = [np.ones((BATCH, QUERIES, 1)), np.zeros((BATCH, HEADS, QUERIES, KEYS))]
    for model, x, y in (
        (Block(cls(0.3, attention(), seed=0)), IDS, np.ones((4, 5, 1))),
        (functional(cls(0.3, attention(), seed=0)), [QUERY, VALUE], of_both),
        (keras.Sequential([keras.Input((QUERIES, FEATURES)), cls(1.0, attention(), seed=0)]), QUERY, QUERY),
    ):
        model.compile("adam", "mse")
        model(x)
        before = [numpy(w) for w in model.weights]
        losses = model.fit(x, y, epochs=1, batch_size=4, verbose=0).history["loss"]
        assert np.isfinite(losses).all()
        after = [numpy(w) for w in model.weights]
        assert all(np.isfinite(w).all() for w in after)
        assert any((a != b).any() for a, b in zip(before, after))


@layers
def test_a_saved_model_goes_on_with_cross_attention_and_scores(cls, tmp_path):
    model = functional(cls(0.4, attention(), seed=2))
    model([QUERY, VALUE], training=True)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for _ in range(2):
        for a, b in zip(loaded([QUERY, VALUE], training=True), model([QUERY, VALUE], training=True)):
            np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-6, atol=1e-7)


def test_regularisers_of_the_projections_count_in_training():
    layer = AttentionDropout(0.0, attention(activity_regularizer="l2", kernel_regularizer="l2"), seed=0)
    lost = []
    for training in (True, False):
        call(layer, training=training)
        lost.append(float(sum(numpy(loss) for loss in layer.losses)))
    assert lost[0] == pytest.approx(lost[1], rel=1e-5)
    assert lost[0] > 0


def test_symbolic_scores_of_cross_attention_have_the_keys_of_the_value():
    layer = AttentionDropout(0.1, attention())
    outputs, scores = layer(keras.Input((5, FEATURES)), keras.Input((7, FEATURES)), return_attention_scores=True)
    assert outputs.shape == (None, 5, FEATURES)
    assert scores.shape == (None, HEADS, 5, 7)


# what is refused


class Other(keras.layers.MultiHeadAttention):
    pass


@layers
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: attention(dropout=0.2), "dropout of its own, 0.2"),
        (lambda: attention(use_gate=True), "use_gate"),
        (lambda: attention(attention_axes=(1, 2)), "attention_axes"),
        (lambda: keras.layers.GroupQueryAttention(4, 4, 2), "itself"),
        (lambda: Other(HEADS, WIDTH), "itself"),
        (lambda: "attention", "itself"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_two_lines(cls, layer, words):
    with pytest.raises(BadInput, match=words) as caught:
        cls(0.1, layer())
    assert len(str(caught.value).splitlines()) == 2


@layers
def test_other_ranks_are_refused(cls):
    with pytest.raises(BadInput, match="rank 3"):
        cls(0.1, attention())(np.ones((2, 3, 3, 4), "float32"))
