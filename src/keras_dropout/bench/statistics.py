"""Numbers in, intervals and verdicts out. numpy and scipy only; knows nothing of models or files.

Everything is paired by seed: a difference is (variant - baseline) of two runs that share initial weights and batch order.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
_EXACT_UP_TO = 14  # pairs; 2**14 sign patterns. Beyond, the same number of patterns is drawn at random.


@dataclass(frozen=True)
class Difference:
    """A paired comparison of one variant with the baseline on one metric.

    `interval` is the 95 % interval of the mean difference by Student's t over pairs (None for fewer than two); `p` the
    two-sided sign-flip p-value; `p_adjusted` the same, adjusted for all variants compared; `verdict` the words.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    p_adjusted: float
    pairs: int
    verdict: str


def compare_paired(differences: dict[str, np.ndarray], higher_is_better: bool) -> dict[str, Difference]:
    """Compare each variant's paired differences (one per seed, nan where a run is missing) with zero.

    p-values come from flipping the signs of whole seeds: where a variant does nothing, its differences are as likely as their
    negatives. The flips are the same for all variants, and the adjusted p-value is Westfall and Young's step-down maximum of |t|
    over variants (1993, algorithm 2.8): it holds the chance of any wrong verdict at 5 % and, unlike Bonferroni or Holm on p-values
    that cannot go below 2 / 2**pairs, it still lets six seeds decide among several variants.

    A verdict needs both: adjusted p at most 0.05 and a 95 % interval without zero.
    """
    names = list(differences)
    complete = {name: values[np.isfinite(values)] for name, values in differences.items()}
    p = {name: sign_flip_p([values])[0] for name, values in complete.items()}
    # Joint flips need one row per seed: seeds that miss a variant are left out of the adjustment.
    table = np.array([differences[name] for name in names])
    whole = table[:, np.isfinite(table).all(axis=0)] if names else table
    adjusted = dict(zip(names, sign_flip_p(list(whole)))) if whole.size else dict.fromkeys(names, 1.0)
    found = {}
    for name in names:
        values = complete[name]
        mean = float(values.mean()) if len(values) else math.nan
        interval = mean_interval(values)
        # Never below the p-value of the variant alone.
        p_adjusted = max(p[name], adjusted[name])
        words = verdict(mean, interval, p_adjusted, higher_is_better)
        found[name] = Difference(mean, interval, p[name], p_adjusted, len(values), words)
    return found


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(1 - LEVEL)
    return float(low), float(high)


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p-value that `pairs` pairs can give: 2 / 2**pairs."""
    return 1.0 if pairs < 1 else 2.0 / 2.0**pairs


def sign_flip_p(rows: list[np.ndarray]) -> list[float]:
    """Two-sided sign-flip p-values of the rows' means, adjusted over the rows by the step-down maximum of |t|.

    With one row this is the plain sign-flip test: the share of sign patterns with a mean as far from zero.
    """
    data = np.asarray(rows, dtype=float)
    pairs = data.shape[1]
    if pairs == 0:
        return [1.0] * len(rows)
    signs = _sign_patterns(pairs)
    # |t| is a rising function of mean**2 / mean of squares, and the mean of squares does not change under flips.
    size = np.sqrt((data**2).sum(axis=1))
    means = np.abs(data @ signs.T) / np.where(size > 0, size, 1.0)[:, None]  # variants x patterns; pattern 0 is what was seen
    order = np.argsort(-means[:, 0], kind="stable")
    p_values, floor = np.empty(len(rows)), 0.0
    for step, row in enumerate(order):
        largest = means[order[step:]].max(axis=0)
        # A hair below, so that patterns equal but for rounding count as equal.
        floor = max(floor, float(np.mean(largest >= means[row, 0] * (1 - 1e-12))))
        p_values[row] = floor
    return p_values.tolist()


def verdict(mean: float, interval: tuple[float, float] | None, p_adjusted: float, higher_is_better: bool) -> str:
    """`better`, `worse` or `no difference shown`."""
    if interval is None or p_adjusted > LEVEL or interval[0] <= 0 <= interval[1]:
        return "no difference shown"
    return "better" if (mean > 0) == higher_is_better else "worse"


def _sign_patterns(pairs: int) -> np.ndarray:
    """All patterns of signs, the one without a flip first; beyond 14 pairs 2**14 of them, drawn with a fixed seed."""
    if pairs <= _EXACT_UP_TO:
        return np.array(list(itertools.product((1.0, -1.0), repeat=pairs)))
    drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(2**_EXACT_UP_TO, pairs))
    drawn[0] = 1.0
    return drawn
