"""Monte-Carlo dropout: the mean and the spread of a model's predictions when dropout stays on.

`predict` makes `samples` stochastic forward passes (see `keras_dropout.sampling`). It returns, for each example, the mean
prediction and how much the passes differ. Sources: Gal and Ghahramani 2016, arXiv:1506.02142 (the method, the precision of a
regression); Houlsby et al. 2011, arXiv:1112.5745 (mutual information, "BALD"); Kendall and Gal 2017, arXiv:1703.04977 (a model that
predicts the variance of its noise).
"""

import functools
import numbers
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, ndtr, ndtri

from keras_dropout.display import Shown
from keras_dropout.errors import check_choice, check_flag, check_positive, check_rate, check_whole, refuse, warn
from keras_dropout.models import graph
from keras_dropout.sampling import Passes

OUTPUTS = ("classes", "labels", "values", "gaussian")
_OF_NUMBERS = ("values", "gaussian")
_ROOM = 2**24  # outputs of a regression's passes that are kept at once
_LOOK = 256  # examples used to find out what the outputs are
_STEPS = 40  # bisections of a quantile, each of which halves its error
_TOLERANCE = 1e-2  # by which a distribution's sum may differ from 1, as a bfloat16 model's does


@dataclass(frozen=True, repr=False)
class Uncertainty(Shown):
    """The predictions of `samples` stochastic passes, for each example.

    `mean` and `variance` (over the passes, with divisor `samples`) have the shape of the outputs; `quantiles` maps each requested
    level to such an array. For outputs that are probabilities, in nats and without the last axis:

        entropy              H(mean)                            all uncertainty of the prediction
        expected_entropy     mean of H(pass)                    what would remain if the right network were known: noise in the data
        mutual_information   entropy - expected_entropy >= 0    how much the passes disagree (BALD)
        variation_ratio      share of passes whose class is not the most frequent one

    For "labels", entropies are sums over the labels. For "values", `precision` is that of the noise in the data: the predictive
    variance is variance + 1 / precision. For "gaussian", `mean` and `variance` are those of the means that the model gives, and
    `noise_variance` is the mean of exp(s) over the log-variances s: the predictive variance is Var[mean] + E[exp s], and quantiles
    are those of the mixture of the passes' normal distributions. `log_likelihood` is that of each example's answer, if answers were
    given.
    """

    outputs: str
    samples: int
    mean: np.ndarray = field(repr=False)
    variance: np.ndarray = field(repr=False)
    entropy: np.ndarray | None = field(default=None, repr=False)
    expected_entropy: np.ndarray | None = field(default=None, repr=False)
    variation_ratio: np.ndarray | None = field(default=None, repr=False)
    quantiles: dict[float, np.ndarray] = field(default_factory=dict, repr=False)
    precision: float | None = None
    noise_variance: np.ndarray | None = field(default=None, repr=False)
    log_likelihood: np.ndarray | None = field(default=None, repr=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def mutual_information(self) -> np.ndarray | None:
        """How much the passes disagree, in nats."""
        return None if self.entropy is None else np.maximum(self.entropy - self.expected_entropy, 0)

    @property
    def predictive_variance(self) -> np.ndarray:
        """The variance of the passes and, where it is known, of the noise in the data."""
        if self.noise_variance is not None:
            return self.variance + self.noise_variance
        return self.variance + (0 if self.precision is None else 1 / self.precision)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per example; outputs with several axes are averaged over them."""
        try:
            import pandas
        except ImportError:
            refuse("to_frame() needs pandas, which is not installed.", "pip install 'keras-dropout[tables]'")
        sd = np.sqrt(self.predictive_variance)
        columns: dict[str, np.ndarray] = {"mean": self.mean, "sd": sd}
        if self.outputs == "classes":
            columns = {"class": self.mean.argmax(-1), "probability": self.mean.max(-1), "sd": sd.max(-1)}
        for name in ("entropy", "expected_entropy", "mutual_information", "variation_ratio", "log_likelihood"):
            if (values := getattr(self, name)) is not None:
                columns[name] = values
        columns |= {f"quantile_{level:g}": values for level, values in self.quantiles.items()}
        return pandas.DataFrame({name: _per_example(values) for name, values in columns.items()})

    def __rich__(self) -> Group:
        """Return a table of the figures over the examples: their mean and three quantiles."""
        table = Table(title=Text(str(self)), title_justify="left")
        for name in ("over the examples", "mean", "lowest 5 %", "median", "highest 5 %"):
            table.add_column(name, justify="left" if name == "over the examples" else "right")
        parts = ["variance", "noise_variance"] if self.outputs == "gaussian" else []
        of_values = ["predictive_variance", *parts, "log_likelihood"]
        of_classes = ["entropy", "expected_entropy", "mutual_information", "variation_ratio"]
        for name in of_values if self.outputs in _OF_NUMBERS else of_classes:
            if (values := getattr(self, name)) is not None:
                figures = (values.mean(), *np.quantile(values, (0.05, 0.5, 0.95)))
                table.add_row(name.replace("_", " "), *(f"{figure:.4g}" for figure in figures))
        return Group(table)

    def __str__(self) -> str:
        of = "predictive_variance" if self.outputs in _OF_NUMBERS else "entropy"
        values = getattr(self, of)
        what = f"{self.samples} samples of {len(self.mean)} examples, outputs {self.mean.shape[1:]} ({self.outputs})"
        return f"{what}; mean {of.replace('_', ' ')} {values.mean():.4g}, {self.seconds:.2f} s"


@graph.leaves_unchanged
def predict(
    model: keras.Model,
    x: Any,
    samples: int = 100,
    *,
    y: Any = None,
    outputs: str | None = None,
    logits: bool | None = None,
    masks: str = "independent",
    seed: int = 0,
    quantiles: Sequence[float] = (),
    precision: float | None = None,
    batch_size: int | None = None,
) -> Uncertainty:
    """Monte-Carlo dropout: return the mean and the spread of `samples` stochastic forward passes over the examples `x`.

        mean = 1/T sum_t f_t(x),    variance = 1/T sum_t (f_t(x) - mean)^2

    Only dropout is on, and your own layers that own a keras.random.SeedGenerator. Batch normalisation and everything else stay as
    at prediction, and the model does not change. Memory does not grow with the samples, except for quantiles and log-likelihoods:
    for these, examples are taken in smaller batches.

    Arguments: model: built, with dropout that has a rate above 0 (Keras's own layers and options included). x: an array, a
    DataFrame, a dict or list of arrays, or a tf.data.Dataset, PyDataset or DataLoader: it is read once, without its answers. y: the
    answers of a regression, for `log_likelihood`; for "values" needs `precision`. outputs: "classes" (a distribution along the last
    axis), "labels" (a yes or no in each entry) or "values", by default decided by the loss or the outputs; or "gaussian": the first
    half of the last axis holds means, the second half the logarithms of the variances of the noise. logits: whether the outputs are
    logits; by default decided by the loss. masks: "independent" for each example, as in training, or "shared": each sample is one
    thinned network, a function of x (JAX). seed: the same seed, samples and example give the same masks, whatever the batch size.
    quantiles: levels between 0 and 1. precision: that of the noise in the answers of a regression, in 1 / units of y squared; see
    `fit_precision` and `model_precision`.
    """
    started = time.perf_counter()
    passes = Passes.of(model, masks=masks, seed=seed)
    check_whole("samples", samples, 1, "It is the number of stochastic forward passes; 100 is a usual one.")
    levels = _check_levels(quantiles)
    if precision is not None:
        check_positive("precision", precision, "It is 1 / the variance of the noise; fit_precision finds one.")
    arrays = passes.check(x)
    trained = passes.model if getattr(model, "loss", None) is None else model  # of two models, the outer one has the loss
    kind, logits = find_outputs(trained, lambda: passes.plain([a[:_LOOK] for a in arrays]), outputs, logits)
    if kind == "gaussian" and precision is not None:
        refuse("the model gives the variance of the noise itself; got a precision, too.", "Leave it out.")
    if kind not in _OF_NUMBERS and (y is not None or precision is not None):
        refuse(
            f"y and precision are for a regression; the outputs are {kind}.",
            "Leave them out: keras_dropout.metrics scores probabilities.",
        )
    if kind == "values" and y is not None and precision is None:
        refuse(
            "a log-likelihood needs the precision of the noise.", "Pass precision=fit_precision(model, x, y), of validation data."
        )
    answers = None if y is None else _answers(y, arrays, passes, kind)
    together = bool(levels) or answers is not None
    sums = _Sums(len(arrays[0]), kind, samples)
    at_levels: list[np.ndarray] = []
    likelihoods: list[np.ndarray] = []
    reduce = _reduction(kind, logits, together)
    for rows, count, found in passes.run(arrays, samples, reduce, batch_size=batch_size, together=together):
        if together:
            values = found.pop("outputs")
            noise: Any = precision
            if kind == "gaussian":
                values, log_variance = np.split(values.astype(float), 2, axis=-1)
                noise = np.exp(-log_variance)
            if levels:
                at_levels.append(np.quantile(values, levels, axis=0) if kind != "gaussian" else _quantiles(values, noise, levels))
            if answers is not None:
                assert noise is not None  # refused above
                likelihoods.append(log_likelihood(values, answers[rows], noise))
        sums.add(rows, count, found)
    found = sums.result()
    if not np.isfinite(found.get("noise_variance", 0)).all():
        refuse(
            "the variance of the noise, exp of the second half of the outputs, is not finite.",
            'Are these logarithms of variances? Otherwise say outputs="values".',
        )
    rounding = 1e-10 * max(float((found["mean"] ** 2).max()), 1e-30)
    if samples > 1 and found["variance"].max() <= rounding:
        warn(f"All {samples} samples are the same: what {', '.join(passes.dropping)} drops does not reach the outputs.")
    return Uncertainty(
        outputs=kind,
        samples=samples,
        **found,
        quantiles=dict(zip(levels, np.concatenate(at_levels, axis=1))) if levels else {},
        precision=precision,
        log_likelihood=np.concatenate(likelihoods) if likelihoods else None,
        seconds=time.perf_counter() - started,
    )


def log_likelihood(passes: np.ndarray, y: np.ndarray, precision: float | np.ndarray) -> np.ndarray:
    """Return the log-density of each answer under the passes and Gaussian noise, in nats, summed over an answer's entries.

        log 1/T sum_t N(y; f_t(x), 1 / precision)

    `passes` has the shape (samples, examples, ...); `precision` is a number, or one for each pass in such an array. Source: Gal and
    Ghahramani 2016, appendix.
    """
    if isinstance(precision, np.ndarray):
        each = (np.log(precision) - np.log(2 * np.pi) - precision * np.square(np.asarray(y, float) - passes)) / 2
        return logsumexp(each.reshape(*passes.shape[:2], -1).sum(-1), axis=0) - np.log(len(passes))
    entries = np.prod(passes.shape[2:], dtype=int)
    squares = np.square(np.asarray(y, float) - passes).reshape(*passes.shape[:2], -1).sum(-1)
    constant = entries * (np.log(precision) - np.log(2 * np.pi)) / 2
    return logsumexp(-precision / 2 * squares, axis=0) - np.log(len(passes)) + constant


def _quantiles(means: np.ndarray, precisions: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return quantiles of the mixture of normal distributions over the first axis, by bisection; in shape (levels, examples, ...).

    A quantile lies between the smallest and the largest of the same quantiles of the parts.
    """
    found = []
    for level in levels:
        if level in (0, 1):
            found.append(np.full(means.shape[1:], -np.inf if level == 0 else np.inf))
            continue
        of_parts = means + ndtri(level) / np.sqrt(precisions)
        low, high = of_parts.min(0), of_parts.max(0)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            below = ndtr((middle - means) * np.sqrt(precisions)).mean(0) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        found.append((low + high) / 2)
    return np.stack(found)


@graph.leaves_unchanged
def fit_precision(model: keras.Model, x: Any, y: Any, samples: int = 100, *, seed: int = 0) -> float:
    """Return the precision of the noise that makes the answers likeliest, for a regression; use data that were not trained on.

    It is in 1 / units of y squared. Of many examples, only as many are used as there is room for.
    """
    passes = Passes.of(model, seed=seed)
    check_whole("samples", samples, 1, "It is the number of stochastic forward passes; 100 is a usual one.")
    arrays = passes.check(x)
    answers = _answers(y, arrays, passes)
    room = max(1, _ROOM // (samples * max(1, np.prod(answers.shape[1:], dtype=int))))
    chosen = np.unique(np.linspace(0, len(answers) - 1, min(room, len(answers))).astype(int))
    pieces: dict[int, list] = {}
    for rows, _, found in passes.run([a[chosen] for a in arrays], samples):
        pieces.setdefault(rows.start, []).append(found["outputs"])
    values = np.concatenate([np.concatenate(groups) for groups in pieces.values()], axis=1)
    spread = np.log(max(np.mean(np.square(values.mean(0) - answers[chosen])), np.finfo(float).tiny))

    def loss(log_precision: float) -> float:
        return -log_likelihood(values, answers[chosen], np.exp(log_precision)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-spread - 10, -spread + 10), method="bounded").x))


def model_precision(rate: float, length_scale: float, examples: int, weight_decay: float) -> float:
    """Return the precision implied by a rate and a weight decay: (1 - rate) * length_scale**2 / (2 * examples * weight_decay).

    For a network trained on the mean squared error with weight_decay * |W|^2. Source: Gal and Ghahramani 2016, equation 7.
    """
    for name, value in (("length scale", length_scale), ("examples", examples), ("weight decay", weight_decay)):
        check_positive(name, value, "See Gal and Ghahramani 2016.")
    return (1 - check_rate("model_precision", rate)) * length_scale**2 / (2 * examples * weight_decay)


def find_outputs(
    model: keras.Model, plain: Callable[[], np.ndarray], outputs: str | None = None, logits: bool | None = None
) -> tuple[str, bool]:
    """Return what a model's outputs are, one of `OUTPUTS`, and whether they are logits: as given, by the loss, or by their values.

    `plain` returns some predictions.
    """
    if outputs is not None:
        check_choice("outputs", outputs, OUTPUTS)
    loss = getattr(model, "loss", None)
    loss = next(iter(keras.tree.flatten(loss)), None) if keras.tree.is_nested(loss) else loss  # a list holds the one output's loss
    name = _loss_name(loss)
    logits = bool(getattr(loss, "from_logits", False)) if logits is None else check_flag("logits", logits)
    shown = plain()
    if not isinstance(shown, np.ndarray) or shown.ndim < 2:
        refuse(f"the model's outputs must be one array of shape (examples, …); got {np.shape(shown)}.", "End it with Dense(1).")
    if outputs == "gaussian":
        if logits:
            refuse("logits are of classes; means and log-variances are of a regression.", "Leave logits out.")
        if shown.shape[-1] % 2:
            refuse(
                f"means and log-variances are an even number of outputs; got {shown.shape[-1]}.",
                "End the model with Dense(2) for one value: its mean and the logarithm of its variance.",
            )
        return outputs, False
    if outputs is None and "crossentropy" in name:
        outputs = "labels" if "binary" in name else "classes"
    if outputs is None:
        outputs = ("classes" if shown.shape[-1] > 1 else "labels") if logits else "classes" if _distributes(shown) else "values"
    if outputs == "classes" and shown.shape[-1] < 2:
        refuse("a distribution needs two classes or more along the last axis; got 1 output.", 'Say outputs="labels" for a sigmoid.')
    inside = _distributes(shown) if outputs == "classes" else bool(((shown >= 0) & (shown <= 1)).all())
    if outputs != "values" and not logits and not inside:
        refuse(
            f"the outputs are no probabilities: they lie between {shown.min():.3g} and {shown.max():.3g}.",
            'If they are logits say so, --logits or logits=True; of a regression say outputs="values".',
        )
    return outputs, logits and outputs != "values"


class _Sums:
    """Means and variances of passes that arrive in groups, merged in double precision (Chan, Golub and LeVeque 1979)."""

    def __init__(self, examples: int, outputs: str, samples: int):
        self._examples, self._outputs, self._samples = examples, outputs, samples
        self._sums: dict[str, np.ndarray] = {}
        self._seen = np.zeros(examples, int)

    def add(self, rows: slice, count: int, found: dict[str, np.ndarray]) -> None:
        for name, values in found.items():
            if name not in self._sums:
                self._sums[name] = np.zeros((self._examples, *values.shape[1:]))
        mean, squares = self._sums["mean"][rows], self._sums["squares"][rows]
        seen = self._seen[rows.start]
        difference = found["mean"] - mean
        mean += difference * (count / (seen + count))
        squares += found["squares"] + difference**2 * (seen * count / (seen + count))
        for name in set(found) - {"mean", "squares"}:
            self._sums[name][rows] += found[name]
        self._seen[rows] += count

    def result(self) -> dict[str, np.ndarray]:
        mean = self._sums["mean"]
        found = {"mean": mean, "variance": self._sums["squares"] / self._samples}
        if self._outputs == "gaussian":
            found["noise_variance"] = self._sums["noise"] / self._samples
        elif self._outputs != "values":
            found["entropy"] = entropy(mean, self._outputs)
            found["expected_entropy"] = self._sums["entropy"] / self._samples
        if self._outputs == "classes":
            found["variation_ratio"] = 1 - self._sums["votes"].max(-1) / self._samples
        return {name: values.astype("float32") for name, values in found.items()}


def entropy(p: Any, outputs: str = "classes") -> Any:
    """Return the entropy in nats of a distribution along the last axis, or the sum over yes-or-no entries; arrays or tensors."""
    if outputs == "labels":
        return entropy(p, "classes") + entropy(1 - p, "classes")
    math = np if isinstance(p, np.ndarray) else ops
    return -math.sum(p * math.log(math.maximum(p, 1e-30)), axis=-1)


@functools.cache
def _reduction(outputs: str, logits: bool, keep: bool) -> Callable:
    """Return the same function each time, so that its compiled program is found again."""
    return functools.partial(_moments, outputs=outputs, logits=logits, keep=keep)


def _moments(passes: Any, *, outputs: str, logits: bool, keep: bool) -> dict:
    """Return the statistics kept of some passes, (samples, examples, …), inside the compiled program."""
    if outputs == "gaussian":
        means, log_variance = ops.split(ops.cast(passes, "float32"), 2, axis=-1)
        noise = {"noise": ops.sum(ops.exp(log_variance), axis=0)}
        return _moments(means, outputs="values", logits=False, keep=False) | noise | ({"outputs": passes} if keep else {})
    if logits:
        passes = ops.softmax(passes, axis=-1) if outputs == "classes" else ops.sigmoid(passes)
    mean = ops.mean(passes, axis=0)
    found = {"mean": mean, "squares": ops.sum(ops.square(passes - mean), axis=0)}
    if outputs != "values":
        found["entropy"] = ops.sum(entropy(passes, outputs), axis=0)
    if outputs == "classes":
        highest = passes >= ops.max(passes, axis=-1, keepdims=True)
        found["votes"] = ops.sum(ops.cast(highest, "float32"), axis=0)
    return found | ({"outputs": passes} if keep else {})


def _distributes(p: np.ndarray) -> bool:
    return p.shape[-1] > 1 and bool((p >= 0).all()) and bool(np.abs(p.sum(-1, dtype=float) - 1).max() <= _TOLERANCE)


def _loss_name(loss: Any) -> str:
    """Return the name of the function behind a loss, in whatever form the loss is given."""
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    function = getattr(loss, "fn", loss)
    return str(getattr(function, "__name__", getattr(function, "name", ""))).lower()


def _answers(y: Any, arrays: list[np.ndarray], passes: Passes, kind: str = "values") -> np.ndarray:
    """Return the answers in the shape of the outputs, or of the means among them."""
    try:
        y = np.asarray(y, float)
    except (TypeError, ValueError):
        refuse("y must be numbers, one answer an example.", "Encode what is no number, and leave out examples without answer.")
    if not np.isfinite(y).all():
        refuse("y must be numbers; some are not finite.", "Leave out the examples without answer.")
    shape = passes.plain([a[:1] for a in arrays]).shape[1:]
    shape = (*shape[:-1], shape[-1] // 2) if kind == "gaussian" else shape
    if y.shape == (len(arrays[0]), *shape[:-1]) and shape[-1] == 1:
        y = y[..., None]
    if y.shape != (len(arrays[0]), *shape):
        fix = "Give an answer an example."
        if kind == "values" and shape[-1:] == (2,) and y.size == len(y):
            fix += ' If the two outputs are a mean and a log-variance, say outputs="gaussian".'
        refuse(f"y must have shape {(len(arrays[0]), *shape)}, that of the outputs; got {y.shape}.", fix)
    return y


def _check_levels(levels: Sequence[float]) -> list[float]:
    if isinstance(levels, (str, numbers.Number)):
        refuse(f"quantiles must be levels between 0 and 1, in a list; got {levels!r}.", "For example [0.05, 0.95].")
    for level in levels:
        if not isinstance(level, numbers.Real) or isinstance(level, bool) or not 0 <= level <= 1:
            refuse(f"a quantile's level must lie between 0 and 1; got {level!r}.", "For example 0.05 and 0.95.")
    return [float(level) for level in levels]


def _per_example(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(axis=1) if values.ndim > 1 else values
