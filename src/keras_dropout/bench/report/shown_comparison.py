"""A comparison that can be shown: as tables on the terminal, as HTML in a notebook, and as a page."""

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Group

from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.ledger.looks import Asked, asked_before
from keras_dropout.bench.ledger.lookup import peek
from keras_dropout.bench.records import Result
from keras_dropout.bench.report import charts, tables
from keras_dropout.bench.report.comparison_document import report_document
from keras_dropout.bench.report.page import write_page
from keras_dropout.display import Shown, as_html

# CSS colours for a chart outside the report: the colour of the surrounding text, and two that are visible on light and dark.
_COLORS = (
    "font-family: sans-serif; --ink: currentColor; --quiet: currentColor; --line: currentColor; --better: #3987e5; --worse: #d95926"
)


# A subclass, so that `Comparison` imports nothing from the report, and an object can be shown wherever it is made or unpickled.
class ShownComparison(Shown, Comparison):
    """The results of a study. Prints as tables, and an answer; `verdicts`, `to_frame()` and `document()` give it as data.

    `with_details()` prints more, and `save_report(path)` writes the page.

    The data of each test example are read from the `ledger`, if there is one, only when needed, so that memory does not grow with
    the runs.
    """

    @property
    def asked(self) -> Asked:
        """What the ledger knows of the question of this study: see `ledger.looks`."""
        if self.ledger is None:
            return Asked()
        if self._looked is None:
            self._looked = asked_before(self.ledger, self.study, self.max_seeds, self.number)
        return self._looked

    _looked: Asked | None = None

    def with_each_example(self, keys: Collection[str]) -> Mapping[str, Result]:
        """Return the results of these runs with the ledger's data of each test example."""
        return super().with_each_example(keys) if self.ledger is None else peek(self.ledger, keys)

    def with_fixed_division(self, keys: Collection[str]) -> Mapping[str, Result]:
        """Return the ledger's results among these runs."""
        return super().with_fixed_division(keys) if self.ledger is None else peek(self.ledger, keys, each_example=False)

    def report_document(self) -> dict[str, Any]:
        """Return all that the report shows as plain values: `document`, curves, pairs, test examples and network."""
        return report_document(self)

    def save_report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs no network, and return its path."""
        return write_page(Path(path), self.report_document())

    def with_details(self) -> Self:
        """Return this comparison, which then also prints effect sizes, other tests and power."""
        found = copy.copy(self)
        found._has_details = True
        return found

    _has_details = False

    def __rich__(self) -> Group:
        return tables.comparison(self, self._has_details)

    def _repr_html_(self) -> str:
        """Return the tables and a chart of the differences in the deciding metric."""
        metric = self.deciding
        picture, differences = "", self.rows(metric)
        if any(row["difference"] is not None for row in differences):
            drawn = charts.paired_differences(differences, self.pairs(metric), metric, self.higher_is_better(metric))
            picture = f'<div style="{_COLORS}">{drawn}</div>'
        return f"{as_html(self)}\n{picture}"
