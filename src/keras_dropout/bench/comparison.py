"""Results of a study: its runs, paired by seed -> differences, verdicts, documents. Trains nothing, loads no framework."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_dropout import schedules
from keras_dropout.bench import looking, power, statistics
from keras_dropout.bench.ledger.looks import Asked, Look
from keras_dropout.bench.metric_names import higher_is_better, is_accuracy, is_compared, is_monte_carlo, is_sampled, plain_metric
from keras_dropout.bench.racing import Race, race
from keras_dropout.bench.records import FunctionStudy, Result, Run, Scores, Study, Variant
from keras_dropout.bench.statistics import (
    Difference,
    Row,
    compare_family,
    finite_mean,
    finite_or_none,
    finite_sd,
    mean_interval,
    smallest_p,
)
from keras_dropout.bench.variance import variance_parts
from keras_dropout.errors import check_choice, refuse

IDENTICAL = "identical"  # the verdict if two variants trained the same model


@dataclass(repr=False)
class Comparison:
    """The results of a study as data: `verdicts`, `differences(metric)`, `to_frame()`, `document()`.

    `compare` returns a `bench.report.shown_comparison.ShownComparison`, which also prints and writes its page.

    `max_seeds` is set if seeds were added until there were verdicts. `primary` is the metric that was named to lead. `margin` is
    the smallest difference that matters in it, without `primary` in the test loss, and `power` one that the study should show.
    `ledger` is the file with the runs, and `number` the study's number there. `made` says when, with which versions and on which
    machine the study was requested, if not here and now. `more` has the documents of the study's network, of the search or sweep
    that it belongs to, and of other worlds.
    """

    study: Study
    results: dict[str, Result] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    engine_reason: str = ""
    notes: Sequence[str] = ()
    max_seeds: int | None = None
    margin: float | None = None
    primary: str | None = None
    power: float | None = None
    ledger: Path | None = None
    number: int | None = None
    made: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    _compared: dict[str, tuple[Any, Any]] = field(default_factory=dict, init=False, compare=False)

    @property
    def metrics(self) -> list[str]:
        """The metrics measured on test data, the loss first; of scores of one's own all, in the order of the table.

        Of a training function, all that it returned except those of training and validation, in its order.
        """
        if isinstance(self.study, Scores):
            return list(self.study.metrics)
        if isinstance(self.study, FunctionStudy):
            ordered = (self.results[run.key] for run in self.study.runs() if run.key in self.results)
            returned = dict.fromkeys(name for result in ordered for name in result.metrics if is_compared(name))
            return sorted(returned, key=lambda name: name != "test_loss")
        names = {name for result in self.results.values() for name in result.metrics if name.startswith("test_")}
        return sorted(names, key=lambda name: (name != "test_loss", name))

    def higher_is_better(self, metric: str) -> bool:
        """Return whether a higher value of a metric is better."""
        if isinstance(self.study, FunctionStudy):
            return self.study.direction(metric) is True
        return metric in self.study.rising if isinstance(self.study, Scores) else higher_is_better(metric)

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
    def deciding(self) -> str:
        """The metric that leads the sentence, the power figures and the margin: `primary`, or the test loss.

        Of scores of one's own and of a training function, it is the first metric.
        """
        own = self.metrics if isinstance(self.study, Scores | FunctionStudy) else []
        return self.primary or (own[0] if own else "test_loss")

    @property
    def diverged(self) -> list[str]:
        """The variants with a run that diverged although the baseline's did not."""
        base = self._ended(self.study.baseline)
        alone = {name: zip(self._ended(name), base) for name in self.others}
        return [name for name, pairs in alone.items() if any(pair == ("diverged", "done") for pair in pairs)]

    @property
    def asked(self) -> Asked:
        """The earlier looks at the question of this study, and the placements judged on its test part, as far as they are known."""
        return Asked()

    @property
    def looks(self) -> list[Look]:
        """The earlier looks that could give a verdict."""
        return [look for look in self.asked.looks if len(look.seeds) >= statistics.fewest_pairs()]

    def chance_of_looks(self) -> float | None:
        """Return the chance that these looks and this one give any verdict if nothing differs; None without an earlier look."""
        if not self.looks:
            return None
        looks = [(each.seeds, each.placements, each.max_seeds) for each in self.looks]
        return looking.chance_of_a_false_verdict((*looks, (tuple(self.study.seeds), self.asked.placements, self.max_seeds)))

    def harmful(self) -> list[tuple[str, str]]:
        """Return each variant that is worse, by more than a margin, with the metric; and each that diverged, with "diverged".

        With a primary metric only this metric counts.
        """
        metrics = [metric for metric in self.metrics if self.primary in (None, metric)]
        words = [(name, metric, by_metric[metric]) for name, by_metric in self.verdicts.items() for metric in metrics]
        worse = [
            (name, metric) for name, metric, word in words if word.startswith("worse") and not word.endswith("within the margin")
        ]
        return worse + [(name, "diverged") for name in self.diverged]

    @property
    def unfinished_curves(self) -> list[str]:
        """The variants whose validation loss still falls at the last epoch: see `statistics.still_falls`.

        None with early stopping, which ends a run when its loss no longer falls, with the split "as-published", whose validation
        loss is a training loss, and of scores of one's own.
        """
        if isinstance(self.study, Scores) or self.study.split != "held-out":
            return []
        found = []
        for variant in (each for each in self.study.variants if not self.study.of(each).early_stopping):
            results = self._results(variant)
            curves = [each.curves.get("validation_loss", ()) for each in results if each is not None and each.status == "done"]
            whole = [curve for curve in curves if len(curve) == self.study.epochs]
            if whole and statistics.still_falls(np.array(whole)):
                found.append(variant.name)
        return found

    @property
    def missing(self) -> int:
        """Number of runs without a result yet."""
        return sum(run.key not in self.results for run in self.study.runs())

    @property
    def verdicts(self) -> dict[str, dict[str, str]]:
        """Verdicts against the baseline: variant -> metric -> verdict.

        A verdict is `better`, `worse` or `no difference shown`. `in most runs` or `on average` follows the first two if runs
        contradict, and `, but within the margin` if that is shown; see `statistics.qualified` and `verdict_with_margin`. With a
        margin it may be `same within the margin`; `identical` if no figure differs.
        """
        found: dict[str, dict[str, str]] = {}
        for metric in self.metrics:
            for name, difference in self.differences(metric).items():
                found.setdefault(name, {})[metric] = difference.verdict
        return found

    def values(self, variant: Variant | str, metric: str) -> np.ndarray:
        """Return one number per seed; nan if there is none."""
        return np.array([np.nan if result is None else result.metrics.get(metric, np.nan) for result in self._results(variant)])

    def outcomes(self, variant: Variant | str, metric: str) -> np.ndarray:
        """Return one number per seed: infinite, the worst of all, if the run diverged; nan if there is none."""
        worst = -np.inf if self.higher_is_better(metric) else np.inf
        return np.where([ended == "diverged" for ended in self._ended(variant)], worst, self.values(variant, metric))

    def differences(self, metric: str, baseline: str | None = None) -> dict[str, Difference]:
        """Return each variant's paired difference to `baseline` (by default the study's own) on a metric.

        All variants and metrics are one family, in which the chance of any false verdict is 5 %. With a primary metric there are
        two such families: that metric, and all others. A metric that repeats the test loss counts once. If seeds are added until
        there are verdicts, the same holds for all looks together.
        """
        baseline = baseline or self.study.baseline
        check_choice("baseline", baseline, tuple(variant.name for variant in self.study.variants))
        families = self._families(baseline)
        rows = {key: row for family in families for key, row in family.items()}
        # Results, margin and the other settings may change, so the families are compared again if one of them has.
        known = (
            [(key, row.differences.tobytes(), row.margin) for key, row in rows.items()],
            self.primary,
            self.max_seeds,
            len(self.results),
        )
        if self._compared.get(baseline, (None,))[0] != known:
            self._compared[baseline] = known, self._compare(families, baseline)
        found = {name: difference for (each, name), difference in self._compared[baseline][1].items() if each == metric}
        same = self.identical if baseline == self.study.baseline else {}
        return {name: dataclasses.replace(each, verdict=IDENTICAL) if name in same else each for name, each in found.items()}

    def _families(self, baseline: str) -> list[dict[tuple[str, str], Row]]:
        """Return the rows of all metrics and variants, in the families that `differences` describes, the leading one first."""
        leading = self._once(self.deciding)
        rows = {
            (metric, name): row
            for metric in self.metrics
            if metric not in self.repeated
            for name, row in self._rows(metric, baseline).items()
        }
        if self.primary is None:
            return [rows]
        return [{key: row for key, row in rows.items() if (key[0] == leading) == first} for first in (True, False)]

    def _compare(self, families: Sequence[Mapping[tuple[str, str], Row]], baseline: str) -> dict[tuple[str, str], Difference]:
        """Compare the rows of families. In a race the leading family says where a variant stops, in all of them."""
        raced = self._race(families[0], baseline) if self.max_seeds is not None else None
        found: dict[tuple[str, str], Difference] = {}
        for family in families:
            if raced is None:
                found |= compare_family(family)
            elif family:
                words = raced.words if family is families[0] else self._race(family, baseline, raced.stops).words
                found |= compare_family(family, words, {key for key in family if raced.stops[key[1]] == self.max_seeds})
        for metric in self.repeated:
            for name, row in self._rows(metric, baseline).items():
                finite = row.differences[np.isfinite(row.differences)]
                found[metric, name] = dataclasses.replace(
                    found[self._once(metric), name],
                    mean=finite_mean(finite),
                    interval=mean_interval(finite, self.overlap),
                    equivalence=None,
                )
        return found

    def _rows(self, metric: str, baseline: str) -> dict[str, Row]:
        """Return the paired differences to a baseline on a metric, by variant."""
        base, step, higher = self.outcomes(baseline, metric), self._step(metric), self.higher_is_better(metric)
        margin = self.margin if metric == self._once(self.deciding) else None
        found = {}
        for name in (variant.name for variant in self.study.variants if variant.name != baseline):
            values = self.outcomes(name, metric)
            with np.errstate(invalid="ignore"):  # both diverged
                found[name] = Row(values - base, higher, statistics.resolution(values, base, step), margin, self.overlap)
        return found

    def _once(self, metric: str) -> str:
        """Return the metric that a metric repeats, or the metric itself."""
        return "test_loss" if metric in self.repeated else metric

    def _step(self, metric: str) -> np.ndarray | float:
        """Return the share of one test example, for each seed, if the metric is an accuracy in such shares, else 0."""
        examples = np.array([self.study.data_of(seed).test for seed in self.study.seeds])
        if not is_accuracy(metric) or not 0 < examples.min() <= examples.max() < 100_000:  # float32 does not resolve more
            return 0.0
        right = np.array([self.values(variant, metric) for variant in self.study.variants]) * examples
        off = np.abs(right - np.round(right)) > 1e-3 + 1e-6 * examples
        return 0.0 if off[np.isfinite(right)].any() else 1 / examples

    @property
    def overlap(self) -> float:
        """Test examples per training example, if each seed divides the data anew, else 0: see `statistics.overlapping_p`."""
        if self.study.divisions is None:
            return 0.0
        return float(np.mean([each.test / each.train for each in map(self.study.data_of, self.study.seeds)]))

    def family_size(self, metric: str) -> int:
        """Return the number of differences that are tested together with those on a metric: see `differences`."""
        metrics, leading = set(self.metrics) - set(self.repeated), self._once(self.deciding)
        if self.primary is not None:
            metrics = metrics & {leading} if self._once(metric) == leading else metrics - {leading}
        return len(self.others) * len(metrics)

    @property
    def identical(self) -> dict[str, str]:
        """The variants whose figures equal the baseline's exactly in every pair, each with the reason."""
        metrics = {name for result in self.results.values() for name in result.metrics}
        variants = {variant.name: variant for variant in self.study.variants}
        found = {}
        for name in self.others:
            with np.errstate(invalid="ignore"):  # both diverged
                pairs = [self.outcomes(name, metric) - self.outcomes(self.study.baseline, metric) for metric in metrics]
            known = [each[~np.isnan(each)] for each in pairs]
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
                interval = mean_interval(pairs, self.overlap)
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
    def race(self) -> Race | None:
        """Where the race stands in which seeds are added; None for a number of seeds, and before anything is known."""
        if self.max_seeds is None or self._once(self.deciding) not in self.metrics or not self.others:
            return None
        return self._race(self._families(self.study.baseline)[0], self.study.baseline)

    def _race(self, rows: Mapping[tuple[str, str], Row], baseline: str, stops: Mapping[str, int] | None = None) -> Race:
        assert self.max_seeds is not None
        ended = {
            name: np.array([status is not None for status in self._ended(name)]) for name in (baseline, *self._beside(baseline))
        }
        known = {name: each & ended[baseline] for name, each in ended.items()}
        return race(rows, self._once(self.deciding), known, self.max_seeds, stops)

    def raced(self) -> dict[str, dict[str, Any]]:
        """Return for each variant in a race how many seeds it was judged by, and why it got no more; "" while it is racing."""
        found = self.race
        if found is None:
            return {}
        return {name: {"seeds": found.stops[name], "stopped": reason or ""} for name, reason in found.reasons.items()}

    def in_race(self) -> Self:
        """Return this comparison over the seeds that a race gives each variant; itself for a number of seeds."""
        if (found := self.race) is None or not found.looked:
            return self
        study = self.study.with_counts(found.stops)
        return self if study.counts == self.study.counts else dataclasses.replace(self, study=study)

    def figures(self, metric: str) -> dict[str, dict[str, Any]]:
        """Return further figures beside the verdicts, by variant: the other fields of "comparisons" in `document`."""
        base, rows = self.values(self.study.baseline, metric), self._rows(metric, self.study.baseline)
        found: dict[str, dict[str, Any]] = {}
        rows_tested = self.family_size(metric)
        for name, difference in self.differences(metric).items():
            values = self.values(name, metric)
            pairs = (values - base)[np.isfinite(values - base)]
            gain, gains = statistics.pairing_gain(values, base), statistics.pairing_gain_interval(values, base)
            wanted = self._wanted(metric, difference)
            losses = self._loss_differences(name) if metric == "test_loss" else []
            common = np.array(losses) if losses and self.study.divisions is None else None  # the same examples in each run
            interval = None if common is None else statistics.crossed_interval(common)
            found[name] = {
                "effect_size": statistics.effect_size(pairs),
                **self._by_seed(name, rows[name]),
                "interval_new_examples": interval and list(interval),
                "wanted_difference": finite_or_none(wanted),
                **_seeds_needed(pairs, wanted, rows_tested, self.overlap),
                "pairing_gain": gain,
                "pairing_gain_interval": gains and list(gains),
                "unpaired_seeds": None if gain is None else max(1, round(gain * len(pairs))),
                "equivalence": difference.equivalence and dataclasses.asdict(difference.equivalence),
                **({} if self.study.divisions is None else self._of_divisions(name, metric, pairs, difference, losses)),
            }
        anytime = self._anytime() if metric == self._once(self.deciding) else dict.fromkeys(found, (None, None))
        adjusted = statistics.holm([each["wilcoxon_p"] for each in found.values()])
        for (name, each), p in zip(found.items(), adjusted):
            each["wilcoxon_p_adjusted"] = p
            each["anytime_p"], each["anytime_p_adjusted"] = anytime[name]
        return found

    def _anytime(self) -> dict[str, tuple[float, float]]:
        """Return p on the deciding metric that holds however often one looks, by variant: alone, and adjusted for all (Holm)."""
        rows = self._rows(self._once(self.deciding), self.study.baseline)
        p = [looking.anytime_p(statistics.without_ties(row.differences, row.resolution)) for row in rows.values()]
        return dict(zip(rows, zip(p, statistics.holm(p))))

    def _of_divisions(
        self, name: str, metric: str, pairs: np.ndarray, difference: Difference, losses: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """Return the figures of a study whose data are divided anew for each seed; the parts of the variance only of the loss."""
        interval = mean_interval(pairs)
        facts = self.study.data_of(self.study.seeds[0])
        examples = [facts.train + facts.validation + facts.test] * len(losses)
        parts = variance_parts(pairs, losses, examples, self._with_fixed_division(name, metric)) if losses else None
        if parts and self.study.fixed_key(self._variant(name), self.study.seeds[0]) is None:
            parts = dataclasses.replace(parts, fixed_seeds=None)
        return {
            "interval_without_overlap": interval and list(interval),
            "p_overlap": difference.p_overlap,
            "detectable_floor": power.detectable_floor(finite_sd(pairs), self.overlap, self.family_size(metric))
            if len(pairs) > 1
            else None,
            "variance": parts and dataclasses.asdict(parts),
        }

    def _with_fixed_division(self, name: str, metric: str) -> np.ndarray:
        """Return the differences to the baseline of the runs with the data divided once, as far as they are known."""
        study, names = self.study, (name, self.study.baseline)
        keys = {each: [study.fixed_key(self._variant(each), seed) or "" for seed in study.seeds] for each in names}
        known = self.with_fixed_division([key for each in keys.values() for key in each])
        ours, base = (
            np.array([known[key].metrics.get(metric, np.nan) if key in known else np.nan for key in keys[n]]) for n in names
        )
        return ours - base

    def with_fixed_division(self, keys: Collection[str]) -> Mapping[str, Result]:
        """Return the known results among these runs of the same study with the data divided once."""
        return self.results

    def _by_seed(self, name: str, row: Row) -> dict[str, Any]:
        """Return the figures that count all seeds, also those of which a run diverged."""
        seeds = self.divergence(name)["seeds"]
        pairs = statistics.without_ties(row.differences, row.resolution)
        towards = pairs if row.higher_is_better else -pairs
        mean = finite_mean(statistics.counted(row.differences, row.resolution)) * (1 if row.higher_is_better else -1)
        contrary = statistics.opposing(towards if mean > 0 else -towards)
        return {
            "resolution": statistics.mean_resolution(row),
            "share_better": float(np.sum(towards > 0)) / seeds if seeds else None,
            "share_worse": float(np.sum(towards < 0)) / seeds if seeds else None,
            "wilcoxon_p": statistics.wilcoxon_p(pairs[~np.isnan(pairs)]),
            "contrary": None
            if contrary is None
            else {"seed": self.study.seeds[contrary], "difference": finite_or_none(row.differences[contrary])},
        }

    def _wanted(self, metric: str, difference: Difference) -> float:
        """Return the difference that `pairs_needed` is for: the one asked for, else the margin, else the one seen."""
        if self.power is not None and metric == self._once(self.deciding):
            return self.power
        return abs(difference.mean) if difference.equivalence is None else difference.equivalence.margin

    def with_each_example(self, keys: Collection[str]) -> Mapping[str, Result]:
        """Return results that include these runs, with the known data of each test example."""
        return self.results

    def of_each_example(self, names: Sequence[str]) -> dict[str, list[Result | None]]:
        """Return the results of these variants with their data of each test example, one per seed; None if a run is not done."""
        variants = {variant.name: variant for variant in self.study.variants}
        keys = {name: [self.study.key(variants[name], seed) for seed in self.study.seeds_of(variants[name])] for name in names}
        results = self.with_each_example([key for each in keys.values() for key in each])
        done = {key: result for key, result in results.items() if result.status == "done"}
        most = len(self.study.seeds)
        return {name: [*(done.get(key) for key in each), *[None] * (most - len(each))] for name, each in keys.items()}

    def _loss_differences(self, name: str) -> list[np.ndarray]:
        """Return the differences in the loss of each test example, for each seed with both runs."""
        runs_of = self.of_each_example((name, self.study.baseline))
        losses = [[None if run is None else run.test_losses for run in runs] for runs in runs_of.values()]
        found = [(one, base) for one, base in zip(*losses) if one is not None and base is not None]
        if isinstance(self.study, FunctionStudy) and len({len(each) for pair in found for each in pair}) > 1:
            return []  # a function may return the losses of other examples in each run
        return [one.astype(float) - base for one, base in found]

    def document(self) -> dict[str, Any]:
        """Return everything as plain values, as `--json` prints it. Numbers that do not exist are None."""
        study, raced = self.study, self.raced()
        names = sorted({name for result in self.results.values() for name in result.metrics})
        comparisons = []
        for metric in self.metrics:
            figures = self.figures(metric)
            comparisons += [row | figures[row["variant"]] for row in self.rows(metric)]
        return {
            "study": {
                "target": study.target,
                "data": _known(vars(study.data) | {"split": study.split}, study) | {"notes": list(self.notes)},
                "backend": study.backend or None,
                "engine": study.engine or None,
                "engine_reason": self.engine_reason,
                "epochs": study.epochs or None,
                "batch_size": study.batch_size or None,
                "optimizer": study.compiled.get("optimizer"),
                "class_weight": study.class_weight,
                "early_stopping": study.early_stopping,
                "samples": study.samples,
                "from_weights": study.weights_hash,
                "seeds": list(study.seeds),
                "baseline": study.baseline,
                "max_seeds": self.max_seeds,
                "margin": self.margin,
                "primary": self.primary,
                "deciding": self.deciding,
                "power": self.power,
                **({} if study.divisions is None else self._divisions()),
                **({"function": study.document()["function"]} if isinstance(study, FunctionStudy) else {}),
            },
            "variants": [
                {
                    "name": variant.name,
                    "placement": variant.placement,
                    **variant.own_training(),
                    "schedule": _schedule(variant),
                    **({"race": raced[variant.name]} if variant.name in raced else {}),
                    "runs": [self._run_document(variant, seed, names) for seed in study.seeds_of(variant)],
                    "mean": {name: finite_or_none(finite_mean(self.values(variant, name))) for name in names},
                    "sd": {name: finite_or_none(finite_sd(self.values(variant, name))) for name in names},
                }
                for variant in study.variants
            ],
            "comparisons": comparisons,
            "looks": [look.document() for look in self.asked.looks],
            "chance_of_looks": self.chance_of_looks(),
            "placements_judged": self.asked.placements_judged,
            "unfinished_curves": self.unfinished_curves,
            **({} if study.samples is None else {"monte_carlo": self.monte_carlo()}),
            **{name: self.more[name] for name in ("worlds",) if name in self.more},
            "warnings": self.warnings(),
            "timing": self.timing,
        }

    def _divisions(self) -> dict[str, Any]:
        """Return how each seed divides the data."""
        divisions = [{"seed": seed, **vars(self.study.data_of(seed))} for seed in self.study.seeds]
        return {"resample_split": True, "overlap": self.overlap, "divisions": divisions}

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
        if study.divisions is not None:
            found.append(
                "Each seed divides the data anew, and the divisions overlap: intervals, p overlap and verdicts allow for that "
                "(docs/statistics.md), the p-values of the sign flips and of Wilcoxon do not. Each seed has test examples of its "
                "own: there is no second interval for new examples, no confusion matrix, and no test example is shown."
            )
        if self.max_seeds is not None:
            found.append(
                f"Seeds were added until each variant had a verdict or could not win: {pairs} of at most {self.max_seeds}. The "
                "verdicts allow for that. The p-values and intervals do not: they are those of a number of seeds fixed before."
                + ("" if self.margin is None else " Only the last of these seeds can show that a difference is within the margin.")
            )
        found += self._warnings_of_looks()
        if self.unfinished_curves:
            found.append(
                f"The validation loss still falls at the last of {study.epochs} epochs ({', '.join(self.unfinished_curves)}): "
                "trained to the end, the verdict can be another. Give more epochs, or early stopping."
            )
        if smallest_p(pairs) > 0.05:
            found.append(
                f"{pairs} seed(s) cannot show a difference: the smallest possible p is {smallest_p(pairs):.3g}. Use 6 or more."
            )
        counts = {status: sum(self._status(run) == status for run in study.runs()) for status in ("diverged", "failed")}
        if counts["diverged"]:
            found.append(
                f"{counts['diverged']} run(s) diverged. Verdicts and ranks count such a run as the worst of all; means, intervals "
                "and what is computed from them leave its pair out."
            )
        if counts["failed"]:
            found.append(f"{counts['failed']} run(s) failed; their pairs are left out.")
        if isinstance(study, FunctionStudy) and (lacking := self._lacking_metrics()):
            found.append(f"{lacking} run(s) did not return all of {', '.join(self.metrics)}; their pairs are left out there.")
        if isinstance(study, Scores):
            cells = [self.outcomes(variant, metric) for variant in study.variants for metric in study.metrics]
            if missing := int(np.isnan(cells).sum()):
                found.append(f"{missing} score(s) are missing in the table; their pairs are left out.")
        elif self.missing:
            found.append(f"{self.missing} run(s) are not finished yet.")
        return found

    def _lacking_metrics(self) -> int:
        """Return the number of finished runs of a training function that lack a metric that others have."""
        done = [each for each in self.results.values() if each.status == "done"]
        return sum(any(name not in each.metrics for name in self.metrics) for each in done)

    def _warnings_of_looks(self) -> list[str]:
        """Return what the ledger knows of earlier looks at this question, and of the other placements judged."""
        found, judged = [], self.asked.placements_judged
        if looks := self.looks:
            names = [f"study {each.number} ({len(each.seeds)} seeds)" for each in looks]
            chance = 100 * (self.chance_of_looks() or 0)
            found.append(
                f"This is the {looking.ordinal(len(looks) + 1)} look at this question, after {', '.join(names)}. p-values and "
                f"verdicts are those of a single look: if nothing differs, such looks together give some verdict in {chance:.1f} % "
                "of studies. p that allows for any number of looks, adjusted for the variants: "
                f"{', '.join(f'{name} {p:.2g}' for name, (_, p) in self._anytime().items())}."
            )
        if judged is not None and judged > len(self.others):
            found.append(
                f"{judged} placements have been judged on this test part in this ledger. The verdicts allow for the "
                f"{len(self.others)} of this study."
            )
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
            for seed in self.study.seeds_of(variant)
        )

    def rows(self, metric: str) -> list[dict[str, Any]]:
        """Return the differences to the baseline as plain values, a row for each variant."""
        return [
            {
                "variant": name,
                "baseline": self.study.baseline,
                "metric": metric,
                "higher_is_better": self.higher_is_better(metric),
                "difference": finite_or_none(found.mean),
                "interval": found.interval and list(found.interval),
                "p": found.p,
                "p_adjusted": found.p_adjusted,
                "pairs": found.pairs,
                **self.divergence(name),
                "verdict": found.verdict,
            }
            for name, found in self.differences(metric).items()
        ]

    def divergence(self, name: str) -> dict[str, int]:
        """Return in how many seeds both runs ended, and in how many of them the variant's and the baseline's run diverged."""
        ended = [pair for pair in zip(self._ended(name), self._ended(self.study.baseline)) if _both(pair)]
        return {
            "seeds": len(ended),
            "diverged": sum(ours == "diverged" for ours, _ in ended),
            "baseline_diverged": sum(base == "diverged" for _, base in ended),
        }

    def pairs(self, metric: str) -> dict[str, list[float | None]]:
        """Return the difference to the baseline for each seed, by variant."""
        base = self.values(self.study.baseline, metric)
        return {name: [finite_or_none(value) for value in self.values(name, metric) - base] for name in self.others}

    @property
    def others(self) -> list[str]:
        """The names of the variants that are compared with the baseline."""
        return self._beside(self.study.baseline)

    def _beside(self, baseline: str) -> list[str]:
        return [variant.name for variant in self.study.variants if variant.name != baseline]

    def _variant(self, variant: Variant | str) -> Variant:
        return variant if isinstance(variant, Variant) else next(each for each in self.study.variants if each.name == variant)

    def _ended(self, variant: Variant | str) -> list[str | None]:
        """Return the status of each seed's run."""
        return [None if result is None else result.status for result in self._results(variant)]

    def _results(self, variant: Variant | str) -> list[Result | None]:
        """Return the result of each seed's run; None if it is missing, or the variant does not get the seed."""
        variant = self._variant(variant)
        seeds = self.study.seeds_of(variant)
        found = [self.results.get(self.study.key(variant, seed)) for seed in seeds]
        return found + [None] * (len(self.study.seeds) - len(seeds))

    def _status(self, run: Run) -> str | None:
        return self.results[run.key].status if run.key in self.results else None

    def _run_document(self, variant: Variant, seed: int, names: Sequence[str]) -> dict[str, Any]:
        key = self.study.key(variant, seed)
        result = self.results.get(key)
        metrics = {name: finite_or_none(result.metrics.get(name)) if result else None for name in names}
        facts = {
            "key": key,
            "seed": seed,
            "status": result.status if result else "missing",
            **metrics,
            "seconds": result.seconds if result else None,
            "epochs": result.epochs if result else None,
            **(
                {"best_epoch": result.best_epoch if result else None}
                if self.study.of(self._variant(variant)).early_stopping
                else {}
            ),
            **({"error": result.error} if result and result.error else {}),
        }
        return facts | metrics  # scores of one's own may be seconds


def _known(facts: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """Return facts about a study's data; of scores of one's own and of a training function, None for what is not known."""
    is_own = isinstance(study, Scores | FunctionStudy)
    return {name: value or None for name, value in facts.items()} if is_own else dict(facts)


def _both(pair: Sequence[str | None]) -> bool:
    """Return whether both runs of a pair ended."""
    return all(status in ("done", "diverged") for status in pair)


def _seeds_needed(pairs: np.ndarray, wanted: float, rows: int, overlap: float = 0.0) -> dict[str, Any]:
    """Return what as many seeds show, and the seeds that the `wanted` difference needs, with the interval of the spread."""
    if len(pairs) < 2:
        return {"detectable_difference": None, "pairs_needed": None, "pairs_needed_interval": None}
    sd = finite_sd(pairs)
    needed = [power.pairs_needed(each, wanted, rows, overlap=overlap) for each in (sd, *power.sd_interval(sd, len(pairs)))]
    return {
        "detectable_difference": power.detectable_difference(sd, len(pairs), rows, overlap=overlap),
        "pairs_needed": needed[0],
        "pairs_needed_interval": needed[1:],
    }


def _why_identical(variant: Variant, baseline: Variant) -> str:
    """Say why a variant's runs have exactly the same figures as the baseline's."""
    placement = variant.placement
    if placement is None and baseline.placement is None:
        return "they are the same runs"
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
