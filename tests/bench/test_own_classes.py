"""Classes and functions of a program that no module gives: found, sent by value, hashed by their code; and optimizers of torch."""

import re
import subprocess
import sys
import threading
import types

import keras
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.study import own_classes
from keras_dropout.bench.study.checks import portable
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.bench.tuning.search import build
from keras_dropout.errors import BadInput
from keras_dropout.models import targets

PROGRAM = """
import keras

SCALE = {scale}

def scaled(x):
    return x * SCALE

class Block(keras.layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units, self.dense = units, keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return scaled(self.dense(x))

    def get_config(self):
        return {{**super().get_config(), "units": self.units}}

def own_loss(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)

def model():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1)(keras.layers.Dense(6, "relu")(Block(5, name="block")(x))))
    model.compile("sgd", own_loss)
    return model
"""
L = keras.layers
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
DATA = ((X, X[:, :1]), (X, X[:, :1]))


def program(scale=2.0):
    """What a script that is not a file leaves in `__main__`."""
    names = {"__name__": "__main__"}
    exec(PROGRAM.format(scale=scale), names)
    return names


def plan_of(names, tmp_path):
    settings = {"epochs": 1, "batch_size": 8, "seeds": 1, "engine": "reference", "workers": 1, "ledger": tmp_path / "r.db"}
    return make_plan(names["model"](), DATA, variants={"hidden": {"block": 0.5}}, **settings)


def test_unregistered_classes_of_a_script_train(tmp_path):
    """With nothing registered: Keras alone cannot make the model again, the study can."""
    before = dict(keras.saving.get_custom_objects())
    plan = plan_of(program(), tmp_path)
    assert set(own_classes._unpacked(plan.study.objects)) == {"Block", "own_loss"}
    assert dict(keras.saving.get_custom_objects()) == before
    for run in plan.study.runs():
        result = Trainer(plan.study, plan.data.parts("held-out"), 1).train(run)
        assert result.status == "done", result.error


@pytest.mark.parametrize("main", ["script.py", "/usr/lib/python3/dist-packages/profiler/__main__.py"])
def test_keys_follow_the_code_and_nothing_else(main, tmp_path, monkeypatch):
    """The same program gives the same keys, also what a method uses counts; whoever runs it, as a profiler may."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", main, raising=False)
    keys = [[run.key for run in plan_of(program(scale), tmp_path).study.runs()] for scale in (2.0, 2.0, 3.0)]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


B = """
import functools, keras
{before}
class B({base}):
    {inside}
    def call(self, x):
        return {value}
"""
USES = {  # how the number that a layer multiplies by may come into its code
    "a number": ("K = {n}", "x * K"),
    "a list": ("K = [{n}]", "x * K[0]"),
    "a mapping": ("K = {{'a': {n}}}", "x * K['a']"),
    "a set": ("K = {{{n}}}", "x * max(K)"),
    "an array": ("import numpy as np; K = np.array([{n}])", "x * K"),
    "a number in a lambda": ("K = {n}", "(lambda y: y * K)(x)"),
    "a function in a lambda": ("def f(y): return y * {n}", "(lambda y: f(y))(x)"),
    "a lambda": ("f = lambda y: y * {n}", "f(x)"),
    "an object": ("class C:\n    def __init__(self, v): self.v = v\nc = C({n})", "x * c.v"),
    "a class": ("class C:\n    v = {n}", "x * C.v"),
    "a partial function": ("def g(a, b): return a * b\nf = functools.partial(g, {n})", "f(x)"),
    "a closure": ("def g(n):\n    def f(y): return y * n\n    return f\nf = g({n})", "f(x)"),
    "a decorator": (
        "def d(f):\n    def g(*a): return f(*a) * {n}\n    return functools.wraps(f)(g)\n@d\ndef f(y): return y",
        "f(x)",
    ),
    "another module": ("import own_module_{n} as own_module", "x * own_module.K"),
    "a module's function": ("from own_module_{n} import f", "f(x)"),
    "an initializer": ("K = keras.initializers.Constant({n})", "x * K(())"),
    "a base class": ("class A(keras.Layer):\n    def f(self, y): return y * {n}", "self.f(x)", "A"),
    "an attribute of the class": ("K = {n}", "x * self.k", "keras.Layer", "k = K"),
    "a property": ("K = {n}", "x * self.k", "keras.Layer", "k = property(lambda self: K)"),
    "a static method": ("K = {n}", "x * self.k()", "keras.Layer", "k = staticmethod(lambda: K)"),
    "a default": ("K = {n}", "self.f(x)", "keras.Layer", "def f(self, x, k=K): return x * k"),
}


@pytest.mark.parametrize("way", USES)
def test_a_key_follows_whatever_the_code_uses(way, tmp_path, monkeypatch):
    """In files, so that each has its source: the same number twice gives the same hash, another one another."""
    before, value, base, inside = (*USES[way], *("keras.Layer", "pass")[len(USES[way]) - 2 :])
    monkeypatch.syspath_prepend(tmp_path)
    hashes, outputs = [], []
    for number, n in enumerate((1, 1, 2)):
        (tmp_path / f"own_module_{n}.py").write_text(f"K = {n}\ndef f(y): return y * K\n")
        path = tmp_path / f"program_{number}.py"
        path.write_text(B.format(before=before.format(n=n), value=value, base=base, inside=inside))
        module = targets.import_file(path)
        hashes.append(own_classes.hash_of({"B": module.B}))
        outputs.append(float(keras.ops.convert_to_numpy(module.B()(np.ones(1, "float32")))[0]))
    assert outputs == [1, 1, 2]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_file_that_is_hashed_as_a_whole_counts_by_what_it_uses_of_others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "study_of_a_file.py"
    path.write_text("import keras\nclass B(keras.Layer):\n    def call(self, x): return x\n")
    module = targets.import_file(path)
    assert own_classes.hash_of({"B": module.B}, read=module.__name__) is None
    assert own_classes.hash_of({"Dense": keras.layers.Dense}) is None
    (tmp_path / "own_helper.py").write_text("def f(x): return x\n")
    path = tmp_path / "study_of_two_files.py"
    path.write_text("import keras, own_helper\nclass B(keras.Layer):\n    def call(self, x): return own_helper.f(x)\n")
    module = targets.import_file(path)
    assert own_classes.hash_of({"B": module.B}, read=module.__name__) is not None


def doubling(scope, factor, kind="Block"):
    """A class of a script, of the same name as others."""
    names = {"__name__": scope, "keras": keras}
    exec(f"class {kind}(keras.layers.Layer):\n    def call(self, x):\n        return x * {factor}", names)
    return names[kind]


def error(y, p, by=100.0):
    return keras.ops.mean(keras.ops.abs(y - p)) * by


def of_name(name, by):
    found = types.FunctionType(error.__code__, error.__globals__, name, (by,))
    found.__qualname__ = name
    return found


def planned(*layers, loss="mse", metrics=(), tmp_path):
    x = y = keras.Input((4,))
    for layer in (L.Dense(6, "relu"), *layers, L.Dense(1)):
        y = layer(y)
    model = keras.Model(x, y)
    model.compile("sgd", loss, metrics=list(metrics))
    return make_plan(model, DATA, epochs=1, batch_size=8, seeds=1, engine="reference", workers=1, ledger=tmp_path / "r.db")


def registered(cls, name):
    return keras.saving.register_keras_serializable("test_own_classes", name=name)(cls)


def gelu(x):
    return x * 5.0


CLASHES = {
    "two classes": lambda: {"layers": (doubling("a", 2.0)(), doubling("b", -1.0)())},
    "a class of Keras's": lambda: {"layers": (L.LayerNormalization(), doubling("a", 2.0, "LayerNormalization")())},
    "the same in another order": lambda: {"layers": (doubling("a", 2.0, "LayerNormalization")(), L.LayerNormalization())},
    "two functions": lambda: {"loss": of_name("error", 1.0), "metrics": [of_name("error", 2.0)]},
    "a metric of Keras's by its name": lambda: {"loss": of_name("mse", 1.0), "metrics": ["mse"]},
    "a metric of Keras's": lambda: {"loss": of_name("mean_squared_error", 1.0), "metrics": [keras.losses.mean_squared_error]},
    "an activation of Keras's": lambda: {"layers": (L.Dense(4, gelu), L.Dense(4, "gelu"))},
    "an activation alone, which Keras saves by its name": lambda: {"layers": (L.Dense(4, gelu),)},
    "a class that was registered anew": lambda: {
        "layers": [registered(doubling(keras.__name__ + "_own", factor), "Again")() for factor in (2.0, 3.0)][:1]
    },
}


@pytest.mark.parametrize("case", CLASHES)
def test_no_class_or_function_is_trained_as_another_of_its_name(case, tmp_path):
    given = CLASHES[case]()
    with pytest.raises(BadInput, match=r"two different objects are called|made again from its configuration"):
        planned(*given.pop("layers", ()), **given, tmp_path=tmp_path)


def test_classes_of_one_name_are_registered_under_two(tmp_path):
    """As the refusal says: the model that trains computes what the user's does."""
    layers = [registered(doubling("__main__", factor), f"Times{factor:g}")() for factor in (2.0, -3.0)]
    made = build(planned(*layers, tmp_path=tmp_path).study)
    assert [float(layer(np.ones(()))) for layer in made.layers if type(layer).__name__ == "Block"] == [2.0, -3.0]


@pytest.mark.parametrize(
    "given",
    [
        {"loss": of_name("mse", 1.0), "metrics": ["mae"]},
        {
            "loss": keras.losses.mean_squared_error,
            "metrics": ["mse", keras.losses.mean_absolute_error],
        },
        {"layers": (L.Dense(4, "relu"), L.Dense(4, keras.ops.relu), L.Dense(4, keras.activations.relu))},
    ],
)
def test_what_means_the_same_is_no_clash(given, tmp_path):
    planned(*given.pop("layers", ()), **given, tmp_path=tmp_path)


def test_what_cannot_be_sent_is_refused():
    lock = threading.Lock()

    def holds():
        return lock

    with pytest.raises(BadInput, match="cannot be sent to the processes that train"):
        own_classes.packed({"holds": holds})


def test_optimizers_are_those_of_every_backend():
    made = keras.optimizers.serialize(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 100)))
    inner = {"module": "keras.src.backend.torch.optimizers.torch_adam", "class_name": "Adam", "registered_name": "Adam"}
    swapped = portable({"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": {**inner, "config": made["config"]}}})
    again = keras.optimizers.deserialize(swapped["config"]["inner_optimizer"])
    assert isinstance(again, keras.optimizers.Adam)
    assert keras.ops.convert_to_numpy(again.learning_rate) == pytest.approx(0.1)
    assert portable(made)["module"] == "keras.optimizers"


TUTORIAL = """
from tensorflow import keras
import numpy as np

x, y = np.random.default_rng(0).random((400, 28, 28)), np.arange(400) % 10
x[np.arange(400), 2 * y] += 1
x_train, y_train, x_test, y_test = x[:300], y[:300], x[300:], y[300:]

class CustomModel(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten(input_shape=(28, 28))
        self.hidden_1 = keras.layers.Dense(20, activation="relu")
        self.hidden_2 = keras.layers.Dense(10, activation="relu")
        self.classes = keras.layers.Dense(10, activation="softmax")
        self.dropout = keras.layers.Dropout(0.2)

    def call(self, inputs):
        x = self.dropout(self.flatten(inputs))
        x = self.dropout(self.hidden_1(x))
        x = self.dropout(self.hidden_2(x))
        return self.classes(x)

model = CustomModel()
model.compile(optimizer=keras.optimizers.SGD(learning_rate=0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=1, validation_data=(x_train[:50], y_train[:50]), verbose=0)

import keras_dropout

print([(site.name, site.group, [d["rate"] for d in site.dropout]) for site in keras_dropout.sites(model)])
print(keras_dropout.check(model))
found = keras_dropout.compare(model, ((x_train, y_train), (x_test, y_test)), epochs=1, seeds=1, workers=1, quiet=True)
losses = {each["name"]: each["mean"]["test_loss"] for each in found.document()["variants"]}
assert list(losses) == ["none", "as-built", "hidden", "last"] and len(set(losses.values())) == 4, losses
print(found.study.backend)
"""


def as_script(folder):
    (folder / "tutorial.py").write_text(TUTORIAL)
    ran = subprocess.run([sys.executable, "tutorial.py"], cwd=folder, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def as_notebook(folder):
    """Each paragraph a cell, in a kernel of its own."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in re.split(r"\n\n(?=\S)", TUTORIAL.strip())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="starts a process for each backend")
@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
@pytest.mark.parametrize("run", [as_script, as_notebook])
def test_the_program_of_the_tutorials_reader(run, backend, tmp_path, monkeypatch):
    """As its reader has it, with three lines appended: a class of the script, not registered, one dropout called three times."""
    monkeypatch.setenv("KERAS_BACKEND", backend)
    sites, mistakes, last = run(tmp_path).splitlines()
    assert sites.count("0.2") == 3
    assert mistakes == "no known mistake with dropout found"
    assert last == backend
