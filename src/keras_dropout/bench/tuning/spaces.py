"""Search spaces: what may stand at each site, as text. The same on the command line, in study files and in Python.

    input=0:0.3, hidden=0:0.6 | linear(0:0.6, 0), last=Dropout|GaussianDropout(0:0.5:6)

A site has choices between bars. A choice is what a placement may have there, with a range LOW:HIGH or LOW:HIGH:COUNT in place of
any of its numbers. A range has COUNT values at equal distances, both ends among them: 13 where no count is written, or each whole
number where both ends are whole. Kinds that are joined by bars before one pair of parentheses share what stands in it. Rate 0 is
no dropout. A site that is written twice has the choices of both; a later site wins where two mean the same place.
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

# Whether the input has any is a choice of its own: a range alone would hardly ever try none.
DEFAULT = {"input": ("0 | ", "0.05:0.3:6"), "hidden": ("", "0:0.6"), "last": ("", "0:0.6")}
COUNT = 13
MOST_POINTS = 10_000  # of a grid
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\s*:\s*({_NUMBER})(?:\s*:\s*(\d+))?")
_FIX = 'Write "hidden=0:0.6", "hidden=0:0.6:7" for seven rates, or "hidden=Kind(0:0.6) | linear(0:0.6, 0)".'


@dataclass(frozen=True)
class Range:
    """`count` numbers from `low` to `high` at equal distances."""

    low: float
    high: float
    count: int

    def __getitem__(self, index: int) -> float:
        value = self.low + (self.high - self.low) * index / (self.count - 1)
        return int(value) if isinstance(self.low, int) and value == int(value) else round(value, 10)


@dataclass(frozen=True)
class Choice:
    """What may stand at a site: its text, and the ranges in it."""

    text: str
    ranges: tuple[Range, ...]

    def at(self, indices: Any) -> str:
        """The text with the values that these indices mean in place of the ranges."""
        values = iter([span[index] for span, index in zip(self.ranges, indices)])
        return _RANGE.sub(lambda _: repr(next(values)), self.text)


@dataclass(frozen=True)
class Space:
    """The choices of each site. `ask` draws one point of it; `points` are all of them."""

    sites: Mapping[str, tuple[Choice, ...]]

    def __str__(self) -> str:
        return ", ".join(f"{site}={' | '.join(choice.text for choice in choices)}" for site, choices in self.sites.items())

    @cached_property
    def size(self) -> int:
        """How many points it has."""
        return math.prod(sum(math.prod(span.count for span in c.ranges) for c in choices) for choices in self.sites.values())

    def ask(self, trial: Any) -> dict[str, str]:
        """What an Optuna trial suggests, as a placement of texts by site."""
        placement = {}
        for site, choices in self.sites.items():
            texts = [choice.text for choice in choices]
            chosen = choices[texts.index(trial.suggest_categorical(site, texts))] if len(choices) > 1 else choices[0]
            indices = [trial.suggest_int(name, 0, span.count - 1) for name, span in _names(site, chosen)]
            placement[site] = chosen.at(indices)
        return placement

    def points(self) -> Iterator[dict[str, Any]]:
        """All points, as the parameters that `ask` asks an Optuna trial for."""
        for parts in itertools.product(*(list(_points(site, choices)) for site, choices in self.sites.items())):
            yield {name: value for part in parts for name, value in part.items()}

    def check(self, model: Any) -> None:
        """Refuse what cannot be placed in the model."""
        for site, choices in self.sites.items():
            for choice in choices:
                for end in {0, -1} if choice.ranges else {0}:
                    place(model, "space", {site: choice.at([end % span.count for span in choice.ranges])})


def parse(space: str | Mapping[str, str]) -> Space:
    """A space from its text, or from the texts of its choices by site. One that leaves no choice is refused."""
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
    """The space for a model where none is given: the groups of sites that it has, and those of `kinds` that fit there."""
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
    """A variant with a placement's sites resolved, without those where nothing is dropped."""
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
    """The parameters that stand for a choice's ranges."""
    return [(f"{site}={choice.text} #{number}", span) for number, span in enumerate(choice.ranges, 1)]


def _points(site: str, choices: tuple[Choice, ...]) -> Iterator[dict[str, Any]]:
    for choice in choices:
        names = _names(site, choice)
        for indices in itertools.product(*(range(span.count) for _, span in names)):
            yield ({site: choice.text} if len(choices) > 1 else {}) | {name: i for (name, _), i in zip(names, indices)}
