"""Whether "80 % power" is 80 %, what pairs cost and gain, and what the interval for new examples covers: all by simulation.

power      Normal differences with the effect that `detectable_effect` names for 80 % power, beside `rows - 1` independent rows
           without effect: the share of studies in which the real rule (sign flips, step-down maximum, interval) says "better".
           `t_test` is the effect that the noncentral t distribution names without any adjustment, and `t_test_seen` its real power.
           `correlated` is the share at `effect` if all rows have correlation 0.5, as variants with one baseline have.
pairing    Runs with a shared part, so that variant and baseline have a given correlation, and a variant that is better by two
           standard deviations of a run: the power of the paired rule, and of a permutation test that exchanges labels.
crossed    Seeds x examples with given standard deviations of seed, example and rest: the coverage of `crossed_interval`, and of the
           pigeonhole bootstrap in its place; width over that of an interval with the true variance.

Run: python benchmarks/power.py [--quick] [--json FILE]
The figures in docs/statistics.md are those of benchmarks/results/power.json.
"""

import itertools
import math
import sys

import numpy as np
from report import write
from scipy import optimize, stats

from keras_dropout.bench.power import detectable_effect
from keras_dropout.bench.statistics import crossed_interval, mean_interval, sign_flip_p, verdict

STUDIES = 1000 if "--quick" in sys.argv else 10_000
PAIRS, ROWS = (6, 8, 10, 20), (1, 3, 6, 10)
PARTS = ((1, 0, 0), (0.3, 1, 1), (0.3, 3, 3), (0.1, 5, 5), (0, 1, 10), (0, 0, 1))  # standard deviations of seed, example and rest


def real_power(effect: float, pairs: int, rows: int, studies: int, correlation: float = 0) -> float:
    """The share of studies in which the rule itself says "better" of the first row."""
    found, draws = 0, np.random.default_rng([pairs, rows])
    for _ in range(studies):
        table = math.sqrt(1 - correlation) * draws.normal(size=(rows, pairs)) + math.sqrt(correlation) * draws.normal(size=pairs)
        table[0] += effect
        found += verdict(table[0].mean(), mean_interval(table[0]), sign_flip_p(list(table))[0], True) == "better"
    return found / studies


def t_test_effect(pairs: int) -> float:
    """The effect that a two-sided t test of one row finds with 80 % power."""
    bound = stats.t.isf(0.025, pairs - 1)
    return optimize.brentq(lambda effect: stats.nct.sf(bound, pairs - 1, effect * math.sqrt(pairs)) - 0.8, 0.1, 8)


def powers() -> list[dict]:
    rows = []
    for pairs, family in itertools.product(PAIRS, ROWS):
        studies = STUDIES if pairs <= 10 else STUDIES // 5  # 2**14 patterns each
        effect, old = detectable_effect(pairs, family), t_test_effect(pairs)
        row = {"pairs": pairs, "rows": family, "effect": round(effect, 3), "seen": real_power(effect, pairs, family, studies)}
        row |= {"correlated": real_power(effect, pairs, family, studies // 4, 0.5)} if family > 1 and pairs < 20 else {}
        row |= {"t_test": round(old, 3), "t_test_seen": real_power(old, pairs, family, studies), "studies": studies}
        print(row, flush=True)
        rows.append(row)
    return rows


def unpaired_p(variant: np.ndarray, baseline: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Two-sided p-values of the difference of means over the ways to choose the variant's runs, a study in each row."""
    pooled = np.concatenate([variant, baseline], axis=1)
    sums = np.abs(pooled @ chosen.T - pooled.sum(axis=1, keepdims=True) / 2)
    return np.mean(sums >= sums[:, :1] * (1 - 1e-12), axis=1)


def pairing() -> list[dict]:
    rows = []
    for pairs, correlation in itertools.product((6, 10), (0, 0.25, 0.5, 0.75)):
        draws, studies = np.random.default_rng(pairs), STUDIES if pairs == 6 else STUDIES // 10
        ways = itertools.combinations(range(2 * pairs), pairs)
        chosen = np.array([np.isin(np.arange(2 * pairs), way) for way in ways], dtype=float)
        shared = draws.normal(size=(studies, pairs)) * math.sqrt(correlation)
        baseline, variant = shared + draws.normal(size=(2, studies, pairs)) * math.sqrt(1 - correlation)
        variant = variant + (2 if pairs == 6 else 1.5)
        paired = [
            verdict(each.mean(), mean_interval(each), sign_flip_p([each])[0], True) == "better" for each in variant - baseline
        ]
        p = np.concatenate([unpaired_p(v, b, chosen) for v, b in zip(np.array_split(variant, 100), np.array_split(baseline, 100))])
        row = {"pairs": pairs, "correlation": correlation, "difference": 2 if pairs == 6 else 1.5, "paired": float(np.mean(paired))}
        row |= {"unpaired": float(np.mean((p <= 0.05) & (variant.mean(axis=1) > baseline.mean(axis=1)))), "studies": studies}
        print(row, flush=True)
        rows.append(row)
    return rows


def bootstrap_interval(losses: np.ndarray) -> tuple[float, float]:
    """The variance of the pigeonhole bootstrap (Owen 2007) with S - 1 of S seeds drawn, and t with S - 1 degrees of freedom."""
    seeds, examples = losses.shape
    mean, by_seed, by_example = losses.mean(), losses.mean(axis=1), losses.mean(axis=0)
    rest = np.mean((losses - by_seed[:, None] - by_example + mean) ** 2)
    variance = by_seed.var() / (seeds - 1) + by_example.var() / examples + rest / ((seeds - 1) * examples)
    half = stats.t.isf(0.025, seeds - 1) * math.sqrt(variance)
    return mean - half, mean + half


def crossed() -> list[dict]:
    rows = []
    for number, ((seeds, examples), parts) in enumerate(itertools.product(((6, 300), (6, 10_000), (10, 300), (20, 300)), PARTS)):
        draws, tables = np.random.default_rng(number), STUDIES // (20 if examples > 1000 else 2)
        row = {"seeds": seeds, "examples": examples, "parts": list(parts), "studies": tables}
        true = 2 * 1.96 * math.sqrt(parts[0] ** 2 / seeds + parts[1] ** 2 / examples + parts[2] ** 2 / (seeds * examples))
        found: dict[str, list[tuple[float, float]]] = {"new": [], "bootstrap": []}
        for _ in range(tables):
            shape = (seeds, examples)
            losses = sum(part * draws.normal(size=size) for part, size in zip(parts, ((seeds, 1), (1, examples), shape)))
            losses = np.broadcast_to(losses, shape)
            found["new"].append(crossed_interval(losses))
            found["bootstrap"].append(bootstrap_interval(losses))
        for name, intervals in found.items():
            low, high = np.transpose(intervals)
            row |= {f"{name}_coverage": float(np.mean((low <= 0) & (high >= 0)))}
            row |= {f"{name}_width": round(float(np.mean(high - low)) / true, 3)}
        print(row, flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    write("power", {"power": powers(), "pairing": pairing(), "crossed": crossed()})
