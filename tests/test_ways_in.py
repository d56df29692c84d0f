"""What is added is added in few places: a setting is its row, and where it is used."""

import subprocess
import sys

import pytest

SETTING = """
import sys
from typing import Annotated
from keras_dropout.bench import settings
from keras_dropout.errors import check_whole

# The row, in the table and in those that go on from it.
row = settings.Setting("Epochs of patience.", "3", check=lambda n: check_whole("patience", n, 1, "Or 3."), kind=int)
for table in (settings.Settings, settings.CompareSettings, settings.SearchSettings):
    table.__annotations__["patience"] = Annotated[int | None, row]

# The use: all that trains has the settings.
from keras_dropout.bench.training import trainer
follow = trainer.Trainer.follow
def tell(self, runs, checkpoints, until, settings):
    print(f"patience {settings['patience']}")
    return follow(self, runs, checkpoints, until, settings)
trainer.Trainer.follow = tell

from keras_dropout import cli
from keras_dropout.bench.execution import worker
from keras_dropout.bench.study import study_file
"""


@pytest.fixture
def run(tmp_path):
    def with_the_setting(code, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", SETTING + code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout, done.stderr

    return with_the_setting


def test_a_setting_is_an_option_of_the_commands(run):
    code = """
import sys
for sys.argv in (["", "compare", "--help"], ["", "tune", "--help"], ["", "compare", "digits-mlp", "--patience", "0"]):
    try:
        cli.main()
    except SystemExit as ended:
        print("status", ended.code)
"""
    status, out, err = run(code)
    assert status == 0, err
    assert out.count("Epochs of patience.") == out.count("status 0") == 2
    assert out.endswith("status 2\n")
    assert err.splitlines() == ["keras-dropout: patience must be a whole number of at least 1; got 0.", "Or 3."]


def test_a_setting_is_a_line_of_study_files(run, tmp_path):
    (tmp_path / "study.toml").write_text('target = "digits-mlp"\npatience = 4\n')
    found = run("print(study_file.SETTINGS['patience']); print(study_file.read('study.toml'))")[1]
    assert found == "('3', 'Epochs of patience.')\n{'target': 'digits-mlp', 'patience': 4}\n"


def test_a_setting_of_python_reaches_what_trains(run):
    code = """
from keras_dropout.bench.compare import make_plan
plan = make_plan("digits-mlp", patience=5, epochs=1, seeds=1, ledger="r.db")
assert plan.settings["patience"] == 5
assert make_plan("digits-mlp", ledger="r.db").settings["patience"] is None
trained = trainer.Trainer(plan.study, plan.data.parts(plan.study.split), plan.data.divide_by)
here = worker.Worker.__new__(worker.Worker)
here._given, here._trainer, here._ended = (plan.study, plan.data.parts(plan.study.split), 1.0), trained, lambda key, result: None
list(here.messages(worker.Task(tuple(plan.study.runs())[:1], settings=plan.settings)))
"""
    status, out, err = run(code)
    assert status == 0, err
    assert out == "patience 5\n"
