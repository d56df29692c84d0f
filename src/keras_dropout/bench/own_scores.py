"""Compare scores of one's own: a table of variants, seeds and metrics -> the same statistics, tables and page. Trains nothing."""

import hashlib
import json
import math
import numbers
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.data import opening
from keras_dropout.bench.data.tables import read_table
from keras_dropout.bench.metric_names import known_direction
from keras_dropout.bench.records import BASELINE, DataFacts, Result, Scores, Variant
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.settings import Settings, complete
from keras_dropout.errors import check_choice, check_path, refuse

_FORM = "A table has a row for each run, with the columns variant, seed and one for each metric."


def compare_scores(
    scores: Any,
    *,
    baseline: str | None = None,
    variant_column: str = "variant",
    seed_column: str = "seed",
    higher_is_better: Collection[str] = (),
    lower_is_better: Collection[str] = (),
    primary: str | None = None,
    margin: float | None = None,
    power: float | None = None,
    report: str | Path | None = None,
) -> ShownComparison:
    """Compare the scores of runs that were trained elsewhere, with the statistics, tables and page of `compare`.

    `scores` is a table with a row for each run: the path of a .csv, .tsv or .parquet file, a DataFrame, or a dict of columns. The
    columns `variant_column` and `seed_column` name the run; every other column of numbers is a metric. Runs of the same seed are
    paired: they must share what the seed stands for, such as initial weights, a fold or a subject.

    `baseline` is the variant that the others are compared with, by default "none". Whether a higher value is better is known for
    usual names (loss, error, accuracy, AUC); for other metrics name them in `higher_is_better` or `lower_is_better`. The first
    metric leads the sentence, or `primary`, whose verdicts are then a family of their own. `margin` and `power` are those of
    `compare`. An empty cell is a score that is missing; inf says that the run diverged. `report` is a path for the page.

    Raises `BadInput` for a run that is there twice, text in a metric's column, fewer than two variants and unknown metrics.

    >>> found = compare_scores(
    ...     {"variant": ["none"] * 6 + ["hidden"] * 6, "seed": [*range(6)] * 2, "loss": [5, 6, 7, 8, 9, 10, 4, 5, 6, 7, 8, 9.5]},
    ... )
    >>> found.verdicts
    {'hidden': {'loss': 'better'}}
    """
    name, columns, notes = _columns(scores, variant_column)
    runs = _runs(name, columns, variant_column, seed_column)
    variants = tuple(dict.fromkeys(variant for variant, _ in runs))
    if len(variants) < 2:
        refuse(f"{name} has one variant, {variants[0]!r}: there is nothing to compare it with.", "Add the runs of a baseline.")
    if baseline is None and BASELINE not in variants:
        refuse(
            f"{name} has no variant {BASELINE!r} to compare the others with; it has {', '.join(variants)}.",
            f'For example --baseline {shlex.quote(variants[0])}, in Python baseline="{variants[0]}".',
        )
    metrics, left_out = _metrics(name, {key: values for key, values in columns.items() if key not in (variant_column, seed_column)})
    if not metrics:
        refuse(f"{name} has no column of numbers beside variant and seed.", _FORM)
    if taken := sorted(metrics.keys() & {"key", "variant", "seed", "status", "error"}):
        refuse(f"{name} has a metric {taken[0]!r}, which is the name of something else in the results.", "Rename the column.")
    if primary is not None:
        check_choice("primary metric", primary, tuple(metrics))
    rising = _rising(metrics, higher_is_better, lower_is_better)
    study = Scores(
        target=name,
        data=DataFacts(name, _fingerprint(runs, metrics), 0, 0, 0),
        model={},
        compiled={},
        split="",
        backend="",
        engine="",
        epochs=0,
        batch_size=0,
        seeds=tuple(dict.fromkeys(seed for _, seed in runs)),
        variants=tuple(Variant(variant, None) for variant in variants),
        baseline=baseline or BASELINE,
        metrics=tuple(metrics),
        rising=rising,
    )
    by_name = {variant.name: variant for variant in study.variants}
    results = {study.key(by_name[variant], seed): _result(metrics, row) for row, (variant, seed) in enumerate(runs)}
    found = ShownComparison(
        study,
        {key: result for key, result in results.items() if result},
        command="keras_dropout.compare_scores(…) in Python",
        notes=(*notes, *left_out),
        primary=primary,
        **{name: complete({name: value}, Settings)[name] for name, value in (("margin", margin), ("power", power))},
    )
    if report is not None:
        found.save_report(check_path("report", report, "report.html"))
    return found


def is_scores(target: Any, data: Any = None) -> bool:
    """Return whether a target is a table of scores: the name of a .csv, .tsv or .parquet file, with no data beside it."""
    return data is None and isinstance(target, str | Path) and opening.ending(Path(target)) in (".csv", ".tsv", ".parquet")


def _columns(scores: Any, variant_column: str) -> tuple[str, dict[str, list[Any]], list[str]]:
    """Return a name of the table, its columns as lists of one length, and notes on how it was read."""
    name, notes = "scores", list[str]()
    if isinstance(scores, str | Path):
        name = Path(scores).name
        scores, notes, _ = read_table(Path(scores), [variant_column])
    if isinstance(scores, Mapping):
        found = {str(key): list(values) for key, values in scores.items()}
    elif hasattr(scores, "columns"):
        found = {str(key): list(scores[key]) for key in scores.columns}
    else:
        refuse(
            f"scores must be a table; got {type(scores).__name__}.",
            "Give the path of a .csv file, a DataFrame or a dict of columns.",
        )
    if len({len(values) for values in found.values()}) > 1:
        refuse(f"the columns of {name} have different lengths.", _FORM)
    if not found or not next(iter(found.values())):
        refuse(f"{name} has no rows.", _FORM)
    return name, found, notes


def _runs(name: str, columns: Mapping[str, Sequence[Any]], variant_column: str, seed_column: str) -> list[tuple[str, Any]]:
    """Return (variant, seed) of each row; refuse rows without one, and a run that is there twice."""
    for column, role in ((variant_column, "variant"), (seed_column, "seed")):
        if column not in columns:
            refuse(
                f"{name} has no {role} column {column!r}; its columns are {', '.join(columns)}.",
                f'Name it: --{role}-column COLUMN, in Python {role}_column="COLUMN". {_FORM} '
                "For data to train on, the target is a model, and the table goes with --data.",
            )
        empty = next((row for row, value in enumerate(columns[column], 1) if _is_empty(value)), None)
        if empty is not None:
            refuse(f"{name}: row {empty} has no {role}.", _FORM)
    runs = [(str(_label(v)), _label(seed)) for v, seed in zip(columns[variant_column], columns[seed_column])]
    twice = [run for run, count in Counter(runs).items() if count > 1]
    if twice:
        refuse(
            f"{name} has the run of variant {twice[0][0]!r} and seed {twice[0][1]!r} more than once.",
            "Keep one row for each, or give repeated runs seeds of their own.",
        )
    return runs


def _is_empty(value: Any) -> bool:
    return value is None or value != value or not str(value).strip()


def _label(value: Any) -> Any:
    """Return a whole number as an int, also if it is a text or a float; everything else as text."""
    text = str(value).strip().removesuffix(".0") if isinstance(value, numbers.Real) else str(value).strip()
    return int(text) if re.fullmatch(r"0|-?[1-9]\d*", text) else text


def _metrics(name: str, columns: Mapping[str, Sequence[Any]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the columns of numbers, and a note on the columns of texts; refuse a text among numbers."""
    found, texts = {}, []
    for column, values in columns.items():
        known = [value for value in values if not _is_empty(value)]
        words = [value for value in known if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real)]
        like_numbers = [each for each in words if re.fullmatch(r"\W*\d[\d.,]*(e[+-]?\d+)?\W*", str(each), re.IGNORECASE)]
        if words and (like_numbers or len(words) < len(known)):
            odd = next((each for each in words if not re.fullmatch(r"[+-]?\d+(\.\d*)?", str(each))), words[0])
            refuse(
                f"{name}: the metric {column!r} holds {odd!r}, which is no number.",
                "Write numbers with a decimal point; leave the cell of a missing score empty; write inf for a run that diverged.",
            )
        if words or not known:
            texts.append(column)
        else:
            found[column] = np.array([np.nan if _is_empty(value) else float(value) for value in values])
    return found, [f"columns without numbers are left out: {', '.join(texts)}"] if texts else []


def _rising(metrics: Collection[str], higher: Collection[str], lower: Collection[str]) -> frozenset[str]:
    """Return the metrics of which a higher value is better; refuse a metric of which that is unknown."""
    for each in (*higher, *lower):
        if each not in metrics:
            refuse(f"there is no metric {each!r}; the metrics are {', '.join(metrics)}.", "Name a column of numbers.")
    if both := sorted({*higher} & {*lower}):
        refuse(f"of {both[0]!r} both higher and lower are said to be better.", "Say one of them.")
    directions = {name: name in higher or (known_direction(name) if name not in lower else False) for name in metrics}
    if unknown := [name for name, direction in directions.items() if direction is None]:
        quoted = shlex.quote(unknown[0])
        refuse(
            f"whether a higher or a lower {unknown[0]!r} is better is not known.",
            f"Use --higher-is-better {quoted} or --lower-is-better {quoted}; in Python higher_is_better=[{unknown[0]!r}].",
        )
    return frozenset(name for name, direction in directions.items() if direction)


def _result(metrics: Mapping[str, np.ndarray], row: int) -> Result | None:
    """Return the result in a row of the table; None if all its scores are missing."""
    values = {name: float(column[row]) for name, column in metrics.items() if not np.isnan(column[row])}
    diverged = any(math.isinf(value) for value in values.values())
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return Result("diverged" if diverged else "done", 0.0, 0, finite) if values else None


def _fingerprint(runs: Sequence[tuple[str, Any]], metrics: Mapping[str, np.ndarray]) -> str:
    """Return a hash of the scores, which does not depend on the order of the rows."""
    rows = sorted(repr((run, [float(values[row]) for values in metrics.values()])) for row, run in enumerate(runs))
    return hashlib.sha256(json.dumps([list(metrics), rows]).encode()).hexdigest()[:32]
