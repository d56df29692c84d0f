"""What a study costs beside training: per run, per compilation, in the ledger and in memory, from the first run to the last.

A study of 2 variants x 51 seeds on the tutorial's network and real images, 2 epochs each, with one worker. Reported: wall seconds
from one run's end to the next one's, early and late in the study; compilations; the share of the time that writing to the
ledger takes; and the resident memory of the command after 10 runs and at the end.
Run: python benchmarks/scale.py [--json FILE]
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from report import write

from keras_dropout.bench import compare
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.ledger.store import Ledger

SEEDS = 51


def resident() -> float:
    """MiB of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Watch(compare.Display):
    """The usual display, which also notes when each run ends and how much memory there is then."""

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        self.ends, self.memory = [time.perf_counter()], []
        watches.append(self)

    def ended(self, *arguments: object) -> None:
        super().ended(*arguments)
        self.ends.append(time.perf_counter())
        self.memory.append(resident())


class TimedLedger(Ledger):
    """The usual ledger, which adds up the seconds that writing takes."""

    seconds = 0.0

    def put(self, *arguments: object) -> None:
        started = time.perf_counter()
        super().put(*arguments)
        TimedLedger.seconds += time.perf_counter() - started


watches: list[Watch] = []


def main() -> None:
    compare.Display, compare.Ledger = Watch, TimedLedger
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(
            "fashion-mnist-mlp",
            variants={"a": {"hidden": 0.2}},
            seeds=SEEDS,
            epochs=2,
            workers=1,
            ledger=Path(folder) / "r.db",
        )
        found = compare.carry_out(plan, quiet=True)
        size = (Path(folder) / "r.db").stat().st_size
    (watch,) = watches
    gaps = [late - early for early, late in zip(watch.ends, watch.ends[1:])]
    early, late = statistics.median(gaps[2:12]), statistics.median(gaps[-10:])
    row = {
        "runs": len(gaps),
        "seconds_of_the_first_run": gaps[0],
        "seconds_a_run_early": early,
        "seconds_a_run_late": late,
        "late_to_early": late / early,
        "compilations": found.timing["compilations"],
        "ledger_share": TimedLedger.seconds / (watch.ends[-1] - watch.ends[0]),
        "ledger_bytes_a_run": size / len(gaps),
        "memory_mib_after_10_runs": watch.memory[9],
        "memory_mib_at_the_end": watch.memory[-1],
    }
    for name, value in row.items():
        print(f"{name:28} {value:.4g}")
    write("scale", [row])


if __name__ == "__main__":
    main()
