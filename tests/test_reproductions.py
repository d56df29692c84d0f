"""Published experiments: what an expectation, a claim and the command say; and each of them, planned, stored and carried out."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_dropout import BadInput, reproductions
from keras_dropout.bench.data.public_sets import digits
from keras_dropout.cli import app
from keras_dropout.reproductions.framework import (
    Expectation,
    Part,
    Reproduction,
    carry_out_reproduction,
    difference,
    judge,
    plan_reproduction,
    sentence_of,
    verdict_of,
)
from keras_dropout.reproductions.networks import perceptron

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="reproductions choose their own backend")
STORED = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "reproductions"
# The quick ones that do not come out, each with the reason; see docs/reproductions.md.
EXPLAINED = {
    "ghiasi-detection": "so few seeds cannot show the small gain of blocks; whole channels gain more",
    "ghiasi-dropblock": "a smaller gap; a higher accuracy is not shown",
    "ghiasi-segmentation": "the quick network has not learned enough to overfit",
    "gal-recurrent": "better than none; masks drawn at each step are no worse",
    "hinton-cifar": "no difference in accuracy is shown at this size, only in loss",
    "huang-stochastic-depth": "the loss falls and the gap too, a higher accuracy is not shown",
    "kingma-variational": "a fixed rate is beaten where the network is small, no dropout is not",
    "klambauer-selu": "the moments are kept, but ordinary dropout trains to a lower loss at the same rate",
    "li-variance-shift": "the shift is there, but costs this network nothing",
    "liu-early": "better than dropout throughout; that it is better than none is not shown",
    "liu-late": "better than none; no difference to dropout throughout is shown",
    "molchanov-pruning": "75 times fewer weights, at a loss of 4 points of accuracy",
    "srivastava-max-norm": "with L2 dropout has a lower loss than with max-norm",
    "tutorial-ensemble": "dropout off has three quarters of what averaging gains, trained on few images",
    "tutorial-late": "the last layers are not the best place in this network",
    "tutorial-recipe": "the published loss is a little larger than one more of our runs would have",
    "wan-dropconnect": "better than none; that it is better than dropout is not shown",
}


def weights(model, data):
    return {"parameters": float(model.count_params()), "inputs": float(data.train.x[0].size)}


def small(*expectations, parts=("digits",), keep=False):
    """A reproduction whose parts are digits with 16 hidden units, trained for three epochs with and without much dropout."""

    def part(name):
        def model():
            return perceptron((8, 8), (16,), keras.optimizers.SGD(0.1), name=name)

        return Part(model, lambda data_dir: digits(), {"much": {"hidden": 0.8}}, 3, keep_models=keep)

    return Reproduction(
        name="small",
        title="Much dropout on little",
        claim="Much dropout hinders a small network.",
        source="none",
        parts=lambda quick: {name: part(name) for name in parts},
        expectations=expectations,
        differs="everything.",
        quick_seconds=1,
        seeds=6,
        quick_seeds=6,
        shows=("test_loss", "train_loss"),
    )


def harm(found, part=None):
    return found.values("train_loss", "much", part) - found.values("train_loss", "none", part)


@functools.cache
def ledger_folder():
    import tempfile

    return tempfile.TemporaryDirectory()


def outcome(*expectations, seeds=6, **options):
    """What comes of it; runs are trained once for all tests."""
    path = Path(ledger_folder().name, "runs.db")
    planned = plan_reproduction(small(*expectations, **options), seeds=seeds, ledger=path, workers=1)
    return carry_out_reproduction(planned, quiet=True, command="a test")


def test_a_claim_that_holds_is_reproduced():
    found = outcome(Expectation("train loss: much minus none", harm, above=0.0, published="it is larger"))
    (row,) = found.document()["expectations"]
    assert found.verdict == row["verdict"] == "reproduced"
    values = found.found.values("train_loss", "much") - found.found.values("train_loss", "none")
    assert row["measured"] == pytest.approx(values.mean())
    assert row["interval"][0] > 0
    assert row["p"] == pytest.approx(2 / 2**6)
    assert "train loss: much minus none > 0" in " ".join(str(found).split())
    assert found.document()["measured"] == row["measured"]
    assert found.document()["published"] == "it is larger"


def test_a_difference_says_what_it_subtracts():
    found = outcome(
        difference("train_loss", "much", "none", "it is larger"),
        difference("test_loss", "none", "much", "not given", above=None, label="test loss of digits"),
    )
    assert [each.expectation.says for each in found.tried] == [
        "train loss, dropout off: much minus none",
        "test loss of digits: none minus much",
    ]
    assert [each.verdict for each in found.tried] == ["reproduced", "measured only"]
    assert (found.tried[0].values == harm(found.found)).all()
    losses = (found.found.values("test_loss", variant) for variant in ("none", "much"))
    assert (found.tried[1].values == np.subtract(*losses)).all()
    gap = found.found.values("test_loss", "much") - found.found.values("train_loss", "much")
    assert (found.found.gap("much") == gap).all()


def test_the_contrary_is_not_reproduced():
    found = outcome(Expectation("train loss: much minus none", harm, below=0.0))
    assert found.verdict == "not reproduced"
    assert "1 refuted" in found.sentence


def test_too_few_seeds_decide_nothing():
    for bounds in ({"above": 0.0}, {"below": 0.0}, {"figure": 100.0, "tolerance": 1.0}):
        found = outcome(Expectation("train loss: much minus none", harm, **bounds), seeds=2)
        assert found.verdict == "undecided"
        assert "give --seeds 6 or more" in found.sentence


def test_one_open_expectation_leaves_all_undecided():
    found = outcome(
        Expectation("train loss: much minus none", harm, above=0.0),
        Expectation("nothing", lambda found: np.array([1.0, -1.0, 2.0, -2.0, 0.5, -0.5]), above=0.0),
    )
    assert [each.verdict for each in found.tried] == ["reproduced", "undecided"]
    assert found.verdict == "undecided"


def test_a_refutation_must_stand_against_the_number_of_expectations():
    """Six seeds reach p 0.031: enough for one expectation, not for the worse of two."""
    open_one = Expectation("nothing", lambda found: np.array([1.0, -1.0, 2.0, -2.0, 0.5, -0.5]), above=0.0)
    refuted = Expectation("train loss: much minus none", harm, below=0.0)
    assert outcome(refuted).verdict == "not reproduced"
    found = outcome(refuted, open_one)
    assert found.verdict == "undecided"
    assert found.sentence.endswith("So few cannot refute a bound: p is at least 0.062 for 2 expectations together. 7 seeds can.")
    assert outcome(refuted, open_one, seeds=7).verdict == "not reproduced"


def test_a_published_figure_could_be_one_more_of_ours():
    losses = outcome(Expectation("a", harm, above=0.0)).found.values("test_loss")
    middle, far, reach = float(losses.mean()), float(losses.mean() + 6 * losses.std()), 3 * float(losses.std(ddof=1))
    cases = (
        (middle, reach, "reproduced", "Reproduced: of 1 expectation 1 shown, over 6 seeds."),
        (middle, reach / 2, "compatible", "Compatible: of 1 expectation 0 shown, 1 compatible, over 6 seeds."),
        (far, reach, "not reproduced", "Not reproduced: of 1 expectation 0 shown, 1 refuted, over 6 seeds."),
    )
    for figure, tolerance, verdict, sentence in cases:
        found = outcome(Expectation("test loss", lambda found: found.values("test_loss"), figure=figure, tolerance=tolerance))
        assert (found.verdict, found.sentence) == (verdict, sentence)
        low, high = found.document()["interval"]
        assert (low <= figure <= high) == (verdict != "not reproduced")


def test_compatible_is_less_than_reproduced():
    losses = outcome(Expectation("a", harm, above=0.0)).found.values("test_loss")
    figure = {"value": lambda found: found.values("test_loss"), "figure": float(losses.mean()), "tolerance": 1e-9}
    shown, open_one = Expectation("a", harm, above=0.0), Expectation("nothing", lambda found: losses - losses.mean(), above=0.0)
    assert outcome(shown, Expectation("b", **figure)).verdict == "compatible"
    assert outcome(open_one, Expectation("b", **figure)).verdict == "undecided"


def test_a_wrong_figure_is_seldom_reproduced():
    """One that is off by 3 standard deviations of a run, with a tolerance of 2 of them; not refuted it is far more often."""
    random, words = np.random.default_rng(0), []
    for _ in range(300):
        expectation = Expectation("x", harm, figure=3.0, tolerance=2.0)
        words.append(judge(expectation, random.normal(size=6)).verdict)
    assert words.count("reproduced") <= 0.05 * 300
    assert words.count("compatible") >= 0.25 * 300  # these were once said to be reproduced


def test_an_expectation_has_bounds_or_a_figure():
    with pytest.raises(ValueError, match="bounds or a figure"):
        Expectation("x", harm, above=0.0, figure=1.0, tolerance=1.0)
    for alone in ({"figure": 1.0}, {"above": 0.0, "tolerance": 1.0}):
        with pytest.raises(ValueError, match="a figure needs a tolerance"):
            Expectation("x", harm, **alone)


def test_what_is_reproduced_after_a_change_is_said_to_be():
    changed = dataclasses.replace(small(), changed="Sizes.")
    shown, open_one = (judge(Expectation("x", harm, above=bound), np.arange(1.0, 7.0)) for bound in (0.0, 3.0))
    said = [sentence_of(changed, [each], 6).partition(":")[0] for each in (shown, open_one)]
    assert said == ["Reproduced after the study was changed", "Undecided"]


def test_what_is_measured_only_decides_nothing():
    found = outcome(Expectation("train loss: much minus none", harm, above=0.0), Expectation("the same", harm))
    assert [each.verdict for each in found.tried] == ["reproduced", "measured only"]
    assert found.verdict == "reproduced"
    assert found.sentence == "Reproduced: of 1 expectation 1 shown, over 6 seeds."


def test_parts_curves_and_trained_models_can_be_asked():
    expectations = (
        Expectation("both", lambda found: harm(found, "one") + harm(found, "two"), above=0.0),
        Expectation("inputs", lambda found: found.of_models(weights, "inputs", "much", "two"), above=63.9, below=64.1),
        Expectation("parameters", lambda found: found.of_models(weights, "parameters", "none", "one"), above=1209, below=1211),
        Expectation("falls", lambda found: -np.diff(found.curves("loss", part="one")).max(axis=1), above=0.0),
    )
    found = outcome(*expectations, parts=("one", "two"), keep=True)
    assert [each.verdict for each in found.tried] == ["reproduced"] * 4, str(found)
    measured = {(row["part"], row["variant"]): row["mean"] for row in found.figures() if row["metric"] == "inputs"}
    assert measured == {("one", "none"): 64.0, ("two", "much"): 64.0}
    with pytest.raises(ValueError, match="name one of the parts one, two"):
        found.found.values("test_loss")


def test_a_report_has_the_verdict_and_a_page_for_each_part(tmp_path):
    expectation = Expectation("train loss: much <b>minus</b> none", lambda found: harm(found, "one"), above=0.0)
    pages = outcome(expectation, parts=("one", "two"), keep=True).save_report(tmp_path / "page.html")
    assert [page.name for page in pages] == ["page.html", "page-two.html"]
    for page in pages:
        text = page.read_text()
        assert "Reproduced: of 1 expectation 1 shown, over 6 seeds." in text
        assert "much &lt;b&gt;minus&lt;/b&gt; none &gt; 0" in text
        assert text.count("<h1") == 1
    assert 'href="page-two.html"' in pages[0].read_text()
    nothing = dataclasses.replace(small(expectation), parts=lambda quick: {})
    without = carry_out_reproduction(plan_reproduction(dataclasses.replace(nothing, expectations=[_of_seeds()]), seeds=6))
    with pytest.raises(BadInput, match="trains nothing"):
        without.save_report(tmp_path / "no.html")
    with pytest.raises(BadInput, match="trains nothing"):  # before anything is measured
        plan_reproduction(nothing, seeds=6, report=tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def _of_seeds():
    return Expectation("seeds", lambda found: np.array(found.seeds, float) + 1, above=0.0)


def test_nothing_needs_to_be_trained():
    nothing = dataclasses.replace(small(_of_seeds()), parts=lambda quick: {})
    found = carry_out_reproduction(plan_reproduction(nothing, quick=True))
    assert found.verdict == "reproduced"
    assert found.document()["studies"] == {}
    assert found.document()["figures"] == []


def test_the_same_again_trains_nothing():
    expectation = Expectation("train loss: much minus none", harm, above=0.0)
    outcome(expectation)
    again = outcome(expectation)
    assert again.document()["timing"]["model_epochs"] == 0
    assert again.document()["timing"]["run_seconds"] > 0


# The command


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "keras_dropout.cli", "reproduce", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_list_says_what_there_is(tmp_path):
    rows = json.loads(command(tmp_path, "--list", "--json").stdout)
    assert [row["name"] for row in rows] == reproductions.names()
    for row in rows:
        assert {"name", "claim", "source", "quick_seconds"} <= row.keys()
        assert 0 < row["quick_seconds"] < 300, row["name"]
    table = CliRunner().invoke(app, ["reproduce", "--list"]).stdout.split()
    assert [word for word in table if word in reproductions.names()] == reproductions.names()


def test_a_dry_run_says_what_is_left_to_train(tmp_path, monkeypatch, capsys):
    from keras_dropout.bench.execution import timing
    from keras_dropout.commands.reproductions import _print_plan

    monkeypatch.setattr(timing, "estimate_seconds", lambda plan, todo: 1.5 * len(todo))
    _print_plan(plan_reproduction(small(), seeds=2, ledger=tmp_path / "r.db"), as_json=True)
    part = json.loads(capsys.readouterr().out)["parts"][0]
    assert (part["runs"], part["to_train"], part["estimated_seconds"]) == (4, 4, 6.0)


def test_an_unknown_name_is_two_lines_with_the_nearest(tmp_path):
    done = command(tmp_path, "srivastva-rate")
    assert done.returncode == 2
    assert done.stdout == ""
    first, second = done.stderr.strip().splitlines()
    assert "srivastva-rate" in first
    assert "srivastava-rate" in second
    assert command(tmp_path).returncode == 2
    assert not list(tmp_path.iterdir())


# Each of them


def stored(name):
    """What came out when it was carried out and kept."""
    return json.loads((STORED / f"{name}.json").read_text())["outcome"]


@pytest.mark.parametrize("name", reproductions.names())
def test_it_says_what_it_is(name):
    found = reproductions.find(name)
    assert found.name == name
    assert found.quick_seeds >= 6
    assert found.seeds >= 8
    for text in (found.title, found.claim, found.source, found.differs):
        assert text == text.strip()
        assert len(text) > 10
    assert found.claim.endswith((".", ".)"))
    assert found.differs.endswith(".")
    for quick in (True, False):
        parts = found.parts(quick)
        assert all(part.epochs > 0 for part in parts.values())


@pytest.mark.parametrize("name", reproductions.names())
def test_what_is_stored_is_of_it(name):
    """By the same expectations as are there now; the verdicts follow from the runs stored."""
    outcome = stored(name)
    found = reproductions.find(name)
    assert [row["says"] for row in outcome["expectations"]] == [each.says for each in found.expectations], "carry it out again"
    for row, each in zip(outcome["expectations"], found.expectations):
        assert [row[name] for name in ("above", "below", "figure", "tolerance")] == [
            getattr(each, name) for name in ("above", "below", "figure", "tolerance")
        ]
        numbers = [value for value in row["runs"] if value is not None]
        assert row["measured"] == pytest.approx(np.mean(numbers), rel=1e-3, abs=1e-9)
    assert (outcome["claim"], outcome["differs"], outcome["changed"]) == (found.claim, found.differs, found.changed)
    runs = [np.array([np.nan if value is None else value for value in row["runs"]]) for row in outcome["expectations"]]
    tried = [judge(*each) for each in zip(found.expectations, runs)]
    assert [each.verdict for each in tried] == [row["verdict"] for row in outcome["expectations"]]
    assert outcome["verdict"] == verdict_of(tried)
    assert outcome["sentence"] == sentence_of(found, tried, len(outcome["seeds"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", reproductions.names())
def test_the_quick_one_comes_out_or_is_explained(name, tmp_path):
    try:
        found = reproductions.reproduce(name, quick=True, ledger=tmp_path / "runs.db", quiet=True)
    except BadInput as error:
        if "CIFAR-10 is not" not in str(error):
            raise
        pytest.skip("CIFAR-10 is not on this machine")
    assert not found.failed
    # On another kind of CPU rounding differs, which can leave open what was close.
    expected = {stored(name)["verdict"], "undecided"} if name in EXPLAINED else {"reproduced"}
    assert found.verdict in expected, str(found)


def test_what_did_not_come_out_is_explained():
    assert {name for name in reproductions.names() if stored(name)["verdict"] != "reproduced"} == EXPLAINED.keys()
