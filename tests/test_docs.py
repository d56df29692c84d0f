"""What the documents say is run: examples in docstrings, the README's program, its commands and options."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_dropout import layers
from keras_dropout.bench import data

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
jax_only = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the documents are about the default backend")


GROUPS = sorted(file.stem for file in Path(layers.__file__).parent.glob("[a-z]*.py") if file.stem != "base")
MODULES = [*(f"keras_dropout.layers.{group}" for group in GROUPS), "keras_dropout.placement", "keras_dropout.testing"]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


@jax_only
def test_the_readmes_program_runs(tmp_path):
    """On one seed and one epoch; Keras finds the images where we found them."""
    cache = tmp_path / "home" / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for file in data._find_fashion_mnist(None).glob("*.gz"):
        (cache / file.name).symlink_to(file)
    program = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "compare(" in block)
    assert "epochs=10" in program
    program = program.replace("epochs=10", "epochs=1, seeds=1, quiet=True")
    environment = os.environ | {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "strong" in done.stdout
    assert (tmp_path / "report.html").exists()


@jax_only
def test_the_readmes_commands_and_options_exist():
    commands = re.findall(r"^keras-dropout (\w+)(.*?)(?:#|$)", README, re.MULTILINE)
    assert len(commands) >= 4
    for command, options in commands:
        text = subprocess.run([sys.executable, "-m", "keras_dropout.cli", command, "--help"], capture_output=True, text=True).stdout
        for option in re.findall(r"--[a-z-]+", options):
            assert option in text, f"{command} {option}"
    targets = Path(__file__).resolve().parents[1].joinpath("Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert f"\n{target}:" in targets, target
