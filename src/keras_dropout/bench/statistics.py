"""Numbers in, intervals and verdicts out. numpy and scipy only; knows nothing of models or files.

Everything is paired by seed: a difference is (variant - baseline) of two runs that share initial weights and batch order.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.interpolate import CubicSpline

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


@dataclass(frozen=True)
class Smooth:
    """A smooth curve through noisy values over x, with its pointwise 95 % interval, and where it is lowest.

    `best` is where the curve is lowest, `best_interval` reaches over all x where it is not shown to be higher than there.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: float
    best_interval: tuple[float, float]
    knots: int


def smooth_curve(x: np.ndarray, values: np.ndarray, points: int = 121) -> Smooth:
    """A natural cubic regression spline through `values` (a row for each seed, a column for each x).

    Knots are at equal distances in x, 3 to 6 of them, as many as generalised cross-validation on the mean over seeds asks for
    (Craven and Wahba 1979). The spline is fitted to each seed, after the seed's own level is taken out, since seeds are compared
    at the same x; intervals are Student's t over the fitted curves. Those x are taken for as good as the best where the paired
    difference of the curves, there and at the best, has zero in its 95 % interval.
    """
    rows = values[np.isfinite(values).all(axis=1)]
    if not len(rows):
        raise ValueError("no row is complete")
    level = rows.mean(axis=1, keepdims=True)
    rows = rows - level + level.mean()
    mean = rows.mean(axis=0)

    def design(knots: int, at: np.ndarray) -> np.ndarray:
        places = np.linspace(x[0], x[-1], knots)
        return CubicSpline(places, np.eye(knots), bc_type="natural")(at)

    def score(knots: int) -> float:
        basis = design(knots, x)
        residual = mean - basis @ np.linalg.lstsq(basis, mean, rcond=None)[0]
        return float(residual @ residual) / (len(x) - knots) ** 2

    knots = min(range(3, min(6, len(x) - 1) + 1), key=score) if len(x) > 3 else len(x)
    grid = np.union1d(np.linspace(x[0], x[-1], points), x)
    curves = (design(knots, grid) @ np.linalg.lstsq(design(knots, x), rows.T, rcond=None)[0]).T
    middle = curves.mean(axis=0)
    lowest = int(middle.argmin())
    half = _half_width(curves)
    as_good = grid[middle - middle[lowest] <= _half_width(curves - curves[:, [lowest]])]
    return Smooth(grid, middle, middle - half, middle + half, float(grid[lowest]), (float(as_good[0]), float(as_good[-1])), knots)


def _half_width(rows: np.ndarray) -> np.ndarray:
    """Half the 95 % interval of the mean over rows by Student's t, for each column; without end for a single row."""
    n = len(rows)
    if n < 2:
        return np.full(rows.shape[1], np.inf)
    return stats.t.ppf(1 - LEVEL / 2, n - 1) * rows.std(axis=0, ddof=1) / np.sqrt(n)
