"""The page docs/methods.md, from what benchmarks/methods.py stored."""

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """# Methods against none, at the same tuning budget

What is a method worth when it gets as much tuning as any other? On each of three data sets a perceptron with two hidden
layers is trained with each method. Every method gets the same budget: six settings on two seeds that no comparison uses, of
which the smallest mean validation loss is chosen; that it be off is none of the six. What is chosen is trained on fresh seeds, for
the same number of updates, and compared with none on the test data, paired by seed; verdicts are adjusted over all methods of a
data set. Two references are no dropout: weight decay and early stopping, tuned alike. What follows from it is in
[Where should my dropout go?](where.md#which-kind).
"""

TAIL = """
## How to read it

The rank is that of the mean test loss, its interval the middle 95 % when seeds are drawn again. Time is that of the fastest
run, in times of that without dropout, on a CPU that did other work beside: a rough figure. `RDrop` and `MultiSampleDropout`
are not here, as the bench does not copy models with a loss of their own. Where a limit of max-norm never binds, its row is that of
`Dropout`. One kind of network, three sets of small images:
on others it may be otherwise, and `keras-dropout tune TARGET --kind GaussianDropout` asks your own model.
"""


def page(stored: Mapping[str, Any]) -> str:
    """Tables by data set, and the mean ranks."""
    found = stored["rows"]
    lines = [HEAD, *_together(found["together"], [table["data"] for table in found["tables"]])]
    for table in found["tables"]:
        lines += ["", *_table(table)]
    cores = stored["machine"]["cores"]
    lines += [TAIL, f"Made by `{stored['command']}`, {stored['date']}, commit {stored['commit']}, {cores} cores, no GPU."]
    if before := stored.get("before"):
        lines += [f"The other data sets: `{before['command']}`, {before['date']}, commit {before['commit']}."]
    return "\n".join(lines) + "\n"


def _together(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rows = [
        f"| {row['method']} | {row['mean_rank']:.1f} | {' | '.join(f'{rank:g}' for rank in row['ranks'])} |"
        for row in found["rows"]
    ]
    return [
        "## All together",
        "",
        f"Mean rank over {found['data_sets']} data sets. That all rank alike has p = {found['friedman_p']:.2g} (Friedman's test); "
        "so few data sets tell the best from the worst, not neighbours from each other.",
        "",
        f"| method | mean rank | {' | '.join(names)} |",
        f"|---|---:|{'---:|' * len(names)}",
        *rows,
    ]


def _table(found: Mapping[str, Any]) -> list[str]:
    net = "-".join(map(str, found["hidden"]))
    lines = [
        f"## {found['data']}",
        "",
        f"{found['train']:,} images to train on, hidden layers of {net}, {found['epochs']} epochs, "
        f"{len(found['seeds'])} fresh seeds; {found['test']:,} test images.",
        "",
        "| method | rank | test loss | difference to none | | accuracy, points | | time | chosen |",
        "|---|---|---:|---|---|---|---|---:|---|",
    ]
    for row in found["methods"]:
        low, high = row["rank_interval"]
        loss, accuracy = (row.get(f"{metric}_difference") for metric in ("test_loss", "test_accuracy"))
        cells = (
            row["method"],
            f"{row['rank']:g} ({low:.0f} to {high:.0f})",
            f"{row['test_loss']:.4f}",
            *_difference(loss, 1, 4),
            *_difference(accuracy, 100, 2),
            f"{row['times_none']:.1f}",
            f"`{row['setting']}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _difference(found: Mapping[str, Any] | None, times: int, digits: int) -> tuple[str, str]:
    if found is None:
        return "", ""
    low, high = (times * end for end in found["interval"])
    verdict = "" if found["verdict"] == "no difference shown" else f"**{found['verdict']}**"
    return f"{times * found['mean']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})", verdict
