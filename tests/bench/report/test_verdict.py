"""The verdict in words, and code that makes what it speaks of."""

import ast

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_dropout
from keras_dropout import notation
from keras_dropout.bench.records import Variant
from keras_dropout.bench.report.verdict import code, decimals, described, verdict

HIDDEN = {"a": 0.2, "b": 0.2}


def variant(name, placement, missing=0, runs=6):
    """As a document has it."""
    runs = [{"seed": seed, "status": "missing" if seed < missing else "done"} for seed in range(runs)]
    return {"name": name, "placement": Variant.of(name, placement).placement, "runs": runs}


def row(name="hidden", difference=-0.0556, interval=(-0.0631, -0.048), word="better", metric="test_loss", pairs=6, **more):
    return {
        "variant": name,
        "baseline": "none",
        "metric": metric,
        "higher_is_better": metric == "test_accuracy",
        "difference": difference,
        "interval": interval,
        "pairs": pairs,
        "verdict": word,
        "share_better": float(word.startswith("better")),
        "share_worse": float(word.startswith("worse")),
        "wanted_difference": abs(difference),
        "pairs_needed": 25,
        "pairs_needed_interval": [9, 140],
        "equivalence": None,
    } | more


def document(*rows, placements=None, missing=0, **more):
    placements = placements or {row["variant"]: HIDDEN for row in rows}
    variants = [variant("none", {}, missing), *(variant(name, each, missing) for name, each in placements.items())]
    study = {"baseline": "none", "epochs": 3, "margin": more.pop("margin", None)}
    return {"study": study, "variants": variants, "comparisons": list(rows)} | more


def test_better_is_said_with_its_number_and_the_code():
    found = verdict(document(row()))
    assert found.tone == "better"
    assert found.headline == (
        "Dropout 0.2 at a and b makes the test loss lower by 0.056 (95 % interval 0.048 to 0.063): better. Shown by 6 of 6 seeds."
    )
    assert found.code == 'import keras_dropout\n\nmodel = keras_dropout.place(model, {"a": 0.2, "b": 0.2})'
    assert found.more == []


def test_the_largest_gain_is_named_and_that_it_was_chosen():
    found = verdict(
        document(row("small", -0.01, (-0.02, -0.005)), row("large"), row("none shown", -0.5, None, "no difference shown"))
    )
    assert "0.056" in found.headline
    assert "Also better than none: small." in found.more[0]
    assert "optimistic" in found.more[0]


LESS_ACCURATE = {"metric": "test_accuracy", "difference": -0.004, "interval": (-0.006, -0.002), "word": "worse"}
UNDECIDED = {"difference": -0.012, "interval": (-0.031, 0.007), "word": "no difference shown"}


def test_worse_in_another_metric_is_in_the_same_sentence():
    found = verdict(document(row(), row(**LESS_ACCURATE)))
    assert found.headline.endswith("But the test accuracy is lower by 0.0040 (95 % interval 0.0020 to 0.0060): worse.")
    assert "if the test loss is what counts" in found.advice
    assert found.tone == "open"
    named = document(row(), row(**LESS_ACCURATE))
    named["study"]["primary"] = "test_loss"
    assert verdict(named).tone == "better"


def test_a_better_placement_that_is_worse_in_nothing_is_named_first():
    found = verdict(document(row("large"), row("large", **LESS_ACCURATE), row("small", -0.01, (-0.02, -0.005))))
    assert "lower by 0.010" in found.headline


def test_what_is_worse_is_never_called_undecided():
    """Nothing is shown for the loss, and every placement is worse in accuracy."""
    names = ("as-published", "hidden", "last")
    rows = [row(name, **UNDECIDED, pairs_needed=359) for name in names] + [row(name, **LESS_ACCURATE) for name in names]
    found = verdict(document(*rows))
    assert found.tone == "worse"
    assert "But the test accuracy is lower by 0.0040" in found.headline
    assert "359" not in found.advice
    assert "Undecided" not in found.advice
    assert found.more[0] == "Every placement is shown to be worse than none in some metric, and none better in the test loss."
    found = verdict(document(*rows[:-1]))  # of the last nothing is shown
    assert "Nothing is shown to be better than none, and something to be worse" in found.advice
    assert "Shown to be worse than none: as-published, hidden." in found.more
    assert "359 seeds" in verdict(document(*rows[:3])).advice


def test_better_in_another_metric_only_is_said():
    found = verdict(document(row(**UNDECIDED), row(metric="test_accuracy", difference=0.004, interval=(0.002, 0.006))))
    assert "But the test accuracy is higher by 0.0040" in found.headline
    assert "if the test accuracy counts" in found.advice
    assert found.code is not None


def test_runs_that_contradict_are_named():
    found = verdict(
        document(row(word="better in most runs", share_better=11 / 12, seeds=12, contrary={"seed": 4, "difference": 0.8}))
    )
    assert "makes the test loss lower in most runs (on average lower by 0.056" in found.headline
    assert ": better in most runs. Shown by 11 of 12 seeds. Seed 4 says the opposite, and by far: higher by 0.80." in found.headline
    assert found.advice.startswith("It helps in most runs, not in all.")
    found = verdict(document(row(word="better on average", share_better=0.4)))
    assert found.advice.startswith("It helps on average, but not in most runs.")
    found = verdict(document(row(**UNDECIDED, contrary={"seed": 4, "difference": 0.8})))
    assert "Seed 4 says the opposite" in found.headline


def test_a_tiny_difference_is_not_called_zero():
    found = verdict(document(row(difference=-2e-8, interval=(-3e-8, -1e-8))))
    assert "lower by 2e-08 (95 % interval 1e-08 to 3e-08)" in found.headline


def test_a_difference_that_is_not_shown_is_undecided_with_what_it_would_take():
    found = verdict(document(row(difference=-0.012, interval=(-0.031, 0.007), word="no difference shown")))
    assert found.tone == "open"
    assert found.headline == (
        "No difference is shown: with Dropout 0.2 at a and b the test loss was lower by 0.012 "
        "(95 % interval from 0.031 lower to 0.007 higher), over 6 seeds."
    )
    assert "To show a difference of 0.012 takes 25 seeds (between 9 and 140: the spread is uncertain)" in found.advice
    assert "leave dropout out" in found.advice
    assert found.code is None
    assert "more than 10,000" in verdict(document(row(word="no difference shown", pairs_needed=None))).advice


def test_too_few_seeds_are_said_to_be_too_few():
    found = verdict(document(row(word="no difference shown", pairs=3)))
    assert found.advice.startswith("Undecided: 3 seeds cannot show a difference, whatever it is. Train at least 6")


def test_what_makes_it_worse_is_to_be_left_out():
    found = verdict(document(row(difference=0.1, interval=(0.05, 0.15), word="worse"), row("other", 0.2, (0.1, 0.3), "worse")))
    assert found.tone == "worse"
    assert "higher by 0.10 (95 % interval 0.05 to 0.15): worse. Shown by 6 of 6 seeds." in found.headline
    assert found.more == ["Every placement is worse than none; this one is the least so."]
    assert found.advice.startswith("Leave dropout out.")
    assert "strip(model)" in found.code


def test_a_margin_is_kept_to():
    found = verdict(document(row(word="better, but within the margin"), margin=0.1))
    assert found.tone == "same"
    assert "by less than the 0.1 that was said to matter" in found.advice
    found = verdict(document(row(word="same within the margin"), margin=0.1))
    assert (found.tone, found.advice[:18]) == ("same", "Leave dropout out.")


@pytest.mark.parametrize(("difference", "word"), [(-0.05, "better"), (0.05, "worse"), (0.005, "no difference shown")])
def test_while_curves_fall_nothing_is_advised_but_to_train_on(difference, word):
    given = row(difference=difference, interval=(difference - 0.01, difference + 0.01), word=word)
    whole, short = (verdict(document(given, unfinished_curves=names)) for names in ([], ["none", "hidden"]))
    assert (whole.tone, whole.headline, whole.more) == (short.tone, short.headline, short.more)
    assert (whole.code is None) == (word == "no difference shown")
    assert short.code is None
    assert short.advice.startswith(
        "Train on before you act on it: the validation loss still falls at the last epoch (none, hidden)."
    )


def test_runs_that_are_missing_are_counted():
    found = verdict(document(row(pairs=2, word="no difference shown"), missing=4))
    assert found.more[-1] == "So far, 4 of 12 runs have ended: all this may still change."
    assert "nothing to compare yet" in verdict(document(placements={"hidden": HIDDEN}, missing=6)).headline
    assert "Only none was trained" in verdict(document()).headline


def test_a_sweep_speaks_of_the_rate_that_validation_chose():
    rates = {"low": 0.1, "high": 0.5}
    sweep = {"variants": rates, "curves": {"validation_loss": {"best": 0.15}}, "sentences": ["The best is 0.15."]}
    rows = row("low", -0.01, (-0.02, -0.005)), row("high", -0.5, (-0.6, -0.4))
    found = verdict(document(*rows, placements={name: {"a": rate} for name, rate in rates.items()}, sweep=sweep))
    assert found.headline.startswith("Dropout 0.1 at a makes the test loss lower by 0.010")
    assert found.more == ["The best is 0.15."]


def test_placements_as_phrases():
    assert described(variant("v", {"a": 0.2, "b": 0.5})) == "the placement v (Dropout 0.2 at a; Dropout 0.5 at b)"
    assert described(variant("v", {"a": "GaussianDropout(0.3)"})) == "GaussianDropout(0.3) at a"
    assert described(variant("v", {"a": "linear(0.5, 0.0)"})) == "Dropout linear(0.5, 0.0) at a"
    assert described(variant("v", dict.fromkeys("abcde", 0.1))) == "Dropout 0.1 at 5 sites (a to e)"
    assert described(variant("v", None)) == "the model as it is built (v)"


@pytest.mark.parametrize(("value", "digits"), [(0.0556, 3), (0.4, 2), (12.0, 0), (2900.0, 0), (1e-9, 6), (0.0, 0)])
def test_two_digits_of_a_difference_are_shown(value, digits):
    assert decimals(value) == digits


def model():
    layers = [keras.layers.Dense(6, "relu", name="a"), keras.layers.Dense(6, "relu", name="b"), keras.layers.Dense(1, name="out")]
    made = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dropout(0.5), *layers])
    made.compile("sgd", "mse")
    return made


def carried_out(text):
    names = {"model": model(), "x": np.ones((8, 4), "float32"), "y": np.ones((8, 1), "float32")}
    exec(text, names)
    return names["model"]


def layers_of(model):
    """The dropout in a model, with what it is made with."""
    dropout = [layer for layer in model.layers if layer.__module__.startswith("keras_dropout")]
    configs = [(type(layer).__name__, layer.get_config()) for layer in dropout]
    return [(kind, {k: v for k, v in config.items() if k not in ("name", "seed", "layer", "dtype")}) for kind, config in configs]


@pytest.mark.parametrize(
    "placement",
    [
        {},
        {"a": 0.2, "b": 0.2},
        {"x": 0.1, "a": "GaussianDropout(0.3)"},
        {"b": "DropConnect(0.25)", "x": "Dropout(0.2, noise_shape=(None, 1))"},
    ],
    ids=str,
)
def test_the_code_makes_the_placement(placement):
    made = carried_out(code(variant("v", placement), 1))
    assert layers_of(made) == layers_of(keras_dropout.place(model(), placement))
    assert len(layers_of(made)) == len(placement)


@pytest.mark.parametrize(
    ("placement", "rates"),
    [
        ({"a": "linear(0.5, 0.1)", "b": "linear(0.5, 0.1)"}, [0.3, 0.3]),  # at the start of the second of two epochs
        ({"x": 0.125, "a": "linear(0.5, 0.1)", "b": "GaussianDropout(linear(0.4, 0.0))"}, [0.125, 0.3, 0.2]),
    ],
    ids=str,
)
def test_the_code_lets_rates_follow_their_schedules(placement, rates):
    made = carried_out(code(variant("v", placement), 2))
    assert [config["rate"] for _, config in layers_of(made)] == pytest.approx(rates)


numbers = st.one_of(st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
options = st.one_of(numbers, st.lists(st.integers()), st.text())
specs = st.builds(
    lambda kind, rate, more: {"kind": kind, "rate": rate} | more,
    st.sampled_from(["Dropout", "DropBlock2D"]),
    st.floats(0, 0.9375),
    st.dictionaries(st.sampled_from(["block_size", "noise_shape"]), options),
)


# But for names such as "#4", which are numbers of layers.
@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name[0] != "#" or not name[1:].isdecimal()), specs, min_size=1, max_size=4
    )
)
def test_the_code_is_python_for_any_names_and_options(placement):
    tree = ast.parse(code({"name": "v", "placement": placement}, 1))
    (written,) = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    read = {site: notation.parse(value) if isinstance(value, str) else value for site, value in written.items()}
    full = {site: value if isinstance(value, dict) else {"kind": "Dropout", "rate": value} for site, value in read.items()}
    assert full == placement


def test_layers_that_have_numbers_for_names_get_no_code():
    assert code({"name": "half", "placement": {"#4": {"kind": "Dropout", "rate": 0.5}}}, 1) is None
