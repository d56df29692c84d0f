"""Looking again at a question: the chance of a false verdict in several looks, and a p-value that allows for any number of them."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from keras_dropout.bench.racing import first_look, spent
from keras_dropout.bench.statistics import LEVEL, fewest_pairs

_STUDIES = 8000  # simulated; fewer with many variants
_AT_ONCE = 250  # limits their memory
_EXACT_UP_TO = 10  # pairs; 2**9 patterns of signs and their negatives. Beyond, each goes on at random.
_BETS = np.geomspace(0.3, 4, 10)
Looked = tuple[tuple[int, ...], tuple[str, ...], int | None]  # seeds and placements of a look; the most seeds if it adds them


def anytime_p(differences: np.ndarray) -> float:
    """Return a two-sided p-value of paired differences that holds however often one looks, in the order of their seeds.

    If nothing differs, a difference is as likely as its negative, so the product of exp(b x) / cosh(b x) over the pairs x is a
    martingale of mean 1 for any bet b. x is a difference in units of the root mean square of the pairs up to it. The mean over ten
    bets of both signs is one too, and it ever reaches 1 / a with a chance of at most a (Ville's inequality; the symmetric
    martingale: de la Pena 1999, Ann. Probab. 27: 537-564). p is 1 over the largest value so far. A run that diverged counts as the
    largest difference so far. Missing pairs (nan) are left out.
    """
    values = differences[~np.isnan(differences)]
    if not values.any():
        return 1.0
    finite = np.where(np.isinf(values), 0.0, values)
    largest = np.maximum.accumulate(np.abs(finite))
    values = np.where(np.isinf(values), np.sign(values) * np.where(largest > 0, largest, 1.0), values)
    size = np.sqrt(np.cumsum(values**2) / np.arange(1, len(values) + 1))
    bets = np.concatenate([_BETS, -_BETS])[:, None] * values / np.where(size > 0, size, 1.0)
    gains = np.cumsum(bets - np.logaddexp(bets, -bets) + math.log(2), axis=1)
    return float(min(1.0, 1 / np.exp(gains).mean(axis=0).max()))


@lru_cache(maxsize=64)
def chance_of_a_false_verdict(looks: tuple[Looked, ...]) -> float:
    """Return the chance that any of several looks at a question gives a verdict where nothing differs, by simulation.

    Runs are normal, and looks share those of the same placement and seed. Each look is judged by the rule of
    `statistics.compare_family` for its number of seeds, its variants one family on one metric; if it added seeds, by that of
    `racing.Boundary`, as if none had stopped.
    """
    seeds = sorted({seed for each, *_ in looks for seed in each})
    names = sorted({name for _, each, _ in looks for name in each})
    generator, wrong = np.random.default_rng(0), 0
    studies = _STUDIES if len(names) <= 10 else _STUDIES // 8
    for _ in range(0, studies, _AT_ONCE):
        runs = generator.standard_normal((_AT_ONCE, 1 + len(names), len(seeds)))
        pairs, found = runs[:, 1:] - runs[:, :1], np.zeros(_AT_ONCE, dtype=bool)
        for asked, placements, most in looks:
            rows, columns = [names.index(name) for name in placements], [seeds.index(seed) for seed in asked]
            some = pairs[:, rows][:, :, columns]
            found |= _shown(some) if most is None else _shown_in_race(some, most)
        wrong += int(found.sum())
    return wrong / studies


def _shown(pairs: np.ndarray) -> np.ndarray:
    """Return for each study of (studies, rows, pairs) whether the rule gives a verdict on any row."""
    count = pairs.shape[2]
    if count < fewest_pairs():
        return np.zeros(len(pairs), dtype=bool)
    shares = pairs / np.sqrt((pairs**2).sum(axis=2, keepdims=True))
    sizes = np.abs(shares @ _patterns(count)).max(axis=1)  # the first is without a flip
    share = sizes[:, 0]
    t = share / np.sqrt(np.maximum(1 - share**2 / count, 1e-12)) * math.sqrt((count - 1) / count)
    p = np.mean(sizes >= share[:, None] - 1e-12, axis=1)
    return (p <= LEVEL) & (t > stats.t.isf(LEVEL / 2, count - 1))


def _shown_in_race(pairs: np.ndarray, most: int) -> np.ndarray:
    """Return for each study of (studies, rows, pairs) whether a row has crossed the boundary of added seeds."""
    signs = _patterns(pairs.shape[2])
    inside, shown = np.ones((len(pairs), signs.shape[1]), dtype=bool), np.zeros(len(pairs), dtype=bool)
    for count in range(first_look(most), pairs.shape[2] + 1):
        sums = np.abs(pairs[:, :, :count] @ signs[:count])
        distance = np.where(inside, (sums / np.sqrt((pairs[:, :, :count] ** 2).sum(axis=2))[:, :, None]).max(axis=1), 0.0)
        may_cross = math.floor(spent(count, most) * signs.shape[1] + 1e-9) - (~inside).sum(axis=1)
        ranks = np.sort(distance, axis=1)[:, ::-1]
        boundary = np.take_along_axis(ranks, np.maximum(may_cross, 0)[:, None], axis=1) * (1 + 1e-12)
        cross = (distance > boundary) & (may_cross > 0)[:, None]
        inside, shown = inside & ~cross, shown | cross[:, 0]
    return shown


@lru_cache(maxsize=16)
def _patterns(pairs: int) -> np.ndarray:
    """Return patterns of signs, (pairs, patterns), the first without a flip; their negatives have the same |sum|."""
    exact = min(pairs, _EXACT_UP_TO)
    begun = np.array(list(itertools.product((1.0, -1.0), repeat=exact))[: 2 ** (exact - 1)]).T
    rest = 1.0 - 2.0 * np.random.default_rng(pairs).integers(2, size=(pairs - exact, begun.shape[1]))
    rest[:, 0] = 1.0
    return np.vstack([begun, rest])


def ordinal(number: int) -> str:
    """Return "second", "third" and so on; beyond ten in figures."""
    words: Sequence[str] = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    return words[number - 1] if number <= len(words) else f"{number}th"
