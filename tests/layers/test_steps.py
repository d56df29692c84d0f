"""The layers that drop along steps, against recurrent steps written in numpy with masks that other calls showed."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_dropout import BadInput, LockedDropout, RecurrentDropout, SpatialDropout1D, VariationalRNNDropout, Zoneout
from keras_dropout.testing import backend

UNITS, STEPS, ROWS = 6, 5, 7
X = np.random.default_rng(0).normal(size=(ROWS, STEPS, UNITS)).astype("float32")
PADDING = np.random.default_rng(1).random((ROWS, STEPS)) < 0.7
WRAPPERS = [VariationalRNNDropout, RecurrentDropout, Zoneout]
KINDS = {
    "LSTM": lambda **o: keras.layers.LSTM(UNITS, **o),
    "LSTM, first implementation": lambda **o: keras.layers.LSTM(UNITS, implementation=1, use_bias=False, **o),
    "GRU": lambda **o: keras.layers.GRU(UNITS, bias_initializer="normal", **o),
    "GRU, reset before": lambda **o: keras.layers.GRU(UNITS, bias_initializer="normal", reset_after=False, **o),
    "SimpleRNN": lambda **o: keras.layers.SimpleRNN(UNITS, bias_initializer="normal", **o),
    "RNN": lambda **o: keras.layers.RNN(keras.layers.GRUCell(UNITS), **o),
}
PAIRS = [(w, k) for w in WRAPPERS for k in KINDS if (w, k) != (RecurrentDropout, "SimpleRNN")]
by_kind = pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU, reset before", "SimpleRNN"])


def numpy(x):
    return keras.tree.map_structure(lambda y: np.asarray(ops.convert_to_numpy(y)), x)


def trained(layer, x=X, **options):
    return numpy(layer(x, training=True, **options))


def states_of(layer, seed=3):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(ROWS, size)).astype("float32") for size in layer.state_size]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(layer, x, states, seen, kept):
    """One step: `seen` multiplies h in the gates, `kept` the update."""
    cell = layer.cell
    kernel, recurrent, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    h = states[0]
    if isinstance(cell, keras.layers.LSTMCell):
        i, f, g, o = np.split(x @ kernel + (h * seen) @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * states[1] + sigmoid(i) * kept * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    if isinstance(cell, keras.layers.SimpleRNNCell):
        return [np.tanh(x @ kernel + (h * seen) @ recurrent + bias)]
    bias, recurrent_bias = bias if cell.reset_after else (bias, 0)
    x_z, x_r, x_g = np.split(x @ kernel + bias, 3, axis=1)
    h_z, h_r, h_g = np.split((h * seen) @ recurrent + recurrent_bias, 3, axis=1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    inner = r * h_g if cell.reset_after else (r * h * seen) @ recurrent[:, 2 * UNITS :]
    return [z * h + (1 - z) * kept * np.tanh(x_g + inner)]


def unrolled(layer, x, states=None, *, seen=1.0, kept=None, zoned=None, padding=None):
    """(outputs, last states) of a loop in numpy; `zoned` are the shares of the old states, step by step."""
    states = states or [np.zeros((len(x), size)) for size in layer.state_size]
    outputs = []
    for t in range(x.shape[1]):
        new = step(layer, x[:, t], states, seen, 1 if kept is None else kept[:, t])
        if zoned is not None:
            new = [d[:, t] * old + (1 - d[:, t]) * fresh for d, old, fresh in zip(zoned, states, new)]
        if padding is not None:
            new = [np.where(padding[:, t, None], fresh, old) for old, fresh in zip(states, new)]
        states = new
        outputs.append(states[0])
    return np.stack(outputs, axis=1), states


def with_weights(layer, *weights):
    layer.build(X.shape)
    layer.set_weights([np.asarray(w, "float32") for w in weights])
    return layer


def gated(i, f, g, o):
    """An LSTM whose gates and update are fixed numbers."""
    bias = np.repeat([i, f, g, o], UNITS)
    empty = np.zeros((UNITS, 4 * UNITS))
    return with_weights(keras.layers.LSTM(UNITS, return_sequences=True, return_state=True, unroll=True), empty, empty, bias)


def assert_same(found, expected, **options):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-4, "atol": 1e-5, **options})


# The masks of a seed, as unrolled calls with transparent weights show them; the loops are then compared with numpy.


def variational_masks(rate, recurrent_rate, seed):
    """h_t = m_x x_t / q + m_h h_{t-1} / q_h / 2, from the first two steps."""
    layer = keras.layers.SimpleRNN(UNITS, activation=None, return_sequences=True, unroll=True)
    with_weights(layer, np.eye(UNITS), np.eye(UNITS) / 2, np.zeros(UNITS))
    y = trained(
        VariationalRNNDropout(rate, layer, recurrent_rate=recurrent_rate, seed=seed),
        np.ones_like(X),
        initial_state=[np.full((ROWS, UNITS), 1000, "float32")],
    )
    on_states = (y[:, 0] > 100).astype(float) / (1 - recurrent_rate)
    on_inputs = y[:, 0] - 500 * on_states
    return np.round(on_inputs * (1 - rate)) / (1 - rate), on_states


def update_mask(rate, seed, per):
    """h_t = tanh(m g / q), where nothing is remembered."""
    y, *_ = trained(RecurrentDropout(rate, gated(50, -50, 1, 50), per=per, seed=seed))
    assert_same(y[y > 1e-9], np.tanh(np.tanh(1) / (1 - rate)))
    return (y > 1e-9) / (1 - rate)


def zoneout_masks(rate, cell_rate, seed):
    """h of one sign, then the other: what has not changed is zoned. A cell that only counts: c~_t = c_{t-1} + a."""
    a, alternating = 0.125, np.ones_like(X) * (-1.0) ** np.arange(STEPS)[:, None]
    layer = with_weights(
        keras.layers.SimpleRNN(UNITS, activation=None, return_sequences=True, unroll=True),
        np.eye(UNITS),
        np.zeros((UNITS, UNITS)),
        np.zeros(UNITS),
    )
    y = trained(Zoneout(rate, layer, seed=seed), alternating * np.arange(1, STEPS + 1)[:, None])
    on_h = np.diff(y, axis=1, prepend=0) == 0
    y, _, last = trained(Zoneout(0, gated(50, 50, np.arctanh(a), 50), cell_rate=cell_rate, seed=seed))
    cells = np.concatenate([np.arctanh(y) - a, last[:, None]], axis=1)  # before each step, and at the end
    return on_h, np.round(np.diff(cells, axis=1) / a) == 0


# LockedDropout


def test_locked_dropout_is_spatial_dropout_for_rank_three():
    np.testing.assert_array_equal(trained(LockedDropout(0.4, seed=5)), trained(SpatialDropout1D(0.4, seed=5)))


def test_locked_dropout_keeps_a_mask_over_the_steps_only():
    kept = trained(LockedDropout(0.5, seed=5), np.ones((8, 4, 3, 5), "float32")) != 0
    assert [axis for axis in range(4) if (kept == kept.take([0], axis)).all()] == [1]
    with pytest.raises(BadInput, match="rank 3 or more"):
        LockedDropout(0.5)(np.ones((8, 4), "float32"))


# all three wrappers


@pytest.mark.parametrize(("wrapper", "kind"), PAIRS)
def test_at_rate_zero_it_is_the_plain_layer(wrapper, kind):
    layer = KINDS[kind](return_sequences=True, return_state=True)
    wrapped = wrapper(0, layer, seed=1)
    options = {"mask": PADDING, "initial_state": states_of(layer)}
    for found, expected in zip(trained(wrapped, **options), numpy(layer(X, **options)), strict=True):
        assert_same(found, expected)


OPTIONS = [
    {"go_backwards": True},
    {"return_sequences": True, "unroll": True},
    {"return_sequences": True, "zero_output_for_mask": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_it_honours_the_layers_options(wrapper, options):
    layer = KINDS["LSTM"](**options)
    wrapped = wrapper(0, layer, seed=1)
    assert_same(trained(wrapped, mask=PADDING), numpy(layer(X, mask=PADDING)))
    assert all(getattr(wrapped, name) == value for name, value in options.items())


@pytest.mark.parametrize("wrapper", [VariationalRNNDropout, RecurrentDropout])
def test_inference_is_the_layer_itself(wrapper):
    layer = KINDS["LSTM"](return_sequences=True)
    np.testing.assert_array_equal(numpy(wrapper(0.5, layer)(X, mask=PADDING)), numpy(layer(X, mask=PADDING)))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_padding_holds_the_state(wrapper):
    layer = KINDS["GRU"](return_sequences=True)
    start = states_of(layer)
    y = trained(wrapper(0.3, layer, seed=2), initial_state=start, mask=PADDING)
    before = np.concatenate([start[0][:, None], y[:, :-1]], axis=1)
    reached = np.maximum.accumulate(PADDING, axis=1)  # Keras's outputs before the first real step differ between backends
    np.testing.assert_array_equal(y[reached & ~PADDING], before[reached & ~PADDING])
    assert (y[PADDING] != before[PADDING]).any(axis=1).all()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_and_losses_are_the_layers(wrapper):
    layer = KINDS["LSTM"](kernel_regularizer="l2", activity_regularizer="l1")
    wrapped = wrapper(0, layer)
    trained(wrapped)
    assert [id(w) for w in wrapped.weights] == [id(w) for w in layer.weights]
    assert len(wrapped.trainable_variables) == 3
    found = sorted(float(numpy(loss)) for loss in wrapped.losses)
    layer(X)
    assert_same(found, sorted(float(numpy(loss)) for loss in layer.losses))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_it_follows_the_layers_policy(wrapper):
    exact, half = KINDS["LSTM"](), KINDS["LSTM"](dtype="mixed_bfloat16")
    outputs = []
    for layer in (exact, half):
        wrapped = wrapper(0.3, layer, seed=4)
        wrapped.build(X.shape)
        half.set_weights(exact.get_weights()) if layer is half else None
        outputs.append(wrapped(X, training=True))
    assert keras.backend.standardize_dtype(outputs[1].dtype) == "bfloat16"
    assert_same(numpy(ops.cast(outputs[1], "float32")), numpy(outputs[0]), atol=0.05)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_both_directions(wrapper):
    plain = keras.layers.Bidirectional(KINDS["LSTM"](return_sequences=True))
    two = keras.layers.Bidirectional(wrapper(0, KINDS["LSTM"](return_sequences=True), seed=8))
    expected = numpy(plain(X, mask=PADDING))
    two.build(X.shape)
    two.set_weights(plain.get_weights())
    assert_same(trained(two, mask=PADDING), expected)
    streams = [numpy(half.stream.state.value) for half in (two.forward_layer, two.backward_layer)]
    assert (streams[0][:2] != streams[1][:2]).all(), "both directions have the same masks"
    alike = keras.layers.Bidirectional(
        wrapper(0.5, KINDS["LSTM"](), seed=8), backward_layer=wrapper(0.5, KINDS["LSTM"](go_backwards=True), seed=8)
    )
    assert trained(alike).shape == (ROWS, 2 * UNITS)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_both_directions_train_alike_after_saving(wrapper, tmp_path):
    both = keras.layers.Bidirectional(wrapper(0.3, KINDS["GRU"](), seed=8))
    model = keras.Sequential([keras.Input((STEPS, UNITS)), both, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert len({w.path for w in loaded.weights}) == len(loaded.weights)
    losses = [each.fit(X, np.ones((ROWS, 1)), epochs=3, shuffle=False, verbose=0).history["loss"] for each in (model, loaded)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_it_trains_on_padded_words_and_survives_saving(wrapper, tmp_path):
    ids = np.random.default_rng(0).integers(0, 9, (40, 6))
    inputs = keras.Input((None,), dtype="int32")
    words = keras.layers.Embedding(9, UNITS, mask_zero=True)(inputs)
    sequences, h, c = wrapper(0.3, KINDS["LSTM"](return_sequences=True, return_state=True))(words)
    last = wrapper(0.3, KINDS["LSTM"](), name="second")(sequences, initial_state=[h, c])
    model = keras.Model(inputs, keras.layers.Dense(1)(last))
    model.compile(keras.optimizers.Adam(0.05), "mse")
    before = model.get_weights()
    history = model.fit(ids, ids.sum(axis=1) / 20.0, epochs=2, batch_size=20, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert all((a != b).any() for a, b in zip(before, model.get_weights()))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_same(trained(loaded, ids), trained(model, ids))


REFUSED = [
    (lambda: Zoneout(0.1, keras.layers.LSTMCell(3)), "must be a recurrent layer; got LSTMCell"),
    (lambda: Zoneout(0.1, keras.layers.Bidirectional(keras.layers.LSTM(3))), "must be a recurrent layer; got Bidirectional"),
    (lambda: Zoneout(0.1, None), "must be a Keras layer"),
    (lambda: RecurrentDropout(0.1, keras.layers.SimpleRNN(3)), "must be LSTMCell or GRUCell; got SimpleRNNCell"),
    (lambda: RecurrentDropout(0.1, keras.layers.LSTM(3), per="batch"), "unknown per"),
    (lambda: VariationalRNNDropout(0.1, keras.layers.RNN(Count())), "got Count"),
    (lambda: VariationalRNNDropout(0.1, keras.layers.GRU(3, recurrent_dropout=0.2)), "it has recurrent_dropout=0.2"),
    (lambda: VariationalRNNDropout(0.1, keras.layers.GRU(3), recurrent_rate=1.2), "recurrent_rate must be"),
    (lambda: Zoneout(0.1, keras.layers.GRU(3), cell_rate=0.2), "more than one state"),
    (lambda: Zoneout(0.1, keras.layers.ConvLSTM1D(3, 2)), "must be (batch, units)"),
    (lambda: Zoneout(0.1, keras.layers.RNN([keras.layers.GRUCell(3), keras.layers.LSTMCell(3)])), "must be (batch, units)"),
    (lambda: Zoneout(0.1, keras.layers.LSTM(3, stateful=True)), "must not be stateful"),
    (lambda: Zoneout(0.1, keras.layers.LSTM(3))(np.ones((2, 3), "float32")), "must have rank 3"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_be_right_is_refused_in_two_lines(call, words):
    with pytest.raises(BadInput) as caught:
        call()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("wrapper", "name"), [(VariationalRNNDropout, "recurrent_rate"), (Zoneout, "cell_rate")])
def test_the_second_rate_is_a_rate_of_its_own(wrapper, name):
    layer = wrapper(0.25, KINDS["LSTM"](return_sequences=True), seed=1)
    assert getattr(layer, name) == 0.25
    layer = wrapper(0, layer.layer, **{name: 0.5}, seed=1)
    assert layer.get_config()[name] == 0.5
    assert layer.rate == 0
    layer.build(X.shape)
    call, plain = backend.compiled_training(layer), numpy(layer.layer(X))
    assert not np.allclose(call(X), plain, atol=1e-4)
    setattr(layer, name, 0)
    assert_same(call(X), plain)
    assert call.traces() == 1


@pytest.mark.parametrize(("wrapper", "name"), [(VariationalRNNDropout, "recurrent_rate"), (Zoneout, "cell_rate")])
def test_the_second_rate_follows_the_first_where_it_was_left_out(wrapper, name, tmp_path):
    layer = wrapper(0.3, KINDS["LSTM"](return_sequences=True), seed=1)
    layer.build(X.shape)
    own = wrapper(0.3, layer.layer, **{name: 0.3}, seed=1)
    own.build(X.shape)
    assert (layer.get_config()[name], own.get_config()[name]) == (None, 0.3)
    call = backend.compiled_training(layer)
    np.testing.assert_array_equal(call(X), backend.compiled_training(own)(X))
    layer.rate = 0
    assert getattr(layer, name) == 0
    assert_same(call(X), numpy(layer.layer(X)))
    setattr(layer, name, 0.5)  # from now on of its own
    layer.rate = 0.1
    assert layer.get_config()[name] == 0.5
    setattr(layer, name, None)
    assert getattr(layer, name) == 0.1
    assert call.traces() == 1
    model = keras.Sequential([keras.Input(X.shape[1:]), layer])
    model.save(tmp_path / "m.keras")
    (loaded,) = keras.saving.load_model(tmp_path / "m.keras").layers
    loaded.rate = 0.2
    assert getattr(loaded, name) == 0.2


# VariationalRNNDropout


@by_kind
def test_variational_dropout_against_numpy(kind):
    on_inputs, on_states = variational_masks(0.3, 0.4, seed=6)
    assert 0 < (on_inputs == 0).mean() < 0.6
    assert 0 < (on_states == 0).mean() < 0.7
    layer = KINDS[kind](return_sequences=True, return_state=True)
    start = states_of(layer)
    wrapped = VariationalRNNDropout(0.3, layer, recurrent_rate=0.4, seed=6)
    found, *last = trained(wrapped, mask=PADDING, initial_state=start)
    outputs, states = unrolled(layer, X * on_inputs[:, None], start, seen=on_states, padding=PADDING)
    reached = np.maximum.accumulate(PADDING, axis=1)
    assert_same(found[reached], outputs[reached])
    for state, expected in zip(last, states, strict=True):
        assert_same(state, expected)


def test_variational_masks_are_drawn_for_each_sequence_and_call():
    layer = keras.layers.SimpleRNN(20, activation=None, return_sequences=True)
    layer.build((500, 4, 20))
    layer.set_weights([np.eye(20), np.zeros((20, 20)), np.zeros(20)])
    wrapped = VariationalRNNDropout(0.5, layer, seed=1)
    first, second = (trained(wrapped, np.ones((500, 4, 20), "float32")) for _ in range(2))
    np.testing.assert_array_equal(first, np.broadcast_to(first[:, :1], first.shape))
    error = 0.5 / np.sqrt(500 * 20)
    assert abs((first[:, 0] == 0).mean() - 0.5) < 5 * error
    assert abs((first[:, 0] == second[:, 0]).mean() - 0.5) < 5 * error
    assert abs((first[:-1, 0] == first[1:, 0]).mean() - 0.5) < 5 * error


@by_kind
def test_variational_rate_one_leaves_no_input(kind):
    layer = KINDS[kind](return_sequences=True)
    start = states_of(layer)
    found = trained(VariationalRNNDropout(1, layer, recurrent_rate=0), initial_state=start)
    assert_same(found, numpy(layer(0 * X, initial_state=start)))


def test_variational_recurrent_rate_one_leaves_no_recurrence():
    layer = KINDS["SimpleRNN"](return_sequences=True)
    found = trained(VariationalRNNDropout(0, layer, recurrent_rate=1))
    assert_same(found, numpy(layer(X.reshape(-1, 1, UNITS))).reshape(X.shape))


# RecurrentDropout


@pytest.mark.parametrize("per", ["step", "sequence"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU, reset before"])
def test_recurrent_dropout_against_numpy(kind, per):
    kept = update_mask(0.4, seed=7, per=per)
    assert 0.1 < (kept == 0).mean() < 0.7
    assert (kept == kept[:, :1]).all() == (per == "sequence")
    layer = KINDS[kind](return_sequences=True, return_state=True)
    found, *last = trained(RecurrentDropout(0.4, layer, per=per, seed=7), mask=PADDING)
    outputs, states = unrolled(layer, X, kept=kept, padding=PADDING)
    assert_same(found, outputs)
    for state, expected in zip(last, states, strict=True):
        assert_same(state, expected)


def test_at_rate_one_the_memory_only_fades():
    layer = gated(0.3, 0.8, 0.5, 0.1)
    h, c = states_of(layer)
    _, _, last = trained(RecurrentDropout(1, layer), initial_state=[h, c])
    assert_same(last, c * sigmoid(0.8) ** STEPS)


def test_recurrent_dropout_keeps_the_mean_of_the_memory():
    """Gates that h does not reach: the expectation passes through."""
    layer = gated(0.3, 0.8, 0.5, 0.1)
    x = np.zeros((4000, STEPS, UNITS), "float32")
    cells = trained(RecurrentDropout(0.5, layer, seed=3), x)[2].astype("float64")
    expected = numpy(layer(x[:1]))[2][0, 0]
    assert abs(cells.mean() - expected) < 5 * cells.std() / np.sqrt(cells.size)
    assert cells.std() > 0.1


# Zoneout


@by_kind
def test_zoneout_against_numpy(kind):
    zoned = zoneout_masks(0.3, 0.6, seed=9)
    layer = KINDS[kind](return_sequences=True, return_state=True)
    start = states_of(layer)
    rates = {"cell_rate": 0.6} if kind == "LSTM" else {}
    found, *last = trained(Zoneout(0.3, layer, **rates, seed=9), initial_state=start)
    outputs, states = unrolled(layer, X, start, zoned=zoned)
    assert_same(found, outputs)
    for state, expected in zip(last, states, strict=True):
        assert_same(state, expected)
    np.testing.assert_array_equal(found[:, -1], last[0])  # what is put out is what is carried


@by_kind
def test_zoneout_at_inference_is_the_expectation_of_each_step(kind):
    layer = KINDS[kind](return_sequences=True)
    wrapped = Zoneout(0.3, layer, **({"cell_rate": 0.6} if kind == "LSTM" else {}), seed=9)
    shares = [np.full(X.shape, rate) for rate in (0.3, 0.6)]
    found = numpy(wrapped(X, mask=PADDING))
    assert_same(found, unrolled(layer, X, zoned=shares, padding=PADDING)[0])


def test_zoneout_in_training_has_the_mean_of_inference_over_one_step():
    layer = KINDS["LSTM"](return_state=True)
    wrapped = Zoneout(0.3, layer, cell_rate=0.6, seed=2)
    rows = 20_000
    x = np.broadcast_to(X[:1, :1], (rows, 1, UNITS))
    start = [np.broadcast_to(s[:1], (rows, UNITS)) for s in states_of(layer)]
    expected = numpy(wrapped(x[:1], initial_state=[s[:1] for s in start]))
    for found, mean in zip(trained(wrapped, x, initial_state=start), expected, strict=True):
        error = found.astype("float64").std(axis=0) / np.sqrt(rows)
        assert (np.abs(found.mean(axis=0, dtype="float64") - mean[0]) < 5 * error + 1e-6).all()


@by_kind
def test_zoneout_at_rate_one_freezes_the_state(kind):
    layer = KINDS[kind](return_sequences=True, return_state=True)
    start = states_of(layer)
    for training in (True, False):
        outputs, *last = numpy(Zoneout(1, layer)(X, initial_state=start, training=training))
        np.testing.assert_array_equal(outputs, np.broadcast_to(start[0][:, None], X.shape))
        for state, expected in zip(last, start, strict=True):
            np.testing.assert_array_equal(state, expected)


def test_the_share_of_unchanged_units_is_the_rate():
    zoned = [np.stack(masks) for masks in zip(*(zoneout_masks(0.2, 0.7, seed) for seed in range(8)))]
    for mask, rate in zip(zoned, (0.2, 0.7), strict=True):
        assert abs(mask.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / mask.size)
    agreement = (zoned[0] == zoned[1]).mean()
    assert abs(agreement - (0.2 * 0.7 + 0.8 * 0.3)) < 5 * 0.5 / np.sqrt(zoned[0].size)


def test_the_hidden_state_is_made_of_the_cell_before_zoneout():
    layer = KINDS["LSTM"](return_state=True)
    h, c = states_of(layer)
    output, _, last = trained(Zoneout(0, layer, cell_rate=1), X[:, :1], initial_state=[h, c])
    np.testing.assert_array_equal(last, c)
    assert_same(output, numpy(layer(X[:, :1], initial_state=[h, c]))[0])


class Count(keras.layers.Layer):
    """A cell that is none of Keras's: it adds a weight at each step, and says so in training only."""

    state_size = 4

    def build(self, shape):
        self.one = self.add_weight(shape=(4,), initializer="ones")

    def call(self, inputs, states, training=False):
        new = states[0] + self.one * (1 if training else 10)
        return new, [new]


def test_zoneout_of_a_cell_of_ones_own():
    layer = Zoneout(0.25, keras.layers.RNN(Count(), return_sequences=True), seed=1)
    y = trained(layer, np.zeros((300, 20, 1), "float32"))
    steps = np.diff(y, axis=1, prepend=0)
    assert set(np.unique(steps)) == {0, 1}
    assert abs((steps == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / steps.size)
    assert_same(numpy(layer(np.zeros((1, 3, 1), "float32")))[0, :, 0], [7.5, 15, 22.5])
    assert len(layer.weights) == 1
