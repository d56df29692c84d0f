"""The public `compare`: study + ledger -> paired statistics -> verdicts."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout import schedules
from keras_dropout.bench import execution, statistics
from keras_dropout.bench.ledger import Ledger, peek, refusing
from keras_dropout.bench.machine import machine, versions
from keras_dropout.bench.planning import DEFAULT_LEDGER, Plan, make_plan
from keras_dropout.bench.progress import Display
from keras_dropout.bench.records import MC, MONTE_CARLO, PLAIN, Result, Run, Study, Variant
from keras_dropout.bench.report import charts
from keras_dropout.bench.report.page import write_page
from keras_dropout.bench.statistics import LEVEL, Difference, compare_paired, mean_interval, smallest_p
from keras_dropout.display import Shown, as_html
from keras_dropout.errors import check_choice, refuse

_MONTE_CARLO = [f"test_{MC}{name}" for names in MONTE_CARLO.values() for name in names]
_SAMPLED = [*(f"test_{name}" for names in PLAIN.values() for name in names), *_MONTE_CARLO]
_HIGHER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "r2", "similarity", "true_")


@dataclass(repr=False)
class Comparison(Shown):
    """What a study found. Prints as tables; `verdicts`, `to_frame()`, `document()` and `save_report(path)` give it as data.

    `max_seeds` is that of a study whose seeds were added until there were verdicts, `margin` the difference in test loss that
    matters. The loss of each test example is read from the `ledger`, if there is one, when it is needed, so that memory does not
    grow with the runs.
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

    @property
    def metrics(self) -> list[str]:
        """The metrics measured on test data, the loss first."""
        names = {name for result in self.results.values() for name in result.metrics if name.startswith("test_")}
        return sorted(names, key=lambda name: (name != "test_loss", name))

    @property
    def sampled_metrics(self) -> list[str]:
        """Those of `metrics` that a study has for its samples."""
        return [name for name in self.metrics if name in _SAMPLED] if self.study.samples is not None else []

    @property
    def own_metrics(self) -> list[str]:
        """Those of `metrics` that a study has without samples too."""
        return [name for name in self.metrics if name not in self.sampled_metrics]

    @property
    def failed(self) -> list[tuple[Run, str]]:
        """The runs that failed, with their errors."""
        return [(run, self.results[run.key].error or "") for run in self.study.runs() if self._status(run) == "failed"]

    @property
    def missing(self) -> int:
        """How many runs have no result yet."""
        return sum(run.key not in self.results for run in self.study.runs())

    @property
    def verdicts(self) -> dict[str, dict[str, str]]:
        """variant -> metric -> `better`, `worse` or `no difference shown`, against the baseline; with a margin also `same within
        the margin`, `better, but within the margin` and `worse, but within the margin`."""
        found: dict[str, dict[str, str]] = {}
        for metric in self.metrics:
            for name, difference in self.differences(metric).items():
                found.setdefault(name, {})[metric] = difference.verdict
        return found

    def values(self, variant: Variant | str, metric: str) -> np.ndarray:
        """One number per seed; nan where there is none."""
        if isinstance(variant, str):
            variant = next(each for each in self.study.variants if each.name == variant)
        keys = (self.study.key(variant, seed) for seed in self.study.seeds)
        return np.array([self.results[k].metrics.get(metric, np.nan) if k in self.results else np.nan for k in keys])

    def differences(self, metric: str, baseline: str | None = None) -> dict[str, Difference]:
        """Each variant's paired difference to `baseline` (the study's own by default) on a metric."""
        baseline = baseline or self.study.baseline
        by_name = {variant.name: self.values(variant, metric) for variant in self.study.variants}
        check_choice("baseline", baseline, tuple(by_name))
        rest = {name: values - by_name[baseline] for name, values in by_name.items() if name != baseline}
        higher = _higher_is_better(metric)
        found = compare_paired(rest, higher, self.margin if metric == "test_loss" else None)
        if self.max_seeds is None:
            return found
        words = {name: self._sequential_verdict(rest[name], higher) or "no difference shown" for name in found}
        return {
            name: dataclasses.replace(each, verdict=statistics.verdict_with_margin(words[name], each.equivalence))
            for name, each in found.items()
        }

    def monte_carlo(self) -> list[dict[str, Any]]:
        """What Monte-Carlo predictions do to the metrics of each variant with dropout: their mean difference to those of its own
        plain predictions, paired by seed, with the 95 % interval over seeds."""
        found = []
        for variant in self.study.variants:
            for metric in self._of_samples if self._is_sampled(variant) else ():
                pairs = self.values(variant, metric) - self.values(variant, _plain(metric))
                pairs = pairs[np.isfinite(pairs)]
                interval = mean_interval(pairs)
                row = {"variant": variant.name, "metric": _plain(metric), "difference": _number(_mean(pairs))}
                found.append(row | {"interval": interval and list(interval), "pairs": len(pairs)})
        return found

    @property
    def _of_samples(self) -> list[str]:
        """The Monte-Carlo metrics whose plain ones there are too."""
        return [name for name in self.sampled_metrics if name in _MONTE_CARLO and _plain(name) in self.metrics]

    def _is_sampled(self, variant: Variant) -> bool:
        """Whether the Monte-Carlo figures of a variant are other than the plain ones: not without dropout."""
        pairs = [(name, _plain(name)) for name in self._of_samples if _plain(name) in self.sampled_metrics]
        return any((np.abs(self.values(variant, name) - self.values(variant, plain)) > 0).any() for name, plain in pairs)

    @property
    def _repeated(self) -> list[str]:
        """The metrics that the test loss repeats: the NLL, where the loss is the crossentropy and examples have no weights."""
        loss, nll = (np.array([self.values(v, name) for v in self.study.variants]) for name in ("test_loss", "test_nll"))
        same = "test_nll" in self.sampled_metrics and np.allclose(loss, nll, rtol=1e-4, equal_nan=True)
        return ["test_nll"] if same else []

    @property
    def undecided(self) -> list[str]:
        """The variants whose test loss has no verdict yet while seeds are added; those without any pair are given up."""
        pairs = {name: self.values(name, "test_loss") - self.values(self.study.baseline, "test_loss") for name in self._others}
        return [
            name
            for name, values in pairs.items()
            if np.isfinite(values).any() and self._sequential_verdict(values, higher_is_better=False) is None
        ]

    def _sequential_verdict(self, differences: np.ndarray, higher_is_better: bool) -> str | None:
        """By Bonferroni each variant has its share of the level."""
        towards_better = differences if higher_is_better else -differences
        return statistics.sequential_verdict(towards_better, max_pairs=self.max_seeds, alpha=LEVEL / len(self._others))

    def figures(self, metric: str) -> dict[str, dict[str, Any]]:
        """What informs beside the verdicts, by variant: the further fields of "comparisons" in `document`."""
        base = self.values(self.study.baseline, metric)
        found, higher = {}, _higher_is_better(metric)
        for name, difference in self.differences(metric).items():
            values = self.values(name, metric)
            pairs = (values - base)[np.isfinite(values - base)]
            sd, gain = _sd(pairs), statistics.pairing_gain(values, base)
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

    def _loss_differences(self, name: str) -> np.ndarray | None:
        """The differences in the loss of each test example, (pairs, examples), of the seeds that have both."""
        compared = [variant for variant in self.study.variants if variant.name in (name, self.study.baseline)]
        compared.sort(key=lambda variant: variant.name == self.study.baseline)
        keys = {seed: [self.study.key(variant, seed) for variant in compared] for seed in self.study.seeds}
        results = self.results if self.ledger is None else peek(self.ledger, [key for both in keys.values() for key in both])
        rows = []
        for seed in self.study.seeds:
            both = [results.get(key) for key in keys[seed]]
            if all(result is not None and result.status == "done" and result.test_losses is not None for result in both):
                rows.append(both[0].test_losses.astype(float) - both[1].test_losses)
        return np.array(rows) if rows else None

    def document(self) -> dict[str, Any]:
        """Everything as plain values: what `--json` prints. Numbers that do not exist are None."""
        study = self.study
        names = sorted({name for result in self.results.values() for name in result.metrics})
        figures = {metric: self.figures(metric) for metric in self.metrics}
        comparisons = [
            {
                "variant": name,
                "baseline": study.baseline,
                "metric": metric,
                "difference": _number(found.mean),
                "interval": found.interval and list(found.interval),
                "p": found.p,
                "p_adjusted": found.p_adjusted,
                "pairs": found.pairs,
                "verdict": found.verdict,
                **figures[metric][name],
            }
            for metric in self.metrics
            for name, found in self.differences(metric).items()
        ]
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
                    "mean": {name: _number(_mean(self.values(variant, name))) for name in names},
                    "sd": {name: _number(_sd(self.values(variant, name))) for name in names},
                }
                for variant in study.variants
            ],
            "comparisons": comparisons,
            **({} if study.samples is None else {"monte_carlo": self.monte_carlo()}),
            "warnings": self.warnings(),
            "timing": self.timing,
        }

    def warnings(self) -> list[str]:
        """What a reader must know before believing the table."""
        study, pairs = self.study, len(self.study.seeds)
        found = []
        if study.split == "as-published":
            found.append(
                f"The {study.data.validation} validation examples are also trained on (split as-published): "
                "validation figures are training figures in disguise."
            )
        if study.weights is not None:
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
        """A pandas DataFrame with one row per run."""
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

    def save_report(self, path: str | Path, more: Mapping[str, Any] | None = None) -> Path:
        """Write the report, one HTML file that needs no network, and return its path. `more` is of a search or a sweep."""
        curves = {
            variant.name: [
                self.results[k].curves for k in (self.study.key(variant, s) for s in self.study.seeds) if k in self.results
            ]
            for variant in self.study.variants
        }
        pairs = {metric: self._pairs(metric) for metric in self.own_metrics}
        made = {"command": self.command, "versions": versions(), "machine": machine()}
        said = sentences(self.figures("test_loss")) if self.metrics else []
        sampled = {
            "metrics": [metric for metric in self.sampled_metrics if metric in _MONTE_CARLO],
            "repeated": self._repeated,
            "sentences": monte_carlo_sentences(self.study.samples, self.monte_carlo()),
        }
        return write_page(Path(path), self.document() | (more or {}), curves, pairs, made, said, sampled)

    def __rich__(self) -> Group:
        figures = {metric: self.figures(metric) for metric in self.own_metrics} if self._others else {}
        parts: list[Any] = [*self._tables(), *([self._figures_table(figures)] if figures else [])]
        parts += [Text(sentence) for sentence in sentences(figures.get("test_loss", {}))]
        parts += [Text(sentence) for sentence in monte_carlo_sentences(self.study.samples, self.monte_carlo())]
        parts += [Text(f"! {warning}", style="yellow") for warning in self.warnings()]
        return Group(*parts)

    def _repr_html_(self) -> str:
        """The tables, and the differences in the test loss as a picture."""
        picture = ""
        if self._others and "test_loss" in self.metrics:
            picture = charts.paired_differences(self.document()["comparisons"], self._pairs("test_loss"), "test_loss")
        return f"{as_html(self)}\n{picture}"

    def _pairs(self, metric: str) -> dict[str, list[float | None]]:
        """variant -> the difference to the baseline for each seed."""
        base = self.values(self.study.baseline, metric)
        return {name: [_number(value) for value in self.values(name, metric) - base] for name in self._others}

    def _tables(self) -> list[Table]:
        tables = [self._means_table(), *([self._sampled_table()] if self.sampled_metrics else [])]
        tables += [self._differences_table(metric) for metric in self.own_metrics if self._others]
        return [*tables, *([self._sampled_differences_table()] if self.sampled_metrics and self._others else [])]

    @property
    def _others(self) -> list[str]:
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
            **{name: _number(result.metrics.get(name)) if result else None for name in names},
            "seconds": result.seconds if result else None,
            "epochs": result.epochs if result else None,
            **({"best_epoch": result.best_epoch if result else None} if self.study.early_stopping else {}),
            **({"error": result.error} if result and result.error else {}),
        }

    def _means_table(self) -> Table:
        table = Table(
            title=f"{self.study.target}: mean and standard deviation over {len(self.study.seeds)} seeds", title_justify="left"
        )
        table.add_column("variant")
        table.add_column("runs", justify="right")
        shown = self._in_means
        for metric in shown:
            table.add_column(metric.replace("_", " "), justify="right")
        table.add_column("train loss", justify="right")
        table.add_column("gap (test - train loss)", justify="right")
        for variant in self.study.variants:
            loss, train = self.values(variant, "test_loss"), self.values(variant, "train_loss")
            cells = [_mean_and_sd(self.values(variant, metric)) for metric in shown]
            table.add_row(
                Text(variant.name), str(int(np.isfinite(loss).sum())), *cells, _mean_and_sd(train), _mean_and_sd(loss - train)
            )
        return table

    def _differences_table(self, metric: str) -> Table:
        better = "higher" if _higher_is_better(metric) else "lower"
        title = f"{metric.replace('_', ' ')} against {self.study.baseline}, paired by seed ({better} is better)"
        table = Table(title=title, title_justify="left")
        for name in ("variant", "difference", "95 % interval", "p", "p adjusted", "verdict"):
            table.add_column(name, justify="left" if name in ("variant", "verdict") else "right")
        for name, found in self.differences(metric).items():
            interval = f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}" if found.interval else "-"
            mean = f"{found.mean:+.4f}" if found.pairs else "-"
            table.add_row(Text(name), mean, interval, f"{found.p:.3f}", f"{found.p_adjusted:.3f}", found.verdict)
        return table

    @property
    def _in_means(self) -> list[str]:
        """The metrics of the table of means; those with a Monte-Carlo one beside them are in a table of their own."""
        return [metric for metric in self.own_metrics if metric not in map(_plain, self.sampled_metrics)]

    def _sampled_table(self) -> Table:
        """Plain and Monte-Carlo predictions one below the other; one row where both are the same."""
        title = f"test data: plain predictions, and the mean of {self.study.samples} with dropout on (Monte-Carlo)"
        table = Table(title=title, title_justify="left")
        several = [metric for metric in self.sampled_metrics if metric in _MONTE_CARLO]
        for name in ("variant", "predictions", *(_plain(metric).removeprefix("test_") for metric in several)):
            table.add_column(name, justify="left" if name in ("variant", "predictions") else "right")
        for variant in self.study.variants:
            table.add_row(Text(variant.name), "plain", *(_mean_and_sd(self.values(variant, _plain(metric))) for metric in several))
            if self._is_sampled(variant):
                table.add_row("", "Monte-Carlo", *(_mean_and_sd(self.values(variant, metric)) for metric in several))
        return table

    def _sampled_differences_table(self) -> Table:
        title = f"more metrics against {self.study.baseline}, paired by seed; mc: Monte-Carlo (lower is better, but for accuracy)"
        table = Table(title=title, title_justify="left")
        for name in ("variant", "metric", "difference", "95 % interval", "p adjusted", "verdict"):
            table.add_column(name, justify="left" if name in ("variant", "metric", "verdict") else "right")
        by_metric = {metric: self.differences(metric) for metric in self.sampled_metrics if metric not in self._repeated}
        for name in self._others:
            for number, (metric, differences) in enumerate(by_metric.items()):
                found = differences[name]
                interval = f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}" if found.interval else "-"
                mean = f"{found.mean:+.4f}" if found.pairs else "-"
                words = metric.removeprefix("test_").replace("_", " ")
                table.add_row(Text("" if number else name), words, mean, interval, f"{found.p_adjusted:.3f}", found.verdict)
        return table

    def _figures_table(self, figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
        table = Table(title="How large, and how sure (docs/statistics.md)", title_justify="left")
        for name in ("variant", "metric", "d", "seeds better", "p Wilcoxon", "95 %, new examples too"):
            table.add_column(name, justify="left" if name in ("variant", "metric") else "right")
        for metric, by_name in figures.items():
            for name, each in by_name.items():
                d, share, interval = each["effect_size"], each["share_better"], each["interval_new_examples"]
                table.add_row(
                    Text(name),
                    metric.replace("_", " "),
                    "-" if d is None else f"{d:+.2f}",
                    "-" if share is None else f"{share:.0%}",
                    f"{each['wilcoxon_p']:.3f}",
                    f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "-",
                )
        return table


def so_far(plan: Plan, study: Study, results: Mapping[str, Result], command: str) -> Comparison:
    """What the runs of a plan's study say that there are."""
    return Comparison(
        study,
        dict(results),
        command=command,
        engine_reason=plan.engine_reason,
        notes=plan.notes,
        max_seeds=plan.max_seeds,
        margin=plan.margin,
        ledger=plan.ledger,
    )


def carry_out(plan: Plan, quiet: bool = False, command: str = "") -> Comparison:
    """Train what the ledger lacks, and compare. When interrupted, what is finished is in the ledger.

    With `max_seeds` seeds are added in rounds until all variants are decided. The decisions follow from the results alone, so
    that the same command goes on where it was.
    """
    started = time.perf_counter()
    rounds, tried = plan.rounds(), set()
    found = so_far(plan, plan.study, {}, command)

    def more() -> list[Run]:
        """The runs of the next round that the ledger lacks; none where all variants are decided."""
        nonlocal found
        for study in rounds:
            ledger.put_study(study, command, versions(), machine())
            keys = {run.key for run in study.runs()}
            found = so_far(plan, study, ledger.get(keys, test_losses=False), command)
            todo = dataclasses.replace(plan, study=study).todo(found.results, ledger.kept(keys))
            if todo := [run for run in todo if run.key not in tried]:  # what failed is tried again by the next command
                tried.update(run.key for run in todo)
                display.expect(len(todo))
                return todo
            if plan.max_seeds is not None and not found.undecided:
                break
        return []

    def next_round() -> list[Run]:
        return more() if plan.max_seeds is not None and found.undecided else []

    def table(key: str, result: Result) -> Callable[[], Group]:
        found.results[key] = result
        return lambda: Group(*found._tables())  # only where it is drawn: its p-values take time and memory

    with refusing(plan.ledger, "written"), Ledger(plan.ledger) as ledger:
        with Display(plan.study.epochs, quiet, table) as display:
            options = {"on": plan.on, "checkpoint_every": plan.checkpoint_every, "keep_weights": plan.keep_weights}
            options["more"] = next_round
            trained = execution.execute(plan.study, plan.data, more(), ledger, plan.workers, display, **options)
        wall = time.perf_counter() - started
        epochs = sum(result.epochs for result in trained)
        found.timing = {
            "wall_seconds": round(wall, 2),
            "model_epochs": epochs,
            "seconds_per_model_epoch": round(wall / epochs, 4) if epochs else None,
            "workers": plan.workers,
            "compilations": sum(result.compilations for result in trained),
        }
    return found


def compare(
    target: Any,
    data: Any = None,
    *,
    variants: Mapping[str, Any] | None = None,
    ledger: str | Path = DEFAULT_LEDGER,
    report: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Comparison:
    """Train every variant of a study with every seed, and say which are better than the baseline.

    `target` is a recipe's name; a compiled Keras model; a `.keras` file; or "file.py:function" or "module:function", a function
    that returns a compiled model and may ask for `input_shape`, `outputs` and `vocabulary`, which the data tell. All but a recipe
    need `data`: ((x_train, y_train), (x_test, y_test)), or the path of a file or folder, or "file.py:function", a function that
    returns arrays; `data_options` are those of `bench.data.files.load`, such as {"target": "price"}. x and y may be dicts or
    tuples of arrays for several inputs and outputs, each pair may have sample weights as a third member, and in place of a pair
    a tf.data.Dataset, torch DataLoader or Keras PyDataset is read once (see `bench.data.from_arrays`).

    `variants` maps names to placements {site: rate, schedule, their text or dropout layer}, a site being "input", "hidden",
    "last", "all", a class of layers, a layer's name or a glob; None is the model as it is built. The baseline "none", the model
    without dropout, is always there. The model is only read, and trained as it was compiled: optimizer, its learning-rate
    schedule, losses, metrics and augmentation layers are kept. Each run starts from new weights.

    `settings`: seeds (a number, the seeds themselves, or "auto": seeds are added until each variant's test loss has a verdict,
    or there are max_seeds, 30 unless given); margin (a smaller difference in test loss does not matter: see
    docs/statistics.md); epochs, batch_size, optimizer, learning_rate; class_weight ({class: weight}, or "balanced");
    early_stopping (epochs to wait for a smaller validation loss; then the epoch where it was smallest is measured);
    samples (stochastic forward passes on the test data: test_nll, test_brier and test_ece, of a regression test_rmse, and test_mc_…
    of the mean of the passes are then metrics too; examples count alike there, and the model has one output);
    from_weights (True to start every run from the model's own weights, or a .weights.h5 or .keras file; frozen layers stay
    frozen); split ("held-out" or "as-published", for recipes), validation_split (for your own data), data_dir, baseline;
    backend ("jax", "tensorflow", "torch"), engine ("compiled", "reference", "stacked": many runs at once on a GPU, or "auto":
    stacked where JAX has a GPU or TPU; else on your own model a few steps of the others are timed, with convolutions also those
    of TensorFlow unless a backend is given); workers, on (where they
    are: "here", "ray" or "ray:HOST:PORT"; see docs/ray.md), checkpoint_every (epochs between checkpoints, from which a run that
    was interrupted goes on); keep_weights (True to keep each run's trained model in the ledger: `keras-dropout runs model` and
    `bench.ledger.models` give it). Runs that the ledger has are not trained again, but for models that are wanted and not there.

    Raises `BadInput`, before anything is trained, for what cannot be used.
    """
    plan = make_plan(target, data, variants=variants, ledger=ledger, **settings)
    if report is not None:
        check_report_path(report)
    found = carry_out(plan, quiet=quiet, command="keras_dropout.compare(…) in Python")
    if report is not None:
        found.save_report(report)
    return found


def check_report_path(path: str | Path) -> None:
    """Refuse a report that could not be written at the end."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        refuse(f"the report {path} cannot be written there.", "Name a file in a folder that exists, for example report.html.")


def sentences(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the number of seeds is good for, and what a margin says, one sentence each, from `Comparison.figures`."""
    found = []
    for name, each in figures.items():
        said, margin = [], each["equivalence"]
        if each["detectable_difference"] is not None:
            said.append(f"as many seeds show a test loss difference of {each['detectable_difference']:.4f} with 80 % power")
        if each["pairs_needed"] is not None:
            said.append(f"{'the margin' if margin else 'one as seen'} takes {each['pairs_needed']}")
        if each["unpaired_seeds"] is not None:
            said.append(f"without pairing, {each['unpaired_seeds']} would be as precise")
        found += [f"{name}: {'; '.join(said)}."] if said else []
        if margin:
            low, high = margin["interval"]
            found.append(
                f"{name}, margin {margin['margin']:g}: 90 % interval {low:+.4f} to {high:+.4f}; better by more with probability "
                f"{margin['better']:.3f}, within {margin['within']:.3f}, worse by more {margin['worse']:.3f}."
            )
    return found


def monte_carlo_sentences(samples: int | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What Monte-Carlo predictions do to each variant's NLL or RMSE, one sentence each, from `Comparison.monte_carlo`."""
    found = []
    for row in rows:
        if row["metric"] in ("test_nll", "test_rmse") and row["pairs"]:
            between = " (95 % interval {:+.4f} to {:+.4f})".format(*row["interval"]) if row["interval"] else ""
            found.append(
                f"{row['variant']}: {samples} samples against its own plain predictions, paired over {row['pairs']} seed(s): "
                f"{row['metric'].removeprefix('test_')} {row['difference']:+.4f}{between}."
            )
    return found


def _plain(metric: str) -> str:
    """The metric of plain predictions that goes with a Monte-Carlo one."""
    return metric.replace(f"test_{MC}", "test_")


def _schedule(variant: Variant) -> dict[str, str] | None:
    """The text form of each schedule by site, or None where all rates stay."""
    specs = (variant.placement or {}).items()
    found = {site: str(schedules.from_document(spec["schedule"])) for site, spec in specs if "schedule" in spec}
    return found or None


def _higher_is_better(metric: str) -> bool:
    return any(part in metric for part in _HIGHER_IS_BETTER)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _sd(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def _mean_and_sd(values: np.ndarray) -> str:
    mean, sd = _mean(values), _sd(values)
    return "-" if np.isnan(mean) else f"{mean:.4f}" if np.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
