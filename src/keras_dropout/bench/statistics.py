"""Intervals and verdicts from numbers. Uses numpy and scipy only, and no models or files.

All comparisons are paired by seed: a difference is (variant - baseline) of two runs that share initial weights and batch order.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from scipy import special, stats
from scipy.interpolate import CubicSpline

LEVEL = 0.05
NO_DIFFERENCE = "no difference shown"
SLOPE = 0.02  # share of a whole fall: a curve with less in its last tenth has levelled out
_SPENDING = 1.5  # exponent of the spending function: see `sequential_verdict`
_EXACT_UP_TO = 14  # pairs; 2**14 sign patterns. Beyond, the same number of patterns is drawn at random.
_FAR = 4  # standard deviations; normal differences that are shown to be better seldom have such a pair against them
_PATTERNS_AT_ONCE = 2048  # limits the memory of a family of thousands of rows
_ROUNDING = 8 * float(np.finfo(np.float32).eps)  # of a metric that is a mean over batches in float32, relative to its size
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Equivalence:
    """A mean difference against a practical margin.

    `interval` is the 90 % interval by Student's t, and `p` the larger p-value of the two one-sided t tests (TOST; Schuirmann 1987,
    J. Pharmacokinet. Biopharm. 15: 657-680): p is at most 0.05 where the interval lies within (-margin, margin). `worse`, `within`
    and `better` are the posterior probabilities that the mean is worse by more than the margin, within it, and better by more than
    it, with a flat prior on the mean and on the logarithm of the standard deviation. `p_adjusted` is the larger p-value of the two
    one-sided sign-flip tests, adjusted for all variants: see `compare_family`. It is 1 if there are too few pairs for a verdict.
    """

    margin: float
    interval: tuple[float, float]
    p: float
    worse: float
    within: float
    better: float
    p_adjusted: float = 1.0


@dataclass(frozen=True)
class Row:
    """The paired differences (variant - baseline) of one variant on one metric, one per seed.

    A difference is nan if a run is missing or both runs diverged, and infinite if one of them diverged. `resolution` is the
    smallest difference that counts, one number or one per seed: see `resolution`. A `margin` is the smallest difference that
    matters. If the data were divided anew for each seed, `overlap` is the number of test examples over that of training examples:
    see `overlapping_p`.
    """

    differences: np.ndarray
    higher_is_better: bool
    resolution: np.ndarray | float = 0.0
    margin: float | None = None
    overlap: float = 0.0


@dataclass(frozen=True)
class Difference:
    """A paired comparison of one variant with the baseline on one metric.

    `mean` and `interval`, the 95 % interval of the mean by Student's t (None for fewer than two pairs), are over the `pairs` of
    which neither run diverged. `p` is the two-sided sign-flip p-value, and `p_adjusted` is p adjusted for the family. `verdict` is
    the verdict in words. `equivalence` compares the mean difference with a margin, if one is given. With new divisions of the data
    for each pair, `interval` allows for their overlap, and `p_overlap` is `overlapping_p`, adjusted for the family by Holm.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    p_adjusted: float
    pairs: int
    verdict: str
    equivalence: Equivalence | None = None
    p_overlap: float | None = None


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


def compare_family(rows: Mapping[_Key, Row], max_pairs: int | None = None) -> dict[_Key, Difference]:
    """Compare paired differences with zero, as one family: the chance of any false `better` or `worse` among all rows is 5 %.

    p-values come from flipping the signs of whole seeds: if variants and baseline have the same distribution, the differences are
    as likely as their negatives. All rows share the same flips. The adjusted p-value is Westfall and Young's step-down maximum of
    |t| over the rows (1993, algorithm 2.8). p-values cannot go below 2 / 2**pairs, so Bonferroni or Holm would need more seeds;
    with the step-down maximum, six seeds can still decide about many variants and metrics.

    A verdict needs an adjusted p of at most 0.05, a 95 % interval without zero, and a mean difference of at least the resolution,
    all with diverged runs as in `counted`. `qualified` says of what the verdict is true.

    With a margin, `same within the margin` needs a 90 % interval within the margin, with a standard deviation of at least the
    resolution; at least `fewest_pairs()` pairs; no run that diverged alone; and `Equivalence.p_adjusted` of at most 0.05. That
    comes from one-sided sign flips of the distances to both ends of the margin, all variants as one family by the step-down maximum
    of t. So the chance of any false `same within the margin` is 5 % too.

    New divisions of one data set share examples, so their differences are not independent, and flips of their signs alone find too
    much. With `Row.overlap` a verdict also needs the interval and `p_overlap` that allow for it, and `same within the margin` its
    one-sided tests with the same variance, adjusted by Holm: benchmarks/resampling.py.

    `max_pairs` is set if pairs are added until there are verdicts, up to this number. Then `sequential_verdicts` takes the place of
    the adjusted p and the interval, and `same within the margin` needs all `max_pairs` pairs.
    """
    words = _verdicts_of_looks(rows, max_pairs) if max_pairs is not None else {}
    table = {key: counted(row.differences, row.resolution) for key, row in rows.items()}
    same, found = _equivalences(rows), {}
    of_overlap = _of_overlap(rows, table)
    for (key, row), p, p_adjusted in zip(rows.items(), *_sign_flips(list(table.values()))):
        ended = ~np.isnan(row.differences)
        pairs, finite = table[key][ended], row.differences[np.isfinite(row.differences)]
        mean = finite_mean(pairs)
        interval = mean_interval(pairs, row.overlap)
        word = words[key] if words else verdict(mean, interval, p_adjusted, row.higher_is_better)
        if of_overlap.get(key, 0.0) > LEVEL:
            word = NO_DIFFERENCE
        if len(finite) == len(pairs) and abs(mean) < (1 - 1e-3) * mean_resolution(row):
            word = NO_DIFFERENCE
        word = qualified(word, row.differences, row.higher_is_better)
        if max_pairs is None or row.differences.size >= max_pairs:
            word = verdict_with_margin(word, same.get(key))
        interval = mean_interval(finite, row.overlap)
        found[key] = Difference(finite_mean(finite), interval, p, p_adjusted, len(finite), word, same.get(key), of_overlap.get(key))
    return found


def _of_overlap(rows: Mapping[_Key, Row], table: Mapping[_Key, np.ndarray]) -> dict[_Key, float]:
    """Return `overlapping_p` of the rows with an overlap, adjusted over them by Holm; runs that diverged count as in `table`."""
    keys = [key for key, row in rows.items() if row.overlap]
    alone = [overlapping_p(table[key][~np.isnan(table[key])], rows[key].overlap) for key in keys]
    return dict(zip(keys, holm(alone)))


def independent_pairs(pairs: int, overlap: float) -> float:
    """Return as how many independent pairs so many overlapping ones count: 1 / (1/n + overlap), at most 1 / overlap."""
    return pairs / (1 + pairs * overlap)


def overlapping_p(values: np.ndarray, overlap: float) -> float:
    """Return the two-sided p-value of a mean of 0, of differences from overlapping divisions of one data set.

    Divisions into training and test data that are drawn anew from the same examples share most of them, so the mean of n
    differences varies more than s^2 / n. Nadeau and Bengio (2003, Machine Learning 52: 239-281) estimate its variance by

        (1/n + test examples / training examples) s^2,

    with Student's t of n - 1 degrees of freedom; `overlap` is that quotient. 1 for fewer than two differences.
    """
    if len(values) < 2:
        return 1.0
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return 0.0 if mean else 1.0
    error = float(values.std(ddof=1)) / math.sqrt(independent_pairs(len(values), overlap))
    return 2 * float(special.stdtr(len(values) - 1, -abs(mean) / error))


def _verdicts_of_looks(rows: Mapping[_Key, Row], max_pairs: int) -> dict[_Key, str]:
    towards = [without_ties(row.differences, row.resolution) * (1 if row.higher_is_better else -1) for row in rows.values()]
    return {key: word or NO_DIFFERENCE for key, word in zip(rows, sequential_verdicts(towards, max_pairs=max_pairs))}


def compare_paired(
    differences: Mapping[str, np.ndarray], higher_is_better: bool, margin: float | None = None
) -> dict[str, Difference]:
    """Compare each variant's paired differences on one metric with zero. The variants are one family: see `compare_family`."""
    return compare_family({name: Row(values, higher_is_better, margin=margin) for name, values in differences.items()})


def resolution(variant: np.ndarray, baseline: np.ndarray, step: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the smallest difference of each pair that counts: the float32 rounding of the values, or `step` if that is larger.

    `step` is the difference that one test example makes, for a metric that is a share of the test examples: one or one per seed.
    """
    size = np.fmax(np.abs(variant), np.abs(baseline))
    return np.where(np.isfinite(size), np.maximum(_ROUNDING * size, step), step)


def without_ties(differences: np.ndarray, resolution: np.ndarray | float = 0.0) -> np.ndarray:
    """Return differences with 0 in place of those that are less than half of the resolution."""
    return np.where(np.abs(differences) < np.asarray(resolution) / 2, 0.0, differences)


def counted(differences: np.ndarray, resolution: np.ndarray | float = 0.0) -> np.ndarray:
    """Return differences as verdicts count them.

    A difference below half of the resolution is a tie, 0. A run that diverged is the worst of all: the difference of its pair is as
    large as the largest of the other pairs, or 1 if all of them are 0. The sign flips leave this size unchanged.
    """
    found = without_ties(differences, resolution)
    largest = float(np.abs(found[np.isfinite(found)]).max(initial=0.0)) or 1.0
    return np.clip(found, -largest, largest)


def qualified(words: str, differences: np.ndarray, higher_is_better: bool) -> str:
    """Return `better` or `worse` with the limits of what it is true of; other words stay.

    `better on average` if no more than half of the pairs are better: mean and median disagree. `better in most runs` if a pair
    contradicts and lies far from all others, or if its run diverged: see `opposing`. `worse` likewise.
    """
    if words not in ("better", "worse"):
        return words
    towards = differences if (words == "better") == higher_is_better else -differences
    if 2 * np.sum(towards > 0) <= np.sum(~np.isnan(towards)):
        return f"{words} on average"
    return words if opposing(towards) is None else f"{words} in most runs"


def opposing(towards: np.ndarray) -> int | None:
    """Return the place of the lowest pair if most pairs are positive, and it takes away more than one gives on average.

    It must also lie more than `_FAR` standard deviations of the other pairs below their mean (an outlier in the sense of Grubbs
    1969, Technometrics 11: 1-21). A pair that diverged to the negative side is always such a pair. Else return None.
    """
    if 2 * np.sum(towards > 0) <= np.sum(~np.isnan(towards)):
        return None
    at = int(np.nanargmin(towards))
    others = np.delete(towards, at)
    mean, sd = finite_mean(others), finite_sd(others)  # nan for too few others
    far = towards[at] < -mean * (1 + 1e-9) and towards[at] < mean - _FAR * sd  # the tolerance is for rounding
    return at if far or np.isneginf(towards[at]) else None


def mean_interval(values: np.ndarray, overlap: float = 0.0) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean by Student's t; None for fewer than two values.

    With an `overlap` of the divisions of the data that the values come from, its variance is that of `overlapping_p`.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(independent_pairs(len(values), overlap))
    half = _t_quantile(len(values) - 1, 1 - LEVEL / 2) * error
    return mean - half, mean + half


@lru_cache(maxsize=1024)
def _t_quantile(degrees: int, share: float) -> float:
    return float(stats.t.ppf(share, degrees))


def smallest_p(pairs: int) -> float:
    """Return the smallest two-sided p-value that `pairs` pairs can give: 2 / 2**pairs."""
    return min(1.0, 2.0 ** (1 - pairs))


def sign_flip_p(rows: Sequence[np.ndarray]) -> list[float]:
    """Return two-sided sign-flip p-values of the rows' means, adjusted over the rows by the step-down maximum of |t|.

    With one row this is the plain sign-flip test: the share of sign patterns whose mean is at least as far from zero.
    """
    return _sign_flips(rows)[1]


def _sign_flips(rows: Sequence[np.ndarray], two_sided: bool = True) -> tuple[list[float], list[float]]:
    """Return the sign-flip p-values of the rows' means, and those adjusted over the rows; one-sided: of means above 0."""
    # A missing pair (nan) counts as 0, which flips do not change, so each row keeps its own pairs.
    data = np.nan_to_num(np.atleast_2d(np.asarray(rows, dtype=float)))
    data = data[:, data.any(axis=0)]
    if not data.size:
        return [1.0] * len(rows), [1.0] * len(rows)
    # t is a rising function of mean / root mean square, and the mean square does not change under flips.
    size = np.sqrt((data**2).sum(axis=1, keepdims=True))
    data = data / np.where(size > 0, size, 1.0)
    side = np.abs if two_sided else np.asarray
    observed = side(data.sum(axis=1))
    order = np.argsort(-observed, kind="stable")
    data, bound = data[order], observed[order, None] - 1e-12  # patterns that differ by rounding only count as equal
    signs = _sign_patterns(data.shape[1])
    alone, largest = np.zeros(len(rows)), np.zeros(len(rows))
    for start in range(0, len(signs), _PATTERNS_AT_ONCE):
        sizes = side(data @ signs[start : start + _PATTERNS_AT_ONCE].T)
        alone += (sizes >= bound).sum(axis=1)
        largest += (np.maximum.accumulate(sizes[::-1])[::-1] >= bound).sum(axis=1)  # of the row and all after it
    p, adjusted = np.empty(len(rows)), np.empty(len(rows))
    p[order], adjusted[order] = alone / len(signs), np.maximum.accumulate(largest / len(signs))
    return p.tolist(), adjusted.tolist()


def verdict(mean: float, interval: tuple[float, float] | None, p_adjusted: float, higher_is_better: bool) -> str:
    """Return `better`, `worse` or `no difference shown`."""
    if interval is None or p_adjusted > LEVEL or interval[0] <= 0 <= interval[1]:
        return NO_DIFFERENCE
    return "better" if (mean > 0) == higher_is_better else "worse"


def verdict_with_margin(words: str, found: Equivalence | None) -> str:
    """Return the verdict in view of a practical margin.

    A mean shown to be within the margin (`Equivalence.p` and `p_adjusted` at most 0.05) becomes `same within the margin`. If it is
    also shown to differ from zero, it becomes `better, but within the margin` or `worse, but within the margin`. Other verdicts
    stay.
    """
    if found is None or max(found.p, found.p_adjusted) > LEVEL:
        return words
    return "same within the margin" if words == NO_DIFFERENCE else f"{words}, but within the margin"


def _equivalences(rows: Mapping[_Key, Row]) -> dict[_Key, Equivalence]:
    """Return the comparison of each row with its margin, adjusted over the rows: see `compare_family`."""
    found, able = {}, []
    for key, row in rows.items():
        finite = row.differences[np.isfinite(row.differences)]
        each = None
        if row.margin is not None:
            each = equivalence(finite, row.margin, row.higher_is_better, mean_resolution(row), row.overlap)
        if each is not None:
            found[key] = each
            if len(finite) >= fewest_pairs() and not np.isinf(row.differences).any():
                able.append(key)
    distances = [rows[key].margin + side * rows[key].differences for side in (1, -1) for key in able]
    adjusted = _sign_flips(distances, two_sided=False)[1]
    overlapping = dict(zip(able, holm([found[key].p if rows[key].overlap else 0.0 for key in able])))
    for key, *p in zip(able, adjusted[: len(able)], adjusted[len(able) :]):
        found[key] = replace(found[key], p_adjusted=max(*p, overlapping[key]))
    return found


def mean_resolution(row: Row) -> float:
    """Return the smallest mean difference of a row that counts."""
    return float(np.mean(np.broadcast_to(row.resolution, row.differences.shape))) if row.differences.size else 0.0


def equivalence(
    values: np.ndarray, margin: float, higher_is_better: bool, resolution: float = 0.0, overlap: float = 0.0
) -> Equivalence | None:
    """Compare the mean of paired differences with a margin; None for fewer than two pairs. `overlap` as in `mean_interval`.

    A standard deviation below the resolution counts as the resolution: equal rounded differences are no proof of no spread.
    """
    if len(values) < 2:
        return None
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if np.ptp(values) == 0:  # rounding may give a spread other than 0
        mean, sd = float(values[0]), 0.0
    error = max(sd, resolution) / math.sqrt(independent_pairs(len(values), overlap))
    # Without spread the quotients are infinite; 0 / 0 means that the mean is on the margin, which is not within it.
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = np.nan_to_num(np.array([-margin - mean, mean - margin]) / error, posinf=np.inf, neginf=-np.inf)
    p_below, p_above = map(float, special.stdtr(len(values) - 1, sides))  # a mean below -margin, and a mean above margin
    half = _t_quantile(len(values) - 1, 1 - LEVEL) * error
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
    """Return the two-sided p-value of Wilcoxon's signed-rank test without zeros (Wilcoxon 1945, Biometrics Bulletin 1: 80-83).

    Infinite differences have the highest ranks.
    """
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
    """Return Cohen's d of paired data, d_z = mean / standard deviation of the differences (Cohen 1988), corrected for few pairs.

    The quotient is too large on average, by 19 % for six pairs. It is multiplied by J = 1 - 3 / (4 (n - 1) - 1) for n pairs (Hedges
    1981, J. Educ. Stat. 6: 107-128). d_z divides by the spread that remains after pairing. It says how easily seeds show the
    difference, not how much the difference matters. None if there is no spread, and for fewer than three pairs, where J is 0.
    """
    n = len(values)
    if n < 3 or np.ptp(values) == 0:
        return None
    return float((1 - 3 / (4 * (n - 1) - 1)) * values.mean() / values.std(ddof=1))


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


def pairing_gain_interval(variant: np.ndarray, baseline: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % interval of `pairing_gain`; None where there is none.

    The gain is (1 + F) / 2 with F = var(variant + baseline) / var(variant - baseline). For normal runs of equal variance, F over
    its true value has the F distribution with n - 1 and n - 1 degrees of freedom; this is the interval of an intraclass correlation
    (Shrout and Fleiss 1979, Psychol. Bull. 86: 420-428). For unequal variances it is wider than needed.
    """
    gain, pairs = pairing_gain(variant, baseline), int(np.isfinite(variant - baseline).sum())
    if gain is None:
        return None
    ratio, bound = 2 * gain - 1, float(stats.f.isf(LEVEL / 2, pairs - 1, pairs - 1))
    return (1 + ratio / bound) / 2, (1 + ratio * bound) / 2


def crossed_interval(losses: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean for new seeds and new test examples, from differences (seeds, examples).

    `mean_interval` is for new seeds on the same examples. Here seeds and examples are crossed random effects: a difference is
    mean + seed + example + rest. Let A, B and R be the mean squares of seeds, of examples and of the rest, for S seeds and E
    examples, with S - 1, E - 1 and (S - 1)(E - 1) degrees of freedom. The variance of the mean is estimated without bias by

        (A + B - R) / (S E)

    (Searle, Casella and McCulloch 1992, Variance Components, chapter 4). If B is below R, the examples' part counts as 0, so the
    variance is never below A / (S E), that of `mean_interval`. The interval uses Student's t with Satterthwaite's degrees of
    freedom (1946, Biometrics Bull. 2: 110-114; with a subtracted mean square: Gaylor and Hopper 1969, Technometrics 11: 691-706),

        (A + B - R)^2 / (A^2 / (S - 1) + B^2 / (E - 1) + R^2 / ((S - 1)(E - 1))),

    at least those of the fewer of seeds and examples. None for fewer than two seeds or two examples.
    """
    seeds, examples = losses.shape
    if min(seeds, examples) < 2:
        return None
    mean, by_seed, by_example = losses.mean(dtype=float), losses.mean(axis=1, dtype=float), losses.mean(axis=0, dtype=float)
    rest = float(np.sum((losses - by_seed[:, None] - by_example + mean) ** 2)) / ((seeds - 1) * (examples - 1))
    of_seeds = examples * float(by_seed.var(ddof=1))
    of_examples = max(seeds * float(by_example.var(ddof=1)), rest)
    total = of_seeds + of_examples - rest
    spread = of_seeds**2 / (seeds - 1) + of_examples**2 / (examples - 1) + rest**2 / ((seeds - 1) * (examples - 1))
    free = max(total**2 / spread, min(seeds, examples) - 1) if spread else seeds - 1
    half = float(stats.t.isf(LEVEL / 2, free)) * math.sqrt(total / (seeds * examples))
    return float(mean - half), float(mean + half)


def still_falls(curves: np.ndarray) -> bool:
    """Return whether a loss still falls at its last epoch, from its curves (seeds, epochs).

    The last tenth of the epochs is compared with the tenth before: the loss falls if the mean over seeds of the difference of the
    two means is above 0 with a 95 % interval without zero, and at least 2 % of the whole fall since the first epoch. A curve that
    has levelled out is neither. One epoch or one seed cannot tell: False.
    """
    tenth = max(1, curves.shape[1] // 10)
    if min(len(curves), curves.shape[1] // tenth) < 2:
        return False
    falls = curves[:, -2 * tenth : -tenth].mean(axis=1) - curves[:, -tenth:].mean(axis=1)
    interval, whole = mean_interval(falls), curves[:, 0].mean() - curves[:, -tenth:].mean()
    return interval is not None and interval[0] > 0 and bool(falls.mean() >= SLOPE * whole)


def fewest_pairs(alpha: float = LEVEL) -> int:
    """Return the fewest pairs with which a two-sided sign-flip test can reach `alpha`: 2 / 2**pairs <= alpha."""
    return math.ceil(1 - math.log2(alpha))


def sequential_verdict(differences: Sequence[float] | np.ndarray, *, max_pairs: int, alpha: float = LEVEL) -> str | None:
    """Return `better`, `worse`, or None while undecided, from differences in the order of their seeds, positive where better.

    This is `sequential_verdicts` with one row.
    """
    return sequential_verdicts([differences], max_pairs=max_pairs, alpha=alpha)[0]


def sequential_verdicts(rows: Sequence[Sequence[float] | np.ndarray], *, max_pairs: int, alpha: float = LEVEL) -> list[str | None]:
    """Return `better`, `worse`, or None while undecided, for each row of differences in the order of seeds, positive where better.

    Call it after every pair, or after some. The rows are one family: if no variant differs from the baseline in any metric, at most
    a share `alpha` of studies ever gets any verdict in up to `max_pairs` pairs, which must be chosen in advance. Then all patterns
    of signs are equally likely given the sizes. The distance of a pattern is the largest |sum| / root of the sum of squares over
    the rows. After pair k, the patterns with the largest distance cross the boundary: as many as keep the share of patterns that
    have crossed so far at or below alpha * (k / max_pairs)**1.5. This is the power family of spending functions (Kim and DeMets
    1987, Biometrika 74: 149-154; Lan and DeMets 1983, Biometrika 70: 659-663), with the boundary of the sign-flip test in place of
    the normal one, and the maximum over rows as in `compare_family`, in a single step. The only assumption on the distribution is
    symmetry. A larger exponent finds slightly more differences, but later: benchmarks/sequential_verdict.py.

    The verdict comes from the first pair at which a row's own distance crosses the boundary. It depends on the whole sequence and
    is never revoked: later pairs do not change it, and a crossing between two looks still counts. Up to 14 pairs, all patterns are
    enumerated. After that each pattern continues at random; this keeps the level, as the observed pattern is one of them. A missing
    pair (nan) counts as 0, and is left out if no row has it. A run that diverged counts as in `counted`, over the pairs so far.
    """
    data = np.atleast_2d(np.asarray(rows, dtype=float))
    data = data[:, ~np.isnan(data).all(axis=0)][:, :max_pairs]
    data = np.nan_to_num(data, nan=0.0, posinf=np.inf, neginf=-np.inf)
    diverged, data = np.where(np.isinf(data), np.sign(data), 0.0), np.where(np.isinf(data), 0.0, data)
    squares, largest = np.cumsum(data**2, axis=1), np.maximum.accumulate(np.abs(data), axis=1)
    worst = np.where(largest > 0, largest, 1.0)
    norms = np.sqrt(squares + worst**2 * np.cumsum(np.abs(diverged), axis=1))
    norms = np.where(norms > 0, norms, 1.0)
    # Sizes are independent of signs, so they may seed the patterns. One seed for all studies would give all the same error.
    begun = (np.abs(data) + diverged**2)[:, :_EXACT_UP_TO].sum(axis=0)
    order = np.argsort(begun, kind="stable") if data.shape[1] > _EXACT_UP_TO else ()
    signs = _sign_paths(max_pairs, tuple(map(int, order)))
    patterns = signs.shape[1]
    sums, beyond = np.zeros((len(data), patterns)), np.zeros((len(data), patterns))
    inside, crossed, sides = np.ones(patterns, dtype=bool), 0, np.zeros(len(data))
    for at in range(data.shape[1]):
        if sides.all():
            break
        sums += data[:, [at]] * signs[at]
        if diverged[:, at].any():
            beyond += diverged[:, [at]] * signs[at]
        may_cross = math.floor(_spent(at + 1, max_pairs, alpha) * patterns + 1e-9) - crossed
        if may_cross < 1:
            continue
        towards = (sums + worst[:, [at]] * beyond if diverged.any() else sums) / norms[:, [at]]
        distance = np.where(inside, np.abs(towards).max(axis=0), 0.0)
        # The small tolerance keeps patterns inside together that differ by rounding only.
        boundary = np.partition(distance, -may_cross - 1)[-may_cross - 1] * (1 + 1e-12)
        # Pattern 0, without a flip, is the observed one.
        sides = np.where((sides == 0) & (np.abs(towards[:, 0]) > boundary), np.sign(towards[:, 0]), sides)
        cross = distance > boundary
        inside &= ~cross
        crossed += int(cross.sum())
    return [{1.0: "better", -1.0: "worse"}.get(side) for side in sides]


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


def compare_with_best(values: np.ndarray) -> list[float]:
    """Return for each column, with a row for each seed, the p-value of its having the smallest mean of all.

    The columns with p above 0.05 hold the one with the smallest mean in at least 95 % of studies, whichever it is (multiple
    comparisons with the best: Hsu 1981, Ann. Statist. 9: 1026-1034). For column i the statistic is the largest t of its paired
    differences to the others, max over j of t(values[:, i] - values[:, j]), one-sided. Its distribution comes from flipping the
    signs of whole rows, the same for all j: where i is the best, a difference is as likely as its negative, or lower. As i is
    compared with every other column, nothing depends on which of them came out best. p cannot go below 1 / 2**rows, so fewer than
    five rows exclude no column.
    """
    signs = _sign_patterns(len(values))
    found = []
    for column, own in enumerate(values.T):
        differences = own[:, None] - np.delete(values, column, axis=1)
        size = np.sqrt((differences**2).sum(axis=0))
        # As in `sign_flip_p`, a rising function of t; the column itself, with differences of 0, stands for no other column.
        largest = (signs @ differences / np.where(size > 0, size, 1.0)).max(axis=1, initial=-math.inf)
        found.append(float(np.mean(largest >= largest[0] - 1e-12)))
    return found


@dataclass(frozen=True)
class Smooth:
    """A smooth curve through noisy values over x, with its pointwise 95 % interval: a drawing, see `compare_with_best`."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    knots: int


def smooth_curve(x: np.ndarray, values: np.ndarray, points: int = 121) -> Smooth:
    """Fit a natural cubic regression spline through `values` (a row for each seed, a column for each x).

    The spline has 3 to 6 knots at equal distances in x; generalised cross-validation on the mean over seeds chooses the number
    (Craven and Wahba 1979). Each seed gets its own fit after its level is subtracted, since seeds are compared at the same x.
    Intervals are Student's t over the fitted curves.
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
    half = _half_width(curves)
    return Smooth(grid, middle, middle - half, middle + half, knots)


def _half_width(rows: np.ndarray) -> np.ndarray:
    """Return half the width of the 95 % interval of the mean over rows by Student's t, by column; infinite for a single row."""
    n = len(rows)
    if n < 2:
        return np.full(rows.shape[1], np.inf)
    return stats.t.ppf(1 - LEVEL / 2, n - 1) * rows.std(axis=0, ddof=1) / np.sqrt(n)
