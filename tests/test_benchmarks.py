"""The benchmarks of methods, of the atlas and of the layers: ranks on figures that are known, and small runs of the commands."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the benchmarks are made with the default backend")


@pytest.fixture(scope="module")
def methods():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("methods")


def test_each_method_is_tuned_with_the_same_budget(methods):
    assert len(methods.METHODS) >= 12
    assert {len(settings) for settings in (methods.METHODS | methods.REFERENCES).values()} == {6}
    for settings in (methods.METHODS | methods.REFERENCES).values():
        assert len({setting.text for setting in settings}) == 6


def test_ranks_are_of_means_and_their_intervals_of_seeds(methods):
    """Where the seeds agree an interval is its rank; where two methods change places from seed to seed, it has both."""
    losses = np.array([[3.0, 3.1, 3.0, 3.1], [1.0, 2.0, 1.0, 2.0], [2.0, 1.05, 2.0, 1.05], [0.1, 0.2, 0.1, 0.2]])
    assert methods.ranks(losses).tolist() == [4, 2, 3, 1]
    assert methods.rank_intervals(losses).tolist() == [[4, 4], [2, 3], [2, 3], [1, 1]]


def test_mean_ranks_are_over_data_sets(methods):
    """Three methods that are ranked alike on six sets, and in all orders on six others."""

    def tables(orders):
        names = "abc"
        return [{"methods": [{"method": n, "rank": rank, "test_loss": float(rank)} for n, rank in zip(names, o)]} for o in orders]

    alike = methods.together(tables([(2, 1, 3)] * 6))
    assert [(row["method"], row["mean_rank"]) for row in alike["rows"]] == [("b", 1), ("a", 2), ("c", 3)]
    assert alike["friedman_p"] < 0.01
    orders = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
    assert methods.together(tables(orders))["friedman_p"] == pytest.approx(1)


def run(name, folder, *arguments):
    command = [
        sys.executable,
        str(BENCHMARKS / f"{name}.py"),
        "--quick",
        "--ledger",
        "ledger.db",
        "--json",
        "found.json",
        *arguments,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "found.json").read_text())["rows"]


@pytest.mark.slow
def test_the_methods_in_little(tmp_path):
    """Every method is trained, ranked and compared; again, nothing is trained and the figures are the same."""
    _, first = run("methods", tmp_path)
    rows = first["tables"][0]["methods"]
    assert sum(row["dropout"] for row in rows) >= 12
    assert sorted(row["rank"] for row in rows) == list(range(1, len(rows) + 1))
    assert {len(row["tried"]) for row in rows if row["method"] != "none"} == {2}
    assert next(row["parameters"] for row in rows if row["method"] == "SparseVariationalDropout") == 64 * 32 + 32 * 32
    done, again = run("methods", tmp_path)
    assert again == first
    assert "test loss" not in done.stderr  # the line of a run that ended


@pytest.mark.slow
def test_the_atlas_in_little(tmp_path):
    _, (study,) = run("atlas", tmp_path)
    assert (study["data"], study["train"], study["seeds"]) == ("digits", 180, 2)
    assert {(row["kind"], row["site"]) for row in study["rows"]} == {("Dropout", "input"), ("Dropout", "hidden")}
    assert all(np.isfinite(row["test_loss"][:3]).all() for row in study["rows"])


@pytest.mark.slow
def test_the_speed_of_every_layer_in_little(tmp_path):
    """Each row of the table runs on each backend; without it nobody sees that a layer's arguments have changed."""
    command = [sys.executable, str(BENCHMARKS / "layers.py"), "--quick", "--cpu-time", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    named = {backend: {row["layer"] for row in rows if row["backend"] == backend} for backend in ("jax", "tensorflow", "torch")}
    assert named["jax"] == named["tensorflow"] == named["torch"]
    assert {"Dropout", "TokenDropout", "DropConnect"} < named["jax"]
    assert all(row["ratio"] > 0 for row in rows)
