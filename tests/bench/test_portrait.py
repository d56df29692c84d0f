"""The network as plain values: its layers, its dropout, and masks that are those of training, seen from inside of a training."""

import dataclasses
import json
import random

import keras
import numpy as np
import pytest

import keras_dropout as kd
from keras_dropout import schedules
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.records import Variant
from keras_dropout.bench.report.network_data import portrait
from keras_dropout.bench.training.build import build
from keras_dropout.bench.training.reference import ReferenceTraining

L = keras.layers
BACKEND = keras.backend.backend()
ENGINES = [("reference", 8), ("compiled", 3)] if BACKEND == "jax" else [("reference", 3)]  # one step an epoch, or three


@keras.saving.register_keras_serializable("test_portrait")
class Probe(L.Layer):
    """Passes on what it gets, and keeps the first example of the last batch that it was trained on."""

    def build(self, shape):
        self.seen = self.add_weight(shape=shape[1:], initializer="zeros", trainable=False, name="seen")

    def call(self, inputs, training=False):
        if training:
            self.seen.assign(inputs[0])
        return inputs


def ones(units, name):
    """A layer whose outputs are ones."""
    return L.Dense(units, kernel_initializer="zeros", bias_initializer="ones", trainable=False, name=name)


def compiled(model):
    model.compile("sgd", "mse")
    return model


def study_of(model, shape, variants, examples=10, **settings):
    data = (np.ones((examples, *shape), "float32"), np.arange(examples, dtype="float32")[:, None])
    settings = {"batch_size": 4, "epochs": 3, "seeds": [7, 8], "engine": "reference", "backend": BACKEND} | settings
    return make_plan(
        model, (data, data), variants=variants, ledger="unused.db", data_options={"validation_split": 0.2}, **settings
    ).study


def chain():
    """One layer of dropout of this library, shared by an input and a hidden layer."""
    drop = kd.Dropout(0.3, name="drop")
    x = inputs = keras.Input((6,), name="x")
    x = Probe(name="probe_x")(drop(x))
    x = Probe(name="probe_a")(drop(ones(13, "a")(x)))
    return compiled(keras.Model(inputs, L.Dense(1)(x)))


def branches():
    inputs = keras.Input((6,), name="x")
    a, b = (Probe(name=f"probe_{name}")(ones(units, name)(inputs)) for name, units in (("a", 11), ("b", 5)))
    b = Probe(name="probe_c")(ones(11, "c")(b))
    return compiled(keras.Model(inputs, L.Dense(1)(L.Add()([a, b]))))


def images():
    layers = [
        L.Conv2D(5, 3, kernel_initializer="zeros", bias_initializer="ones", trainable=False, name="maps"),
        L.ReLU(),
        Probe(name="probe_maps"),
        L.Conv2D(3, 2, kernel_initializer="zeros", bias_initializer="ones", trainable=False, name="small"),
        Probe(name="probe_small"),
        L.Flatten(),
        L.Dense(1),
    ]
    return compiled(keras.Sequential([keras.Input((6, 6, 2), name="x"), *layers]))


def steps_in_time():
    layers = [keras.Input((4, 3), name="x"), Probe(name="probe_x"), L.Flatten(), ones(8, "a"), Probe(name="probe_a"), L.Dense(1)]
    return compiled(keras.Sequential(layers))


CASES = {
    "a layer called twice": (chain, (6,), None, {"x": "probe_x", "a": "probe_a"}),
    "branches and schedules": (
        branches,
        (6,),
        {"a": "linear(0.8, 0.0)", "b": "step([0.1, 0.7], at=[0.5])", "c": 0.4},
        {"a": "probe_a", "b": "probe_b", "c": "probe_c"},
    ),
    "maps and single entries of them": (
        images,
        (6, 6, 2),
        {"maps": "SpatialDropout2D(0.5)", "small": 0.4},
        {"maps": "probe_maps", "small": "probe_small"},
    ),
    "masks shared over steps": (
        steps_in_time,
        (4, 3),
        {"x": "LockedDropout(0.5)", "a": "Dropout(0.5)"},
        {"x": "probe_x", "a": "probe_a"},
    ),
}


def training_of(study, engine, shape):
    run = next(run for run in study.runs() if run.variant.name == "tried")
    model, rates = build(study, run)
    count = study.data.train
    parts = {"train": (np.ones((count, *shape), "float32"), np.ones((count, 1), "float32"))}
    if engine == "compiled":
        from keras_dropout.bench.training.compiled import CompiledPrograms

        return model, CompiledPrograms(parts_of(parts), study.batch_size, 1.0).start(model, run.variant, rates, study.epochs)
    return model, ReferenceTraining(model, parts, study.batch_size, 1.0, rates, study.epochs)


def parts_of(parts):
    from keras_dropout.bench.data.dataset import Part

    return {name: Part(*part) for name, part in parts.items()}


def bits(step, place, site):
    """The mask of a site as truth values in its shape."""
    count = int(np.prod(site["mask"]))
    packed = np.frombuffer(bytes.fromhex(step["masks"][place]), "uint8")
    return np.unpackbits(packed, count=count).astype(bool).reshape(site["mask"])


@pytest.mark.parametrize(("engine", "batch_size"), ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_masks_are_those_of_training(name, engine, batch_size):
    make, shape, placement, probes = CASES[name]
    study = study_of(make(), shape, [Variant.of("tried", placement)], batch_size=batch_size)
    found = portrait(study, steps=100)
    drawn, sites = found["steps"]["tried"], found["variants"]["tried"]
    assert {each["site"] for each in sites} == set(probes)
    assert [step["step"] for step in drawn["steps"]] == list(range(1, study.epochs * drawn["epoch_steps"] + 1))
    model, training = training_of(study, engine, shape)
    variables = [v.path for v in (*model.trainable_variables, *model.non_trainable_variables)]
    for epoch in range(1, study.epochs + 1):
        training.epoch(np.arange(study.data.train, dtype="int32"))
        values = dict(zip(variables, map(np.asarray, training.values())))
        step = drawn["steps"][epoch * drawn["epoch_steps"] - 1]
        for place, site in enumerate(sites):
            seen = values[f"{probes[site['site']]}/seen"]
            kept = np.broadcast_to(bits(step, place, site), seen.shape)
            np.testing.assert_array_equal(seen != 0, kept)
            assert seen[kept] == pytest.approx(1 / (1 - step["rates"][place]), rel=1e-5)


def test_it_is_the_first_seed_and_other_seeds_have_other_masks():
    first, other = (
        portrait(study_of(chain(), (6,), [Variant.of("tried", None)], seeds=seeds))["steps"]["tried"] for seeds in ([7, 8], [8, 7])
    )
    assert (first["seed"], other["seed"]) == (7, 8)
    assert all(a["masks"] != b["masks"] for a, b in zip(first["steps"], other["steps"]))


def test_as_many_are_kept_as_the_rate_says():
    model = compiled(keras.Sequential([keras.Input((6,), name="x"), L.Dense(4000, name="wide"), L.Dense(1)]))
    study = study_of(model, (6,), {"tried": {"wide": "linear(0.9, 0.1)"}}, epochs=50)
    drawn, (site,) = (portrait(study)[key]["tried"] for key in ("steps", "variants"))
    assert site["schedule"] == "linear(0.9, 0.1)"
    schedule, total = schedules.Linear(0.9, 0.1), 50 * drawn["epoch_steps"]
    assert len(drawn["steps"]) == 12
    assert [step["step"] for step in drawn["steps"]][:4] == [1, 2, 3, 4]
    assert drawn["steps"][-1]["step"] == total
    for step in drawn["steps"]:
        rate = schedule((step["step"] - 1) / total)
        assert step["rates"] == [pytest.approx(rate, abs=1e-6)]
        assert abs(bits(step, 0, site).mean() - (1 - rate)) < 5 * (rate * (1 - rate) / 4000) ** 0.5
    masks = [step["masks"][0] for step in drawn["steps"]]
    assert len(set(masks)) == len(masks)


def test_the_nodes_are_the_model_without_dropout():
    study = study_of(branches(), (6,), {"tried": {"b": 0.5}, "around": {"b": "DropConnect(0.2)"}, "built": None})
    found = portrait(study)
    names = [node["name"] for node in found["nodes"]]
    assert sorted(names[:7]) == ["a", "b", "c", "probe_a", "probe_b", "probe_c", "x"]
    assert names[0] == "x"
    for number, node in enumerate(found["nodes"]):
        assert all(before < number for before in node["inputs"])
    by_name = dict(zip(names, found["nodes"]))
    assert by_name["b"] == {"name": "b", "kind": "Dense", "shape": [5], "units": 5, "parameters": 35, "inputs": [0]}
    assert [names[n] for n in found["nodes"][-2]["inputs"]] == ["probe_a", "probe_c"]
    assert found["variants"]["none"] == found["variants"]["built"] == []
    (site,) = found["variants"]["around"]
    assert site["kind"] == "DropConnect"
    assert site["mask"] is None
    assert names[site["node"]] == "b"
    assert set(found["steps"]) == {"tried", "around"}
    assert found["steps"]["around"]["steps"][0] == {"step": 1, "rates": [0.2], "masks": [None]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@keras.saving.register_keras_serializable("test_portrait")
class Followed(keras.Model):
    """A subclass whose call can be followed, but whose layers have other names each time it is made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.drop, self.second = L.Dense(8, "relu"), kd.Dropout(0.5), L.Dense(1)

    def call(self, inputs, training=False):
        return self.second(self.drop(self.first(self.drop(inputs, training=training)), training=training))


@keras.saving.register_keras_serializable("test_portrait")
class Hidden(Followed):
    """A subclass that does something else in training."""

    def call(self, inputs, training=False):
        return super().call(-inputs if training else inputs, training=training)


@keras.saving.register_keras_serializable("test_portrait")
class Twice(keras.Model):
    """A functional model with a training step of its own: it may call its layers as often as it likes."""

    def train_step(self, *args):
        return super().train_step(*args)


def test_a_subclass_that_can_be_followed():
    model = compiled(Followed())
    model(np.ones((1, 6)))
    found = portrait(study_of(model, (6,), {"built": None}))
    assert [node["kind"] for node in found["nodes"]] == ["Input", "Dense", "Dense"]
    assert [(site["node"], site["mask"]) for site in found["variants"]["built"]] == [(0, [6]), (1, [8])]


def test_what_cannot_be_seen_is_left_out():
    recurrent = compiled(keras.Sequential([keras.Input((4, 3)), L.SimpleRNN(6, dropout=0.3), L.GaussianDropout(0.25), L.Dense(1)]))
    found = portrait(study_of(recurrent, (4, 3), {"built": None}))
    assert [(site["kind"], site["rate"], site["mask"]) for site in found["variants"]["built"]] == [
        ("SimpleRNN(dropout)", 0.3, None),
        ("GaussianDropout", 0.25, None),
    ]
    layers = [keras.Input((8, 3)), kd.PatchDropout(0.5), kd.Dropout(0.5), L.GlobalAveragePooling1D(), L.Dense(1)]
    patches = portrait(study_of(compiled(keras.Sequential(layers)), (8, 3), [Variant.of("built", None)]))
    assert [(site["kind"], site["mask"]) for site in patches["variants"]["built"]] == [("PatchDropout", None), ("Dropout", None)]
    inputs = keras.Input((6,))
    own = compiled(Twice(inputs, L.Dense(1)(kd.Dropout(0.5)(inputs))))
    assert portrait(study_of(own, (6,), [Variant.of("built", None)]))["variants"]["built"][0]["mask"] is None
    big = compiled(keras.Sequential([keras.Input((6,), name="x"), L.Dense(5000), L.Dense(3000), L.Dense(1)]))
    assert [site["mask"] for site in portrait(study_of(big, (6,), {"tried": {"hidden": 0.5}}))["variants"]["tried"]] == [
        None,
        [3000],
    ]


def test_nothing_is_made_of_a_model_that_cannot_be_followed():
    study = study_of(chain(), (6,), {"built": None})
    model = {"module": "test_portrait", "class_name": "Hidden", "config": {}, "registered_name": "test_portrait>Hidden"}
    model["build_config"] = {"input_shape": (None, 6)}
    assert portrait(dataclasses.replace(study, model=model)) is None


def test_python_s_random_numbers_stay_what_they_were():
    study = study_of(chain(), (6,), {"built": None})
    random.seed(3)
    portrait(study)
    drawn = random.random()
    random.seed(3)
    assert drawn == random.random()
