"""What goes wrong in a study is reported for the run where it went wrong; the others go on, and the same command makes it good."""

import json
import resource
import subprocess
import sys

import keras
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")
MODEL = """
import multiprocessing, pathlib
import keras, numpy as np

@keras.saving.register_keras_serializable()
class Hungry(keras.layers.Layer):
    def build(self, shape):
        if multiprocessing.parent_process() and pathlib.Path("too-little").exists():
            np.ones(2**50)

    def call(self, x):
        return x

def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", name="a"), Hungry(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model

def data():
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    return (x[:150], x[:150, :1]), (x[150:], x[150:, :1])
"""


def compare(folder, *arguments, **more):
    command = [sys.executable, "-m", "keras_dropout.cli", "compare", *arguments, "--ledger", "r.db"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **more)


def test_a_full_disk_costs_the_runs_that_found_no_room(tmp_path):
    study = ("digits-mlp", "--seeds", "3", "--epochs", "2", "--workers", "1")
    room = 200_000  # bytes that a file may have: the ledger's log of writes has room for some runs, not for all

    first = compare(tmp_path, *study, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    assert first.returncode == 1, first.stderr
    lost = first.stderr.count("trained, but not stored: the ledger r.db cannot be written")
    kept = json.loads(compare(tmp_path, *study, "--dry-run", "--json").stdout)["in_ledger"]
    assert 0 < kept < 12
    assert lost == 2 * (12 - kept)  # said when it happens, and at the end
    second = compare(tmp_path, *study)
    assert second.returncode == 0, second.stderr
    assert f"{12 - kept}/{12 - kept}  " in second.stderr


def test_too_little_memory_fails_the_run_and_its_next_try_can_do(tmp_path):
    study = ("model.py:build", "--data", "model.py:data", "--seeds", "1", "--epochs", "1", "--engine", "reference")
    study += ("--variant", "half=a=0.5")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "too-little").touch()
    first = compare(tmp_path, *study)
    assert first.returncode == 1, first.stderr
    assert first.stderr.count("MemoryError: Unable to allocate 8.00 PiB") == 4  # for both runs, when it happens and at the end
    (tmp_path / "too-little").unlink()
    second = compare(tmp_path, *study)
    assert second.returncode == 0, second.stderr
    assert "2/2  " in second.stderr
