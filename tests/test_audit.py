"""An audit of a model by running it: eight published faults are found, their mended twins and healthy models are not accused."""

import json

import keras
import numpy as np
import pytest
from dropout_faults import FAULTS, FixedDropPath, Net, OwnDropout, called, uniform
from keras import layers as L
from keras import ops

from keras_dropout import BadInput, catalogue, place
from keras_dropout.models.audit import RULES, audit
from keras_dropout.models.evidence import AUDITED
from keras_dropout.models.measuring import interval


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def found(result):
    return sorted({(mistake.rule, mistake.layer) for mistake in result})


@pytest.mark.parametrize("name", FAULTS)
def test_a_published_fault_is_found(name):
    make, rule, addresses = FAULTS[name]
    assert found(audit(make(mended=False))) == [(rule, address) for address in addresses]


@pytest.mark.parametrize("name", FAULTS)
def test_its_mended_twin_is_not_accused(name):
    assert found(audit(FAULTS[name][0](mended=True))) == []


def test_what_was_found_is_told_with_figures():
    (mistake,) = audit(FAULTS["KerasHub's DINOv2 and DINOv3"][0](mended=False))
    assert "multiplies by noise between 1 and 2.2" in mistake.what  # (0.8 + u) / 0.8 with u in [0, 1)
    assert "of mean 1.6" in mistake.what
    assert "none was 0" in mistake.what


class StochasticDepth(L.Layer):
    """Adds a branch to a shortcut, with the branch's mean at prediction, as in the paper."""

    def __init__(self, rate, **options):
        super().__init__(**options)
        self.rate, self.seeds = rate, keras.random.SeedGenerator()

    def call(self, inputs, training=None):
        shortcut, branch = inputs
        keep = 1 - self.rate
        return shortcut + branch * (ops.cast(uniform(branch, self.seeds) < keep, branch.dtype) if training else keep)


def model_of(layer, *shape):
    inputs = keras.Input(shape or (8,))
    return keras.Model(inputs, L.Dense(3)(layer(inputs)))


@pytest.mark.parametrize(
    ("how", "rule"),
    [("keeps", "dropout-share"), ("unscaled", "dropout-mean"), ("twice", "dropout-mean"), ("always", "dropout-at-prediction")],
)
def test_own_dropout_with_a_fault(how, rule):
    result = audit(model_of(OwnDropout(0.3, how, name="own")))
    assert (rule, "own") in found(result)
    assert {each for each, _ in found(result)} <= {rule, "dropout-at-prediction"} | ({"dropout-mean"} if how == "keeps" else set())


def test_a_rate_that_is_meant_as_what_is_kept_is_told():
    result = audit(model_of(OwnDropout(0.3, "keeps", name="own")))
    assert "which is 1 - rate" in next(mistake.what for mistake in result if mistake.rule == "dropout-share")


def test_scaling_at_prediction_is_no_mistake_and_is_told():
    for model in (model_of(OwnDropout(0.3, "classic", name="own")), with_two()):
        result = audit(model)
        assert found(result) == []
        assert any("at prediction, which is its mean in training" in note for note in result.notes)
        (row,) = result.layers
        assert row.low < 0.3 < row.high


def with_two():
    inputs = keras.Input((8,))
    return keras.Model(inputs, StochasticDepth(0.3, name="own")([inputs, L.Dense(8)(inputs)]))


def test_options_are_old_rates_where_dropout_was_changed_in_place():
    model = FAULTS["torchtune#996"][0](mended=True)
    assert len([row for row in audit(model).layers if row.rate]) == 2
    place(model, {}, in_place=True)
    result = audit(model)
    assert found(result) == []
    assert not [row for row in result.layers if row.rate]


def test_a_mask_for_the_whole_batch_is_named():
    result = audit(model_of(OwnDropout(0.3, "batch", name="own")))
    assert found(result) == []
    assert "one mask for the whole batch" in result.layers[0].verdict
    assert "whole batch" not in audit(model_of(OwnDropout(0.3, name="own"))).layers[0].verdict


@pytest.mark.parametrize(("how", "rule"), [("", ""), ("off", "dropout-without-training"), ("unused", "dropout-output-unused")])
def test_how_a_model_calls_its_dropout(how, rule):
    assert found(audit(called(Net(how), 4))) == ([(rule, "drop")] if rule else [])


class Tokens(keras.Model):
    """A causal model of ids with a padding mask, which may forget one of the masks when it trains."""

    def __init__(self, forgets=""):
        super().__init__(name="tokens")
        self.forgets, self.embed, self.drop, self.out = forgets, L.Embedding(8, 6), L.Dropout(0.1, name="drop"), L.Dense(4)

    def call(self, inputs, training=None):
        x = self.drop(self.embed(inputs["ids"]), training=training)
        length = ops.shape(x)[1]
        seen = ops.ones((1, length, length))
        if self.forgets != "causal" or not training:
            seen = ops.tril(seen)
        if self.forgets != "padding" or not training:
            seen = seen * ops.cast(inputs["padding_mask"], "float32")[:, None, :]
        return self.out(ops.matmul(seen / ops.maximum(ops.sum(seen, -1, keepdims=True), 1), x))


def functional_tokens(forgets):
    inputs = {
        "ids": keras.Input((8,), dtype="int32", name="ids"),
        "padding_mask": keras.Input((8,), dtype="int32", name="padding_mask"),
    }
    return keras.Model(inputs, Tokens(forgets)(inputs), name="tokens")


def test_a_mask_that_is_lost_in_training():
    assert found(audit(functional_tokens(""))) == []
    (mistake,) = audit(functional_tokens("causal"))
    assert mistake.rule == "mask-lost"
    assert "later positions of 'ids'" in mistake.what


def test_a_padding_mask_that_is_lost_in_training():
    model = functional_tokens("padding")
    ids, mask = np.ones((4, 8), "int32"), np.ones((4, 8), "int32")
    mask[:, :2] = 0  # padding in front, where a causal mask does not hide it
    (mistake,) = audit(model, {"ids": ids, "padding_mask": mask})
    assert mistake.rule == "mask-lost"
    assert "'padding_mask' marks as padding" in mistake.what
    assert found(audit(functional_tokens(""), {"ids": ids, "padding_mask": mask})) == []


def healthy():
    """Dropout of Keras of all kinds, at several depths."""
    inputs = keras.Input((6, 8))
    x = L.SpatialDropout1D(0.2, name="spatial")(L.GaussianNoise(0.1)(inputs))
    x = L.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(x, x, use_causal_mask=True)
    x = L.BatchNormalization()(L.GaussianDropout(0.3, name="noise")(x))
    x = L.TimeDistributed(L.Dropout(0.2, name="each"))(x)
    x = L.GRU(6, dropout=0.2, recurrent_dropout=0.3, name="gru")(x)
    x = L.AlphaDropout(0.1, name="alpha")(L.Dense(8, "selu")(x))
    return keras.Model(inputs, L.Dense(3)(L.Dropout(0.0, name="off")(x)))


def test_a_healthy_model_is_not_accused_and_each_layer_has_a_row():
    model = healthy()
    before = model.get_weights()
    result = audit(model, np.random.default_rng(0).normal(size=(64, 6, 8)))
    assert found(result) == []
    rows = {row.layer.split("/")[-1]: row for row in result.layers}
    assert len(rows) == 8
    for name in ("spatial", "each", "gru_cell (dropout)", "gru_cell (recurrent_dropout)"):
        row = next(row for address, row in rows.items() if address.startswith(name))
        assert row.low <= row.rate <= row.high
        assert row.factor == pytest.approx(1, abs=0.1)
        assert row.verdict.endswith("drops at its rate, mean kept")
        assert row.calls == (6 if name == "each" else 1)  # one for each step
    assert rows["off"].verdict == "off: its rate is 0"
    assert rows["off"].share is None
    assert rows["noise"].factor == pytest.approx(1, abs=0.05)
    assert rows["alpha"].share == pytest.approx(0.1, abs=0.05)
    assert all(map(np.array_equal, model.get_weights(), before))


@pytest.mark.parametrize("name", [name for name, method in catalogue.methods().items() if method.input_shape and not method.alias])
def test_no_method_of_the_library_is_accused(name):
    method = catalogue.method(name)
    layer = method.make()
    if not isinstance(layer, keras.Layer):
        pytest.skip("no layer")
    shape = method.input_shape
    several = isinstance(shape[0], (tuple, list))
    inputs = [keras.Input(each[1:], dtype=method.input_dtype) for each in (shape if several else [shape])]
    try:
        model = keras.Model(inputs, layer(inputs if several else inputs[0]))
    except Exception:
        pytest.skip("its example is no layer of a model")
    result = audit(model)
    assert found(result) == []
    assert all(row.verdict for row in result.layers)


def test_nothing_stays():
    model = FAULTS["KerasHub's DINOv2 and DINOv3"][0](mended=True)
    x = np.ones((4, 6, 8), "float32")
    seeds = [
        ops.convert_to_numpy(seed.state) for layer in model._flatten_layers() for seed in getattr(layer, "_seed_generators", ())
    ]
    before, numpy = {id(layer): dict(vars(layer)) for layer in model._flatten_layers()}, np.random.get_state()[1].copy()  # noqa: NPY002
    plain = ops.convert_to_numpy(model(x, training=False))
    audit(model)
    after = [
        ops.convert_to_numpy(seed.state) for layer in model._flatten_layers() for seed in getattr(layer, "_seed_generators", ())
    ]
    assert all(map(np.array_equal, seeds, after))
    assert np.array_equal(numpy, np.random.get_state()[1])  # noqa: NPY002
    assert all(vars(layer).keys() == before[id(layer)].keys() for layer in model._flatten_layers())
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x, training=False)), plain)


class Unrolled(keras.Model):
    """A model that makes a recurrent layer with dropout, and may not call it."""

    def __init__(self, calls):
        super().__init__(name="net")
        self.calls, self.gru, self.out = calls, L.GRU(4, dropout=0.2, name="gru"), L.Dense(2)
        self.gru.build((None, 6, 8))

    def call(self, x, training=None):
        return self.out(self.gru(x, training=training) if self.calls else x)


@pytest.mark.parametrize("calls", [True, False])
def test_a_recurrent_layer_that_is_never_called(calls):
    result = found(audit(called(Unrolled(calls), 6, 8)))
    assert result == ([] if calls else [("dropout-never-called", "gru/gru_cell (dropout)")])


def test_what_cannot_be_measured_is_said():
    class Jitter(L.Layer):
        """Draws at random in training at no known rate."""

        def __init__(self):
            super().__init__(name="jitter")
            self.seeds = keras.random.SeedGenerator()

        def call(self, x, training=None):
            return x + keras.random.normal(ops.shape(x), seed=self.seeds) if training else x

    (row,) = audit(model_of(Jitter())).layers
    assert row.share is None
    assert row.rate is None
    assert "not measured: which share" in row.verdict
    (row,) = audit(model_of(L.Dropout(1e-7, name="rare"))).layers
    assert "too few draws" in row.verdict


def test_a_model_that_cannot_be_run_is_refused():
    class Fails(L.Layer):
        def call(self, x, training=None):
            raise ValueError("not today") if training else None

        def compute_output_shape(self, shape):
            return shape

        def build(self, shape):
            self.w = self.add_weight(shape=(1,))

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Fails()(inputs))
    with pytest.raises(BadInput, match="cannot be run on made-up inputs: ValueError: not today"):
        audit(model)


def test_a_model_of_strings_is_refused_without_data():
    inputs = keras.Input((), dtype="string", name="words")
    model = keras.Model(inputs, L.Identity()(inputs))
    with pytest.raises(BadInput, match="cannot be run on made-up inputs: TypeError: the input 'words' takes strings"):
        audit(model)


def test_a_drop_path_that_fails_in_training_is_told_and_measured_all_the_same():
    result = audit(model_of(FixedDropPath(0.2, name="drop"), 6, 8))
    assert found(result) == [("dropout-fails", "drop"), ("dropout-never-drops", "drop")]


def test_the_interval_holds():
    """By simulation: the expectation of coins is outside of the interval of their mean more rarely than the error says."""
    draws, rate, error = 200, 0.1, 0.05
    means = np.random.default_rng(0).binomial(draws, rate, 4000) / draws
    outside = [not low <= rate <= high for low, high in (interval(float(mean), draws, error) for mean in means)]
    assert np.mean(outside) < error
    assert interval(0.0, 1000, 1e-6)[0] == 0
    assert 0.01 < interval(0.0, 1000, 1e-6)[1] < 0.02


def test_it_is_shown_and_written():
    result = audit(FAULTS["tirex#19"][0](mended=False))
    document = json.loads(json.dumps(result.document()))
    assert document["layers"][0]["layer"] == "block/drop"
    assert document["mistakes"][0]["rule"] == "dropout-never-called"
    assert "dropout-never-called" in str(result)
    assert "block/drop" in str(result)
    assert "block/drop" in result._repr_html_()


def test_each_rule_says_what_is_known():
    assert set(RULES) == set(AUDITED)
    assert all(rule.__doc__ for rule in RULES.values())
    assert all(all(known) for known in AUDITED.values())
