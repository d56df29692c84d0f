"""Results of a study: its runs, paired by seed -> differences, verdicts, documents. Trains nothing, loads no framework."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout import schedules
from keras_dropout.bench import statistics
from keras_dropout.bench.metric_names import higher_is_better, is_monte_carlo, is_sampled, plain_metric
from keras_dropout.bench.records import Result, Run, Study, Variant
from keras_dropout.bench.statistics import (
    LEVEL,
    Difference,
    compare_paired,
    finite_mean,
    finite_or_none,
    finite_sd,
    mean_interval,
    smallest_p,
)
from keras_dropout.errors import check_choice, refuse

IDENTICAL = "identical"  # the verdict if two variants trained the same model


@dataclass(repr=False)
class Comparison:
    """The results of a study as data: `verdicts`, `differences(metric)`, `to_frame()`, `document()`.

    `compare` returns a `bench.report.shown_comparison.ShownComparison`, which also prints and writes its page.

    `max_seeds` is set if seeds were added until there were verdicts. `margin` is the smallest difference in test loss that matters.
    `ledger` is the file with the runs, and `number` the study's number there. `made` says when, with which versions and on which
    machine the study was requested, if not here and now. `more` has the documents of the study's network, and of the search or
    sweep that it belongs to.
    """

    study: Study
    results: dict[str, Result] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    engine_reason: str = ""
    notes: Sequence[str] = ()
    max_seeds: int | None = None
    margin: float | None = None
    ledger: Path | None = None
    number: int | None = None
    made: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The metrics measured on test data, the loss first."""
        names = {name for result in self.results.values() for name in result.metrics if name.startswith("test_")}
        return sorted(names, key=lambda name: (name != "test_loss", name))

    @property
    def sampled_metrics(self) -> list[str]:
        """The metrics that a study has only with samples."""
        return [name for name in self.metrics if is_sampled(name)] if self.study.samples is not None else []

    @property
    def own_metrics(self) -> list[str]:
        """The metrics that a study also has without samples."""
        return [name for name in self.metrics if name not in self.sampled_metrics]

    @property
    def failed(self) -> list[tuple[Run, str]]:
        """The runs that failed, with their errors."""
        return [(run, self.results[run.key].error or "") for run in self.study.runs() if self._status(run) == "failed"]

    @property
    def diverged(self) -> list[str]:
        """The variants with a run that diverged although the baseline's did not; no metric can show that they are worse."""
        status = {(run.variant.name, run.seed): self._status(run) for run in self.study.runs()}
        fell = {
            name for (name, seed), ended in status.items() if ended == "diverged" and status[self.study.baseline, seed] == "done"
        }
        return [variant.name for variant in self.study.variants if variant.name in fell]

    @property
    def missing(self) -> int:
        """Number of runs without a result yet."""
        return sum(run.key not in self.results for run in self.study.runs())

    @property
    def verdicts(self) -> dict[str, dict[str, str]]:
        """Verdicts against the baseline: variant -> metric -> verdict.

        A verdict is `better`, `worse` or `no difference shown`; with a margin also `same within the margin`, `better, but within
        the margin` and `worse, but within the margin`; `identical` if no figure differs.
        """
        found: dict[str, dict[str, str]] = {}
        for metric in self.metrics:
            for name, difference in self.differences(metric).items():
                found.setdefault(name, {})[metric] = difference.verdict
        return found

    def values(self, variant: Variant | str, metric: str) -> np.ndarray:
        """Return one number per seed; nan if there is none."""
        if isinstance(variant, str):
            variant = next(each for each in self.study.variants if each.name == variant)
        keys = (self.study.key(variant, seed) for seed in self.study.seeds)
        return np.array([self.results[k].metrics.get(metric, np.nan) if k in self.results else np.nan for k in keys])

    def differences(self, metric: str, baseline: str | None = None) -> dict[str, Difference]:
        """Return each variant's paired difference to `baseline` (by default the study's own) on a metric."""
        baseline = baseline or self.study.baseline
        by_name = {variant.name: self.values(variant, metric) for variant in self.study.variants}
        check_choice("baseline", baseline, tuple(by_name))
        rest = {name: values - by_name[baseline] for name, values in by_name.items() if name != baseline}
        higher = higher_is_better(metric)
        found = compare_paired(rest, higher, self.margin if metric == "test_loss" else None)
        same = self.identical if baseline == self.study.baseline else {}
        found = {name: dataclasses.replace(each, verdict=IDENTICAL) if name in same else each for name, each in found.items()}
        if self.max_seeds is None:
            return found
        words = {name: self._sequential_verdict(rest[name], higher) or "no difference shown" for name in found}
        return {
            name: each
            if name in same
            else dataclasses.replace(each, verdict=statistics.verdict_with_margin(words[name], each.equivalence))
            for name, each in found.items()
        }

    @property
    def identical(self) -> dict[str, str]:
        """The variants whose figures equal the baseline's exactly in every pair, each with the reason."""
        metrics = {name for result in self.results.values() for name in result.metrics}
        variants = {variant.name: variant for variant in self.study.variants}
        found = {}
        for name in self.others:
            pairs = [self.values(name, metric) - self.values(self.study.baseline, metric) for metric in metrics]
            known = [each[np.isfinite(each)] for each in pairs]
            if any(len(each) for each in known) and not any(each.any() for each in known):
                found[name] = _why_identical(variants[name], variants[self.study.baseline])
        return found

    def monte_carlo(self) -> list[dict[str, Any]]:
        """Return how Monte-Carlo predictions change the metrics of each variant with dropout.

        Each row has the mean difference to the variant's own plain predictions, paired by seed, and its 95 % interval over seeds.
        """
        found = []
        for variant in self.study.variants:
            for metric in self._of_samples if self.is_sampled(variant) else ():
                pairs = self.values(variant, metric) - self.values(variant, plain_metric(metric))
                pairs = pairs[np.isfinite(pairs)]
                interval = mean_interval(pairs)
                row = {"variant": variant.name, "metric": plain_metric(metric), "difference": finite_or_none(finite_mean(pairs))}
                found.append(row | {"interval": interval and list(interval), "pairs": len(pairs)})
        return found

    @property
    def _of_samples(self) -> list[str]:
        """The Monte-Carlo metrics whose plain metric exists too."""
        return [name for name in self.sampled_metrics if is_monte_carlo(name) and plain_metric(name) in self.metrics]

    def is_sampled(self, variant: Variant) -> bool:
        """Return whether the Monte-Carlo figures of a variant differ from the plain ones; without dropout they do not."""
        pairs = [(name, plain_metric(name)) for name in self._of_samples if plain_metric(name) in self.sampled_metrics]
        return any((np.abs(self.values(variant, name) - self.values(variant, plain)) > 0).any() for name, plain in pairs)

    @property
    def repeated(self) -> list[str]:
        """The metrics that repeat the test loss: the NLL, if the loss is the crossentropy and examples have no weights."""
        loss, nll = (np.array([self.values(v, name) for v in self.study.variants]) for name in ("test_loss", "test_nll"))
        same = "test_nll" in self.sampled_metrics and np.allclose(loss, nll, rtol=1e-4, equal_nan=True)
        return ["test_nll"] if same else []

    @property
    def undecided(self) -> list[str]:
        """The variants whose test loss has no verdict yet while seeds are added, without variants that have no pair."""
        if self.max_seeds is None:
            return []
        same = self.identical
        pairs = {name: self.values(name, "test_loss") - self.values(self.study.baseline, "test_loss") for name in self.others}
        return [
            name
            for name, values in pairs.items()
            if name not in same and np.isfinite(values).any() and self._sequential_verdict(values, higher_is_better=False) is None
        ]

    def _sequential_verdict(self, differences: np.ndarray, higher_is_better: bool) -> str | None:
        """Return the verdict while seeds are added; by Bonferroni, each variant gets an equal share of the level."""
        assert self.max_seeds is not None
        towards_better = differences if higher_is_better else -differences
        return statistics.sequential_verdict(towards_better, max_pairs=self.max_seeds, alpha=LEVEL / len(self.others))

    def figures(self, metric: str) -> dict[str, dict[str, Any]]:
        """Return further figures beside the verdicts, by variant: the other fields of "comparisons" in `document`."""
        base = self.values(self.study.baseline, metric)
        found: dict[str, dict[str, Any]] = {}
        higher = higher_is_better(metric)
        for name, difference in self.differences(metric).items():
            values = self.values(name, metric)
            pairs = (values - base)[np.isfinite(values - base)]
            sd, gain = finite_sd(pairs), statistics.pairing_gain(values, base)
            wanted = abs(difference.mean) if difference.equivalence is None else difference.equivalence.margin
            losses = self._loss_differences(name) if metric == "test_loss" else None
            interval = None if losses is None else statistics.crossed_interval(losses)
            found[name] = {
                "effect_size": statistics.effect_size(pairs),
                "share_better": float(np.mean(pairs > 0 if higher else pairs < 0)) if len(pairs) else None,
                "wilcoxon_p": statistics.wilcoxon_p(pairs),
                "interval_new_examples": interval and list(interval),
                "detectable_difference": None if np.isnan(sd) else statistics.detectable_difference(sd, len(pairs)),
                "pairs_needed": None if np.isnan(sd) else statistics.pairs_needed(sd, wanted),
                "pairing_gain": gain,
                "unpaired_seeds": None if gain is None else max(1, round(gain * len(pairs))),
                "equivalence": difference.equivalence and dataclasses.asdict(difference.equivalence),
            }
        adjusted = statistics.holm([each["wilcoxon_p"] for each in found.values()])
        for each, p in zip(found.values(), adjusted):
            each["wilcoxon_p_adjusted"] = p
        return found

    def with_each_example(self, keys: Collection[str]) -> Mapping[str, Result]:
        """Return results that include these runs, with the known data of each test example."""
        return self.results

    def of_each_example(self, names: Sequence[str]) -> dict[str, list[Result | None]]:
        """Return the results of these variants with their data of each test example, one per seed; None if a run is not done."""
        variants = {variant.name: variant for variant in self.study.variants}
        keys = {name: [self.study.key(variants[name], seed) for seed in self.study.seeds] for name in names}
        results = self.with_each_example([key for each in keys.values() for key in each])
        done = {key: result for key, result in results.items() if result.status == "done"}
        return {name: [done.get(key) for key in each] for name, each in keys.items()}

    def _loss_differences(self, name: str) -> np.ndarray | None:
        """Return the differences in the loss of each test example, (pairs, examples), for seeds with both runs."""
        found = self.of_each_example((name, self.study.baseline))
        losses = [[None if run is None else run.test_losses for run in runs] for runs in found.values()]
        rows = [one.astype(float) - base for one, base in zip(*losses) if one is not None and base is not None]
        return np.array(rows) if rows else None

    def document(self) -> dict[str, Any]:
        """Return everything as plain values, as `--json` prints it. Numbers that do not exist are None."""
        study = self.study
        names = sorted({name for result in self.results.values() for name in result.metrics})
        comparisons = []
        for metric in self.metrics:
            figures = self.figures(metric)
            comparisons += [row | figures[row["variant"]] for row in self.rows(metric)]
        return {
            "study": {
                "target": study.target,
                "data": vars(study.data) | {"split": study.split, "notes": list(self.notes)},
                "backend": study.backend,
                "engine": study.engine,
                "engine_reason": self.engine_reason,
                "epochs": study.epochs,
                "batch_size": study.batch_size,
                "optimizer": study.compiled["optimizer"],
                "class_weight": study.class_weight,
                "early_stopping": study.early_stopping,
                "samples": study.samples,
                "from_weights": study.weights_hash,
                "seeds": list(study.seeds),
                "baseline": study.baseline,
                "max_seeds": self.max_seeds,
                "margin": self.margin,
            },
            "variants": [
                {
                    "name": variant.name,
                    "placement": variant.placement,
                    "schedule": _schedule(variant),
                    "runs": [self._run_document(variant, seed, names) for seed in study.seeds],
                    "mean": {name: finite_or_none(finite_mean(self.values(variant, name))) for name in names},
                    "sd": {name: finite_or_none(finite_sd(self.values(variant, name))) for name in names},
                }
                for variant in study.variants
            ],
            "comparisons": comparisons,
            **({} if study.samples is None else {"monte_carlo": self.monte_carlo()}),
            "warnings": self.warnings(),
            "timing": self.timing,
        }

    def warnings(self) -> list[str]:
        """Return warnings that a reader needs before trusting the table."""
        study, pairs = self.study, len(self.study.seeds)
        found = [
            f"{name}: every figure of every run is exactly that of {study.baseline}, so nothing was compared: {why}."
            for name, why in self.identical.items()
        ]
        if study.split == "as-published":
            found.append(
                f"The {study.data.validation} validation examples are also trained on (split as-published): "
                "validation figures are training figures in disguise."
            )
        if study.weights_hash is not None:
            found.append(
                "Every run starts from the same given weights: seeds vary the order of the batches and the masks only, "
                "not the initial weights, and say nothing about other pretrained weights."
            )
        if self.max_seeds is not None:
            found.append(
                f"Seeds were added until there were verdicts: {pairs} of at most {self.max_seeds}. The verdicts allow for that. "
                "The p-values and intervals do not: they are those of a number of seeds fixed before."
            )
        if smallest_p(pairs) > 0.05:
            found.append(
                f"{pairs} seed(s) cannot show a difference: the smallest possible p is {smallest_p(pairs):.3g}. Use 6 or more."
            )
        counts = {status: sum(self._status(run) == status for run in study.runs()) for status in ("diverged", "failed")}
        found += [f"{count} run(s) {status}; their pairs are left out." for status, count in counts.items() if count]
        if self.missing:
            found.append(f"{self.missing} run(s) are not finished yet.")
        return found

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per run."""
        try:
            import pandas
        except ImportError:
            refuse("to_frame() needs pandas, which is not installed.", "pip install 'keras-dropout[tables]'")
        names = sorted({name for result in self.results.values() for name in result.metrics})
        return pandas.DataFrame(
            {"variant": variant.name, **self._run_document(variant, seed, names)}
            for variant in self.study.variants
            for seed in self.study.seeds
        )

    def rows(self, metric: str) -> list[dict[str, Any]]:
        """Return the differences to the baseline as plain values, a row for each variant."""
        return [
            {
                "variant": name,
                "baseline": self.study.baseline,
                "metric": metric,
                "difference": finite_or_none(found.mean),
                "interval": found.interval and list(found.interval),
                "p": found.p,
                "p_adjusted": found.p_adjusted,
                "pairs": found.pairs,
                "verdict": found.verdict,
            }
            for name, found in self.differences(metric).items()
        ]

    def pairs(self, metric: str) -> dict[str, list[float | None]]:
        """Return the difference to the baseline for each seed, by variant."""
        base = self.values(self.study.baseline, metric)
        return {name: [finite_or_none(value) for value in self.values(name, metric) - base] for name in self.others}

    @property
    def others(self) -> list[str]:
        """The names of the variants that are compared with the baseline."""
        return [variant.name for variant in self.study.variants if variant.name != self.study.baseline]

    def _status(self, run: Run) -> str | None:
        return self.results[run.key].status if run.key in self.results else None

    def _run_document(self, variant: Variant, seed: int, names: Sequence[str]) -> dict[str, Any]:
        key = self.study.key(variant, seed)
        result = self.results.get(key)
        return {
            "key": key,
            "seed": seed,
            "status": result.status if result else "missing",
            **{name: finite_or_none(result.metrics.get(name)) if result else None for name in names},
            "seconds": result.seconds if result else None,
            "epochs": result.epochs if result else None,
            **({"best_epoch": result.best_epoch if result else None} if self.study.early_stopping else {}),
            **({"error": result.error} if result and result.error else {}),
        }


def _why_identical(variant: Variant, baseline: Variant) -> str:
    """Say why a variant's runs have exactly the same figures as the baseline's."""
    placement = variant.placement
    if placement == baseline.placement:
        return "both place the same"
    if placement and all(spec.get("rate") == 0 for spec in placement.values()):
        return "a rate of 0 drops nothing"
    if not placement and not baseline.placement:
        return "the model is built without dropout that acts"
    return "the dropout that was asked for changed nothing"


def _schedule(variant: Variant) -> dict[str, str] | None:
    """Return the text form of each schedule by site, or None if all rates are constant."""
    specs = (variant.placement or {}).items()
    found = {site: str(schedules.from_document(spec["schedule"])) for site, spec in specs if "schedule" in spec}
    return found or None
