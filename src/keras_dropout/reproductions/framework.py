"""Published experiments as studies: the runs to train, the expected results, and the test of the expectations."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.machine import accelerator
from keras_dropout.bench.records import BASELINE
from keras_dropout.bench.report import tables
from keras_dropout.bench.report.page import check_report_path, write_page
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.settings import DEFAULT_LEDGER
from keras_dropout.bench.statistics import (
    LEVEL,
    Claim,
    claim,
    claim_of_figure,
    fewest_pairs,
    finite_mean,
    finite_or_none,
    finite_sd,
    holm,
    smallest_p,
)
from keras_dropout.bench.study.loading import trained_models
from keras_dropout.bench.study.planning import MOST_SEEDS, Plan
from keras_dropout.display import Shown
from keras_dropout.errors import check_whole, refuse

REPRODUCED, COMPATIBLE, NOT_REPRODUCED, UNDECIDED = "reproduced", "compatible", "not reproduced", "undecided"
VERDICTS = (REPRODUCED, COMPATIBLE, NOT_REPRODUCED, UNDECIDED)
MEASURED = "measured only"


@dataclass(frozen=True)
class Part:
    """One study of a reproduction.

    `model` builds and compiles the network, whose name is the study's name; or it is the name of a recipe, which also has the
    `data`. `variants` are compared with "none"; they are written as in `compare`, and may be names of ready-made variants. With
    `keep_models`, trained models are kept in the ledger for `Found.of_models`. `settings` are further settings of `compare`, such
    as {"samples": 50}.
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
    """An expectation about one number per seed.

    The mean over seeds should be above `above`, below `below`, or both; or the published `figure`, of one run or a few, could be
    one more run of ours. A figure that could be is reproduced only if the prediction interval reaches at most `tolerance` from our
    mean; with a wider one it is `compatible`, as much else would be. Without bounds and figure, the number is only measured.

    `value` returns the number of each seed, nan if there is none. `published` describes the published result in words.
    """

    says: str
    value: Callable[["Found"], np.ndarray]
    above: float | None = None
    below: float | None = None
    figure: float | None = None
    tolerance: float | None = None
    published: str = ""

    def __post_init__(self) -> None:
        if (self.figure is None) != (self.tolerance is None):
            raise ValueError(f"{self.says!r}: a figure needs a tolerance, and nothing else has one")
        if self.figure is not None and self.is_bounded:
            raise ValueError(f"{self.says!r}: an expectation has bounds or a figure")

    @property
    def is_bounded(self) -> bool:
        """Whether the expectation has a bound."""
        return self.above is not None or self.below is not None

    @property
    def is_measured_only(self) -> bool:
        """Whether the number is only measured and has no verdict."""
        return self.figure is None and not self.is_bounded


def difference(
    metric: str,
    one: str,
    other: str,
    published: str,
    *,
    part: str | None = None,
    above: float | None = 0.0,
    label: str = "",
) -> Expectation:
    """Return the expectation that a metric is larger with the variant `one` than with `other`; `label` are words for the metric."""
    label = label or metric.replace("_", " ") + ", dropout off" * (metric == "train_loss")
    return Expectation(
        f"{label}: {one} minus {other}",
        minus(metric, one, other, part),
        above=above,
        published=published,
    )


@dataclass(frozen=True)
class Reproduction:
    """A published claim and its test: parts by name, and expectations of their results; the first expectation is the claim itself.

    `parts` returns the studies, smaller ones if `quick`; it returns none if nothing is trained. `shows` are the metrics whose means
    are shown. `differs` says how this differs from the published experiment. `quick_seconds` is the approximate time of the quick
    version on two idle cores. `changed` says what was changed in the study after a first run.
    """

    name: str
    title: str
    claim: str
    source: str
    parts: Callable[[bool], Mapping[str, Part]]
    expectations: Sequence[Expectation]
    differs: str
    quick_seconds: int
    shows: Sequence[str] = ("test_loss", "test_accuracy", "train_loss")
    seeds: int = 12
    quick_seeds: int = 8
    changed: str = ""


@dataclass
class Found:
    """The results of a reproduction's parts. `seeds` are the seeds of all parts; `quick` says whether they are the smaller ones."""

    seeds: Sequence[int]
    quick: bool
    comparisons: Mapping[str, ShownComparison]
    plans: Mapping[str, Plan]
    measured: dict[tuple, dict[str, np.ndarray]] = field(default_factory=dict)

    def values(self, metric: str, variant: str = BASELINE, part: str | None = None) -> np.ndarray:
        """Return a metric of each seed's run, such as "test_loss" or "train_accuracy"; nan if there is none."""
        return self.comparisons[self._part(part)].values(variant, metric)

    def gap(self, variant: str = BASELINE, part: str | None = None) -> np.ndarray:
        """Return the test loss minus the train loss, both with dropout off."""
        return self.values("test_loss", variant, part) - self.values("train_loss", variant, part)

    def curves(self, metric: str, variant: str = BASELINE, part: str | None = None) -> np.ndarray:
        """Return a metric at each epoch, (seeds, epochs), such as "loss", the running mean in training with dropout on."""
        part = self._part(part)
        found = self.comparisons[part]
        results = map(found.results.get, self._keys(part, variant))
        rows = [each.curves.get(metric, []) if each and each.status == "done" else [] for each in results]
        return np.array([row if len(row) == found.study.epochs else [np.nan] * found.study.epochs for row in rows], dtype=float)

    def of_models(
        self, measure: Callable[[Any, Data], Mapping[str, float]], figure: str, variant: str = BASELINE, part: str | None = None
    ) -> np.ndarray:
        """Return one of the figures from `measure(model, data)` for each seed's trained model; nan if there is no model."""
        part = self._part(part)
        key = (part, variant, measure)
        if key not in self.measured:
            keys = self._keys(part, variant)
            found: dict[str, np.ndarray] = {}
            for run, model in trained_models(self.plans[part].ledger, keys):
                for name, value in measure(model, self.plans[part].data).items():
                    found.setdefault(name, np.full(len(self.seeds), np.nan))[keys.index(run)] = value
            self.measured[key] = found
        return self.measured[key].get(figure, np.full(len(self.seeds), np.nan))

    def _keys(self, part: str, variant: str) -> list[str]:
        """Return the key of each seed's run."""
        study = self.comparisons[part].study
        named = next(each for each in study.variants if each.name == variant)
        return [study.key(named, seed) for seed in self.seeds]

    def _part(self, part: str | None) -> str:
        if part is None and len(self.comparisons) != 1:
            raise ValueError(f"name one of the parts {', '.join(self.comparisons)}")
        return next(iter(self.comparisons)) if part is None else part


def minus(metric: str, variant: str, other: str, part: str | None = None) -> Callable[[Found], np.ndarray]:
    """Return the value of an expectation about the difference of two variants on a metric."""
    return lambda found: found.values(metric, variant, part) - found.values(metric, other, part)


@dataclass(frozen=True)
class Tried:
    """An expectation, its numbers, one per seed, and the claim about their mean."""

    expectation: Expectation
    values: np.ndarray
    claim: Claim

    @property
    def verdict(self) -> str:
        """The verdict on this expectation alone."""
        if self.expectation.is_measured_only:
            return MEASURED
        tolerance, interval = self.expectation.tolerance, self.claim.interval
        if self.claim.holds and tolerance is not None and interval is not None and interval[1] - interval[0] > 2 * tolerance:
            return COMPATIBLE
        return {True: REPRODUCED, False: NOT_REPRODUCED, None: UNDECIDED}[self.claim.holds]

    def document(self) -> dict[str, Any]:
        """Return everything as plain values."""
        said = {name: getattr(self.expectation, name) for name in ("says", "published", "above", "below", "figure", "tolerance")}
        return {
            **said,
            "measured": finite_or_none(self.claim.mean),
            "interval": self.claim.interval and list(self.claim.interval),
            "p": self.claim.p,
            "runs": [finite_or_none(value) for value in self.values],
            "verdict": self.verdict,
        }


def judge(expectation: Expectation, values: np.ndarray) -> Tried:
    """Test an expectation by its numbers, one per seed, nan where there is none."""
    numbers = values[np.isfinite(values)]
    if expectation.figure is not None:
        return Tried(expectation, values, claim_of_figure(numbers, expectation.figure))
    return Tried(expectation, values, claim(numbers, expectation.above, expectation.below))


def verdict_of(tried: Sequence[Tried]) -> str:
    """Return the verdict on a reproduction.

    `reproduced` if each expectation is shown, each at 5 % (an intersection-union test, which needs no adjustment: Berger 1982,
    Technometrics 24: 295-300); `compatible` if the others are figures that are compatible; `not reproduced` if the contrary of one
    is shown, at 5 % for all together (Holm); otherwise `undecided`.
    """
    judged = [each for each in tried if not each.expectation.is_measured_only]
    words = {each.verdict for each in judged}
    if words <= {REPRODUCED, COMPATIBLE}:
        return COMPATIBLE if COMPATIBLE in words else REPRODUCED
    against = holm([each.claim.p if each.claim.holds is False else 1.0 for each in judged])
    return NOT_REPRODUCED if min(against) <= LEVEL else UNDECIDED


def sentence_of(reproduction: Reproduction, tried: Sequence[Tried], seeds: int) -> str:
    """Return the verdict in a sentence, and what so few seeds cannot say."""
    judged, verdict = [each for each in tried if not each.expectation.is_measured_only], verdict_of(tried)
    number, counts = len(judged), {word: sum(each.verdict == word for each in judged) for word in VERDICTS}
    after = " after the study was changed" if reproduction.changed and verdict == REPRODUCED else ""
    said = f"{verdict.capitalize()}{after}: of {number} expectation{'s' if number > 1 else ''} {counts[REPRODUCED]} shown"
    for word, name in ((COMPATIBLE, COMPATIBLE), (NOT_REPRODUCED, "refuted"), (UNDECIDED, "open")):
        said += f", {counts[word]} {name}" if counts[word] else ""
    said += f", over {seeds} seed{'s' if seeds > 1 else ''}."
    enough, least = fewest_pairs(LEVEL / number), number * smallest_p(seeds)
    if seeds < fewest_pairs():
        said += f" {seeds} seeds cannot show anything: give --seeds {fewest_pairs()} or more."
    elif seeds < enough and any(each.expectation.is_bounded for each in judged):
        said += f" So few cannot refute a bound: p is at least {least:.2g} for {number} expectations together. {enough} seeds can."
    return said


@dataclass(repr=False)
class Outcome(Shown):
    """The outcome of a reproduction. Prints as tables; `document()` and `save_report(path)` give it as data and as a page."""

    reproduction: Reproduction
    found: Found
    command: str = ""
    wall_seconds: float = 0.0

    @cached_property
    def tried(self) -> list[Tried]:
        """Each expectation with its result. Each interval has a level of 95 % on its own."""
        return [judge(each, np.asarray(each.value(self.found), dtype=float)) for each in self.reproduction.expectations]

    @property
    def verdict(self) -> str:
        """The verdict on the reproduction: see `verdict_of`."""
        return verdict_of(self.tried)

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        return sentence_of(self.reproduction, self.tried, len(self.found.seeds))

    @property
    def failed(self) -> list[tuple[Any, str]]:
        """The runs that failed, with their errors."""
        return [each for comparison in self.found.comparisons.values() for each in comparison.failed]

    def figures(self) -> list[dict[str, Any]]:
        """Return the means over seeds of the shown metrics and of the figures of trained models."""
        rows = []
        for part, comparison in self.found.comparisons.items():
            for variant in (each.name for each in comparison.study.variants):
                shown = [name for name in self.reproduction.shows if name in comparison.metrics or name.startswith("train_")]
                values = {name: comparison.values(variant, name) for name in shown}
                for (of_part, of_variant, _), figures in self.found.measured.items():
                    values |= figures if (of_part, of_variant) == (part, variant) else {}
                rows += [
                    {
                        "part": part,
                        "variant": variant,
                        "metric": name,
                        "mean": finite_or_none(finite_mean(each)),
                        "sd": finite_or_none(finite_sd(each)),
                        "runs": [finite_or_none(value) for value in each],
                    }
                    for name, each in values.items()
                ]
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the document without its studies."""
        reproduction, first = self.reproduction, self.tried[0].document()
        expectations = [each.document() for each in self.tried]
        comparisons = self.found.comparisons.values()
        epochs = [comparison.timing.get("model_epochs") or 0 for comparison in comparisons]
        spent = [result.seconds for comparison in comparisons for result in comparison.results.values()]
        return {
            **{name: getattr(reproduction, name) for name in ("name", "title", "claim", "source", "differs", "changed")},
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
        """Return everything as plain values, as `--json` prints it."""
        studies = {part: comparison.document() for part, comparison in self.found.comparisons.items()}
        return self.summary() | {"command": self.command, "studies": studies}

    def save_report(self, path: str | Path) -> list[Path]:
        """Write a page for each part, the first at `path`, the others beside it; each begins with the verdict. Return the paths."""
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


@dataclass(frozen=True)
class Planned:
    """A checked reproduction with the plan of each part."""

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
    """Check everything and plan the parts. Raises `BadInput`.

    `report` is the path of the pages; `settings` are workers, on and checkpoint_every of `compare`.
    """
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
            assert part.data is not None  # only a recipe has its own data
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
    """Train the missing runs of each part and return the outcome. After an interrupt, finished runs stay in the ledger."""
    started = time.perf_counter()
    comparisons = {name: carry_out(plan, quiet=quiet, command=command) for name, plan in planned.plans.items()}
    found = Found(planned.seeds, planned.quick, comparisons, planned.plans)
    outcome = Outcome(planned.reproduction, found, command)
    assert outcome.tried  # measures trained models, which takes time too
    return dataclasses.replace(outcome, wall_seconds=time.perf_counter() - started)
