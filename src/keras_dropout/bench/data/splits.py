"""Which examples train, which validate and which test. Indices only: the same for the same seed, in increasing order."""

from typing import NamedTuple

import numpy as np

from keras_dropout.errors import check_whole, refuse

LEAST = 10  # examples; with fewer, a held-out part says nothing


class Split(NamedTuple):
    """Increasing indices of the examples in each part; no example is in two of them, and each is in one."""

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

    At random without more; with `classes` so that each class has its share of a held-out part to within one example, and a
    class of one example trains; with `groups` so that no group is in two parts; with `times` so that every moment in the test
    part is later than the others, and in the validation part later than in training. A share of 0 makes no such part.
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
        leave = 2 if name == "test" and validation else 1  # groups or moments, for the parts still to come
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
    """Whole parts of each class's quota first, then one more for the largest remainders; the last of a class stays."""
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
    """Groups in random order, each taken if that brings the part nearer to `count`; at least one, and `leave` stay."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen: list[int] = []
    total = 0
    for group in random.permutation(len(sizes)):
        if len(chosen) < len(sizes) - leave and abs(total + sizes[group] - count) < abs(total - count):
            chosen.append(group)
            total += sizes[group]
    return np.isin(codes, chosen or [np.argmin(sizes)])


def _latest(times: np.ndarray, count: int, leave: int) -> np.ndarray:
    """All from the moment whose cut is nearest to `count`; at least the last moment, and `leave` moments stay."""
    moments, sizes = np.unique(times, return_counts=True)
    later = sizes[::-1].cumsum()[::-1][leave:]  # how many examples stand at or after each moment
    return times >= moments[leave:][np.argmin(np.abs(later - count))]
