"""Draw the network of a study: all units beside the units that one training step keeps, after Srivastava et al. 2014, figure 1.

Everything is drawn once. A CSS class marks dropped shapes, so `network.js` only changes classes and numbers.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from keras_dropout.characters import clean

_PITCH, _LEFT, _RIGHT = 108, 56, 60  # from column to column; from an edge of the picture to the nearest column
# Heights above and below the units.
_LABEL, _CAPTION = 40, 70
_COLUMNS, _IN_COLUMN = 8, 4  # columns drawn of a long model, layers drawn in a column of a wide model
_CIRCLES, _MAPS, _ROWS = 12, 6, 10
_SIDE = 88  # side of an image
_PIXELS, _ENTRIES = 32, 8  # an image with more pixels per side, or a map with more entries, is drawn as one shape


@dataclass
class _End:
    """The two ends for lines at the left and right of a unit; the unit consists of `count` shapes from `first` on."""

    left: float
    right: float
    y: float
    first: int
    count: int = 1


@dataclass
class _Layer:
    """A layer together with later layers that keep its units and only change their form."""

    nodes: list[int]
    facts: Mapping[str, Any]
    inputs: list[int] = field(default_factory=list)  # numbers of layers
    parameters: int = 0
    column: int = 0
    x: float = 0
    top: float = 0
    height: float = 0
    shapes: list[str] = field(default_factory=list)
    # A shape stands for `count` units: start, start + stride, …
    starts: list[int] = field(default_factory=list)
    stride: int = 1
    count: int = 1
    ends: list[_End] = field(default_factory=list)
    drawn: int = 0  # number of drawn units, rows or maps, out of `of`
    of: int = 0


def draw(network: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the values with which `network.html` shows the network from `portrait`; None if there is nothing to show.

        {"variants": [those with dropout], "full": SVG, "thinned": SVG | None, "width": of each, "steps": how many, "said": text,
         "tables": [{"variant", "seed", "sites": [text], "rows": [{"step", "epoch", "kept": [text]}]}]}

    The pictures show the first variant with dropout at its first step; `network.js` shows the others.
    """
    if not network or not network["nodes"]:
        return None
    layers, hidden = _layout(network["nodes"])
    names = list(network["steps"])
    first = names[0] if names else ""
    picture = _Picture(network, layers, hidden, first)
    return {
        "variants": names,
        "full": picture.svg(thinned=False),
        "thinned": picture.svg(thinned=True) if first else None,
        "width": picture.width,
        "steps": len(network["steps"][first]["steps"]) if first else 0,
        "said": _said(network, first, 0) if first else "",
        "tables": [_table(network, name) for name in names],
    }


def kept(site: Mapping[str, Any], mask: str | None) -> np.ndarray | None:
    """Unpack a mask into booleans of its shape."""
    if mask is None:
        return None
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(mask), "uint8"), count=math.prod(site["mask"]))
    return bits.astype(bool).reshape(site["mask"])


def _table(network: Mapping[str, Any], name: str) -> dict[str, Any]:
    sites, drawn = network["variants"][name], network["steps"][name]
    rows = []
    for step in drawn["steps"]:
        cells = [_count(kept(site, mask)) for site, mask in zip(sites, step["masks"])]
        for number, site in enumerate(sites):
            if site["schedule"]:
                cells[number] += f", rate {step['rates'][number]:.3g}"
        rows.append({"step": step["step"], "epoch": _epoch(drawn, step), "kept": cells})
    return {"variant": name, "seed": drawn["seed"], "sites": [_site(site) for site in sites], "rows": rows}


def _count(mask: np.ndarray | None) -> str:
    return "–" if mask is None else f"{int(mask.sum()):,} of {mask.size:,}"


def _epoch(drawn: Mapping[str, Any], step: Mapping[str, Any]) -> int:
    return (step["step"] - 1) // drawn["epoch_steps"] + 1


def _site(site: Mapping[str, Any]) -> str:
    rate = site["schedule"] or ("" if site["rate"] is None else f"{site['rate']:g}")
    return f"{site['site']}: {site['kind']} {rate}".strip()


def _said(network: Mapping[str, Any], name: str, number: int) -> str:
    """Describe a step in words."""
    drawn = network["steps"][name]
    step = drawn["steps"][number]
    return f"step {step['step']:,}, epoch {_epoch(drawn, step)}, seed {drawn['seed']}"


def _layout(nodes: Sequence[Mapping[str, Any]]) -> tuple[list[_Layer], dict[int, int]]:
    """Place the layers; return them, and how many are left out after each column."""
    users = Counter(number for node in nodes for number in set(node["inputs"]))
    layers: list[_Layer] = []
    layer_of: dict[int, int] = {}
    for number, node in enumerate(nodes):
        inputs = list(dict.fromkeys(layer_of[each] for each in node["inputs"]))
        same = (
            len(node["inputs"]) == 1
            and users[node["inputs"][0]] == 1
            and node["units"] is not None
            and node["units"] == nodes[node["inputs"][0]]["units"]
            and (node["parameters"] == 0 or node["kind"].endswith("Normalization"))
        )
        if same:
            layer_of[number] = inputs[0]
            layers[inputs[0]].nodes.append(number)
            continue
        layer_of[number] = len(layers)
        column = 1 + max((layers[each].column for each in inputs), default=-1)
        layers.append(_Layer([number], node, inputs, node["parameters"], column))
    columns = 1 + max(layer.column for layer in layers)
    half = _COLUMNS // 2
    shown = list(range(columns)) if columns <= _COLUMNS else [*range(half), *range(columns - half, columns)]
    by_column = {column: [layer for layer in layers if layer.column == column] for column in range(columns)}
    drawn = [layer for column in shown for layer in by_column[column][:_IN_COLUMN]]
    most = max(_Form.of(layer).wanted for layer in drawn)
    widest = max(min(len(by_column[column]), _IN_COLUMN) for column in shown)
    least = _LABEL + min(most, _SIDE) + _CAPTION
    alone = _LABEL + most + _CAPTION
    height, hidden = max(alone, widest * least), {}
    for place, column in enumerate(shown):
        gap = columns > _COLUMNS and place >= half  # one column stands for the layers that are left out
        some = by_column[column][:_IN_COLUMN]
        for number, layer in enumerate(some):
            layer.x = _LEFT + _PITCH * (place + gap)
            layer.height = min(height / len(some), alone)
            layer.top = (height - len(some) * layer.height) / 2 + number * layer.height
            _units(layer)
    if columns > _COLUMNS:
        hidden[half] = sum(len(by_column[column]) for column in range(columns) if column not in shown)
    return layers, hidden


@dataclass(frozen=True)
class _Form:
    """The drawing form of a layer's units: pixels for an image, squares for maps, strips for rows of steps, otherwise circles.

    There are `units` units with `places` in each; at most `most` are drawn, each of this height and width.
    """

    kind: str
    units: int
    places: tuple[int, ...]
    most: int
    height: float
    width: float

    @classmethod
    def of(cls, layer: _Layer) -> "_Form":
        shape = layer.facts["shape"]
        if None in shape or not shape:
            shape = [(shape or [1])[-1] or 1]
        *places, units = shape
        if layer.facts["kind"] == "Input" and _is_image(shape):
            return cls("image", 1, tuple(shape), 1, _SIDE, _SIDE)
        if not places:
            return cls("circle", units, (), _CIRCLES, 12, 12)
        if len(places) == 1:
            return cls("strip", units, (1, places[0]), _ROWS, 14, 64)
        return cls("square", units, tuple(places), _MAPS, 30, 30)

    @property
    def pitch(self) -> float:
        return self.height + 8

    @property
    def wanted(self) -> float:
        """Total height of the drawn units."""
        return min(self.units, self.most) * self.pitch


def _units(layer: _Layer) -> None:
    """Place the shapes of a layer's units in the middle of its area, as many as fit."""
    form, room = _Form.of(layer), layer.height - _LABEL - _CAPTION
    middle = layer.top + _LABEL + room / 2
    if form.kind == "image":
        _image(layer, form.places, min(_SIDE, room), middle)
        return
    chosen = _spread(form.units, max(1, min(form.most, int(room / form.pitch + 0.01))))
    cells = form.places
    whole = not cells or len(cells) > 2 or max(cells) > (_ENTRIES if form.kind == "square" else _PIXELS)
    layer.drawn, layer.of = len(chosen), form.units
    layer.stride, layer.count = (form.units, math.prod(cells)) if whole else (1, 1)
    width, height = form.width, form.height
    for number, unit in enumerate(chosen):
        y = middle + form.pitch * (number - (len(chosen) - 1) / 2)
        left, first = layer.x - width / 2, len(layer.shapes)
        if form.kind == "circle":
            layer.shapes.append(f'<circle cx="{_short(layer.x)}" cy="{_short(y)}" r="{height / 2:g}"/>')
            layer.starts.append(unit)
        elif whole:
            layer.shapes.append(_rect(left, y - height / 2, width, height, 1.5))
            layer.starts.append(unit)
        else:
            layer.shapes += _cells(left, y - height / 2, width / cells[1], height / cells[0], *cells)
            layer.starts += [place * form.units + unit for place in range(math.prod(cells))]
        layer.ends.append(_End(left, left + width, y, first, len(layer.shapes) - first))


def _is_image(shape: Sequence[int]) -> bool:
    if len(shape) == 3 and shape[-1] > 4:
        return False
    return len(shape) in (2, 3) and min(shape[:2]) >= 6 and max(shape[:2]) <= 2 * min(shape[:2])


def _image(layer: _Layer, shape: Sequence[int], side: float, middle: float) -> None:
    rows, columns, *channels = shape
    layer.count = channels[0] if channels else 1
    size = side / max(rows, columns)
    left, top = layer.x - size * columns / 2, middle - size * rows / 2
    if max(rows, columns) <= _PIXELS:
        layer.shapes = _cells(left, top, size, size, rows, columns)
        layer.starts = [place * layer.count for place in range(rows * columns)]
        picked = _spread(rows * columns, _CIRCLES)
    else:
        layer.shapes = [_rect(left, top, size * columns, size * rows, 2)]
        layer.starts, layer.count = [0], math.prod(shape)
        picked = [0]
    right = left + size * columns
    for pixel in picked:
        y = top + size * (pixel // columns + 0.5) if len(picked) > 1 else middle
        layer.ends.append(_End(left, right, y, pixel))


def _cells(left: float, top: float, width: float, height: float, rows: int, columns: int) -> list[str]:
    space = min(1.0, 0.18 * min(width, height))
    return [
        _rect(left + column * width, top + row * height, width - space, height - space)
        for row, column in itertools.product(range(rows), range(columns))
    ]


def _rect(x: float, y: float, width: float, height: float, corner: float = 0) -> str:
    rounded = f' rx="{corner:g}"' if corner else ""
    return f'<rect x="{_short(x)}" y="{_short(y)}" width="{_short(width)}" height="{_short(height)}"{rounded}/>'


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _spread(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` units at even distances, including the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


class _Picture:
    """A picture of one network with all units, or with the units that a step keeps."""

    def __init__(self, network: Mapping[str, Any], layers: list[_Layer], hidden: Mapping[int, int], first: str):
        self._network, self._layers, self._hidden, self._first = network, layers, hidden, first
        self._shown = [number for number, layer in enumerate(layers) if layer.height]
        ends = {layer.x for number, layer in enumerate(layers) if any(self._sites(name, number) for name in network["steps"])}
        last = max(layer.x for layer in layers)
        self.width = round(last + _RIGHT + (_PITCH / 2 if last in ends else 0))
        shown = {layers[number].column for number in self._shown}
        self._beside = Counter(layer.column for layer in layers if not layer.height and layer.column in shown)
        self._height = max(layer.top + layer.height for layer in layers) + (18 if self._beside else 0)

    def svg(self, thinned: bool) -> Markup:
        """Return the picture as the text of an `svg` element."""
        states = {number: self._states(number) for number in self._shown} if thinned else None
        parts = [
            *(part for number in self._shown for part in self._lines(number, states)),
            *(self._shapes(number, None if states is None else states[number]) for number in self._shown),
            *(self._caption(number, thinned) for number in self._shown),
            *self._gaps(),
        ]
        if not thinned:
            parts += [self._marks(name) for name in self._network["steps"]]
        alternative = self.words(thinned)
        return Markup(
            '<svg role="img" aria-label="{}" viewBox="0 0 {} {}" style="min-width: {}px; max-width: {}px"{}>{}{}</svg>'
        ).format(
            alternative,
            self.width,
            round(self._height),
            round(0.74 * self.width),
            round(1.2 * self.width),
            Markup(" data-thinned") if thinned else "",
            Markup(_CROSS) if thinned else "",
            Markup("\n").join(parts),
        )

    def words(self, thinned: bool) -> str:
        """Return the alternative text of the picture."""
        if thinned:
            counts = [f"{self._layers[n].facts['name']} {text}" for n in self._shown if (text := self._kept_text(n))]
            return f"The thinned network of {_said(self._network, self._first, 0)}: {'; '.join(counts) or 'no masks shown'}."
        described = [f"{each.facts['name']}, {each.facts['kind']}, {_size(each.facts['shape'])}" for each in self._layers]
        more = f"; and {len(described) - 20} more" if len(described) > 20 else ""
        return f"The network without dropout: {'; '.join(described[:20])}{more}."

    def _sites(self, variant: str, number: int) -> list[tuple[int, Mapping[str, Any]]]:
        """Return the dropout sites of a variant at a layer, each with its index among the variant's sites."""
        sites = self._network["variants"][variant]
        return [(place, site) for place, site in enumerate(sites) if site["node"] in self._layers[number].nodes]

    def _masks(self, number: int) -> list[np.ndarray]:
        """Return the masks of the first step at a layer."""
        step = self._network["steps"][self._first]["steps"][0]
        found = [kept(site, step["masks"][place]) for place, site in self._sites(self._first, number)]
        return [mask for mask in found if mask is not None]

    def _over_units(self, number: int) -> np.ndarray | None:
        """Return which of a layer's units the first step keeps."""
        shapes = {site["node"]: self._network["nodes"][site["node"]]["shape"] for _, site in self._sites(self._first, number)}
        step, found = self._network["steps"][self._first]["steps"][0], []
        for place, site in self._sites(self._first, number):
            if (mask := kept(site, step["masks"][place])) is not None:
                found.append(np.broadcast_to(mask, shapes[site["node"]]).ravel())
        return np.logical_and.reduce(found) if found else None

    def _kept_text(self, number: int) -> str:
        masks = self._masks(number)
        if not masks:
            return "mask not shown" if self._sites(self._first, number) else ""
        return f"{_count(masks[0] if len(masks) == 1 else self._over_units(number))} kept"

    def _states(self, number: int) -> list[str]:
        """Return for each shape of a layer "" if all its units are kept, "part" if some are dropped, "gone" if all are."""
        layer, over = self._layers[number], self._over_units(number)
        if over is None:
            return [""] * len(layer.shapes)
        shares = [over[start : start + layer.stride * layer.count : layer.stride].mean() for start in layer.starts]
        return ["" if share == 1 else "part" if share > 0 else "gone" for share in shares]

    def _shapes(self, number: int, states: Sequence[str] | None) -> Markup:
        layer = self._layers[number]
        cells = " cells" if len(layer.shapes) > len(layer.ends) else ""  # not units
        if states is None:
            return Markup('<g class="units{}">{}</g>').format(cells, Markup("".join(layer.shapes)))
        shapes = [shape.replace("/>", f' class="{state}"/>') if state else shape for shape, state in zip(layer.shapes, states)]
        facts = {
            "layer": number,
            "nodes": " ".join(map(str, layer.nodes)),
            "starts": " ".join(map(str, layer.starts)),
            "stride": layer.stride,
            "count": layer.count,
            "ends": " ".join(f"{end.first}:{end.count}" for end in layer.ends),
        }
        told = Markup(" ").join(Markup('data-{}="{}"').format(name, value) for name, value in facts.items())
        return Markup('<g class="units{}" {}>{}</g>').format(cells, told, Markup("".join(shapes)))

    def _lines(self, number: int, states: Mapping[int, Sequence[str]] | None) -> Iterable[Markup]:
        """Yield the lines that end at a layer: from each input unit to each of its units, or a single line over several columns."""
        layer = self._layers[number]
        for other in layer.inputs:
            source = self._layers[other]
            if not source.height:
                continue
            pairs = self._pairs(source, layer)
            if pairs is None:
                yield Markup('<path class="link" d="{}"/>').format(_bow(source, layer))
                continue
            lines = [
                f"M{_short(source.ends[a].right)} {_short(source.ends[a].y)}L{_short(layer.ends[b].left)} {_short(layer.ends[b].y)}"
                for a, b in pairs
            ]
            if states is None:
                yield Markup('<g class="lines"><path d="{}"/></g>').format("".join(lines))
                continue
            gone = [[_gone(end, states[n]) for end in self._layers[n].ends] for n in (other, number)]
            drawn = [
                f'<path d="{line}"' + (' class="gone"/>' if gone[0][a] or gone[1][b] else "/>")
                for line, (a, b) in zip(lines, pairs)
            ]
            each = Markup(" data-each") if len(pairs) < len(source.ends) * len(layer.ends) else ""
            yield Markup('<g class="lines" data-from="{}" data-to="{}"{}>{}</g>').format(
                other, number, each, Markup("".join(drawn))
            )

    def _pairs(self, source: _Layer, layer: _Layer) -> list[tuple[int, int]] | None:
        if round((layer.x - source.x) / _PITCH) != 1 or not source.ends or not layer.ends:
            return None
        if layer.parameters:
            return list(itertools.product(range(len(source.ends)), range(len(layer.ends))))
        if len(source.ends) == len(layer.ends) and source.of == layer.of:
            return [(n, n) for n in range(len(layer.ends))]
        return None

    def _caption(self, number: int, thinned: bool) -> Markup:
        layer = self._layers[number]
        y, facts = layer.top + layer.height - _CAPTION + 26, layer.facts
        lines = [_text(layer.x, y + 8, facts["name"], "name", 16), _text(layer.x, y + 22, facts["kind"], "muted", 17)]
        if layer.of > layer.drawn:
            lines.append(_text(layer.x, y - 9, f"… {layer.of - layer.drawn:,} more", "muted"))
        size = _size(facts["shape"])
        if not thinned:
            return Markup("").join([*lines, _text(layer.x, y + 36, size, "muted")])
        count = Markup('<text x="{:g}" y="{:g}" class="{}" data-kept="{}" data-size="{}">{}</text>')
        text = self._kept_text(number)
        return Markup("").join([*lines, count.format(layer.x, y + 36, "" if text else "muted", number, size, text or size)])

    def _marks(self, variant: str) -> Markup:
        """Mark where a variant drops: a dashed line behind the layer, with method and rate."""
        rates, parts = self._network["steps"][variant]["steps"][0]["rates"], []
        for number in self._shown:
            sites, layer = self._sites(variant, number), self._layers[number]
            if not sites:
                continue
            x, top = layer.x + _PITCH / 2, layer.top
            place, site = sites[0]
            more = f" +{len(sites) - 1}" if len(sites) > 1 else ""
            bottom = top + layer.height - _CAPTION + 14
            line = Markup('<path d="M{:g} {:g}V{:g}"/>').format(x, top + 36, bottom)
            rate = "" if rates[place] is None else f"rate {rates[place]:.3g}"
            parts.append(
                Markup('<g><title>{}</title>{}{}<text x="{:g}" y="{:g}" data-rate="{}">{}</text></g>').format(
                    "; ".join(_site(each) for _, each in sites), line, _text(x, top + 14, site["kind"], "", 17 - len(more), more),
                    x, top + 29, place, rate,
                )
            )  # fmt: skip
        hidden = "" if variant == self._first else Markup(" hidden")
        return Markup('<g class="marks" data-variant="{}"{}>{}</g>').format(variant, hidden, Markup("").join(parts))

    def _gaps(self) -> Iterable[Markup]:
        for place, count in self._hidden.items():
            x, y = _LEFT + _PITCH * place, (self._height - 18 * bool(self._beside) + _LABEL - _CAPTION) / 2
            yield _text(x, y, "⋯", "gap") + _text(x, y + 20, f"{count} more layers", "muted")
        x_of = {self._layers[number].column: self._layers[number].x for number in self._shown}
        for column, count in self._beside.items():
            yield _text(x_of[column], self._height - 6, f"and {count} more beside", "muted")


def _gone(end: _End, states: Sequence[str]) -> bool:
    return all(state == "gone" for state in states[end.first : end.first + end.count])


def _bow(source: _Layer, layer: _Layer) -> str:
    """Return a line around the layers between two layers."""
    x1 = max((end.right for end in source.ends), default=source.x)
    x2 = min((end.left for end in layer.ends), default=layer.x)
    y1, y2 = (each.top + (_LABEL + each.height - _CAPTION) / 2 for each in (source, layer))
    if round((layer.x - source.x) / _PITCH) == 1:
        return f"M{x1:g} {y1:g}L{x2:g} {y2:g}"
    # Above the units, or below if the line comes from below.
    above = y1 <= y2 + 1
    high = layer.top + _LABEL - 6 if above else min(each.top + each.height for each in (source, layer)) - _CAPTION + 2
    turn = _PITCH * 0.3
    begin = f"M{x1:g} {y1:g}C{x1 + turn:g} {y1:g} {x1:g} {high:g} {x1 + turn:g} {high:g}"
    return begin + f"H{x2 - turn:g}C{x2:g} {high:g} {x2 - turn:g} {y2:g} {x2:g} {y2:g}"


def _size(shape: Sequence[int | None]) -> str:
    text = " × ".join("?" if size is None else f"{size:,}" for size in shape) or "1"
    return f"{text} unit{'' if text == '1' else 's'}" if len(shape) <= 1 else text


def _text(x: float, y: float, text: str, kind: str, most: int = 99, more: str = "") -> Markup:
    text = clean(text)  # before it is cut
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    title = "" if short == text else Markup("<title>{}</title>").format(text)
    return Markup('<text x="{:g}" y="{:g}" class="{}">{}{}{}</text>').format(x, y, kind, title, short, more)


_CROSS = (
    '<defs><pattern id="network-cross" width="1" height="1" patternContentUnits="objectBoundingBox">'
    '<path d="M.2 .2L.8 .8M.8 .2L.2 .8" stroke="currentColor" stroke-width=".08" opacity=".45"/></pattern></defs>'
)
