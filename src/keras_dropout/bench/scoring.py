"""One model's predictions in the form that the metrics take, and the metrics of its plain and its Monte-Carlo predictions."""

from typing import Any, NoReturn

import keras
import numpy as np
from scipy.special import expit, softmax

from keras_dropout import metrics, uncertainty
from keras_dropout.bench.metric_names import COVERAGE, EDGES, MC, monte_carlo_names, plain_names
from keras_dropout.errors import refuse
from keras_dropout.sampling import Passes, as_trained, drops


def plain(model: keras.Model, x: Any) -> np.ndarray:
    """The outputs with dropout off; those of a model with one output, as all here are."""
    found = model.predict(x, batch_size=1000, verbose=0)
    if keras.tree.is_nested(found):
        _refuse_several()
    return np.asarray(found, "float32")


def stochastic(model: keras.Model) -> bool:
    """Whether any layer of the model drops something."""
    return any(map(drops, as_trained(model)._flatten_layers()))


def predictions(found: np.ndarray, kind: str, logits: bool) -> np.ndarray:
    """Outputs of the kind that `find_outputs` says, as probabilities (examples, ..., classes), or the values of a regression."""
    if logits:
        found = softmax(found, axis=-1) if kind == "classes" else expit(found)
    return np.stack([1 - found, found], axis=-1) if kind == "labels" else found


def answers(y: Any, kind: str, outputs: tuple[int, ...]) -> np.ndarray:
    """Whole-number classes, or the answers of a regression in the shape of the outputs; refused where they do not fit."""
    y, shape = np.asarray(y), (len(y), *outputs)
    if kind != "classes":
        fits = y.shape == shape or (shape[-1] == 1 and y.shape == shape[:-1])
    else:
        if y.ndim == len(shape) and y.shape[-1] in (1, shape[-1]):
            y = y[..., 0] if y.shape[-1] == 1 else y.argmax(-1)
        fits = y.ndim == len(shape) - 1
    if not fits:
        refuse(
            f"the answers do not fit the model's outputs, {outputs} an example ({kind}): got {y.shape[1:]} an example.",
            "Give those that the model was trained on; of logits say so, in the loss (from_logits=True) or by --logits.",
        )
    if kind == "values":
        return y.reshape(shape)
    if (y != np.round(y)).any():
        refuse(f"the model's outputs are {kind}; the answers are no whole numbers.", "Number the classes from 0.")
    return y.astype(int).reshape(shape if kind == "labels" else y.shape)


def monte_carlo(model: keras.Model, x: Any, y: Any, samples: int, seed: int) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Return the metrics of `metric_names.SAMPLED` with dropout off, and as mc_… of the mean of `samples` stochastic passes; and of
    classes the `curves` of both, as "plain" and "monte_carlo", None for other outputs.

    Examples count alike, whatever weights they have in the loss. Without dropout there is one pass: both are the same. The masks
    are those of `uncertainty.predict` with the same seed.
    """
    of = as_trained(model)
    found = plain(of, x)
    kind, logits, y = _as_told(model, found, y)
    once = predictions(found, kind, logits)
    mean = once
    if stochastic(model):
        mean = uncertainty.predict(of, x, samples, outputs=kind, logits=logits, seed=seed).mean
        mean = predictions(mean, kind, logits=False)
    several = {name: getattr(metrics, name)(mean, y) for name in monte_carlo_names(kind)}
    numbers = {name: getattr(metrics, name)(once, y) for name in plain_names(kind)} | {MC + name: v for name, v in several.items()}
    return numbers, None if kind == "values" else {"plain": curves(once, y), "monte_carlo": curves(mean, y)}


def curves(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """How calibrated probabilities are and what they are worth for a choice, as plain values.

    "reliability": for 15 bins of equal width of the top label's confidence, "count", and the means "confidence" and "accuracy",
    None in an empty bin. "risk_coverage": the error among the most confident 5, 10, … 100 % of the examples.
    """
    confidence, correct = metrics.top_label(p, y)
    coverage, risk = metrics.risk_coverage(confidence, 1 - correct)
    at = np.searchsorted(coverage, np.array(COVERAGE) - 1e-9)
    bins = {
        name: [None if np.isnan(v) else v for v in each.tolist()]
        for name, each in metrics.reliability(p, y, len(EDGES) - 1).items()
    }
    return {"reliability": bins, "risk_coverage": risk[at].tolist()}


def check_monte_carlo(model: keras.Model, x: Any, y: Any) -> None:
    """Refuse a compiled model of which `monte_carlo` cannot be had, as some examples show; it need not be trained."""
    if len(keras.tree.flatten(y)) != 1:
        _refuse_several()
    shown = plain(as_trained(model), x)
    kind, logits, y = _as_told(model, shown, y)
    once = predictions(shown, kind, logits)
    for name in plain_names(kind):
        getattr(metrics, name)(once, y)


def check_passes(model: keras.Model) -> None:
    """Refuse a model with dropout whose stochastic passes cannot be made."""
    if stochastic(model):
        Passes(model)


def _refuse_several() -> NoReturn:
    refuse(
        "metrics of samples are for a model with one output; this one gives several, or one by name or in a list.",
        "Choose one: keras.Model(model.inputs, model.outputs[0]).",
    )


def _as_told(model: keras.Model, found: np.ndarray, y: Any) -> tuple[str, bool, np.ndarray]:
    """What the outputs are, whether they are logits, and the answers to them."""
    (y,) = keras.tree.flatten(y)
    kind, logits = uncertainty.find_outputs(model, lambda: found)
    return kind, logits, answers(y, kind, found.shape[1:])
