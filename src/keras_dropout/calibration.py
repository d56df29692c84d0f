"""Temperature scaling: one number that makes a trained model as sure as it should be. numpy and scipy only."""

from typing import Any

import numpy as np
from scipy import optimize, special

from keras_dropout.errors import check_positive, refuse
from keras_dropout.metrics import CLIP, as_distribution, as_logits, check_predictions

LOWEST, HIGHEST = 0.01, 100.0  # temperatures; beyond, predictions are as good as certain or as good as uniform


def fit_temperature(outputs: Any, y: Any, logits: bool = False) -> float:
    """The temperature T in [0.01, 100] for which softmax(log p / T) has the lowest mean negative log-likelihood on `y`.

    Guo et al. 2017, arXiv:1706.04599. Fit it on validation data, not on what the model was trained on. Above 1 the model was too
    sure, below 1 not sure enough. `outputs` are probabilities (..., classes), or logits if so said, and `y` classes (...), as in
    `metrics`; one column is the output of a sigmoid.

    The likelihood is convex in b = 1 / T, with the slope mean(sum_k softmax(b z)_k z_k - z_y) for z = log p. Its only root is
    found by bracketing; where it has none in bounds, as for data without an error (0.01) or predictions worse than none (100), T is
    the bound on the side of the root.
    """
    z = _logits(outputs, logits)
    _, y = check_predictions(special.softmax(z, axis=-1), y)
    z = z.reshape(-1, z.shape[-1])
    z = z - z[np.arange(len(z)), y.ravel()][:, None]  # against the right class

    def slope(b: float) -> float:
        return float((special.softmax(b * z, axis=-1) * z).sum(axis=-1).mean())

    if slope(1 / HIGHEST) >= 0:
        # Without any slope, as for predictions that are all uniform, every temperature is as good: leave them.
        return 1.0 if slope(1 / LOWEST) <= 0 else HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return 1 / float(optimize.brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12))


def apply_temperature(outputs: Any, temperature: float, logits: bool = False) -> np.ndarray:
    """Probabilities (..., classes), softmax(log p / temperature); which class is the largest does not change.

    Of probabilities the logarithm is all that is needed of the logits, as softmax does not see a number added to all of them. It is
    clipped at 1e-7, as in Keras's losses. One column becomes two.
    """
    temperature = check_positive("temperature", temperature, "fit_temperature gives one; 1 changes nothing.")
    return special.softmax(_logits(outputs, logits) / temperature, axis=-1)


def _logits(outputs: Any, logits: bool) -> np.ndarray:
    """What softmax makes the probabilities of, (..., classes); clipped only where probabilities were given."""
    if not logits:
        return np.log(np.maximum(as_distribution(outputs), CLIP))
    z = as_logits(outputs)
    if not np.isfinite(z).all():
        refuse("logits must be finite; got an infinite value.", "Look for where the model makes it.")
    return z
