"""Racing: seeds are added until each variant is decided or cannot win any more. Numbers in, decisions out.

Decisions depend on the results alone, seed by seed, so a repeated study makes the same ones again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from keras_dropout.bench.statistics import (
    LEVEL,
    Row,
    counted,
    finite_mean,
    mean_resolution,
    sign_patterns,
    smallest_p,
    without_ties,
)

FIRST = 7  # pairs at the first look
DECIDED, FUTILE, USED = "decided", "cannot win", "all seeds used"  # why a variant got no more seeds
_GROWTH = 3  # of the spending after the first look
_HOPE = 0.05  # a variant whose chance of a verdict is below gets no more seeds
_BEATEN = 0.01  # the p at which the best variant so far is clearly better than another
_EXACT_UP_TO = 12  # pairs; 2**11 patterns of signs and their negatives. Beyond, each goes on at random.


@dataclass(frozen=True)
class Race:
    """Where a race stands after `looked` seeds.

    `words` has `better`, `worse` or None for each row. `stops` has the seeds that each variant was judged by, and `reasons` why
    it got no more: `DECIDED`, `FUTILE`, `USED`; None while it is racing.
    """

    words: Mapping[tuple[str, str], str | None]
    stops: Mapping[str, int]
    reasons: Mapping[str, str | None]
    looked: int

    @property
    def racing(self) -> list[str]:
        """The variants that need more seeds."""
        return [name for name, reason in self.reasons.items() if reason is None]


def first_look(max_pairs: int) -> int:
    """Return the fewest pairs that can give a verdict."""
    return min(FIRST, max_pairs)


def spent(pairs: int, max_pairs: int, alpha: float = LEVEL) -> float:
    """Return the chance of a false verdict that may be spent by a number of pairs.

    With a = `smallest_p(7)`, nothing before the seventh pair, and a + (alpha - a) ((pairs - 7) / (max_pairs - 7))**3 from there.
    """
    first = first_look(max_pairs)
    if pairs >= max_pairs or pairs < first:
        return alpha if pairs >= max_pairs else 0.0
    begun = min(alpha, smallest_p(first))
    return begun + (alpha - begun) * ((pairs - first) / (max_pairs - first)) ** _GROWTH


class Boundary:
    """A boundary for rows of paired differences that holds the chance of any false verdict over all looks.

    If nothing differs, all patterns of signs are equally likely given the sizes. The distance of a pattern is the largest |sum| /
    root of the sum of squares over the rows. At each look, the patterns with the largest distance cross: as many as keep the
    share of patterns that have crossed so far at or below `spent`. This is alpha spending (Lan and DeMets 1983, Biometrika 70:
    659-663), with the boundary of the sign-flip test in place of the normal one, and the maximum over rows, in a single step. The
    only assumption on the distribution is symmetry.

    Up to 12 pairs, all patterns are enumerated. After that each continues at random; this keeps the level, as the observed pattern
    is one of them.
    """

    def __init__(self, rows: int, max_pairs: int, alpha: float = LEVEL):
        self._max_pairs, self._alpha, self._exact = max_pairs, alpha, min(max_pairs, _EXACT_UP_TO)
        self._signs = _half_of_the_patterns(self._exact)
        patterns = self._signs.shape[1]
        self._sums, self._beyond = np.zeros((rows, patterns)), np.zeros((rows, patterns))
        self._squares, self._diverged, self._largest = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        self._inside, self._crossed = np.ones(patterns, dtype=bool), 0
        self._sizes: list[float] = []
        self._random: np.random.Generator | None = None

    def look(self, values: np.ndarray) -> np.ndarray:
        """Add a pair to each row, and return the side on which each row lies beyond the boundary now: 1, -1, or 0 for inside.

        A missing pair (nan) counts as 0. An infinite one, of a run that diverged, is as large as the largest of its row so far.
        """
        pairs = len(self._sizes) + 1
        infinite = np.isinf(values)
        diverged = np.where(infinite, np.sign(values), 0.0)
        values = np.where(infinite, 0.0, np.nan_to_num(values, posinf=0.0, neginf=0.0))
        signs = self._next_signs()
        self._sizes.append(float(np.abs(values).sum() + infinite.sum()))
        self._sums += values[:, None] * signs
        self._squares += values**2
        self._largest = np.maximum(self._largest, np.abs(values))
        worst = np.where(self._largest > 0, self._largest, 1.0)
        if infinite.any():
            self._beyond += diverged[:, None] * signs
            self._diverged += np.abs(diverged)
        may_cross = math.floor(spent(pairs, self._max_pairs, self._alpha) * len(signs) + 1e-9) - self._crossed
        if may_cross < 1:
            return np.zeros(len(values))
        norms = np.sqrt(self._squares + worst**2 * self._diverged)
        sums = self._sums + worst[:, None] * self._beyond if self._diverged.any() else self._sums
        towards = sums / np.where(norms > 0, norms, 1.0)[:, None]
        seen = towards[:, 0].copy()  # pattern 0, without a flip, is the observed one
        distance = np.where(self._inside, np.abs(towards, out=towards).max(axis=0), 0.0)
        # The small tolerance keeps patterns inside together that differ by rounding only.
        boundary = np.partition(distance, -may_cross - 1)[-may_cross - 1] * (1 + 1e-12)
        cross = distance > boundary
        self._inside &= ~cross
        self._crossed += int(cross.sum())
        return np.where(np.abs(seen) > boundary, np.sign(seen), 0.0)

    def _next_signs(self) -> np.ndarray:
        pairs = len(self._sizes)
        if pairs < self._exact:
            return self._signs[pairs]
        if self._random is None:
            # Sizes are independent of signs, so they may seed the patterns. One seed for all studies would give all the same error.
            self._random = np.random.default_rng([int(place) for place in np.argsort(self._sizes, kind="stable")])
        flips: np.ndarray = self._random.integers(2, size=(self._signs.shape[1],), dtype=np.int8)
        flips[0] = 0
        return np.where(flips, -1.0, 1.0)


def sequential_verdict(differences: Sequence[float] | np.ndarray, *, max_pairs: int, alpha: float = LEVEL) -> str | None:
    """Return `better`, `worse`, or None while undecided, from differences in the order of their seeds, positive where better.

    This is `sequential_verdicts` with one row.
    """
    return sequential_verdicts([differences], max_pairs=max_pairs, alpha=alpha)[0]


def sequential_verdicts(rows: Sequence[Sequence[float] | np.ndarray], *, max_pairs: int, alpha: float = LEVEL) -> list[str | None]:
    """Return `better`, `worse`, or None while undecided, for each row of differences in the order of seeds, positive where better.

    Call it after every pair, or after some. The rows are one family: if no variant differs from the baseline in any metric, at most
    a share `alpha` of studies ever gets any verdict in up to `max_pairs` pairs, which must be chosen in advance: see `Boundary`.
    The verdict comes from the first pair at which a row crosses. It depends on the whole sequence and is never revoked: later pairs
    do not change it, and a crossing between two looks still counts. A seed without a pair (nan) in any row is left out.
    """
    data = np.atleast_2d(np.asarray(rows, dtype=float))
    data = data[:, ~np.isnan(data).all(axis=0)][:, :max_pairs]
    boundary, sides = Boundary(len(data), max_pairs, alpha), np.zeros(len(data))
    for values in data.T:
        sides = np.where(sides == 0, boundary.look(values), sides)
    return [_word(side) for side in sides]


def race(
    rows: Mapping[tuple[str, str], Row],
    leading: str,
    known: Mapping[str, np.ndarray],
    max_pairs: int,
    stops: Mapping[str, int] | None = None,
) -> Race:
    """Replay the race of the variants over the seeds whose results are known.

    `rows` has the differences by (metric, variant), and `known` says for each variant and seed whether both runs have ended. The
    rows are one family, with the boundary of `Boundary` for `max_pairs`. After each seed a variant gets no more if

    - its row on the `leading` metric has crossed the boundary, with a mean of at least the resolution (`DECIDED`);
    - or it cannot win (`FUTILE`): its chance of being shown to be worse is below 5 % (see `hopes`), and so is that of being shown
      to be better, or another variant is clearly better than it (see `_beaten`). With a margin, the chance of being shown to be the
      same must be below 5 % too;
    - or `max_pairs` seeds are used (`USED`).

    What a variant got after it stopped is not used. In the boundary, though, its rows go on with their own pairs again, in order:
    a boundary for only the rows that are left would be too near, since those were chosen for being far out. With `stops`, a
    variant stops where they say, and nothing else stops it.
    """
    names = list(dict.fromkeys(name for _, name in rows))
    lanes = np.array([names.index(name) for _, name in rows])
    data = np.array([without_ties(row.differences, row.resolution) * (1 if row.higher_is_better else -1) for row in rows.values()])
    leads = {name: number for number, (metric, name) in enumerate(rows) if metric == leading}
    racing, ends = np.ones(len(names), dtype=bool), np.zeros(len(names), dtype=int)
    reasons: dict[str, str | None] = dict.fromkeys(names)
    boundary, sides, looked = Boundary(len(data), max_pairs), np.zeros(len(data)), 0
    for seed in range(min(max_pairs, data.shape[1])):
        if stops is not None:
            racing = np.array([seed < stops[name] for name in names])
        if not racing.any() or not all(known[names[lane]][seed] for lane in np.flatnonzero(racing)):
            break
        looked, on = seed + 1, racing[lanes]
        ends[racing] = looked
        if not np.isnan(data[on, seed]).all():
            again = seed % np.maximum(ends[lanes], 1)
            beyond = boundary.look(np.where(on, data[:, seed], data[np.arange(len(data)), again]))
            sides = np.where((sides == 0) & on, beyond, sides)
        if stops is not None or looked < first_look(max_pairs):
            continue
        so_far = {name: data[leads[name], : ends[lane]] for lane, name in enumerate(names)}
        crossed = {name: sides[leads[name]] for name in names}
        best = _best([name for lane, name in enumerate(names) if racing[lane] or crossed[name] > 0], so_far)
        for lane in np.flatnonzero(racing):
            name = names[lane]
            row = rows[leading, name]
            values = counted(so_far[name])
            if crossed[name] and abs(finite_mean(values)) >= (1 - 1e-3) * mean_resolution(row):
                reasons[name] = DECIDED
            elif looked >= max_pairs:
                reasons[name] = USED
            else:
                hope = hopes(values, max_pairs, len(names), mean_resolution(row), row.margin)
                beaten = best is not None and _beaten(so_far[name], so_far[best])
                if max(hope.worse, hope.same) < _HOPE and (hope.better < _HOPE or beaten):
                    reasons[name] = FUTILE
        racing = np.array([reasons[name] is None for name in names])
    words = {key: _word(side) for key, side in zip(rows, sides)}
    return Race(words, dict(zip(names, ends.tolist())), reasons, looked)


@dataclass(frozen=True)
class Hopes:
    """The chances that a variant is shown to be better, worse, or the same within its margin, with all seeds."""

    better: float
    worse: float
    same: float


def hopes(values: np.ndarray, max_pairs: int, variants: int, resolution: float = 0.0, margin: float | None = None) -> Hopes:
    """Return the chances of each verdict by `max_pairs` pairs, from the pairs so far, positive where better.

    For normal differences and a flat prior on their mean, the mean of all pairs follows Student's t about the mean m so far, with
    the scale s sqrt((N - n) / (n N)) for n pairs of N and their standard deviation s (predictive power: Spiegelhalter, Freedman and
    Blackburn 1986, Control. Clin. Trials 7: 8-17). A mean is counted as shown from the t at Sidak's level for the variants on, and
    as the same if its 90 % interval lies within the margin.
    """
    values = values[~np.isnan(values)]
    n, left = len(values), max_pairs - len(values)
    if n < 2:
        return Hopes(n, n, 0.0 if margin is None else n)  # without any pair there is nothing to hope for
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd == 0 or left <= 0:
        return Hopes(float(mean > resolution), float(mean < -resolution), float(margin is not None and abs(mean) < margin))
    error, scale = sd / math.sqrt(max_pairs), sd * math.sqrt(left / (n * max_pairs))
    level = -math.expm1(math.log1p(-LEVEL) / variants)
    shown = max(resolution, -float(special.stdtrit(max_pairs - 1, level / 2)) * error)
    inside = 0.0 if margin is None else max(0.0, margin + float(special.stdtrit(max_pairs - 1, LEVEL)) * error)
    below, above, low, high = special.stdtr(n - 1, (np.array([-shown, shown, -inside, inside]) - mean) / scale)
    return Hopes(float(1 - above), float(below), float(high - low))


def _best(names: Sequence[str], so_far: Mapping[str, np.ndarray]) -> str | None:
    """Return the variant with the largest mean."""
    return max(names, key=lambda name: float(np.nan_to_num(finite_mean(counted(so_far[name])), nan=-math.inf)), default=None)


def _beaten(own: np.ndarray, best: np.ndarray) -> bool:
    """Return whether a variant is clearly worse than the best, by a one-sided paired t test over the seeds of both."""
    both = counted(best)[: len(own)] - counted(own)[: len(best)]
    both = both[~np.isnan(both)]
    if len(both) < 2 or not both.any():
        return False
    error = both.std(ddof=1) / math.sqrt(len(both))
    t = both.mean() / error if error > 0 else math.copysign(math.inf, both.mean())
    return bool(special.stdtr(len(both) - 1, -t) < _BEATEN)


def _word(side: float) -> str | None:
    return {1.0: "better", -1.0: "worse"}.get(float(side))


@lru_cache(maxsize=16)
def _half_of_the_patterns(pairs: int) -> np.ndarray:
    """Return the patterns of signs that begin with +, (pairs, patterns), the first without a flip.

    The other patterns are the negatives of these and have the same |sum|.
    """
    return np.ascontiguousarray(sign_patterns(pairs)[: 2 ** (pairs - 1)].T)
