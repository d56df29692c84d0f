"""Schedules: their formulas, what they refuse, their texts and documents, and rates over depth."""

import doctest
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_dropout import linear_decay, schedules
from keras_dropout.errors import BadInput
from keras_dropout.schedules import Annealed, Constant, Cosine, Curriculum, Early, Late, Linear, Step

RATES = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
PARTS = st.floats(0.01, 1)
SHAPES = st.sampled_from(["linear", "constant"])


@st.composite
def _between(draw, cls):
    begin = draw(st.floats(0, 0.9))
    return cls(draw(RATES), draw(RATES), begin, draw(st.floats(begin + 0.01, 1)))


@st.composite
def _steps(draw):
    at = sorted(draw(st.sets(st.floats(0.01, 0.99), max_size=4)))
    return Step([draw(RATES) for _ in range(len(at) + 1)], at)


ANY = st.one_of(
    st.builds(Constant, RATES),
    _between(Linear),
    _between(Cosine),
    _steps(),
    st.builds(Curriculum, RATES, st.floats(0.1, 100)),
    st.builds(Annealed, RATES, PARTS),
    st.builds(Early, RATES, PARTS, SHAPES),
    st.builds(Late, RATES, st.floats(0, 1)),
)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.2), [0.2, 0.2, 0.2, 0.2, 0.2]),
        (Linear(0.5, 0.0), [0.5, 0.375, 0.25, 0.125, 0.0]),
        (Linear(0.0, 0.4, begin=0.25, end=0.75), [0, 0, 0.2, 0.4, 0.4]),
        (Cosine(0.8, 0.0), [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0]),
        (Cosine(0.1, 0.5, begin=0.5), [0.1, 0.1, 0.1, 0.3, 0.5]),
        (Step([0.0, 0.3, 0.5], at=[0.25, 0.6]), [0, 0.3, 0.3, 0.5, 0.5]),
        (Curriculum(0.5), [0, 0.5 * (1 - math.exp(-2.5)), 0.5 * (1 - math.exp(-5)), 0.5 * (1 - math.exp(-7.5)), 0.5 * 0.9999546]),
        (Annealed(0.4), [0.4, 0.3, 0.2, 0.1, 0]),
        (Annealed(0.4, until=0.5), [0.4, 0.2, 0, 0, 0]),
        (Early(0.4, until=0.5), [0.4, 0.2, 0, 0, 0]),
        (Early(0.4, until=0.5, shape="constant"), [0.4, 0.4, 0, 0, 0]),
        (Late(0.4, start=0.25), [0, 0.4, 0.4, 0.4, 0.4]),
    ],
    ids=str,
)
def test_formulas(schedule, expected):
    assert schedule([0, 0.25, 0.5, 0.75, 1]) == pytest.approx(expected, abs=1e-7)
    assert schedule(0.25) == pytest.approx(expected[1], abs=1e-7)
    assert np.ndim(schedule(0.25)) == 0


def test_published_points_of_curriculum_dropout():
    """63 % of the rate after a tenth of training, 99.995 % at its end."""
    assert Curriculum(0.5)(0.1) / 0.5 == pytest.approx(0.632, abs=5e-4)
    assert Curriculum(0.5)(1) / 0.5 == pytest.approx(0.99995, abs=5e-6)


@given(ANY)
def test_rates_are_rates_and_never_above_the_peak(schedule):
    rates = schedule(np.linspace(0, 1, 101))
    assert rates.shape == (101,)
    assert ((rates >= 0) & (rates < 1)).all()
    assert (rates <= schedule.peak * (1 + 1e-12)).all()


@given(ANY, st.floats(0, 1))
def test_scaling_scales_the_rate_everywhere(schedule, factor):
    progress = np.linspace(0, 1, 41)
    np.testing.assert_allclose(schedule.scaled(factor)(progress), factor * schedule(progress), atol=2e-12)


@given(ANY)
def test_texts_and_documents_are_read_back(schedule):
    assert schedules.parse(str(schedule)) == schedule
    assert schedules.from_document(json.loads(json.dumps(schedule.document()))) == schedule
    assert schedules.of(str(schedule)) == schedules.of(schedule) == schedule


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        (" linear( 0.5 , last=0 ) ", Linear(0.5, 0.0)),
        ("early(0.1, 0.25)", Early(0.1, until=0.25, shape="linear")),
        ("step((0, .5), at=(0.5,))", Step([0.0, 0.5], [0.5])),
        ("late(rate=0.4, start=0.25)", Late(0.4, 0.25)),
    ],
)
def test_texts_as_people_write_them(text, schedule):
    assert schedules.parse(text) == schedule


def test_the_text_leaves_out_what_is_usual():
    assert str(Early(0.1, until=0.25)) == "early(0.1, until=0.25)"
    assert str(Linear(0.5, 0, end=0.5)) == "linear(0.5, 0.0, end=0.5)"
    assert str(Step([0, 0.3], at=[0.2])) == "step([0.0, 0.3], at=[0.2])"
    assert str(Curriculum(0.5)) == "curriculum(0.5)"


@pytest.mark.parametrize(
    "text",
    ["constant(1)", "constant(-0.1)", "constant('a')", "constant(True)", "constant()", "constant(0.1, 0.2)", "constant(nan)"]
    + ["linear(0.5)", "linear(0.5, 1.0)", "linear(0.5, 0, begin=1)", "linear(0.5, 0, begin=0.5, end=0.4)", "linear(0.5, 0, end=2)"]
    + ["cosine(0.5, 0.1, middle=3)", "step(0.5, at=[0.1])", "step([0.5], at=0.1)", "step([0.1, 0.2], at=[])", "step([], at=[])"]
    + ["step([0, 0.1, 0.2], at=[0.5, 0.5])", "step([0, 0.1], at=[0])", "step([0, 0.1], at=[1])", "step([0, 0.1], at=['a'])"]
    + ["curriculum(0.5, gamma=0)", "annealed(0.5, until=0)", "early(0.5)", "early(0.5, 0.1, shape='round')", "late(0.5, start=-1)"]
    + [
        "",
        "0.5",
        "linear",
        "linear(",
        "lineal(0.5, 0)",
        "a.linear(0.5, 0)",
        "linear(x, 0)",
        "linear(0.5, 0); 1",
        "linear(*[1], **{})",
    ]
    + ["linear(__import__('os').system('true'), 0)", "\0", "[" * 5000, "Linear(0.5, 0)"],
)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(BadInput) as caught:
        schedules.parse(text)
    assert len(str(caught.value).splitlines()) == 2


SHARE = "It is a share of training: 0.25 is a quarter of it."
KINDS = "Use one of: constant, linear, cosine, step, curriculum, annealed, early, late."
MESSAGES = {
    "constant(1.0)": "constant: rate must be in [0, 1); got 1.0.\nAt rate 1 nothing is left to train; use a smaller rate.",
    "linear(0.1, 0.2, begin=1.5)": f"linear: begin must be in [0, 1]; got 1.5.\n{SHARE}",
    "linear(0.1, 0.2, begin=0.5, end=0.5)": f"linear: end must be in (0.5, 1]; got 0.5.\n{SHARE}",
    "linear(0.1, 0.2, begin=True)": f"linear: begin must be in [0, 1]; got True.\n{SHARE}",
    "step(0.3, [0.2])": "step: rates must be a list; got 0.3.\nFor example step([0.0, 0.3, 0.5], at=[0.2, 0.6]).",
    "step([0.3], 0.2)": "step: at must be a list; got 0.2.\nFor example at=[0.2, 0.6].",
    "step([1], [])": "step: each rate must be in [0, 1); got 1.\nAt rate 1 nothing is left to train; use a smaller rate.",
    "step([0.1], [0.9, 0.2])": "step: at must rise within (0, 1); got [0.9, 0.2].\nIt holds shares of training: at=[0.2, 0.6].",
    "step([0.1, 0.2], [True])": "step: at must rise within (0, 1); got [True].\nIt holds shares of training: at=[0.2, 0.6].",
    "step([0.1], [0.5])": "step: at must have one entry fewer than the 1 rates; got 1.\nEach entry is where the next rate begins.",
    "curriculum(0.5, 0)": "curriculum: gamma must be a number above 0; got 0.\nIt says how fast the rate rises; 10 in the paper.",
    "annealed(0.5, until=0)": f"annealed: until must be in (0, 1]; got 0.\n{SHARE}",
    "early(0.1, until=0)": f"early: until must be in (0, 1]; got 0.\n{SHARE}",
    "early(0.1, 0.2, shape='round')": "unknown shape of early 'round'.\nUse one of: linear, constant.",
    "late(0.1, start=1.1)": f"late: start must be in [0, 1]; got 1.1.\n{SHARE}",
    "late(0.1, start='a')": f"late: start must be in [0, 1]; got 'a'.\n{SHARE}",
    "linear": "cannot read the schedule 'linear'.\nWrite for example linear(0.5, 0.0) or step([0.0, 0.5], at=[0.2]).",
    "a.late(1)": "cannot read the schedule 'a.late(1)'.\nWrite for example linear(0.5, 0.0) or step([0.0, 0.5], at=[0.2]).",
    "linaer(1, 2)": f"unknown schedule 'linaer'.\n{KINDS}",
    "linear(0.1)": "the schedule linear: missing a required argument: 'last'.\nWrite linear(first, last, begin=0.0, end=1.0).",
    "late(0.1, 0, **{'a': 1})": "the schedule late: got an unexpected keyword argument '**'.\nWrite late(rate, start).",
}


@pytest.mark.parametrize("text", MESSAGES)
def test_what_is_wrong_and_how_to_mend_it(text):
    with pytest.raises(BadInput) as caught:
        schedules.parse(text)
    assert str(caught.value) == MESSAGES[text]


def test_values_that_are_none_of_a_schedule_and_how_to_mend_it():
    with pytest.raises(BadInput) as caught:
        schedules.from_document([0.5])
    fix = 'For example {"kind": "linear", "first": 0.5, "last": 0.0}.'
    assert str(caught.value) == f"a schedule's values are a mapping; got [0.5].\n{fix}"


def test_values_are_kept_as_floats():
    assert repr(Curriculum(0, gamma=5)) == "Curriculum(rate=0.0, gamma=5.0)"
    assert repr(Step([0, 0.5], at=[np.float32(0.5)])) == "Step(rates=(0.0, 0.5), at=(0.5,))"
    assert repr(Linear(0, 0.5, begin=0, end=1)) == "Linear(first=0.0, last=0.5, begin=0.0, end=1.0)"


def test_a_product_shows_no_digits_of_its_last_bits():
    assert 0.1 * 3 != 0.3
    assert Constant(0.1).scaled(3) == Constant(0.3)
    nearly = math.nextafter(1, 0)
    assert Constant(nearly).scaled(1) == Constant(nearly)


@pytest.mark.parametrize("document", [None, [], {}, {"kind": []}, {"kind": "linear", "first": 0.5}, {"kind": "constant", 1: 2}])
def test_documents_that_are_none_are_refused(document):
    with pytest.raises(BadInput):
        schedules.from_document(document)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan"), [0, 2], "x", {}])
def test_progress_is_a_share(progress):
    with pytest.raises(BadInput) as caught:
        Linear(0.5, 0)(progress)
    assert str(caught.value) == f"linear: progress must be in [0, 1]; got {progress!r}.\nIt is the share of training that is done."


def test_progress_may_be_an_integer():
    assert Constant(0.25)(1) == 0.25


def spec(rate=0.5, **options):
    return {"kind": "StochasticDepth", "rate": rate, **options}


@given(RATES, st.integers(1, 30))
def test_over_depth_is_linear_decay(rate, depth):
    found = schedules.spread_over_depth({f"block{n}": spec(rate, over_depth=True) for n in range(depth)})
    np.testing.assert_allclose([each["rate"] for each in found.values()], linear_decay(rate, depth), rtol=1e-11, atol=1e-12)
    assert all(each["rate"] < 1 for each in found.values())
    assert all(set(each) == {"kind", "rate"} for each in found.values())


def test_only_what_asks_for_it_is_spread_and_specs_on_their_own():
    placement = {"a": spec(0.4, over_depth=True), "b": spec(0.3), "c": spec(0.2, over_depth=True), "d": spec(0.4, over_depth=True)}
    placement["e"] = spec(0.1, over_depth=False)
    found = schedules.spread_over_depth(placement)
    assert found == {"a": spec(0.2), "b": spec(0.3), "c": spec(0.2), "d": spec(0.4), "e": spec(0.1)}
    assert list(found) == list(placement)
    assert placement["a"] == spec(0.4, over_depth=True)
    assert schedules.spread_over_depth(found) == found


def test_schedule_and_depth_are_multiplied():
    a_spec = spec(0.4, schedule=Curriculum(0.4).document(), over_depth=True)
    found = schedules.spread_over_depth({"a": a_spec, "b": a_spec})
    assert found["a"] == spec(0.2, schedule=Curriculum(0.2).document())
    assert found["b"] == spec(0.4, schedule=Curriculum(0.4).document())


def test_over_depth_is_yes_or_no():
    with pytest.raises(BadInput, match="over_depth"):
        schedules.spread_over_depth({"a": spec(0.4, over_depth=2)})


def test_examples_in_docstrings():
    found = doctest.testmod(schedules)
    assert found.attempted > 0
    assert found.failed == 0
