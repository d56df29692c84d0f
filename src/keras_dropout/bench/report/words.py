"""Sentences about the figures of a study, the same on the terminal, in a notebook and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any


def seeds_sentences(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the number of seeds is good for, and what a margin says, one sentence each, from `Comparison.figures`."""
    found = []
    for name, each in figures.items():
        said, margin = [], each["equivalence"]
        if each["detectable_difference"] is not None:
            said.append(f"as many seeds show a test loss difference of {each['detectable_difference']:.4f} with 80 % power")
        if each["pairs_needed"] is not None:
            said.append(f"{'the margin' if margin else 'one as seen'} takes {each['pairs_needed']}")
        if each["unpaired_seeds"] is not None:
            said.append(f"without pairing, {each['unpaired_seeds']} would be as precise")
        found += [f"{name}: {'; '.join(said)}."] if said else []
        if margin:
            low, high = margin["interval"]
            found.append(
                f"{name}, margin {margin['margin']:g}: 90 % interval {low:+.4f} to {high:+.4f}; better by more with probability "
                f"{margin['better']:.3f}, within {margin['within']:.3f}, worse by more {margin['worse']:.3f}."
            )
    return found


def monte_carlo_sentences(samples: int | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What Monte-Carlo predictions do to each variant's NLL or RMSE, one sentence each, from `Comparison.monte_carlo`."""
    found = []
    for row in rows:
        if row["metric"] in ("test_nll", "test_rmse") and row["pairs"]:
            between = " (95 % interval {:+.4f} to {:+.4f})".format(*row["interval"]) if row["interval"] else ""
            found.append(
                f"{row['variant']}: {samples} samples against its own plain predictions, paired over {row['pairs']} seed(s): "
                f"{row['metric'].removeprefix('test_')} {row['difference']:+.4f}{between}."
            )
    return found


def expected(row: Mapping[str, Any]) -> str:
    """An expectation of a reproduction with its bounds, as "test loss, none minus hidden > 0"."""
    if row["figure"] is not None:
        return f"{row['says']}: {row['figure']:g} could be one more"
    if row["above"] is None and row["below"] is None:
        return row["says"]
    if row["above"] is not None and row["below"] is not None:
        return f"{row['says']}: between {row['above']:g} and {row['below']:g}"
    return f"{row['says']} > {row['above']:g}" if row["below"] is None else f"{row['says']} < {row['below']:g}"
