"""Score a model's predictions: Keras's own loss and metrics, and the weighted loss of each example."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_dropout.errors import BadInput
from keras_dropout.uncertainty import find_outputs


def losses(
    model: keras.Model, y: Any, predictions: Any, weights: Any, array: Callable = keras.ops.convert_to_numpy
) -> list[np.ndarray]:
    """Return the loss of each example for each output, with sample weights and without weight penalties.

    `array` converts each tensor.
    """
    if keras.tree.is_nested(predictions):
        y = keras.tree.pack_sequence_as(predictions, keras.tree.flatten(y))
        weights = None if weights is None else keras.tree.pack_sequence_as(predictions, keras.tree.flatten(weights))
    found = []
    for path, loss, _, _ in _outputs(model):
        answers, outputs, counts = y, predictions, weights
        for step in path:
            answers, outputs = answers[step], outputs[step]
            counts = counts[step] if keras.tree.is_nested(counts) else counts
        if outputs.ndim == answers.ndim + 1 and outputs.shape[-1] == 1:
            answers = answers[..., None]
        values = array(loss.call(keras.ops.convert_to_tensor(answers), keras.ops.convert_to_tensor(outputs)))
        if counts is not None:
            counts = counts.reshape(counts.shape + (1,) * (values.ndim - counts.ndim)) if counts.ndim < values.ndim else counts
            counts = counts[..., 0] if counts.ndim > values.ndim else counts
            values = values * (counts / counts.mean() if loss.reduction == "mean_with_sample_weight" else counts)
        found.append(values.reshape(len(values), -1).mean(axis=1))
    return found


def metrics(model: keras.Model, y: Any, predictions: Any, weights: Any) -> dict[str, Any]:
    """Return the compiled metrics on these predictions alone, as Keras's `evaluate` computes them."""
    model.reset_metrics()
    return model.compute_metrics(None, y, predictions, sample_weight=weights)


def together(model: keras.Model, by_output: Sequence[np.ndarray], found: Mapping[str, Any]) -> tuple[dict[str, float], np.ndarray]:
    """Return the metrics and the total loss as numbers, and the loss of each example as a weighted sum over its outputs."""
    names, factors = zip(*((name, weight) for _, _, weight, name in _outputs(model)))
    weighted = (each if factor is None else each * np.float32(factor) for factor, each in zip(factors, by_output))
    total = sum(weighted, np.zeros_like(by_output[0]))
    numbers = {metric: float(value) for metric, value in found.items()}
    if len(by_output) > 1:  # Keras also reports the unweighted loss of each output
        numbers |= {f"{name}_loss": _mean(each) for name, each in zip(names, by_output)}
    return numbers | {"loss": _mean(total)}, total


def decisions(model: keras.Model, predictions: Any) -> np.ndarray | None:
    """Return the prediction for each example, (examples,): its class as an integer, or its value; None if it has several values."""
    if keras.tree.is_nested(predictions) or np.ndim(predictions) != 2:
        return None
    found = np.asarray(predictions, "float32")
    try:
        kind, logits = find_outputs(model, lambda: found)
    except BadInput:  # the loss needs another kind of output, such as margins
        return None
    if kind == "classes":
        return found.argmax(axis=1)
    if found.shape[1] > 1:
        return None
    return found[:, 0] if kind == "values" else (found[:, 0] > (0 if logits else 0.5)).astype(int)


def _outputs(model: keras.Model) -> list[tuple]:
    """Return (path, loss, weight in the sum, name) of each output."""
    # Keras keeps the resolved losses there, whether given as a string, list or dict; it has no public name.
    return model._compile_loss._flat_losses


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype="float64"))
