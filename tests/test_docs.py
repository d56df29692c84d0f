"""What the documents say is run: examples in docstrings, the README's program, its commands and options."""

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

from keras_dropout import catalogue, layers
from keras_dropout.bench import data

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
jax_only = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the documents are about the default backend")


GROUPS = sorted(file.stem for file in Path(layers.__file__).parent.glob("[a-z]*.py") if file.stem != "base")
OTHERS = ("placement", "testing", "thinning", "ensemble")
MODULES = [*(f"keras_dropout.layers.{group}" for group in GROUPS), *(f"keras_dropout.{module}" for module in OTHERS)]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.fixture(scope="module")
def generate():
    path = Path(__file__).resolve().parents[1] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@jax_only
def test_the_page_of_methods_is_fresh(generate):
    page = generate.page(catalogue.methods())
    assert (generate.HERE / "layers.md").read_text() == page, "run make docs"
    for linked in re.findall(r"\]\((pictures/[^)]+)\)", page):
        assert (generate.HERE / linked).exists(), linked
    anchors = {"#" + title.lower() for title in re.findall(r"^### (.*)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\((#[^)]+)\)", page)) == anchors


@jax_only
def test_pictures_are_fresh_small_and_well_formed(generate):
    drawn = generate.pictures(catalogue.methods())
    kept = {path.stem: path.read_text() for path in (generate.HERE / "pictures").glob("*.svg")}
    assert kept.keys() == drawn.keys(), "run make docs"
    for name, text in kept.items():
        assert text == drawn[name], f"{name}: run make docs"
        assert len(text.encode()) < 6000, name
        assert ElementTree.fromstring(text).findall("{*}path"), name


def test_a_picture_has_a_square_for_each_value(generate):
    """Blue, pale and orange lengths add up to the grid's counts."""
    grid = np.array([[2.0, 0, 0, -1], [2, 2, 2, 2]])
    text = generate.svg(generate.Picture([[("", grid)]], ""), "a")
    squares = {
        (kind, float(opacity)): sum((int(length) + 2) // 12 for length in re.findall(r"h(\d+)", path))
        for kind, opacity, path in re.findall(r'class="(\w)" opacity="([\d.]+)" d="([^"]+)"', text)
    }
    assert squares == {("p", 1.0): 5, ("z", 0.2): 2, ("n", 0.4): 1}


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
