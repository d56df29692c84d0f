"""Published experiments as studies: what is trained, what is expected of it, and whether that came out."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.machine import accelerator
from keras_dropout.bench.ledger.lookup import models
from keras_dropout.bench.records import BASELINE
from keras_dropout.bench.report import tables
from keras_dropout.bench.report.page import check_report_path, write_page
from keras_dropout.bench.settings import DEFAULT_LEDGER
from keras_dropout.bench.statistics import (
    LEVEL,
    Claim,
    claim,
    claim_of_figure,
    fewest_pairs,
    finite_mean,
    finite_sd,
    holm,
)
from keras_dropout.bench.study.planning import MOST_SEEDS, Plan
from keras_dropout.display import Shown
from keras_dropout.errors import check_whole, refuse
from keras_dropout.models import targets

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
MEASURED = "measured only"


@dataclass(frozen=True)
class Part:
    """One study of a reproduction.

    `model` builds and compiles the network, and its name is the study's; or it is the name of a recipe, which brings `data` too.
    `variants` are compared with "none" as `compare` has them, names of ready ones among them. With `keep_models` trained models are
    kept in the ledger, for `Found.of_models`. `settings` are further ones of `compare`: {"samples": 50}.
    """

    model: Callable[[], Any] | str
    data: Callable[[str | None], Data] | None
    variants: Mapping[str, Any] | Sequence[str]
    epochs: int
    batch_size: int = 32
    keep_models: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expectation:
    """What should come out, of the mean over seeds of one number: that it is more than `above`, less than `below`, or both; or
    that the published `figure` of one run, or of a few, could be one more of ours. Without any of these it is measured only.

    `value` gives the number of each seed, nan where there is none. `published` says what was published, in words.
    """

    says: str
    value: Callable[["Found"], np.ndarray]
    above: float | None = None
    below: float | None = None
    figure: float | None = None
    published: str = ""

    def __post_init__(self) -> None:
        if self.figure is not None and self.is_bounded:
            raise ValueError(f"{self.says!r}: an expectation has bounds or a figure")

    @property
    def is_bounded(self) -> bool:
        """Whether it is about an order."""
        return self.above is not None or self.below is not None

    @property
    def is_measured_only(self) -> bool:
        """Whether nothing follows from it."""
        return self.figure is None and not self.is_bounded


@dataclass(frozen=True)
class Reproduction:
    """A published claim, and how it is tried: parts, by name, and what is expected of them, the first expectation being the claim's
    own.

    `parts` gives the studies, smaller ones for `quick`; none where nothing is trained. `shows` are the metrics whose means are
    shown. `differs` says in what this is not the published experiment. `quick_seconds` are about what it takes on two idle cores.
    """

    name: str
    title: str
    claim: str
    source: str
    parts: Callable[[bool], Mapping[str, Part]]
    expectations: Sequence[Expectation]
    differs: str
    quick_seconds: int
    shows: Sequence[str] = ("test_loss", "test_accuracy")
    seeds: int = 12
    quick_seeds: int = 8


@dataclass
class Found:
    """What the parts of a reproduction found. `seeds` are the seeds of all of them, `quick` whether they are the smaller ones."""

    seeds: Sequence[int]
    quick: bool
    comparisons: Mapping[str, Comparison]
    plans: Mapping[str, Plan]
    measured: dict[tuple, dict[str, np.ndarray]] = field(default_factory=dict)

    def values(self, metric: str, variant: str = BASELINE, part: str | None = None) -> np.ndarray:
        """A metric of each seed's run, as "test_loss" or "train_accuracy"; nan where there is none."""
        return self.comparisons[self._part(part)].values(variant, metric)

    def curves(self, metric: str, variant: str = BASELINE, part: str | None = None) -> np.ndarray:
        """A metric at each epoch, (seeds, epochs), such as "loss", the running mean in training with dropout on."""
        found = self.comparisons[self._part(part)]
        named = next(each for each in found.study.variants if each.name == variant)
        results = [found.results.get(found.study.key(named, seed)) for seed in self.seeds]
        rows = [each.curves.get(metric, []) if each and each.status == "done" else [] for each in results]
        return np.array([row if len(row) == found.study.epochs else [np.nan] * found.study.epochs for row in rows], dtype=float)

    def of_models(
        self, measure: Callable[[Any, Data], Mapping[str, float]], figure: str, variant: str = BASELINE, part: str | None = None
    ) -> np.ndarray:
        """A figure of each seed's trained model, one of those that `measure(model, data)` gives; nan where there is no model."""
        part = self._part(part)
        key = (part, variant, measure)
        if key not in self.measured:
            study = self.comparisons[part].study
            named = next(each for each in study.variants if each.name == variant)
            places = {study.key(named, seed): place for place, seed in enumerate(self.seeds)}
            found: dict[str, np.ndarray] = {}
            with tempfile.TemporaryDirectory() as folder:
                for run, archive in models(self.plans[part].ledger, places):
                    path = Path(folder, "model.keras")
                    path.write_bytes(archive)
                    for name, value in measure(targets.load_model(path), self.plans[part].data).items():
                        found.setdefault(name, np.full(len(self.seeds), np.nan))[places[run]] = value
            self.measured[key] = found
        return self.measured[key].get(figure, np.full(len(self.seeds), np.nan))

    def _part(self, part: str | None) -> str:
        if part is None and len(self.comparisons) != 1:
            raise ValueError(f"name one of the parts {', '.join(self.comparisons)}")
        return next(iter(self.comparisons)) if part is None else part


@dataclass(frozen=True)
class Tried:
    """An expectation, the numbers that it is about, one a seed, and what is to be said of their mean."""

    expectation: Expectation
    values: np.ndarray
    claim: Claim

    @property
    def verdict(self) -> str:
        """Of this expectation alone."""
        if self.expectation.is_measured_only:
            return MEASURED
        return {True: REPRODUCED, False: NOT_REPRODUCED, None: UNDECIDED}[self.claim.holds]

    def document(self) -> dict[str, Any]:
        """Everything as plain values."""
        said = {name: getattr(self.expectation, name) for name in ("says", "published", "above", "below", "figure")}
        return {
            **said,
            "measured": _number(self.claim.mean),
            "interval": self.claim.interval and list(self.claim.interval),
            "p": self.claim.p,
            "runs": [_number(value) for value in self.values],
            "verdict": self.verdict,
        }


@dataclass(repr=False)
class Outcome(Shown):
    """What came of a reproduction. Prints as tables; `document()` and `save_report(path)` give it as data and as a page."""

    reproduction: Reproduction
    found: Found
    command: str = ""
    wall_seconds: float = 0.0

    @cached_property
    def tried(self) -> list[Tried]:
        """Each expectation with what came out. An interval is of 95 %, for each alone."""
        tried = []
        for each in self.reproduction.expectations:
            values = np.asarray(each.value(self.found), dtype=float)
            numbers = values[np.isfinite(values)]
            said = claim(numbers, each.above, each.below) if each.figure is None else claim_of_figure(numbers, each.figure)
            tried.append(Tried(each, values, said))
        return tried

    @property
    def judged(self) -> list[Tried]:
        """Those that the verdict is about."""
        return [each for each in self.tried if not each.expectation.is_measured_only]

    @property
    def verdict(self) -> str:
        """`reproduced` where each expectation is shown, each at 5 % (an intersection-union test, which needs no adjustment: Berger
        1982, Technometrics 24: 295-300); `not reproduced` where the contrary of one is shown, at 5 % for all of them together
        (Holm); else `undecided`."""
        if all(each.verdict == REPRODUCED for each in self.judged):
            return REPRODUCED
        against = holm([each.claim.p if each.claim.holds is False else 1.0 for each in self.judged])
        return NOT_REPRODUCED if min(against) <= LEVEL else UNDECIDED

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        counts = [sum(each.verdict == word for each in self.judged) for word in (REPRODUCED, NOT_REPRODUCED, UNDECIDED)]
        seeds, number = len(self.found.seeds), len(self.judged)
        said = f"{self.verdict.capitalize()}: of {number} expectation{'s' if number > 1 else ''} {counts[0]} shown"
        said += f", {counts[1]} refuted" if counts[1] else ""
        said += f", {counts[2]} open" if counts[2] else ""
        said += f", over {seeds} seed{'s' if seeds > 1 else ''}."
        if seeds < fewest_pairs():
            said += f" {seeds} seeds cannot show anything: give --seeds {fewest_pairs()} or more."
        return said

    @property
    def failed(self) -> list[tuple[Any, str]]:
        """The runs that failed, with their errors."""
        return [each for comparison in self.found.comparisons.values() for each in comparison.failed]

    def figures(self) -> list[dict[str, Any]]:
        """The means over seeds of the metrics that are shown, and of what was measured of trained models."""
        rows = []
        for part, comparison in self.found.comparisons.items():
            for variant in (each.name for each in comparison.study.variants):
                values = {name: comparison.values(variant, name) for name in self.reproduction.shows if name in comparison.metrics}
                values |= {name: comparison.values(variant, name) for name in self.reproduction.shows if name.startswith("train_")}
                for (of_part, of_variant, _), figures in self.found.measured.items():
                    values |= figures if (of_part, of_variant) == (part, variant) else {}
                rows += [
                    {
                        "part": part,
                        "variant": variant,
                        "metric": name,
                        "mean": _number(finite_mean(each)),
                        "sd": _number(finite_sd(each)),
                        "runs": [_number(value) for value in each],
                    }
                    for name, each in values.items()
                ]
        return rows

    def summary(self) -> dict[str, Any]:
        """The document without its studies."""
        reproduction, first = self.reproduction, self.tried[0].document()
        expectations = [each.document() for each in self.tried]
        comparisons = self.found.comparisons.values()
        epochs = [comparison.timing.get("model_epochs") or 0 for comparison in comparisons]
        spent = [result.seconds for comparison in comparisons for result in comparison.results.values()]
        return {
            "name": reproduction.name,
            "title": reproduction.title,
            "claim": reproduction.claim,
            "source": reproduction.source,
            "differs": reproduction.differs,
            "verdict": self.verdict,
            "sentence": self.sentence,
            **{name: first[name] for name in ("measured", "interval", "published")},
            "expectations": expectations,
            "figures": self.figures(),
            "data": sorted({comparison.study.data.name for comparison in comparisons}),
            "quick": self.found.quick,
            "seeds": list(self.found.seeds),
            "timing": {
                "wall_seconds": round(self.wall_seconds, 1),
                "model_epochs": sum(epochs),
                "runs": len(spent),
                "run_seconds": round(sum(spent), 1),
            },
        }

    def document(self) -> dict[str, Any]:
        """Everything as plain values: what `--json` prints."""
        studies = {part: comparison.document() for part, comparison in self.found.comparisons.items()}
        return self.summary() | {"command": self.command, "studies": studies}

    def save_report(self, path: str | Path) -> list[Path]:
        """Write a page for each part, the first at `path`, the others beside it, each with the verdict first; return the paths."""
        _check_has_page(self.reproduction, self.found.plans)
        path, parts = Path(path), list(self.found.comparisons)
        paths = [path, *(path.with_stem(f"{path.stem}-{part.replace(' ', '-')}") for part in parts[1:])]
        pages = [{"part": part, "file": each.name} for part, each in zip(parts, paths)]
        for part, each in zip(parts, paths):
            about = self.summary() | {"part": part, "pages": pages}
            write_page(each, self.found.comparisons[part].report_document() | {"reproduction": about})
        return paths

    def __rich__(self) -> Group:
        return tables.reproduction(self.summary())


def _check_has_page(reproduction: Reproduction, plans: Mapping[str, Plan]) -> None:
    if not plans:
        refuse(f"{reproduction.name} trains nothing, so that there is no page.", "Leave --report out.")


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Planned:
    """A reproduction that was found valid: the plan of each of its parts."""

    reproduction: Reproduction
    quick: bool
    seeds: Sequence[int]
    plans: Mapping[str, Plan]


def plan_reproduction(
    reproduction: Reproduction,
    *,
    quick: bool = False,
    seeds: int | None = None,
    ledger: str | Path = DEFAULT_LEDGER,
    data_dir: str | None = None,
    report: str | Path | None = None,
    **settings: Any,
) -> Planned:
    """Check everything and plan the parts. `report` is where pages are to be, `settings` are workers, on and checkpoint_every of
    `compare`. Raises `BadInput`."""
    if report is not None:
        check_report_path(report)
    if seeds is None:
        seeds = reproduction.quick_seeds if quick else reproduction.seeds
    numbers = tuple(range(check_whole("seeds", seeds, 1, "Six are the fewest that can show a difference.", MOST_SEEDS)))
    plans = {}
    for name, part in reproduction.parts(quick).items():
        more: dict[str, Any] = {"data_dir": data_dir}
        target, data = part.model, None
        if not isinstance(target, str):
            assert part.data is not None  # only a recipe brings data of its own
            more = {"engine": "stacked" if accelerator() else "compiled"}
            target, data = target(), part.data(data_dir)
        plans[name] = make_plan(
            target,
            data,
            variants=part.variants,
            seeds=numbers,
            epochs=part.epochs,
            batch_size=part.batch_size,
            keep_weights=part.keep_models,
            ledger=ledger,
            **(more | dict(part.settings) | settings),
        )
    if report is not None:
        _check_has_page(reproduction, plans)
    return Planned(reproduction, quick, numbers, plans)


def carry_out_reproduction(planned: Planned, quiet: bool = False, command: str = "") -> Outcome:
    """Train what the ledger lacks of each part, and see what came out. When interrupted, what is finished is in the ledger."""
    started = time.perf_counter()
    comparisons = {name: carry_out(plan, quiet=quiet, command=command) for name, plan in planned.plans.items()}
    found = Found(planned.seeds, planned.quick, comparisons, planned.plans)
    outcome = Outcome(planned.reproduction, found, command)
    assert outcome.tried  # measures trained models, which takes time too
    return dataclasses.replace(outcome, wall_seconds=time.perf_counter() - started)
