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


def medians(contestants: dict[str, Callable[[], Any]], wait: Callable[[Any], Any], rounds: int, least: float) -> dict[str, float]:
    """Seconds of one call of each: medians over rounds in which all take their turn, each for at least `least` seconds.

    The first calls, which compile, are not counted.
    """
    calls = {}
    for name, run in contestants.items():
        wait(run())
        start = _now()
        wait(run())
        calls[name] = max(1, min(200, int(least / max(_now() - start, 1e-9))))
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = _now()
            for _ in range(calls[name]):
                result = run()
            wait(result)
            seconds[name].append((_now() - start) / calls[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


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
