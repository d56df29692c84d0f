"""Thinned stacks put into models: which sites they fit, which sites share one, and the way back."""

import keras
import numpy as np
import pytest

import keras_dropout
from keras_dropout import BadInput, ThinnedStack, place, sites, strip

L = keras.layers
X = np.random.default_rng(0).normal(size=(24, 12)).astype("float32")


def perceptron(*behind):
    stack = [L.Dense(32, name="one"), L.ReLU(), L.Dropout(0.1), L.Dense(16, "tanh", name="two"), *behind, L.Dense(3, name="out")]
    return keras.Sequential([keras.Input((12,)), *stack])


def stacks(model):
    return [[each.name for each in layer.layer.layers] for layer in model._flatten_layers() if isinstance(layer, ThinnedStack)]


@pytest.mark.parametrize(
    ("placement", "found"),
    [
        ({"hidden": "ThinnedStack(0.5)"}, [["one", "re_lu", "two", "out"]]),
        ({"one": "ThinnedStack(0.5)", "two": 0.2}, [["one", "re_lu", "two"]]),
        ({"last": "ThinnedStack(0.5)"}, [["two", "out"]]),
        ({"input": 0.1, "hidden": "ThinnedStack(0.5, block_size=4)"}, [["one", "re_lu", "two", "out"]]),
    ],
)
def test_sites_that_follow_each_other_are_in_one_stack_and_predictions_stay(placement, found):
    model = perceptron()
    placed = place(model, placement)
    names = [[name.rstrip("_0123456789") for name in each] for each in stacks(placed)]
    assert names == found
    np.testing.assert_array_equal(placed.predict(X, verbose=0), model.predict(X, verbose=0))
    assert [(w.path, w.shape) for w in placed.trainable_weights] == [(w.path, w.shape) for w in model.trainable_weights]
    assert not np.allclose(placed(X, training=True), placed(X))


def test_a_layer_whose_units_go_elsewhere_too_or_are_normalised_has_no_stack():
    normalised = perceptron(L.BatchNormalization())
    assert [site.name for site in sites(normalised) if site.fits("ThinnedStack")] == ["one"]
    inputs = keras.Input((12,))
    x = L.Dense(12, "relu", name="branch")(inputs)
    residual = keras.Model(inputs, L.Dense(2)(L.Dense(12, "relu", name="inner")(x) + x))
    assert not any(site.fits("ThinnedStack") for site in sites(residual))
    shared = L.Dense(12, name="shared")
    assert not any(site.fits("ThinnedStack") for site in sites(keras.Model(inputs, L.Dense(1)(shared(shared(inputs))))))


def test_what_is_placed_is_found_and_taken_out_again(tmp_path):
    model = perceptron()
    placed = place(model, {"hidden": "ThinnedStack(0.5)"})
    placed.save(tmp_path / "m.keras")
    placed = keras.models.load_model(tmp_path / "m.keras")
    assert {site.name: [each["rate"] for each in site.dropout] for site in sites(placed) if site.group == "hidden"} == {
        "one": [0.5],
        "two": [0.5],
    }
    bare = strip(placed)
    assert [type(layer).__name__ for layer in bare.layers] == ["Dense", "ReLU", "Dense", "Dense"]
    np.testing.assert_array_equal(bare.predict(X, verbose=0), model.predict(X, verbose=0))
    other = place(placed, {"two": 0.3})
    assert [type(layer).__name__ for layer in other.layers] == ["Dense", "ReLU", "Dense", "Dropout", "Dense"]


def test_stacks_inside_a_nested_model_and_several_with_one_seed():
    block = keras.Sequential([keras.Input((12,)), L.Dense(32, "relu", name="up"), L.Dense(12, name="down")], name="block")
    inputs = keras.Input((12,))
    model = keras.Model(inputs, L.Dense(3)(L.Dense(32, "relu", name="last")(L.LayerNormalization()(block(inputs) + inputs))))
    placed = place(model, {"block/up": "ThinnedStack(0.5, seed=1)", "last": "ThinnedStack(0.5, seed=1)"})
    assert [each.rstrip("_0123456789") for names in stacks(placed) for each in names][:2] == ["up", "down"]
    np.testing.assert_array_equal(placed.predict(X, verbose=0), model.predict(X, verbose=0))
    seeds = [layer.seed for layer in placed._flatten_layers() if isinstance(layer, ThinnedStack)]
    assert len(set(seeds)) == 2


@pytest.mark.parametrize(
    ("words", "placement"),
    [
        ("in one ThinnedStack", {"one": "ThinnedStack(0.5)", "two": "ThinnedStack(0.25)"}),
        ("DropConnect around 'two'", {"one": "ThinnedStack(0.5)", "two": "DropConnect(0.25)"}),
        ("does not fit 'out'", {"out": "ThinnedStack(0.5)"}),
        ("fits no site of 'input'", {"input": "ThinnedStack(0.5)"}),
        ("none of 16 blocks", {"one": "ThinnedStack(0.01)"}),
        ("cannot follow a schedule", {"one": {"kind": "ThinnedStack", "rate": 0.5, "schedule": {}}}),
    ],
)
def test_stacks_that_cannot_be_are_refused_and_the_model_stays(words, placement):
    model = perceptron()
    with pytest.raises(BadInput, match=words) as refusal:
        keras_dropout.models.placement.resolve(
            model, {k: keras_dropout.notation.parse(v) if isinstance(v, str) else v for k, v in placement.items()}
        )
    assert len(str(refusal.value).splitlines()) == 2
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "ReLU", "Dropout", "Dense", "Dense"]


def test_a_study_trains_it_and_its_key_has_the_blocks(tmp_path):
    from keras_dropout.bench.compare import carry_out, make_plan

    y = (X[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.Input((12,)), L.Dense(32, "relu"), L.Dense(32, "relu"), L.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    thinned = {f"blocks of {n}": {"hidden": f"ThinnedStack(0.5, block_size={n})"} for n in (2, 8)}
    plan = make_plan(
        model, (X, y), variants=thinned, epochs=2, seeds=2, batch_size=8, workers=1, engine="compiled", ledger=tmp_path / "r.db"
    )
    found = carry_out(plan, quiet=True)
    losses = [found.values(name, "train_loss") for name in ("none", *thinned)]
    assert np.isfinite(losses).all()
    assert len({tuple(each) for each in losses}) == 3
