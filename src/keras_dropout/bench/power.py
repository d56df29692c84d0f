"""Power of the verdict's own rule: how many seeds show a difference, and how large a difference some seeds show.

The rule needs two things: a sign-flip p, adjusted over the rows of the family by the step-down maximum, of at most 0.05, and a 95 %
interval without zero. A row is one variant's differences on one metric. All functions assume normal differences, and that the other
rows of the family are independent and have no effect. This is conservative: rows that share a baseline, or are metrics of the same
runs, are correlated and cost less power; the step-down leaves out rows with an effect.

With an `overlap`, of a study that divides its data anew for each seed, the rule also needs `statistics.overlapping_p`, adjusted
over the rows. Differences then share a part, whose variance is `overlap` times that of the rest. More seeds do not make this part
smaller, so there is a difference that no number of seeds shows: `detectable_floor`.
"""

import itertools
import math
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from keras_dropout.bench.statistics import LEVEL, fewest_pairs, independent_pairs

POWER = 0.8
MOST_PAIRS = 10_000  # the largest number that `pairs_needed` returns
_SIMULATED_UP_TO = 8  # pairs; with more, the t test at Sidak's level has the same power
_FRESH = 16  # rows that are drawn; the largest of more comes from these, combined at random
_STUDIES = 600_000  # times patterns of signs, simulated for each number of pairs and rows


def power(effect: float, pairs: int, rows: int = 1, overlap: float = 0.0) -> float:
    """Return the chance of a verdict on the right side for a mean of `effect` standard deviations of the differences.

    `pairs` are the seeds, `rows` the variants times the metrics that are tested together. 0 for fewer pairs than the sign-flip test
    needs.

    Up to 8 pairs, the residuals of the row and the sign flips of the other rows are simulated. Each study gives the smallest mean
    h that gets a verdict, and the power is the mean of Phi(sqrt(pairs) (effect - h)) over studies. With more pairs it is the power
    of a t test at Sidak's level 1 - (1 - a)^(1 / rows) (1967, J. Amer. Statist. Assoc. 62: 626-633), where a is the largest p that
    sign flips can give up to 0.05. How well that agrees with the rule: benchmarks/power.py.

    With an overlap, h is at least the mean that `overlapping_p` at the level 0.05 / rows needs, the first step of Holm's, and in
    place of pairs stands `independent_pairs`.
    """
    if pairs < fewest_pairs():
        return 0.0
    independent = independent_pairs(pairs, overlap)
    of_overlap = -special.stdtrit(pairs - 1, LEVEL / rows / 2) if overlap else 0.0
    if pairs <= _SIMULATED_UP_TO:
        smallest, spreads = _smallest_means(pairs, rows)
        smallest = np.maximum(smallest, of_overlap * spreads / math.sqrt(independent))
        return float(special.ndtr(math.sqrt(independent) * (effect - smallest)).mean())
    shift = effect * math.sqrt(independent)
    patterns = 2.0 ** min(pairs - 1, 50)
    level = -math.expm1(math.log1p(-math.floor(LEVEL * patterns) / patterns) / rows)
    bound = max(-special.stdtrit(pairs - 1, level / 2) * math.sqrt(independent / pairs), of_overlap)
    missed = float(special.nctdtr(pairs - 1, shift, bound))
    return 1.0 if math.isnan(missed) else 1 - missed  # SciPy gives nan for shifts so large that the power is 1 to all digits


@lru_cache(maxsize=4096)
def detectable_effect(pairs: int, rows: int = 1, wanted: float = POWER, overlap: float = 0.0) -> float | None:
    """Return the smallest mean, in standard deviations of the differences, with this power; None if there is none."""
    if pairs < fewest_pairs():
        return None
    largest = 8.0
    while power(largest, pairs, rows, overlap) < wanted:
        largest *= 2
    return float(optimize.brentq(lambda effect: power(effect, pairs, rows, overlap) - wanted, 0, largest, xtol=1e-6))


def detectable_difference(sd: float, pairs: int, rows: int = 1, wanted: float = POWER, overlap: float = 0.0) -> float | None:
    """Return the smallest difference with this power, if the differences have the standard deviation `sd`: see `power`."""
    effect = detectable_effect(pairs, rows, wanted, overlap)
    return None if effect is None else sd * effect


def detectable_floor(sd: float, overlap: float, rows: int = 1, wanted: float = POWER) -> float:
    """Return the difference that any number of overlapping divisions shows with this power: smaller ones need more data.

    (z(1 - 0.05 / rows / 2) + z(wanted)) * sd * sqrt(overlap) with quantiles z of the normal distribution.
    """
    return float(stats.norm.isf(LEVEL / rows / 2) + stats.norm.ppf(wanted)) * sd * math.sqrt(overlap)


def pairs_needed(sd: float, difference: float, rows: int = 1, wanted: float = POWER, overlap: float = 0.0) -> int | None:
    """Return the fewest pairs that show `difference` with this power: see `power`. None for more than 10,000, or for any number."""
    low, high = fewest_pairs() - 1, fewest_pairs()
    if sd == 0 or difference == 0:
        return high if difference else None
    effect = abs(difference) / sd
    if effect <= detectable_floor(1.0, overlap, rows, wanted):
        return None

    def shows(pairs: int) -> bool:
        return (detectable_effect(pairs, rows, wanted, overlap) or math.inf) <= effect

    while not shows(high):
        if high >= MOST_PAIRS:
            return None
        low, high = high, min(2 * high, MOST_PAIRS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def sd_interval(sd: float, pairs: int) -> tuple[float, float]:
    """Return the 95 % interval of the standard deviation that was seen in `pairs` normal differences.

    sd * sqrt((pairs - 1) / q) with the 97.5 % and 2.5 % quantiles q of chi-square with pairs - 1 degrees of freedom.
    """
    low, high = (sd * math.sqrt((pairs - 1) / stats.chi2.isf(tail, pairs - 1)) for tail in (LEVEL / 2, 1 - LEVEL / 2))
    return low, high


@lru_cache(maxsize=64)
def _smallest_means(pairs: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest mean that gets a verdict in each simulated study, and the spread seen, in standard deviations.

    Let x = e + mu with residuals e. Under the signs s, with mean b, the sum of the flipped x is as far from 0 as that of x if
    |e.s / n + mu b| >= mu: for means mu up to max(e.s / (1 - b), -e.s / (1 + b)) / n. Another row, whose flipped mean is the
    share v of its root mean square, is as far from 0 for mu up to rms(e) v / sqrt(1 - v^2). So each pattern of signs has a
    largest mean at which it still counts, and p is at most 0.05 for means above all but the largest of these, as many as p allows.
    """
    generator = np.random.default_rng([pairs, rows])
    # Patterns in which the first sign is +: the others are their negatives. Pattern 0, the observed one, always counts.
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=pairs - 1)))[1:]
    signs = np.column_stack([np.ones(len(signs)), signs]).astype("float32")
    shape = (_STUDIES // len(signs), pairs)
    residuals = generator.standard_normal(shape, dtype="float32")
    residuals -= residuals.mean(axis=1, keepdims=True)
    sizes = np.sqrt(np.mean(residuals**2, axis=1))
    sums, b = residuals @ signs.T / pairs, signs.mean(axis=1)
    largest = np.maximum(sums / (1 - b), -sums / (1 + b))
    if rows > 1:
        shares = _largest_shares(rows - 1, shape[0], signs, generator)
        largest = np.maximum(largest, sizes[:, None] * shares / np.sqrt(np.maximum(1 - shares**2, 1e-12)))
    may_count = math.floor(LEVEL * (len(signs) + 1))
    beyond = np.partition(largest, -may_count)[:, -may_count]
    smallest = np.maximum(beyond, stats.t.isf(LEVEL / 2, pairs - 1) * sizes / math.sqrt(pairs - 1))
    return smallest, sizes * math.sqrt(pairs / (pairs - 1))


def _largest_shares(rows: int, studies: int, signs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the largest |mean| / root mean square of so many normal rows under each pattern of signs, (studies, patterns)."""
    if rows > _FRESH:
        half = _largest_shares((rows + 1) // 2, studies, signs, generator)
        return np.maximum(half, generator.permutation(half))
    found = np.zeros((studies, len(signs)), "float32")
    for _ in range(rows):
        null = generator.standard_normal((studies, signs.shape[1]), dtype="float32")
        null /= np.linalg.norm(null, axis=1, keepdims=True) * math.sqrt(signs.shape[1])
        np.maximum(found, np.abs(null @ signs.T), out=found)
    return found
