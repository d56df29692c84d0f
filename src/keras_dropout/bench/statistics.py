"""Intervals and verdicts from numbers. Uses numpy and scipy only, and no models or files.

All comparisons are paired by seed: a difference is (variant - baseline) of two runs that share initial weights and batch order.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats
from scipy.interpolate import CubicSpline

LEVEL = 0.05
POWER = 0.8
_MOST_PAIRS = 10_000  # the largest number that `pairs_needed` returns
_SPENDING = 1.5  # exponent of the spending function: see `sequential_verdict`
_EXACT_UP_TO = 14  # pairs; 2**14 sign patterns. Beyond, the same number of patterns is drawn at random.


@dataclass(frozen=True)
class Equivalence:
    """A mean difference against a practical margin.

    `interval` is the 90 % interval by Student's t, and `p` the larger p-value of the two one-sided t tests (TOST; Schuirmann 1987,
    J. Pharmacokinet. Biopharm. 15: 657-680): p is at most 0.05 where the interval lies within (-margin, margin). `worse`, `within`
    and `better` are the posterior probabilities that the mean is worse by more than the margin, within it, and better by more than
    it, with a flat prior on the mean and on the logarithm of the standard deviation.
    """

    margin: float
    interval: tuple[float, float]
    p: float
    worse: float
    within: float
    better: float


@dataclass(frozen=True)
class Difference:
    """A paired comparison of one variant with the baseline on one metric.

    `interval` is the 95 % interval of the mean difference by Student's t over pairs (None for fewer than two). `p` is the two-sided
    sign-flip p-value, and `p_adjusted` is p adjusted for all variants compared. `verdict` is the verdict in words. `equivalence`
    compares the mean difference with a margin, if one is given.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    p_adjusted: float
    pairs: int
    verdict: str
    equivalence: Equivalence | None = None


def finite_or_none(value: float | None) -> float | None:
    """Return a finite number as a float; None if it is not finite."""
    return None if value is None or not np.isfinite(value) else float(value)


def finite_mean(values: np.ndarray) -> float:
    """Return the mean of the finite values; nan if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def finite_sd(values: np.ndarray) -> float:
    """Return the standard deviation of the finite values; nan for fewer than two."""
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def compare_paired(
    differences: dict[str, np.ndarray], higher_is_better: bool, margin: float | None = None
) -> dict[str, Difference]:
    """Compare each variant's paired differences (one per seed, nan where a run is missing) with zero.

    p-values come from flipping the signs of whole seeds: if a variant has no effect, its differences are as likely as their
    negatives. All variants share the same flips. The adjusted p-value is Westfall and Young's step-down maximum of |t| over
    variants (1993, algorithm 2.8). It keeps the chance of any wrong verdict at 5 %. p-values cannot go below 2 / 2**pairs, so
    Bonferroni or Holm would need more seeds; with the step-down maximum, six seeds can still decide among several variants.

    A verdict needs both an adjusted p of at most 0.05 and a 95 % interval without zero. A `margin` refines the verdict: see
    `verdict_with_margin`.
    """
    names = list(differences)
    complete = {name: values[np.isfinite(values)] for name, values in differences.items()}
    p = {name: sign_flip_p([values])[0] for name, values in complete.items()}
    # A missing pair counts as a difference of 0, which flips do not change, so each variant keeps its own pairs.
    table = np.array([np.where(np.isfinite(differences[name]), differences[name], 0.0) for name in names])
    adjusted = dict(zip(names, sign_flip_p(list(table)))) if names else {}
    found = {}
    for name in names:
        values = complete[name]
        mean = float(values.mean()) if len(values) else math.nan
        interval = mean_interval(values)
        # The adjusted p-value is never below the unadjusted one.
        p_adjusted = max(p[name], adjusted[name])
        same = None if margin is None else equivalence(values, margin, higher_is_better)
        words = verdict_with_margin(verdict(mean, interval, p_adjusted, higher_is_better), same)
        found[name] = Difference(mean, interval, p[name], p_adjusted, len(values), words, same)
    return found


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(1 - LEVEL)
    return float(low), float(high)


def smallest_p(pairs: int) -> float:
    """Return the smallest two-sided p-value that `pairs` pairs can give: 2 / 2**pairs."""
    return min(1.0, 2.0 ** (1 - pairs))


def sign_flip_p(rows: list[np.ndarray]) -> list[float]:
    """Return two-sided sign-flip p-values of the rows' means, adjusted over the rows by the step-down maximum of |t|.

    With one row this is the plain sign-flip test: the share of sign patterns whose mean is at least as far from zero.
    """
    data = np.asarray(rows, dtype=float)
    pairs = data.shape[1]
    if pairs == 0:
        return [1.0] * len(rows)
    signs = _sign_patterns(pairs)
    # |t| is a rising function of mean**2 / mean of squares, and the mean of squares does not change under flips.
    size = np.sqrt((data**2).sum(axis=1))
    means = np.abs(data @ signs.T) / np.where(size > 0, size, 1.0)[:, None]  # variants x patterns; pattern 0 is the observed one
    order = np.argsort(-means[:, 0], kind="stable")
    p_values, floor = np.empty(len(rows)), 0.0
    for step, row in enumerate(order):
        largest = means[order[step:]].max(axis=0)
        # The small tolerance counts patterns as equal that differ by rounding only.
        floor = max(floor, float(np.mean(largest >= means[row, 0] * (1 - 1e-12))))
        p_values[row] = floor
    return p_values.tolist()


def verdict(mean: float, interval: tuple[float, float] | None, p_adjusted: float, higher_is_better: bool) -> str:
    """Return `better`, `worse` or `no difference shown`."""
    if interval is None or p_adjusted > LEVEL or interval[0] <= 0 <= interval[1]:
        return "no difference shown"
    return "better" if (mean > 0) == higher_is_better else "worse"


def verdict_with_margin(words: str, found: Equivalence | None) -> str:
    """Return the verdict in view of a practical margin.

    A mean shown to be within the margin (`Equivalence.p` at most 0.05) becomes `same within the margin`. If it is also shown to
    differ from zero, it becomes `better, but within the margin` or `worse, but within the margin`. Other verdicts stay.
    """
    if found is None or found.p > LEVEL:
        return words
    return f"{words}, but within the margin" if words in ("better", "worse") else "same within the margin"


def equivalence(values: np.ndarray, margin: float, higher_is_better: bool) -> Equivalence | None:
    """Compare the mean of paired differences with a margin; None for fewer than two pairs."""
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if np.ptp(values) == 0:  # rounding may give a spread other than 0
        mean, error = float(values[0]), 0.0
    t = stats.t(len(values) - 1)
    # Without spread the quotients are infinite; 0 / 0 means that the mean is on the margin, which is not within it.
    with np.errstate(divide="ignore", invalid="ignore"):
        below, above = np.nan_to_num(np.array([-margin - mean, mean - margin]) / error)
    p_below, p_above = float(t.cdf(below)), float(t.cdf(above))  # a mean below -margin, and a mean above margin
    half = float(t.ppf(1 - LEVEL)) * error
    worse, better = (p_below, p_above) if higher_is_better else (p_above, p_below)
    within = max(0.0, 1 - p_below - p_above)
    return Equivalence(margin, (mean - half, mean + half), max(p_below, p_above), worse, within, better)


@dataclass(frozen=True)
class Claim:
    """The test of a claim about the mean of numbers, one per seed. `holds` is None if the claim is neither shown nor refuted.

    `p` belongs to the statement in `holds`, or to the claim itself if `holds` is None. `interval` is the 95 % interval of the mean;
    for a claim about a figure, it is the 95 % prediction interval of one more number.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    holds: bool | None


def claim(values: np.ndarray, above: float | None = None, below: float | None = None) -> Claim:
    """Test whether the mean of finite numbers is more than `above` and less than `below`.

    A bound is kept if the 95 % interval of the mean lies inside it and the sign-flip test of the distances to it has p at most
    0.05. It is broken if the interval lies outside and p is at most 0.05. A claim with two bounds holds if both are kept (Berger
    1982), and is refuted if one is broken. Without bounds there is no claim: `holds` is None, and p tests a mean of 0.
    """
    if not len(values):
        return Claim(math.nan, None, 1.0, None)
    distances = [side * (values - bound) for bound, side in ((above, 1.0), (below, -1.0)) if bound is not None]
    if not distances:
        return Claim(float(values.mean()), mean_interval(values), sign_flip_p([values])[0], None)
    p = [sign_flip_p([each])[0] for each in distances]
    words = [verdict(float(each.mean()), mean_interval(each), one, True) for each, one in zip(distances, p)]
    holds = False if "worse" in words else True if set(words) == {"better"} else None
    decides = min(one for one, word in zip(p, words) if word == "worse") if holds is False else max(p)
    return Claim(float(values.mean()), mean_interval(values), decides, holds)


def claim_of_figure(values: np.ndarray, figure: float) -> Claim:
    """Test whether `figure` lies in the 95 % prediction interval for one more of these numbers,

        mean ± t(0.975, n - 1) * sd * sqrt(1 + 1 / n).

    With fewer than six numbers, `holds` is None. `p` is the chance of a number at least as far from the mean.
    """
    n = len(values)
    if n < fewest_pairs():
        return Claim(finite_mean(values), None, 1.0, None)
    mean, error = float(values.mean()), float(values.std(ddof=1)) * math.sqrt(1 + 1 / n)
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(figure - mean) / error, n - 1)) if error else float(figure == mean)
    return Claim(mean, (mean - half, mean + half), p, abs(figure - mean) <= half)


def wilcoxon_p(values: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test without zeros (Wilcoxon 1945, Biometrics Bulletin 1: 80-83)."""
    return float(stats.wilcoxon(values).pvalue) if np.any(values) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number by Holm's step-down (1979, Scand. J. Statist. 6: 65-70).

    The smallest of m is multiplied by m, the next by m - 1 and so on. An adjusted p-value is never smaller than the one before it,
    and never above 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def effect_size(values: np.ndarray) -> float | None:
    """Return Cohen's d of paired data: d_z = mean / standard deviation of the differences (Cohen 1988; z stands for differences).

    d_z divides by the spread that remains after pairing. It says how easily seeds show the difference, not how much the difference
    matters. None if there is no spread.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    return float(values.mean() / values.std(ddof=1))


def pairing_gain(variant: np.ndarray, baseline: np.ndarray) -> float | None:
    """Return how many times more seeds the same precision would need without pairing.

    (var(variant) + var(baseline)) / var(variant - baseline): the variance of a difference of means, unpaired over paired. None
    if the paired differences have no spread.
    """
    both = np.isfinite(variant) & np.isfinite(baseline)
    variant, baseline = variant[both], baseline[both]
    if len(variant) < 2 or np.ptp(variant - baseline) == 0:
        return None
    return float((variant.var(ddof=1) + baseline.var(ddof=1)) / (variant - baseline).var(ddof=1))


def crossed_interval(losses: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean for new seeds and new test examples, from differences (seeds, examples).

    `mean_interval` is for new seeds on the same examples. Here seeds and examples are resampled independently of each other, as in
    Owen's pigeonhole bootstrap (2007, Ann. Appl. Statist. 1: 386-411). On a full table the variance of the bootstrap has a closed
    form. Let `seeds`, `examples` and `rest` be the mean squares of the deviations of seeds, of examples and of the remainder, for S
    seeds and E examples. Then

        variance = seeds / (S - 1) + examples / E + rest / ((S - 1) E).

    S - 1 of the S seeds are drawn (Rao and Wu 1988, J. Amer. Statist. Assoc. 83: 231-241), which corrects the small spread of few
    seeds. The interval uses Student's t with S - 1 degrees of freedom, as percentiles of six seeds would be too narrow. It is wider
    than necessary if the variance comes mostly from the examples. None for fewer than two seeds.
    """
    seeds, examples = losses.shape
    if seeds < 2:
        return None
    mean, by_seed, by_example = losses.mean(dtype=float), losses.mean(axis=1, dtype=float), losses.mean(axis=0, dtype=float)
    rest = np.mean((losses - by_seed[:, None] - by_example + mean) ** 2)
    variance = by_seed.var() / (seeds - 1) + by_example.var() / examples + rest / ((seeds - 1) * examples)
    half = stats.t.ppf(1 - LEVEL / 2, seeds - 1) * math.sqrt(variance)
    return float(mean - half), float(mean + half)


def t_test_power(difference: float, sd: float, pairs: int, alpha: float = LEVEL) -> float:
    """Return the power of a two-sided paired t test for `difference`, if the differences have the standard deviation `sd`.

    P(|T| > t) of a noncentral T with pairs - 1 degrees of freedom and noncentrality difference / sd * sqrt(pairs). The power is 0
    for fewer pairs than the sign-flip test needs.
    """
    if pairs < fewest_pairs(alpha):
        return 0.0
    bound, shift = stats.t.isf(alpha / 2, pairs - 1), abs(difference) / sd * math.sqrt(pairs)
    if shift > 1e3:  # the power is 1 to all digits, and SciPy's distribution fails for larger shifts
        return 1.0
    return float(sum(np.nan_to_num(stats.nct.sf(bound, pairs - 1, side * shift)) for side in (1, -1)))


def fewest_pairs(alpha: float = LEVEL) -> int:
    """Return the fewest pairs with which a two-sided sign-flip test can reach `alpha`: 2 / 2**pairs <= alpha."""
    return math.ceil(1 - math.log2(alpha))


def pairs_needed(sd: float, difference: float, power: float = POWER, alpha: float = LEVEL) -> int | None:
    """Return the fewest pairs that show `difference` with this power: see `t_test_power`. None for more than 10,000."""
    low, high = fewest_pairs(alpha) - 1, fewest_pairs(alpha)
    if sd == 0 or difference == 0:
        return high if difference else None
    while t_test_power(difference, sd, high, alpha) < power:
        if high >= _MOST_PAIRS:
            return None
        low, high = high, min(2 * high, _MOST_PAIRS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if t_test_power(difference, sd, middle, alpha) >= power else (middle, high)
    return high


def detectable_difference(sd: float, pairs: int, power: float = POWER, alpha: float = LEVEL) -> float | None:
    """Return the smallest difference that `pairs` pairs show with this power: see `t_test_power`. None if they can show none."""
    if pairs < fewest_pairs(alpha):
        return None
    # The fewest possible pairs detect a difference of 8 standard deviations at any power.
    return sd * float(optimize.brentq(lambda size: t_test_power(size, 1.0, pairs, alpha) - power, 0, 8))


def sequential_verdict(differences: Sequence[float] | np.ndarray, *, max_pairs: int, alpha: float = LEVEL) -> str | None:
    """Return `better`, `worse`, or None while undecided, from differences in the order of their seeds, positive where better.

    Call it after every pair, or after some. If variant and baseline do not differ, at most a share `alpha` of studies ever gets a
    verdict in up to `max_pairs` pairs; `max_pairs` must be chosen in advance. Without an effect, a difference is as likely as its
    negative, so all patterns of signs are equally likely given the sizes. After pair k, the patterns with the largest |sum| cross
    the boundary: as many as keep the share of patterns that have crossed so far at or below alpha * (k / max_pairs)**1.5. This is
    the power family of spending functions (Kim and DeMets 1987, Biometrika 74: 149-154; Lan and DeMets 1983, Biometrika 70:
    659-663), with the boundary of the sign-flip test in place of the normal one. The only assumption on the distribution is
    symmetry. A larger exponent finds slightly more differences, but later: benchmarks/sequential_verdict.py.

    The verdict comes from the first pair at which the observed signs cross. It depends on the whole sequence and is never revoked:
    later pairs do not change it, and a crossing between two looks still counts. Up to 14 pairs, all patterns are enumerated. After
    that each pattern continues at random; this keeps the level, as the observed pattern is one of them. A missing pair (nan) is
    left out.
    """
    differences = np.asarray(differences, dtype=float)
    differences = differences[np.isfinite(differences)][:max_pairs]
    # Sizes are independent of signs, so they may seed the patterns. One seed for all studies would give all the same error.
    order = np.argsort(np.abs(differences[:_EXACT_UP_TO]), kind="stable") if len(differences) > _EXACT_UP_TO else ()
    signs = _sign_paths(max_pairs, tuple(map(int, order)))
    patterns = signs.shape[1]
    sums, inside, crossed = np.zeros(patterns), np.ones(patterns, dtype=bool), 0
    for pairs, difference in enumerate(differences, 1):
        sums += signs[pairs - 1] * difference
        may_cross = math.floor(_spent(pairs, max_pairs, alpha) * patterns + 1e-9) - crossed
        if may_cross < 1:
            continue
        sizes = np.where(inside, np.abs(sums), 0.0)
        boundary = np.partition(sizes, -may_cross - 1)[-may_cross - 1]
        # The small tolerance keeps patterns inside together that differ by rounding only.
        cross = sizes > boundary * (1 + 1e-12)
        if cross[0]:  # pattern 0, without a flip, is the observed one
            return "better" if sums[0] > 0 else "worse"
        inside &= ~cross
        crossed += int(cross.sum())
    return None


def first_look(max_pairs: int, alpha: float = LEVEL) -> int | None:
    """Return the fewest pairs k at which `sequential_verdict` can decide (2 / 2**k is at most the level spent by k), or None."""
    return next((k for k in range(1, max_pairs + 1) if smallest_p(k) <= _spent(k, max_pairs, alpha)), None)


def _spent(pairs: int, max_pairs: int, alpha: float) -> float:
    return alpha * (pairs / max_pairs) ** _SPENDING


@lru_cache(maxsize=16)
def _sign_paths(pairs: int, seed: tuple[int, ...]) -> np.ndarray:
    """Return patterns of signs, (pairs, patterns): all that begin with + for up to 14 pairs, continued at random after that.

    The other patterns are the negatives of these and have the same |sum|. The first pattern has no flip.
    """
    exact = min(pairs, _EXACT_UP_TO)
    begun = _sign_patterns(exact)[: 2 ** (exact - 1)].T.astype(np.int8)
    rest = 1 - 2 * np.random.default_rng(seed).integers(2, size=(pairs - exact, begun.shape[1]), dtype=np.int8)
    rest[:, 0] = 1
    return np.vstack([begun, rest])


@lru_cache(maxsize=4)
def _sign_patterns(pairs: int) -> np.ndarray:
    """Return all patterns of signs, the one without a flip first; beyond 14 pairs, 2**14 patterns drawn with a fixed seed."""
    if pairs <= _EXACT_UP_TO:
        return np.array(list(itertools.product((1.0, -1.0), repeat=pairs)))
    drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(2**_EXACT_UP_TO, pairs))
    drawn[0] = 1.0
    return drawn


@dataclass(frozen=True)
class Smooth:
    """A smooth curve through noisy values over x, with its pointwise 95 % interval and its minimum.

    `best` is the x at which the curve is lowest. `best_interval` spans all x at which the curve is not significantly higher.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: float
    best_interval: tuple[float, float]
    knots: int


def smooth_curve(x: np.ndarray, values: np.ndarray, points: int = 121) -> Smooth:
    """Fit a natural cubic regression spline through `values` (a row for each seed, a column for each x).

    The spline has 3 to 6 knots at equal distances in x; generalised cross-validation on the mean over seeds chooses the number
    (Craven and Wahba 1979). Each seed gets its own fit after its level is subtracted, since seeds are compared at the same x.
    Intervals are Student's t over the fitted curves. An x counts as good as the best if the 95 % interval of the paired difference
    of the curves, between this x and the best, contains zero.
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
    """Return half the width of the 95 % interval of the mean over rows by Student's t, by column; infinite for a single row."""
    n = len(rows)
    if n < 2:
        return np.full(rows.shape[1], np.inf)
    return stats.t.ppf(1 - LEVEL / 2, n - 1) * rows.std(axis=0, ddof=1) / np.sqrt(n)
