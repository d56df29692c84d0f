"""Kill `keras-dropout compare` at random moments, again and again, and check that nothing is lost, doubled or half written.

A study of 12 runs on scikit-learn's digits is trained once without a disturbance. Then the same command, on another ledger, is
killed with SIGKILL at random moments, the command itself or one of its workers, and started again, until it has been killed so
often as was asked for; when a study is complete, the next one begins on a new ledger. After each kill the ledger is looked at:
SQLite finds it whole; every run in it has the bytes of the undisturbed one, or says that its worker died; runs that were done
before are there, as they were. What a command says it trained is checked against what was done before it. Exit status 1 when
anything is wrong.

Run: python benchmarks/kill_campaign.py [--kills 50] [--seed 0] [--json FILE]
"""

import argparse
import contextlib
import dataclasses
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from report import write

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.ledger.lookup import peek
from keras_dropout.bench.records import Result

STUDY = {"epochs": 40, "seeds": 3}
COMMAND = ["compare", "digits-mlp", "--epochs", "40", "--seeds", "3", "--workers", "2", "--checkpoint-every", "10"]
AT_MOST = 600  # seconds that a command may take


def start(ledger: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "keras_dropout.cli", *COMMAND, "--ledger", str(ledger)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers_of(command: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    found = map(int, children.read_text().split()) if children.exists() else ()
    return [child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def trained(said: str) -> list[tuple[str, int]]:
    """(variant, seed) of each run that a command says it has trained."""
    return [(variant, int(seed)) for variant, seed in re.findall(r"^\d+/\d+  (.+), seed (\d+): test loss", said, re.M)]


def look(ledger: Path, expected: dict[str, Result]) -> tuple[dict[str, str], Counter]:
    """When each run that is done was finished, by key; and what is wrong in the ledger."""
    wrong: Counter = Counter()
    if not ledger.exists() or not ledger.stat().st_size:
        return {}, wrong
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        wrong["ledgers broken"] += connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        done = "SELECT key, finished FROM runs WHERE status = 'done'"
        finished = dict(connection.execute(done)) if "runs" in tables else {}
    for key, found in peek(ledger, expected).items():
        if found.status == "failed":
            wrong["runs failed for no reason"] += "worker process died" not in found.error
        elif dataclasses.replace(found, seconds=0.0) != expected[key] or not np.array_equal(
            found.test_losses, expected[key].test_losses
        ):
            wrong["runs with other bytes"] += 1
    return finished, wrong


def campaign(kills: int, seed: int, folder: Path) -> tuple[Counter, Counter]:
    """Kill as often as asked for: what was seen, and what was wrong."""
    generator = random.Random(seed)
    plan = make_plan("digits-mlp", ledger=folder / "undisturbed.db", **STUDY)
    runs = {(run.variant.name, run.seed): run.key for run in plan.study.runs()}
    begun = time.perf_counter()
    assert start(folder / "undisturbed.db").wait(AT_MOST) == 0
    longest = time.perf_counter() - begun
    expected = {
        key: dataclasses.replace(result, seconds=0.0) for key, result in peek(folder / "undisturbed.db", runs.values()).items()
    }
    assert len(expected) == len(runs)

    seen: Counter = Counter()
    wrong: Counter = Counter({"runs lost": 0, "runs trained twice": 0, "runs with other bytes": 0, "ledgers broken": 0})
    ledger, before = folder / "0.db", {}
    while seen["kills"] < kills:
        begun, command = time.perf_counter(), start(ledger)
        try:
            _, said = command.communicate(timeout=generator.uniform(0, longest))
            status = 0
            longest = min(longest, time.perf_counter() - begun)  # the machine may have been busier before
        except subprocess.TimeoutExpired:
            workers = workers_of(command)
            if workers and generator.random() < 0.4:
                os.kill(generator.choice(workers), signal.SIGKILL)
                seen["workers killed"] += 1
                status = 1
            else:
                command.kill()
                seen["commands killed"] += 1
                status = -signal.SIGKILL
            _, said = command.communicate(timeout=AT_MOST)
            seen["kills"] += 1
        now, found = look(ledger, expected)
        wrong.update(found)
        ended_before = command.returncode == 0 and len(now) == len(runs)  # it may, while we were aiming
        wrong["wrong exit status"] += command.returncode != status and not ended_before
        wrong["runs lost"] += len(before.keys() - now.keys())
        written = sum(now.get(key, when) != when for key, when in before.items())
        wrong["runs trained twice"] += written + sum(runs[run] in before for run in trained(said))
        seen["runs finished"] += len(now) - len(before)
        before = now
        if len(now) == len(runs):
            seen["studies completed"] += 1
            ledger, before = folder / f"{seen['studies completed']}.db", {}
    return seen, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen, wrong = campaign(options.kills, options.seed, Path(folder))
    for name, count in {**seen, **wrong}.items():
        print(f"{name:24} {count}")
    write("kill_campaign", {"seen": dict(seen), "wrong": dict(wrong)})
    sys.exit(bool(wrong.total()))


if __name__ == "__main__":
    main()
