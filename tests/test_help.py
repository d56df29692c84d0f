"""The command's help, its completion, its progress and its pipes."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import closing

import keras
import numpy as np
import pytest
import typer

from keras_dropout import cli
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import DataFacts, Result, Study, Variant
from keras_dropout.bench.study.recipes import RECIPES
from keras_dropout.commands import options

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command chooses its own backend")
TOP = typer.main.get_command(cli.app)


def commands(group=TOP, path=()):
    """(path, command) of every command and group."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


EVERY = {" ".join(path): command for path, command in commands()}


def examples(command):
    """The lines below "Examples:" or "Try first:"."""
    found = re.search(r"\x08\n(?:Examples|Try first):\n((?:  .*(?:\n|$))+)", command.help or "")
    return [line.strip() for line in found[1].splitlines()] if found else []


@pytest.mark.parametrize("name", ["compare", "tune"])
def test_many_options_stand_in_parts_and_details_below_them(name):
    shown = run(name, "--help").stdout
    front, *parts = re.split(r"(?m)^(?=[A-Z][A-Za-z ]+:$)", shown)
    titles = [part.partition(":")[0] for part in parts]
    assert titles[0] == "Arguments"
    assert "Options" not in titles
    assert {"Data", "Evidence", "Training", "Where it runs", "What is kept", "Output"} < set(titles)
    parts[-1] = parts[-1].partition("\n\n")[0]
    told = re.findall(r"(?m)^  (--[a-z-]+)", "".join(parts))
    wanted = [each.opts[0] for each in EVERY[name].params if each.param_type_name == "option"]
    assert sorted(told) == sorted([*wanted, "--help"])
    assert "fields of --json" not in front
    assert len(front.splitlines()) < 30


ALL_EXAMPLES = sorted({line for command in EVERY.values() for line in examples(command)})


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_examples_on_lines_of_their_own(name):
    found = examples(EVERY[name])
    assert found
    done = run("--help") if not name else run(*name.split(), "--help")
    for line in found:
        assert f"    {line}\n" in done.stdout
        assert len(line) <= 110
        assert line.startswith(f"keras-dropout {name}" if name != "runs list" else "keras-dropout runs")


@pytest.mark.parametrize("line", ALL_EXAMPLES)
def test_every_example_parses(line):
    program, *arguments = shlex.split(line)
    assert program == "keras-dropout"
    command, context = TOP, TOP.make_context(program, arguments)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    assert not context.args


def test_an_example_with_a_wrong_option_would_be_found():
    with pytest.raises(cli._UsageError, match="--jsn"):
        test_every_example_parses("keras-dropout layers --jsn")


CHEAP = [line for line in ALL_EXAMPLES if line.split()[1] in ("sites", "place", "check", "init", "layers", "runs")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the examples name: a model, a file of functions, data, ledgers."""
    where = tmp_path_factory.mktemp("examples")
    code = """
        import keras
        def build_model():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3, "softmax")])
            model.compile("sgd", "sparse_categorical_crossentropy")
            return model
        build = build_model
    """
    for name in ("train.py", "model.py"):
        (where / name).write_text("\n".join(line[8:] for line in code.splitlines()))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3, "softmax")])
    model.save(where / "model.keras")
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    np.save(where / "x.npy", x)
    np.save(where / "y.npy", y)
    lines = ["a,b,c,d,price", *(",".join(f"{v:.3f}" for v in (*row, sum(row))) for row in x)]
    (where / "houses.csv").write_text("\n".join(lines))
    study = Study(
        "t", DataFacts("d", "f", 9, 1, 2), {"class_name": "S"}, {"loss": "mse"}, "held-out", "jax", "compiled", 2, 32, (0, 1),
        (Variant("none", {}), Variant("hidden", {"hidden": {"kind": "Dropout", "rate": 0.5}})),
    )  # fmt: skip
    for name in ("keras-dropout.db", "laptop.db", "server.db", "old.db", "other.db"):
        with Ledger(where / name) as ledger:
            ledger.put_study(study, "keras-dropout compare t", {"keras": "3"}, {"cores": 2})
            for run in study.runs():
                status = ("done", "failed")[run.seed]
                result = Result(
                    status, 1.0, 2, {"test_loss": 0.5}, {"loss": [1.0, 0.5]}, error="no" if run.seed else None, log="a line\n"
                )
                ledger.put(study, run, result, {"keras": "3"}, {"cores": 2})
    keys = sorted(run.key for run in study.runs() if run.seed == 0)
    return where, keys


@pytest.mark.parametrize("line", CHEAP)
def test_cheap_examples_run(line, folder, monkeypatch, capsys):
    where, keys = folder
    if "runs model" in line:
        pytest.skip("needs a trained model: tests/bench/test_archives.py")
    line = line.replace("3f9a", keys[0][:8]).replace("07c1", keys[1][:8])
    monkeypatch.chdir(where)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    arguments = shlex.split(line)
    for option in ("-o", "export"):  # files that an example before has written
        if option in arguments:
            (where / arguments[arguments.index(option) + 1]).unlink(missing_ok=True)
    if " delete " in line:  # the runs stay for the other examples
        (where / "copy.db").write_bytes((where / "old.db").read_bytes())
        arguments += ["--ledger", "copy.db"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    if " delete " in line and "--yes" not in line:  # which says how many it would be
        assert ended.value.code == 2
        assert "would be deleted" in err
        return
    assert ended.value.code == 0, err
    assert out.strip()
    if "--json" in line:
        json.loads(out)


def run(*arguments, env=None, cwd=None):
    """The command under its own name, in a process where it must not load Keras."""
    start = "import sys; sys.argv[0] = 'keras-dropout'\nfrom keras_dropout.cli import main"
    code = f"{start}\ntry: main()\nfinally: assert 'keras' not in sys.modules"
    environment = os.environ | {"COLUMNS": "140"} | (env or {})
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, timeout=60
    )


def test_the_help_names_every_command_and_begins_with_one_to_try():
    text = run("--help").stdout
    first = text.index("keras-dropout compare digits-mlp")
    for name in TOP.commands:
        found = re.search(rf"^  {name} +\S", text, re.MULTILINE)
        assert found, name
        assert found.start() > first
    assert "..." not in text.partition("\n\n")[2], "summaries are whole"
    assert set(options.RECIPES) == set(RECIPES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_show_completion(shell):
    done = run("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert done.returncode == 0, done.stderr
    assert "_KERAS_DROPOUT_COMPLETE" in done.stdout


def complete(words, cwd):
    """What bash is offered for the last word, and that Keras was not loaded for it."""
    env = {"_KERAS_DROPOUT_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = run(env=env, cwd=cwd)
    assert "AssertionError" not in done.stderr
    return done.stdout.split()


def test_completion(tmp_path):
    (tmp_path / "model.keras").write_text("")
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "models").mkdir()
    assert {"compare", "check"} <= set(complete(["keras-dropout", "c"], tmp_path))
    assert complete(["keras-dropout", "compare", "dig"], tmp_path) == ["digits-mlp"]
    assert complete(["keras-dropout", "tune", "fash"], tmp_path) == ["fashion-mnist-mlp"]
    assert complete(["keras-dropout", "sites", "m"], tmp_path) == ["mine.py:", "model.keras", "models/"]
    assert complete(["keras-dropout", "compare", "digits-mlp", "--backend", "t"], tmp_path) == ["tensorflow", "torch"]
    assert complete(["keras-dropout", "layers", "DropB"], tmp_path) == ["DropBlock1D", "DropBlock2D", "DropBlock3D"]


@pytest.mark.parametrize("arguments", [("runs", "--json"), ("runs", "list"), ("--help",), ("runs", "--help")])
def test_a_reader_that_goes_is_no_failure(arguments, folder):
    """More than a pipe holds, and a reader that takes nothing."""
    where, _ = folder
    code = "import sys; sys.argv[0] = 'keras-dropout'\nfrom keras_dropout.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where
    )
    process.stdout.close()
    with closing(process.stderr) as stderr:
        assert stderr.read() == ""
    assert process.wait(30) == 0


WAITING = """
import time
from keras_dropout.commands import output
output._PATIENCE = 0.01
with output.working("waiting") as say:
    time.sleep(0.4)
    say("measuring", 3, 10)
    time.sleep(0.4)
    print("data")
"""


def wait(**env):
    return subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, env=os.environ | env, timeout=60)


def test_progress_on_a_terminal_only():
    shown = wait(TTY_COMPATIBLE="1")
    assert shown.stdout == "data\n"
    assert "waiting" in shown.stderr
    assert "measuring: 3 of 10" in shown.stderr
    piped = wait(TTY_COMPATIBLE="0")
    assert (piped.stdout, piped.stderr) == ("data\n", "")


def test_no_color_is_heeded():
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert colours.search(wait(TTY_COMPATIBLE="1", TERM="xterm-256color", NO_COLOR="").stderr)
    assert not colours.search(wait(TTY_COMPATIBLE="1", TERM="xterm-256color", NO_COLOR="1").stderr)


def test_what_goes_to_a_pipe_has_no_escape_codes(folder):
    where, _ = folder
    for arguments in (("runs",), ("runs", "verify"), ("--help",)):
        done = run(*arguments, cwd=where)
        assert done.stdout
        assert "\x1b" not in done.stdout + done.stderr
