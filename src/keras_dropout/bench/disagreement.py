"""Predictions on each test example: where the variants disagree, and which classes they confuse."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_DISPUTED = 24
MOST_CLASSES = 20

Seeds = Sequence[np.ndarray | None]  # for each seed an array over the test examples, or None


def disputed(
    answers: np.ndarray, candidates: np.ndarray, predictions: Mapping[str, Seeds], losses: Mapping[str, Seeds]
) -> list[int]:
    """Return the `candidates` (indices of test examples) on which the variants disagree most, the most disputed first.

    For classes, examples are ranked by the largest difference between two variants in the share of seeds that are right. Ties, and
    examples with values, are ranked by the largest difference between two variants in the mean loss. Examples without any
    difference are left out.
    """
    loss = _spread(losses, candidates, lambda values: values)
    if _are_classes(answers, predictions):
        right = _spread(predictions, candidates, lambda values: values == answers[candidates])
        order = np.lexsort((-loss, -right))
        order = order[right[order] > 0]
    else:
        order = np.argsort(-loss, kind="stable")
        order = order[loss[order] > 0]
    return candidates[order[:MOST_DISPUTED]].tolist()


def _are_classes(answers: np.ndarray, predictions: Mapping[str, Seeds]) -> bool:
    """Return whether the predictions are classes. Answers alone do not tell: those of a regression may be whole numbers."""
    every = (each for seeds in predictions.values() for each in seeds if each is not None)
    return all(each.dtype.kind in "iub" for each in (answers, *every))


def _spread(by_variant: Mapping[str, Seeds], candidates: np.ndarray, value: Any) -> np.ndarray:
    """Return the range over variants of the mean over seeds, (candidates,); zeros if fewer than two variants have data."""
    means = []
    for seeds in by_variant.values():
        found = [value(each[candidates]) for each in seeds if each is not None]
        if found:
            means.append(np.mean(found, axis=0))
    return np.ptp(means, axis=0) if len(means) > 1 else np.zeros(len(candidates))


def confusion(answers: np.ndarray, predictions: Mapping[str, Seeds], baseline: str) -> dict[str, Any] | None:
    """Return each variant's confusion matrix, mean over seeds, and its mean paired difference from the baseline.

    Matrices count test examples, (classes, classes); rows are the true class. None for values, or for more than 20 classes.
    """
    every = [each for seeds in predictions.values() for each in seeds if each is not None]
    if not every or not _are_classes(answers, predictions):
        return None
    number = 1 + max(int(each.max(initial=0)) for each in (answers, *every))
    if number > MOST_CLASSES:
        return None

    def matrix(predicted: np.ndarray) -> np.ndarray:
        return np.bincount(answers.astype(int) * number + predicted, minlength=number**2).reshape(number, number)

    found = {name: [None if each is None else matrix(each) for each in seeds] for name, seeds in predictions.items()}
    pairs = {
        name: [one - base for one, base in zip(seeds, found[baseline]) if one is not None and base is not None]
        for name, seeds in found.items()
        if name != baseline
    }
    return {
        "number": number,
        "mean": {name: _mean([each for each in seeds if each is not None]) for name, seeds in found.items()},
        "difference": {name: _mean(each) for name, each in pairs.items()},
    }


def _mean(matrices: Sequence[np.ndarray]) -> list[list[float]] | None:
    return np.mean(matrices, axis=0).tolist() if matrices else None
