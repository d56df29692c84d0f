"""The page: the values of a comparison and its charts in one HTML file that makes no request."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from keras_dropout.bench.report import charts
from keras_dropout.errors import refuse


def write_page(path: Path, document: Mapping[str, Any]) -> Path:
    """Write the page whole or not at all, and return its path. `document` is what `Comparison.report_document` gives."""
    curves, pairs, made, sampled = (document[name] for name in ("curves", "pairs", "made", "sampled"))
    seeds_sentences = document["seeds_sentences"]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_dropout.bench.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["number"] = lambda value, digits=4: "–" if value is None else f"{value:.{digits}f}"
    environment.filters["signed"] = lambda value, digits=4: "–" if value is None else f"{value:+.{digits}f}"
    metrics = list(pairs)
    # Only figures with something to show: before the first run ends there is none.
    trained = [name.removeprefix("test_") for name in metrics]
    moving = [variant for variant in document["variants"] if variant["schedule"]]
    figures = {
        "trials": Markup(charts.trials(document["search"]["trials"])) if "search" in document else None,
        "response": {
            name: Markup(charts.response(curve, name)) for name, curve in document.get("sweep", {"curves": {}})["curves"].items()
        },
        "rates": Markup(charts.rates(moving, document["study"]["epochs"])) if moving else None,
        "curves": {name: Markup(charts.learning_curves(curves, name)) for name in trained},
        "finals": {name: Markup(charts.final_values(document["variants"], name)) for name in metrics},
        "differences": {
            name: Markup(charts.paired_differences(document["comparisons"], pairs[name], name)) for name in metrics if pairs[name]
        },
    }
    data = json.dumps(document, allow_nan=False).replace("<", "\\u003c")
    html = environment.get_template("page.html").render(
        document=document,
        metrics=[name for name in metrics if name.replace("test_", "test_mc_") not in sampled["metrics"]],
        sampled=sampled,
        figures=figures,
        made=made,
        data=Markup(data),
        sentences=_sentences([row for row in document["comparisons"] if row["metric"] in pairs]),
        seeds_sentences=seeds_sentences,
    )
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".html", delete=False, encoding="utf-8") as file:
            file.write(html)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        refuse(f"the report {path} cannot be written: {error.strerror}.", "Choose another --report.")
    return path


def _sentences(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence a variant: what its placement did to each metric."""
    found: dict[str, list[str]] = {}
    for row in comparisons:
        words = f"{row['metric'].replace('_', ' ')} {row['verdict']}"
        if row["interval"]:
            words += f" ({row['difference']:+.4f}, 95 % interval {row['interval'][0]:+.4f} to {row['interval'][1]:+.4f})"
        found.setdefault(f"{row['variant']} against {row['baseline']}", []).append(words)
    return [f"{name}: {'; '.join(words)}." for name, words in found.items()]


def check_report_path(path: str | Path) -> None:
    """Refuse a report that could not be written at the end."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        refuse(f"the report {path} cannot be written there.", "Name a file in a folder that exists, for example report.html.")
