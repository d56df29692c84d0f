"""Temperature scaling: one number that calibrates the confidence of a trained model. Needs only numpy and scipy."""

from typing import Any

import numpy as np
from scipy import optimize, special

from keras_dropout.errors import check_positive, refuse
from keras_dropout.metrics import CLIP, as_distribution, as_logits, check_predictions

LOWEST, HIGHEST = 0.01, 100.0  # temperatures; beyond these, predictions are almost certain or almost uniform


def fit_temperature(outputs: Any, y: Any, logits: bool = False) -> float:
    """Return the temperature T in [0.01, 100] for which softmax(log p / T) has the lowest mean negative log-likelihood on `y`.

    Guo et al. 2017, arXiv:1706.04599. Fit it on validation data. Above 1 the model was overconfident, below 1 underconfident.
    `outputs` are probabilities (..., classes), or logits with `logits=True`, one column for a sigmoid; `y` are classes (...).

    The negative log-likelihood is convex in b = 1 / T, with the slope mean(sum_k softmax(b z)_k z_k - z_y) for z = log p.
    Bracketing finds the only root of the slope. If there is no root within the bounds, T is the bound on the side of the root: 0.01
    for data without an error, 100 for predictions worse than uniform ones.
    """
    z = _logits(outputs, logits)
    _, y = check_predictions(special.softmax(z, axis=-1), y)
    z = z.reshape(-1, z.shape[-1])
    z = z - z[np.arange(len(z)), y.ravel()][:, None]  # relative to the right class

    def slope(b: float) -> float:
        return float((special.softmax(b * z, axis=-1) * z).sum(axis=-1).mean())

    if slope(1 / HIGHEST) >= 0:
        # If there is no slope at all, as for uniform predictions, every temperature is equally good: change nothing.
        return 1.0 if slope(1 / LOWEST) <= 0 else HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return 1 / float(optimize.brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12))


def apply_temperature(outputs: Any, temperature: float, logits: bool = False) -> np.ndarray:
    """Return the probabilities (..., classes) softmax(log p / temperature); the most likely class does not change.

    For probabilities, log p clipped at 1e-7, as in Keras's losses, serves as the logits. One column becomes two.
    """
    temperature = check_positive("temperature", temperature, "fit_temperature gives one; 1 changes nothing.")
    return special.softmax(_logits(outputs, logits) / temperature, axis=-1)


def _logits(outputs: Any, logits: bool) -> np.ndarray:
    """Return logits (..., classes); clip only where probabilities were given."""
    if not logits:
        return np.log(np.maximum(as_distribution(outputs), CLIP))
    z = as_logits(outputs)
    if not np.isfinite(z).all():
        refuse("logits must be finite; got an infinite value.", "Look for where the model makes it.")
    return z
