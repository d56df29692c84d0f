"""Results in a shell, on narrow terminals and in notebooks: nothing cut, nothing unescaped, nothing written twice."""

import io
import pickle
import re
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

import keras_dropout
from keras_dropout.bench.assessment import Assessment
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.execution.progress import Display
from keras_dropout.bench.records import DataFacts, Result, Study, Variant
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.tuning.sweep import Sweep
from keras_dropout.bench.tuning.tune import Tuning
from keras_dropout.display import Shown, as_html, as_text, fitted
from keras_dropout.ensemble import Average

L = keras.layers


def table(rows, no_wrap=False):
    made = Table(title="a title")
    for number in range(len(rows[0])):
        made.add_column(f"column{number}", justify="right", no_wrap=no_wrap)
    for row in rows:
        made.add_row(*map(Text, row))
    return made


FIGURES = st.lists(st.text("0123456789.+-", min_size=1, max_size=12), min_size=1, max_size=3).map(" ".join)
ROWS = st.integers(1, 9).flatmap(lambda n: st.lists(st.tuples(*[FIGURES] * n), min_size=1, max_size=5))


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(30, 130), st.booleans())
def test_no_figure_is_cut_at_any_width(rows, width, no_wrap):
    text = as_text(table(rows, no_wrap), width)
    words = text.replace("│", " ").split()
    for cell in (cell for row in rows for cell in row):
        assert set(cell.split()) <= set(words)
    assert max(map(len, text.splitlines())) <= width


def test_names_fold_before_a_table_becomes_a_list():
    made = Table()
    made.add_column("name", overflow="fold")
    made.add_column("loss", justify="right")
    made.add_row("a-very-long-name-of-a-variant-that-nobody-can-break", "0.12345678")
    wide, narrow = as_text(made, 40), as_text(made, 14)
    assert "│" in wide
    assert "0.12345678" in wide
    assert "│" not in narrow
    assert "0.12345678" in narrow


def test_rich_alone_would_cut():
    console = Console(width=30, file=io.StringIO())
    console.print(table([("123456789012",) * 5]))
    assert "123456789012" not in console.file.getvalue()


def parse(html):
    return ElementTree.fromstring(f"<div>{html}</div>")


def test_html_is_escaped_and_well_formed():
    shown = table([("<script>alert(1)</script>", "a & b")])
    html = as_html(Group(shown, Text("1 < 2 [bold]"), Text.assemble(("loud", "bold"), " soft")))
    assert "<script>" not in html
    root = parse(html)
    assert [cell.text for cell in root.iter("td")] == ["a & b"]
    assert [cell.text for cell in root.findall(".//tbody//th")] == ["<script>alert(1)</script>"]
    assert [p.text for p in root.iter("p")] == ["1 < 2 [bold]", None]
    assert root.find(".//strong").text == "loud"
    assert "color" not in html, "colours are those of the page"


def comparison(target="d", name="<half>", metric="test_loss", baseline="none"):
    data, variants = (
        DataFacts("d", "f", 9, 1, 2),
        (Variant("none", {}), Variant(name, {"hidden": {"kind": "Dropout", "rate": 0.5}})),
    )
    study = Study(
        target,
        data,
        {"class_name": "S"},
        {"loss": "mse", "optimizer": {}},
        "held-out",
        "jax",
        "compiled",
        2,
        32,
        (0, 1, 2, 3, 4, 5),
        variants,
        baseline,
    )
    results = {}
    for run in study.runs():
        loss = 0.5 + 0.01 * run.seed**2 - 0.1 * (run.variant.name != "none")
        curves = {"loss": [0.6, loss], "validation_loss": [0.6, loss]}
        results[run.key] = Result("done", 1.0, 2, {"test_loss": loss, "train_loss": loss - 0.1, metric: loss}, curves)
    return ShownComparison(study, results)


def small_model():
    x = keras.Input((4,))
    outputs = L.Dense(3, "softmax", name="classes")(L.Dropout(0.5, name="drop")(L.Dense(6, "relu", name="first")(x)))
    return keras.Model(x, L.Dropout(0.2, name="late")(outputs))


def test_a_comparison_has_its_tables_and_a_picture(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    found = comparison()
    html = found._repr_html_()
    root = parse(html)
    tables = [part for part in found.__rich__().renderables if isinstance(part, Table)]
    assert [caption.text for caption in root.iter("caption")] == [str(each.title) for each in tables]
    assert "&lt;half&gt;" in html
    assert "better" in [cell.text for cell in root.iter("td")]
    (picture,) = root.findall("div/{http://www.w3.org/2000/svg}svg")
    assert "half" in "".join(picture.itertext())
    used = set(re.findall(r"var\((--\w+)\)", html))
    assert used <= set(re.findall(r"(--\w+):", html)), "colours that only the page of a report has"
    assert repr(found) == as_text(found, 100).rstrip("\n")


def test_a_comparison_that_is_pickled_shows_itself_again():
    found = comparison()
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert (repr(again), again._repr_html_()) == (repr(found), found._repr_html_())


def test_a_comparison_of_data_alone_has_the_same_document():
    found = comparison()
    alone = Comparison(found.study, found.results)
    assert isinstance(found, Comparison)
    assert alone.document() == found.document()


@pytest.mark.parametrize("show", [as_text, as_html, lambda found: as_text(found, 40)], ids=["text", "html", "narrow"])
def test_names_are_no_markup(show):
    """Brackets and colons are letters to us, and bold, an error or a smile to rich."""
    found = comparison("m.py:smile:[/c]", "a[/b]", "test_[bold]", "a[/b]")
    for each in (found, Sweep("hidden[/d]", [0.0, 0.5], ["none", "a[/b]"], found)):
        shown = show(each)
        assert "m.py:smile:[/c]" in shown
    assert "against a[/b], paired" in show(found).replace("\n", " ")
    assert "[bold]" in show(found)
    assert "hidden[/d]" in shown


def test_progress_of_a_variant_with_brackets_in_its_name(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for: a terminal
    found = comparison(name="a[/b]")
    run = found.study.runs()[1]
    with Display(2, False, found.__rich__) as display:
        display.expect(1)
        display.started(0, run, 0)
        display.ended(0, run, found.results[run.key])
    assert "a[/b], seed 0" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80])
def test_a_comparison_on_a_narrow_terminal(width):
    found = comparison()
    text = as_text(found, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for word in ("-0.1000", "0.5", "better", "<half>"):
        assert word in text


def test_sites_are_a_list_that_prints_as_a_table():
    found = keras_dropout.sites(small_model())
    assert isinstance(found, list)
    assert [site.name for site in found] == [site.name for site in list(found)]
    assert "Site(" not in repr(found)
    for site in found:
        assert site.name in repr(found)
        assert site.name in found._repr_html_()
    parse(found._repr_html_())


def test_mistakes_are_a_list_that_prints_as_texts():
    found = keras_dropout.check(small_model())
    assert isinstance(found, list)
    assert [each.rule for each in found] == ["dropout-after-softmax"]
    assert str(found) == str(found[0])
    assert found[0].what.split()[-1] in repr(found)
    assert parse(found._repr_html_()).find(".//strong").text == "dropout-after-softmax"
    nothing = keras_dropout.check(keras.Sequential([keras.Input((4,)), L.Dense(3, "softmax")]))
    assert nothing == []
    assert str(nothing) == repr(nothing) == "no known mistake with dropout found"


def test_uncertainty_prints_what_its_arrays_say():
    model = keras.Sequential([keras.Input((4,)), L.Dropout(0.5), L.Dense(3, "softmax")])
    u = keras_dropout.uncertainty.predict(model, np.random.default_rng(0).normal(size=(20, 4)), samples=8)
    for text in (repr(u), u._repr_html_()):
        assert f"{u.entropy.mean():.4g}" in text
        assert f"{np.quantile(u.mutual_information, 0.95):.4g}" in text
        assert "array(" not in text
    parse(u._repr_html_())


@pytest.mark.parametrize("kind", [Assessment, Average, ShownComparison, Sweep, Tuning])
def test_every_result_is_shown(kind):
    assert issubclass(kind, Shown)
    assert kind.__repr__ is Shown.__repr__
    assert "__rich__" in vars(kind)


def test_what_fits_stays_a_table():
    wide = table([("1", "2")])
    assert fitted(wide, 100).renderables[0] is wide
