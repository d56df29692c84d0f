"""What is particular to the layers that drop whole inputs, on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, ConditionDropout, ModalityDropout, WordDropout, place

N = 20_000
PAIR = [np.ones((N, 2), "float32"), np.ones((N, 3, 2), "float32")]


def train(layer, x):
    found = layer(x, training=True)
    return [ops.convert_to_numpy(each) for each in found] if isinstance(found, (list, tuple)) else ops.convert_to_numpy(found)


def dropped(outputs):
    """Which examples lost each tensor: all of it, or nothing, unscaled."""
    found = []
    for y in outputs:
        rows = y.reshape(len(y), -1)
        assert (rows == rows[:, :1]).all()
        assert set(np.unique(rows)) <= {0.0, 1.0}
        found.append(rows[:, 0] == 0)
    return np.stack(found)


def share(events, expected):
    assert abs(events.mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / events.size), (events.mean(), expected)


@pytest.mark.parametrize(("rate", "each"), [(0.1, 0.0), (0.0, 0.316), (0.1, 0.2)])
def test_conditions_go_together_and_alone_at_the_stated_shares(rate, each):
    """With 0.316 of their own, two conditions are dropped together in 10 %: with a joint rate of 0.1, none is dropped alone."""
    first, second = dropped(train(ConditionDropout(rate, each=each, seed=1), PAIR))
    together, alone = rate + (1 - rate) * each**2, rate + (1 - rate) * each
    share(first & second, together)
    share(first, alone)
    share(second, alone)
    assert (each > 0) == bool((first != second).any())


def test_another_share_is_told_apart():
    with pytest.raises(AssertionError):
        share(np.repeat([True, False], [12, 88] * np.array(200)), 0.1)


def test_a_null_embedding_is_learned_and_only_where_it_is_used():
    x = np.full((400, 3), 7.0, "float32")
    layer = ConditionDropout(0.5, null="learned", seed=1)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(x, np.full_like(x, 2.0), epochs=30, batch_size=400, verbose=0)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.nulls[0]), 2.0, atol=0.05)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.unconditional(x)), 2.0, atol=0.05)
    y = train(layer, x)
    assert set(np.unique(y[:, 0])) == {7.0, ops.convert_to_numpy(layer.nulls[0])[0]}
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), x)


def test_a_given_null_embedding_stays_and_is_saved(tmp_path):
    a, b = keras.Input((2,)), keras.Input((3,))
    layer = ConditionDropout(1.0, null="learned", trainable=False, seed=1)
    model = keras.Model([a, b], layer([a, b]))
    layer.nulls[1].assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "m.keras")
    x = [np.ones((4, 2), "float32"), np.ones((4, 3), "float32")]
    assert layer.trainable_weights == []
    for each in (layer, keras.saving.load_model(tmp_path / "m.keras").layers[-1]):
        np.testing.assert_array_equal(train(each, x)[1], [[1.0, 2.0, 3.0]] * 4)
        np.testing.assert_array_equal(ops.convert_to_numpy(each.unconditional(x)[1]), [[1.0, 2.0, 3.0]] * 4)
        np.testing.assert_array_equal(train(each, x)[0], np.zeros((4, 2)))


def test_a_learned_null_embedding_needs_a_size():
    with pytest.raises(BadInput, match="needs a condition of fixed size"):
        ConditionDropout(0.1, null="learned")(keras.Input((None, 4)))


def test_class_ids_lose_their_class_by_word_dropout():
    y = train(WordDropout(0.1, unknown=10, protect=()), np.zeros(N, "int32"))
    share(y == 10, 0.1)


@pytest.mark.parametrize("rate", [0.3, 0.9, 1.0])
def test_one_modality_at_least_stays_and_the_presence_says_which(rate):
    *y, present = train(ModalityDropout(rate, presence=True, seed=2), [*PAIR, PAIR[0]])
    gone = dropped(y)
    assert not gone.all(axis=0).any()
    np.testing.assert_array_equal(present.T, 1.0 - gone)
    for each in gone:
        share(each, rate - rate**3 / 3)


def test_fields_of_one_tensor_are_modalities():
    y = train(ModalityDropout(0.4, seed=2), np.ones((N, 4, 3), "float32"))
    gone = dropped(list(np.moveaxis(y, 1, 0)))
    assert not gone.all(axis=0).any()
    share(gone, 0.4 - 0.4**4 / 4)
    np.testing.assert_array_equal(gone, dropped(train(ModalityDropout(0.4, seed=2), [np.ones((N, 3), "float32")] * 4)))


def test_at_prediction_all_is_present():
    *y, present = ModalityDropout(0.9, presence=True)(PAIR)
    assert ops.convert_to_numpy(present).min() == 1
    assert all(ops.convert_to_numpy(each).min() == 1 for each in y)


@pytest.mark.parametrize("inputs", [PAIR[:1], np.ones((4, 1, 3), "float32"), np.ones(4, "float32")])
def test_one_modality_alone_is_refused(inputs):
    with pytest.raises(BadInput, match="two modalities or more"):
        ModalityDropout(0.5)(inputs)


def test_a_model_of_two_inputs_trains_with_the_presence_of_each():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,)), keras.Input((2, 3))
    *values, present = ModalityDropout(0.5, presence=True, seed=1)([a, b])
    joined = keras.layers.Concatenate()([values[0], keras.layers.Flatten()(values[1]), present])
    model = keras.Model([a, b], keras.layers.Dense(1)(joined))
    model.compile(keras.optimizers.Adam(0.05), "mse")
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(128, 4)).astype("float32"), rng.normal(size=(128, 2, 3)).astype("float32")]
    history = model.fit(x, x[0].sum(axis=1), epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    assert model.predict(x, verbose=0).shape == (128, 1)


def test_the_layers_go_to_an_input_that_is_named():
    model = keras.Sequential([keras.Input((4, 3), name="fields"), keras.layers.Flatten(), keras.layers.Dense(2)])
    placed = place(model, {"fields": ModalityDropout(0.4, seed=1)})
    assert any(isinstance(layer, ModalityDropout) for layer in placed.layers)
