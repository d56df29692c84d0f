"""The live display of an execution: runs done, the epoch of each worker, time left, and the table so far."""

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keras_dropout.bench.records import Result, Run
from keras_dropout.display import Terminal, fitted

_WIDE = 100  # columns of a terminal with room for bars beside the figures


class _Progress(Terminal):
    on_broken_pipe = Console.on_broken_pipe  # a broken pipe ends the study with an error, as in plain rich


class Display:
    """An observer that draws on a terminal, prints one line per finished run elsewhere, and prints nothing if quiet.

    `table` returns the table to draw below the bars; `metric` is printed for each run, or its first one. `epochs` is 0 if a
    run's number of epochs is not known: the bars then count runs.
    """

    def __init__(self, epochs: int, quiet: bool, table: Callable[[], Any] | None = None, metric: str = "test_loss"):
        self._console = _Progress(file=sys.stderr, quiet=quiet)
        self._live = Live(console=self._console, transient=True) if self._console.is_terminal and not quiet else None
        wide = self._console.width >= _WIDE
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            *([BarColumn()] if wide else []),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            *([TimeElapsedColumn()] if wide else []),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
        )
        self._unit = "epochs" if epochs else "ended"
        self._all = self._bars.add_task("all runs", total=0, unit=self._unit)
        self._tasks: dict[int, Any] = {}
        self._reached: dict[str, int] = {}  # run -> number of its epochs counted as done
        self._given: dict[int, list[str]] = {}  # worker -> its runs, until all have ended
        self._at: dict[str, int] = {}  # unfinished run -> its worker
        self._counts_epochs = epochs > 0
        self._epochs = epochs or 1
        self._total = 0
        self._done = 0
        self._make_table = table
        self._metric = metric
        self._table: Any = None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def expect(self, runs: int) -> None:
        """Add `runs` to the number of expected runs."""
        self._total += runs
        self._bars.update(self._all, total=self._total * self._epochs)
        self._count()

    def started(self, worker: int, run: Run, epoch: int) -> None:
        given = self._given.get(worker, [])
        if run.key in given or not any(self._at.get(key) == worker for key in given):
            given = self._given[worker] = []
        given.append(run.key)
        self._at[run.key] = worker
        runs = len(given)
        label = f"worker {worker + 1}: " + (f"{run.variant.name}, seed {run.seed}" if runs == 1 else f"{runs} runs")
        if worker not in self._tasks:
            unit = "epochs; compiling" if self._counts_epochs else self._unit
            self._tasks[worker] = self._bars.add_task(label, total=self._epochs, unit=unit)
        self._bars.reset(self._tasks[worker], total=self._epochs * runs, description=label)
        # After the death of a worker this may be fewer epochs than before.
        self._reach(worker, run, epoch if self._counts_epochs else 0)

    def epoch(self, worker: int, run: Run, epoch: int, logs: dict[str, float]) -> None:
        if self._counts_epochs:
            self._bars.update(self._tasks[worker], unit="epochs")
            self._reach(worker, run, epoch)

    def paused(self, worker: int, run: Run) -> None:
        self._done += 1
        del self._at[run.key]

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _reach(self, worker: int, run: Run, epoch: int) -> None:
        self._bars.advance(self._all, epoch - self._reached.get(run.key, 0))
        self._reached[run.key] = epoch
        self._bars.update(self._tasks[worker], completed=sum(self._reached[key] for key in self._given[worker]))
        self._draw()

    def ended(self, worker: int, run: Run, result: Result) -> None:
        self._done += 1
        del self._at[run.key]
        self._reach(worker, run, self._epochs)  # a run that ended early, for whatever reason, has no epochs left
        self._count()
        if self._live:
            self._table = self._make_table and self._make_table()
            self._draw()
            return
        metric = self._metric if self._metric in result.metrics else next(iter(result.metrics), "")
        loss = f"{metric.replace('_', ' ')} {result.metrics[metric]:.4f}" if metric else None
        loss = loss or result.error or result.status
        self._console.print(
            f"{self._done}/{self._total}  {run.variant.name}, seed {run.seed}: {loss} ({result.seconds:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )

    def _count(self) -> None:
        self._bars.update(self._all, unit=f"{self._unit}, {self._done} of {self._total} runs")

    def _draw(self) -> None:
        if self._live:
            table = [fitted(self._table, self._console.width)] if self._table else []
            self._live.update(Group(self._bars, *table))
