"""Divide the variance of a difference among seeds, divisions of the data and test examples. Uses numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_SEEDS = 3  # with the data divided once, from which the part of the seeds is taken


@dataclass(frozen=True)
class Variance:
    """The variance of a variant's paired differences over seeds that divide the data anew, and its parts.

    `examples` is the part of the test examples, `seed` that of the seeds; None if it is not known. `division` is the rest: without
    `seed`, that of seed and division together. It is 0 at least, and `floored` if it would be less. `fixed_seeds` are the known
    seeds with the data divided once, None if there can be none: with the data divided once, the model is another.
    """

    total: float
    examples: float
    seed: float | None
    division: float
    floored: bool
    fixed_seeds: int | None


def variance_parts(
    differences: np.ndarray, losses: Sequence[np.ndarray], examples: Sequence[int], fixed: np.ndarray
) -> Variance | None:
    """Return the parts of the variance of `differences`, one per seed, each with a division of its own; None for fewer than two.

    `losses` are the differences of each test example in each run, and `examples` the number of all examples of each division. The
    part of the test examples is the mean over runs of (1 - n/N) v / n, for the variance v of n differences, of N examples in all: n
    examples drawn from N vary by that (Cochran 1977, Sampling Techniques, section 2.6). `fixed` are the differences of seeds with
    the data divided once: from at least three, their variance is the part of the seeds. What is left is the part of the division.
    """
    differences, fixed = differences[np.isfinite(differences)], fixed[np.isfinite(fixed)]
    if len(differences) < 2 or not losses:
        return None
    total = float(differences.var(ddof=1))
    of_examples = float(np.mean([(1 - len(each) / n) * each.var(ddof=1) / len(each) for each, n in zip(losses, examples)]))
    of_seeds = float(fixed.var(ddof=1)) if len(fixed) >= FEWEST_SEEDS else None
    rest = total - of_examples - (of_seeds or 0.0)
    return Variance(total, of_examples, of_seeds, max(0.0, rest), rest < 0, len(fixed))
