"""Study files: read, refused, and written so that every commented line can be used."""

import re
import tomllib
from types import SimpleNamespace

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_dropout import BadInput, sites
from keras_dropout.bench.records import Variant
from keras_dropout.bench.study import study_file
from keras_dropout.bench.study.planning import _read_variants

L = keras.layers
GOOD = """
target = "model.py:build"
seeds = 8
early_stopping = 5

[data]
source = "houses.csv"
target = ["price", "rent"]
image_size = [32, 32]

[variants]
as-built = true
weak = "hidden=0.1, input=0.05"

[variants.mixed]
"block/conv" = { kind = "SpatialDropout2D", rate = 0.3 }
last = 0.5
"""


def read(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    found = study_file.read(path)
    return found | ({"variants": _read_variants(found["variants"])} if "variants" in found else {})


def test_a_study_file_is_what_the_options_would_be(tmp_path):
    assert read(tmp_path, GOOD) == {
        "target": "model.py:build",
        "seeds": 8,
        "early_stopping": 5,
        "data": "houses.csv",
        "data_options": {"target": ("price", "rent"), "image_size": (32, 32)},
        "variants": [
            "as-built",
            Variant.parse("weak=hidden=0.1, input=0.05"),
            Variant.parse("mixed=block/conv=SpatialDropout2D(0.3), last=0.5"),
        ],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds = ", "is no TOML"),
        ("sedes = 6", "Did you mean seeds?"),
        ("[data]\nsource = 'a.csv'\ntagret = 'x'", "Did you mean target?"),
        ("[data]\ntarget = 'x'", "[data] has no source"),
        ("data = 'a.csv'", "data must be a table"),
        ("[variants]\na = 3", "must say what stands at which site; got 3"),
        ("[variants]\na = 'hidden'", "must say what stands at which site; got 'hidden'"),
        ("[variants]\na = 'hidden=1.5'", "got 1.5"),
    ],
)
def test_what_cannot_be_used_is_refused(text, words, tmp_path):
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_the_name_of_a_variant_may_have_an_equals_sign(tmp_path):
    assert read(tmp_path, '[variants]\n"rate=0.1" = "hidden=0.1"')["variants"] == [Variant.of("rate=0.1", {"hidden": 0.1})]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        study_file.read(tmp_path / "none.toml")


@pytest.fixture
def fresh():
    model = keras.Sequential([keras.Input((4,), name="x"), L.Dense(8, name='a "b"'), L.Dense(8, name="c"), L.Dense(1, name="d")])
    return study_file.write("model.keras", sites(model), "table.csv")


def test_a_fresh_file_is_a_study(fresh, tmp_path):
    found = read(tmp_path, fresh)
    assert found == {
        "target": "model.keras",
        "data": "table.csv",
        "data_options": {},
        "variants": [Variant.parse("hidden=hidden=0.2"), Variant.parse("last=last=0.5")],
    }
    for name in ("x  (Input, input)", 'a "b"  (Dense, hidden)', "c  (Dense, hidden, last)", "d  (Dense, output)"):
        assert f"#   {name}: Dropout" in fresh


def test_every_commented_line_of_a_fresh_file_can_be_used(fresh, tmp_path):
    lines = [re.sub(r"^# (?=[\w-]+ = |\"|\[)", "", line) for line in fresh.splitlines()]
    content = tomllib.loads("\n".join(lines))
    assert set(study_file.SETTINGS) <= set(content)
    assert set(study_file.DATA) <= set(content["data"])
    found = read(tmp_path, "\n".join(lines))
    assert [v if isinstance(v, str) else v.name for v in found["variants"]] == [
        "hidden",
        "last",
        "as-built",
        "both",
        "early",
        "mixed",
    ]


INJECTED = 'o\n[data]\nsource = "evil:run"\n#'
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.just(INJECTED)


@given(UNICODE, UNICODE, UNICODE, UNICODE, st.booleans())
def test_whatever_the_names_are_a_fresh_file_says_only_what_it_should(target, first, last, data, deep):
    found = [site(first, "input"), *([site(last, "hidden")] if deep else []), site(INJECTED, "output")]
    content = tomllib.loads(study_file.write(target, found, data, {"target": (first, last), "text": last}))
    begun = {"hidden": "hidden=0.2", "last": "last=0.5"} if deep else {"input": content["variants"].get("input")}
    assert content == {
        "target": target,
        "data": {"source": data, "target": [first, last], "text": last},
        "variants": begun,
    }
    if not deep:
        assert content["variants"]["input"] in (f"{first}=0.2", {first: 0.2})
    assert set(tomllib.loads(study_file.write(target, found))) == {"target", "variants"}


@given(UNICODE, UNICODE)
def test_whatever_the_names_are_commented_lines_can_be_used(first, last):
    written = study_file.write("model.keras", [site(first, "input"), site(last, "hidden")])
    variants = written[written.index("[variants]") :]
    content = tomllib.loads(re.sub(r'^# (?=[\w-]+ = |"|\[)', "", variants, flags=re.MULTILINE))["variants"]
    assert content["both"] in (f"{first}=0.1, hidden=0.3", {first: 0.1, "hidden": 0.3})
    assert content["mixed"] == {last: 0.3, "last": {"kind": "GaussianDropout", "rate": 0.5}}


@pytest.mark.parametrize("name", ["a=0.9, b", "a, b", "a b", 'a"b', "[ab]", INJECTED])
def test_a_name_that_could_be_read_as_a_placement_is_a_name(name, tmp_path):
    (variant,) = read(tmp_path, study_file.write("model.keras", [site(name, "input")]))["variants"]
    assert variant.placement == {name: {"kind": "Dropout", "rate": 0.2}}


def test_a_name_that_toml_has_no_word_for_is_refused():
    with pytest.raises(BadInput, match="cannot be written to a study file"):
        study_file.write("model.keras", [site("a\ud800", "input")])


def site(name, group):
    return SimpleNamespace(name=name, kind="Dense", group=group, last=False, methods=("Dropout",))
