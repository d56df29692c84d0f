"""A network trained with dropout as the average of its thinned networks: how many there are, and how good their average is.

Averages are of probabilities. The arithmetic mean is sum_m w_m p_m over the networks m with weights w_m. The geometric mean is
prod_m p_m^w_m divided by its sum over the classes. Weight scaling is the network with dropout off.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import keras
import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy.special import gammaln, softmax

from keras_dropout import backends
from keras_dropout.display import Shown
from keras_dropout.errors import BadInput, check_whole, first_line, refuse
from keras_dropout.layers import AlphaDropout
from keras_dropout.masks import LEVELS
from keras_dropout.models import graph
from keras_dropout.sampling import Passes, as_trained, check_examples, contains_dropout, shared_states
from keras_dropout.thinning import is_mask, mask_shape

SMALL = 1e-7  # Keras clips probabilities at this before it takes their logarithm
MOST_DECISIONS = 16  # in a network whose thinned networks are enumerated
_TERMS = 10**7  # in the sum for the expected number of different networks
_BLOCK = 100  # networks whose outputs are in memory at once
_ROWS = 2**14  # rows in one pass when all networks are enumerated


@dataclass(frozen=True)
class Units:
    """One call of a dropout layer: its independent decisions for an example, and the actual rate of its masks (n / 2**24)."""

    layer: str
    kind: str
    rate: float
    decisions: int


@dataclass(frozen=True, repr=False)
class Networks(Shown):
    """The thinned networks of a model: `count` = 2**decisions, from the layers whose rate is neither 0 nor 1."""

    layers: tuple[Units, ...]

    def __rich__(self) -> Text:
        return describe(self, None)

    @property
    def decisions(self) -> int:
        return sum(each.decisions for each in self.layers if 0 < each.rate < 1)

    @property
    def count(self) -> int:
        return 2**self.decisions

    @property
    def log_coincidence(self) -> float:
        """log of the probability that two draws give the same network: the sum of log(rate² + (1 - rate)²) over the decisions."""
        return math.fsum(each.decisions * math.log(each.rate**2 + (1 - each.rate) ** 2) for each in self.layers)

    @property
    def coincidence(self) -> float:
        """The probability that two draws give the same network; 0 where it is below the smallest float."""
        return math.exp(self.log_coincidence)

    def visited(self, draws: int) -> "Visited":
        """Return how many different networks to expect among `draws` independent draws.

        Training on as many examples makes as many draws: each example in each step has its own network.

        The number is the sum over the networks m of 1 - (1 - p_m)^draws. Networks with the same number of dropped units at each
        rate have the same p_m, so few terms are enough. If there are still too many, the result is only the bounds
        draws - draws (draws - 1) / 2 * coincidence and min(draws, count).
        """
        check_whole("draws", draws, 1, "It is the number of examples times the number of epochs.")
        pairs = math.exp(min(math.log(draws) + math.log(max(draws - 1, 1)) - math.log(2) + self.log_coincidence, 700))
        lower = max(1.0, draws - pairs) if draws > 1 else 1.0
        upper = float(min(draws, self.count))
        sizes: dict[float, int] = {}
        for each in self.layers:
            if 0 < each.rate < 1:
                sizes[each.rate] = sizes.get(each.rate, 0) + each.decisions
        if math.prod(size + 1 for size in sizes.values()) > _TERMS:
            return Visited(draws, None, lower, upper)
        log_number, log_p = np.zeros(1), np.zeros(1)  # for each kind of network: log of their number, log of the probability of one
        for rate, size in sizes.items():
            dropped = np.arange(size + 1)
            ways = gammaln(size + 1) - gammaln(dropped + 1) - gammaln(size - dropped + 1)
            log_number = np.add.outer(log_number, ways).ravel()
            log_p = np.add.outer(log_p, dropped * math.log(rate) + (size - dropped) * math.log1p(-rate)).ravel()
        p = np.exp(log_p)
        with np.errstate(divide="ignore"):  # p is 1 where there is one network only
            seen = np.where(p > 1e-300, np.log(-np.expm1(draws * np.log1p(-p))), math.log(draws) + log_p)
        return Visited(draws, float(min(math.fsum(np.exp(log_number + seen)), upper)), lower, upper)

    def document(self) -> dict[str, Any]:
        """Return plain values; the number of networks is None if a program may not read it exactly."""
        return {
            "layers": [asdict(each) for each in self.layers],
            "decisions": self.decisions,
            "log2_networks": self.decisions,
            "networks": self.count if self.decisions <= 53 else None,
            "coincidence": self.coincidence,
        }


@dataclass(frozen=True)
class Visited:
    """The number of different networks among `draws`: its expectation (None if the sum is too long) and its bounds."""

    draws: int
    expected: float | None
    lower: float
    upper: float


@graph.leaves_unchanged
def networks(model: keras.Model) -> Networks:
    """Count the independent keep-or-drop decisions for an example in a model, call by call of its dropout layers.

    Refused are decisions that are not independent or not for units of the input (blocks, wrappers), and noise without a mask.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    >>> networks(model).count, networks(model).coincidence
    (16, 0.0625)
    """
    found = []
    model = as_trained(model)
    for call, layer, shape in _dropout_calls(model, graph.read(model), also=(AlphaDropout,)):
        rate = round(float(np.float32(layer.rate)) * LEVELS) / LEVELS
        found.append(Units(call.path, type(call.layer).__name__, rate, math.prod(shape)))
    return Networks(tuple(found))


@dataclass(frozen=True)
class Exact:
    """The averages over all thinned networks, each of shape (examples, classes), and the network with dropout off."""

    networks: int
    arithmetic: np.ndarray
    geometric: np.ndarray
    scaled: np.ndarray


@graph.leaves_unchanged
def exact_average(model: keras.Model, x: Any, *, logits: bool = False) -> Exact:
    """Return the averages over all 2**n thinned networks of a model with at most 16 decisions, weighted by their probabilities.

    For one layer of softmax (or logistic) units after dropout of its inputs, `geometric` and `scaled` are equal (Baldi and
    Sadowski 2013): up to normalisation, the logarithms of the probabilities are linear in the mask. The output must be a
    softmax over classes, one sigmoid unit, or with `logits` the input of one of these; a sigmoid unit gives the classes 0 and 1.
    """
    model = as_trained(model)
    thinned = networks(model)
    if thinned.decisions > MOST_DECISIONS:
        refuse(
            f"the model has 2**{thinned.decisions} thinned networks; at most 2**{MOST_DECISIONS} are enumerated.",
            "Use average(model, x, y): it samples them.",
        )
    read = graph.read(model)
    calls = _dropout_calls(model, read)
    output = read.output(model.name)
    inputs = check_examples([(name, shape, dtype) for name, _, shape, dtype in read.inputs], x)
    dropped = {id(call): number for number, (call, *_) in enumerate(calls)}

    def masked(values: list, masks: list) -> Any:
        known = dict(enumerate(values))
        for call in read.calls:
            layer = _times(masks[dropped[id(call)]]) if id(call) in dropped else _at_prediction(call.layer)
            graph.run([replace(call, layer=layer)], known)
        return keras.ops.cast(known[output], "float32")

    program = backends.current().compiled(masked)
    examples = len(inputs[0])
    together = max(1, _ROWS // examples)

    def outputs(masks: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities (networks, examples, classes) with these masks, (networks, …) for each dropout call."""
        count = len(masks[0])
        rows = [keras.ops.convert_to_tensor(np.tile(each, (count, *[1] * (each.ndim - 1)))) for each in inputs]
        found = program(rows, [keras.ops.convert_to_tensor(np.repeat(mask, examples, axis=0)) for mask in masks])
        least = float(np.finfo("float32").tiny)
        return _probabilities(keras.ops.convert_to_numpy(found).reshape(count, examples, -1), logits, least)

    shapes, rates = [shape for *_, shape in calls], [each.rate for each in thinned.layers]
    (scaled,) = outputs([np.ones((1, *shape[1:]), "float32") for shape in shapes])
    arithmetic, geometric = np.zeros(scaled.shape), np.zeros(scaled.shape)
    for first in range(0, thinned.count, together):
        numbers = np.arange(first, min(first + together, thinned.count))
        masks, log_weight, bit = [], np.zeros(len(numbers)), 0
        for rate, shape in zip(rates, shapes):
            size = math.prod(shape)
            kept = np.full((len(numbers), size), rate < 1)
            if 0 < rate < 1:
                kept = (numbers[:, None] >> (bit + np.arange(size))) & 1 == 1
                bit += size
                log_weight += np.where(kept, math.log1p(-rate), math.log(rate)).sum(axis=1)
            masks.append((kept / (1 - rate if rate < 1 else 1)).astype("float32").reshape(len(numbers), *shape[1:]))
        found, weight = outputs(masks), np.exp(log_weight)[:, None, None]
        arithmetic += (weight * found).sum(axis=0)
        geometric += (weight * np.log(found)).sum(axis=0)
    return Exact(thinned.count, arithmetic, softmax(geometric, axis=-1), scaled)


@dataclass(frozen=True)
class Score:
    """Error (a fraction) and NLL (nats) of the average of `networks` networks: the mean over `groups` disjoint groups of that size,
    and the standard deviation over the groups if there are several. `members_nll` is the mean NLL of their single networks."""

    networks: int
    groups: int
    error: float
    error_sd: float | None
    nll: float
    nll_sd: float | None
    members_nll: float
    geometric_error: float
    geometric_error_sd: float | None
    geometric_nll: float
    geometric_nll_sd: float | None


@dataclass(frozen=True, repr=False)
class Average(Shown):
    """Error and NLL of averages of ever more thinned networks on labelled examples, compared with weight scaling."""

    model: str
    examples: int
    classes: int
    samples: int
    seed: int
    masks: str
    scaled_error: float
    scaled_nll: float
    scores: tuple[Score, ...]
    networks: Networks | None
    visited: Visited | None = None
    notes: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """Return everything as plain values, as `--json` prints them. Numbers that do not exist are None."""
        return {
            **{name: getattr(self, name) for name in ("model", "examples", "classes", "samples", "seed", "masks")},
            "weight_scaling": {"error": self.scaled_error, "nll": self.scaled_nll},
            "averages": [asdict(score) for score in self.scores],
            "networks": self.networks and self.networks.document(),
            "visited": self.visited and asdict(self.visited),
            "notes": list(self.notes),
        }

    def __rich__(self) -> Group:
        title = Text(f"{self.model}: averages of thinned networks on {self.examples:,} examples")
        table = Table(title=title, title_justify="left")
        for name in ("networks", "groups", "error", "NLL", "error, geometric", "NLL, geometric"):
            table.add_column(name, justify="right")
        for score in self.scores:
            cells = (
                _mean_and_sd(score.error, score.error_sd, percent=True),
                _mean_and_sd(score.nll, score.nll_sd),
                _mean_and_sd(score.geometric_error, score.geometric_error_sd, percent=True),
                _mean_and_sd(score.geometric_nll, score.geometric_nll_sd),
            )
            table.add_row(f"{score.networks:,}", str(score.groups), *cells)
        table.add_section()
        scaled = _mean_and_sd(self.scaled_error, None, percent=True), _mean_and_sd(self.scaled_nll, None)
        table.add_row("weight scaling", "", *scaled, "", "")
        return Group(
            *([describe(self.networks, self.visited)] if self.networks else []),
            table,
            *(Text(f"! {note}", style="yellow") for note in self.notes),
        )


@graph.leaves_unchanged
def average(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    samples: int = 100,
    seed: int = 0,
    masks: str = "shared",
    logits: bool = False,
    say: Callable[..., None] = lambda *_: None,
) -> Average:
    """Measure the error and NLL of averages of ever more thinned networks (1, 3, 10, 30, 100, …), and of dropout off.

    `x` and `y` are labelled examples that were not trained on; y holds class numbers or is one-hot. The output must be a softmax
    over classes, one sigmoid unit, or with `logits` the input of one of these. `masks` and `seed` are those of `Passes`: with
    "shared" a sample is one network for all examples, which needs JAX; with "independent" each example has its own network.
    Probabilities are first clipped at 1e-7, as in Keras, so the NLL of the arithmetic mean is never above the mean NLL of its
    members (Jensen). Memory does not grow with `samples`. `say(what, number, of)` reports progress.
    """
    check_whole("samples", samples, 1, "It is the number of thinned networks; 100 is a usual one.")
    passes = Passes(model, masks=masks, seed=seed)
    x = passes.check(x)
    plain = passes.plain(x)
    if plain.ndim > 2:
        refuse(f"an output of shape {plain.shape[1:]} is no classification of whole examples.", "Average those of one class each.")
    scaled = _probabilities(plain.reshape(len(plain), -1), logits)
    labels = _labels(y, *scaled.shape)
    meters = [_Meter(size, samples // size, labels, scaled.shape[1]) for size in _sizes(samples)]
    for first in range(0, samples, _BLOCK):
        count = min(_BLOCK, samples - first)
        say("thinned networks", first, samples)
        for rows, _, found in passes.run(x, count, first=first):
            probabilities = _probabilities(found["outputs"].reshape(count, rows.stop - rows.start, -1), logits)
            for meter in meters:
                meter.add(rows, first, probabilities)
    single = meters[0].results[0][:, 1]
    thinned: Networks | None
    notes: tuple[str, ...]
    try:
        thinned, notes = networks(model), ()
    except BadInput as error:
        thinned, notes = None, (f"The thinned networks are not counted: {first_line(error)}",)
    return Average(
        passes.model.name,
        len(labels),
        scaled.shape[1],
        samples,
        seed,
        masks,
        *_error_and_nll(scaled, labels),
        tuple(meter.score(single) for meter in meters),
        thinned,
        notes=notes,
    )


class _Meter:
    """Disjoint groups of `size` networks each, in order. It holds the sums of the unfinished group, and the results of the finished
    groups as (groups, [error, NLL]) for the arithmetic and the geometric mean."""

    def __init__(self, size: int, groups: int, labels: np.ndarray, classes: int):
        self.size, self.groups, self.labels = size, groups, labels
        self._sums = np.zeros((2, len(labels), classes))
        self.results = np.zeros((2, groups, 2))

    def add(self, rows: slice, first: int, probabilities: np.ndarray) -> None:
        """Add networks from number `first` on for some of the examples: (networks, examples, classes)."""
        last, start = first + len(probabilities), first
        share = (rows.stop - rows.start) / len(self.labels)
        while start < last and start // self.size < self.groups:
            group = start // self.size
            stop = min(last, (group + 1) * self.size)
            piece = probabilities[start - first : stop - first]
            self._sums[:, rows] += piece.sum(axis=0), np.log(piece).sum(axis=0)
            if stop == (group + 1) * self.size:
                arithmetic, logarithms = self._sums[:, rows] / self.size
                for kind, mean in enumerate((arithmetic, softmax(logarithms, axis=-1))):
                    self.results[kind, group] += share * np.array(_error_and_nll(mean, self.labels[rows]))
                self._sums[:, rows] = 0
            start = stop

    def score(self, single_nll: np.ndarray) -> Score:
        means = self.results.mean(axis=1).tolist()
        sds = self.results.std(axis=1, ddof=1).tolist() if self.groups > 1 else [[None, None]] * 2
        arithmetic, geometric = ((error, error_sd, nll, nll_sd) for (error, nll), (error_sd, nll_sd) in zip(means, sds))
        members = float(single_nll[: self.size * self.groups].mean())
        return Score(self.size, self.groups, *arithmetic, members, *geometric)


def describe(found: Networks, visited: Visited | None) -> Text:
    """Describe in a few lines how many networks there are and how many of them training meets."""
    parts = ", ".join(f"{each.layer} {each.decisions:,} at {each.rate:.6g}" for each in found.layers)
    log10 = found.log_coincidence / math.log(10)
    lines = [
        f"decisions of an example: {found.decisions:,} ({parts})",
        f"thinned networks: 2^{found.decisions:,}{f' = {found.count:,}' if found.decisions < 40 else ''}; "
        f"two draws are the same with probability {f'{found.coincidence:.3g}' if log10 > -300 else f'10^{log10:,.0f}'}",
    ]
    if visited is not None:
        if visited.expected is not None:
            number = f"{visited.expected:,.0f} different ones are expected"
        else:
            number = f"{visited.lower:,.0f} to {visited.upper:,.0f} different ones are expected"
        lines.append(f"a training that shows {visited.draws:,} examples, each in a network of its own: {number}")
    return Text("\n".join(lines))


def _mean_and_sd(mean: float, sd: float | None, percent: bool = False) -> str:
    cell = (lambda value: f"{value * 100:.2f}") if percent else (lambda value: f"{value:.4f}")
    return cell(mean) + (f" ± {cell(sd)}" if sd is not None else "") + (" %" if percent else "")


def _sizes(samples: int) -> list[int]:
    """Return 1, 3, 10, 30, … below the number of samples, then that number."""
    every = (factor * 10**power for power in itertools.count() for factor in (1, 3))
    return [*itertools.takewhile(lambda size: size < samples, every), samples]


def _dropout_calls(model: keras.Model, read: graph.Graph, also: tuple = ()) -> list[tuple[graph.Call, Any, tuple]]:
    """Return (call, our equivalent layer, shape of an example's mask) for each call of a dropout layer."""
    states = shared_states(model, 0, 0)
    found = []
    for call in read.calls:
        if contains_dropout(call.layer):
            layer, _ = states.get(id(call.layer), (None, None))
            if not (is_mask(layer) or isinstance(layer, also)):
                refuse(
                    f"{type(call.layer).__name__} {call.path!r} takes no independent decision for each entry of one mask.",
                    "Dropout, SpatialDropout, LockedDropout and StochasticDepth do.",
                )
            found.append((call, layer, mask_shape(layer, call.shape, call.path)))
    if not found:
        refuse(
            f"the model {model.name!r} has no dropout layer with a rate above 0.",
            "Put one in: keras_dropout.place(model, {'last': 0.2}).",
        )
    return found


def _times(mask: Any) -> Callable:
    return lambda inputs, *_, **__: inputs * keras.ops.cast(mask, inputs.dtype)


def _at_prediction(layer: Any) -> Callable:
    """Return the layer's call as at prediction, even where the call fixes `training`."""
    return lambda *args, **options: layer(*args, **{name: value for name, value in options.items() if name != "training"})


def _probabilities(outputs: np.ndarray, logits: bool, least: float = SMALL) -> np.ndarray:
    """Return the outputs (…, classes) as clipped probabilities in float64 (of 0 and 1 for one unit); refuse any others."""
    outputs = outputs.astype("float64")
    if outputs.shape[-1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs) if logits else 1 - outputs, outputs], axis=-1)
    outputs = softmax(outputs, axis=-1) if logits else outputs
    sums = outputs.sum(axis=-1)
    if not (np.isfinite(outputs).all() and (outputs >= 0).all() and np.allclose(sums, 1, atol=1e-3)):
        refuse(
            f"the outputs are no probabilities of classes: they are from {outputs.min():.4g} to {outputs.max():.4g}, "
            f"and sum to {sums.min():.4g} to {sums.max():.4g}.",
            "If the model ends without its softmax or sigmoid, say so: --logits, or logits=True.",
        )
    return np.clip(outputs, least, 1 - least)


def _labels(y: Any, examples: int, classes: int) -> np.ndarray:
    """Return the class number of each example."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == classes and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (examples,) or y.dtype.kind not in "biuf":
        refuse(
            f"y must be one class number for each of the {examples} examples, or one-hot; got {y.dtype} of shape {y.shape}.",
            "The model must be one of classification, and y its labels.",
        )
    whole = y.astype("int64") if np.isfinite(y).all() else np.full(y.shape, -1)
    if (whole != y).any() or whole.min() < 0 or whole.max() >= classes:
        refuse(
            f"y must hold class numbers from 0 to {classes - 1}, as many as the model has; got {y.min()} to {y.max()}.",
            "The model must be one of classification, and y its labels.",
        )
    return whole


def _error_and_nll(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the fraction of wrong classes, and the mean of -log of the right class's probability."""
    right = probabilities[np.arange(len(labels)), labels]
    return float((probabilities.argmax(axis=-1) != labels).mean()), float(-np.log(right).mean())
