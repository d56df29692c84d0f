"""The door for text: what passes it, and that nothing is printed, drawn or said past it."""

import contextlib
import io
import json
import sqlite3
import sys
import unicodedata
from unittest import mock
from xml.etree import ElementTree

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_dropout import BadInput, cli, sites
from keras_dropout.bench.execution.progress import Display
from keras_dropout.bench.records import Result, Run, Variant
from keras_dropout.bench.report import charts
from keras_dropout.characters import CleanStream, clean, clean_line, cleaned
from keras_dropout.commands.output import show
from keras_dropout.display import Terminal, as_html, as_text
from keras_dropout.errors import refuse

# A title for the terminal, BEL, a direction that is turned, half a character, noncharacters, a control of C1, a separator of lines.
EVIL = "a\x1b]0;owned\x07b\u202ec\ud800\uffff\U0001ffff\x9b\u2028\x00\x7f"
UNSAFE = set(EVIL) - set("a]0;ownedbc")


def assert_clean(text):
    assert not UNSAFE & set(text), ascii(text)


@given(st.text())
def test_what_is_clean_is_xml_and_acts_on_no_terminal(text):
    found = clean(text)
    assert ElementTree.fromstring(f"<a>{Markup.escape(found)}</a>").text == (found or None)
    found.encode("utf-8")
    for each in found:
        assert each in "\t\n" or unicodedata.category(each) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(each) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert clean(found) == found


@pytest.mark.parametrize(
    "text", ["", "hidden_1", "Größe ± 5 %", "层", "שלום", "‏مرحبا", "👩‍💻", "می‌خواهم", "a\tb\nc", "<b> & 'x' \"y\""]
)
def test_what_people_write_stays(text):
    assert clean(text) is text


def test_names_that_differ_still_do_and_read_as_python_writes_them():
    assert clean("\x1b\x9b\u202e\ufffe\U0001ffff\ud800") == r"\x1b\x9b\u202e\ufffe\U0001ffff\ud800"
    assert clean_line("a\nb\tc\r") == r"a\nb\tc\x0d"
    assert cleaned({"a\x00": ["b\x01", 1, None, ("c\x02",)]}) == {r"a\x00": [r"b\x01", 1, None, [r"c\x02"]]}
    assert isinstance(clean(Markup("<b>\x1b</b>")), Markup)


def test_a_refusal_is_two_clean_lines():
    with pytest.raises(BadInput) as caught:
        refuse(f"no {EVIL}", f"fix\r\n{EVIL}")
    assert_clean(str(caught.value))
    assert len(str(caught.value).splitlines()) == 2


def table():
    made = Table(title=EVIL)
    made.add_column(EVIL)
    made.add_column("n")
    made.add_row(Text(EVIL, "bold"), "1")
    made.add_row(EVIL, "2")
    return made


@pytest.mark.parametrize("width", [20, 200])
def test_a_table_is_clean_and_keeps_its_columns(width):
    text = as_text(table(), width)
    assert_clean(text)
    assert_clean(as_html(table()))
    if width > 100:
        assert r"\x1b]0;owned" in text
        rows = [line for line in text.splitlines() if line.startswith("│")]
        assert {line[-5:] for line in rows} == {"│ 1 │", "│ 2 │"}
        assert len({len(line) for line in rows}) == 1


def test_sites_of_a_model_with_such_names_are_clean():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="a\x1b[2Jb"), keras.layers.Dense(1)])
    for text in (str(sites(model)), repr(sites(model)), sites(model)._repr_html_()):
        assert_clean(text)
        assert r"a\x1b[2Jb" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_clean(terminal, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    run = Run("k" * 32, mock.Mock(), 0)
    run.variant.name = "a\x07b"  # as a ledger of others may have it
    with Display(2, quiet=False, table=lambda: table()) as display:
        display.expect(1)
        display.started(0, run, 0)
        display.note(f"a note {EVIL}")
        display.ended(0, run, Result("failed", 1.0, 0, error=EVIL))
        display._draw()
    assert stream.getvalue()
    assert not set("\x07\x9b\u202e\ud800\uffff") & set(stream.getvalue())
    assert "]0;owned" in stream.getvalue()
    assert "\x1b]0" not in stream.getvalue()


DRAWN = {
    "confusion": lambda name: charts.confusion([name, "b"], [[3.0, 1.0], [1.0, 3.0]], name, False),
    "pairs": lambda name: charts.pairs_of_values([{"runs": [{"seed": 1}]}], {"none": [1.0], name: [2.0]}, name),
    "curves": lambda name: charts.learning_curves({name: [{"loss": [1.0, 2.0]}]}, "loss")["training"],
    "trials": lambda name: charts.trials(
        [{"number": 1, "epochs": 1, "validation_loss": 1.0, "placement": {name: {"kind": "Dropout", "rate": 0.1}}}]
    )[name],
    "rates": lambda name: charts.rates([{"name": name, "schedule": {name: "linear(0.1, 0.2)"}}], 3),
    "arms": lambda name: charts.arms([{"part": name, "variant": name, "metric": "x", "mean": 1.0, "runs": [1.0]}])["x"],
}


@pytest.mark.parametrize("chart", DRAWN)
def test_no_name_ends_the_process_that_draws_it(chart, monkeypatch):
    """The renderer aborts on such a character, also on one that an expression escapes: what it is given has none."""
    real = charts.vl_convert.vegalite_to_svg

    def render(spec):
        assert any("]0;owned" in text for text in texts(spec))
        assert_clean("".join(texts(spec)))
        return real(spec)

    monkeypatch.setattr(charts.vl_convert, "vegalite_to_svg", render)
    drawn = DRAWN[chart](EVIL)
    assert_clean(drawn)
    ElementTree.fromstring(drawn)


def texts(value, name=""):
    """All texts in a chart's specification, those in expressions as they are evaluated."""
    if isinstance(value, str):
        yield from json.loads(value.removesuffix("[datum.value]")) if name == "labelExpr" else [value]
    elif isinstance(value, dict):
        yield from value
        for inner, each in value.items():
            yield from texts(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def test_names_that_look_like_attributes_are_drawn_as_they_are():
    name = 'a role="x" fill="#0000ff" aria-label="y" d="0.12345" b'
    root = ElementTree.fromstring(DRAWN["confusion"](name))
    assert f"{name} predicted as {name}: 3.0" in [each.get("data-tip") for each in root.iter()]
    short = 'd="0.12345" fill="#0000ff"'
    shown = ["".join(each.itertext()) for each in ElementTree.fromstring(DRAWN["curves"](short)).findall(".//{*}text")]
    assert short in shown


@pytest.mark.parametrize("name", ["a\x1b", "a\nb", "a\tb", "a\u202eb", "\ud800", "a\ufffe"])
def test_a_variant_has_a_name_that_can_be_shown(name):
    with pytest.raises(BadInput, match="cannot be shown"):
        Variant.of(name, {"hidden": 0.1})
    Variant.of("Größe 层 👩‍💻", {"hidden": 0.1})


# Paths to the terminal as someone may add them to a command, knowing nothing of the door.
PLANTED = {
    "print": lambda: print(EVIL),
    "stderr": lambda: print(EVIL, file=sys.stderr),
    "write": lambda: sys.stdout.write(EVIL),
    "lines": lambda: sys.stdout.writelines([EVIL, "\n"]),
    "rich": lambda: Console().print(EVIL),
    "rich on stderr": lambda: Console(stderr=True, force_terminal=True).print(Text(EVIL, "bold")),
    "table": lambda: show(table()),
    "refusal": lambda: refuse(EVIL, EVIL),
    "raised": lambda: (_ for _ in ()).throw(BadInput(f"{EVIL}\n{EVIL}")),
}


@pytest.mark.parametrize("path", PLANTED)
def test_no_command_prints_past_the_door(path, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda *_, **__: PLANTED[path]())
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit):
        cli.main()
    assert "]0;owned" in out.getvalue() + err.getvalue()
    assert_clean(out.getvalue() + err.getvalue())


def test_colours_reach_a_terminal():
    stream = io.StringIO()
    Terminal(file=CleanStream(stream), force_terminal=True, color_system="standard").print(Text(f"red {EVIL}", "red"))
    assert stream.getvalue().startswith("\x1b[31mred")
    assert "\x1b]" not in stream.getvalue()


def command(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["keras-dropout", *arguments]):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code, out.getvalue(), err.getvalue()


def test_a_ledger_of_others_is_listed_clean_and_its_json_is_exact(tmp_path):
    from keras_dropout.bench.ledger.store import Ledger

    path = str(tmp_path / "evil.db")
    with Ledger(path):
        pass
    name = EVIL.replace("\ud800", "").replace("\x00", "")  # neither fits into SQLite's text
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, 0, 'jax', 'compiled', 'failed', 1, 0, NULL, '{}', ?, '2026-01-01T00:00:00')",
            ("ab" * 16, name, name, name),
        )
        connection.execute("INSERT INTO details VALUES (?, '{}', ?, '{}', '{}', '{}', NULL, NULL, NULL)", ("ab" * 16, name))
    connection.close()
    for arguments in (("list",), ("show", "abab"), ("show", "abab", "--log")):
        status, out, err = command("runs", *arguments, "--ledger", path)
        assert status == 0, err
        assert "]0;owned" in out
        assert_clean(out + err)
    status, out, _ = command("runs", "list", "--json", "--ledger", path)
    assert out.isascii()
    assert json.loads(out)[0]["variant"] == name


def test_what_an_encoding_lacks_is_printed_all_the_same(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(cli, "app", lambda *_, **__: print("±"))
    with contextlib.redirect_stdout(stream), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    stream.flush()
    assert stream.buffer.getvalue() == b"\\xb1\n"


@settings(max_examples=50)
@given(st.text(), st.text())
def test_any_text_can_be_refused(what, fix):
    with pytest.raises(BadInput) as caught:
        refuse(f"x{what}", f"y{fix}")
    assert len(str(caught.value).split("\n")) == 2
