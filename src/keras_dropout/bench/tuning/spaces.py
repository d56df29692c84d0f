"""Search spaces as text: the choices at each site. The text is the same on the command line, in study files and in Python.

    input=0:0.3, hidden=0:0.6 | linear(0:0.6, 0), last=Dropout|GaussianDropout(0:0.5:6)

Bars separate the choices of a site. A choice is written as in a placement, but a range LOW:HIGH or LOW:HIGH:COUNT may replace any
number. A range has COUNT equally spaced values including both ends; without COUNT it has 13, or every integer if both ends are
integers. Kinds joined by bars before one pair of parentheses share the arguments in it. Rate 0 means no dropout. A site that is
written twice has the choices of both; if two sites mean the same place, the later site wins.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keras_dropout import notation
from keras_dropout.bench.records import Variant
from keras_dropout.errors import refuse
from keras_dropout.schedules import spread_over_depth

# No dropout on the input is a separate choice: a range alone would hardly ever try it.
DEFAULT = {"input": ("0 | ", "0.05:0.3:6"), "hidden": ("", "0:0.6"), "last": ("", "0:0.6")}
COUNT = 13
MOST_POINTS = 10_000  # most points of a grid
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\s*:\s*({_NUMBER})(?:\s*:\s*(\d+))?")
_FIX = 'Write "hidden=0:0.6", "hidden=0:0.6:7" for seven rates, or "hidden=Kind(0:0.6) | linear(0:0.6, 0)".'


@dataclass(frozen=True)
class Range:
    """`count` equally spaced numbers from `low` to `high`."""

    low: float
    high: float
    count: int

    def __getitem__(self, index: int) -> float:
        value = self.low + (self.high - self.low) * index / (self.count - 1)
        return int(value) if isinstance(self.low, int) and value == int(value) else round(value, 10)


@dataclass(frozen=True)
class Choice:
    """A choice at a site: its text, and the ranges in the text."""

    text: str
    ranges: tuple[Range, ...]

    def at(self, indices: Any) -> str:
        """Return the text with each range replaced by its value at the given index."""
        values = iter([span[index] for span, index in zip(self.ranges, indices)])
        return _RANGE.sub(lambda _: repr(next(values)), self.text)


@dataclass(frozen=True)
class Space:
    """The choices of each site. `ask` draws one point of the space; `points` yields all."""

    sites: Mapping[str, tuple[Choice, ...]]

    def __str__(self) -> str:
        return ", ".join(f"{site}={' | '.join(choice.text for choice in choices)}" for site, choices in self.sites.items())

    @cached_property
    def size(self) -> int:
        """Number of points in the space."""
        return math.prod(sum(math.prod(span.count for span in c.ranges) for c in choices) for choices in self.sites.values())

    def ask(self, trial: Any) -> dict[str, str]:
        """Return the suggestion of an Optuna trial as a placement, with a text for each site."""
        placement = {}
        for site, choices in self.sites.items():
            texts = [choice.text for choice in choices]
            chosen = choices[texts.index(trial.suggest_categorical(site, texts))] if len(choices) > 1 else choices[0]
            indices = [trial.suggest_int(name, 0, span.count - 1) for name, span in _names(site, chosen)]
            placement[site] = chosen.at(indices)
        return placement

    first = ()  # no point has to be tried first

    def suggest(self, trial: Any, model: Any, name: str) -> Variant:
        """Return the suggestion of an Optuna trial, as a variant of a model."""
        return place(model, name, self.ask(trial))

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield all points as parameters of an Optuna trial, with the names that `ask` uses."""
        for parts in itertools.product(*(list(_points(site, choices)) for site, choices in self.sites.items())):
            yield {name: value for part in parts for name, value in part.items()}

    def check(self, model: Any) -> None:
        """Refuse choices that cannot be placed in the model."""
        for site, choices in self.sites.items():
            for choice in choices:
                for end in {0, -1} if choice.ranges else {0}:
                    place(model, "space", {site: choice.at([end % span.count for span in choice.ranges])})


def parse(space: str | Mapping[str, str]) -> Space:
    """Parse a space from its text, or from the texts of its choices by site; refuse a space without any choice."""
    if isinstance(space, str):
        places = [part.partition("=") for part in notation.split(space)]
    elif isinstance(space, Mapping) and all(isinstance(text, str) for text in space.values()):
        places = [(site, "=", text) for site, text in space.items()]
    else:
        refuse(f"a search space is a text, or texts by site; got {space!r}.", _FIX)
    sites: dict[str, tuple[Choice, ...]] = {}
    for site, equals, text in places:
        if not site.strip() or not text.strip():
            refuse(f"space: {(site + equals + text).strip()!r} is not SITE=LOW:HIGH.", _FIX)
        sites[site.strip()] = (*sites.get(site.strip(), ()), *_choices(text))
    for site, choices in sites.items():
        if len({choice.text for choice in choices}) < len(choices):
            refuse(f"space: {site} has the same choice twice.", "Leave one out.")
    found = Space(sites)
    if found.size < 2:
        refuse(f"the search space {str(found)!r} leaves no choice.", _FIX)
    return found


def default(model: Any, kinds: tuple[str, ...] = ("Dropout",)) -> Space:
    """Return the default space for a model: the groups of sites that it has, with the `kinds` that fit there."""
    from keras_dropout.models.placement import sites

    known = sites(model)
    fitting = {method for site in known if site.group in ("input", "hidden") for method in site.methods}
    for kind in kinds:
        if kind not in fitting:
            refuse(f"{kind} fits no site of the model.", f"These fit: {', '.join(sorted(fitting))}.")
    found = {}
    for group, (none, rates) in DEFAULT.items():
        here = [site for site in known if site.matches(group)]
        fit = [kind for kind in kinds if any(site.fits(kind) for site in here)]
        if fit and not (group == "last" and {site.name for site in here} == {s.name for s in known if s.matches("hidden")}):
            found[group] = none + (f"{'|'.join(fit)}({rates})" if fit != ["Dropout"] else rates)
    return parse(found)


def place(model: Any, name: str, placement: Mapping[str, Any]) -> Variant:
    """Return a variant with the placement's sites resolved, without sites where nothing is dropped."""
    from keras_dropout.models.placement import resolve

    resolved = spread_over_depth(resolve(model, Variant.of(name, placement).placement or {}))
    return Variant(name, {site: spec for site, spec in resolved.items() if spec.get("rate") != 0})


def _choices(text: str) -> list[Choice]:
    found: list[Choice] = []
    arguments = ""
    for part in reversed([part.strip() for part in notation.split(text, "|")]):
        if not part:
            refuse(f"space: {text.strip()!r} has an empty choice.", _FIX)
        if re.fullmatch(r"[A-Za-z_]\w*", part) and arguments:
            part += arguments
        arguments = part[part.index("(") :] if "(" in part else ""
        if ":" in _RANGE.sub("", part):
            refuse(f"space: cannot read the range in {part!r}.", _FIX)
        found.insert(0, Choice(part, tuple(_range(*match.groups()) for match in _RANGE.finditer(part))))
    return found


def _range(low: str, high: str, count: str | None) -> Range:
    whole = all(re.fullmatch(r"[-+]?\d+", end) for end in (low, high))
    ends = (int(low), int(high)) if whole else (float(low), float(high))
    text = f"{low}:{high}" + (f":{count}" if count else "")
    if not ends[0] < ends[1]:
        refuse(f"space: the range {text} must rise.", "Write the lower end first.")
    steps = int(count) if count else int(ends[1] - ends[0]) + 1 if whole else COUNT
    if steps < 2:
        refuse(f"space: the range {text} must have 2 values or more; got {count}.", "Write one value without a range.")
    return Range(ends[0], ends[1], steps)


def _names(site: str, choice: Choice) -> list[tuple[str, Range]]:
    """Return the Optuna parameters for a choice's ranges."""
    return [(f"{site}={choice.text} #{number}", span) for number, span in enumerate(choice.ranges, 1)]


def _points(site: str, choices: tuple[Choice, ...]) -> Iterator[dict[str, Any]]:
    for choice in choices:
        names = _names(site, choice)
        for indices in itertools.product(*(range(span.count) for _, span in names)):
            yield ({site: choice.text} if len(choices) > 1 else {}) | {name: i for (name, _), i in zip(names, indices)}
