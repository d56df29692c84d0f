"""Collect a comparison for the page as plain values: its document, curves, pairs, and the test examples in the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_dropout.bench import disagreement
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.execution.machine import machine, versions
from keras_dropout.bench.ledger.lookup import examples
from keras_dropout.bench.metric_names import COVERAGE, EDGES, is_monte_carlo
from keras_dropout.bench.records import Result
from keras_dropout.bench.report import resampled
from keras_dropout.bench.report.verdict import monte_carlo_sentences, seeds_sentences
from keras_dropout.bench.statistics import finite_mean, finite_or_none


def report_document(found: Comparison) -> dict[str, Any]:
    """Return all that the page shows: `Comparison.document`, curves, pairs, and, if known, test examples and network."""
    document, study = found.document(), found.study
    keys = {variant.name: [study.key(variant, seed) for seed in study.seeds] for variant in study.variants}
    curves = {name: [found.results[key].curves for key in each if key in found.results] for name, each in keys.items()}
    by_metric = {
        metric: {row["variant"]: row for row in document["comparisons"] if row["metric"] == metric} for metric in found.metrics
    }
    figures = by_metric.get(found.deciding, {})
    sampled = {
        "metrics": [metric for metric in found.sampled_metrics if is_monte_carlo(metric)],
        "repeated": found.repeated,
        "sentences": monte_carlo_sentences(study.samples, document.get("monte_carlo", ())),
    }
    return {
        **document,
        **found.more,
        "curves": curves,
        "pairs": {metric: found.pairs(metric) for metric in found.own_metrics},
        "seeds_sentences": [
            *seeds_sentences(figures, found.deciding),
            *resampled.sentences(by_metric, found.deciding, found.command),
        ],
        "sampled": sampled,
        "made": {"command": found.command, **(found.made or {"started": None, "versions": versions(), "machine": machine()})},
        **_test_examples(found),
    }


def _test_examples(found: Comparison) -> dict[str, Any]:
    """Return "examples", "confusion" and "calibration"; each is None if the runs have no data for it."""
    by_variant = found.of_each_example([variant.name for variant in found.study.variants])
    predictions = {name: [None if run is None else run.predictions for run in runs] for name, runs in by_variant.items()}
    losses = {name: [None if run is None else run.test_losses for run in runs] for name, runs in by_variant.items()}
    said: dict[str, Any] = {"examples": None, "confusion": None, "calibration": _calibration(by_variant)}
    own = found.study.divisions is not None  # each seed has test examples of its own
    kept = None if found.ledger is None or own else examples(found.ledger, found.study.data.fingerprint)
    if kept is None or not any(each is not None for seeds in predictions.values() for each in seeds):
        return said
    about, arrays = kept
    answers = arrays["answers"]
    confusion = disagreement.confusion(answers, predictions, found.study.baseline)
    said["confusion"] = confusion and {"names": _names(about["names"], confusion.pop("number")), **confusion}
    place = {number: row for row, number in enumerate(arrays.get("index", ()))}
    candidates = arrays.get("index", np.arange(len(answers)))
    said["examples"] = {
        "kind": about["kind"],
        "names": about["names"] or None,
        "columns": about["columns"] or None,
        "count": len(answers),
        "stored": len(candidates),
        "disputed": [
            {
                "index": number,
                "answer": answers[number].item(),
                "variants": {
                    name: {
                        "loss": finite_or_none(finite_mean(np.array([np.nan if a is None else a[number] for a in losses[name]]))),
                        "predictions": [None if each is None else each[number].item() for each in predictions[name]],
                    }
                    for name in by_variant
                },
                "pixels": arrays["inputs"][place[number]].tolist() if about["kind"] == "images" else None,
                "row": arrays["inputs"][place[number]].tolist() if about["kind"] == "rows" else None,
            }
            for number in disagreement.disputed(answers, candidates, predictions, losses)
        ],
    }
    return said


def _names(names: Sequence[str], number: int) -> list[str]:
    """Return names for `number` classes; a class without a name gets its number."""
    return [names[each] if each < len(names) else str(each) for each in range(number)]


def _calibration(by_variant: Mapping[str, Sequence[Result | None]]) -> dict[str, Any] | None:
    """Gather the curves of plain and Monte-Carlo predictions over seeds."""
    found = {}
    for name, runs in by_variant.items():
        curves = [run.calibration for run in runs if run is not None and run.calibration]
        if curves:
            found[name] = {
                kind: {
                    "reliability": {"edges": EDGES, "runs": [each[kind]["reliability"] for each in curves]},
                    "risk_coverage": {"coverage": COVERAGE, "runs": [each[kind]["risk_coverage"] for each in curves]},
                }
                for kind in ("plain", "monte_carlo")
            }
    return found or None
