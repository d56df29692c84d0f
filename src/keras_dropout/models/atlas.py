"""Advice on where to begin, from studies: the studies in the atlas nearest to a model, and what helped there.

The atlas is the result of `benchmarks/atlas.py`: perceptrons with two hidden layers on images, each placement compared with no
dropout, paired by seed. The advice is the placement that lowered the test loss most in the nearest studies. The text names these
studies and says how certain the result is. If nothing near was studied, it says so.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_suffix(".json")
NEAR = 3.0  # this many times more or fewer parameters per training example are still near
MOST = 4  # studies that are used
DEPTHS = (1, 2, 3)  # hidden layers that are similar to the two of the studies
_FIND_OUT = "It is where to begin; keras-dropout tune finds what your model wants."

Study = Mapping[str, Any]


@dataclass(frozen=True)
class Advice:
    """Advice: `placement` from sites to rates (empty for no dropout, None if nothing near was studied), and the reasons."""

    placement: Mapping[str, float] | None
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def read(path: Path = PATH) -> list[Study]:
    """Return the studies of an atlas."""
    return json.loads(path.read_text())["rows"]


def title(study: Study) -> str:
    """Return a study's data, size and network in words."""
    return f"{study['data']}, {study['train']:,} training images, {study['inputs']}-{'-'.join(map(str, study['hidden']))}-10"


def ratio(study: Study) -> float:
    """Return the number of parameters per training example."""
    return study["parameters"] / study["train"]


def advise(
    kind: str, parameters: int, examples: int | None, depth: int, others: Sequence[str] = (), studies: Sequence[Study] | None = None
) -> Advice:
    """Advise where to begin with a model of `parameters` on `examples` training examples of a `kind` of data, "images" or another.

    `depth` is the number of its hidden layers, `others` the kinds of those not dense; `studies` are the package's by default.

    The advice uses the MOST nearest studies in parameters per training example, within a factor of NEAR. Among their placements of
    plain dropout it takes the one with the smallest mean of difference / test loss without dropout. It advises this one if it is
    shown to be better in at least one of the studies and worse in none.
    """
    studies = read() if studies is None else studies
    unlike = []
    if kind != "images":
        unlike.append(f"the data are {kind}, and it has images only")
    if others:
        unlike.append(f"the model has {', '.join(sorted(set(others)))}, and it has dense layers only")
    elif depth not in DEPTHS:
        unlike.append(f"the model has {depth} hidden layers, and its nets have two")
    if unlike:
        return Advice(None, (f"Nothing like this was studied in the atlas: {'; '.join(unlike)}.",))
    if not examples:
        return Advice(None, ("The atlas goes by parameters per training example: with data it can say where to begin.",))
    own = parameters / examples
    here = f"{own:.3g} parameters per training example"
    distance = {n: abs(math.log(ratio(study) / own)) for n, study in enumerate(studies)}
    nearest = [studies[n] for n in sorted(distance, key=distance.__getitem__) if distance[n] <= math.log(NEAR)][:MOST]
    if not nearest:
        between = f"{min(map(ratio, studies)):.3g} to {max(map(ratio, studies)):.3g}"
        return Advice(None, (f"Nothing near was studied in the atlas: the model has {here}, its studies {between}.",))
    site, rate, rows = _best(nearest)
    verdicts = [row["test_loss"][3] for row in rows]
    better, worse = (sum(verdict.startswith(word) for verdict in verdicts) for word in ("better", "worse"))
    asked = f"The model has {here}. The nearest in the atlas, {nearest[0]['seeds']} paired seeds each: " + "; ".join(
        map(title, nearest)
    )
    if not better or worse:
        why = f"shown to be better in {better} of {len(rows)} and worse in {worse}"
        found = f"Begin without dropout: even the placement with the smallest test loss there, {site} {rate:g}, is {why}."
        return Advice({}, (found, f"{asked}.", _FIND_OUT))
    mean, low, high, verdict = rows[0]["test_loss"]
    change = sum(_change(study, row) for study, row in zip(nearest, rows)) / len(rows)
    placement = dict.fromkeys(site.split(" and "), rate)
    return Advice(
        placement,
        (
            f"Begin with {', '.join(f'{each}={rate:g}' for each in placement)}.",
            f"{asked}.",
            f"Of the placements of Dropout there it has the smallest test loss, {100 * change:+.0f} % against none on average. It "
            f"was chosen for that, so the figure is optimistic. Better in {better} of {len(rows)}, worse in none.",
            f"In the nearest: {mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {verdict}).",
            _FIND_OUT,
        ),
    )


def _best(studies: Sequence[Study]) -> tuple[str, float, list[Mapping[str, Any]]]:
    """Return site and rate of plain dropout with the smallest mean change over studies, and its row in each."""
    by_place: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for study in studies:
        for row in study["rows"]:
            if row["kind"] == "Dropout":
                by_place.setdefault((row["site"], row["rate"]), []).append(row)
    everywhere = {place: rows for place, rows in by_place.items() if len(rows) == len(studies)}
    site, rate = min(everywhere, key=lambda place: sum(_change(s, row) for s, row in zip(studies, everywhere[place])))
    return site, rate, everywhere[site, rate]


def _change(study: Study, row: Mapping[str, Any]) -> float:
    """Return a difference in test loss as a share of the loss without dropout; infinite if the placement's runs diverged."""
    mean = row["test_loss"][0]
    return math.inf if mean is None or math.isnan(mean) else mean / study["none"]["test_loss"]
