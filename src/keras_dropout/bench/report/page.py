"""Write the page: one plain document in, one HTML file out that makes no request. Computes no statistic, never loads Keras."""

import base64
import hashlib
import json
import math
import re
import struct
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from keras_dropout.bench.metric_names import plain_metric
from keras_dropout.bench.own_training import training_text
from keras_dropout.bench.report import charts, network, verdict
from keras_dropout.characters import cleaned
from keras_dropout.errors import refuse
from keras_dropout.writing import write_whole

HERE = Path(__file__).parent
LARGE = 3_000_000  # bytes; a page above this is slow to send and to open
_MOST_PIXELS = 64  # on a side of an example's picture


def write_page(path: Path, document: Mapping[str, Any]) -> Path:
    """Write the page completely or not at all, and return its path. Warn if the page is larger than `LARGE`.

    Every value that the templates insert passes `cleaned`. The embedded document keeps names unchanged, escaped by JSON.

    `document` comes from `ShownComparison.report_document`. The page leaves out each of "search", "sweep", "worlds", "examples",
    "confusion", "calibration", "network" and "reproduction" (the summary of an `Outcome`) that is None or missing.
    """
    check_report_path(path)
    environment = jinja2.Environment(
        finalize=cleaned,
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": lambda value, digits=4: number(value, digits, "+"),
        "significant": lambda value: "–" if value is None else f"{value:.4g}".replace("-", "−"),
        "words": lambda name: name.replace("_", " "),
        "picture": picture,
        "counted": _counted,
        "called": _called,
        "mostly_wrong": _mostly_wrong,
        "race": verdict.race_words,
        "training": training_text,
        "unbroken": lambda text: re.sub(r"(?<=\d) %", "\u00a0%", text),
    }
    optional = ("reproduction", "search", "sweep", "examples", "confusion", "calibration", "network", "monte_carlo", "worlds")
    absent: dict[str, Any] = dict.fromkeys(optional)
    document = absent | dict(document)
    # Without the last newline, as jinja inserts them into the page.
    scripts = {name: (HERE / name).read_text("utf-8").removesuffix("\n") for name in ("page.js", "network.js")}
    metrics = list(document["pairs"])
    html = environment.get_template("page.html").render(
        document=document,
        verdict=verdict.verdict(document),
        described=verdict.described,
        expected=verdict.expected,
        metrics=[name for name in metrics if name not in map(plain_metric, document["sampled"]["metrics"])],
        most_together=charts.MOST_TOGETHER,
        fewest_in_bin=charts.FEWEST_IN_BIN,
        run_metrics=_run_metrics(document),
        figures=_figures(document, metrics),
        style=Markup((HERE / "page.css").read_text("utf-8")),
        network=network.draw(document["network"]),
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts.values()],
        data=Markup(json.dumps(_embedded(document), allow_nan=False).replace("<", "\\u003c")),
    )
    # With the user's permissions for new files.
    write_whole(path, lambda part: part.write_text(html, "utf-8", newline="\n"), "Choose another --report.")
    if (size := path.stat().st_size) > LARGE:
        warnings.warn(
            f"The report {path} has {size / 1e6:.1f} MB: fewer variants or smaller pictures make it smaller.", stacklevel=2
        )
    return path


def number(value: float | None, digits: int = 4, sign: str = "-") -> str:
    """Format a value with `digits` decimals, fewer for large values; None becomes a dash."""
    if value is None:
        return "–"
    digits = max(0, digits - max(0, math.floor(math.log10(abs(value))))) if value else digits
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def picture(pixels: Sequence[Any]) -> str:
    """Return h×w or h×w×3 values from 0 to 255 as the data URL of a PNG; a large picture is reduced by averaging blocks."""
    grid = np.asarray(pixels, dtype=float)
    if grid.ndim == 3 and grid.shape[2] == 1:
        grid = grid[..., 0]
    step = math.ceil(max(grid.shape[:2]) / _MOST_PIXELS)
    if step > 1:
        height, width = (side // step for side in grid.shape[:2])
        grid = grid[: height * step, : width * step].reshape(height, step, width, step, *grid.shape[2:]).mean(axis=(1, 3))
    grid = grid.round().clip(0, 255).astype(np.uint8)
    height, width = grid.shape[:2]
    color = 0 if grid.ndim == 2 else 2
    lines = b"".join(b"\0" + row.tobytes() for row in grid)  # no filter

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _counted(predictions: Sequence[Any], names: Sequence[str] | None) -> str:
    """Summarise the predictions of the seeds: classes with their counts, the most frequent first; for values mean and range."""
    known = [value for value in predictions if value is not None]
    if not known:
        return "–"
    if any(isinstance(value, float) for value in known):
        return f"{number(sum(known) / len(known), 3)} ({number(min(known), 3)} to {number(max(known), 3)})"
    counts = Counter(_called(value, names) for value in known).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{count}× {name}" for name, count in counts)


def _called(value: Any, names: Sequence[str] | None) -> str:
    """Return a class's name, or its number if it has no name; a value to three digits."""
    if isinstance(value, float):
        return number(value, 3)
    return names[value] if names and 0 <= value < len(names) else str(value)


def _mostly_wrong(predictions: Sequence[Any], answer: Any) -> bool:
    """Return whether most seeds predict a wrong class; False for values."""
    known = [value for value in predictions if value is not None]
    return isinstance(answer, int) and 2 * sum(value != answer for value in known) > len(known)


def _run_metrics(document: Mapping[str, Any]) -> list[str]:
    """Return the metrics for the table of runs, test metrics first."""
    names = list(document["variants"][0]["mean"])
    return sorted(names, key=lambda name: (not name.startswith("test"), "loss" not in name, name))


def _figures(document: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the charts by part, without charts that have no data, such as all charts before the first run ends."""
    variants, pairs, curves = document["variants"], document["pairs"], document["curves"]
    variants = sorted(variants, key=lambda variant: variant["name"] != document["study"]["baseline"])
    curves = {variant["name"]: curves.get(variant["name"], ()) for variant in variants}
    moving = [variant for variant in variants if variant["schedule"]]
    rising = {row["metric"] for row in document["comparisons"] if row["higher_is_better"]}
    compared = {row["metric"] for row in document["comparisons"] if row["difference"] is not None}
    search, sweep = document["search"], document["sweep"]
    confusion, sampled = document["confusion"], {row["variant"] for row in document["monte_carlo"] or ()}
    # If Monte-Carlo predictions equal the plain ones, draw them once.
    calibration = {
        name: found if name in sampled or not found else {"plain": found["plain"]}
        for name, found in (document["calibration"] or {}).items()
    }
    return {
        "differences": {
            name: charts.paired_differences(document["comparisons"], pairs[name], name, name in rising)
            for name in metrics
            if name in compared
        },
        "pairs": {
            name: charts.pairs_of_values(variants, _values(variants, name), name.replace("_", " "))
            for name in metrics
            if name in compared
        },
        "curves": _learning_curves(document, curves, metrics),
        "gap": _gap(variants),
        "rates": charts.rates(moving, document["study"]["epochs"]) if moving else None,
        "response": {name: charts.response(curve, name) for name, curve in (sweep or {"curves": {}})["curves"].items()},
        "confusion": {
            name: [
                charts.confusion(confusion["names"], counts, name, False),
                *(
                    [charts.confusion(confusion["names"], confusion["difference"][name], name, True)]
                    if confusion["difference"].get(name) and name != document["study"]["baseline"]
                    else []
                ),
            ]
            for name, counts in (confusion or {"mean": {}})["mean"].items()
            if counts
        },
        "calibration": {
            name: (charts.reliability(found, name), charts.risk_coverage(found, name))
            for name, found in calibration.items()
            if found
        },
        "arms": charts.arms(document["reproduction"]["figures"]) if document["reproduction"] else {},
        "worlds": charts.worlds(document["worlds"]) if document["worlds"] else {},
        "trials": charts.trials(search["trials"]) if search else {},
        "expectation": _expectation(search["winner"], variants) if search else None,
    }


def _learning_curves(document: Mapping[str, Any], curves: charts.Curves, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the charts by metric and part; of a training function those of all that it logged."""
    if "function" in document["study"]:
        logged = charts.logged_curves(curves)
        return {"logged": logged} if logged else {}
    names = [metric.removeprefix("test_") for metric in metrics]
    return {name: found for name in names if (found := charts.learning_curves(curves, name))}


def _values(variants: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[float | None]]:
    return {variant["name"]: [run.get(metric) for run in variant["runs"]] for variant in variants}


def _gap(variants: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw the final validation loss minus the training loss, with dropout off."""
    validation, training = _values(variants, "validation_loss"), _values(variants, "train_loss")
    gaps = {
        name: [None if ours is None or theirs is None else ours - theirs for ours, theirs in zip(validation[name], training[name])]
        for name in validation
    }
    if not any(value is not None for values in gaps.values() for value in values):
        return None
    return charts.pairs_of_values(variants, gaps, "validation − training loss")


def _expectation(winner: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> Markup | None:
    fresh, optimistic = winner["fresh"]["validation_loss"], winner["optimistic"]["validation_loss"]
    if fresh["mean"] is None or optimistic is None:
        return None
    tuned = [variant for variant in variants if variant["name"] == "tuned"]
    runs = [run["validation_loss"] for variant in tuned for run in variant["runs"] if run.get("validation_loss") is not None]
    return charts.expectation(optimistic, fresh, runs)


def _embedded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document to embed: curves only at the drawn epochs and to five digits, without pixels (they are pictures)."""
    curves = {
        name: [{metric: _thinned(values) for metric, values in run.items()} for run in runs]
        for name, runs in (document["curves"]).items()
    }
    epochs = charts.chosen_epochs(document["study"]["epochs"] or 0)
    held = dict(document) | {"curves": curves, "curve_epochs": epochs}
    if document["examples"]:
        bare = [{name: value for name, value in each.items() if name != "pixels"} for each in document["examples"]["disputed"]]
        held["examples"] = document["examples"] | {"disputed": bare}
    return held


def _thinned(values: Sequence[float]) -> list[float | None]:
    kept = [values[epoch - 1] for epoch in charts.chosen_epochs(len(values))]
    return [float(f"{value:.5g}") if value is not None and math.isfinite(value) else None for value in kept]


def check_report_path(path: str | Path) -> None:
    """Refuse a report path that cannot be written later, or that is not an .html file."""
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        refuse(f"the report must be an .html file; got {str(path)!r}.", f"For example {path.stem or 'report'}.html.")
    with suppress(OSError):  # try to write; permissions alone are not enough (root, read-only mounts)
        tempfile.TemporaryFile(dir=path.parent).close()
        if not path.is_dir():
            return
    refuse(f"the report {path} cannot be written there.", "Name a file in a folder that you can write to, for example report.html.")
