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
