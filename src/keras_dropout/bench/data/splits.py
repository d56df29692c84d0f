"""Divide examples into training, validation and test. Works on indices only; the same seed gives the same split."""

from typing import NamedTuple

import numpy as np

from keras_dropout.errors import check_whole, refuse

LEAST = 10  # examples; with fewer, a held-out part is meaningless


class Split(NamedTuple):
    """Increasing indices of the examples in each part; each example is in exactly one part."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def divide(
    size: int,
    *,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    classes: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> Split:
    """Divide `size` examples: a share `test` of all is the test part, a share `validation` of the rest the validation part.

    By default the split is random. With `classes`, each class has its share of a held-out part to within one example, and a class
    of one example goes to training. With `groups`, no group is in two parts. With `times`, every moment in the test part is later
    than all others, and every moment in the validation part is later than those in training. A share of 0 makes an empty part.
    """
    check_whole("the number of examples", size, LEAST, "A split with fewer of them says nothing: give more data.")
    check_whole("seed", seed, 0, "For example 0.")
    shares = {"test": test, "validation": validation}
    for name, share in shares.items():
        if not 0 <= share < 1:
            refuse(f"{name}_split must be in [0, 1); got {share!r}.", "For example 0.2.")
    if groups is not None and times is not None:
        refuse("a split is by group or by time; got both.", "Name one of the two.")
    parts = 1 + sum(share > 0 for share in shares.values())
    for what, values in (("group", groups), ("moment", times)):
        found = parts if values is None else len(np.unique(values))
        if found < parts:
            refuse(
                f"{parts} parts need at least {parts} {what}s; got {found}.",
                f"A {what} is never divided between parts: name another column, or leave it out for a random split.",
            )
    rest, held_out = np.arange(size), {}
    for stream, (name, share) in enumerate(shares.items()):
        held_out[name] = np.arange(0)
        if not share:
            continue
        leave = 2 if name == "test" and validation else 1  # groups or moments left for the remaining parts
        count = max(1, round(len(rest) * share))
        if count == len(rest):
            refuse(
                f"a {name}_split of {share!r} leaves no example of {len(rest)} for training.", "Give a smaller share or more data."
            )
        random = np.random.default_rng([seed, stream])
        if groups is not None:
            held = _whole_groups(groups[rest], count, random, leave)
        elif times is not None:
            held = _latest(times[rest], count, leave)
        elif classes is not None:
            held = _by_class(classes[rest], count, random)
        else:
            held = _marked(len(rest), random.permutation(len(rest))[:count])
        if not held.any():
            refuse(f"no class has an example to spare for the {name} part.", "Give more data, or give the parts yourself.")
        held_out[name], rest = rest[held], rest[~held]
    return Split(rest, held_out["validation"], held_out["test"])


def _marked(size: int, chosen: np.ndarray) -> np.ndarray:
    marks = np.zeros(size, bool)
    marks[chosen] = True
    return marks


def _by_class(classes: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Take the whole part of each class's quota, then one more for the largest remainders; each class keeps one example."""
    size = len(classes)
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(count * sizes, size)
    spare = sizes - 1
    held = np.minimum(quota, spare)
    may_grow = np.flatnonzero((remainder > 0) & (held < spare))
    growing = may_grow[np.argsort(-remainder[may_grow], kind="stable")]
    held[growing[: count - held.sum()]] += 1
    order = random.permutation(size)
    return _marked(size, np.concatenate([order[codes[order] == code][:n] for code, n in enumerate(held)]))


def _whole_groups(groups: np.ndarray, count: int, random: np.random.Generator, leave: int) -> np.ndarray:
    """Take groups in random order if they bring the part nearer to `count`; take at least one, and leave at least `leave`."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen: list[int] = []
    total = 0
    for group in random.permutation(len(sizes)):
        if len(chosen) < len(sizes) - leave and abs(total + sizes[group] - count) < abs(total - count):
            chosen.append(group)
            total += sizes[group]
    return np.isin(codes, chosen or [np.argmin(sizes)])


def _latest(times: np.ndarray, count: int, leave: int) -> np.ndarray:
    """Take all examples from the moment whose cut is nearest to `count` on; take at least the last moment, and leave `leave`."""
    moments, sizes = np.unique(times, return_counts=True)
    later = sizes[::-1].cumsum()[::-1][leave:]  # number of examples at or after each moment
    return times >= moments[leave:][np.argmin(np.abs(later - count))]
