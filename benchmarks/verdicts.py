"""How often the verdicts of a comparison are false: all variants and metrics of simulated studies as one family.

false      Studies in which nothing differs: the share with any `better` or `worse`, by distribution of the runs, seeds, variants.
           `per_metric` is the same with each metric as a family of its own. Each study has a loss, its accuracy on 500 test
           examples, and four more metrics that depend on the loss, as with --samples.
strong     The same beside one variant that is better by five standard deviations of a run: any verdict on the others.
diverged   Studies in which each run diverges with a probability of 10 %, with and without dropout.
same       Studies in which the difference in loss of every variant is exactly the margin: any `same within the margin`, with a
           fixed number of seeds, and at the last look of `--seeds auto`.
bad_run    A variant with the same mean as the baseline, of which one run in 50, 20 or 10 goes wrong by 5 or 10 standard deviations
           and the others are better by as much in total: the share of studies that say `better`, of those that say it with `in most
           runs` or `on average`, and of those that say `better` although a bad run is among the seeds.

`upper` is the 97.5 % limit of a share (Clopper and Pearson). Run: python benchmarks/verdicts.py [--quick] [--json FILE]
The figures in docs/statistics.md are those of benchmarks/results/verdicts.json.
"""

import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tables: more threads are slower

import numpy as np
from report import write
from scipy import stats

from keras_dropout.bench.statistics import NO_DIFFERENCE, Row, compare_family, resolution

STUDIES = 200 if "--quick" in sys.argv else 2000
EXAMPLES = 500
METRICS = ("loss", "accuracy", "brier", "ece", "mc_loss", "mc_brier")
NOISE: dict[str, Callable] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "Student's t, 3 degrees": lambda generator, shape: generator.standard_t(3, shape),
    "lattice": lambda generator, shape: generator.integers(-1, 2, shape).astype(float),
    "normal, one in ten 10 x as wide": lambda generator, shape: (
        generator.normal(size=shape) * np.where(generator.random(shape) < 0.1, 10, 1)
    ),
}


def study(generator: np.random.Generator, noise: Callable, variants: int, seeds: int, metrics: tuple[str, ...] = METRICS) -> dict:
    """Return the metrics of a study's runs, (variants + 1, seeds) each; the first row is the baseline."""
    shape = variants + 1, seeds
    loss = 0.5 + 0.01 * (noise(generator, shape) + generator.normal(size=seeds))
    found = {"loss": loss, "accuracy": np.round((0.9 - 0.5 * (loss - 0.5) + 0.003 * noise(generator, shape)) * EXAMPLES) / EXAMPLES}
    return {name: found.get(name, loss / 2 + 0.005 * noise(generator, shape)) for name in metrics}


def rows(found: dict, margin: float | None = None) -> dict:
    """Return the rows of a study as a comparison makes them."""
    made = {}
    for metric, values in found.items():
        step = 1 / EXAMPLES if metric == "accuracy" else 0.0
        for number, each in enumerate(values[1:]):
            with np.errstate(invalid="ignore"):
                differences = each - values[0]
            sizes = resolution(each, values[0], step)
            made[metric, number] = Row(differences, metric == "accuracy", sizes, margin if metric == "loss" else None)
    return made


def any_verdict(found: dict) -> bool:
    return any(each.verdict != NO_DIFFERENCE for each in found.values())


def by_metric(made: dict) -> bool:
    """Say whether there is any verdict if each metric is a family of its own."""
    metrics = {metric for metric, _ in made}
    return any(any_verdict(compare_family({key: row for key, row in made.items() if key[0] == metric})) for metric in metrics)


def share(wrong: int, studies: int, **what: object) -> dict:
    upper = float(stats.beta.ppf(0.975, wrong + 1, studies - wrong)) if wrong < studies else 1.0
    row = what | {"studies": studies, "false": wrong / studies, "upper": round(upper, 4)}
    print(row, flush=True)
    return row


def false_verdicts() -> list[dict]:
    found = []
    for seeds in (6, 8, 10):
        for variants in (1, 3, 20):
            for name, noise in NOISE.items():
                generator, studies = np.random.default_rng([seeds, variants]), STUDIES if variants < 20 else STUDIES // 4
                made = [rows(study(generator, noise, variants, seeds)) for _ in range(studies)]
                wrong = sum(any_verdict(compare_family(each)) for each in made)
                apart = float(np.mean([by_metric(each) for each in made[: STUDIES // 4]]))
                found.append(share(wrong, studies, seeds=seeds, variants=variants, runs=name, per_metric=apart))
    return found


def strong() -> list[dict]:
    found = []
    for seeds in (6, 10):
        generator, wrong = np.random.default_rng(seeds), 0
        for _ in range(STUDIES):
            values = study(generator, NOISE["normal"], 3, seeds)
            for name, each in values.items():
                each[1] += 0.05 if name == "accuracy" else -0.05
            verdicts = compare_family(rows(values))
            wrong += any_verdict({key: each for key, each in verdicts.items() if key[1] != 0})
        found.append(share(wrong, STUDIES, seeds=seeds, variants=3))
    return found


def diverged() -> list[dict]:
    found = []
    for seeds in (6, 8, 10):
        for variants in (1, 3):
            generator, wrong = np.random.default_rng([seeds, variants]), 0
            for _ in range(STUDIES):
                values, fell = study(generator, NOISE["normal"], variants, seeds), generator.random((variants + 1, seeds)) < 0.1
                values = {name: np.where(fell, -np.inf if name == "accuracy" else np.inf, each) for name, each in values.items()}
                wrong += any_verdict(compare_family(rows(values)))
            found.append(share(wrong, STUDIES, seeds=seeds, variants=variants))
    return found


def same() -> list[dict]:
    found = []
    for seeds in (2, 6, 10):
        for variants in (1, 3):
            for name in ("normal", "Student's t, 3 degrees", "lattice"):
                generator, wrong, last = np.random.default_rng([seeds, variants]), 0, 0
                for _ in range(STUDIES):
                    differences = 0.02 + 0.01 * NOISE[name](generator, (variants, seeds))
                    made = {number: Row(each, False, margin=0.02) for number, each in enumerate(differences)}
                    wrong += any("within" in each.verdict for each in compare_family(made).values())
                    last += any("within" in each.verdict for each in compare_family(made, dict.fromkeys(made), made).values())
                what = {"seeds": seeds, "variants": variants, "differences": name, "at_the_last_look": last / STUDIES}
                found.append(share(wrong, STUDIES, **what))
    return found


def bad_run() -> list[dict]:
    found = []
    for seeds in (6, 10, 20):
        for chance, size in ((0.02, 5), (0.05, 5), (0.1, 5), (0.05, 10)):
            generator, counts = np.random.default_rng([seeds, size]), {"flat": 0, "limited": 0, "flat_with_a_bad_run": 0}
            studies = STUDIES if seeds < 20 else STUDIES // 4
            for _ in range(studies):
                bad = generator.random(seeds) < chance
                differences = generator.normal(0, 1, seeds) + size * (bad - chance)
                word = compare_family({"": Row(differences, False)})[""].verdict
                counts["flat"] += word == "better"
                counts["limited"] += word.startswith("better ")
                counts["flat_with_a_bad_run"] += word == "better" and bool(bad.any())
            shares = {name: count / studies for name, count in counts.items()}
            found.append({"seeds": seeds, "chance": chance, "size": size, "studies": studies} | shares)
            print(found[-1], flush=True)
    return found


def main() -> None:
    parts = (false_verdicts, strong, diverged, same, bad_run)
    write("verdicts", {part.__name__.removesuffix("_verdicts"): part() for part in parts})


if __name__ == "__main__":
    main()
