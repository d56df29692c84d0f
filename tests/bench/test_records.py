"""Variants as they are written, and the keys by which runs are known."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_dropout.bench import records
from keras_dropout.bench.records import DataFacts, Result, Study, Variant
from keras_dropout.errors import BadInput
from keras_dropout.schedules import Curriculum, Early, Late, Linear, Step

FACTS = DataFacts("d", "f" * 32, 90, 10, 20)


def study(**changes):
    settings = {
        "target": "t",
        "data": FACTS,
        "model": {"config": {"name": "m", "layers": [{"config": {"name": "dense_3", "units": 4}}]}},
        "compiled": {"loss": "mse"},
        "split": "held-out",
        "backend": "jax",
        "engine": "compiled",
        "epochs": 2,
        "batch_size": 8,
        "seeds": (0, 1),
        "variants": (Variant("none", {}), Variant.of("half", {"dense_3": 0.5})),
    }
    return Study(**(settings | changes))


def keys(a_study):
    return [run.key for run in a_study.runs()]


@pytest.mark.parametrize(
    ("text", "placement"),
    [
        ("a=hidden=0.5", {"hidden": {"kind": "Dropout", "rate": 0.5}}),
        (" b = input=.1 , last = 0 ", {"input": {"kind": "Dropout", "rate": 0.1}, "last": {"kind": "Dropout", "rate": 0.0}}),
        (
            "c=x=Dropout(0.2, noise_shape=(None, 1)), y=0.3",
            {"x": {"kind": "Dropout", "rate": 0.2, "noise_shape": (None, 1)}, "y": {"kind": "Dropout", "rate": 0.3}},
        ),
        ("d=x=Dropout(rate=0.2)", {"x": {"kind": "Dropout", "rate": 0.2}}),
        ("e=hidden=linear(0.5, 0.0)", {"hidden": {"kind": "Dropout", "rate": 0.5, "schedule": Linear(0.5, 0.0).document()}}),
        (
            "f=hidden=DropBlock2D(curriculum(0.2), block_size=5), last=step([0.0, 0.3], at=[0.5])",
            {
                "hidden": {"kind": "DropBlock2D", "rate": 0.2, "block_size": 5, "schedule": Curriculum(0.2).document()},
                "last": {"kind": "Dropout", "rate": 0.3, "schedule": Step([0.0, 0.3], at=[0.5]).document()},
            },
        ),
        (
            "g=hidden=StochasticDepth(rate=early(0.1, until=0.2), over_depth=True)",
            {
                "hidden": {
                    "kind": "StochasticDepth",
                    "rate": 0.1,
                    "over_depth": True,
                    "schedule": Early(0.1, until=0.2).document(),
                }
            },
        ),
        ("h=hidden=constant(0.2)", {"hidden": {"kind": "Dropout", "rate": 0.2}}),
    ],
)
def test_variants_are_read(text, placement):
    found = Variant.parse(text)
    assert found.name == text.partition("=")[0].strip()
    assert found.placement == placement


@pytest.mark.parametrize(
    "text",
    [
        "a=",
        "a=hidden",
        "a=hidden=",
        "a==0.5",
        "a=hidden=1",
        "a=hidden=-0.1",
        "a=hidden=nan",
        "a=hidden=abc",
        "a=x=Dropout(",
        "=x=0.5",
    ]
    + [
        "a=x=linear(0.5)",
        "a=x=linear(0.5, 1)",
        "a=x=Dropout(lineal(0.5, 0))",
        "a=x=Dropout(0.1, seed=linear(1))",
        "a=x=Dropout(1)+f(2)",
    ]
    + ["a=x=Dropout(0.1, 0.2)", "a=x=Dropout(__import__('os'))", "a=hidden=1.0", "a=hidden=inf"],
)
def test_variants_that_cannot_be_read_are_refused(text):
    with pytest.raises(BadInput) as caught:
        Variant.parse(text)
    assert len(str(caught.value).splitlines()) == 2


LINEAR = {"kind": "SpatialDropout2D", "rate": 0.5, "schedule": Linear(0.5, 0.0).document()}


@pytest.mark.parametrize(
    "value",
    [LINEAR, {"kind": "SpatialDropout2D", "rate": Linear(0.5, 0.0)}, {"kind": "SpatialDropout2D", "rate": "linear(0.5, 0.0)"}]
    + ["SpatialDropout2D(linear(0.5, 0.0))"],
    ids=str,
)
def test_one_schedule_written_in_all_ways(value):
    assert Variant.of("a", {"hidden": value}).placement == {"hidden": LINEAR}
    assert Variant.of("a", {"hidden": Late(0.4, start=0.5)}) == Variant.parse("a=hidden=late(0.4, start=0.5)")


SITES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
RATES = st.floats(0, 1, exclude_max=True)
SCHEDULES = st.one_of(
    st.builds(Linear, RATES, RATES),
    st.builds(Step, st.lists(RATES, min_size=2, max_size=2), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=1)),
    st.builds(Curriculum, RATES),
    st.builds(Early, RATES, st.floats(0.01, 1), st.sampled_from(["linear", "constant"])),
)
OPTIONS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["Dropout", "DropBlock2D"])},
    optional={"over_depth": st.booleans(), "block_size": st.integers(1, 9), "noise_shape": st.lists(st.none() | st.integers(1, 9))},
)
PLACEMENTS = st.dictionaries(
    SITES,
    st.one_of(RATES, SCHEDULES, st.tuples(OPTIONS, RATES | SCHEDULES).map(lambda pair: {**pair[0], "rate": pair[1]})),
    min_size=1,
)


@given(SITES, PLACEMENTS)
def test_variants_go_through_json_and_text_and_back(name, placement):
    variant = Variant.of(name, placement)
    stored = json.loads(json.dumps({"name": variant.name, "placement": variant.placement}))
    assert Variant(**stored) == Variant.of(**stored) == variant
    assert Variant.parse(str(variant)) == variant
    assert str(Variant.parse(str(variant))) == str(variant)


def test_a_rate_that_contradicts_its_schedule_is_refused():
    with pytest.raises(BadInput, match="schedule's highest"):
        Variant("a", {"hidden": {**LINEAR, "rate": 0.4}})


def test_runs_come_by_seed_so_that_pairs_come_early():
    assert [(run.seed, run.variant.name) for run in study().runs()] == [(0, "none"), (0, "half"), (1, "none"), (1, "half")]


def test_keys_do_not_depend_on_names_that_keras_made_up():
    renamed = study(
        target="other",
        model={"config": {"name": "m2", "layers": [{"config": {"name": "dense_7", "units": 4}}]}},
        variants=(Variant("none", {}), Variant.of("other name", {"dense_7": 0.5})),
    )
    assert keys(renamed) == keys(study())


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"batch_size": 16},
        {"split": "as-published"},
        {"backend": "torch", "engine": "reference"},
        {"engine": "reference"},
        {"compiled": {"loss": "mae"}},
        {"data": dataclasses.replace(FACTS, fingerprint="0" * 32)},
        {"model": {"config": {"name": "m", "layers": [{"config": {"name": "dense_3", "units": 5}}]}}},
    ],
    ids=str,
)
def test_keys_depend_on_everything_that_decides(change):
    assert not set(keys(study(**change))) & set(keys(study()))


def test_a_key_of_a_study_without_samples_is_that_of_before_there_were_any(monkeypatch):
    monkeypatch.setattr(records, "NUMERIC_VERSION", 1)
    assert keys(study())[1] == keys(study(samples=None))[1] == "d0486e340738a82e342545b0b8678707"
    assert len({keys(study(samples=samples))[1] for samples in (None, 1, 50)}) == 3


def test_keys_depend_on_seed_and_placement():
    assert len(set(keys(study()))) == 4
    rates = (0.5, Linear(0.5, 0.0), Linear(0.5, 0.1))
    assert len({keys(study(variants=(Variant("none", {}), Variant.of("half", {"dense_3": rate}))))[1] for rate in rates}) == 3


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"batch_size": 0}, {"backend": "x"}, {"engine": "x"}, {"seeds": ()}, {"baseline": "x"}]
    + [{"samples": 0}, {"samples": True}, {"variants": (Variant("none", {}), Variant("none", None))}],
    ids=str,
)
def test_a_study_checks_itself(change):
    with pytest.raises(BadInput):
        study(**change)


def test_a_result_checks_itself():
    with pytest.raises(ValueError, match="finite"):
        Result("done", 1.0, 1, {"test_loss": float("nan")})
    with pytest.raises(ValueError, match="says why"):
        Result("failed", 1.0, 1)
    with pytest.raises(BadInput):
        Result("perhaps", 1.0, 1)
