"""Broken input at the doors of the command, by benchmarks/fuzz.py with few examples; and faults that it must find."""

import importlib
import sys
import time
from pathlib import Path

import keras
import pytest

from keras_dropout.errors import refuse

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")
DOORS = ("study file", "variant", "space", "placement", "CSV", "npz", "IDX", "keras archive", "ledger", "report", "ledger, listed")
DOORS += tuple(f"hostile ledger, {name}" for name in ("runs list", "runs verify", "runs export", "runs merge", "report"))


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("fuzz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="module")
def doors(fuzz, folder):
    found = fuzz.doors(folder)
    assert found.keys() == set(DOORS)
    return found


@pytest.mark.parametrize("name", DOORS)
def test_broken_input_is_refused_in_two_lines_and_leaves_nothing(fuzz, doors, folder, name):
    seen, _, fault = fuzz.fuzz(doors[name], folder, examples=6)
    assert fault is None, fault
    assert seen.total() >= 6


@pytest.mark.parametrize(("name", "file"), [("npz", "arrays.npz"), ("CSV", "table.csv"), ("ledger", "valid.db")])
def test_what_is_whole_is_taken(fuzz, doors, folder, name, file):
    assert fuzz.knock(doors[name], folder, (folder / file).read_bytes()) == "done"


@pytest.mark.parametrize(
    ("does", "what"),
    [
        (lambda path: {}["planted"], "KeyError: 'planted'"),
        (lambda path: time.sleep(30), "it hangs"),
        (lambda path: path.with_name("half").write_text("written") and refuse("no.", "no."), r"left \['half'\]"),
        (lambda path: print("Traceback", file=sys.stderr), "Traceback"),
        (lambda path: sys.exit(3), "exit status 3"),
    ],
)
def test_planted_faults_are_found(fuzz, doors, folder, monkeypatch, does, what):
    monkeypatch.setattr(fuzz, "LIMIT", 1)
    monkeypatch.setattr("keras_dropout.bench.ledger.lookup.check_readable", lambda path: does(Path(path)))
    with pytest.raises(fuzz.Fault, match=what):
        fuzz.knock(doors["ledger, listed"], folder, (folder / "valid.db").read_bytes())
    (folder / "half").unlink(missing_ok=True)


def test_a_hang_in_what_catches_every_exception_is_found(fuzz, doors, folder, monkeypatch):
    monkeypatch.setattr(fuzz, "LIMIT", 1)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: time.sleep(30))
    with pytest.raises(fuzz.Fault, match="it hangs"):
        fuzz.knock(doors["keras archive"], folder, (folder / "model.keras").read_bytes())


def test_the_smallest_input_with_a_fault_is_told(fuzz, doors, folder, monkeypatch):
    def knock(door, folder, given):
        if "(" in given:
            raise fuzz.Fault("a parenthesis")
        return "done"

    monkeypatch.setattr(fuzz, "knock", knock)
    seen, _, fault = fuzz.fuzz(doors["placement"], folder, examples=200)
    assert seen["done"]
    assert fault == "'('\na parenthesis"
