"""What drops words and tokens, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, EmbeddingDropout, NEFTune, RandomLTD, TokenDropout, WordDropout, place, sites
from keras_dropout.testing import backend

WORDS, FEATURES = 300, 4
IDS = np.random.default_rng(0).integers(0, WORDS, (40, 60)).astype("int32")


def numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32") if "float" in str(x.dtype) else x)


def embedding(**options):
    return keras.layers.Embedding(WORDS, FEATURES, embeddings_initializer=keras.initializers.RandomUniform(1, 2, seed=1), **options)


def factors(layer, ids=IDS, training=True):
    """What each token's vector was multiplied by: one number a token."""
    vectors, table = numpy(layer(ids, training=training)), numpy(layer.layer.embeddings)
    found = vectors / table[ids.astype("int32")]
    np.testing.assert_allclose(found, found[..., :1].repeat(FEATURES, -1), rtol=1e-5)
    return found[..., 0]


# words of the vocabulary


def test_a_dropped_word_vanishes_from_the_whole_batch():
    found = factors(EmbeddingDropout(0.4, embedding(), seed=0))
    np.testing.assert_allclose(np.unique(found.round(4)), [0, 1 / 0.6], rtol=1e-3)
    for word in np.unique(IDS):
        assert len(np.unique(found[word == IDS] == 0)) == 1


def test_per_sequence_each_sequence_drops_words_of_its_own():
    ids = np.tile(IDS.reshape(-1)[:600], (40, 1))
    kept = factors(EmbeddingDropout(0.4, embedding(), per="sequence", seed=0), ids) != 0
    words = np.unique(ids)
    for row, sequence in zip(kept, ids):
        assert all(len(np.unique(row[word == sequence])) == 1 for word in words)
    first = [int(np.argmax(word == ids[0])) for word in words]
    decisions = kept[:, first]
    pairs = decisions.shape[1] * (len(decisions) - 1)
    same = (decisions[1:] == decisions[:-1]).mean()
    assert abs(same - (0.4**2 + 0.6**2)) < 5 * 0.5 / np.sqrt(pairs)


@pytest.mark.parametrize("per", ["batch", "sequence"])
def test_the_share_of_words_dropped_is_the_rate(per):
    layer, every = EmbeddingDropout(0.3, embedding(), per=per, seed=1), np.arange(WORDS, dtype="int32")[None].repeat(20, 0)
    dropped = np.array([factors(layer, every) == 0 for _ in range(10)])
    if per == "batch":
        dropped = dropped[:, 0]
    assert abs(dropped.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / dropped.size)


def test_a_dropped_word_learns_nothing():
    layer = EmbeddingDropout(0.5, embedding(), seed=0)
    model = keras.Sequential([keras.Input((60,), dtype="int32"), layer])
    before = numpy(layer.layer.embeddings)
    twin = EmbeddingDropout(0.5, embedding(), seed=0)
    dropped = np.unique(IDS[factors(twin) == 0])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(IDS, np.full((*IDS.shape, FEATURES), 9, "float32"), batch_size=len(IDS), verbose=0)
    changed = (numpy(layer.layer.embeddings) != before).any(axis=1)
    assert not changed[dropped].any()
    assert changed[np.setdiff1d(IDS, dropped)].all()


@pytest.mark.parametrize("rate", [0, 1])
def test_words_at_the_ends_of_the_rate(rate):
    np.testing.assert_allclose(factors(EmbeddingDropout(rate, embedding(), seed=0)), 1 - rate, rtol=1e-6)


def test_the_embeddings_padding_mask_is_passed_on():
    inputs = keras.Input((60,), dtype="int32")
    vectors = embedding(mask_zero=True)
    after = keras.layers.GlobalAveragePooling1D()
    plain, ours = (keras.Model(inputs, after(layer(inputs))) for layer in (vectors, EmbeddingDropout(0.0, vectors)))
    ids = np.where(np.arange(60) < 20, IDS, 0)
    np.testing.assert_allclose(numpy(ours(ids, training=True)), numpy(plain(ids)), rtol=1e-6)
    unmasked = keras.Model(inputs, after(EmbeddingDropout(0.0, embedding())(inputs)))
    assert not np.allclose(numpy(unmasked(ids)), numpy(plain(ids)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_large_ids_survive_half_precision(policy):
    """Ids that arrive as floats, Keras's default, are exact to 2**24; in half precision not even to 2**12."""
    policy = keras.DTypePolicy(policy)
    table = keras.layers.Embedding(5000, 1, weights=np.arange(5000.0)[:, None] / 5000, dtype=policy)
    layer = EmbeddingDropout(0.0, table, dtype=policy)
    ids = np.array([[4097, 4098, 4999]])
    for given in (ids.astype("float32"), ids.astype("int32")):
        found = layer(given, training=True)
        assert keras.backend.standardize_dtype(found.dtype) == policy.compute_dtype
        np.testing.assert_array_equal(numpy(found), numpy(table(ids)))


# ids


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8"])
def test_ids_keep_their_type_and_protected_ones_stay(kind):
    ids = (IDS % 100).astype(kind)
    tensor = ops.convert_to_tensor(ids, dtype=kind)
    layer = WordDropout(0.4, unknown=1, protect=(0, 2, 3), seed=0, dtype="mixed_float16")
    found = layer(tensor, training=True)
    assert found.dtype == tensor.dtype
    found = numpy(found)
    replaced = found != ids
    assert (found[replaced] == 1).all()
    assert not replaced[np.isin(ids, (0, 2, 3))].any()
    free = ~np.isin(ids, (0, 1, 2, 3))
    assert abs(replaced[free].mean() - 0.4) < 5 * np.sqrt(0.24 / free.sum())
    np.testing.assert_array_equal(numpy(layer(tensor)), ids)


def test_tokens_are_replaced_one_by_one():
    """Unlike EmbeddingDropout: two occurrences of a word have draws of their own."""
    ids = np.full((100, 100), 7, "int32")
    kept = numpy(WordDropout(0.5, unknown=1, seed=0)(ids, training=True)) == 7
    for neighbour in (kept[:, 1:] == kept[:, :-1], kept[1:] == kept[:-1]):
        assert abs(neighbour.mean() - 0.5) < 5 * 0.5 / 100


def test_at_rate_one_only_protected_ids_are_left():
    found = numpy(WordDropout(1, unknown=1, protect=(5, 6), seed=0)(IDS, training=True))
    np.testing.assert_array_equal(found, np.where(np.isin(IDS, (5, 6)), IDS, 1))
    assert (numpy(WordDropout(1, unknown=1, protect=(), seed=0)(IDS, training=True)) == 1).all()


def test_words_in_a_model_train():
    model = keras.Sequential(
        [
            keras.Input((60,), dtype="int32"),
            WordDropout(0.2, unknown=1, seed=0),
            EmbeddingDropout(0.2, embedding(mask_zero=True), seed=0),
            TokenDropout(0.2, scale="kept", seed=0),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1),
        ]
    )
    assert model.layers[0].output.dtype == "int32"
    model.compile("adam", "mse")
    losses = model.fit(IDS, np.ones((40, 1)), batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("layer", "inputs", "words"),
    [
        (WordDropout(0.5, unknown=1), np.ones((2, 3), "float32"), "got float32.\nWrite keras.Input"),
        (WordDropout(0.5, unknown=300), np.ones((2, 3), "int8"), "type int8.\nGive the inputs as int32"),
        (TokenDropout(0.5), np.ones((2, 3), "float32"), r"got shape \(2, 3\).\nReshape"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(layer, inputs, words):
    with pytest.raises(BadInput, match=words):
        layer(ops.convert_to_tensor(inputs), training=True)


def test_float_ids_are_refused_in_a_models_plan_too():
    with pytest.raises(BadInput, match="whole numbers"):
        WordDropout(0.5, unknown=1)(keras.Input((5,)))


# vectors

X = np.random.default_rng(1).uniform(1, 2, (500, 8, 3)).astype("float32")


@pytest.mark.parametrize("scale", ["rate", "none"])
def test_whole_tokens_are_dropped(scale):
    y = numpy(TokenDropout(0.3, scale=scale, seed=0)(X, training=True))
    kept = (y != 0).all(axis=-1)
    np.testing.assert_array_equal(kept, (y != 0).any(axis=-1))
    np.testing.assert_allclose(y, X * kept[..., None] / (0.7 if scale == "rate" else 1), rtol=1e-5)
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / kept.size)


@pytest.mark.parametrize("rate", [0.3, 0.99, 1.0])
@pytest.mark.parametrize("padded", [False, True])
def test_the_mean_after_dropping_is_that_of_the_tokens_left(rate, padded):
    """Deep averaging networks, through Keras's own pooling, with at least one token left of those that are not padding."""
    lengths = np.random.default_rng(2).integers(1, 9, len(X)) if padded else np.full(len(X), 8)
    mask = np.arange(8) < lengths[:, None]
    layer, pooling = TokenDropout(rate, scale="kept", seed=0), keras.layers.GlobalAveragePooling1D()
    y = numpy(layer(X, training=True, mask=ops.convert_to_tensor(mask)))
    kept = (y != 0).all(axis=-1) & mask
    assert (kept.sum(axis=1) >= 1).all()
    expected = np.stack([x[k].mean(axis=0) for x, k in zip(X, kept)])
    np.testing.assert_allclose(numpy(pooling(y, mask=ops.convert_to_tensor(mask))), expected, rtol=1e-5)
    # A token goes with probability rate, but for the last one of a sequence.
    stay = lengths * (1 - rate) + rate**lengths
    assert abs(kept.sum() - stay.sum()) <= 5 * np.sqrt((lengths * rate * (1 - rate)).sum())


def test_the_token_forced_to_stay_is_any_of_them():
    left = (numpy(TokenDropout(1.0, scale="kept", seed=3)(X, training=True)) != 0).all(axis=-1)
    np.testing.assert_array_equal(left.sum(axis=1), 1)
    share = left.mean(axis=0)
    assert np.abs(share - 1 / 8).max() < 5 * np.sqrt(1 / 8 * 7 / 8 / len(X))


def test_a_sequence_of_padding_only_is_finite():
    y = TokenDropout(0.5, scale="kept", seed=0)(X, training=True, mask=ops.zeros((500, 8), "bool"))
    np.testing.assert_array_equal(numpy(y), 0 * X)


def test_padding_is_left_out_of_the_count_in_a_model():
    inputs = keras.Input((60,), dtype="int32")
    vectors = embedding(mask_zero=True)(inputs)
    pooled = keras.layers.GlobalAveragePooling1D()(TokenDropout(0.5, scale="kept", seed=0)(vectors))
    model = keras.Model(inputs, pooled)
    ids = np.where(np.arange(60) < 3, 7, 0)[None].repeat(50, 0)
    table = numpy(model.layers[1].embeddings)
    np.testing.assert_allclose(numpy(model(ids, training=True)), table[7][None].repeat(50, 0), rtol=1e-5)


# RandomLTD


def test_a_block_gets_the_kept_tokens_alone_and_the_others_pass_by():
    """Against the block on the tokens that changed: attention among them, and nothing of the others."""
    x = np.random.default_rng(0).normal(size=(4, 9, 6)).astype("float32")
    inputs = keras.Input((None, 6))
    block = keras.Model(inputs, inputs + keras.layers.MultiHeadAttention(2, 3)(inputs, inputs))
    layer = RandomLTD(0.5, block, prefix=1, seed=3)
    y = ops.convert_to_numpy(layer(x, training=True))
    changed = (y != x).any(axis=-1)
    assert changed[:, 0].all()
    assert (changed.sum(axis=1) == 1 + 4).all()
    assert len({tuple(row) for row in changed}) > 1
    for row, kept, found in zip(x, changed, y):
        np.testing.assert_allclose(found[kept], ops.convert_to_numpy(block(row[None, kept]))[0], atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(block(x)), atol=1e-6)


def test_gradients_of_what_passes_by_are_ones_and_padding_goes_with_its_tokens():
    layer = RandomLTD(0.5, keras.layers.Rescaling(3.0), seed=3)
    x = np.ones((2, 8, 3), "float32")
    before = ops.convert_to_numpy(layer.stream.state).copy()
    y = ops.convert_to_numpy(layer(x, training=True))
    layer.stream.state.assign(before)
    np.testing.assert_allclose(backend.gradient(layer, x, np.ones_like(x)), y)
    seen = []

    class Looks(keras.layers.Layer):
        def call(self, x, mask=None):
            seen.append((ops.convert_to_numpy(x)[..., 0], ops.convert_to_numpy(mask)))
            return x

        def compute_output_shape(self, shape):
            return shape

    table = np.arange(9, dtype="float32")[:, None]
    words = np.array([[5, 6, 7, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 8]])
    embedding = keras.layers.Embedding(9, 1, mask_zero=True)
    embedding.build()
    embedding.set_weights([table])
    RandomLTD(0.5, Looks(), seed=3)(embedding(words), training=True)
    values, mask = seen[-1]
    assert values.shape == (2, 4)
    np.testing.assert_array_equal(values > 0, mask)


def test_blocks_and_inputs_that_cannot_be_meant_are_refused():
    for layer, shape, words in (
        (RandomLTD(0.5, keras.layers.Dense(2)), (2, 6, 3), "keep the shape"),
        (RandomLTD(0.5, keras.layers.Dense(3), prefix=6), (2, 6, 3), "above the prefix"),
        (RandomLTD(0.5, keras.layers.Dense(3)), (6, 3), "batch, tokens, features"),
    ):
        with pytest.raises(BadInput, match=words):
            layer(np.ones(shape, "float32"), training=True)


# NEFTune


@pytest.mark.parametrize(("tokens", "features"), [(10, 40), (40, 40), (10, 160)])
def test_the_noise_is_uniform_and_of_the_stated_size(tokens, features):
    noise = ops.convert_to_numpy(NEFTune(5.0, seed=1)(np.zeros((100, tokens, features), "float32"), training=True))
    size = 5 / np.sqrt(tokens * features)
    shares = np.histogram(noise, 10, (-size, size))[0] / noise.size
    assert np.abs(noise).max() <= size
    assert (np.abs(shares - 0.1) < 5 * np.sqrt(0.09 / noise.size)).all()
    norms = np.square(noise).sum(axis=(1, 2))
    assert abs(norms.mean() - 25 / 3) < 5 * norms.std() / 10


def test_padding_does_not_make_the_noise_smaller():
    x = np.zeros((2, 40, 8), "float32")
    mask = ops.convert_to_tensor(np.stack([np.arange(40) < 10, np.ones(40, bool)]))
    noise = ops.convert_to_numpy(NEFTune(2.0, seed=1)(x, training=True, mask=mask))
    np.testing.assert_allclose(np.abs(noise).max(axis=(1, 2)), [2 / np.sqrt(10 * 8), 2 / np.sqrt(40 * 8)], rtol=0.05)


def test_the_size_of_the_noise_can_change_in_a_compiled_step():
    layer = NEFTune(0.0, seed=1)
    x = np.zeros((4, 5, 6), "float32")
    step = backend.compiled_training(layer)
    assert not step(x).any()
    layer.alpha = 3.0
    assert step(x).any()
    assert step.traces() <= 1


def test_it_is_offered_behind_embeddings_and_put_there():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(20, 4, name="e"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2, name="d"),
        ]
    )
    fits = {site.name: site.methods for site in sites(model)}
    assert "NEFTune" in fits["e"]
    assert "NEFTune" not in fits["d"]
    placed = place(model, {"e": {"kind": "NEFTune", "alpha": 5.0}})
    layer = next(layer for layer in placed.layers if isinstance(layer, NEFTune))
    assert layer.alpha == 5.0
