"""Which backend Keras is loaded with: found without loading one, in processes where only some seem to be installed."""

import json
import os
import subprocess
import sys

import pytest

CHOOSE = """
import importlib.util, os, sys
found, there = importlib.util.find_spec, sys.argv[1].split()
hidden = {"jax", "tensorflow", "torch"} - set(there)
importlib.util.find_spec = lambda name, *more: None if name in hidden else found(name, *more)
import keras_dropout
try:
    keras_dropout.__getattr__(sys.argv[2])
except keras_dropout.BadInput as error:
    print(error)
except ImportError:
    pass
print(os.environ.get("KERAS_BACKEND"))
assert "keras" not in sys.modules
"""
# A stand-in for Keras: it would take seconds, and is not what is tested.
STUB = "raise ImportError('no Keras here')"


def choose(tmp_path, there, said=None, configured=None, name="Dropout"):
    (tmp_path / "keras.py").write_text(STUB)
    if configured:
        (tmp_path / "keras.json").write_text(configured)
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    environment |= {"KERAS_BACKEND": said} if said else {}
    done = subprocess.run([sys.executable, "-c", CHOOSE, there, name], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("there", "configured", "expected"),
    [
        ("jax", None, "jax"),
        ("torch", None, "torch"),
        ("torch", "tensorflow", "torch"),  # Keras writes that file itself
        ("jax torch", None, "jax"),
        ("jax tensorflow torch", None, "None"),  # Keras's own choice
        ("tensorflow", None, "None"),
        ("jax torch", "torch", "None"),
        ("jax", "numpy", "None"),
    ],
)
def test_the_backend_that_is_there_is_taken(tmp_path, there, configured, expected):
    config = configured and json.dumps({"backend": configured})
    assert choose(tmp_path, there, configured=config) == [expected]


def test_what_was_said_counts(tmp_path):
    assert choose(tmp_path, "jax torch", said="torch") == ["torch"]
    first, second, _ = choose(tmp_path, "jax", said="torch")
    assert first == "KERAS_BACKEND is torch, which is not installed."
    assert second == "pip install 'keras-dropout[torch]', or set KERAS_BACKEND to jax, which is here."


def test_none_is_told_in_two_lines(tmp_path):
    first, second, _ = choose(tmp_path, "")
    assert first == "no backend of Keras is installed: none of jax, tensorflow and torch."
    assert second == "pip install 'keras-dropout[jax]', or [tensorflow] or [torch]."


@pytest.mark.parametrize("config", ["no json", "[]", '{"floatx": "float32"}'])
def test_a_configuration_that_says_nothing(tmp_path, config):
    assert choose(tmp_path, "jax", configured=config) == ["jax"]


def test_what_needs_no_keras_needs_no_backend(tmp_path):
    assert choose(tmp_path, "", name="metrics") == ["None"]


WITHOUT_THE_BENCH = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("altair", "cloudpickle", "jinja2", "scipy", "typer", "vl_convert"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def without_the_bench(program, *arguments, backend="jax"):
    block = WITHOUT_THE_BENCH if backend != "jax" else WITHOUT_THE_BENCH.replace('"scipy", ', "")  # JAX itself needs SciPy
    command, environment = [sys.executable, "-c", block + program, *arguments], os.environ | {"KERAS_BACKEND": backend}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_layers_and_models_need_no_bench(backend):
    done = without_the_bench(
        """
import keras_dropout as kd
import keras
import numpy as np
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
kd.adopt(model)
kd.set_rate(model, {"*": 0.25})
print(kd.sites(model), kd.check(model))
new = kd.place(kd.strip(model), {"hidden": 0.5})
x = np.ones((3, 4), "float32")
assert not np.array_equal(new(x, training=True), new(x, training=True))
kd.RateScheduler(kd.schedules.Linear(0, 0.5))
print(sorted(name for name in kd.__all__ if name[0].isupper() and getattr(kd, name)))
""",
        backend=backend,
    )
    assert done.returncode == 0, done.stderr
    assert "Dropout 0.25" in done.stdout


@pytest.mark.parametrize("name", ["compare", "tune", "uncertainty", "ensemble", "metrics", "compare_scores", "reproduce"])
def test_what_needs_the_bench_says_so(name):
    done = without_the_bench(
        f"""
import keras_dropout
try:
    found = keras_dropout.{name}
    found("tutorial-late")  # it is loaded on the first use
except keras_dropout.BadInput as error:
    print(error)
""",
        backend="torch",
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"keras_dropout.{name} needs ")
    assert second == "pip install 'keras-dropout[bench]'"


def test_the_command_without_the_bench_says_what_to_install():
    done = without_the_bench("from keras_dropout.__main__ import main\nmain()", "layers")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "keras-dropout: the command needs typer, which is not installed.\npip install 'keras-dropout[bench]'\n"
