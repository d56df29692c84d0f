"""How often verdicts are false if each seed divides one data set anew (`compare --resample-split`), and what they show.

Each study draws a data set of 100 or 400 examples, and 30 divisions of it into 72 % training, 8 % validation and 20 % test
examples. Its learners are equally good by construction: each sees features of its own, all of which matter equally. On the data
set drawn, one is better by chance; a verdict is false, as other data would say otherwise.

false      The share of studies with any verdict, by learner, examples, seeds and variants: by the usual rule, which takes the
           divisions as independent (`usual`); by this rule and an interval that allows for the overlap, each variant by itself
           (`interval`); and by the rule of `compare --resample-split`, which also adjusts that for the variants (`rule`).
auto       The same for the rule of `--seeds auto`, with and without the adjusted allowance for overlap at each look.
power      Normal differences with a common part as large as the rule supposes, and the effect that `detectable_effect` names for
           80 % power, beside rows without effect: the share with a verdict.

Least squares have a squared loss; nearest means an error in steps of one test example. `upper` is the 97.5 % limit of `rule`
(Clopper and Pearson). Run: python benchmarks/resampling.py [--quick] [--json FILE]
The figures in docs/statistics.md are those of benchmarks/results/resampling.json.
"""

import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: more threads are slower

import numpy as np
from report import write
from scipy import stats

from keras_dropout.bench.data.splits import divide
from keras_dropout.bench.power import detectable_effect
from keras_dropout.bench.racing import sequential_verdicts
from keras_dropout.bench.statistics import (
    LEVEL,
    NO_DIFFERENCE,
    Row,
    compare_family,
    holm,
    overlapping_p,
)

STUDIES = 100 if "--quick" in sys.argv else 2000
SEEDS = (6, 10, 20, 30)
FEATURES = 2  # of each learner


def least_squares(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Return the mean squared error on the test examples of a linear model fitted to the training examples."""
    whole = np.column_stack([x, np.ones(len(x))])
    fitted = np.linalg.lstsq(whole[train], y[train], rcond=None)[0]
    return float(np.mean((whole[test] @ fitted - y[test]) ** 2))


def nearest_means(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Return the share of test examples that lie nearer to the mean of the other of two classes."""
    means = [x[train][(y[train] > 0) == side].mean(axis=0) for side in (False, True)]
    distances = [((x[test] - mean) ** 2).sum(axis=1) for mean in means]
    return float(np.mean((distances[1] < distances[0]) != (y[test] > 0)))


LEARNERS: dict[str, Callable] = {"least squares": least_squares, "nearest means": nearest_means}


def study(generator: np.random.Generator, learner: Callable, examples: int, variants: int, seeds: int) -> tuple[np.ndarray, float]:
    """Return the differences to the baseline, (variants, seeds), and the overlap of the divisions."""
    x = generator.normal(size=(variants + 1, examples, FEATURES))
    y = x.sum(axis=(0, 2)) + generator.normal(size=examples)
    scores = np.empty((variants + 1, seeds))
    for seed in range(seeds):
        split = divide(examples, seed=int(generator.integers(2**62)))
        scores[:, seed] = [learner(each, y, split.train, split.test) for each in x]
    return scores[1:] - scores[0], len(split.test) / len(split.train)


def verdicts(differences: np.ndarray, overlap: float) -> list[str]:
    """Return the verdict on each variant."""
    return [
        each.verdict for each in compare_family({n: Row(row, False, overlap=overlap) for n, row in enumerate(differences)}).values()
    ]


def any_shown(words: list[str]) -> bool:
    return any(word != NO_DIFFERENCE for word in words)


def false() -> list[dict]:
    found = []
    for name, learner in LEARNERS.items():
        for examples in (100, 400):
            for variants in (1, 3):
                generator = np.random.default_rng([examples, variants])
                counts = {seeds: {"usual": 0, "interval": 0, "rule": 0} for seeds in SEEDS}
                for _ in range(STUDIES):
                    differences, overlap = study(generator, learner, examples, variants, max(SEEDS))
                    for seeds, count in counts.items():
                        seen = differences[:, :seeds]
                        usual = verdicts(seen, 0.0)
                        alone = [overlapping_p(row, overlap) <= LEVEL for row in seen]
                        count["usual"] += any_shown(usual)
                        count["interval"] += any(word != NO_DIFFERENCE and shown for word, shown in zip(usual, alone))
                        count["rule"] += any_shown(verdicts(seen, overlap))
                for seeds, count in counts.items():
                    shares = {rule: number / STUDIES for rule, number in count.items()}
                    upper = float(stats.beta.ppf(0.975, count["rule"] + 1, STUDIES - count["rule"]))
                    what = {"learner": name, "examples": examples, "variants": variants, "seeds": seeds, "studies": STUDIES}
                    found.append(what | shares | {"upper": upper})
                    print(found[-1], flush=True)
    return found


def auto(most: int = 30, first: int = 9) -> list[dict]:
    found = []
    for variants in (1, 3):
        generator, studies, counts = np.random.default_rng([most, variants]), STUDIES // 5, {"usual": 0, "with_overlap": 0}
        for _ in range(studies):
            differences, overlap = study(generator, least_squares, 400, variants, most)
            looks = {"usual": False, "with_overlap": False}
            for seeds in range(first, most + 1):
                seen = differences[:, :seeds]
                words = sequential_verdicts(list(seen), max_pairs=most)
                p = holm([overlapping_p(row, overlap) for row in seen])
                looks["usual"] |= any(words)
                looks["with_overlap"] |= any(word and each <= LEVEL for word, each in zip(words, p))
            for name, shown in looks.items():
                counts[name] += shown
        found.append({"variants": variants, "max_seeds": most, "studies": studies} | {n: c / studies for n, c in counts.items()})
        print(found[-1], flush=True)
    return found


def power(overlap: float = 0.28) -> list[dict]:
    found = []
    for seeds in SEEDS:
        for rows in (1, 3, 6):
            generator, effect = np.random.default_rng([seeds, rows]), detectable_effect(seeds, rows, overlap=overlap)
            shown = 0
            for _ in range(STUDIES):
                differences = generator.normal(size=(rows, seeds)) + overlap**0.5 * generator.normal(size=(rows, 1))
                differences[0] += effect
                shown += verdicts(differences, overlap)[0] == "worse"
            found.append({"seeds": seeds, "rows": rows, "overlap": overlap, "effect": effect, "shown": shown / STUDIES})
            print(found[-1], flush=True)
    return found


def main() -> None:
    write("resampling", {part.__name__: part() for part in (false, auto, power)})


if __name__ == "__main__":
    main()
