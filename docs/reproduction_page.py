"""The page docs/reproductions.md, from what benchmarks/reproductions.py stored."""

import json
from pathlib import Path
from typing import Any

from keras_dropout import reproductions
from keras_dropout.bench.report.verdict import expected
from keras_dropout.reproductions.framework import REPRODUCED, VERDICTS

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "reproductions"

HEAD = """# Reproductions

Claims of the tutorial, and of the papers behind the methods, each as a command that anyone can run. A reproduction is one
or more studies like those of `keras-dropout compare`, with the same ledger, statistics and report, and expectations that
stood before they were run.

```
keras-dropout reproduce --list
keras-dropout reproduce srivastava-rate --quick
```

**How a verdict is reached.** An expectation is about the mean over seeds of one number, mostly a difference paired by
seed. It is *reproduced* where the 95 % interval of the mean lies on the expected side of its bound and the exact
sign-flip test against the bound has p ≤ 0.05, *not reproduced* where both are so on the other side, else *undecided*. A
published figure of one run is compared with the 95 % prediction interval of one more of ours. A figure inside it is
*reproduced* only where the interval reaches no further from our mean than a tolerance that stands beside it; else it is
*compatible*, as figures further off would be. A reproduction is reproduced where each of its expectations is, and
compatible where some are; it is not reproduced where the contrary of one is shown, p adjusted for their number (Holm).
Fewer than six seeds decide nothing, and where many expectations need more to refute one, their section says so.

**What it means.** The studies are cut to two cores: smaller networks, fewer examples, often other data than the paper's.
*Reproduced* says that the claim's direction is shown at this size, and *not reproduced* that here it goes the other way:
it may hold where the paper has it. What differs is said each time. Results on the JPEG copy of CIFAR-10 are so labelled:
JPEG loses something, so they are not CIFAR-10 results.

**What was changed after a first run.** Where an arm had not been trained to its end, or a network did not overfit that a
claim about overfitting needs, sizes or epochs were changed and all was run again; claims and bounds were not. Who changes
a study until its claim comes out can reproduce much: what is reproduced after a change is said to be so, and its section
says what was changed.
"""


def page() -> str:
    """The page: an overview, then each reproduction."""
    stored = {name: _stored(name) for name in reproductions.names()}
    said = ", ".join(f"{sum(each['outcome']['verdict'] == word for each in stored.values())} {word}" for word in VERDICTS)
    changed = sum(_is_changed(each["outcome"]) for each in stored.values())
    said = said.replace(REPRODUCED, f"{REPRODUCED}, {changed} of them after the study was changed", 1)
    lines = [HEAD, f"## Overview\n\n{len(stored)} reproductions: {said}.\n"]
    lines += ["| name | claim | first expectation | mean | 95 % interval | verdict |", "|---|---|---|---|---|---|"]
    for name, each in stored.items():
        outcome = each["outcome"]
        first = outcome["expectations"][0]
        cells = (f"[{name}](#{name})", outcome["claim"], expected(first), _signed(first["measured"]), _interval(first))
        lines.append(_row(*cells, f"**{outcome['verdict']}**{', after a change' if _is_changed(outcome) else ''}"))
    for name, each in stored.items():
        lines += ["", *_section(name, each)]
    return "\n".join(lines) + "\n"


def _is_changed(outcome: dict[str, Any]) -> bool:
    return bool(outcome["changed"]) and outcome["verdict"] == REPRODUCED


def _stored(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _section(name: str, stored: dict[str, Any]) -> list[str]:
    outcome, machine = stored["outcome"], stored["machine"]
    lines = [f"## {name}", "", f"{outcome['title']}. {outcome['claim']} ({outcome['source']})", ""]
    lines += [f"**{outcome['sentence']}**", ""]
    lines += ["| expectation | published | mean | 95 % interval | p | verdict |", "|---|---|---|---|---|---|"]
    for row in outcome["expectations"]:
        cells = (
            expected(row),
            row["published"] or "–",
            _signed(row["measured"]),
            _interval(row),
            f"{row['p']:.2g}",
            row["verdict"],
        )
        lines.append(_row(*cells))
    lines += ["", *_figures(outcome["figures"])]
    lines += [f"Other than published: {outcome['differs']}", ""]
    lines += [f"Changed after a first run: {outcome['changed']}", ""] if outcome["changed"] else []
    data = f" on {' and '.join(outcome['data'])}" if outcome["data"] else ""
    keras = stored["versions"]["keras"]
    timing = outcome["timing"]
    spent = f", {timing['runs']} runs that took {timing['run_seconds']:.0f} s of a core" if timing["runs"] else ""
    lines += [
        f"Made by `{stored['command']}`{data}, {len(outcome['seeds'])} seeds{spent}, "
        f"{stored['date']}, commit {stored['commit']}, Keras {keras}, {machine['cores']} cores."
    ]
    return lines


def _figures(rows: list[dict[str, Any]]) -> list[str]:
    """Mean ± standard deviation, a line for each arm."""
    if not rows:
        return []
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    several = len({row["part"] for row in rows}) > 1
    head = [*(["part"] if several else []), "variant", *(metric.replace("_", " ") for metric in metrics)]
    lines = [_row(*head), "|---" * len(head) + "|"]
    for part, variant in dict.fromkeys((row["part"], row["variant"]) for row in rows):
        found = {row["metric"]: row for row in rows if (row["part"], row["variant"]) == (part, variant)}
        lines.append(_row(*([part] if several else []), variant, *(_mean(found.get(metric)) for metric in metrics)))
    return [*lines, ""]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _mean(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "–"
    return f"{row['mean']:.4g}" + ("" if row["sd"] is None else f" ± {row['sd']:.2g}")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4g}"


def _interval(row: dict[str, Any]) -> str:
    return "–" if row["interval"] is None else f"{row['interval'][0]:+.4g} to {row['interval'][1]:+.4g}"
