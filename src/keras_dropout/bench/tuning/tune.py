"""The public `tune`: a search over sites x kinds x rates x schedules on validation data, then the winner on fresh seeds.

The search asks Optuna in rounds, trains on seeds that no comparison uses, and sees only validation losses. One seed is too little
for a choice, so the best few trials are trained on two more seeds. The test data are used once, when the winner is compared. The
ledger stores the runs: a repeated search suggests the same trials, and trains only the missing runs.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout.bench.compare import carry_out, keep
from keras_dropout.bench.records import BASELINE, Run, Variant
from keras_dropout.bench.report.page import check_report_path
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.settings import SearchSettings
from keras_dropout.bench.statistics import mean_interval
from keras_dropout.bench.study.planning import check_names
from keras_dropout.bench.tuning.search import (
    FINAL_SEEDS,
    OF_SEARCH,
    SEARCH_SEED,
    TUNED,
    TUNED_BASELINE,
    Search,
    Trial,
    carry_out_search,
    note_search,
    plan_search,
    winner_of,
)
from keras_dropout.bench.tuning.sweep import PlannedSweep, Sweep, carry_out_sweep, plan_sweep
from keras_dropout.bench.tuning.training_space import TrainingSpace
from keras_dropout.display import Shown
from keras_dropout.errors import check_path, refuse

_SHOWN = 10


@dataclass(repr=False)
class Tuning(Shown):
    """The result of a search, and of its winner on fresh seeds. Prints as tables; see also `document()`, `save_report(path)`."""

    search: Search
    trials: Sequence[Trial]
    comparison: ShownComparison
    timing: Mapping[str, Any]
    baseline_trials: Sequence[Trial] = ()

    @property
    def winner(self) -> Trial:
        """The finalist with the smallest mean validation loss over the search's seeds."""
        return winner_of(self.trials)

    @property
    def placement(self) -> str:
        """The winner's placement as written after --variant NAME=; empty if no dropout won."""
        return self.winner.text

    @property
    def failed(self) -> list[tuple[Run, str]]:
        """The runs of the comparison that failed, with their errors."""
        return self.comparison.failed

    def fresh(self, metric: str, name: str = TUNED) -> tuple[float | None, list[float] | None]:
        """Return the winner's mean of a metric over fresh seeds, and its 95 % interval."""
        values = self.comparison.values(name, metric)
        values = values[np.isfinite(values)]
        interval = mean_interval(values)
        return (float(values.mean()) if len(values) else None), interval and list(interval)

    def sentences(self) -> list[str]:
        """Name the winner and its losses, explain why there are two figures, and state the cost of the search."""
        loss, interval = self.fresh("test_loss")
        winner = next(variant for variant in self.comparison.study.variants if variant.name == TUNED)
        seeds = len(self.comparison.study.seeds_of(winner))
        found = [f"The search found {self.placement or 'no dropout'}."]
        if loss is not None:
            found[0] += f" Test loss on {seeds} fresh seeds: {loss:.4f}{_between(interval)}."
        others = [other.name for other in self.comparison.study.variants if other.name != TUNED]
        for other in others:
            row = self.comparison.differences("test_loss", other)[TUNED]
            if row.pairs:
                found.append(f"Against {other}: test loss {row.mean:+.4f}{_between(row.interval, '+')}, {row.verdict}.")
        if self.baseline_trials:
            assert self.search.baseline is not None
            assert isinstance(self.search.baseline.space, TrainingSpace)
            varied = ", ".join(name.replace("_", " ") for name in self.search.baseline.space.choices)
            found.append(
                f"The winner had {len(self.trials)} trials, and so had {TUNED_BASELINE} ({varied}): "
                f"{winner_of(self.baseline_trials).text}. The other variants had none."
            )
        elif others:
            found.append(
                f"The winner had {len(self.trials)} trials, {' and '.join(others)} had none: what as many trials of the learning "
                "rate, weight decay or early stopping would do without a new placement was not tried. --tune-baseline tries it."
            )
        again, interval = self.fresh("validation_loss")
        if again is not None:
            runs, tried = 1 + len(self.winner.finals), len(self.trials)
            fresh = f"{again:.4f}{_between(interval)} on fresh seeds."
            found.append(
                f"Its validation loss was {self.winner.score:.4f} in the search (mean of {runs} run(s)) and is {fresh} "
                f"The first is the smallest that {tried} trials led to, and the winner was "
                "chosen for it, luck included (the winner's curse): it is optimistic. So is the second, by less: the seeds are "
                "new, the validation examples are those that chose. The test loss is not: expect that."
                if math.isfinite(self.winner.score)
                else "Each of the best trials diverged or failed on one of the search's further seeds, the winner too: none was "
                f"chosen by a mean. Its validation loss is {fresh}"
            )
        t = self.timing
        found.append(
            f"The search cost {t['model_epochs']} model-epochs, as many as {t['models']:.1f} models, the comparison "
            f"{t['comparison_model_epochs']}; what the ledger had of them was not trained again."
        )
        return found

    def document(self) -> dict[str, Any]:
        """Return the comparison and the search as plain values."""
        return {**self.comparison.document(), **self.comparison.more}

    def save_report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs no network, and return its path."""
        return self.comparison.save_report(path)

    def own_document(self) -> dict[str, Any]:
        """Return the part that the search adds to the comparison's document."""
        fresh = {metric: self.fresh(metric) for metric in ("validation_loss", "test_loss")}
        search = {
            "space": str(self.search.space),
            "sampler": self.search.sampler,
            "seed": self.search.seed,
            "run_seeds": [SEARCH_SEED, *FINAL_SEEDS],
            "rungs": list(self.search.rungs),
            "trials": [trial.document() for trial in self.trials],
            "winner": {
                "trial": self.winner.number,
                "text": self.placement,
                "placement": self.winner.variant.placement,
                "chosen_by": "validation_loss",
                "optimistic": {"validation_loss": self.winner.score if math.isfinite(self.winner.score) else None},
                "fresh": {metric: {"mean": mean, "interval": interval} for metric, (mean, interval) in fresh.items()},
            },
            **self._baseline_document(),
            "sentences": self.sentences(),
            "timing": dict(self.timing),
        }
        return {"search": search}

    def _baseline_document(self) -> dict[str, Any]:
        """Return the baseline's own search, if there was one."""
        if self.search.baseline is None:
            return {}
        winner = winner_of(self.baseline_trials)
        fresh = {metric: self.fresh(metric, TUNED_BASELINE) for metric in ("validation_loss", "test_loss")}
        baseline = {
            "space": str(self.search.baseline.space),
            "sampler": self.search.baseline.sampler,
            "trials": [trial.document() for trial in self.baseline_trials],
            "winner": {
                "trial": winner.number,
                "text": winner.text,
                "training": dict(winner.variant.training or {}),
                "chosen_by": "validation_loss",
                "optimistic": {"validation_loss": winner.score if math.isfinite(winner.score) else None},
                "fresh": {metric: {"mean": mean, "interval": interval} for metric, (mean, interval) in fresh.items()},
            },
        }
        return {"baseline": baseline}

    def __rich__(self) -> Group:
        tables = [_trials_table(self.trials)]
        tables += [_trials_table(self.baseline_trials, f" of {TUNED_BASELINE}")] if self.baseline_trials else []
        return Group(*tables, *map(Text, self.sentences()), Text(), self.comparison.__rich__())


def carry_out_tuning(planned: Search | PlannedSweep, quiet: bool = False, command: str = "") -> Tuning | Sweep:
    """Carry out a search and the comparison after it, or a sweep. After an interrupt, finished runs stay in the ledger."""
    if isinstance(planned, PlannedSweep):
        return carry_out_sweep(planned, quiet, command)
    return _search_and_compare(planned, quiet, command)


def _search_and_compare(search: Search, quiet: bool, command: str) -> Tuning:
    started = time.perf_counter()
    note_search(search, command)
    trials = carry_out_search(search, quiet)
    of_baseline = carry_out_search(search.baseline, quiet) if search.baseline else []
    wall = time.perf_counter() - started
    plan = search.plan
    added, baseline = [Variant(TUNED, winner_of(trials).variant.placement)], plan.study.baseline
    if of_baseline:
        added.append(Variant(TUNED_BASELINE, {}, winner_of(of_baseline).variant.training))
        baseline = TUNED_BASELINE if baseline == BASELINE else baseline  # the fair one, unless another was named
    study = dataclasses.replace(plan.study, variants=(*plan.study.variants, *added), baseline=baseline)
    comparison = carry_out(dataclasses.replace(plan, study=study), quiet=quiet, command=command)
    spent = sum(max(trial.losses, default=0) + len(trial.finals) * study.epochs for trial in (*trials, *of_baseline))
    timing = {
        "wall_seconds": round(wall, 2),
        "model_epochs": spent,
        "models": round(spent / study.epochs, 2),
        "comparison_model_epochs": len({run.key for run in comparison.study.runs()}) * study.epochs,
    }
    found = Tuning(search, trials, comparison, timing, of_baseline)
    keep(comparison, found.own_document())
    return found


def tune(
    target: Any,
    data: Any = None,
    *,
    variants: Mapping[str, Any] | Sequence[Variant | str] | None = None,
    report: str | Path | None = None,
    quiet: bool = False,
    **settings: Unpack[SearchSettings],
) -> Tuning | Sweep:
    """Search for a placement on validation data, and compare the winner with the baseline on fresh seeds and test data.

    `target`, `data` and the settings of the study are the same as for `compare`. `seeds` are the seeds of the comparison (0 to 5 by
    default, or "auto"); the search uses other seeds. The comparison has the baseline, the winner as "tuned", and `variants`; by
    default these are the model as it is published, or as it is built if that has dropout.

    `space` describes the placements to try, as text or {site: text}: "input=0:0.3, hidden=0:0.6 | linear(0:0.6, 0)" (see
    `bench.tuning.spaces`); by default rates of `kinds` (Dropout) at the groups input, hidden and last. `sampler` is "tpe",
    "random" or "grid"; `trials` is the number of placements to try (18; a grid: all), `budget` a limit in model-epochs, `seed` the
    sampler's seed. With `halving`, only the best third of each nine trials is trained beyond half of the epochs.

    With `tune_baseline`, the model without dropout has as many trials on the same seeds: of the learning rate (a quarter to four
    times), of a weight decay, and of early stopping. Its winner is the variant "none, tuned", which is the baseline of the
    comparison unless another is named.

    `sweep` replaces the search: "hidden=0:0.6:13" trains each of these rates with each seed, and returns a `Sweep`.

    Raises `BadInput`, before anything is trained, for invalid input.
    """
    check_names("tune", settings, SearchSettings.__optional_keys__)
    if report is not None:
        check_report_path(check_path("report", report, "report.html"))
    planned = plan_tuning(target, data, variants=variants, **settings)
    found = carry_out_tuning(planned, quiet=quiet, command="keras_dropout.tune(…) in Python")
    if report is not None:
        found.save_report(report)
    return found


def plan_tuning(target: Any, data: Any = None, *, sweep: str | None = None, **settings: Any) -> Search | PlannedSweep:
    """Check everything and plan a search, or a sweep if `sweep` is given; see `tune`. Raises `BadInput`."""
    if sweep is None:
        return plan_search(target, data, **settings)
    if together := [name for name in OF_SEARCH if settings.get(name) is not None]:
        refuse(f"sweep and {', '.join(sorted(together))} together.", "A sweep trains all its rates; leave one of them out.")
    if settings.get("log"):
        refuse(
            "log is for comparisons; the runs of a sweep are in the ledger.",
            "Leave it out; afterwards: keras-dropout runs export PLACE",
        )
    return plan_sweep(target, data, sweep=sweep, **settings)


def _between(interval: Sequence[float] | None, sign: str = "") -> str:
    return f" (95 % interval {interval[0]:{sign}.4f} to {interval[1]:{sign}.4f})" if interval else ""


def _trials_table(trials: Sequence[Trial], of: str = "") -> Table:
    shown = sorted(trials, key=lambda trial: (not trial.finals, not trial.done, trial.score))[:_SHOWN]
    title = f"the best {len(shown)} of {len(trials)} trials{of}, by validation loss"
    table = Table(title=title, title_justify="left")
    for name in ("trial", "epochs", "validation loss", "mean of the finalists' seeds"):
        table.add_column(name, justify="right")
    table.add_column("training" if of else "placement", overflow="fold")
    for trial in shown:
        loss = f"{trial.loss:.4f}" if math.isfinite(trial.loss) else "-"
        mean = "" if not trial.finals else f"{trial.score:.4f}" if math.isfinite(trial.score) else "-"
        placement = Text(trial.error or trial.text or "no dropout")
        table.add_row(str(trial.number), str(max(trial.losses, default=0)), loss, mean, placement)
    return table
