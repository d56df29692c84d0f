"""What a type checker says to a program that uses the public names, right and wrong."""

import ast
from pathlib import Path

import keras
import pytest
from mypy import api

import keras_dropout
from keras_dropout import layers

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="types are the same on every backend")
SOURCE = Path(__file__).resolve().parents[1] / "src"
RIGHT = """
import keras
import numpy as np

import keras_dropout
from keras_dropout import Dropout, compare, schedules, uncertainty

model: keras.Model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), Dropout(0.2, seed=1), keras.layers.Dense(1)])
placed = keras_dropout.place(model, {"hidden": 0.2, "input": Dropout(0.1), "last": {"kind": "GaussianDropout", "rate": 0.3}})
names: list[str] = [site.name for site in keras_dropout.sites(placed)]
rules: list[str] = [mistake.rule for mistake in keras_dropout.check(placed, np.zeros((2, 4)))]
verdicts: list[str] = [row.verdict for row in keras_dropout.check(model, run=True).layers]
schedule: schedules.Schedule = schedules.Linear(0.5, 0.0)
callback = keras_dropout.RateScheduler(schedule)
rates: list[float] = keras_dropout.linear_decay(0.2, 5)
found = compare(model, data=((1, 2), (3, 4)), variants={"half": {"hidden": 0.5}}, seeds=[0, 1], report="report.html", epochs=2)
word: str = found.verdicts["half"]["test_loss"]
predicted = uncertainty.predict(model, np.zeros((2, 4)), samples=10, quantiles=[0.05, 0.95])
spread = predicted.variance + predicted.predictive_variance
tuned = keras_dropout.tune("digits-mlp", variants={"half": {"hidden": 0.5}}, trials=4, kinds=("Dropout",), seeds=6, workers=1)
verdict: str = keras_dropout.reproduce("srivastava-rate", quick=True, seeds=8).verdict
try:
    keras_dropout.set_rate(model, 0.3)
except keras_dropout.BadInput as error:
    print(error)
"""
WRONG = {
    'keras_dropout.Dropout(rate="a")': 'Argument "rate" to "Dropout"',
    "keras_dropout.DropBlock2D(0.1, block_size=None)": 'Argument "block_size" to "DropBlock2D"',
    "keras_dropout.place(model, 0.2)": 'Argument 2 to "place"',
    'keras_dropout.compare(model, quiet="yes")': 'Argument "quiet" to "compare"',
    "keras_dropout.compare(model, epoch=5)": 'Unexpected keyword argument "epoch" for "compare"',
    'keras_dropout.compare(model, workers="2")': 'Argument "workers" to "compare"',
    "keras_dropout.tune(model, trails=4)": 'Unexpected keyword argument "trails" for "tune"',
    'keras_dropout.reproduce("srivastava-rate", epochs=2)': 'Unexpected keyword argument "epochs" for "reproduce"',
    'keras_dropout.reproduce("srivastava-rate", seeds=["0"])': 'Argument "seeds" to "reproduce"',
    'keras_dropout.uncertainty.predict(model, x, samples="10")': 'Argument "samples" to "predict"',
    'keras_dropout.schedules.Early("0.1", 0.5)': 'Argument 1 to "Early"',
    "keras_dropout.check(model).verdict": 'has no attribute "verdict"',
    "keras_dropout.Dropuot(0.2)": 'no attribute "Dropuot"',
}


@pytest.fixture
def errors(tmp_path, monkeypatch):
    """errors(program): what is said of it, by line. Other packages are left out, so that it takes seconds."""
    monkeypatch.setenv("MYPYPATH", str(SOURCE))

    def errors(program):
        path = tmp_path / "program.py"
        path.write_text(program)
        options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
        said, failure, _ = api.run([*options, f"--cache-dir={tmp_path / 'cache'}", "--no-error-summary", str(path)])
        assert not failure
        return {int(line.split(":")[1]): line for line in said.splitlines() if ": error: " in line}

    return errors


def test_right_and_wrong_uses_are_told_apart(errors):
    assert errors(RIGHT) == {}
    found = errors("\n".join(["from typing import Any", "import keras_dropout", "model: Any = None", "x: Any = None", *WRONG]))
    for line, (use, words) in enumerate(WRONG.items(), start=5):
        assert words in found.get(line, ""), use
    assert len(found) == len(WRONG)


@pytest.mark.parametrize(
    ("function", "wrong", "hint"),
    [("compare", "seed", " Did you mean 'seeds'?"), ("tune", "trial", " Did you mean 'trials'?"), ("tune", "colour", "")],
)
def test_a_misspelt_setting_is_said_of_the_function_that_was_called(function, wrong, hint):
    with pytest.raises(TypeError) as said:
        getattr(keras_dropout, function)("digits-mlp", **{wrong: 3})
    assert str(said.value) == f"{function}() got an unexpected keyword argument {wrong!r}.{hint}"


def test_the_stub_has_the_public_names_and_their_homes():
    stub = ast.parse((SOURCE / "keras_dropout" / "__init__.pyi").read_text())
    homes = {}
    for node in ast.walk(stub):
        if isinstance(node, ast.ImportFrom):
            home = node.module.removeprefix("keras_dropout").removeprefix(".")
            homes |= dict.fromkeys(layers.__all__ if node.names[0].name == "*" else [alias.name for alias in node.names], home)
    assert homes == keras_dropout._HOME | dict.fromkeys(keras_dropout._MODULES, "")
    (said,) = (node.value for node in stub.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    assert sorted([*ast.literal_eval(said), *layers.__all__]) == keras_dropout.__all__
