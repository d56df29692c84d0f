"""Many short runs through one ledger, by two commands at a time, with kills: nothing lost, nothing twice, memory flat.

Two `keras-dropout compare` of one worker each write to the same ledger: studies of 2 variants on 200 random examples, one epoch and
two epochs long, half of the runs each. At random moments one of the commands, or its worker, is killed with SIGKILL, and the same
command is given again. At the end of each life the ledger is looked at: SQLite finds it whole, and what was done before is there as
it was. At the end every run is there once, each was trained once but for those that a kill cut off, a third command trains nothing,
and `keras-dropout runs verify` finds no damage. Memory is that of a command without its worker, after its first 200 runs and at the
end of its longest life. Exit status 1 when anything is wrong.

Run: python benchmarks/soak.py [--runs 10000] [--kills 20] [--seed 0] [--json FILE]
"""

import argparse
import contextlib
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

from kill_campaign import workers_of
from report import write

MODEL = """
import keras, numpy as np

def build():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu", name="a"), keras.layers.Dense(1, name="b")])
    model.compile("sgd", "mse")
    return model

def data():
    x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    return (x[:150], x[:150, :1]), (x[150:], x[150:, :1])
"""
EARLY = 200  # runs of a command before its memory is taken as settled
PAUSE = 0.5  # seconds between looks at a command


class Command:
    """`keras-dropout compare` of a study, started again and again."""

    def __init__(self, folder: Path, epochs: int, seeds: int):
        self.folder, self.runs = folder, 2 * seeds
        study = ("--epochs", str(epochs), "--seeds", str(seeds), "--variant", "half=a=0.5")
        own = ("compare", "model.py:build", "--data", "model.py:data", "--engine", "compiled", "--workers", "1", "--ledger", "r.db")
        self.words = (sys.executable, "-m", "keras_dropout.cli", *own, *study)
        self.lives, self.trained, self.longest = 0, Counter(), (0, 0.0, 0.0)
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.said = self.folder / f"{self.words[self.words.index('--epochs') + 1]}-{self.lives}.txt"
        with self.said.open("w") as file:
            self.process = subprocess.Popen(self.words, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=file)
        self.early = self.late = 0.0
        self.killed = False

    def lines(self) -> list[tuple[str, str]]:
        """(variant, seed) of each run that this life says it has trained."""
        return re.findall(r"^\d+/\d+  (.+), seed (\d+): test loss", self.said.read_text(), re.MULTILINE)

    def watch(self) -> None:
        """Note the memory, while it lives."""
        with contextlib.suppress(OSError, IndexError):
            resident = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            if resident and len(self.lines()) >= EARLY:  # one that has just ended has none
                self.early = self.early or resident
                self.late = resident

    def ended(self) -> None:
        """Count what this life has trained."""
        trained = self.lines()
        self.trained.update(trained)
        self.longest = max(self.longest, (len(trained), self.early, self.late))


def done(ledger: Path) -> dict[str, str]:
    """When each run in the ledger was finished, by key."""
    with contextlib.closing(sqlite3.connect(ledger, timeout=60)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the ledger is broken"
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "runs" not in tables:
            return {}
        return dict(connection.execute("SELECT key, finished FROM runs WHERE status = 'done'"))


def soak(runs: int, kills: int, seed: int, folder: Path) -> tuple[dict, Counter]:
    generator, ledger = random.Random(seed), folder / "r.db"
    (folder / "model.py").write_text(MODEL)
    seen, wrong = Counter(), Counter({"runs lost": 0, "runs changed": 0, "runs too many": 0, "runs trained twice": 0, "damage": 0})
    begun, before = time.perf_counter(), {}
    commands = [Command(folder, epochs, runs // 4) for epochs in (1, 2)]
    living, aimed = list(commands), sorted(generator.random() for _ in range(kills))
    while living:
        time.sleep(PAUSE)
        for command in list(living):
            command.watch()
            status = command.process.poll()
            if status is None:
                continue
            command.ended()
            now = done(ledger)
            wrong["runs lost"] += len(before.keys() - now.keys())
            wrong["runs changed"] += sum(now.get(key, when) != when for key, when in before.items())
            before = now
            if status == 0:
                living.remove(command)
            elif command.killed and status in (1, -signal.SIGKILL):
                command.start()  # of 1 the worker was killed
            else:
                wrong["wrong exit status"] += 1
                living.remove(command)
        share = sum(sum(each.trained.values()) + (len(each.lines()) if each in living else 0) for each in commands) / runs
        if aimed and share >= aimed[0] and living:
            aimed.pop(0)
            command = generator.choice(living)
            workers = workers_of(command.process) if command.process.poll() is None else []
            victim = generator.choice(workers) if workers and generator.random() < 0.4 else command.process.pid
            seen["workers killed" if victim in workers else "commands killed"] += 1
            command.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
    seen["seconds"] = round(time.perf_counter() - begun)
    wrong["runs too many"] += abs(len(before) - runs)
    trained = sum(sum(command.trained.values()) for command in commands)
    twice = sum(count - 1 for command in commands for count in command.trained.values() if count > 1)
    wrong["runs trained twice"] += twice
    again = subprocess.run(commands[0].words, cwd=folder, capture_output=True, text=True)
    wrong["runs trained by a third command"] += len(re.findall(r"seed \d+: test loss", again.stderr))
    verified = subprocess.run([*commands[0].words[:3], "runs", "verify", "--ledger", "r.db"], cwd=folder, capture_output=True)
    wrong["damage"] += verified.returncode
    count, early, late = max(command.longest for command in commands)
    memory = {"runs of the longest life": count, "MiB after 200 runs": round(early, 1), "MiB at its end": round(late, 1)}
    return {"runs": len(before), "said to be trained": trained, **seen, **memory}, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen, wrong = soak(options.runs, options.kills, options.seed, Path(folder))
    for name, count in {**seen, **wrong}.items():
        print(f"{name:32} {count}")
    write("soak", {"seen": seen, "wrong": dict(wrong)})
    sys.exit(bool(wrong.total()))


if __name__ == "__main__":
    main()
