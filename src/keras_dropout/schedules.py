"""Schedules: the rate as a function of the progress of training, and of depth.

A schedule maps the share of training that is done, in [0, 1], to the rate there, in [0, 1):

>>> schedule = Linear(0.5, 0.0)
>>> float(schedule(0.5)), schedule([0.0, 1.0]).tolist()
(0.25, [0.5, 0.0])

A schedule consists of plain values. It has one text form, the same on the command line, in files and in reports:

>>> str(schedule), parse("linear(0.5, 0.0)") == schedule
('linear(0.5, 0.0)', True)
"""

import ast
import inspect
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from keras_dropout.errors import check_choice, check_flag, check_positive, check_rate, refuse

__all__ = [
    "Annealed",
    "Constant",
    "Cosine",
    "Curriculum",
    "Early",
    "Late",
    "Linear",
    "Schedule",
    "Step",
    "from_document",
    "of",
    "parse",
]


@dataclass(frozen=True)
class Schedule:
    """A rate over training, the base class of the schedules. Two schedules with the same values are equal."""

    _rates: ClassVar[tuple[str, ...]] = ("rate",)  # the values that are rates

    def __post_init__(self) -> None:
        for name in self._rates:
            self._keep(name, check_rate(self.kind, getattr(self, name), name, "nothing is left to train"))

    def __call__(self, progress: Any) -> Any:
        """Return the rate where the share `progress` of training is done: a number for a number, an array for an array."""
        try:
            done = np.asarray(progress, "float64")
        except (TypeError, ValueError):
            done = np.array(np.nan)
        if not np.all((done >= 0) & (done <= 1)):
            refuse(f"{self.kind}: progress must be in [0, 1]; got {progress!r}.", "It is the share of training that is done.")
        return self._at(done)[()]

    @property
    def kind(self) -> str:
        """The schedule's name in texts and documents."""
        return type(self).__name__.lower()

    @property
    def peak(self) -> float:
        """The highest rate in the schedule's definition; the schedule never exceeds it."""
        return max(np.ravel([getattr(self, name) for name in self._rates]).tolist())

    def scaled(self, factor: float) -> "Schedule":
        """Return the same schedule with its rates times `factor`, in [0, 1]."""
        return replace(self, **{name: _times(getattr(self, name), factor) for name in self._rates})

    def document(self) -> dict[str, Any]:
        """Return the schedule as plain values; `from_document` reads them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind} | {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def __str__(self) -> str:
        document = self.document()
        values = [repr(document[name]) for name in self._rates]
        for field in fields(self):
            if field.name not in self._rates and document[field.name] != field.default:
                values.append(f"{field.name}={document[field.name]!r}")
        return f"{self.kind}({', '.join(values)})"

    def _at(self, done: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _share(self, name: str, above: float | None = None) -> None:
        """Keep a share of training as a float in [0, 1], or in (above, 1]."""
        value = getattr(self, name)
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (real and 0 <= value <= 1 and (above is None or value > above)):
            bounds = "[0, 1]" if above is None else f"({above:g}, 1]"
            refuse(
                f"{self.kind}: {name} must be in {bounds}; got {value!r}.", "It is a share of training: 0.25 is a quarter of it."
            )
        self._keep(name, float(value))


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate all the time: rate(t) = rate."""

    rate: float

    def _at(self, done: np.ndarray) -> np.ndarray:
        return np.full_like(done, self.rate)


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line between two rates.

        rate(t) = (1 - s) first + s last,    s = (t - begin) / (end - begin), within [0, 1]

    Arguments:     first, last: rates before `begin` and after `end`, in [0, 1). begin, end: shares of training.
    Source:        from 0 up as in DropBlock (Ghiasi et al. 2018, arXiv:1810.12890), DropPath (Zoph et al. 2018, arXiv:1707.07012).
    """

    _rates: ClassVar[tuple[str, ...]] = ("first", "last")
    first: float
    last: float
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("begin")
        self._share("end", above=self.begin)

    def _at(self, done: np.ndarray) -> np.ndarray:
        share = self._passed(done)
        return (1 - share) * self.first + share * self.last

    def _passed(self, done: np.ndarray) -> np.ndarray:
        return np.clip((done - self.begin) / (self.end - self.begin), 0, 1)


@dataclass(frozen=True)
class Cosine(Linear):
    """Half a wave between two rates: slow at both ends.

        rate(t) = last + (first - last) (1 + cos(pi s)) / 2,    s = (t - begin) / (end - begin), within [0, 1]

    Arguments:     those of Linear.
    Source:        the form of Loshchilov and Hutter 2017, arXiv:1608.03983, there for learning rates.
    """

    def _passed(self, done: np.ndarray) -> np.ndarray:
        return (1 - np.cos(np.pi * super()._passed(done))) / 2


@dataclass(frozen=True)
class Step(Schedule):
    """One rate after the other.

        rate(t) = rates[k],    k = how many of `at` are at or before t

    Arguments:     rates: each in [0, 1). at: increasing shares of training where the next rate begins, one fewer than the rates.
    Source:        ours.
    """

    _rates: ClassVar[tuple[str, ...]] = ("rates",)
    rates: tuple[float, ...]
    at: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, fix in (("rates", "step([0.0, 0.3, 0.5], at=[0.2, 0.6])"), ("at", "at=[0.2, 0.6]")):
            if not isinstance(getattr(self, name), (list, tuple)):
                refuse(f"step: {name} must be a list; got {getattr(self, name)!r}.", f"For example {fix}.")
        self._keep("rates", tuple(check_rate("step", rate, "each rate", "nothing is left to train") for rate in self.rates))
        real = all(isinstance(share, numbers.Real) and not isinstance(share, bool) for share in self.at)
        if not real or not all(low < high for low, high in zip((0, *self.at), (*self.at, 1))):
            refuse(f"step: at must rise within (0, 1); got {list(self.at)!r}.", "It holds shares of training: at=[0.2, 0.6].")
        if len(self.rates) != len(self.at) + 1:
            refuse(
                f"step: at must have one entry fewer than the {len(self.rates)} rates; got {len(self.at)}.",
                "Each entry is where the next rate begins.",
            )
        self._keep("at", tuple(float(share) for share in self.at))

    def scaled(self, factor: float) -> "Step":
        return replace(self, rates=tuple(_times(rate, factor) for rate in self.rates))

    def _at(self, done: np.ndarray) -> np.ndarray:
        return np.asarray(self.rates)[np.searchsorted(self.at, done, side="right")]


@dataclass(frozen=True)
class Curriculum(Schedule):
    """From no dropout up to the rate, fast at first: the task becomes harder as training goes on.

        rate(t) = rate (1 - exp(-gamma t))

    Arguments:     rate: in [0, 1), nearly reached at the end. gamma: 10 in the paper, which gives 63 % of the rate at t = 0.1.
    Source:        Morerio et al. 2017, arXiv:1703.06229.
    """

    rate: float
    gamma: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        fix = "It says how fast the rate rises; 10 in the paper."
        self._keep("gamma", check_positive("curriculum: gamma", self.gamma, fix))

    def _at(self, done: np.ndarray) -> np.ndarray:
        return -self.rate * np.expm1(-self.gamma * done)


@dataclass(frozen=True)
class Annealed(Schedule):
    """From the rate down to no dropout in a straight line.

        rate(t) = rate max(0, 1 - t / until)

    Arguments:     rate: the rate at the beginning, in [0, 1). until: the share of training where dropout ends.
    Source:        Rennie, Goel and Thomas 2014, Annealed dropout training of deep networks, SLT.
    """

    rate: float
    until: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("until", above=0)

    def _at(self, done: np.ndarray) -> np.ndarray:
        return self.rate * np.maximum(0, 1 - done / self.until)


@dataclass(frozen=True)
class Early(Schedule):
    """Dropout at the beginning only, against underfitting.

        rate(t) = rate (1 - t / until)  or  rate,  while t < until;  then 0

    Arguments:     rate: in [0, 1). until: the share of training where dropout ends. shape: "linear" (the first form) or "constant".
    Source:        Liu et al. 2023, arXiv:2303.01500: rate 0.1, linear, over the first 50 epochs.
    """

    rate: float
    until: float
    shape: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("until", above=0)
        check_choice("shape of early", self.shape, ("linear", "constant"))

    def _at(self, done: np.ndarray) -> np.ndarray:
        left = np.maximum(0, 1 - done / self.until)
        return self.rate * (left if self.shape == "linear" else np.sign(left))


@dataclass(frozen=True)
class Late(Schedule):
    """No dropout at the beginning, then the rate, against overfitting.

        rate(t) = 0 while t < start;  then rate

    Arguments:     rate: in [0, 1). start: the share of training where dropout begins.
    Source:        Liu et al. 2023, arXiv:2303.01500: stochastic depth of 0.4 after the first 50 epochs.
    """

    rate: float
    start: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("start")

    def _at(self, done: np.ndarray) -> np.ndarray:
        return np.where(done < self.start, 0.0, self.rate)


KINDS = {cls.__name__.lower(): cls for cls in (Constant, Linear, Cosine, Step, Curriculum, Annealed, Early, Late)}


def parse(text: str) -> Schedule:
    """Return the schedule with this text form, for example `early(0.1, until=0.25)`."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise TypeError("no call of a name")
        values = [ast.literal_eval(value) for value in node.args]
        options = {option.arg or "**": ast.literal_eval(option.value) for option in node.keywords}
        kind = node.func.id
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        refuse(f"cannot read the schedule {text!r}.", "Write for example linear(0.5, 0.0) or step([0.0, 0.5], at=[0.2]).")
    return _make(kind, values, options)


def of(value: Any) -> Schedule:
    """Return a schedule unchanged, read it from its text form, or make a constant one from a rate."""
    if isinstance(value, Schedule):
        return value
    return parse(value) if isinstance(value, str) else Constant(value)


def from_document(document: Mapping[str, Any]) -> Schedule:
    """Return the schedule with the plain values in `document`."""
    if not isinstance(document, Mapping):
        refuse(
            f"a schedule's values are a mapping; got {document!r}.", 'For example {"kind": "linear", "first": 0.5, "last": 0.0}.'
        )
    return _make(document.get("kind"), [], {name: value for name, value in document.items() if name != "kind"})


def _make(kind: Any, values: list, options: dict[str, Any]) -> Schedule:
    if not isinstance(kind, str) or kind not in KINDS:
        refuse(f"unknown schedule {kind!r}.", f"Use one of: {', '.join(KINDS)}.")
    signature = inspect.signature(KINDS[kind])
    try:
        signature.bind(*values, **options)
    except TypeError as error:
        forms = ", ".join(name if p.default is p.empty else f"{name}={p.default!r}" for name, p in signature.parameters.items())
        refuse(f"the schedule {kind}: {error}.", f"Write {kind}({forms}).")
    return KINDS[kind](*values, **options)


def _times(rate: float, factor: float) -> float:
    """Return the product without spurious last digits, never rounded up to 1, which is not a rate of training."""
    rounded = round(rate * factor, 12)
    return rounded if rounded < 1 else rate * factor


def spread_over_depth(placement: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return specs by site, in the order of the data, with each `over_depth` applied: stochastic depth's linear decay.

        rate_l = l / L * rate,    for site l = 1 .. L of those with the same spec

    The rule is that of `keras_dropout.linear_decay`. A schedule is scaled as a whole.
    Source: Huang et al. 2016, arXiv:1603.09382.

    >>> spread_over_depth({site: {"kind": "Dropout", "rate": 0.5, "over_depth": True} for site in ("a", "b")})
    {'a': {'kind': 'Dropout', 'rate': 0.25}, 'b': {'kind': 'Dropout', 'rate': 0.5}}
    """
    together: list[tuple[Mapping[str, Any], list[str]]] = []
    for site, spec in placement.items():
        if check_flag(f"over_depth at site {site!r}", spec.get("over_depth", False)):
            same = next((sites for known, sites in together if known == spec), None)
            if same is None:
                together.append((spec, [site]))
            else:
                same.append(site)
    spread = {site: {name: v for name, v in spec.items() if name != "over_depth"} for site, spec in placement.items()}
    for spec, sites in together:
        for number, site in enumerate(sites, 1):
            spread[site]["rate"] = _times(spec["rate"], number / len(sites))
            if "schedule" in spec:
                schedule = from_document(spec["schedule"]).scaled(number / len(sites))
                spread[site] |= {"rate": schedule.peak, "schedule": schedule.document()}
    return spread
