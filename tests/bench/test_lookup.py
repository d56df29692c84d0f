"""Values in a ledger that somebody made to do harm: small ones that unpack to very much, and documents of wrong types."""

import io
import json
import re
import sqlite3
import struct
import zipfile
import zlib
from contextlib import closing

import numpy as np
import pytest

from keras_dropout.bench.ledger import lookup
from keras_dropout.bench.ledger.admin import verify
from keras_dropout.bench.ledger.lookup import asked_for, examples, latest_study, peek, read_npy, read_npz, studies
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import DataFacts, Result, Study, Variant
from keras_dropout.bench.report import charts
from keras_dropout.bench.retrieval import retrieve, shown
from keras_dropout.errors import BadInput

STUDY = Study(
    "t",
    DataFacts("d", "f", 9, 1, 2),
    {},
    {"loss": "mse", "optimizer": "sgd"},
    "held-out",
    "jax",
    "compiled",
    1,
    1,
    (0,),
    (Variant("none", {}), Variant("half", {"hidden": {"kind": "Dropout", "rate": 0.5}})),
)
RUN, OTHER = STUDY.runs()
PLAN = {"plan": {"engine_reason": "", "max_seeds": None, "margin": None, "notes": []}}
DEEP, TOO_DEEP = ('{"x": ' + "[" * depth + "]" * depth + "}" for depth in (300, 100_000))


def npy(shape, content=b"", kind="<f4"):
    """A .npy file that says that it has this shape."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def npz(content, method=zipfile.ZIP_DEFLATED, said=None):
    """A .npz file with one member, which says that it is of the size `said`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as files:
        files.writestr("answers.npy", content)
    packed = file.getvalue()
    return packed if said is None else packed.replace(struct.pack("<I", len(content)), struct.pack("<I", said))


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "runs.db") as ledger:
        ledger.put_study(STUDY, "the command", {}, {}, PLAN)
        for run in (RUN, OTHER):
            found = Result("done", 1.5, 3, {"test_loss": 0.5}, {"loss": [3.0]}, np.ones(2, "f4"), predictions=np.arange(2))
            ledger.put(STUDY, run, found, {}, {})
        ledger.put_examples("f", {"kind": "none", "names": [], "columns": []}, {"answers": np.arange(2)})
    assert verify(tmp_path / "runs.db").problems == []
    return tmp_path / "runs.db"


def store(path, statement, *values):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


VALUES = {
    "losses that unpack to much": ("test_losses", zlib.compress(bytes(10**7)), "cut off, or too large"),
    "predictions that unpack to much": ("predictions", zlib.compress(npy("(2500000,)", bytes(10**7))), "cut off, or too large"),
    "predictions of a large shape": ("predictions", zlib.compress(npy(f"({10**12},)")), "not of the size"),
    "predictions of no bytes": ("predictions", zlib.compress(npy(f"({10**15},)", kind="<U0")), "not of the size"),
    "predictions of many axes": ("predictions", zlib.compress(npy(f"({'1, ' * 90})", b"1234")), ""),
    "predictions of a deep header": ("predictions", zlib.compress(npy("(" * 5000 + ")" * 5000)), ""),
    "predictions of objects": ("predictions", zlib.compress(npy("(2,)", bytes(16), "|O")), "holds objects"),
    "calibration that is deep": ("calibration", DEEP, "nested too deeply"),
    "curves that are too deep": ("curves", TOO_DEEP, "recursion"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_does_harm_is_refused_and_found_by_verify(path, name, monkeypatch):
    monkeypatch.setattr(lookup, "MOST_BYTES", 10**6)
    column, value, words = VALUES[name]
    store(path, f"UPDATE details SET {column} = ? WHERE key = ?", value, RUN.key)
    with pytest.raises(BadInput) as caught:
        peek(path, [RUN.key])
    first, _ = str(caught.value).splitlines()
    assert first.startswith(f"the ledger {path} is damaged: run {RUN.key}: ")
    assert words in first
    (problem,) = verify(path).problems
    assert problem["where"] == f"run {RUN.key}"
    assert list(peek(path, [OTHER.key])) == [OTHER.key]


def test_what_all_runs_unpack_to_together_has_a_limit(path, monkeypatch):
    monkeypatch.setattr(lookup, "MOST_BYTES", 10**6)
    store(path, "UPDATE details SET test_losses = ?", zlib.compress(bytes(600_000)))
    for run in (RUN, OTHER):
        assert len(peek(path, [run.key])[run.key].test_losses) == 150_000
    with pytest.raises(BadInput, match="too large"):
        peek(path, [RUN.key, OTHER.key])


ARRAYS = {
    "what unpacks to much": npz(npy("(2500000,)", bytes(10**7))),
    "what is packed in another way": npz(npy("(2,)", bytes(8)), zipfile.ZIP_BZIP2),
    "what says that it is small": npz(npy("(2500000,)", bytes(10**7)), said=90),
    "what says that it is large": npz(npy("(2,)", bytes(8)), zipfile.ZIP_STORED, said=10**9),
    "a large shape": npz(npy(f"({10**12},)")),
    "no array": npz(b"text"),
    "no archive": b"text",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_examples_that_do_harm_are_refused_and_found_by_verify(path, name, monkeypatch):
    monkeypatch.setattr(lookup, "MOST_BYTES", 10**6)
    store(path, "UPDATE examples SET arrays = ?", ARRAYS[name])
    with pytest.raises(BadInput, match="is damaged: the examples of data f cannot be read: ") as caught:
        examples(path, "f")
    assert len(str(caught.value).splitlines()) == 2
    assert verify(path).problems == [{"where": "examples of data f", "what": "their arrays cannot be read"}]


def test_no_more_is_unpacked_than_a_member_says(monkeypatch):
    """Python's zipfile unpacks all that there is, and then cuts it off."""
    unpacked, decompressobj = [], zlib.decompressobj

    class Counting:
        def __init__(self, *options):
            self._own = decompressobj(*options)

        def __getattr__(self, name):
            return getattr(self._own, name)

        def decompress(self, *values):
            unpacked.append(len(found := self._own.decompress(*values)))
            return found

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        read_npz(ARRAYS["what says that it is small"])
    assert sum(unpacked) < 10_000


def test_sound_arrays_are_read():
    for array in (np.arange(6).reshape(2, 3), np.array(2.5), np.zeros((0, 3), "f4"), np.array([True])):
        file = io.BytesIO()
        np.save(file, array)
        assert read_npy(file.getvalue()).tolist() == array.tolist()
        file = io.BytesIO()
        np.savez_compressed(file, a=array, b=array)
        assert {name: each.tolist() for name, each in read_npz(file.getvalue()).items()} == dict.fromkeys("ab", array.tolist())


ODD = [
    "[]",
    "3",
    '"text"',
    "null",
    "[[]]",
    "[null]",
    '[{"key": [], "variant": "none", "seed": 0}]',
    "{",
    DEEP,
    TOO_DEEP,
    '{"a": NaN',
]


def refusal(act):
    """Return the two lines that it is refused in; None where it is not."""
    try:
        act()
    except BadInput as error:
        assert str(error).count("\n") == 1  # noqa: PT017
        return str(error)
    return None


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("column", ["runs", "versions", "machine", "document"])
def test_studies_of_another_form_are_refused_or_read(path, column, text):
    store(path, f"UPDATE studies SET {column} = ?", text)
    refused = [refusal(lambda read=read: read(path)) for read in (asked_for, studies, latest_study, retrieve)]
    assert any(refused)
    assert verify(path).problems or (column, text) == ("runs", "[]")


def changed(document, place, value):
    """The document with a value in a place of it."""
    found = json.loads(json.dumps(document))
    inner = found
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return found


PLACES = [
    ("study",),
    ("study", "target"),
    ("study", "epochs"),
    ("study", "seeds"),
    ("study", "seeds", 0),
    ("study", "variants"),
    ("study", "variants", 0),
    ("study", "variants", 1, "name"),
    ("study", "variants", 1, "placement"),
    ("study", "variants", 1, "placement", "hidden"),
    ("study", "variants", 1, "placement", "hidden", "rate"),
    ("study", "data"),
    ("study", "data", "test"),
    ("study", "compiled"),
    ("study", "compiled", "optimizer"),
    ("study", "class_weight"),
    ("study", "baseline"),
    ("study", "backend"),
    ("plan",),
    ("plan", "notes"),
    ("plan", "max_seeds"),
    ("plan", "margin"),
    ("timing",),
]


KINDS = (None, True, -1, 10**30, 0.5, "text", [], [[]], {}, {"a": [1]}, {"": None})


def spoilt(path, place, values=KINDS):
    """Put values of other kinds in a place of the study's document, one after the other."""
    with closing(sqlite3.connect(path)) as connection:
        document = json.loads(connection.execute("SELECT document FROM studies").fetchone()[0])
    for value in values:
        store(path, "UPDATE studies SET document = ?", json.dumps(changed(document, place, value)))
        yield value


def page(path):
    with shown(path):
        retrieve(path).save_report(path.with_suffix(".html"))


def document(path):
    with shown(path):
        json.dumps(retrieve(path).report_document(), allow_nan=False)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_document_of_another_form_is_no_traceback(path, place):
    refused = sum(refusal(lambda: document(path)) is not None for _ in spoilt(path, place))
    assert refused >= (0 if place[-1] in ("timing", "optimizer") else 4)  # these two are only printed


@pytest.mark.parametrize("place", ["network", "search", "sweep"])
def test_what_a_page_cannot_be_made_of_is_refused(path, place, monkeypatch):
    """Beside the charts, which take long and know nothing of these."""
    for name in ("paired_differences", "pairs_of_values", "learning_curves"):
        monkeypatch.setattr(charts, name, lambda *_: None)
    for _ in spoilt(path, (place,), ("text", [[]], {"a": [1]})):
        lines = refusal(lambda: page(path))
        assert re.match(r"the study in .*runs\.db cannot be shown: \w+: .*\nkeras-dropout runs verify --ledger ", lines)
