"""Sweep one rate over a range with each seed, and fit smooth curves through the losses."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout.bench.compare import carry_out, keep
from keras_dropout.bench.records import Run
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.statistics import LEVEL, Smooth, compare_with_best, smooth_curve
from keras_dropout.bench.study.planning import Plan
from keras_dropout.bench.tuning import spaces
from keras_dropout.bench.tuning.search import build, fresh_plan
from keras_dropout.display import Shown
from keras_dropout.errors import check_whole, refuse

MOST_RATES = 1_000  # each rate is a variant, and so a row of every table


@dataclass(repr=False)
class Sweep(Shown):
    """The response of the loss to one rate: the comparison of all rates, the best, and smooth curves through their runs."""

    site: str
    rates: Sequence[float]
    names: Sequence[str]  # the variant of each rate
    comparison: ShownComparison

    @property
    def failed(self) -> list[tuple[Run, str]]:
        """The runs that failed, with their errors."""
        return self.comparison.failed

    def values(self, metric: str) -> np.ndarray:
        """Return the metric with a row for each seed and a column for each rate; nan where there is no value."""
        by_name = {variant.name: variant for variant in self.comparison.study.variants}
        return np.array([self.comparison.values(by_name[name], metric) for name in self.names]).T

    def curve(self, metric: str) -> Smooth | None:
        """Return the smooth curve of a metric; None if no seed has all rates."""
        values = self.values(metric)
        return smooth_curve(np.array(self.rates), values) if np.isfinite(values).all(axis=1).any() else None

    def best(self, metric: str) -> "Best | None":
        """Return the rate with the smallest mean, and those not shown to be worse; None if no seed has all rates."""
        values = self.values(metric)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            return None
        p = compare_with_best(values)
        not_worse = [rate for rate, each in zip(self.rates, p) if each > LEVEL]
        return Best(self.rates[int(values.mean(axis=0).argmin())], not_worse, p, len(values))

    def sentences(self) -> list[str]:
        """Name the best rate by validation loss, and how certain it is."""
        if (best := self.best("validation_loss")) is None:
            return ["No seed has a run at each rate yet."]
        found = f"{self.site}: of {len(self.rates)} rates, {best.rate:.3g} has the smallest mean validation loss. "
        if 2.0**-best.seeds > LEVEL:
            found += f"{best.seeds} seed{'s' if best.seeds > 1 else ''} cannot show a rate to be worse: give 5 or more."
        elif len(best.not_worse) == 1:
            found += "Each other rate is shown to be worse (95 % for all together)."
        else:
            found += f"Not shown to be worse than the best (95 % for all together): {self._spans(best.not_worse)}."
        if best.rate in (self.rates[0], self.rates[-1]):
            found += " That is an end of the sweep: the best rate may lie outside."
        return [found]

    def _spans(self, chosen: Sequence[float]) -> str:
        """Write rates as spans without a gap: "0.1 to 0.3, 0.5"."""
        spans: list[list[float]] = []
        for number, rate in enumerate(self.rates):
            if rate in chosen and number and self.rates[number - 1] in chosen:
                spans[-1][1:] = [rate]
            elif rate in chosen:
                spans.append([rate])
        return ", ".join(" to ".join(f"{end:.3g}" for end in span) for span in spans)

    def document(self) -> dict[str, Any]:
        """Return the comparison and the sweep as plain values."""
        return {**self.comparison.document(), **self.comparison.more}

    def save_report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs no network, and return its path."""
        return self.comparison.save_report(path)

    def own_document(self) -> dict[str, Any]:
        """Return the part that the sweep adds to the comparison's document."""
        metrics = ("validation_loss", "test_loss")
        found = {metric: (c, b) for metric in metrics if (c := self.curve(metric)) and (b := self.best(metric))}
        sweep = {
            "site": self.site,
            "variants": dict(zip(self.names, self.rates)),
            "curves": {
                metric: {
                    "rates": list(self.rates),
                    "runs": _level(self.values(metric)),
                    "rate": c.x.tolist(),
                    "mean": c.mean.tolist(),
                    "low": c.low.tolist() if np.isfinite(c.low).all() else None,
                    "high": c.high.tolist() if np.isfinite(c.high).all() else None,
                    "knots": c.knots,
                    "best": b.rate,
                    "best_interval": [b.not_worse[0], b.not_worse[-1]],
                    "not_worse": b.not_worse,
                    "p": b.p,
                }
                for metric, (c, b) in found.items()
            },
            "sentences": self.sentences(),
        }
        return {"sweep": sweep}

    def __rich__(self) -> Group:
        metrics = ("validation_loss", "test_loss")
        values, curves = {m: self.values(m) for m in metrics}, {m: self.curve(m) for m in metrics}
        title = Text(f"{self.comparison.study.target}: {self.site} by rate, mean over seeds")
        table = Table(title=title, title_justify="left")
        table.add_column("rate", justify="right")
        for metric in metrics:
            table.add_column(metric.replace("_", " "), justify="right")
            table.add_column("curve", justify="right")
        table.add_column("validation loss, curve and 95 % interval")
        for number, rate in enumerate(self.rates):
            cells = [f"{rate:.4g}"]
            for metric in metrics:
                column, curve = values[metric][:, number], curves[metric]
                column = column[np.isfinite(column)]
                cells += [f"{column.mean():.4f}" if len(column) else "-", f"{_at(curve, rate)[1]:.4f}" if curve else "-"]
            table.add_row(*cells, _bar(curves["validation_loss"], rate))
        return Group(table, *map(Text, self.sentences()), *(Text(f"! {w}", style="yellow") for w in self.comparison.warnings()))


class Best(NamedTuple):
    """The rate with the smallest mean, the rates not shown to be worse than the best, p of each rate, and the seeds with all."""

    rate: float
    not_worse: Sequence[float]
    p: Sequence[float]
    seeds: int


@dataclass(frozen=True)
class PlannedSweep:
    """A checked sweep: its comparison, its site, its rates, and the variant of each rate."""

    plan: Plan
    site: str
    rates: Sequence[float]
    names: Sequence[str]


def plan_sweep(target: Any, data: Any = None, *, sweep: str, **settings: Any) -> PlannedSweep:
    """Check everything and plan the sweep; see `tuning.tune`. Raises `BadInput`."""
    fix = "Write SITE=START:STOP:COUNT, for example hidden=0:0.6:13."
    found = spaces.parse(sweep)
    if len(found.sites) > 1 or found.size < 2:
        refuse(f"a sweep is over one site; got {sweep!r}.", fix)
    ((site, choices),) = found.sites.items()
    if len(choices) > 1 or len(choices[0].ranges) != 1:
        refuse(f"a sweep is over one range; got {sweep!r}.", fix)
    check_whole("the number of a sweep's rates", found.size, 2, fix, MOST_RATES)
    choice, span = choices[0], choices[0].ranges[0]
    plan = fresh_plan(target, data, settings | {"sweep": sweep})
    model = build(plan.study)
    found.check(model)
    names = [f"{site}={choice.at([number])}" for number in range(span.count)]
    variants = [spaces.place(model, name, {site: choice.at([number])}) for number, name in enumerate(names)]
    study = dataclasses.replace(plan.study, variants=(*plan.study.variants, *variants))
    where = f"{site}={choice.text}" if choice.text.count("(") else site
    rates = [float(span[number]) for number in range(span.count)]
    return PlannedSweep(dataclasses.replace(plan, study=study), where, rates, names)


def carry_out_sweep(planned: PlannedSweep, quiet: bool = False, command: str = "") -> Sweep:
    """Train the runs of a sweep that are missing in the ledger, and return the sweep."""
    found = Sweep(planned.site, planned.rates, planned.names, carry_out(planned.plan, quiet=quiet, command=command))
    keep(found.comparison, found.own_document())
    return found


def _level(values: np.ndarray) -> list[list[float]]:
    """Return the complete rows shifted to the same mean, as `smooth_curve` uses them."""
    rows = values[np.isfinite(values).all(axis=1)]
    return (rows - rows.mean(axis=1, keepdims=True) + rows.mean()).tolist()


def _at(curve: Smooth, rate: float) -> tuple[float, float, float]:
    """Return low, mean and high of a curve at a rate."""
    place = int(np.abs(curve.x - rate).argmin())
    return float(curve.low[place]), float(curve.mean[place]), float(curve.high[place])


def _bar(curve: Smooth | None, rate: float, width: int = 40) -> str:
    """Draw the curve's interval and value at a rate as a line of text, on one scale for all rates."""
    if curve is None:
        return ""
    ends = [curve.mean.min(), curve.mean.max(), *(v for v in (curve.low.min(), curve.high.max()) if np.isfinite(v))]
    low, high = min(ends), max(ends)
    places = [round((np.clip(v, low, high) - low) / ((high - low) or 1) * (width - 1)) for v in _at(curve, rate)]
    line = [" "] * width
    if np.isfinite(curve.low).all():
        line[places[0] : places[2] + 1] = "─" * (places[2] + 1 - places[0])
    line[places[1]] = "●"
    return "".join(line).rstrip()
