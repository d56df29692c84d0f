"""Methods against none at the same tuning budget: rank, interval, cost.

On each of three data sets (scikit-learn's digits; 2,000 images of Fashion-MNIST; 2,000 of CIFAR-10 at 16 x 16, or of its JPEG copy)
a perceptron with two hidden layers is trained with each method for about the same number of updates. Every method is tuned with the
same budget: six settings of it, each on two seeds that no comparison uses, and the smallest mean validation loss is chosen. What is
chosen is trained on fresh seeds, and compared with none on test data, paired by seed; p-values are adjusted over the methods of a
data set (Westfall and Young). Ranks are those of the mean test loss, with the 95 % interval of a bootstrap over seeds. The cost is
the seconds of the fastest of these runs, in times of that of none, and the parameters added.

Two references are no dropout: weight decay, and early stopping, tuned in its patience. RDrop and MultiSampleDropout are not here:
they are models with a loss of their own, which the bench does not copy. TargetedDropout drops units, and DropConnect has one mask a
batch: with single weights and a mask an example they are too slow on a CPU.

Ctrl-C is fine: the ledger has what is finished, and the same command goes on.
Run: python benchmarks/methods.py [--data-dir FOLDER] [--only digits] [--ledger FILE] [--seeds 10] [--json FILE] [--quick | --large]
With --only, FILE keeps its tables of the other data sets.
--quick: few digits, two settings of each method, no references: whether it runs. --large: more images, wider nets, 20 seeds.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from perceptrons import NAMES, epochs_for, load, perceptron
from report import stored, write
from scipy import stats

from keras_dropout import place
from keras_dropout.bench.compare import compare
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.records import BASELINE, Variant
from keras_dropout.bench.statistics import compare_paired, finite_mean

SEARCH_SEEDS = (1000, 1001)
RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
METRICS = ("test_loss", "test_accuracy")
DRAWS = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Setting:
    """One setting of a method: how it is called, and what it is in placement, model and training."""

    text: str
    placement: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, int] = field(default_factory=dict)


def placed(*texts: str, site: str = "hidden") -> list[Setting]:
    return [Setting(f"{site}={text}", {site: text}) for text in texts]


def rates(kind: str, more: str = "", site: str = "hidden", of: Sequence[float] = RATES) -> list[Setting]:
    return placed(*(f"{kind}({rate}{more})" for rate in of), site=site)


_KL_WEIGHTS = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
_PAIRS = [(a, b) for a in (0.2, 0.35, 0.5) for b in (0.25, 0.5)]
METHODS: dict[str, list[Setting]] = {
    "Dropout": rates("Dropout"),
    "Dropout, input": rates("Dropout", site="input", of=(0.05, 0.1, 0.15, 0.2, 0.3, 0.4)),
    "Dropout, last": rates("Dropout", site="last"),
    "Dropout, input and hidden": [
        Setting(f"input={first}, hidden={rest}", {"input": first, "hidden": rest})
        for first in (0.1, 0.2)
        for rest in (0.2, 0.35, 0.5)
    ],
    "Dropout, early": placed(*(f"early({rate}, until={until})" for rate, until in _PAIRS)),
    "Dropout, late": placed(*(f"late({rate}, {start})" for rate, start in _PAIRS)),
    "Dropout, rising": placed(*(f"linear(0, {rate})" for rate in RATES)),
    "Dropout and max-norm": [
        Setting(f"hidden={rate}, limit {limit:g}", {"hidden": rate}, {"max_norm": limit})
        for limit in (2.0, 3.0)
        for rate in (0.2, 0.35, 0.5)
    ],
    "GaussianDropout": rates("GaussianDropout"),
    "DropConnect": rates("DropConnect", ", per='batch'"),
    "Standout": placed(*(f"Standout(alpha={alpha}, beta={beta})" for alpha in (0.5, 1.0) for beta in (0.0, 1.0, 2.0))),
    "ConcreteDropout": placed(
        *(f"ConcreteDropout(0.1, dropout_regularizer={size})" for size in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
    ),
    "VariationalDropout": placed(*(f"VariationalDropout(0.2, kl_weight={weight})" for weight in _KL_WEIGHTS)),
    "SparseVariationalDropout": placed(*(f"SparseVariationalDropout(kl_weight={weight})" for weight in _KL_WEIGHTS)),
    "TargetedDropout": placed(
        *(f"TargetedDropout({rate}, targeted={share}, by='units')" for share in (0.5, 0.75) for rate in (0.33, 0.5, 0.66))
    ),
    "RandomErasing": rates("RandomErasing", site="input", of=(0.1, 0.25, 0.4, 0.55, 0.7, 0.85)),
}
REFERENCES: dict[str, list[Setting]] = {
    "weight decay": [Setting(f"L2 {size:g}", model={"l2": size}) for size in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)],
    "early stopping": [Setting(f"patience {epochs}", training={"early_stopping": epochs}) for epochs in (1, 2, 3, 5, 8, 12)],
}
SMALL = {"train": 2000, "hidden": (64, 64), "updates": 1200, "seeds": 10}
LARGE = {"train": 20_000, "hidden": (512, 512), "updates": 6000, "seeds": 20}
QUICK = {"train": 400, "hidden": (32, 32), "updates": 400, "seeds": 6}


@dataclass(frozen=True)
class Task:
    """A data set with what is the same for all methods on it."""

    data: Data
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    ledger: str

    def model(self, options: Mapping[str, float]) -> keras.Model:
        return perceptron(self.data.train.x.shape[1:], self.hidden, **options)

    def train(self, settings: Mapping[str, Setting], seeds: Sequence[int]) -> dict[str, Comparison]:
        """The comparison that has each setting, by the same names. Settings of one model and training are one study."""
        studies: dict[str, dict[str, Setting]] = {}
        for name, setting in settings.items():
            studies.setdefault(repr((setting.model, setting.training)), {})[name] = setting
        found = {}
        for each in studies.values():
            first = next(iter(each.values()))
            variants = {name: setting.placement for name, setting in each.items() if setting.placement}
            more = {"epochs": self.epochs, "batch_size": self.batch_size, "ledger": self.ledger, "engine": "compiled"}
            study = compare(
                self.model(first.model), self.data, variants=variants or {BASELINE: BASELINE}, seeds=seeds, **more, **first.training
            )
            if study.failed:
                sys.exit(f"{study.failed[0][0].variant.name} failed: {study.failed[0][1]}")
            found |= dict.fromkeys(each, study)
        return found


def values(study: Comparison, name: str, setting: Setting, metric: str) -> np.ndarray:
    """One number per seed of a setting that is in the study by this name."""
    return study.values(name if setting.placement else BASELINE, metric)


def choose(task: Task, methods: Mapping[str, Sequence[Setting]], seeds: Sequence[int]) -> dict[str, tuple[Setting, list[dict]]]:
    """Of each method the setting with the smallest mean validation loss, and those of all."""
    names = {f"{method}: {setting.text}": (method, setting) for method, settings in methods.items() for setting in settings}
    studies = task.train({name: setting for name, (_, setting) in names.items()}, seeds)
    losses: dict[str, dict[str, float]] = {}
    for name, (method, setting) in names.items():
        found = values(studies[name], name, setting, "validation_loss")
        losses.setdefault(method, {})[setting.text] = float(found.mean()) if np.isfinite(found).all() else math.inf
    chosen = {}
    for method, settings in methods.items():
        best = min(settings, key=lambda setting: losses[method][setting.text])
        tried = [
            {"setting": text, "validation_loss": loss if math.isfinite(loss) else None} for text, loss in losses[method].items()
        ]
        chosen[method] = best, tried
    return chosen


def parameters(task: Task, setting: Setting) -> int:
    """The parameters that a setting adds to the plain net."""
    bare = task.model({})
    spec = Variant.of("x", setting.placement).placement
    fixed = {site: {name: value for name, value in each.items() if name != "schedule"} for site, each in spec.items()}
    return sum(math.prod(w.shape) for w in place(bare, fixed).trainable_weights) - bare.count_params()


def ranks(losses: np.ndarray) -> np.ndarray:
    """The ranks of methods, (methods,), from their losses (methods, seeds), the smallest mean first; ties share theirs."""
    return stats.rankdata(losses.mean(axis=-1))


def rank_intervals(losses: np.ndarray) -> np.ndarray:
    """(methods, 2): the middle 95 % of the ranks when seeds are drawn again, the same for all methods."""
    draws = np.random.default_rng(0).integers(losses.shape[1], size=(DRAWS, losses.shape[1]))
    found = stats.rankdata(losses[:, draws].mean(axis=-1), axis=0)
    return np.quantile(found, (0.025, 0.975), axis=1).T


def table(
    task: Task, methods: Mapping[str, Sequence[Setting]], search_seeds: Sequence[int], seeds: Sequence[int]
) -> dict[str, Any]:
    """The rows of a data set: none, the methods and the references, by rank."""
    chosen = choose(task, methods, search_seeds)
    settings = {BASELINE: Setting(BASELINE)} | {method: setting for method, (setting, _) in chosen.items()}
    studies = task.train(settings, seeds)
    found = {
        metric: {name: values(studies[name], name, s, metric) for name, s in settings.items()}
        for metric in (*METRICS, "train_loss")
    }
    differences = {}
    for metric in METRICS:
        rest = {name: each - found[metric][BASELINE] for name, each in found[metric].items() if name != BASELINE}
        differences[metric] = compare_paired(rest, metric == "test_accuracy")
    losses = np.array([np.where(np.isfinite(each), each, np.inf) for each in found["test_loss"].values()])
    ranked, between = ranks(losses), rank_intervals(losses)
    seconds = {name: min(_seconds(studies[name], name if s.placement else BASELINE)) for name, s in settings.items()}
    rows = []
    for number, (name, setting) in enumerate(settings.items()):
        row: dict[str, Any] = {"method": name, "dropout": name in METHODS, "setting": setting.text}
        if name != BASELINE:
            row["tried"] = chosen[name][1]
        row |= {"rank": float(ranked[number]), "rank_interval": between[number].tolist()}
        for metric in METRICS:
            row[metric] = finite_mean(found[metric][name])
            if name != BASELINE:
                each = differences[metric][name]
                row[f"{metric}_difference"] = {
                    "mean": each.mean,
                    "interval": each.interval and list(each.interval),
                    "p_adjusted": each.p_adjusted,
                    "pairs": each.pairs,
                    "verdict": each.verdict,
                }
        row["gap"] = finite_mean(found["test_loss"][name] - found["train_loss"][name])
        row |= {"seconds": seconds[name], "times_none": seconds[name] / seconds[BASELINE], "parameters": parameters(task, setting)}
        row["test_losses"] = found["test_loss"][name].tolist()
        rows.append(row)
    facts = task.data.facts("held-out")
    return {
        "data": facts.name,
        "train": facts.train,
        "validation": facts.validation,
        "test": facts.test,
        "hidden": list(task.hidden),
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "search_seeds": list(search_seeds),
        "seeds": list(seeds),
        "methods": sorted(rows, key=lambda row: row["rank"]),
    }


def together(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean rank over data sets, and Friedman's test that all methods rank alike."""
    by_data = [{row["method"]: row for row in each["methods"]} for each in tables]
    names = list(by_data[0])
    losses = np.array([[rows[name]["test_loss"] for rows in by_data] for name in names])
    means = np.mean([[rows[name]["rank"] for rows in by_data] for name in names], axis=1)
    order = np.argsort(means, kind="stable")
    rows = [
        {"method": names[n], "mean_rank": float(means[n]), "ranks": [rows[names[n]]["rank"] for rows in by_data]} for n in order
    ]
    p = float(stats.friedmanchisquare(*losses).pvalue) if len(tables) > 1 else None
    return {"rows": rows, "data_sets": len(tables), "friedman_p": p}


def show(found: Mapping[str, Any]) -> None:
    print(
        f"\n{found['data']}: {found['train']:,} images for training, {found['test']:,} for testing, hidden {found['hidden']}, "
        f"{found['epochs']} epochs, {len(found['seeds'])} seeds"
    )
    heads = f"{'difference to none':30} {'accuracy':31} {'time':>5} {'+par.':>6}  setting"
    print(f"{'method':27} {'rank':>4} {'95 %':>9} {'test loss':>9}  {heads}")
    for row in found["methods"]:
        low, high = row["rank_interval"]
        cells = [_difference(row.get(f"{metric}_difference")) for metric in METRICS]
        print(
            f"{row['method']:27} {row['rank']:4.0f} {low:4.0f}-{high:<4.0f} {row['test_loss']:9.4f}  {cells[0]:30} {cells[1]:31} "
            f"{row['times_none']:4.1f}x {row['parameters']:6}  {row['setting']}"
        )


def show_together(found: Mapping[str, Any]) -> None:
    print(f"\nmean rank over {found['data_sets']} data sets, which are few; all rank alike: p {found['friedman_p']:.3g} (Friedman)")
    for row in found["rows"]:
        print(f"{row['method']:27} {row['mean_rank']:5.1f}  {', '.join(f'{rank:.0f}' for rank in row['ranks'])}")


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    low, high = found["interval"] or (math.nan, math.nan)
    word = "" if found["verdict"] == "no difference shown" else found["verdict"]
    return f"{found['mean']:+.4f} ({low:+.4f} {high:+.4f}) {word}"


def _seconds(study: Comparison, name: str) -> list[float]:
    variant = next(each for each in study.study.variants if each.name == name)
    return [study.results[study.study.key(variant, seed)].seconds for seed in study.study.seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the folder of Fashion-MNIST and CIFAR-10")
    parser.add_argument("--only", choices=NAMES, action="append", help="one data set; repeatable")
    parser.add_argument("--ledger", default="methods.db")
    parser.add_argument("--seeds", type=int, help="fresh seeds of each method")
    parser.add_argument("--json")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true")
    size.add_argument("--large", action="store_true")
    given = parser.parse_args()
    scale = QUICK if given.quick else LARGE if given.large else SMALL
    methods = METHODS | REFERENCES
    search_seeds = SEARCH_SEEDS
    if given.quick:
        methods, search_seeds = {name: settings[1:3] for name, settings in METHODS.items()}, SEARCH_SEEDS[:1]
    before = stored() if given.only else None
    stored_tables = before["rows"]["tables"] if before else []
    others = [each for each in stored_tables if each["data"].partition(",")[0] not in given.only]
    tables, started = [], time.perf_counter()
    for name in NAMES[:1] if given.quick else given.only or NAMES:
        data = load(name, given.data_dir, None if name == "digits" and not given.quick else scale["train"])
        train = data.facts("held-out").train
        batch_size = 32 if train < 2000 else 64
        task = Task(data, scale["hidden"], epochs_for(scale["updates"], train, batch_size), batch_size, given.ledger)
        tables.append(table(task, methods, search_seeds, range(given.seeds or scale["seeds"])))
        show(tables[-1])
    tables = sorted([*tables, *others], key=lambda each: NAMES.index(each["data"].partition(",")[0]))
    found: dict[str, Any] = {"tables": tables}
    if len(tables) > 1:
        found["together"] = together(tables)
        show_together(found["together"])
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    write("methods", found, before)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. What is finished is in the ledger; the same command goes on.")
