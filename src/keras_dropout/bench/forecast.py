"""Forecast what planned seeds can show, from the spread of runs in the ledger. Trains nothing, changes nothing."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_dropout.bench import power
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.ledger.lookup import check_readable, studies
from keras_dropout.bench.report.verdict import seeds_between
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.study.planning import Plan

_MOST_LOOKED_AT = 20  # studies of the target, the latest first


def forecast(plan: Plan, others: int | None = None) -> dict[str, Any] | None:
    """Return what the seeds of a plan can show, from a study of the same target and data in its ledger; None if there is none.

    Of the latest studies, it takes one of as many epochs if there is one, and of these the one with the most pairs. The
    standard deviations of its variants' differences are pooled to `sd`; as the variants share a baseline, that counts as known
    no better than from the `pairs` of one of them. Each interval comes from the 95 % interval of `sd`. `rows` are the
    differences that will be tested together: those of `others` variants, by default all but the baseline.
    """
    like = []
    for each in _like(plan):
        each.primary = plan.settings["primary"]
        like += [(count, each)] if (count := _pairs(each, each.deciding)) > 1 else []
    if not like:
        return None
    pairs, found = max(like, key=lambda each: (each[1].study.epochs == plan.study.epochs, each[0]))
    metric = found.deciding
    spreads = [float(values.std(ddof=1)) for values in _differences(found, metric)]
    sd, seeds, wanted = math.sqrt(np.mean(np.square(spreads))), len(plan.study.seeds), plan.settings["power"]
    rows = max(1, len(plan.study.variants) - 1 if others is None else others) * (found.family_size(metric) // len(found.others))
    ends, overlap = power.sd_interval(sd, pairs), found.overlap
    shown = [power.detectable_difference(each, seeds, rows, overlap=overlap) for each in (sd, *ends)]
    needed = [wanted and power.pairs_needed(each, wanted, rows, overlap=overlap) for each in (sd, *ends)]
    return {
        "metric": metric,
        "study": found.number,
        "epochs": found.study.epochs,
        "variants": len(spreads),
        "pairs": pairs,
        "sd": sd,
        "rows": rows,
        "detectable_difference": shown[0],
        "detectable_difference_interval": shown[0] and shown[1:],
        "wanted_difference": wanted,
        "pairs_needed": needed[0],
        "pairs_needed_interval": wanted and needed[1:],
        **({"detectable_floor": power.detectable_floor(sd, overlap, rows)} if overlap else {}),
    }


def forecast_sentences(seeds: int, found: Mapping[str, Any] | None) -> list[str]:
    """Say what so many seeds can show, and how many a wanted difference takes, one sentence each."""
    if found is None:
        return [
            "what the seeds can show is not known before the ledger has runs of this model on these data: train two seeds with "
            "--seeds 2, which the study needs anyway, and ask again"
        ]
    metric, shown = found["metric"].replace("_", " "), found["detectable_difference"]
    said = [f"{seeds} seed(s) cannot show a difference, whatever it is; use 6 or more"]
    if shown is not None:
        low, high = found["detectable_difference_interval"]
        epochs = f" of {found['epochs']} epoch(s)" if found["epochs"] else ""
        said = [
            f"with 80 % power {seeds} seeds show a {metric} difference of {shown:.4f} (between {low:.4f} and {high:.4f}, by the "
            f"spread of {found['pairs']} pairs{epochs} in study {found['study']})"
        ]
    if found["wanted_difference"] is not None:
        said.append(f"a {metric} difference of {found['wanted_difference']:g} takes {seeds_between(found)}")
    if "detectable_floor" in found:
        said.append(
            f"as new divisions of the same data overlap, no number of seeds shows a {metric} difference below "
            f"{found['detectable_floor']:.4f}"
        )
    return said


def _like(plan: Plan) -> Iterator[Comparison]:
    """Yield the latest studies of the same target on the same data, divided in the same way: once, or for each seed."""
    if check_readable(plan.ledger):
        numbers = [each["number"] for each in studies(plan.ledger) if each["target"] == plan.study.target and each["done"]]
        for number in numbers[: -_MOST_LOOKED_AT - 1 : -1]:
            found = retrieve(plan.ledger, number=number)
            resampled = [study.divisions is not None for study in (found.study, plan.study)]
            if found.study.data.fingerprint == plan.study.data.fingerprint and resampled[0] == resampled[1]:
                yield found


def _differences(found: Comparison, metric: str) -> list[np.ndarray]:
    """Return the paired differences of each variant that has two pairs and is no copy of the baseline."""
    base, same = found.values(found.study.baseline, metric), found.identical
    pairs = [found.values(name, metric) - base for name in found.others if name not in same]
    return [each for values in pairs if len(each := values[np.isfinite(values)]) > 1]


def _pairs(found: Comparison, metric: str) -> int:
    return min((len(each) for each in _differences(found, metric)), default=0)
