"""Models that are made again: classes of the user's own for one run after another, and a saved file in a fresh process."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_dropout import Dropout
from keras_dropout.bench.study.planning import make_plan
from keras_dropout.bench.training.build import make
from keras_dropout.bench.training.trainer import Trainer

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="studies are planned on the default backend")

MODEL = '''
import keras

@keras.saving.register_keras_serializable("test_subclassed")
class Net(keras.Model):
    """Its layers have no names, and it has a dropout of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = keras.layers.Dense(6, "relu")
        self.drop = keras.layers.Dropout(0.3)
        self.classes = keras.layers.Dense(3, "softmax")

    def call(self, x):
        return self.classes(self.drop(self.first(x)))

@keras.saving.register_keras_serializable("test_subclassed")
class Twice(keras.Model):
    """Functional by its constructor, which also takes inputs and outputs."""

    def __init__(self, **options):
        if "inputs" not in options:
            x = keras.Input((4,))
            options |= {"inputs": x, "outputs": keras.layers.Dense(3, "softmax")(keras.layers.Dense(6, "relu")(x))}
        super().__init__(**options)

def finish(model):
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def net():
    model = Net()
    model(keras.ops.zeros((1, 4)))
    return finish(model)

def twice():
    return finish(Twice())
'''


@pytest.mark.parametrize("name", ["net", "twice"])
def test_a_class_is_made_for_each_run(name, tmp_path):
    """With and without dropout, three times over: the same weights' shapes, and the site that the plan names is there."""
    (tmp_path / "own_model.py").write_text(MODEL)
    keras.layers.Dense(1)  # so that automatic names are counted from elsewhere
    x, y = np.random.default_rng(0).normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
    plan = make_plan(
        f"{tmp_path / 'own_model.py'}:{name}",
        ((x, y), (x, y)),
        variants={"half": {"hidden": 0.5}, "as-built": "as-built"},
        epochs=1,
        batch_size=16,
        engine="compiled",
        workers=1,
        ledger=tmp_path / "runs.db",
    )
    shapes = [(4, 6), (6,), (6, 3), (3,)]
    placed = {variant.name: variant.placement for variant in plan.study.variants}
    (site,) = placed["half"]
    for _ in range(3):
        for variant in plan.study.variants:
            model, _ = make(plan.study, variant)
            assert [tuple(w.shape) for w in model.trainable_weights] == shapes, variant.name
            assert site in {layer.name for layer in model._flatten_layers()}
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1)
    results = [trainer.train(run) for run in plan.study.runs()[:6]]
    assert [result.status for result in results] == ["done"] * 6


def test_a_saved_model_with_our_layers_in_a_fresh_process(tmp_path):
    """Keras knows them only where their modules have been imported."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), Dropout(0.5), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(60, 4)), y=np.arange(60) % 3)
    code = (
        "from keras_dropout.bench.study.planning import make_plan\n"
        "plan = make_plan('model.keras', 'data.npz', engine='compiled')\n"
        "print(*(variant.name for variant in plan.study.variants))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["none", "as-built", "hidden", "last"], done.stderr
