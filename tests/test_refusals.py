"""Refusals of the command that need no framework: they come before one is loaded, and change nothing."""

import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_dropout.commands import output

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")

EARLY = {  # command line: words of the first line
    "compare digits-mlp --seeds 0": "seeds must be",
    "compare digits-mlp --epochs -1": "epochs must be",
    "compare digits-mlp --samples 0": "samples must be",
    "compare digits-mlp --learning-rate 0": "learning rate must be",
    "compare digits-mlp --primary accuracy": "primary must name a metric on the test data; got 'accuracy'",
    "compare digits-mlp --seeds auto --max-seeds 5": "max seeds must be a whole number of at least 6",
    "compare digits-mlp --engine fast": "unknown engine",
    "compare digits-mlp --on mars": "workers cannot be on",
    "compare digits-mlp --variant strong": "unknown variant",
    "compare digits-mlp --variant a=hidden=1.5": "rate must be",
    "compare digits-mlp --variant a=hidden=Dropuot(0.2)": "no dropout layer",
    "compare digits-mlp --variant a=hidden=0.1 --variant a=last=0.2": "same name",
    "compare digits-mlp --baseline other": "unknown baseline",
    "compare digits-mlp --data x.csv": "has data of its own",
    "compare digits-mlp --data-dir nowhere": "does not exist",
    "compare digits-mlp --ledger no/runs.db": "does not exist",
    "compare digits-mlp --report no/page.html": "cannot be written there",
    "compare fashion": "unknown recipe",
    "compare none.keras --data a.npz": "does not exist",
    "compare none.py:build --data a.npz": "no Python file that exists",
    "compare code.py:build": "needs data",
    "compare code.py:build --data none.csv": "does not exist",
    "compare code.py:build --data a.npz --task guess": "unknown task",
    "compare code.py:build --data a.npz --test-split 2": "test_split must lie",
    "compare --study none.toml": "does not exist",
    "compare --study broken.toml": "is no TOML",
    "compare --study wrong.toml": "epochs must be",
    "tune digits-mlp --trials 0": "trials must be",
    "tune digits-mlp --space hidden": "is not SITE=LOW:HIGH",
    "tune digits-mlp --sweep hidden": "is not SITE=LOW:HIGH",
    "tune digits-mlp --sweep hidden=0:0.6:3 --seeds auto": "got auto",
    "tune digits-mlp --seeds 2000": "is the search's own",
    "sites fashion": "unknown recipe",
    "sites none.keras": "does not exist",
    "sites digits-mlp --backend theano": "unknown backend",
    "place none.keras --put hidden=0.2 -o new.keras": "does not exist",
    "place none.keras --put hidden=2 -o new.keras": "rate must be",
    "check old.keras": "saved by Keras 2.15.0",
    "check digits-mlp --data none.csv": "does not exist",
    "init digits-mlp -o study.txt": "must be a .toml file",
    "layers Dropuot": "unknown method",
    "uncertainty digits-mlp --samples 0": "samples must be",
    "uncertainty digits-mlp --seed -1": "seed must be",
    "uncertainty digits-mlp --masks some": "unknown masks",
    "uncertainty digits-mlp --shift spin": "unknown shift",
    "uncertainty digits-mlp --tune-rate luck": "unknown metric",
    "uncertainty digits-mlp --place hidden=2": "rate must be",
    "uncertainty code.py:build --data none.csv": "does not exist",
    "uncertainty code.py:build --data a.npz --ood none.npz": "does not exist",
    "uncertainty none.db --variant hidden": "there is no study",
    "ensemble digits-mlp --samples 0": "samples must be",
    "ensemble digits-mlp --masks some": "unknown masks",
    "ensemble none.keras --thin -o new.keras": "does not exist",
    "reproduce nothing": "unknown reproduction",
    "reproduce srivastava-rate --workers 0": "workers must be",
    "reproduce srivastava-rate --report no/page.html": "cannot be written there",
    "report none.db": "no ledger none.db",
}
# One process for all of them: a framework that one loads stays loaded, so the rest of the list is then wrong too.
EACH = """
import contextlib, io, json, shlex, sys
from keras_dropout import cli
found = {}
for line in json.load(sys.stdin):
    sys.argv, out, err = ["keras-dropout", *shlex.split(line)], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code
    loaded = [name for name in ("keras", "jax", "tensorflow", "torch") if name in sys.modules]
    found[line] = status, out.getvalue(), err.getvalue(), loaded
print(json.dumps(found))
"""


def test_what_needs_no_framework_is_refused_before_one_is_loaded(tmp_path):
    (tmp_path / "code.py").write_text("import keras\nbuild = keras.Sequential\n")
    (tmp_path / "broken.toml").write_text("target = [")
    (tmp_path / "wrong.toml").write_text('target = "digits-mlp"\nepochs = "many"\n')
    np.savez(tmp_path / "a.npz", x=np.eye(20), y=np.arange(20) % 2)
    _old_keras(tmp_path / "old.keras")
    before = sorted(tmp_path.rglob("*"))
    last = "layers Dropout"  # loads Keras: the process would see one
    done = subprocess.run(
        [sys.executable, "-c", EACH], input=json.dumps([*EARLY, last]), capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "keras" in found.pop(last)[3]
    for line, (status, out, err, loaded) in found.items():
        assert (status, out, loaded) == (2, "", []), line
        first, _ = err.strip().splitlines()
        assert EARLY[line] in first, line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("start", ["on the PATH", "elsewhere", "as a module"])
def test_a_command_that_is_printed_runs_where_it_is_printed(start, tmp_path, monkeypatch):
    """After `.venv/bin/keras-dropout compare …`, as make run has it, there is no keras-dropout on the PATH."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    folder = tmp_path / "an environment" / "bin"
    folder.mkdir(parents=True)
    script = folder / "keras-dropout"
    script.write_text(f"#!{sys.executable}\nfrom keras_dropout.cli import main\nmain()\n")
    script.chmod(0o755)
    if start == "on the PATH":
        environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
    program = output.__file__ if start == "as a module" else os.path.relpath(script, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", environment["PATH"])
    monkeypatch.setattr(sys, "argv", [program, "runs", "--ledger", "my runs.db"])
    line = output.again()
    assert line.startswith("keras-dropout ") == (start == "on the PATH")
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment, timeout=100)
    assert "no ledger my runs.db" in done.stderr
    assert output.stored_command() == "keras-dropout runs --ledger 'my runs.db'"


def _old_keras(path):
    """A file as Keras 2 saved it, as far as that is looked at."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "2.15.0", "date_saved": "2024-01-01@00:00:00"}')
        archive.writestr("config.json", "{}")
