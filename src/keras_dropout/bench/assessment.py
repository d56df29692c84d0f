"""Assess a model's predictions with dropout off, with Monte-Carlo dropout, and with the usual alternatives."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import keras
import numpy as np

from keras_dropout import calibration, metrics, moments, uncertainty
from keras_dropout.bench.data.dataset import Part
from keras_dropout.bench.data.shifts import resize, shift
from keras_dropout.bench.metric_names import TUNED_BY, higher_is_better
from keras_dropout.bench.report import tables
from keras_dropout.bench.scoring import answers, plain, predictions, stochastic
from keras_dropout.bench.settings import AssessmentSettings, complete
from keras_dropout.bench.statistics import Row, compare_family, mean_interval
from keras_dropout.bench.study.planning import check_names
from keras_dropout.display import Shown
from keras_dropout.errors import BadInput, check_flag, refuse
from keras_dropout.models import graph, placement
from keras_dropout.sampling import Passes, as_trained, check_examples

CLASSIFICATION = ("accuracy", "nll", "brier", "ece", "ece_debiased", "smooth_ece", "aurc")
REGRESSION = ("rmse", "nll", "picp", "mpiw", "crps")
_NO_BETTER = ("picp", "mpiw")  # a coverage should be 95 %, and widths are comparable only at equal coverage
_WITH_INTERVALS = ("accuracy", "nll", "brier", "ece_debiased")  # metrics of a single model with intervals over the examples
RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
STRENGTHS = 5  # strengths of a shift
_LOOK = 256


@dataclass(frozen=True, repr=False)
class Assessment(Shown):
    """Metrics by method on test data.

    `values` maps a method to its metrics, each with one number per model (one model per seed of a study, or a single model). An
    ensemble of the models has one number.

    `intervals` (95 %) are over the seeds; for a single model, over the examples. `differences` are the differences to `plain`: per
    seed; for a single model, in the NLL of each example. `calibrated` has the mean ECE that a calibrated model with the same
    probabilities has by chance, by method. `milliseconds` are per example, including compilation. `uncertainties` has
    the Monte-Carlo figures of each example, by seed; it is empty without dropout.
    """

    target: str
    data: str
    task: str
    examples: int
    samples: int
    masks: str
    seeds: tuple[int, ...]
    values: Mapping[str, Mapping[str, list[float]]]
    intervals: Mapping[str, Mapping[str, tuple[float, float] | None]]
    differences: list[dict[str, Any]]
    milliseconds: Mapping[str, float]
    calibrated: Mapping[str, float] = field(default_factory=dict)
    temperatures: list[float] = field(default_factory=list)
    precisions: list[float] = field(default_factory=list)
    moments_error: float | None = None
    rates: list[dict[str, Any]] = field(default_factory=list)
    ood: list[dict[str, Any]] = field(default_factory=list)
    shifts: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    uncertainties: Mapping[int, uncertainty.Uncertainty] = field(default_factory=dict, repr=False)

    def document(self) -> dict[str, Any]:
        """Return everything as plain values, as `--json` prints it."""
        methods = [
            {
                "method": method,
                "values": found,
                "mean": {name: float(np.mean(values)) for name, values in found.items()},
                "interval": {name: interval and list(interval) for name, interval in self.intervals[method].items()},
                "ece_of_calibrated": self.calibrated.get(method),
                "milliseconds": self.milliseconds.get(method),
            }
            for method, found in self.values.items()
        ]
        alone = ("target", "data", "task", "examples", "samples", "masks", "temperatures", "precisions", "moments_error")
        lists = ("differences", "rates", "ood", "shifts")
        return {
            **{name: getattr(self, name) for name in alone},
            "seeds": list(self.seeds),
            "methods": methods,
            **{name: getattr(self, name) for name in lists},
            "notes": list(self.notes),
        }

    def __rich__(self) -> Any:
        return tables.assessment(self)


def assess(
    models: Mapping[int, keras.Model] | keras.Model,
    test: Part,
    validation: Part | None = None,
    *,
    target: str = "model",
    data: str = "data",
    task: str | None = None,
    ood: Mapping[str, Any] | None = None,
    shifts: Sequence[str] = (),
    notes: Sequence[str] = (),
    say: Callable[..., None] = lambda *_: None,
    **settings: Unpack[AssessmentSettings],
) -> Assessment:
    """Measure the predictions of a model, or of several models by seed and of their ensemble, on `test`.

    `validation` are data that the models were not trained on: for temperature scaling, for the noise precision of a regression and
    for the rate. `ood` are other images, by name, which the predictive entropy should distinguish from `test`; they are resized to
    the size of `test`. `shifts` are kinds of `bench.data.shifts`. `task` is "classification" or "regression"; by default it follows
    from the outputs. A single model without dropout is refused. `say(what, number, of)` is called to report progress.

    `settings`: samples (stochastic forward passes, by default 100); seed and masks of the samples ("independent" or "shared");
    logits (whether the model ends without its softmax or sigmoid; by default by its loss); temperature and use_moments (True to
    measure temperature scaling, and moment propagation, too); tune_rate (the metric that chooses one rate for all dropout layers on
    the validation data); variance_head (True for a regression whose model gives means and then the logarithms of their variances);
    precision (the noise precision of a regression, also for plain predictions; by default each is fitted).
    """
    models = dict(models) if isinstance(models, Mapping) else {0: models}
    check_names("assess", settings, AssessmentSettings.__optional_keys__)
    asked = complete(settings, AssessmentSettings)
    temperature, use_moments, precision, tune_rate = (asked[n] for n in ("temperature", "use_moments", "precision", "tune_rate"))
    if test.y is None or isinstance(test.y, (dict, tuple)):
        refuse("metrics need one answer for each test example.", "Give labels, and a model with one output.")
    head = check_flag("variance_head", asked["variance_head"])
    kind, logits, shape = _outputs(next(iter(models.values())), test, task, asked["logits"], head)
    passes = {name: asked[name] for name in ("samples", "masks", "seed")} | {
        "outputs": "gaussian" if head else kind,
        "logits": logits,
    }
    if kind == "values" and (ood or shifts or temperature or use_moments or tune_rate):
        refuse("temperature, moments, rates, other data and shifts are for classes; this is a regression.", "Leave them out.")
    if kind != "values" and precision is not None:
        refuse("the precision of the noise is for a regression; the outputs are probabilities.", "Leave it out.")
    if head and precision is not None:
        refuse("the model gives the variance of the noise itself; got a precision, too.", "Leave precision out.")
    if shifts:  # refused before anything is measured
        _check_images(test.x)
        for name in shifts:
            shift(test.x, name, 0)
    ood = {name: _other_inputs(x, test.x) for name, x in (ood or {}).items()}
    if len(models) == 1 and tune_rate is None:
        Passes.of(next(iter(models.values())))  # refuses a model in which nothing is random
    wanted = {"temperature": temperature, "tune-rate": tune_rate, "precision": kind == "values" and precision is None and not head}
    if validation is None and any(wanted.values()):
        refuse(f"{next(n for n, on in wanted.items() if on)} needs validation data.", "Give data that were not trained on.")
    test = test._replace(y=answers(test.y, kind, shape))
    if any(wanted.values()):
        assert validation is not None  # refused above
        validation = validation._replace(y=answers(validation.y, kind, shape))
    rates: list[dict[str, Any]] = []
    if tune_rate is not None:
        assert validation is not None
        models, rates = _with_best_rate(models, validation, tune_rate, passes)
    measured = [_Measured(model, validation, passes, temperature, use_moments, precision) for model in models.values()]
    values, intervals, differences, moments_error, calibrated = _compare(measured, test, say)
    uncertainties = {number: one.latest for number, one in zip(models, measured) if one.latest is not None}  # of test data
    if ood or shifts:
        say("predictions on other and shifted data")
    left_out = "Monte-Carlo or moments" if use_moments else "Monte-Carlo"
    lacking = f"There is no dropout in the model, so that there are no figures of {left_out}."
    return Assessment(
        target=target,
        data=data,
        task="regression" if kind == "values" else "classification",
        examples=len(test.y),
        samples=asked["samples"],
        masks=asked["masks"],
        seeds=tuple(models),
        values=values,
        intervals=intervals,
        differences=differences,
        calibrated=calibrated,
        milliseconds={
            method: 1000 * float(np.mean([one.seconds[method] for one in measured])) / len(test.y) for method in measured[0].methods
        },
        temperatures=[one.temperature for one in measured if one.temperature is not None],
        precisions=[one.precision for one in measured if one.precision is not None],
        moments_error=moments_error,
        rates=rates,
        ood=[row for name, x in ood.items() for row in _tell_apart(measured, test.x, name, x)],
        shifts=[row for name in shifts for strength in range(1, STRENGTHS + 1) for row in _shifted(measured, test, name, strength)],
        notes=(*notes, *([] if all(one.stochastic for one in measured) else [lacking])),
        uncertainties=uncertainties,
    )


class _Measured:
    """A model with the parameters fitted for it on validation data. `predict` returns its predictions by a method."""

    def __init__(
        self,
        model: keras.Model,
        validation: Part | None,
        settings: Mapping[str, Any],
        temperature: bool,
        use_moments: bool,
        precision: float | None,
    ):
        self.head = settings["outputs"] == "gaussian"  # a regression whose model gives the variance of the noise
        self.model, self.settings, self.kind = as_trained(model), settings, "values" if self.head else settings["outputs"]
        self.stochastic = stochastic(self.model)
        self.temperature: float | None = None
        self.precision: float | None = None
        self.plain_variance: float | None = None
        self.latest: uncertainty.Uncertainty | None = None
        self.methods = ["plain", *(["Monte-Carlo"] if self.stochastic else [])]
        if self.kind == "values" and precision is not None:
            self.precision, self.plain_variance = precision, 1 / precision
        elif self.kind == "values" and not self.head:
            assert validation is not None  # `assess` has checked this
            y = validation.y
            self.plain_variance = float(np.mean(np.square(self._plain(validation.x) - y)))
            if self.stochastic:
                self.precision = uncertainty.fit_precision(self.model, validation.x, y, settings["samples"], seed=settings["seed"])
        if temperature:
            assert validation is not None
            self.temperature = calibration.fit_temperature(self._plain(validation.x), validation.y)
            self.methods.append("temperature")
        if use_moments and self.stochastic:  # without dropout only rounding differs from plain, and would cause verdicts
            self.methods.append("moments")
        self.seconds: dict[str, float] = {}

    def predict(self, method: str, x: Any) -> np.ndarray:
        """Return probabilities (examples, ..., classes)."""
        if method == "Monte-Carlo":
            self.latest = sampled = self.sampled(x)
            return self._distribution(sampled.mean)
        if method == "moments":
            return self._distribution(moments.predict(self.with_probabilities(), x, seed=self.settings["seed"]).mean)
        p = self._plain(x)
        if method == "plain":
            return p
        assert self.temperature is not None  # the method exists only if a temperature was fitted
        return calibration.apply_temperature(p, self.temperature)

    def with_probabilities(self) -> keras.Model:
        """Return the model with probabilities as outputs; add a softmax or sigmoid if it outputs logits."""
        if not self.settings["logits"]:
            return self.model
        last = "softmax" if self.kind == "classes" else "sigmoid"
        return keras.Model(self.model.inputs, keras.layers.Activation(last)(self.model.outputs[0]))

    def sampled(self, x: Any, **options: Any) -> uncertainty.Uncertainty:
        return uncertainty.predict(self.model, x, **self.settings, **options)

    def score(self, method: str, x: Any, y: Any) -> tuple[dict[str, float], np.ndarray]:
        """Return the metrics of a method, and the values for intervals: probabilities, or the NLL of each example."""
        started = time.perf_counter()
        if self.kind != "values":
            p = self.predict(method, x)
            self.seconds[method] = time.perf_counter() - started
            found = metrics.classification(p, y)
            return {name: found[name] for name in CLASSIFICATION}, p
        if method == "plain":
            mean = self._plain(x)
            if self.head:
                mean, log_variance = np.split(mean, 2, axis=-1)
                variance = np.exp(log_variance)
            else:
                assert self.plain_variance is not None  # given or fitted
                variance = np.full(mean.shape, self.plain_variance)
            each = _per_example(metrics.gaussian_nll_each(mean, variance, y))
        else:
            self.latest = u = self.sampled(x, y=y, precision=self.precision)
            assert u.log_likelihood is not None  # there are answers and a precision
            entries = u.mean[0].size  # an answer's log-likelihood is the sum over its entries
            mean, variance, each = u.mean, u.predictive_variance, -u.log_likelihood / entries
        self.seconds[method] = time.perf_counter() - started
        found = metrics.regression(mean, np.broadcast_to(variance, mean.shape), y)
        return {name: found[name] for name in REGRESSION} | {"nll": float(np.mean(each))}, each

    def _plain(self, x: Any) -> np.ndarray:
        return predictions(plain(self.model, x), self.kind, self.settings["logits"])

    def _distribution(self, p: np.ndarray) -> np.ndarray:
        return predictions(p, self.kind, logits=False)


def _outputs(model: keras.Model, test: Part, task: str | None, logits: bool | None, head: bool) -> tuple[str, bool, tuple]:
    """Return the result of `uncertainty.find_outputs`, and the answers' shape without the axis of examples.

    If the model's loss does not decide it, `task` distinguishes the outputs of a classifier from values.
    """
    _check_fit(model, test.x, head)
    shown = plain(model, keras.tree.map_structure(lambda x: x[:_LOOK], test.x))
    if head:
        if task == "classification":
            refuse("a variance head is for a regression; the task is classification.", "Leave variance_head out.")
        uncertainty.find_outputs(model, lambda: shown, "gaussian", logits)
        return "values", False, (*shown.shape[1:-1], shown.shape[-1] // 2)
    told = "values" if task == "regression" else None
    kind, logits = uncertainty.find_outputs(model, lambda: shown, told, logits)
    if task == "classification" and kind == "values":
        kind, logits = uncertainty.find_outputs(model, lambda: shown, "classes" if shown.shape[-1] > 1 else "labels", logits)
    return kind, logits, shown.shape[1:]


def _check_fit(model: keras.Model, x: Any, head: bool = False) -> None:
    """Refuse a model with several outputs, and inputs that do not fit the model."""
    try:
        read = graph.read(as_trained(model))
    except BadInput:  # a subclass whose call cannot be traced
        return
    if len(read.outputs) != 1:
        fix = "Choose one: keras.Model(model.inputs, model.outputs[0])."
        if head:
            fix = "Join them, means first: keras.Model(model.inputs, keras.layers.Concatenate()(model.outputs))."
        refuse(f"the model {model.name!r} has {len(read.outputs)} outputs.", fix)
    check_examples([(name, shape, dtype) for name, _, shape, dtype in read.inputs], x)


def _compare(
    measured: list[_Measured], test: Part, say: Callable[..., None]
) -> tuple[dict, dict, list[dict[str, Any]], float | None, dict[str, float]]:
    """Return metrics by method, intervals, differences to plain predictions, error of moments, and the ECE of calibrated models."""
    methods, kind = measured[0].methods, measured[0].kind
    scored: dict[str, list] = {method: [] for method in methods}
    for method, found in scored.items():
        for number, one in enumerate(measured, 1):
            say(f"{method} predictions on {len(test.y):,} examples, model", number, len(measured))
            found.append(one.score(method, test.x, test.y))
    values = {method: {name: [found[name] for found, _ in each] for name in each[0][0]} for method, each in scored.items()}
    calibrated: dict[str, float] = {}
    if kind != "values":
        calibrated = {m: float(np.mean([metrics.ece_of_calibrated(kept) for _, kept in each])) for m, each in scored.items()}
    intervals: dict[str, dict[str, Any]] = {}
    differences: list[dict[str, Any]] = []
    moments_error = None
    if {"moments", "Monte-Carlo"} <= set(methods):
        pairs = zip(scored["moments"], scored["Monte-Carlo"])
        moments_error = float(np.mean([np.abs(ours - theirs).mean() for (_, ours), (_, theirs) in pairs]))
    if len(measured) > 1:
        intervals = {m: {name: mean_interval(np.array(v)) for name, v in found.items()} for m, found in values.items()}
        rows = {
            (name, method): Row(np.array(found[name]) - plain, higher_is_better(name))
            for name, plain in values["plain"].items()
            for method, found in values.items()
            if method != "plain"
        }
        # All methods and metrics that have a verdict are one family; a metric without is one by itself.
        family = compare_family({key: row for key, row in rows.items() if key[0] not in _NO_BETTER})
        for key, row in rows.items():
            d = family.get(key) or compare_family({key: row})[key]
            verdict = d.verdict if key in family else None
            differences.append(_difference(key[1], key[0], d.mean, d.interval, d.p, d.p_adjusted, verdict))
        if kind != "values":
            for method in ("plain", "Monte-Carlo"):
                if method in methods:
                    p = np.mean([kept for _, kept in scored[method]], axis=0)
                    together = metrics.classification(p, test.y)
                    values[f"ensemble, {method}"] = {name: [together[name]] for name in CLASSIFICATION}
                    intervals[f"ensemble, {method}"] = {}
                    calibrated[f"ensemble, {method}"] = metrics.ece_of_calibrated(p)
        return values, intervals, differences, moments_error, calibrated
    for method, [(_, kept)] in scored.items():
        if kind == "values":
            intervals[method] = {"nll": mean_interval(kept)}
            continue
        for name in _WITH_INTERVALS:
            metric, options = (metrics.ece, {"debiased": True}) if name == "ece_debiased" else (getattr(metrics, name), {})
            intervals.setdefault(method, {})[name] = metrics.bootstrap_interval(metric, kept, test.y, **options)
    each = {m: kept if kind == "values" else _per_example(metrics.nll_each(kept, test.y)) for m, [(_, kept)] in scored.items()}
    for method in methods[1:]:
        losses = each[method] - each["plain"]
        differences.append(_difference(method, "nll", float(losses.mean()), mean_interval(losses)))
    return values, intervals, differences, moments_error, calibrated


def _difference(
    method: str, metric: str, difference: float, interval: tuple[float, float] | None, *tested: float | str | None
) -> dict[str, Any]:
    """Return a row of `Assessment.differences`; `tested` are p, p_adjusted and verdict, if there are such."""
    found = {"method": method, "metric": metric, "difference": difference, "interval": interval and list(interval)}
    return found | dict(zip(("p", "p_adjusted", "verdict"), tested or (None, None, None)))


def _with_best_rate(
    models: Mapping[int, keras.Model], validation: Part, by: str, settings: Mapping[str, Any]
) -> tuple[dict[int, keras.Model], list[dict[str, Any]]]:
    """Return copies of the models with the one rate for all dropout layers that gives the best Monte-Carlo validation metric.

    Also return the metrics at each rate.
    """
    changed = {seed: placement.with_ours(graph.copy(as_trained(model))) for seed, model in models.items()}
    rows = []
    for rate in RATES:
        row: dict[str, Any] = {"rate": rate}
        for model in changed.values():
            placement.set_rate(model, rate)
        each = [
            _Measured(m, validation, settings, False, False, None).score("Monte-Carlo", *validation[:2])[0]
            for m in changed.values()
        ]
        rows.append(row | {name: float(np.mean([found[name] for found in each])) for name in TUNED_BY})
    best = min(rows, key=lambda row: row[by])
    for model in changed.values():
        placement.set_rate(model, best["rate"])
    return changed, [row | {"chosen": row is best} for row in rows]


def _tell_apart(measured: list[_Measured], x: Any, name: str, other: Any) -> list[dict[str, Any]]:
    """Measure how well each score separates other inputs from the test data: means over the models, interval of the AUROC."""
    scores: dict[str, list[dict[str, float]]] = {}
    for one in measured:
        ours, theirs = one.predict("plain", x), one.predict("plain", other)
        pairs = {
            "1 - largest probability, plain": (1 - ours.max(-1), 1 - theirs.max(-1)),
            "entropy, plain": (uncertainty.entropy(ours), uncertainty.entropy(theirs)),
        }
        if one.stochastic:
            inner, outer = one.latest, one.sampled(other)  # the latest passes were on the test data
            assert inner is not None
            for score in ("entropy", "mutual_information"):
                pairs[f"{score.replace('_', ' ')}, Monte-Carlo"] = getattr(inner, score), getattr(outer, score)
        for score, (inside, outside) in pairs.items():
            found = metrics.ood(_per_example(inside), _per_example(outside))
            scores.setdefault(score, []).append(found)
    rows = []
    for score, each in scores.items():
        aurocs = np.array([found["auroc"] for found in each])
        interval = mean_interval(aurocs)
        mean = {metric: float(np.mean([found[metric] for found in each])) for metric in each[0]}
        rows.append({"data": name, "score": score, **mean, "auroc_interval": interval and list(interval)})
    return rows


def _shifted(measured: list[_Measured], test: Part, name: str, strength: int) -> list[dict[str, Any]]:
    """Return the metrics of each method on shifted test images, as means over the models."""
    x = shift(test.x, name, strength)
    rows = []
    for method in measured[0].methods:
        each = [one.score(method, x, test.y)[0] for one in measured]
        mean = {metric: float(np.mean([found[metric] for found in each])) for metric in ("accuracy", "nll", "brier", "ece")}
        rows.append({"shift": name, "strength": strength, "method": method, **mean})
    return rows


def _other_inputs(images: Any, like: Any) -> np.ndarray:
    """Resize images of other data to the size that the model takes."""
    _check_images(like)
    _check_images(images)
    images = np.asarray(images, "float32")
    return images if images.shape[1:] == like.shape[1:] else resize(images, like.shape[1:])


def _check_images(x: Any) -> None:
    if not hasattr(x, "shape"):
        refuse("other data and shifts are for models with one input, of images.", "Leave them out.")


def _per_example(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(axis=1)
