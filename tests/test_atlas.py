"""Where to begin: which studies are asked, what they must say, and what is said where none is near."""

import itertools
import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_dropout.models import atlas
from keras_dropout.models.first_placement import advise_on


def row(site, rate, mean, verdict="no difference shown", kind="Dropout"):
    return {"kind": kind, "site": site, "rate": rate, "test_loss": [mean, mean - 0.01, mean + 0.01, verdict]}


def study(parameters, rows, data="cells", train=100):
    return {
        "data": data,
        "train": train,
        "inputs": 64,
        "hidden": [64, 64],
        "parameters": parameters,
        "seeds": 6,
        "none": {"test_loss": 0.5},
        "rows": rows,
    }


SMALL = study(1_000, [row("hidden", 0.2, -0.10, "better"), row("last", 0.5, -0.05, "better")], "small")
LARGE = study(100_000, [row("hidden", 0.2, 0.20, "worse"), row("last", 0.5, -0.30, "better")], "large")


def ask(*studies, kind="images", parameters=1_000, examples=100, depth=2, others=()):
    return atlas.advise(kind, parameters, examples, depth, others, studies)


def test_the_nearest_studies_are_asked_and_named():
    found = ask(SMALL, LARGE)
    assert found.placement == {"hidden": 0.2}
    text = str(found)
    for words in ("small, 100 training images, 64-64-64-10", "6 paired seeds", "-20 %", "-0.1100 to -0.0900", "better in 1 of 1"):
        assert words.lower() in text.lower(), text
    assert "large" not in text
    assert ask(SMALL, LARGE, parameters=100_000).placement == {"last": 0.5}


def test_two_sites_at_once_are_two_places():
    assert ask(study(1_000, [row("input and hidden", 0.1, -0.2, "better")])).placement == {"input": 0.1, "hidden": 0.1}


def test_other_kinds_than_plain_dropout_are_not_advised():
    assert ask(study(1_000, [row("hidden", 0.1, -0.9, "better", "DropConnect"), *SMALL["rows"]])).placement == {"hidden": 0.2}


@pytest.mark.parametrize("rows", [[row("hidden", 0.2, -0.1)], [row("hidden", 0.2, 0.1, "worse")]])
def test_what_is_not_shown_to_help_is_not_advised(rows):
    found = ask(study(1_000, rows))
    assert found.placement == {}
    assert "Begin without dropout" in str(found)


def test_what_is_worse_in_one_of_the_near_studies_is_not_advised():
    rows = [[row("hidden", 0.2, -0.3, "better")], [row("hidden", 0.2, 0.1, "worse")]]
    assert ask(study(1_000, rows[0]), study(1_100, rows[1])).placement == {}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"kind": "rows"}, "images only"),
        ({"others": ("Conv2D", "LSTM")}, "Conv2D, LSTM"),
        ({"depth": 9}, "9 hidden layers"),
        ({"parameters": 10**9}, "Nothing near"),
        ({"examples": None}, "with data"),
    ],
)
def test_where_nothing_is_near_it_says_so(asked, words):
    found = ask(SMALL, LARGE, **asked)
    assert found.placement is None
    assert words in str(found)


@given(st.floats(0.5, 2.0), st.integers(1, 10))
def test_scaling_model_and_data_alike_changes_nothing(factor, times):
    """Only parameters per training example count."""
    parameters = round(1_000 * factor)
    found = ask(SMALL, LARGE, parameters=parameters)
    assert found.placement
    assert found == ask(SMALL, LARGE, parameters=parameters * times, examples=100 * times)


def perceptron(*more):
    layers = [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), *more, keras.layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((8, 8)), *layers])


def test_a_model_is_asked_about_by_its_layers():
    images = np.zeros((3, 8, 8), "float32")
    assert "parameters per training example" in str(advise_on(perceptron(), images, 1_000))
    found = advise_on(perceptron(keras.layers.Reshape((8, 8)), keras.layers.LSTM(4)), images, 1_000)
    assert "the model has LSTM" in str(found)
    assert advise_on(perceptron()).placement is None


def test_the_packaged_atlas_is_small_and_whole():
    assert atlas.PATH.stat().st_size < 100_000
    document = json.loads(atlas.PATH.read_text())
    assert {"command", "date", "commit", "machine", "versions"} <= set(document)
    for each in atlas.read():
        assert atlas.advise("images", each["parameters"], each["train"], 2).placement is not None
        assert each["parameters"] == perceptron_parameters(each)
        assert len({(r["kind"], r["site"], r["rate"]) for r in each["rows"]}) == len(each["rows"])


def perceptron_parameters(each):
    sizes = [each["inputs"], *each["hidden"], 10]
    return sum((before + 1) * after for before, after in itertools.pairwise(sizes))
