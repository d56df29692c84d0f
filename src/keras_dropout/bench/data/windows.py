"""Windows of a series: each example is some rows in a sequence, and its answer stands some rows after the last of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_dropout.bench.data import opening
from keras_dropout.errors import refuse

_EVEN = 1.5  # the longest step of a series with even steps, in shortest steps: months differ by less


@dataclass(frozen=True)
class Windows:
    """Windows of `length` rows, with the answer `horizon` rows after the last row.

    They are cut within a part of the data, after the encoding is learned: no window or answer reaches into another part.
    """

    length: int
    horizon: int

    def count(self, rows: int) -> int:
        """Return the number of windows of a part with so many rows."""
        return rows - self.length - self.horizon + 1

    def cut(self, part: str, x: np.ndarray, times: np.ndarray, *by_row: Any) -> tuple[Any, ...]:
        """Return windows of shape (windows, length, columns), and `by_row` (None stays None) at their answers, in order of time."""
        count = self.count(len(x))
        if count < 1:
            refuse(
                f"the {part} part has {len(x)} rows; a window of {self.length} with its answer {self.horizon} after it takes "
                f"{self.length + self.horizon}.",
                "Use a shorter window, or a larger part: --test-split, --validation-split.",
            )
        size = count * self.length * x.shape[1] * x.itemsize
        if size > opening.most():
            refuse(
                f"the windows of the {part} part take {size / 1e9:.1f} GB, more than half of the memory.", "Use a shorter window."
            )
        order = np.argsort(times, kind="stable")
        seen = np.lib.stride_tricks.sliding_window_view(x[order], self.length, axis=0)[:count]
        answers = order[self.length + self.horizon - 1 :]
        found = (None if values is None else values[answers] for values in by_row)
        return np.ascontiguousarray(np.moveaxis(seen, -1, 1)), *found


def check_times(times: np.ndarray, column: str) -> list[str]:
    """Refuse moments that two rows share: these are several series. Return a note if the steps of time are uneven."""
    steps = np.diff(np.sort(times))
    if not steps.all():
        refuse(
            f"{int((steps == 0).sum())} row(s) have the time of another one in column {column!r}.",
            "Windows are of one series: give the rows of one, each with a time of its own.",
        )
    if len(steps) and steps.max() > _EVEN * steps.min():
        return [
            f"column {column}: the longest step of time is {steps.max() / steps.min():.3g} times the shortest; windows count rows"
        ]
    return []
