"""Whatever is called on a model, and however it ends: the model and all its layers are what they were, to the last attribute."""

import gc
import importlib
import inspect
import weakref

import keras
import numpy as np
import pytest
from keras import ops

import keras_dropout
from keras_dropout import BadInput, RateScheduler, ensemble, moments, uncertainty
from keras_dropout.bench.compare import make_plan

L = keras.layers
JAX = keras.backend.backend() == "jax"
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(8, 6)).astype("float32"), np.arange(8) % 3
STEPS = rng.normal(size=(8, 5, 3)).astype("float32")


def likelihood(y, out):
    """A loss of one's own, which is not registered."""
    return ops.mean(ops.square(out), axis=-1)


class Followed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.drop = L.Dense(4, "relu"), L.BatchNormalization(), L.Dropout(0.3)
        self.out = L.Dense(3, "softmax")

    def call(self, x, training=False):
        return self.out(self.drop(self.norm(self.hidden(x), training=training), training=training))


class Unfollowed(Followed):
    """Its call cannot be followed, for it adds a loss."""

    def call(self, x, training=False):
        self.add_loss(ops.mean(x))
        return super().call(x, training=training)


def subclass(cls):
    model = cls()
    model(X)
    return model


def sequential(*layers, inputs=(6,)):
    return keras.Sequential([keras.Input(inputs), *layers])


def functional():
    x = keras.Input((6,))
    h = L.BatchNormalization()(keras_dropout.Dropout(0.3)(L.Dense(4, "relu")(x)))
    return keras.Model(x, L.Dense(3, "softmax")(h))


def nested():
    x = keras.Input((6,))
    block = sequential(L.Dense(6), L.Dropout(0.3))
    return keras.Model(x, L.Dense(3, "softmax")(block(block(x))))


def shared():
    x, dense = keras.Input((6,)), L.Dense(6)
    return keras.Model(x, L.Dense(3, "softmax")(dense(keras_dropout.Dropout(0.3)(dense(x)))))


def normalized():
    norm = L.Normalization()
    norm.adapt(X)
    return sequential(norm, L.Dense(4, "relu"), L.Dropout(0.3), L.Dense(3, "softmax"))


def stateful():
    recurrent = L.LSTM(4, stateful=True, dropout=0.2)
    return keras.Sequential([keras.Input(batch_shape=(8, 5, 3)), recurrent, L.Dense(3, "softmax")])


def several():
    return keras_dropout.MultiSampleDropout(0.3, sequential(L.Dense(4)), sequential(L.Dense(3, "softmax"), inputs=(4,)))


MODELS = {
    "Keras's dropout": lambda: sequential(L.Dense(4, "relu"), L.Dropout(0.3), L.Dense(3, "softmax")),
    "functional": functional,
    "nested": nested,
    "a shared layer": shared,
    "subclassed": lambda: subclass(Followed),
    "not followed": lambda: subclass(Unfollowed),
    "normalized": normalized,
    "stateful": stateful,
    "MultiSampleDropout": several,
}


def scheduled(model, pattern):
    scheduler = RateScheduler({pattern: 0.2})
    scheduler.set_model(model)
    scheduler.set_params({"epochs": 1, "steps": 1})
    scheduler.on_train_begin()


CALLS = {
    "sites": lambda m, x: keras_dropout.sites(m),
    "check": lambda m, x: keras_dropout.check(m, x),
    "place": lambda m, x: keras_dropout.place(m, {"hidden": 0.2}),
    "place, refused": lambda m, x: keras_dropout.place(m, {"nowhere": 0.2}),
    "set_rate": lambda m, x: keras_dropout.set_rate(m, 2.0),  # refused: what it is for does change the model
    "set_rate, nowhere": lambda m, x: keras_dropout.set_rate(m, {"nowhere": 0.2}),
    "RateScheduler": lambda m, x: scheduled(m, "*"),
    "RateScheduler, nowhere": lambda m, x: scheduled(m, "nowhere"),
    "ensemble.networks": lambda m, x: ensemble.networks(m),
    "uncertainty.predict": lambda m, x: uncertainty.predict(m, x, 3),
    "uncertainty.predict, examples": lambda m, x: uncertainty.predict(m, x[..., :1], 3),
    "uncertainty.predict, precision": lambda m, x: uncertainty.predict(m, x, 3, outputs="classes", precision=1.0),
}
LONG = {
    "check, run": lambda m, x: keras_dropout.check(m, x, run=True),
    "check, run on made-up inputs": lambda m, x: keras_dropout.check(m, run=True),
    "strip": lambda m, x: keras_dropout.strip(m),
    "thin": lambda m, x: keras_dropout.thin(m),
    "make_plan": lambda m, x: make_plan(m, ((x, Y), (x, Y)), variants={"a": {"hidden": 0.2}}, epochs=1, batch_size=4),
    "make_plan, refused": lambda m, x: make_plan(m, ((x, Y), (x, Y)), variants={"a": {"nowhere": 0.2}}, batch_size=4),
    "uncertainty.find_outputs": lambda m, x: uncertainty.find_outputs(m, lambda: np.ones((8, 3), "float32") / 3),
    "uncertainty.fit_precision": lambda m, x: uncertainty.fit_precision(m, x, np.ones((8, 3)), 3),
    "uncertainty.predict, quantiles": lambda m, x: uncertainty.predict(m, x, 3, quantiles=[0.5]),
    "moments.predict": lambda m, x: moments.predict(m, x, draws=2),
    "moments.propagate": lambda m, x: moments.propagate(m, x[:, :1]),
    "ensemble.exact_average": lambda m, x: ensemble.exact_average(m, x),
    "ensemble.average": lambda m, x: ensemble.average(m, x, Y, samples=2, masks="independent"),
}


def value(of):
    """What an attribute holds, with the values of variables and the contents of containers; other objects by identity."""
    if isinstance(of, (bool, int, float, str, type(None))):
        return of
    if isinstance(of, keras.Variable):
        return id(of), of.path, ops.convert_to_numpy(of).tobytes()
    if isinstance(of, np.ndarray) or ops.is_tensor(of):
        return ops.convert_to_numpy(of).tobytes()
    if isinstance(of, dict):
        return {name if isinstance(name, str) else id(name): value(each) for name, each in dict(of).items()}
    if isinstance(of, (list, tuple)):
        return [value(each) for each in of]
    return sorted(map(id, of)) if isinstance(of, (set, frozenset)) else id(of)


def state(model):
    """(owner, attribute) -> what it holds, for the model, its layers and its optimizer."""
    owners = [*model._flatten_layers(), *[each for each in [getattr(model, "optimizer", None)] if each is not None]]
    found = {(n, owner.name, name): value(of) for n, owner in enumerate(owners) for name, of in vars(owner).items()}
    return found | {
        (n, "tracker"): value(owner._tracker.stored_ids) for n, owner in enumerate(owners) if hasattr(owner, "_tracker")
    }


def changed(before, after):
    return [name for name in before.keys() | after.keys() if before.get(name, "-") != after.get(name, "-")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", [*(kind for kind in MODELS if kind != "normalized" or JAX), "functional, long", "subclassed, long"]
)
def test_a_model_is_what_it_was(kind):
    kind, _, long = kind.partition(", ")
    model, x = MODELS[kind](), STEPS if kind == "stateful" else X
    model.compile("adam", likelihood if kind == "a shared layer" else "sparse_categorical_crossentropy")
    if kind == "functional":
        model.fit(x, Y, batch_size=8, verbose=0)  # has an optimizer with a state, and Keras's programs
    calls = LONG if long else CALLS
    if not JAX:  # there a plan times runs in processes of their own
        calls = {name: call for name, call in calls.items() if not name.startswith("make_plan")}
    if kind == "normalized":
        calls = {name: call for name, call in LONG.items() if name.startswith("make_plan")}
    outcomes = {}
    for name, call in calls.items():
        before = state(model)
        try:
            call(model, x)
            outcomes[name] = "done"
        except (BadInput, TypeError) as error:
            outcomes[name] = str(error)
        assert not changed(before, state(model)), (name, outcomes[name])
    assert {"done"} < set(outcomes.values())
    if kind in ("not followed", "stateful"):  # where calls have failed, Keras still trains it and predicts
        if keras.backend.backend() != "torch" or kind != "stateful":  # on torch Keras cannot train a stateful LSTM
            model.fit(x, Y, batch_size=8, verbose=0)
        assert model.predict(x, batch_size=8, verbose=0).shape == (8, 3)


def takes_a_model(function):
    return inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") == "model"


def test_every_public_function_of_a_model_is_called():
    public = {name: getattr(keras_dropout, name) for name in keras_dropout.__all__}
    expected = {name for name, of in public.items() if takes_a_model(of)}
    for name in filter(lambda name: inspect.ismodule(public[name]), public):
        own = vars(importlib.import_module(f"keras_dropout.{name}")).items()
        expected |= {f"{name}.{n}" for n, f in own if takes_a_model(f) and f.__module__ == f"keras_dropout.{name}" and n[0] != "_"}
    assert len(expected) > 10
    assert expected - {"adopt"} <= {*CALLS, *LONG}  # adopt is for changing the model: tests/test_in_place.py


@pytest.mark.parametrize(
    "fault",
    [
        lambda model: setattr(model, "extra", 1),
        lambda model: model.layers[0](keras.Input((6,))),
        lambda model: model.layers[0].kernel.assign(ops.ones((6, 4))),
        lambda model: model.predict(X, verbose=0),
        lambda model: model.layers[0]._losses.append(ops.ones(())),
        lambda model: setattr(model.layers[0], "trainable", False),
    ],
)
def test_what_stays_is_seen(fault):
    model = MODELS["Keras's dropout"]()
    before = state(model)
    fault(model)
    assert changed(before, state(model))


class Draws(keras.Model):
    """Drops in its own call."""

    def __init__(self):
        super().__init__()
        self.dense, self.seeds = L.Dense(3), keras.random.SeedGenerator(1)
        self(X)

    def call(self, inputs, training=False):
        return keras.random.dropout(self.dense(inputs), 0.5, seed=self.seeds) if training else self.dense(inputs)


def test_what_was_compiled_goes_with_the_model():
    for make in (MODELS["subclassed"], MODELS["not followed"], several, Draws):
        model = make()
        uncertainty.predict(model, X, 2)
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None


def test_a_call_of_its_own_is_put_back():
    """A layer whose call was replaced on the instance has the same one afterwards, and it is the one that is used."""
    model = sequential(L.Dense(3, name="dense"), L.Dropout(0.5))
    layer = model.get_layer("dense")
    double = type(layer).call
    layer.call = own = lambda inputs, training=None: 2 * double(layer, inputs)
    found = uncertainty.predict(model, X, 400, outputs="values")
    assert layer.call is own
    assert np.abs(found.mean - model.predict(X, verbose=0)).max() < 5 * np.sqrt(found.variance.max() / 400)


def test_the_way_out_of_a_stateful_model_works():
    model = stateful()
    model.predict(STEPS, batch_size=8, verbose=0)
    with pytest.raises(BadInput, match=r"lstm.* is stateful") as refused:
        uncertainty.predict(model, STEPS, 3)
    assert "[v.numpy() for v in model.weights if v.name != 'rnn_state']" in str(refused.value)
    new = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, dropout=0.2), L.Dense(3, "softmax")])
    new.set_weights([v.numpy() for v in model.weights if v.name != "rnn_state"])
    model.get_layer(index=0).reset_states()
    np.testing.assert_allclose(new.predict(STEPS, verbose=0), model.predict(STEPS, batch_size=8, verbose=0), atol=1e-6)
    assert uncertainty.predict(new, STEPS, 3).variance.max() > 0


def test_uncertainty_while_a_model_is_trained():
    """In a callback of fit the weights are those of the moment, and training goes on."""
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(uncertainty.predict(self.model, X, 2, outputs="values").mean)

    model = functional()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[Look()])
    assert not np.allclose(seen[0], seen[2])
    np.testing.assert_allclose(uncertainty.predict(model, X, 2, outputs="values").mean, seen[2], atol=1e-6)
