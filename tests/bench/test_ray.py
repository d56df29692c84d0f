"""Workers on Ray: the same bytes as here, on clusters that lose nodes, and nothing left behind."""

import contextlib
import io
import itertools
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.execution import scheduler
from keras_dropout.bench.execution.progress import Display
from keras_dropout.bench.ledger.lookup import models
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result, Run, Variant
from keras_dropout.errors import BadInput

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
ray_actors = pytest.importorskip("keras_dropout.bench.execution.ray_actors")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the comparison starts its own processes")
DIGITS = ("compare", "digits-mlp", "--variant", "hidden", "--ledger", "runs.db")


class Observer:
    """Notes what happens; `act(worker, run, epoch)` can interfere."""

    def __init__(self, act=lambda *_: None):
        self.act, self.notes, self.ends = act, [], []

    def started(self, worker, run, epoch):
        pass

    def epoch(self, worker, run, epoch, logs):
        self.act(worker, run, epoch)

    def paused(self, worker, run):
        pass

    def ended(self, worker, run, result):
        self.ends.append(run.key)

    def note(self, text):
        self.notes.append(text)


MODEL = """
import keras
print("a line of the model's file")
@keras.saving.register_keras_serializable("test_ray")
class Mine(keras.layers.Dense):  # workers need this file
    pass
def build():
    model = keras.Sequential([keras.Input((4,)), Mine(8, "relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
"""


def plan_of(folder, **settings):
    """A study of two variants on a small model in a file of its own."""
    folder.mkdir(exist_ok=True)
    (folder.parent / "model.py").write_text(MODEL)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    data = (x, x[:, 0]) if settings.get("resample_split") else ((x[:40], x[:40, 0]), (x[40:], x[40:, 0]))
    options = {"variants": {"half": {"hidden": 0.5}}, "engine": "compiled", "epochs": 2}
    return make_plan(f"{folder.parent / 'model.py'}:build", data, ledger=folder / "r.db", **(options | settings))


class Keeping(Ledger):
    """A ledger that also has the logs at hand."""

    def put(self, study, run, result, *facts):
        super().put(study, run, result, *facts)
        self.logs = [*getattr(self, "logs", []), result.log]


def train(plan, observer=None):
    """The results of a plan by key, and the logs of its runs."""
    with Keeping(plan.ledger) as ledger:
        runs = plan.todo({})
        scheduler.execute(plan, runs, ledger, observer or Observer())
        return ledger.get([run.key for run in runs]), ledger.logs


def assert_same_bytes(one, two):
    assert set(one) == set(two)
    for key, result in one.items():
        assert (result.status, result.metrics, result.curves) == ("done", two[key].metrics, two[key].curves)
        np.testing.assert_array_equal(result.test_losses, two[key].test_losses)


def weights_in(ledger, keys):
    """The bytes of each weight and of the masks' state in each run's archive; names that Keras counts up and dates may differ."""
    found = {}
    for key, archive in models(ledger, keys):
        content = zipfile.ZipFile(io.BytesIO(archive)).read("model.weights.h5")
        with h5py.File(io.BytesIO(content)) as file:
            arrays = []
            file.visititems(
                lambda name, each, into=arrays: into.append((name, each[()].tobytes())) if hasattr(each, "shape") else None
            )
            found[key] = arrays
    assert list(found) == list(keys)
    assert all(found.values())
    return found


@contextlib.contextmanager
def cluster_of(*cores):
    """A head without CPUs and a node with so many cores for each number: its address, the nodes, and what adds one more."""
    from ray.cluster_utils import Cluster

    handler, cluster = signal.getsignal(signal.SIGTERM), Cluster()
    try:
        cluster.add_node(num_cpus=0, include_dashboard=False)
        yield f"ray:{cluster.address}", [cluster.add_node(num_cpus=each) for each in cores], cluster.add_node
    finally:
        ray.shutdown()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)  # a node sets its own


def test_ray_leaves_the_handler_of_sigterm_as_it_was(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        during = []
        observer = Observer(lambda *_: during.append(signal.getsignal(signal.SIGTERM)))
        train(plan_of(tmp_path / "ray", seeds=1, workers=1, on="ray"), observer)
        assert {*during, signal.getsignal(signal.SIGTERM)} == {signal.SIG_DFL}
    finally:
        signal.signal(signal.SIGTERM, before)


def stat(pid):
    """The state and the parent of a process; nothing when there is none."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        state, parent = file.read().rpartition(")")[2].split()[:2]
        return state, int(parent)


def descendants(pid):
    """The processes that a process started, and those that they started."""
    parents = {int(each): found[1] for each in os.listdir("/proc") if each.isdigit() and (found := stat(each))}
    found = {pid}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def assert_gone(processes):
    deadline = time.monotonic() + 30
    while any((stat(pid) or "Z")[0] != "Z" for pid in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in processes if (stat(pid) or "Z")[0] != "Z"]


def test_a_local_ray_gives_the_same_bytes_as_here(tmp_path, monkeypatch):
    """Of the trained models too; and what a run prints is stored with it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before, started = descendants(os.getpid()), set()
    observer = Observer(lambda *_: started.update(descendants(os.getpid()) - before))
    on_ray, logs = train(plan_of(tmp_path / "ray", seeds=2, workers=2, on="ray", keep_weights=True), observer)
    here, logs_here = train(plan_of(tmp_path / "here", seeds=2, workers=1, keep_weights=True))
    assert_same_bytes(on_ray, here)
    assert weights_in(tmp_path / "ray" / "r.db", on_ray) == weights_in(tmp_path / "here" / "r.db", on_ray)
    for told in (logs, logs_here):
        assert "a line of the model's file" in "".join(told)
    assert not ray.is_initialized()
    assert len(started) > 3
    assert_gone(started)


@pytest.mark.slow
def test_each_seed_has_its_own_division_on_ray_as_here(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    on_ray, _ = train(plan_of(tmp_path / "ray", seeds=3, workers=2, on="ray", resample_split=True))
    here, _ = train(plan_of(tmp_path / "here", seeds=3, workers=1, resample_split=True))
    assert_same_bytes(on_ray, here)


def test_a_node_lost_in_mid_study_costs_no_run(tmp_path):
    """A raylet is killed with -9 when all runs of the first seed are under way: they go on elsewhere, from their checkpoints."""
    settings = {"seeds": 3, "epochs": 3000, "checkpoint_every": 100}
    with cluster_of(1, 1) as (on, nodes, _):
        plan = plan_of(tmp_path / "lost", on=on, **settings)
        assert plan.workers == 2
        epochs, killed = {}, []

        def act(worker, run, epoch):
            epochs.setdefault(run.key, []).append(epoch)
            if not killed and len(epochs) == 2 and min(map(len, epochs.values())) > 200:
                nodes[0].kill_raylet()
                killed.append(time.monotonic())

        observer = Observer(act)
        lost, _ = train(plan, observer)
    assert killed
    assert observer.notes
    assert all("it is given to another worker" in note for note in observer.notes)
    assert sorted(observer.ends) == sorted(lost)  # each once
    whole, _ = train(plan_of(tmp_path / "whole", **settings))
    assert_same_bytes(lost, whole)
    (again,) = [each for each in epochs.values() if each != list(range(1, 3001))]
    (back,) = [(before, after) for before, after in itertools.pairwise(again) if after != before + 1]
    assert 0 <= back[0] + 1 - back[1] <= 100, "it did not go on from its last checkpoint"


@pytest.mark.slow
def test_without_any_node_left_runs_fail_with_one_line(tmp_path, monkeypatch):

    monkeypatch.setattr(ray_actors, "PATIENCE", 3.0)
    with cluster_of(1) as (on, nodes, _):
        plan = plan_of(tmp_path / "none", seeds=2, epochs=20000, on=on)
        found, _ = train(plan, Observer(lambda worker, run, epoch: epoch == 2 and nodes[0].kill_raylet()))
    assert len(found) == 4
    for result in found.values():
        assert (result.status, result.error) == ("failed", "no node of the Ray cluster had a CPU for a worker for 3 s")


@pytest.mark.slow
def test_a_node_without_the_package_is_left_out_and_says_so(tmp_path, monkeypatch):
    """Alone, its runs fail with the reason; beside a good node, all runs are trained there."""

    monkeypatch.setattr(ray_actors, "PATIENCE", 20.0)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['keras_dropout'] = None\n")
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    with cluster_of() as (on, _, add_node):
        add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
        found, _ = train(plan_of(tmp_path / "bad", seeds=1, workers=1, on=on))
        for result in found.values():
            assert result.status == "failed"
            assert "cannot train this study: ModuleNotFoundError" in result.error
        add_node(num_cpus=1)
        found, _ = train(plan_of(tmp_path / "good", seeds=2, workers=2, on=on))
        assert [result.status for result in found.values()] == ["done"] * 4


@pytest.mark.slow
def test_a_source_file_that_is_another_one_on_the_node_is_refused_there(tmp_path, monkeypatch):
    """The key of a run says what was trained: a node with another file cannot train it."""

    monkeypatch.setattr(ray_actors, "PATIENCE", 3.0)
    with cluster_of(1) as (on, *_):
        plan = plan_of(tmp_path / "own", seeds=1, workers=1, on=on)
        assert plan.todo({})  # the keys are those of the file as it is
        (tmp_path / "model.py").write_text(MODEL + "# changed\n")
        found, _ = train(plan)
    for result in found.values():
        assert "model.py is not what it is where the study was planned" in result.error


def test_the_bar_of_all_runs_takes_back_what_was_lost():
    display = Display(10, True, lambda key, result: None)
    display.expect(2)
    one, two = Run("1", Variant("v", {}), 0), Run("2", Variant("v", {}), 0)
    display.started(0, one, 0)
    display.epoch(0, one, 8, {})
    assert display._bars.tasks[0].completed == 8
    display.started(1, one, 5)  # its worker died; the checkpoint was that of epoch 5
    assert display._bars.tasks[0].completed == 5
    display.started(0, two, 0)
    display.ended(1, one, Result("done", 1.0, 10, {"test_loss": 1.0}))
    display.ended(0, two, Result("failed", 1.0, 0, error="e"))
    assert display._bars.tasks[0].completed == 20


@contextlib.contextmanager
def something_else():
    """The address of a service that is not Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("ry", "workers cannot be on 'ry'"),
        ("ray:", "workers cannot be on 'ray:'"),
        ("ray:127.0.0.1", "workers cannot be on"),
        ("ray://127.0.0.1:10001", "workers cannot be on"),
        ("ray:127.0.0.1:99999", "does not answer"),
        ("ray:127.0.0.1:1", "does not answer"),
        ("ray:nowhere.invalid:6379", "does not answer"),
        (3, "workers cannot be on 3"),
    ],
    ids=str,
)
def test_places_that_cannot_be_are_refused(on, words, tmp_path):
    started = time.monotonic()
    with pytest.raises(BadInput, match=re.escape(words)) as caught:
        make_plan("digits-mlp", ledger=tmp_path / "r.db", on=on)
    assert len(str(caught.value).splitlines()) == 2
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []


def test_what_answers_but_is_no_ray_is_refused(monkeypatch):

    monkeypatch.setattr(ray_actors, "_ANSWER", 3.0)
    with something_else() as address, pytest.raises(BadInput, match="is no Ray cluster that can be joined"):
        scheduler.count_cores(f"ray:{address}")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'keras-dropout\[ray\]'"):
        scheduler.count_cores("ray")


def command(*arguments):
    return [sys.executable, "-m", "keras_dropout.cli", *arguments]


def test_the_command_refuses_an_address_and_zero_workers(tmp_path):
    for arguments in (["--on", "ray:127.0.0.1:1"], ["--on", "ray", "--workers", "0"]):
        done = subprocess.run(command(*DIGITS, *arguments), cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 2
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_on_ray_keeps_what_is_finished_and_leaves_no_process(tmp_path):
    """Ctrl-C as a terminal sends it: to all processes of the command."""
    arguments = [*DIGITS, "--on", "ray", "--epochs", "4000", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    line = process.stderr.readline()
    assert re.match(r"1/12 ", line), line + process.stderr.read()
    started = descendants(process.pid)
    assert len(started) > 3
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "finished run(s) are kept in runs.db" in err
    assert "connection to Ray is lost" not in err
    assert_gone(started)


@pytest.mark.slow
def test_the_loss_of_the_head_is_said(tmp_path):
    """Ray then ends our process; what is finished is in the ledger, and the user reads why."""
    with cluster_of(1) as (on, *_):
        process = subprocess.Popen(
            command(*DIGITS, "--on", on, "--epochs", "1000", "--json"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stderr.readline()
        assert re.match(r"1/12 ", line), line + process.stderr.read()
    out, err = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "the connection to Ray is lost" in err
    assert out == ""
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs WHERE status = 'done'").fetchone()[0] >= 1


@pytest.fixture
def of_the_environment(monkeypatch, tmp_path):
    """An environment that says nothing of a token, and a home that has none."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray_actors.ray._raylet, "Config", SimpleNamespace(initialize=lambda _: None))
    return tmp_path


def test_a_cluster_that_is_started_gets_a_new_token(of_the_environment):
    ray_actors._ask_for_a_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch("[0-9a-f]{64}", os.environ["RAY_AUTH_TOKEN"])
    assert not any(of_the_environment.iterdir())  # Ray would write one that the umask may let others read


@pytest.mark.parametrize("given", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home", "RAY_AUTH_MODE"])
def test_what_the_user_says_of_tokens_counts(given, of_the_environment, monkeypatch):
    if given == "home":
        (of_the_environment / ".ray").mkdir()
        (of_the_environment / ".ray" / "auth_token").write_text("mine")
    else:
        monkeypatch.setenv(given, "disabled")
    ray_actors._ask_for_a_token()
    assert os.environ.get("RAY_AUTH_TOKEN") == ("disabled" if given == "RAY_AUTH_TOKEN" else None)
    assert os.environ["RAY_AUTH_MODE"] == ("disabled" if given == "RAY_AUTH_MODE" else "token")


JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print(ray.get(ray.remote(lambda: 'it ran').remote()))"


@pytest.mark.slow
def test_nobody_without_the_token_can_use_a_cluster_that_is_started_here(tmp_path):
    code = (
        "import os, subprocess, sys; from types import SimpleNamespace as S\n"
        "import ray; from keras_dropout.bench.execution import ray_actors\n"
        "study = S(backend='jax', engine='compiled', split='', runs=lambda: [])\n"
        "with ray_actors.Actors(study, S(parts=lambda split: {}, divide_by=1.0)):\n"
        "    address = ray.get_runtime_context().gcs_address\n"
        "    bare = {name: value for name, value in os.environ.items() if not name.startswith('RAY_AUTH')}\n"
        "    for given in (bare, bare | {'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': 'ab' * 32}, dict(os.environ)):\n"
        f"        done = subprocess.run([sys.executable, '-c', {JOIN!r}, address], env=given, capture_output=True, text=True)\n"
        "        print(done.returncode != 0, 'it ran' in done.stdout)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["True False", "True False", "False True"], done.stderr
