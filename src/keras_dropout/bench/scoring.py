"""A model's predictions in the form that the metrics take, and the metrics of its plain and Monte-Carlo predictions."""

from typing import Any, NoReturn

import keras
import numpy as np
from scipy.special import expit, softmax

from keras_dropout import calibration, metrics, uncertainty
from keras_dropout.bench.metric_names import COVERAGE, EDGES, MC, SCALED, monte_carlo_names, plain_names
from keras_dropout.errors import refuse
from keras_dropout.sampling import Passes, as_trained, drops


def plain(model: keras.Model, x: Any) -> np.ndarray:
    """Return the outputs with dropout off; refuse a model with several outputs."""
    found = model.predict(x, batch_size=1000, verbose=0)
    if keras.tree.is_nested(found):
        _refuse_several()
    return np.asarray(found, "float32")


def stochastic(model: keras.Model) -> bool:
    """Return whether any layer of the model drops something."""
    return any(map(drops, as_trained(model)._flatten_layers()))


def predictions(found: np.ndarray, kind: str, logits: bool) -> np.ndarray:
    """Return outputs as probabilities (examples, ..., classes), or as the values of a regression; `find_outputs` gives the kind."""
    if logits:
        found = softmax(found, axis=-1) if kind == "classes" else expit(found)
    return np.stack([1 - found, found], axis=-1) if kind == "labels" else found


def answers(y: Any, kind: str, outputs: tuple[int, ...]) -> np.ndarray:
    """Return whole-number classes, or regression answers in the shape of the outputs; refuse answers that do not fit."""
    y, shape = np.asarray(y), (len(y), *outputs)
    if kind != "classes":
        fits = y.shape == shape or (shape[-1] == 1 and y.shape == shape[:-1])
    else:
        if y.ndim == len(shape) and y.shape[-1] in (1, shape[-1]):
            y = y[..., 0] if y.shape[-1] == 1 else y.argmax(-1)
        fits = y.ndim == len(shape) - 1
    if not fits:
        fix = "Give those that the model was trained on; of logits say so, in the loss (from_logits=True) or by --logits."
        if kind == "values" and 2 * y[0].size == np.prod(outputs):
            fix = "If the model gives means and log-variances, say so to uncertainty: --variance-head, variance_head=True."
        refuse(f"the answers do not fit the model's outputs, {outputs} an example ({kind}): got {y.shape[1:]} an example.", fix)
    if kind == "values":
        return y.reshape(shape)
    if (y != np.round(y)).any():
        refuse(f"the model's outputs are {kind}; the answers are no whole numbers.", "Number the classes from 0.")
    return y.astype(int).reshape(shape if kind == "labels" else y.shape)


def monte_carlo(
    model: keras.Model, x: Any, y: Any, samples: int, seed: int, validation: tuple[Any, Any] | None = None
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Return the metrics of `metric_names.SAMPLED` and the calibration curves.

    Metrics are measured with dropout off, and as mc_… on the mean of `samples` stochastic passes. The `curves` of both are called
    "plain" and "monte_carlo"; they are None for values. All examples count equally, whatever their weights in the loss. A model
    without dropout makes one pass, so both are the same. The masks are those of `uncertainty.predict` with the same seed.

    `validation` are examples (x, y) that the model was not trained on. With them a classifier has the metric scaled_nll: the NLL of
    plain predictions after temperature scaling (`calibration`), with the temperature fitted on these examples.
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
    if kind == "values":
        return numbers, None
    if validation is not None:
        seen = plain(of, validation[0])
        temperature = calibration.fit_temperature(predictions(seen, kind, logits), _as_told(model, seen, validation[1])[2])
        numbers[SCALED] = metrics.nll(calibration.apply_temperature(once, temperature), y)
    return numbers, {"plain": curves(once, y), "monte_carlo": curves(mean, y)}


def curves(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Return the reliability and risk-coverage curves of probabilities, as plain values.

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
    """Refuse a compiled model for which `monte_carlo` fails on some examples; the model need not be trained."""
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
    """Return the kind of the outputs, whether they are logits, and the answers in the form that fits them."""
    (y,) = keras.tree.flatten(y)
    kind, logits = uncertainty.find_outputs(model, lambda: found)
    return kind, logits, answers(y, kind, found.shape[1:])
