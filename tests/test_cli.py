"""The command as its users meet it: in a process of its own, on real data, with good and bad input, and killed."""

import contextlib
import errno
import importlib.util
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_dropout
from keras_dropout import cli

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")
DIGITS = ("compare", "digits-mlp", "--ledger", "runs.db")


def command(*arguments):
    return [sys.executable, "-m", "keras_dropout.cli", *arguments]


def run(tmp_path, *arguments, timeout=200, **more):
    return subprocess.run(command(*arguments), cwd=tmp_path, capture_output=True, text=True, timeout=timeout, **more)


def without_timings(text):
    """The comparison without what depends on the clock."""
    document = json.loads(text)
    del document["timing"]
    for variant in document["variants"]:
        for each in variant["runs"]:
            del each["seconds"]
    return document


BAD = {
    "unknown recipe": (["compare", "fashion"], "unknown recipe 'fashion'"),
    "unknown command": (["comparee"], "comparee"),
    "unknown method": (["layers", "Dropuot"], "unknown method 'Dropuot'"),
    "unknown option": ([*DIGITS, "--sedes", "3"], "--sedes"),
    "unknown site": ([*DIGITS, "--variant", "a=nowhere=0.2"], "unknown site 'nowhere'"),
    "unknown variant": ([*DIGITS, "--variant", "a"], "unknown variant 'a'"),
    "unknown layer": ([*DIGITS, "--variant", "a=hidden=Dropuot(0.2)"], "no dropout layer 'Dropuot'"),
    "a layer around another kind of layer": ([*DIGITS, "--variant", "a=hidden=Zoneout(0.1)"], "fits no site"),
    "not a method": ([*DIGITS, "--variant", "a=hidden=linear_decay(0.1)"], "no dropout layer 'linear_decay'"),
    "variant twice": ([*DIGITS, "--variant", "a=hidden=0.1", "--variant", "a=last=0.2"], "same name"),
    "rate 1.0": ([*DIGITS, "--variant", "a=hidden=1.0"], "got 1.0"),
    "rate -0.1": ([*DIGITS, "--variant", "a=hidden=-0.1"], "got -0.1"),
    "rate nan": ([*DIGITS, "--variant", "a=hidden=nan"], "got nan"),
    "rate abc": ([*DIGITS, "--variant", "a=hidden=abc"], "got 'abc'"),
    "0 seeds": ([*DIGITS, "--seeds", "0"], "seeds must be"),
    "seeds of three signs": ([*DIGITS, "--seeds=---5"], "got '---5'"),
    "automatic seeds": ([*DIGITS, "--seeds", "automatic"], "got 'automatic'"),
    "too few seeds at most": ([*DIGITS, "--seeds", "auto", "--max-seeds", "5"], "max seeds must be a whole number of at least 6"),
    "seeds at most of a number": ([*DIGITS, "--max-seeds", "9"], "max seeds 9 is for"),
    "unknown primary": ([*DIGITS, "--primary", "test_auc"], "the study has no metric test_auc"),
    "margin 0": ([*DIGITS, "--margin", "0"], "margin must be"),
    "fail if, of a search": (["tune", "digits-mlp", "--fail-if", "worse"], "No such option"),
    "fail if better": ([*DIGITS, "--fail-if", "better"], "unknown --fail-if 'better'"),
    "0 epochs": ([*DIGITS, "--epochs", "0"], "epochs must be"),
    "-3 epochs": ([*DIGITS, "--epochs", "-3"], "epochs must be"),
    "abc epochs": ([*DIGITS, "--epochs", "abc"], "--epochs"),
    "batch size 0": ([*DIGITS, "--batch-size", "0"], "batch size must be"),
    "0 workers": ([*DIGITS, "--workers", "0"], "workers must be"),
    "negative learning rate": ([*DIGITS, "--learning-rate", "-0.1"], "learning rate must be"),
    "unknown optimizer": ([*DIGITS, "--optimizer", "adamm"], "unknown optimizer 'adamm'"),
    "unknown backend": ([*DIGITS, "--backend", "theano"], "unknown backend 'theano'"),
    "unknown engine": ([*DIGITS, "--engine", "fast"], "unknown engine 'fast'"),
    "unknown split": ([*DIGITS, "--split", "half"], "unknown split 'half'"),
    "compiled engine elsewhere": ([*DIGITS, "--backend", "torch", "--engine", "compiled"], "runs on jax"),
    "ledger is text": (["compare", "digits-mlp", "--ledger", "text.db"], "not an SQLite file"),
    "ledger without folder": (["compare", "digits-mlp", "--ledger", "no/runs.db"], "does not exist"),
    "ledger cannot be written": (["compare", "digits-mlp", "--ledger", "/proc/runs.db"], "cannot be written"),
    "report without folder": ([*DIGITS, "--report", "no/r.html"], "cannot be written there"),
    "report cannot be written": ([*DIGITS, "--report", "/proc/r.html"], "cannot be written there"),
    "truncated data": (["compare", "fashion-mnist-mlp", "--ledger", "runs.db", "--data-dir", "data"], "broken or truncated"),
    "no such data": (["compare", "fashion-mnist-mlp", "--ledger", "runs.db", "--data-dir", "nowhere"], "does not exist"),
}


def check_refusal(status, out, err, words):
    assert status == 2, err
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 2, err
    assert lines[0].startswith("keras-dropout: ")
    assert words in lines[0]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_two_lines_and_exit_2(name, tmp_path, monkeypatch, capsys):
    """The command's own entry point, in this process: it is the start of Keras that takes seconds."""
    arguments, words = BAD[name]
    if "torch" in arguments and not importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed")
    (tmp_path / "text.db").write_text("this is no database at all")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # the command sets it: put back afterwards
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    check_refusal(ended.value.code, *capsys.readouterr(), words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["unknown recipe", "unknown option", "rate 1.0"])
def test_bad_input_to_a_process_of_its_own(name, tmp_path):
    arguments, words = BAD[name]
    done = run(tmp_path, *arguments)
    check_refusal(done.returncode, done.stdout, done.stderr, words)


def test_a_backend_that_is_not_installed_names_the_extra(tmp_path):
    code = (
        "import importlib.util as u, sys\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'torch' else found(name, *more)\n"
        "sys.argv = ['keras-dropout', 'compare', 'digits-mlp', '--backend', 'torch']\n"
        "from keras_dropout.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "pip install 'keras-dropout[torch]'" in done.stderr


def test_version_and_help(tmp_path):
    assert run(tmp_path).stdout == run(tmp_path, "--help").stdout != ""
    assert re.fullmatch(r"\d+\.\d+.*\n", run(tmp_path, "--version").stdout)
    text = run(tmp_path, "compare", "--help").stdout
    for option in ("--variant", "--seeds", "--dry-run", "--ledger", "--report", "--json"):
        assert option in text


def test_layers_lists_every_method_in_a_line(tmp_path):
    done = run(tmp_path, "layers")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    methods = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    shown = json.loads(run(tmp_path, "layers", "--json").stdout)
    assert [line.split(maxsplit=1) for line in methods] == [[each["name"], each["summary"]] for each in shown]
    fields = {"name", "group", "summary", "reference", "differs", "example", "input_shape", "input_dtype"}
    assert all(set(each) == fields for each in shown)
    assert {each["name"] for each in shown} == {
        name for name, home in keras_dropout._HOME.items() if home in ("layers", "companions")
    }


def test_layers_shows_one_method_in_full(tmp_path):
    text = run(tmp_path, "layers", "DropBlock2D").stdout
    for part in ("DropBlock2D(rate: float", "Source:", "arXiv:1810.12890", "Differs from:", "Example:"):
        assert part in text
    (one,) = json.loads(run(tmp_path, "layers", "DropBlock2D", "--json").stdout)
    assert one["name"] == "DropBlock2D"


def test_layers_names_the_closest_method(tmp_path):
    done = run(tmp_path, "layers", "dropblock_2d")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1].startswith("Did you mean DropBlock2D?")


def test_dry_run_plans_and_makes_nothing(tmp_path):
    done = run(tmp_path, *DIGITS, "--epochs", "3", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "0 of 24 runs are in the ledger, 24 to train" in done.stdout
    assert "hidden: hidden_1=0.2, hidden_2=0.2" in done.stdout
    assert "estimated time" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_seeds_are_added_and_worse_fails(tmp_path):
    """Dropping nearly everything is worse, seen with the fewest seeds there can be; then the exit status is 1."""
    arguments = ["compare", "digits-mlp", "--variant", "most=hidden=0.9", "--epochs", "5", "--ledger", "r.db", "--quiet", "--json"]
    done = run(tmp_path, *arguments, "--seeds", "auto", "--max-seeds", "10", "--margin", "0.001", "--fail-if", "worse")
    assert done.returncode == 1, done.stderr
    assert "worse: most (test_loss)" in done.stderr
    document = json.loads(done.stdout)
    assert document["study"]["seeds"] == list(range(7))
    assert document["comparisons"][0]["verdict"] == "worse"
    assert document["comparisons"][0]["equivalence"]["worse"] > 0.99
    again = run(tmp_path, *arguments, "--seeds", "auto", "--max-seeds", "10", "--margin", "0.001")
    assert again.returncode == 0, again.stderr
    assert without_timings(again.stdout) == without_timings(done.stdout)
    plan = run(tmp_path, *arguments[:-2], "--seeds", "auto", "--dry-run")
    assert "2 variants x at most 7 seeds" in plan.stdout  # the race has ended
    assert "14 of 14 runs are in the ledger, 0 to train" in plan.stdout


DIVERGES = """
import keras

def build(input_shape):
    model = keras.Sequential([keras.Input(input_shape), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model
"""


def test_a_gate_does_not_pass_what_diverged(tmp_path):
    (tmp_path / "model.py").write_text(DIVERGES)
    x = np.random.default_rng(0).normal(size=(300, 5)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=x.sum(axis=1))
    arguments = [
        "compare",
        "model.py:build",
        "--data",
        "data.npz",
        "--epochs",
        "3",
        "--seeds",
        "2",
        "--engine",
        "compiled",
        "--quiet",
    ]
    done = run(tmp_path, *arguments, "--variant", "bad=input=0.99", "--fail-if", "worse", "--json")
    assert done.returncode == 1, done.stderr
    assert "worse: bad (diverged)" in done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["verdict"] == "no difference shown"


@pytest.mark.slow
def test_a_gate_does_not_count_the_model_without_dropout(tmp_path):
    """It is worse than the baseline, which is what dropout is for: on noisy answers a net without it overfits."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 20)).astype("float32")
    np.savez(tmp_path / "noisy.npz", x=x, y=(x[:, 0] + random.normal(size=400) > 0).astype(int))
    layers = "keras.Input((20,)), keras.layers.Dense(64, 'relu'), keras.layers.Dense(64, 'relu'), keras.layers.Dense(2, 'softmax')"
    (tmp_path / "model.py").write_text(
        f"import keras\n\n\ndef build():\n    model = keras.Sequential([{layers}])\n"
        "    model.compile('adam', 'sparse_categorical_crossentropy')\n    return model\n"
    )
    arguments = ["compare", "model.py:build", "--data", "noisy.npz", "--variant", "released=hidden=0.5", "--baseline", "released"]
    done = run(tmp_path, *arguments, "--epochs", "30", "--fail-if", "worse", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["comparisons"][0]
    assert (first["variant"], first["verdict"]) == ("none", "worse")


def test_the_whole_way_on_one_worker_and_on_two(tmp_path):
    """Identical metrics to the last bit; the second time nothing is trained; the report is there."""
    arguments = ["compare", "digits-mlp", "--seeds", "2", "--epochs", "3", "--json", "--quiet"]
    one = run(tmp_path, *arguments, "--workers", "1", "--ledger", "one.db")
    two = run(tmp_path, *arguments, "--workers", "2", "--ledger", "two.db", "--report", "r.html")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert without_timings(one.stdout) == without_timings(two.stdout)
    assert (tmp_path / "r.html").stat().st_size > 10_000
    again = run(tmp_path, *arguments, "--ledger", "two.db")
    assert json.loads(again.stdout)["timing"]["model_epochs"] == 0
    assert without_timings(again.stdout) == without_timings(one.stdout)


def children(process):
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_gone(workers):
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers)), "the workers outlived the command"


def start_and_wait(tmp_path, arguments, finished, **more):
    """The command, once it has said that so many runs have ended; and its workers."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, **pipes, **more)
    for _ in range(finished):
        line = process.stderr.readline()
        assert re.match(r"\d+/\d+ ", line), line + process.stderr.read()
    workers = children(process)
    assert workers
    return process, workers


def test_kill_9_loses_no_finished_run(tmp_path):
    arguments = [*DIGITS, "--seeds", "3", "--epochs", "40", "--json"]
    process, workers = start_and_wait(tmp_path, arguments, finished=3)
    process.kill()
    process.wait()
    assert_gone(workers)
    resumed = run(tmp_path, *arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["timing"]["model_epochs"] <= 9 * 40
    whole = run(tmp_path, "compare", "digits-mlp", "--ledger", "whole.db", "--seeds", "3", "--epochs", "40", "--json", "--quiet")
    assert without_timings(resumed.stdout) == without_timings(whole.stdout)


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    process, workers = start_and_wait(tmp_path, [*DIGITS, "--epochs", "1000"], finished=2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "finished run(s) are kept in runs.db" in err
    assert shlex.split(err.splitlines()[-1]) == [*command(*DIGITS), "--epochs", "1000"]  # as this process was started
    assert "not finished yet" in out
    assert_gone(workers)


SLOW = """
import keras
from keras_dropout.bench.training import trainer

trainer.CHECKPOINT_SECONDS = 0.2  # half a minute is long for a test


@keras.saving.register_keras_serializable()
class Own(keras.layers.Dense):
    "By it the workers read this file."


def build(input_shape, outputs):
    model = keras.Sequential(
        [keras.Input(input_shape), Own(8, "relu"), keras.layers.Dense(outputs, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


def test_ctrl_c_in_the_first_run_keeps_its_epochs_without_an_option(tmp_path):
    """Interrupted, gone on with by the very command that was printed, and the same to the last byte as without."""
    (tmp_path / "slow.py").write_text(SLOW)
    x = np.random.default_rng(0).normal(size=(4000, 8)).astype("float32")
    np.savez(tmp_path / "d.npz", x=x, y=(x[:, 0] > 0).astype("int32"))
    study = [
        "compare",
        "slow.py:build",
        "--data",
        "d.npz",
        "--seeds",
        "1",
        "--epochs",
        "150",
        "--variant",
        "hidden",
        "--workers",
        "1",
    ]
    study += ["--engine", "compiled", "--json"]
    process = subprocess.Popen(
        command(*study, "--ledger", "runs.db"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while process.poll() is None and not (kept := checkpoints_in(tmp_path / "runs.db")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept = checkpoints_in(tmp_path / "runs.db")
    assert kept
    assert re.search(rf"0 finished run\(s\) and {len(kept)} checkpoint\(s\) of unfinished runs \(epochs of 150: ", err), err
    for epoch in kept.values():
        assert f", seed 0: {epoch}" in err
    resumed = subprocess.run(shlex.split(err.splitlines()[-1]), cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert resumed.returncode == 0, resumed.stderr
    whole = run(tmp_path, *study, "--ledger", "whole.db", "--checkpoint-every", "0")
    assert json.loads(resumed.stdout)["timing"]["model_epochs"] == 300  # of the runs, also those before
    assert without_timings(resumed.stdout) == without_timings(whole.stdout)
    assert checkpoints_in(tmp_path / "runs.db") == {}


def checkpoints_in(ledger):
    """The epochs of the checkpoints in a ledger, by the key of the run."""
    if not ledger.exists():
        return {}
    with contextlib.closing(sqlite3.connect(ledger)) as connection, contextlib.suppress(sqlite3.OperationalError):
        return dict(connection.execute("SELECT key, epoch FROM checkpoints"))
    return {}


def test_sigterm_to_all_keeps_what_is_finished_and_leaves_nothing_in_the_temporary_folder(tmp_path):
    """As a scheduler sends it: to the command and to its workers."""
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    started = {"env": environment, "start_new_session": True}
    process, workers = start_and_wait(tmp_path, [*DIGITS, "--epochs", "200"], finished=1, **started)
    assert any((tmp_path / "temporary").iterdir())
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, out + err
    assert "finished run(s) are kept in runs.db" in err
    assert shlex.split(err.splitlines()[-1]) == [*command(*DIGITS), "--epochs", "200"]  # as this process was started
    assert "Traceback" not in err
    assert "failed" not in out + err  # no worker has ended before it was told to
    assert_gone(workers)
    assert not any((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_as_ctrl_c_does(name, status, monkeypatch, capsys):
    number = getattr(signal, name)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(cli, "app", lambda *_, **__: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    assert capsys.readouterr().err == "Interrupted: nothing was started.\n"
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_signal_that_is_ignored_stays_so_and_one_counts_where_ctrl_c_is_ignored(monkeypatch):
    """As under `nohup`, and for a command that a script has put into the background."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGHUP)}
    try:
        for sent, status in ((signal.SIGHUP, 0), (signal.SIGINT, 0), (signal.SIGTERM, 143)):
            monkeypatch.setattr(cli, "app", lambda *_, sent=sent, **__: signal.raise_signal(sent))
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert ended.value.code == status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_terminal_that_has_gone_ends_the_command_quietly(monkeypatch):
    def hung_up(*_, **__):
        try:
            signal.raise_signal(signal.SIGHUP)
        except KeyboardInterrupt:
            raise OSError(errno.EIO, "Input/output error") from None

    monkeypatch.setattr(cli, "app", hung_up)
    monkeypatch.setattr(cli, "_print_nowhere", lambda status: status)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 129


def test_a_variant_that_cannot_be_trained_fails_alone(tmp_path):
    """A mask of a shape that does not fit shows only when the model is built: those runs fail, the others are compared, exit 1."""
    bad = "bad=hidden_1=Dropout(0.2, noise_shape=(None, 3))"
    done = run(tmp_path, *DIGITS, "--variant", bad, "--variant", "hidden", "--seeds", "1", "--epochs", "2")
    assert done.returncode == 1, done.stderr
    assert "1 run(s) failed" in done.stdout
    assert "Dropout: noise_shape (None, 3) does not broadcast" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_published_result_reproduces(tmp_path):
    done = run(tmp_path, "compare", "fashion-mnist-mlp", "--json", "--quiet", timeout=3000)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    mean = {variant["name"]: variant["mean"] for variant in document["variants"]}
    assert 0.310 < mean["as-published"]["test_loss"] < 0.335
    assert 0.876 < mean["as-published"]["test_accuracy"] < 0.890
    assert mean["none"]["test_loss"] > mean["as-published"]["test_loss"]
    assert mean["none"]["train_accuracy"] > 0.94
    assert document["study"]["data"]["validation"] == 5000
