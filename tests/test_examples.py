"""The example of active learning on the digits, at a small size; that of pruning takes a minute and is not run here."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_dropout import uncertainty

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the examples are of the default backend")
SMALL = ("--data", "digits", "--seeds", "2", "--rounds", "2", "--first", "20", "--more", "20")
TINY = (*SMALL, "--units", "16", "--candidates", "100", "--samples", "5", "--steps", "40")


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).resolve().parents[1] / "examples" / "active_learning.py"
    spec = importlib.util.spec_from_file_location("active_learning", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits(example):
    return example.load("digits")


def test_the_same_seeds_give_the_same_report(example, capsys):
    example.main(list(TINY))
    first = capsys.readouterr().out
    example.main(list(TINY))
    assert capsys.readouterr().out == first
    assert re.findall(r"^(\d+) ", first, re.MULTILINE) == ["20", "40", "60"]
    row = re.search(r"^20 .*$", first, re.MULTILINE)[0]
    assert len(set(re.findall(r"(0\.\d+) \(", row))) == 1, "all begin with the same images and weights"
    assert re.findall(r"^(.*): [+-]0\.\d+ \(95 %.*no difference shown$", first, re.MULTILINE) == [
        "entropy",
        "Monte-Carlo entropy",
        "BALD",
    ]


def test_a_net_is_trained_anew(example, digits):
    """What it was trained on before leaves nothing behind."""
    learner = example.Learner((8, 8), 16, 0)
    learner.train(digits.x[:40], digits.y[:40], 60)
    first = learner.predict(digits.x_test)
    learner.train(digits.x[40:100], digits.y[40:100], 60)
    other = learner.predict(digits.x_test)
    learner.train(digits.x[:40], digits.y[:40], 60)
    np.testing.assert_array_equal(learner.predict(digits.x_test), first)
    assert not np.array_equal(first, other)


def test_scores(example, digits):
    """The highest are labelled: those that the net is least sure of."""
    learner = example.Learner((8, 8), 64, 0)
    learner.train(digits.x[:200], digits.y[:200], 300)
    x = digits.x[200:500]
    wrong = learner.predict(x).argmax(1) != digits.y[200:500]
    assert 0 < wrong.mean() < 0.5
    found = {name: score(learner, x, 20, np.random.default_rng(0)) for name, score in example.SCORES.items()}
    u = uncertainty.predict(learner.model, x, 20)
    np.testing.assert_array_equal(found["Monte-Carlo entropy"], u.entropy)
    np.testing.assert_array_equal(found["BALD"], u.mutual_information)
    p = learner.predict(x).astype("float64")
    np.testing.assert_allclose(found["entropy"], -(p * np.log(np.maximum(p, 1e-30))).sum(1), rtol=1e-3, atol=1e-5)
    for name in ("entropy", "Monte-Carlo entropy", "BALD"):
        assert found[name][wrong].mean() > found[name][~wrong].mean(), name


def test_the_highest_scores_are_labelled_and_none_twice(example, digits, monkeypatch):
    """A planted score, of which the order is known; labels are taken note of in training."""
    trained = []
    train = example.Learner.train
    monkeypatch.setattr(example.Learner, "train", lambda self, x, y, steps: trained.append(x) or train(self, x, y, steps))
    monkeypatch.setattr(example, "SCORES", {"ink": lambda learner, x, samples, generator: x.sum((1, 2))})
    settings = replace(example.SETTINGS["digits"], rounds=2, first=20, more=30, steps=20)
    ((_, found),) = example.curves(digits, settings, 0)
    assert len(found) == 3
    assert [len(x) for x in trained] == [20, 50, 80]
    ink = digits.x.sum((1, 2))
    first = np.sort(trained[0].sum((1, 2)))
    rest = list(np.sort(ink)[::-1])
    for value in first:
        rest.remove(value)
    np.testing.assert_array_equal(np.sort(trained[2][20:].sum((1, 2)))[::-1], rest[:60])
    assert len(np.unique(trained[2].reshape(80, -1), axis=0)) == 80


def test_a_difference_that_is_there_is_shown(example):
    """Six seeds and a planted gain; what does nothing has no verdict."""
    noise = np.random.default_rng(0).normal(0.8, 0.01, (6, 2))
    made = {"random": noise, "entropy": noise + [[0, 0.05]], "Monte-Carlo entropy": noise - [[0, 0.05]], "BALD": noise[::-1]}
    text = example.report(made, replace(example.SETTINGS["digits"], rounds=1))
    verdicts = dict(re.findall(r"^(.*): [+-].*: (.*)$", text, re.MULTILINE))
    assert verdicts == {"entropy": "better", "Monte-Carlo entropy": "worse", "BALD": "no difference shown"}


@pytest.mark.parametrize(
    "arguments", [("--seeds", "0"), ("--rounds", "0"), ("--rounds", "500"), ("--more", "200"), ("--data", "x")]
)
def test_bad_arguments(example, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        example.main([*TINY, *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""
