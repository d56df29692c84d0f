"""The contract of a dropout layer: named properties, each checked on real calls on the backend of this process.

    check_layer(MyDropout, [Case({"rate": 0.3}, shape=(64, 20))])

raises `BrokenContract` with one line for each property that does not hold. A case says how the layer is made and called, along
which axes one draw is shared, and, with a reason, which properties are not meant to hold.

Each property looks at one thing alone, so a layer that is wrong in one way breaks one of them (`keras_dropout.testing.faults` has
one for each). Repetitions therefore start from a layer's restored state, not from a second layer with the same seed, and statistics
come from layers with different seeds, not from many calls of one.
"""

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dropout.errors import check_choice, described, first_line, refuse
from keras_dropout.layers.base import Stochastic
from keras_dropout.testing import backend

SIGMAS = 5.5  # standard errors: chance exceeds them once in 30 million checks
CALLS = 16  # calls of two layers whose masks are compared


@dataclass(frozen=True)
class Case:
    """One way to make and call a layer, which takes a `seed`.

    arguments     of the constructor, without `seed`; or a function that makes them, if they contain layers
    shape         of the inputs, with the batch
    shared        axes along which all units share one draw
    drops         how training shows: "zeros" (dropped units are 0, the rest scaled by 1 / (1 - rate)), "noise" (each unit gets its
                  own factor) or "other" (the frequency of drops is not checked)
    inputs        function of a random generator that makes the inputs; by default uniform in [1, 2)
    inference     function (layer, inputs) -> outputs at inference; by default the inputs themselves
    weights       number of weights that the layer has; a dropout layer has none
    exempt        property -> why it is not meant to hold
    bad           further arguments that must be refused, each merged into `arguments`
    """

    arguments: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
    shape: tuple[int, ...]
    shared: tuple[int, ...] = ()
    drops: str = "zeros"
    inputs: Callable[[np.random.Generator], np.ndarray] | None = None
    inference: Callable[[Any, np.ndarray], np.ndarray] | None = None
    weights: int = 0
    exempt: Mapping[str, str] = field(default_factory=dict)
    bad: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_choice("drops of a Case", self.drops, ("zeros", "noise", "other"))
        _check_names(self.exempt)

    def made(self) -> dict:
        return dict(self.arguments() if callable(self.arguments) else self.arguments)

    def x(self) -> np.ndarray:
        generator = np.random.default_rng(0)
        return self.inputs(generator) if self.inputs else generator.uniform(1, 2, self.shape).astype("float32")


class BrokenContract(AssertionError):
    """A layer that does not do what a dropout layer must."""


def check_layer(cls: type[keras.Layer], cases: Case | Iterable[Case]) -> None:
    """Check every property of the contract on each case; raise `BrokenContract` with a line for each that does not hold."""
    cases = [cases] if isinstance(cases, Case) else list(cases)
    if not cases:
        refuse("check_layer: there is no case.", "Give at least one Case, which says how the layer is made.")
    broken = [(number, *each) for number, case in enumerate(cases, start=1) for each in _broken(cls, case)]
    if broken:
        lines = [f"{f'case {number}, ' if len(cases) > 1 else ''}{name}: {_line(error)}" for number, name, error in broken]
        raise BrokenContract("\n".join([f"{cls.__name__} breaks its contract.", *lines])) from broken[0][-1]


def violations(cls: type[keras.Layer], case: Case, only: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return (property, what was seen) for each property that does not hold."""
    return [(name, _line(error)) for name, error in _broken(cls, case, only)]


def _broken(cls: type[keras.Layer], case: Case, only: Iterable[str] = ()) -> list[tuple[str, Exception]]:
    names = list(only) or list(PROPERTIES)
    _check_names(names)
    subject = _Subject(cls, case)
    try:
        subject.layer()
    except Exception as error:
        made = ", ".join(f"{name}={value!r}" for name, value in {**case.made(), "seed": 11}.items())
        refuse(
            f"{cls.__name__}({made}) cannot be made and built for inputs of shape {case.shape}: {_line(error)}.",
            "Fix the case; the layer must take a seed.",
        )
    found = []
    for name in names:
        if name not in case.exempt:
            try:
                PROPERTIES[name](subject)
            except Exception as error:
                found.append((name, error))
    return found


def _line(error: Exception) -> str:
    return first_line(error) if isinstance(error, AssertionError) else described(error)


def _check_names(names: Iterable[str]) -> None:
    unknown = sorted({*names} - {*PROPERTIES})
    if unknown:
        refuse(f"no such property: {', '.join(unknown)}.", f"They are: {', '.join(PROPERTIES)}.")


class _Subject:
    """A layer class under one case."""

    def __init__(self, cls: type[keras.Layer], case: Case):
        self.cls, self.case, self.x = cls, case, case.x()

    def layer(self, seed: int | None = 11, **changes: Any) -> Any:
        if seed is not None:
            keras.utils.set_random_seed(1)  # layers with weights start alike
        layer = self.cls(**{**self.case.made(), **changes}, seed=seed)
        layer.build(self.x.shape)
        return layer

    def train(self, layer: Any, x: np.ndarray | None = None) -> np.ndarray:
        return _numpy(layer(self.x if x is None else x, training=True))

    def infer(self, layer: Any) -> np.ndarray:
        return _numpy(layer(self.x, training=False))

    @functools.cached_property
    def sample(self) -> np.ndarray:
        """Training outputs of 5 calls of each of 40 layers with seeds far apart: (40, 5, ...)."""
        layers = (self.layer(100 + 17 * number) for number in range(40))
        return np.stack([[self.train(layer) for _ in range(5)] for layer in layers]).astype("float64")

    def model(self, layer: Any) -> keras.Model:
        inputs = keras.Input(self.x.shape[1:], dtype=str(self.x.dtype))
        return keras.Model(inputs, layer(inputs))


def _values(layer: Any) -> list[np.ndarray]:
    """Return all values that a layer's next call depends on."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in layer.variables]


def _restored(layer: Any, values: list[np.ndarray]) -> Any:
    for variable, value in zip(layer.variables, values):
        variable.assign(value)
    return layer


def _set_rate(layer: Any, rate: float) -> None:
    if isinstance(layer.rate, keras.Variable):
        layer.rate.assign(rate)
    else:
        layer.rate = rate


def _numpy(x: Any) -> np.ndarray:
    x = x if "float64" in str(x.dtype) or "float" not in str(x.dtype) else ops.cast(x, "float32")
    return np.asarray(ops.convert_to_numpy(x))


def _same(a: np.ndarray, b: np.ndarray, what: str, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape, f"{what}: shape {a.shape} instead of {b.shape}"
    worst = np.abs(a.astype("float64") - b).max(initial=0)
    assert np.allclose(a, b, rtol=tolerance, atol=tolerance), f"{what}: off by up to {worst:.3g}"


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two outputs' deviations from their means."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-30))


def identity_at_inference(s: _Subject) -> None:
    layer = s.layer()
    expected = s.case.inference(layer, s.x) if s.case.inference else s.x
    _same(s.infer(layer), expected, "output at inference", 1e-5 if s.case.inference else 0)
    _same(_numpy(layer(s.x)), expected, "output without `training`", 1e-5 if s.case.inference else 0)


def inference_draws_nothing(s: _Subject) -> None:
    layer = s.layer()
    before = _values(layer)
    s.infer(layer)
    same = all(np.array_equal(a, b) for a, b in zip(before, _values(layer)))
    assert same, "a call at inference changes the state: training goes on with other masks"


def identity_at_rate_zero(s: _Subject) -> None:
    layer = s.layer(rate=0)
    _same(s.train(layer), s.infer(layer), "output in training at rate 0")


def finite_at_rate_one(s: _Subject) -> None:
    if "rate" not in s.case.made() or _refusal(lambda: s.layer(rate=1)):
        return  # refused is fine too
    layer = s.layer(rate=1)
    y = s.train(layer)
    assert np.isfinite(y).all(), "output in training at rate 1 is not finite"
    if "float" in str(s.x.dtype):
        gradient = backend.gradient(layer, s.x, np.ones(y.shape, "float32"))
        assert np.isfinite(gradient).all(), "gradient at rate 1 is not finite"


def mean_is_kept(s: _Subject) -> None:
    expected = s.infer(s.layer())
    # Units may share draws, and calls may repeat them. Only a layer's mean over all its units and calls is independent.
    means = (s.sample - expected).reshape(40, -1).mean(axis=1)
    bias, error = means.mean(), means.std(ddof=1) / np.sqrt(40) + 1e-5 * np.abs(expected).mean()
    assert abs(bias) <= SIGMAS * error, f"mean is off by {bias:.4g}, {abs(bias / error):.1f} standard errors"


def units_share_draws(s: _Subject) -> None:
    factors = s.train(s.layer()) / s.x
    for axis in range(factors.ndim):
        constant = np.allclose(factors, factors.take([0], axis), rtol=1e-4)
        assert constant == (axis in s.case.shared), f"draws are {'' if constant else 'not '}shared along axis {axis}"


def drop_frequency(s: _Subject) -> None:
    if s.case.drops == "other":
        return
    first = tuple(0 if axis in s.case.shared else slice(None) for axis in range(s.x.ndim))
    factors = (s.sample[:, 0] / s.x)[:, *first]
    rate = float(ops.convert_to_numpy(s.layer().rate))
    if s.case.drops == "zeros":
        shares = (factors == 0).reshape(40, -1).mean(axis=1)
        expected, error, what = rate, np.sqrt(rate * (1 - rate) / factors.size), "share of dropped units"
    else:
        shares = ((factors - 1) ** 2).reshape(40, -1).mean(axis=1)
        expected = rate / (1 - rate)
        error, what = expected * np.sqrt(2 / factors.size), "variance of the noise"
    error = max(error, shares.std(ddof=1) / np.sqrt(40))  # larger if units share draws that they should not share
    off = abs(shares.mean() - expected) / error
    assert off <= SIGMAS, f"{what} is {shares.mean():.4f} at rate {rate:g}, expected {expected:.4f}: {off:.1f} standard errors off"


def same_seed_same_masks(s: _Subject) -> None:
    one, same = s.layer(), s.layer()
    for call in range(2):
        _same(s.train(one), s.train(same), f"call {call + 1} of two layers with one seed", 0)


def other_seed_other_masks(s: _Subject) -> None:
    ahead = s.layer(11)
    s.train(ahead)
    pairs = {
        "seeds 11 and 12": (s.layer(11), s.layer(12)),
        "two layers without a seed": (s.layer(None), s.layer(None)),
        "seeds 11, a step ahead, and 12": (ahead, s.layer(12)),
    }
    for what, pair in pairs.items():
        one, other = ([s.train(layer) for _ in range(CALLS)] for layer in pair)
        _independent(s, one, other, what)


def _independent(s: _Subject, one: list[np.ndarray], other: list[np.ndarray], what: str) -> None:
    base = s.infer(s.layer())
    if one[0].shape != base.shape:
        base = np.zeros((), base.dtype)
    correlations = [_agreement(a - base, b - base) for a, b in zip(one, other)]
    # A lasting offset also correlates two independent outputs, so compare with draws of the same layers that are further apart.
    shuffled = [_agreement(a - base, b - base) for a, b in zip(one, other[5:] + other[:5])]
    spread = np.std(shuffled, ddof=1) + 1e-3
    assert not all(np.array_equal(a, b) for a, b in zip(one, other)), f"{what} draw the same masks"
    gap = np.mean(correlations) - np.mean(shuffled)
    assert gap <= SIGMAS * spread * np.sqrt(2 / len(one)), f"masks of {what} go together (correlation {np.mean(correlations):.2f})"


def fresh_mask_each_call(s: _Subject) -> None:
    layer = s.layer()
    calls = [s.train(layer) for _ in range(CALLS + 1)]
    differ = any(a.shape != b.shape or not np.array_equal(a, b) for a, b in itertools.pairwise(calls))
    assert differ, "every call draws the same mask"
    _independent(s, calls[:-1], calls[1:], "neighbouring calls")


def gradient_matches(s: _Subject) -> None:
    """Compare the derivative along a random direction with a finite difference under the same mask."""
    generator = np.random.default_rng(5)
    layer = s.layer()
    start, shape = _values(layer), s.train(layer).shape
    upstream, direction = (generator.normal(size=n).astype("float32") for n in (shape, s.x.shape))
    step = 1e-2
    ahead, behind = (s.train(_restored(layer, start), s.x + sign * step * direction).astype("float64") for sign in (1, -1))
    expected = ((ahead - behind) * upstream).sum() / (2 * step)
    found = float((backend.gradient(_restored(layer, start), s.x, upstream) * direction).sum())
    size = np.linalg.norm(upstream * np.ones(shape)) * np.abs((ahead - behind) / (2 * step)).max()
    assert abs(found - expected) <= 5e-3 * size, f"gradient along a direction is {found:.5g}, expected {expected:.5g}"


def rate_can_change_while_compiled(s: _Subject) -> None:
    """Compare with another step, compiled for a layer that had the rate from the start."""

    def calls(step: Callable) -> np.ndarray:
        return np.stack([step(s.x) for _ in range(8)])

    layer, other = s.layer(rate=0), s.layer(rate=0.5)
    start = _values(layer)
    _set_rate(_restored(other, start), 0.5)
    step = backend.compiled_training(layer)
    at_zero, at_half = calls(step), calls(backend.compiled_training(other))
    assert not np.allclose(at_zero, at_half), "training is the same at rates 0 and 0.5"
    for rate, expected in ((0.5, at_half), (0, at_zero)):
        _set_rate(_restored(layer, start), rate)
        _same(calls(step), expected, f"compiled step with its rate changed to {rate}", 1e-4)
    assert step.traces() <= 1, f"a changed rate compiled the step {step.traces()} times"


def half_precision(s: _Subject) -> None:
    full = s.layer()
    start = _values(full)
    expected = s.train(full)
    before = keras.config.dtype_policy()
    # Weights are not made in half precision, because not every initializer of Keras supports it.
    for policy in ("mixed_float16", "mixed_bfloat16", *(() if s.case.weights else ("float16", "bfloat16"))):
        keras.config.set_dtype_policy(policy)  # for a wrapped layer too
        try:
            layer = _restored(s.layer(), start)
        finally:
            keras.config.set_dtype_policy(before)
        y = layer(s.x, training=True)
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype, f"output is {y.dtype} under {policy}"
        assert np.isfinite(_numpy(y)).all(), f"output is not finite under {policy}"
        _same(_numpy(y), expected, f"output under {policy}", 0.05)


def any_batch_size(s: _Subject) -> None:
    model = s.model(s.layer())
    many, some = len(s.x), max(1, len(s.x) // 3)
    for call, sizes in ((lambda x: s.train(model, x), (many, some)), (model.predict_on_batch, (some, 1))):
        for rows in sizes:
            given = len(call(s.x[:rows]))
            assert given == rows, f"{rows} rows in, {given} out"


def masking_is_passed_on(s: _Subject) -> None:
    layer = s.layer()
    assert layer.supports_masking, "supports_masking is False"
    mask = ops.convert_to_tensor(np.ones(s.x.shape[:2], bool))
    assert layer.compute_mask(ops.convert_to_tensor(s.x), mask) is mask, "a padding mask is not passed on"


def config_round_trip(s: _Subject) -> None:
    layer = s.layer(name="twin", dtype="mixed_bfloat16", trainable=False)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), custom_objects={s.cls.__name__: s.cls})
    assert type(twin) is s.cls, f"comes back as {type(twin).__name__}"
    _same_config(layer, twin)
    assert twin.dtype_policy.name == "mixed_bfloat16", "the dtype policy is lost"
    assert twin.trainable is False, "`trainable` is lost"
    for name in (*s.case.made(), "seed"):
        if isinstance(getattr(layer, name, None), (int, float, str, bool, tuple)):
            assert getattr(twin, name) == getattr(layer, name), f"{name} is {getattr(twin, name)} instead of {getattr(layer, name)}"


def _same_config(layer: Any, other: Any) -> None:
    ours, theirs = (keras.saving.serialize_keras_object(each)["config"] for each in (layer, other))
    assert ours.keys() == theirs.keys(), "the configs have other entries"
    changed = [key for key in ours if ours[key] != theirs[key]]
    assert not changed, f"changed in the config: {', '.join(changed)}"


def saved_model_goes_on(s: _Subject) -> None:
    layer = s.layer()
    model = s.model(layer)
    s.train(layer)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        loaded = keras.saving.load_model(Path(folder) / "model.keras", custom_objects={s.cls.__name__: s.cls})
    _same(_numpy(loaded(s.x, training=True)), _numpy(model(s.x, training=True)), "next training output of a loaded model", 1e-6)


def clone_keeps_the_layer(s: _Subject) -> None:
    layer = s.layer()
    clone = keras.models.clone_model(s.model(layer)).layers[-1]
    assert clone is not layer, "the clone is the layer itself"
    assert type(clone) is s.cls, f"the clone is a {type(clone).__name__}"
    _same_config(layer, clone)
    common = {id(variable) for variable in layer.variables} & {id(variable) for variable in clone.variables}
    assert not common, f"the clone shares {len(common)} variables with the layer"


def compiled_equals_eager(s: _Subject) -> None:
    layer = s.layer()
    start = _values(layer)
    eager = [s.train(layer) for _ in range(2)]
    step = backend.compiled_training(_restored(layer, start))
    for call, expected in enumerate(eager, start=1):
        _same(step(s.x), expected, f"compiled against eager, call {call}", 1e-4)


def symbolic_shape(s: _Subject) -> None:
    layer = s.layer()
    symbolic = layer(keras.KerasTensor((None, *s.x.shape[1:]), dtype=str(s.x.dtype)))
    for training in (False, True):
        real = layer(s.x, training=training)
        shape, kind = tuple(real.shape), keras.backend.standardize_dtype(real.dtype)
        fits = len(symbolic.shape) == len(shape) and all(a in (None, b) for a, b in zip(symbolic.shape, shape))
        assert fits, f"symbolic shape {tuple(symbolic.shape)}, real {shape}"
        assert symbolic.dtype == kind, f"symbolic type {symbolic.dtype}, real {kind}"


def bad_arguments_are_refused(s: _Subject) -> None:
    rates = (-0.1, 1.5, float("nan"), 10**400, "0.5", None, True) if "rate" in s.case.made() else ()
    seeds = (1.5, "a", keras.KerasTensor((), dtype="int32"))
    for change in [*({"rate": rate} for rate in rates), *({"seed": seed} for seed in seeds), *s.case.bad]:
        refused = _refusal(lambda: s.cls(**{**s.case.made(), **change}))  # noqa: B023 - called at once
        assert refused, f"{change} is accepted"
        lines = len(refused.splitlines())
        # Layers on our base promise two lines: what is wrong, and how to fix it.
        assert lines == 2 or not issubclass(s.cls, Stochastic), f"{change} is refused in {lines} lines, not two"


def wrong_inputs_are_refused(s: _Subject) -> None:
    refused = _refusal(lambda: s.cls(**s.case.made(), seed=1)(ops.ones(s.x.shape, dtype="int32"), training=True))
    assert refused, "whole numbers are accepted as inputs"
    assert "float" in refused, "the message about whole numbers as inputs does not say what is expected"


def _refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def state_is_no_weight(s: _Subject) -> None:
    layer = s.layer()
    assert len(layer.weights) == s.case.weights, f"{len(layer.weights)} weights, expected {s.case.weights}"
    assert len(layer.variables) > s.case.weights, "no state is carried: the masks cannot be fresh in a compiled step"


PROPERTIES: dict[str, Callable[[_Subject], None]] = {
    check.__name__: check
    for check in (
        identity_at_inference,
        inference_draws_nothing,
        identity_at_rate_zero,
        finite_at_rate_one,
        mean_is_kept,
        units_share_draws,
        drop_frequency,
        same_seed_same_masks,
        other_seed_other_masks,
        fresh_mask_each_call,
        gradient_matches,
        rate_can_change_while_compiled,
        half_precision,
        any_batch_size,
        masking_is_passed_on,
        config_round_trip,
        saved_model_goes_on,
        clone_keeps_the_layer,
        compiled_equals_eager,
        symbolic_shape,
        bad_arguments_are_refused,
        wrong_inputs_are_refused,
        state_is_no_weight,
    )
}
