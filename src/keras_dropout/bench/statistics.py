"""Numbers in, intervals and verdicts out. numpy and scipy only; knows nothing of models or files.

Everything is paired by seed: a difference is (variant - baseline) of two runs that share initial weights and batch order.
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
_MOST_PAIRS = 10_000  # what more would be needed for is no plan
_SPENDING = 1.5  # how the level is spread over looks: see `sequential_verdict`
_EXACT_UP_TO = 14  # pairs; 2**14 sign patterns. Beyond, the same number of patterns is drawn at random.


@dataclass(frozen=True)
class Equivalence:
    """A mean difference against a practical margin.

    `interval` is the 90 % interval by Student's t, and `p` the larger p-value of the two one-sided t tests (TOST; Schuirmann 1987,
    J. Pharmacokinet. Biopharm. 15: 657-680): p is at most 0.05 where the interval lies within (-margin, margin). `worse`, `within`
    and `better` are probabilities that the mean is worse by more than the margin, within it, and better by more: those of a
    Bayesian who knew nothing before (flat prior on the mean and on the logarithm of the standard deviation).
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

    `interval` is the 95 % interval of the mean difference by Student's t over pairs (None for fewer than two); `p` the
    two-sided sign-flip p-value; `p_adjusted` the same, adjusted for all variants compared; `verdict` the words;
    `equivalence` what a margin brings.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    p_adjusted: float
    pairs: int
    verdict: str
    equivalence: Equivalence | None = None


def finite_or_none(value: float | None) -> float | None:
    """Return a finite number as a float; None for what is not finite."""
    return None if value is None or not np.isfinite(value) else float(value)


def finite_mean(values: np.ndarray) -> float:
    """The mean of those that are finite; nan where none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def finite_sd(values: np.ndarray) -> float:
    """The standard deviation of those that are finite; nan for fewer than two."""
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def compare_paired(
    differences: dict[str, np.ndarray], higher_is_better: bool, margin: float | None = None
) -> dict[str, Difference]:
    """Compare each variant's paired differences (one per seed, nan where a run is missing) with zero.

    p-values come from flipping the signs of whole seeds: where a variant does nothing, its differences are as likely as their
    negatives. The flips are the same for all variants, and the adjusted p-value is Westfall and Young's step-down maximum of |t|
    over variants (1993, algorithm 2.8): it holds the chance of any wrong verdict at 5 % and, unlike Bonferroni or Holm on p-values
    that cannot go below 2 / 2**pairs, it still lets six seeds decide among several variants.

    A verdict needs both: adjusted p at most 0.05 and a 95 % interval without zero. A `margin` adds words, see
    `verdict_with_margin`.
    """
    names = list(differences)
    complete = {name: values[np.isfinite(values)] for name, values in differences.items()}
    p = {name: sign_flip_p([values])[0] for name, values in complete.items()}
    # A pair that is missing counts as no difference, which no flip changes: each variant keeps the pairs it has.
    table = np.array([np.where(np.isfinite(differences[name]), differences[name], 0.0) for name in names])
    adjusted = dict(zip(names, sign_flip_p(list(table)))) if names else {}
    found = {}
    for name in names:
        values = complete[name]
        mean = float(values.mean()) if len(values) else math.nan
        interval = mean_interval(values)
        # Never below the p-value of the variant alone.
        p_adjusted = max(p[name], adjusted[name])
        same = None if margin is None else equivalence(values, margin, higher_is_better)
        words = verdict_with_margin(verdict(mean, interval, p_adjusted, higher_is_better), same)
        found[name] = Difference(mean, interval, p[name], p_adjusted, len(values), words, same)
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
    return min(1.0, 2.0 ** (1 - pairs))


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


def verdict_with_margin(words: str, found: Equivalence | None) -> str:
    """What a verdict becomes where a practical margin was given.

    A mean that is shown to be within the margin (`Equivalence.p` at most 0.05) is `same within the margin`; one that also is shown
    to differ from zero is `better, but within the margin` or `worse, but within the margin`. All else stays.
    """
    if found is None or found.p > LEVEL:
        return words
    return f"{words}, but within the margin" if words in ("better", "worse") else "same within the margin"


def equivalence(values: np.ndarray, margin: float, higher_is_better: bool) -> Equivalence | None:
    """The mean of paired differences against a margin; None for fewer than two pairs."""
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if np.ptp(values) == 0:  # rounding may leave a spread of its own
        mean, error = float(values[0]), 0.0
    t = stats.t(len(values) - 1)
    # With no spread at all the limits are infinite, and 0 / 0 is a mean on the margin: not within it.
    with np.errstate(divide="ignore", invalid="ignore"):
        below, above = np.nan_to_num(np.array([-margin - mean, mean - margin]) / error)
    p_below, p_above = float(t.cdf(below)), float(t.cdf(above))  # of a mean under -margin, and of one over margin
    half = float(t.ppf(1 - LEVEL)) * error
    worse, better = (p_below, p_above) if higher_is_better else (p_above, p_below)
    within = max(0.0, 1 - p_below - p_above)
    return Equivalence(margin, (mean - half, mean + half), max(p_below, p_above), worse, within, better)


@dataclass(frozen=True)
class Claim:
    """What numbers, one a seed, say of a claim about their mean: `holds` is None where it is neither shown nor refuted.

    `p` is that of what `holds` says, or of the claim where that is open; `interval` is the 95 % interval of the mean, or, of a
    figure, that of one more number.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    holds: bool | None


def claim(values: np.ndarray, above: float | None = None, below: float | None = None) -> Claim:
    """Whether the mean of finite numbers is more than `above`, and less than `below`.

    A bound counts as kept where the 95 % interval of the mean lies inside it and the sign-flip test of the distances to it has p at
    most 0.05, and as broken where both are so outside. A claim with two bounds holds where both are kept (Berger 1982), and is
    refuted where one is broken; without bounds nothing is said, and p is that of a mean of 0.
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
    """Whether `figure` could be one more of these numbers: whether it lies in their 95 % prediction interval,

        mean ± t(0.975, n - 1) * sd * sqrt(1 + 1 / n),

    which fewer than six numbers say nothing of. `p` is the chance of one at least as far from the mean.
    """
    n = len(values)
    if n < fewest_pairs():
        return Claim(finite_mean(values), None, 1.0, None)
    mean, error = float(values.mean()), float(values.std(ddof=1)) * math.sqrt(1 + 1 / n)
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(figure - mean) / error, n - 1)) if error else float(figure == mean)
    return Claim(mean, (mean - half, mean + half), p, abs(figure - mean) <= half)


def wilcoxon_p(values: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, zeros left out (Wilcoxon 1945, Biometrics Bulletin 1: 80-83)."""
    return float(stats.wilcoxon(values).pvalue) if np.any(values) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down (1979, Scand. J. Statist. 6: 65-70).

    The smallest of m is multiplied by m, the next by m - 1 and so on; none may fall below one before it, nor rise above 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def effect_size(values: np.ndarray) -> float | None:
    """Cohen's d of paired data: d_z = mean / standard deviation of the differences (Cohen 1988; z as they are differences).

    It measures against the spread that is left after pairing, so it tells how easily seeds show the difference, not how much it
    matters. None where there is no spread.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    return float(values.mean() / values.std(ddof=1))


def pairing_gain(variant: np.ndarray, baseline: np.ndarray) -> float | None:
    """How many times more seeds the same precision would take without pairing.

    (var(variant) + var(baseline)) / var(variant - baseline): the variance of a difference of means, unpaired over paired. None
    where there is no spread to compare.
    """
    both = np.isfinite(variant) & np.isfinite(baseline)
    variant, baseline = variant[both], baseline[both]
    if len(variant) < 2 or np.ptp(variant - baseline) == 0:
        return None
    return float((variant.var(ddof=1) + baseline.var(ddof=1)) / (variant - baseline).var(ddof=1))


def crossed_interval(losses: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean that speaks for new seeds and new test examples, from differences (seeds, examples).

    `mean_interval` speaks for new seeds on these examples. Here seeds and examples are resampled independently of each other, as in
    Owen's pigeonhole bootstrap (2007, Ann. Appl. Statist. 1: 386-411). On a full table its variance needs no drawing: with the
    mean squares of the deviations of seeds, of examples and of what is left, S seeds and E examples,

        variance = seeds / (S - 1) + examples / E + rest / ((S - 1) E).

    S - 1 of the S seeds are drawn (Rao and Wu 1988, J. Amer. Statist. Assoc. 83: 231-241), which makes up for the small spread of
    few; and the interval is that of Student's t with S - 1 degrees, as percentiles of six seeds would promise too much. Where
    the examples are the larger part it is wider than it need be. None for fewer than two seeds.
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
    """The chance that a two-sided paired t test shows `difference` where the differences have the standard deviation `sd`.

    P(|T| > t) of a noncentral T with pairs - 1 degrees and noncentrality difference / sd * sqrt(pairs); 0 below the pairs that the
    sign-flip test needs.
    """
    if pairs < fewest_pairs(alpha):
        return 0.0
    bound, shift = stats.t.isf(alpha / 2, pairs - 1), abs(difference) / sd * math.sqrt(pairs)
    if shift > 1e3:  # the power is 1 to all digits, and SciPy's distribution breaks down further out
        return 1.0
    return float(sum(np.nan_to_num(stats.nct.sf(bound, pairs - 1, side * shift)) for side in (1, -1)))


def fewest_pairs(alpha: float = LEVEL) -> int:
    """The fewest pairs that a two-sided sign-flip test can reach `alpha` with: 2 / 2**pairs <= alpha."""
    return math.ceil(1 - math.log2(alpha))


def pairs_needed(sd: float, difference: float, power: float = POWER, alpha: float = LEVEL) -> int | None:
    """The fewest pairs that show `difference` with the power wanted: see `t_test_power`. None for more than 10,000."""
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
    """The smallest difference that `pairs` pairs show with the power wanted: see `t_test_power`. None where they can show none."""
    if pairs < fewest_pairs(alpha):
        return None
    # 8 standard deviations are found by the fewest pairs there can be, whatever the power.
    return sd * float(optimize.brentq(lambda size: t_test_power(size, 1.0, pairs, alpha) - power, 0, 8))


def sequential_verdict(differences: Sequence[float] | np.ndarray, *, max_pairs: int, alpha: float = LEVEL) -> str | None:
    """`better`, `worse`, or None while undecided, from differences in the order of their seeds, positive where better.

    May be asked after every pair, or after some: at most `alpha` of the studies in which nothing differs ever get a verdict, up to
    `max_pairs`, which must be chosen before. Where nothing differs a difference is as likely as its negative, so that all patterns
    of signs are equally likely given the sizes. After pair k the patterns whose |sum| is the largest cross the boundary, as many as
    bring the share of those that crossed at any pair so far to at most alpha * (k / max_pairs)**1.5: the power family of
    spending functions (Kim and DeMets 1987, Biometrika 74: 149-154; Lan and DeMets 1983, Biometrika 70: 659-663), with the
    boundary of the sign-flip test in place of the normal one. Nothing but symmetry is asked of the distribution. A larger
    exponent finds a little more, and later: benchmarks/sequential_verdict.py.

    The verdict is that of the first pair at which the signs seen cross. It depends on the whole sequence and is never taken back:
    later pairs, or a boundary that was crossed between two looks, change nothing. Up to 14 pairs all patterns are there; after that
    each goes on at random, which keeps the level, as what was seen is one of them. A missing pair (nan) is left out.
    """
    differences = np.asarray(differences, dtype=float)
    differences = differences[np.isfinite(differences)][:max_pairs]
    # Sizes say nothing of signs, so they may seed the patterns; one set for all studies would be off for all in the same way.
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
        # A hair above, so that patterns equal but for rounding stay inside together.
        cross = sizes > boundary * (1 + 1e-12)
        if cross[0]:  # the pattern without a flip is what was seen
            return "better" if sums[0] > 0 else "worse"
        inside &= ~cross
        crossed += int(cross.sum())
    return None


def first_look(max_pairs: int, alpha: float = LEVEL) -> int | None:
    """The fewest pairs at which `sequential_verdict` can decide: 2 / 2**k is no more than may be spent by then; None for none."""
    return next((k for k in range(1, max_pairs + 1) if smallest_p(k) <= _spent(k, max_pairs, alpha)), None)


def _spent(pairs: int, max_pairs: int, alpha: float) -> float:
    return alpha * (pairs / max_pairs) ** _SPENDING


@lru_cache(maxsize=16)
def _sign_paths(pairs: int, seed: tuple[int, ...]) -> np.ndarray:
    """Patterns of signs, (pairs, patterns): all that begin with + for up to 14 pairs, continued at random after that.

    The others are the negatives of these, of which |sum| knows nothing. The first has no flip at all.
    """
    exact = min(pairs, _EXACT_UP_TO)
    begun = _sign_patterns(exact)[: 2 ** (exact - 1)].T.astype(np.int8)
    rest = 1 - 2 * np.random.default_rng(seed).integers(2, size=(pairs - exact, begun.shape[1]), dtype=np.int8)
    rest[:, 0] = 1
    return np.vstack([begun, rest])


@lru_cache(maxsize=4)
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
