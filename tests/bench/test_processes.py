"""Workers on this machine leave nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

CODE = """
import sys, types
from keras_dropout.bench.execution.processes import Processes

def parts(split):
    return {}

study = types.SimpleNamespace(split="", backend="jax", engine="compiled")
with Processes(study, types.SimpleNamespace(sent=parts, whole=True, divide_by=1.0)) as place:
    workers = [place.start(), place.start()]
    print(place._folder.name, flush=True)
    sys.stdin.readline()
"""


def start(tmp_path):
    """A process with two workers, which ends them when it is told to go on, and the workers' folder."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", CODE], text=True, env=environment, **pipes)
    folder = Path(process.stdout.readline().strip())
    assert folder.parent == tmp_path
    assert len(list(folder.iterdir())) == 2  # their logs
    return process, folder


def gone(folder):
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not folder.exists()


def test_the_folder_of_workers_is_removed_at_the_end(tmp_path):
    process, _ = start(tmp_path)
    process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert not any(tmp_path.iterdir())


def test_workers_remove_it_where_their_parent_was_killed(tmp_path):
    process, folder = start(tmp_path)
    process.kill()
    process.wait()
    assert gone(folder)
    assert not any(tmp_path.iterdir())
