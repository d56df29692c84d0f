"""Contestants timed in turn, and each backend in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BACKENDS = ("jax", "tensorflow", "torch")
CLOCK = os.environ.get("BENCHMARK_CLOCK", "wall")  # or "processor", set by `on_each_backend`
_now = time.process_time if CLOCK == "processor" else time.perf_counter


SLOW = 3.0  # seconds after which a contestant takes no further turn


def medians(contestants: dict[str, Callable[[], Any]], wait: Callable[[Any], Any], rounds: int, least: float) -> dict[str, float]:
    """Seconds of one call of each: medians over rounds in which all take their turn, each for at least `least` seconds.

    The first calls, which compile, are not counted. Whoever has used up `SLOW` seconds is out of the rounds that are left: some
    are a thousand times as slow as others.
    """
    calls, seconds = {}, {}
    for name, run in contestants.items():
        wait(run())
        once = _timed(run, wait, 1)
        calls[name] = max(1, min(200, int(least / max(once, 1e-9))))
        seconds[name] = [once] if once > SLOW else []
    for _ in range(rounds):
        for name, run in contestants.items():
            if sum(seconds[name]) * calls[name] < SLOW:
                seconds[name].append(_timed(run, wait, calls[name]) / calls[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


def _timed(run: Callable[[], Any], wait: Callable[[Any], Any], calls: int) -> float:
    start = _now()
    for _ in range(calls):
        result = run()
    wait(result)
    return _now() - start


def on_each_backend(script: str, backends: tuple[str, ...], *arguments: str, cpu_time: bool = False) -> list[dict]:
    """The rows that `script --rows FILE` leaves in FILE, run once with each backend; with `cpu_time` on one core of them."""
    command = [sys.executable, script, *arguments]
    clock = {"BENCHMARK_CLOCK": "processor"} if cpu_time else {}
    core = min(os.sched_getaffinity(0)) if cpu_time else None
    rows = []
    for backend in backends:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", **clock}
            pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
            done = subprocess.run([*command, "--rows", str(file)], env=environment, preexec_fn=pin)
            if done.returncode:
                sys.exit(f"{Path(script).name} on {backend} ended with exit status {done.returncode}")
            rows += json.loads(file.read_text())
    return rows
