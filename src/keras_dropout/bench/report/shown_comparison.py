"""A comparison that shows itself: as tables on the terminal, as HTML in a notebook, and as a page."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group

from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.ledger.lookup import peek
from keras_dropout.bench.metric_names import higher_is_better
from keras_dropout.bench.records import Result
from keras_dropout.bench.report import charts, tables
from keras_dropout.bench.report.comparison_document import report_document
from keras_dropout.bench.report.page import write_page
from keras_dropout.display import Shown, as_html

# CSS colours of a chart outside the page: those of the text around it, and two that are seen on light and on dark.
_COLORS = (
    "font-family: sans-serif; --ink: currentColor; --quiet: currentColor; --line: currentColor; --better: #3987e5; --worse: #d95926"
)


# A subclass, so that `Comparison` imports nothing of the report, and an object shows itself wherever it is made or unpickled.
class ShownComparison(Shown, Comparison):
    """What a study found. Prints as tables; `verdicts`, `to_frame()`, `document()` and `save_report(path)` give it as data.

    Reads from the `ledger`, if there is one, what it has of each test example, only when that is needed: memory does not grow
    with the runs.
    """

    def with_each_example(self, keys: Collection[str]) -> Mapping[str, Result]:
        """Return the results of these runs with what the ledger has of each test example."""
        return super().with_each_example(keys) if self.ledger is None else peek(self.ledger, keys)

    def report_document(self) -> dict[str, Any]:
        """Return all that the report shows as plain values: `document`, curves, pairs, test examples and network."""
        return report_document(self)

    def save_report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs no network, and return its path."""
        return write_page(Path(path), self.report_document())

    def __rich__(self) -> Group:
        return tables.comparison(self)

    def _repr_html_(self) -> str:
        """Return the tables, and the differences in the test loss as a picture."""
        picture, differences = "", self.rows("test_loss")
        if any(row["difference"] is not None for row in differences):
            drawn = charts.paired_differences(differences, self.pairs("test_loss"), "test_loss", higher_is_better("test_loss"))
            picture = f'<div style="{_COLORS}">{drawn}</div>'
        return f"{as_html(self)}\n{picture}"
