"""An assessment on the terminal: tables and sentences. Computes no statistic."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

_SHORT = {"ece_debiased": "debiased", "ms/example": "ms each"}  # eight columns share the width of a page


def render(assessed: Any) -> Group:
    """What `keras-dropout uncertainty` prints of an `Assessment`."""
    many = len(assessed.seeds) > 1
    over = f"mean of {len(assessed.seeds)} seeds, 95 % interval over seeds" if many else "95 % interval over examples"
    title = f"{assessed.target} on {assessed.data}: {assessed.examples:,} test examples, {assessed.samples} samples ({over})"
    parts: list[Any] = [_methods_table(assessed, title)]
    parts += [Text(sentence) for sentence in _sentences(assessed)]
    if assessed.rates:
        parts.append(_table("Rates, on validation data", assessed.rates))
    if assessed.ood:
        parts.append(_table("Other data: how well a score tells them from the test data", assessed.ood))
    if assessed.shifts:
        parts.append(_table("Shifted test images", assessed.shifts))
    parts += [Text(f"! {note}", style="yellow") for note in assessed.notes]
    return Group(*parts)


def _methods_table(assessed: Any, title: str) -> Table:
    shown = [name for name in next(iter(assessed.values.values())) if name != "smooth_ece"]  # there is no room for all
    table = Table(title=Text(title), title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in (*shown, "ms/example"):
        table.add_column(_SHORT.get(name, name), justify="right", no_wrap=True)
    for method, found in assessed.values.items():
        cells = []
        for name in shown:
            interval = assessed.intervals[method].get(name)
            cells.append(f"{np.mean(found[name]):.4f}" + (f"\n{interval[0]:.3f}–{interval[1]:.3f}" if interval else ""))
        time_taken = assessed.milliseconds.get(method)
        table.add_row(method, *cells, "" if time_taken is None else f"{time_taken:.3f}")
    return table


def _sentences(assessed: Any) -> list[str]:
    found = []
    for each in assessed.differences:
        if each["metric"] in ("nll", "ece") and each["interval"]:
            low, high = each["interval"]
            verdict = f": {each['verdict']}" if each["verdict"] else ""
            found.append(
                f"{each['method']} against plain, {each['metric']}: {each['difference']:+.4f} "
                f"(95 % {low:+.4f} to {high:+.4f}){verdict}"
            )
    if assessed.temperatures:
        found.append(f"Temperature, fitted on validation data: {', '.join(f'{t:.3f}' for t in assessed.temperatures)}")
    if assessed.precisions:
        found.append(f"Precision of the noise: {', '.join(f'{t:.4g}' for t in assessed.precisions)}")
    if assessed.moments_error is not None:
        found.append(
            f"Moment propagation differs from {assessed.samples} samples by {assessed.moments_error:.4f} a probability (mean)."
        )
    return found


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_cell, value))
    if value is None or isinstance(value, bool):
        return "chosen" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
