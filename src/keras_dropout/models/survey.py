"""Where dropout is in a model and where it could go: its sites, and the methods that fit there."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import keras
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout.display import Shown
from keras_dropout.models import fitting, kinds, stacks
from keras_dropout.models.dropping import inner_layer, own_dropout, passes, rate_of
from keras_dropout.models.graph import Call, Graph

GROUPS = ("input", "hidden", "last", "all")
# A site is behind these layers: dropping the input of an activation or a normalisation is another method.
_PART_OF_LAYER = (*kinds.ACTIVATIONS, *kinds.NORMALISATIONS)


@dataclass(frozen=True)
class Site:
    """A place where dropout is or can be put: an input, behind what prepares it, or a layer with weights, behind its activation.

    `name` includes the names of nested models ("encoder/dense"). `kind` is the layer's class. `group` is "input", "hidden",
    "output", "normalisation" for one that follows no layer with weights, "inside" for a layer inside another layer, or "draws" for
    a seed in a layer of an unknown class: what it draws is only seen when it runs, and no dropout can be set there. `last` marks
    the hidden sites that feed an output layer. `shape` is without the batch. `behind` are the activations and normalisations in
    front of the dropout. `dropout` is the existing dropout: {"layer", "kind", "rate"}. `methods` are the methods of the catalogue
    that fit, found on first use.
    """

    name: str
    kind: str
    group: str
    last: bool
    shape: tuple
    dtype: str
    parameters: int
    behind: tuple[str, ...]
    dropout: tuple[Mapping[str, Any], ...]
    _fits: fitting.Fits = field(repr=False, compare=False)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        return tuple(filter(self.fits, self._fits))

    def fits(self, method: str) -> bool:
        """Return whether a method of the catalogue fits."""
        return method in self._fits and self._fits[method]()

    def matches(self, pattern: str) -> bool:
        """Return whether `pattern` names this site: a group, a class of layers, a name or a glob.

        Only a name names an output; only a name or a class names a normalisation.
        """
        if pattern == "last":
            return self.last
        if pattern in GROUPS:
            return self.group in (("input", "hidden") if pattern == "all" else (pattern,))
        if pattern == self.name:
            return True
        if self.group == "draws":
            return pattern == self.name.rpartition("/")[0]
        if self.group == "normalisation":
            return pattern == self.kind
        return self.group != "output" and (pattern == self.kind or fnmatch.fnmatchcase(self.name, pattern))

    def document(self) -> dict[str, Any]:
        """Return the site as plain values."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.compare} | {"methods": self.methods}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_fits": dict.fromkeys(self.methods, fitting.always)}  # without the layers that the functions hold


class Sites(Shown, list[Site]):
    """The sites of a model: a list that is shown as a table."""

    def __rich__(self) -> Group:
        """Return a tree, with the sites of a nested model indented below its name; then the methods that fit where."""
        table = Table()
        for name in ("site", "layer", "group", "shape", "parameters", "dropout", "fits"):
            table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
        fits = {methods: number for number, methods in enumerate(dict.fromkeys(site.methods for site in self), 1)}
        above: list[str] = []
        for site in self:
            *models, name = site.name.split("/")
            for depth, model in enumerate(models):
                if above[: depth + 1] != models[: depth + 1]:
                    table.add_row(Text(f"{'  ' * depth}{model}/", style="bold"))
            above = models
            dropout = ", ".join(d["kind"] + ("" if d["rate"] is None else f" {d['rate']:g}") for d in site.dropout)
            group = {"draws": "draws: only seen when it runs"}.get(site.group, "hidden, last" if site.last else site.group)
            shape = " x ".join("?" if size is None else str(size) for size in site.shape)
            cells = (f"{'  ' * len(models)}{name}", site.kind, group, shape, f"{site.parameters:,}", dropout)
            table.add_row(*map(Text, cells), str(fits[site.methods]))
        return Group(table, *(Text(f"fits {number}: {', '.join(methods) or 'none'}") for methods, number in fits.items()))


@dataclass(frozen=True)
class Place:
    """A site with the calls of its layer (none for an input), and the calls behind which dropout is put.

    `behind_input` says that dropout is also put directly behind the input; `output` that a call of the layer is an output; `unused`
    that nothing uses the layer's output, for example because only its states are used.
    """

    site: Site
    calls: tuple[Call, ...] = field(default=())
    behind: tuple[Call, ...] = field(default=())
    behind_input: bool = False
    output: bool = False
    unused: bool = False


def mask_calls(read: Graph) -> set[Call]:
    """Return the calls that only help to make a padding mask, or another boolean."""
    found: set[Call] = set()
    for call in reversed(read.calls):
        users = read.after(call)
        only = users and found.issuperset(users) and not set(call.outputs) & set(read.outputs)
        if not getattr(call.layer, "weights", ()) and (call.dtype == "bool" or only):
            found.add(call)
    return found


def makes_mask(call: Call) -> bool:
    """Return whether a layer without weights, such as Masking, computes a padding mask from its input."""
    if not isinstance(call.layer, keras.Layer) or call.layer.weights:
        return False
    before, behind = ([getattr(t, "_keras_mask", None) for t in ts] for ts in (call.node.input_tensors, call.node.outputs))
    return all(mask is None for mask in before) and any(mask is not None for mask in behind)


def survey(read: Graph) -> list[Place]:
    """Return the sites of a graph with their calls, in the order of the data."""
    return _Survey(read).places()


class _Survey:
    """A graph without its dropout layers, whose outputs are replaced by their inputs, and without the calls that make masks."""

    def __init__(self, read: Graph):
        self._read = read
        same: dict[int, int] = {}
        for call in read.calls:
            if passes(call):
                same[call.outputs[0]] = same.get(call.inputs[0], call.inputs[0])
        self._given_out = {same.get(tensor, tensor) for tensor in read.outputs}
        masks = mask_calls(read)  # they get what has not been dropped
        self._calls = [call for call in read.calls if not passes(call) and call not in masks]
        self._users: dict[int, list[Call]] = {}
        self._by_layer: dict[int, list[Call]] = {}  # a shared layer has several calls
        for call in self._calls:
            self._by_layer.setdefault(id(call.layer), []).append(call)
            for tensor in dict.fromkeys(same.get(tensor, tensor) for tensor in call.inputs):
                self._users.setdefault(tensor, []).append(call)
        self._weighted = {call for call in self._calls if is_site(call.layer)}
        self._next = {call: self._next_weights(call) for call in self._weighted}
        self._outputs = {call for call in self._weighted if not self._next[call]}
        self._output_nodes = {id(call.node) for call in self._outputs}  # a nested model has the same nodes at each of its calls

    def places(self) -> list[Place]:
        found = [self._of_input(*each) for each in self._read.inputs]
        seen: set[int] = set()
        absorbed: set[int] = set()
        for call in self._calls:
            normalises = isinstance(call.layer, kinds.NORMALISATIONS) and call.layer.weights and id(call.layer) not in absorbed
            if id(call.layer) in seen or not (call in self._weighted or normalises):
                continue
            seen.add(id(call.layer))
            found.append(self._of_layer(call, bool(normalises)))
            for each in self._by_layer[id(call.layer)]:
                absorbed |= {id(c.layer) for way in self._ends_of(each) for c in way}
        return found

    def _of_input(self, name: str, tensor: int, shape: tuple, dtype: str) -> Place:
        ways = self._ends([tensor], _prepares_in, None)
        end = next((way[-1] for way in ways if way), None)
        shape, dtype = (end.shape, end.dtype) if end else (shape, dtype)
        fits = fitting.at_input(shape, dtype, self._after([way[-1].outputs[0] if way else tensor for way in ways]))
        behind = tuple(dict.fromkeys(call.path for way in ways for call in way))
        site = Site(name, "Input", "input", False, shape, dtype, 0, behind, _unique(self._dropped(tensor, set())), fits)
        return Place(site, (), tuple(way[-1] for way in ways if way), behind_input=() in ways)

    def _of_layer(self, first: Call, normalises: bool) -> Place:
        own = tuple(self._by_layer[id(first.layer)])
        # If a layer is also called for an output, as a tied embedding is, the site is only the other calls.
        hidden = tuple(call for call in own if id(call.node) not in self._output_nodes)
        used = own if normalises else hidden or own
        group = "normalisation" if normalises else "hidden" if hidden else "output"
        ways = [(call, way) for call in used for way in self._ends_of(call)]
        behind = tuple((call, *way)[-1] for call, way in ways)
        found = [*own_dropout(first), *(d for call in own for d in self._dropped(call.outputs[0], set()))]
        inner = inner_layer(first.layer)
        mixed = not normalises and len(hidden) not in (0, len(own))
        to_fit = [(call, end, self._uses(end)) for (call, _), end in zip(ways, behind)]
        site = Site(
            first.path.removesuffix(first.layer.name) + inner.name,
            type(inner).__name__,
            group,
            group == "hidden" and any(self._next[call] & self._outputs for call in used),
            behind[0].shape,
            behind[0].dtype,
            inner.count_params() if inner.built else 0,
            tuple(dict.fromkeys(call.path for _, way in ways for call in way)),
            _unique(found),
            {**fitting.at_layer(inner, to_fit, around=not mixed), **self._of_stack(own, group)},
        )
        return Place(site, own, behind, output=group == "output" or mixed, unused=all(users is None for *_, users in to_fit))

    def _of_stack(self, own: tuple[Call, ...], group: str) -> fitting.Fits:
        if group != "hidden" or len(own) != 1 or not stacks.following(self._read, own[0]):
            return {}
        return {stacks.KIND: fitting.always}

    def _uses(self, call: Call) -> list[Call] | None:
        """Return the calls that use a call's output, not its states; None if nothing does and it is no output of the model."""
        users = self._after(call.outputs[:1])
        return users if users or call.outputs[0] in self._given_out else None

    def _after(self, tensors: Iterable[int]) -> list[Call]:
        return [user for tensor in tensors for user in self._users.get(tensor, ())]

    def _ends_of(self, call: Call) -> list[tuple[Call, ...]]:
        return self._ends(call.outputs, lambda behind: isinstance(behind.layer, _PART_OF_LAYER), call.model)

    def _ends(self, tensors: Iterable[int], belongs: Any, model: Any, behind: tuple[Call, ...] = ()) -> list[tuple[Call, ...]]:
        """Return the ways from an input or a call, of this model, to where dropout is put: the calls on each.

        A way goes through a call that `belongs` accepts, if nothing else uses the tensor, and through what makes padding masks.
        """
        following, here = self._after(tensors), behind[-1].model if behind else model
        makers = [call for call in following if makes_mask(call) and model in (None, call.model)]
        if len(following) == 1 and belongs(following[0]) and here in (None, following[0].model):
            makers = following
        rest = [] if makers and len(makers) == len(following) else [behind]
        return [*rest, *(way for call in makers for way in self._ends(call.outputs, belongs, model, (*behind, call)))]

    def _next_weights(self, call: Call) -> set[Call]:
        """Return the next calls with weights on every way to an output."""
        ways, seen = self._after(call.outputs), set()
        while ways:
            user = ways.pop()
            if user not in seen and user not in self._weighted:
                ways += self._after(user.outputs)
            seen.add(user)
        return seen & self._weighted

    def _dropped(self, tensor: int, seen: set[Call]) -> Iterable[dict[str, Any]]:
        """Yield the dropout of a tensor, in dropout layers directly behind it or behind layers without weights."""
        for user in self._read.users.get(tensor, ()):
            if user in seen:
                continue
            seen.add(user)
            if passes(user):
                yield {"layer": user.path, "kind": type(user.layer).__name__, "rate": rate_of(user.layer)}
            if user not in self._weighted:
                for output in user.outputs:
                    yield from self._dropped(output, seen)


def is_site(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ())) and not isinstance(layer, _PART_OF_LAYER) and not kinds.is_preprocessing(type(layer))


def _prepares_in(call: Call) -> bool:
    """Return whether a call prepares its input: a preprocessing layer, one that reads its mask, or arithmetic with numbers."""
    if kinds.is_preprocessing(type(call.layer)) or makes_mask(call):
        return True
    before = call.node.input_tensors
    return type(call.layer).__name__ in kinds.ARITHMETIC and not isinstance(call.layer, keras.Layer) and len(before) == 1


def _unique(found: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({(each["layer"], each["kind"]): each for each in found}.values())
