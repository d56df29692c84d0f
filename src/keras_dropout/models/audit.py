"""Does a model's dropout drop? The model is run, each of its dropout layers is measured, and what is wrong is told.

A rule reports what was measured. The error of all its statistical statements about a model together is at most `ERROR`: a model
without a fault is accused once in a million audits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell  # it has no public name
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout import layers
from keras_dropout.errors import described, refuse
from keras_dropout.layers.adopted import TWINS, AdoptedCell, inside, own_class
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import graph, kinds
from keras_dropout.models.dropping import is_known, number, option_changed, own_options, rate_of
from keras_dropout.models.evidence import AUDITED, Mistake, Mistakes
from keras_dropout.models.measuring import (
    Counted,
    Record,
    again,
    arrays,
    batch,
    counted,
    flag,
    is_mask,
    measured,
    rates_off,
    record,
    same_draws,
    varies,
)

ERROR = 1e-6
_UNUSED = 64  # more dropout layers than this are not all tried for whether their outputs are used
_PLAIN = (layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.LockedDropout)
_DROPS = (*_PLAIN, layers.StochasticDepth, keras.layers.Dropout, *kinds.KERAS_SPATIAL)
_NOISE = (keras.layers.GaussianDropout, layers.GaussianDropout)
_DRAWING = (keras.layers.Attention, keras.layers.AdditiveAttention)  # Keras's that draw themselves
_OTHERWISE = ("Gaussian", "Alpha", "Block", "Noise", "Shake", "Connect", "Variational")  # foreign: their rate is no share of zeros

Found = Iterator[tuple[str, str]]  # (address of the layer, what was found)


@dataclass(frozen=True)
class Row:
    """One dropout layer: where it is, its rate, and what was measured on it.

    `share` of what it got was dropped, of `draws` independent draws; its expectation is between `low` and `high`. `factor` is the
    mean factor in training. None is what was not measured; `verdict` then says why.
    """

    layer: str
    kind: str
    rate: float | None
    calls: int
    share: float | None
    low: float | None
    high: float | None
    factor: float | None
    draws: int
    verdict: str


class Audit(Mistakes):
    """What a run showed: the mistakes, a row for each dropout layer (`layers`), and what else there is to say (`notes`)."""

    def __init__(self, mistakes: list[Mistake], rows: list[Row], notes: list[str]):
        super().__init__(mistakes)
        self.layers, self.notes = rows, notes

    def document(self) -> dict[str, Any]:
        """Return mistakes, layers and notes as plain values."""
        mistakes = [each.document() for each in self]
        return {"mistakes": mistakes, "layers": [asdict(row) for row in self.layers], "notes": self.notes}

    def __rich__(self) -> Group:
        table = Table("layer", "kind", "rate", "calls", "dropped", "factor", "draws", "verdict", box=None, pad_edge=False)
        table.columns[0].overflow = "fold"
        for row in self.layers:
            share = "-" if row.share is None else f"{row.share:.4f}"
            figures = [_figure(row.rate), str(row.calls), share, _figure(row.factor, 3), f"{row.draws:,}" if row.draws else "-"]
            table.add_row(row.layer, row.kind, *figures, row.verdict)
        first = table if self.layers else Text("no dropout layer found")
        return Group(first, *(Text(f"Note: {note}") for note in self.notes), Text(), super().__rich__())

    def __str__(self) -> str:
        return Mistakes.__repr__(self)


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


@dataclass(eq=False)
class Item:
    """A dropout layer of a model, or another that draws: its part (`role`) says what is expected of it."""

    address: str
    layer: Any
    role: str  # drops, noise, alpha, cell, or draws: it does something at random
    rate: float | None
    error: float
    training: Record | None = None
    prediction: Record | None = None
    option: str = ""

    @property
    def kind(self) -> str:
        return own_class(self.layer).__name__

    @property
    def runs(self) -> bool:
        """Whether the layer was called and has a rate above 0, or one that is not known."""
        return self.rate != 0 and self.training is not None and not self.training.error

    @cached_property
    def counted(self) -> Counted | None:
        """What the repeated calls of the layer show."""
        if self.role == "cell":
            return self._cell()
        if self.rate == 0 or self.training is None:
            return None
        layer = self.layer
        if self.training.error:  # it may be that only the shape of the batch was not known to it
            layer = _made_anew(layer)
            if layer is None:
                return None
        units = self.role == "alpha" or isinstance(layer, (*_PLAIN, *kinds.UNIT_DROPOUT, *kinds.KERAS_SPATIAL))
        with same_draws():
            units = units and is_known(own_class(layer).__module__)
            return measured(layer, self.training, self.rate or 0.5, self.error, units, self.role == "alpha")

    def _cell(self) -> Counted | None:
        """Return what the masks of a recurrent cell show: those of its inputs, or those of its state."""
        if not self.rate:
            return None
        make = getattr(self.layer, f"get_{self.option}_mask")
        ones = ops.ones((64, 16), self.layer.compute_dtype)

        def draw() -> np.ndarray:
            vars(self.layer)[f"_{self.option}_mask"] = None
            return np.concatenate(arrays(make(ones)), axis=1).astype("float32")

        with same_draws():
            return counted(draw, 1.0, self.rate, self.error, 1e-3, units=True)

    @cached_property
    def moves(self) -> bool | None:
        """Whether the layer's outputs on the recorded arguments differ from call to call in training; None if unknown."""
        if self.training is None or self.role == "cell":
            return None
        wanted = math.ceil(math.log(self.error) / math.log(1 - min(self.rate or 0.1, 0.999)))
        try:
            with same_draws():
                return varies(self.layer, self.training, True, min(wanted, 2000)) or (False if wanted <= 2000 else None)
        except Exception:  # a layer that cannot be called once more
            return None


@dataclass(eq=False)
class Run:
    """A model that was run, with its dropout layers."""

    model: keras.Model
    x: Any
    items: list[Item]
    seen: dict[int, Record]
    notes: list[str]

    @cached_property
    def layers(self) -> list[keras.Layer]:
        return list({id(each): each for each in self.model._flatten_layers()}.values())

    def outputs(self, x: Any, training: bool, off: bool = False, instead: tuple = ()) -> list[np.ndarray]:
        """Return the model's outputs, always with the same draws: with all rates at 0, or with other calls `instead` of layers'.

        Batch normalisations use their moving statistics: those of a batch would mix its rows and positions.
        """

        def still(layer: keras.Layer) -> Callable:
            call = layer.call
            return lambda *args, **options: call(*args, **{**options, "training": False})

        norms = [each for each in self.layers if isinstance(each, keras.layers.BatchNormalization)]
        with graph.called_as([*((each, still(each)) for each in norms), *instead]), same_draws(), rates_off(self.layers if off else ()):
            return arrays(self.model(x, training=training))


@graph.leaves_unchanged
def audit(model: keras.Model, data: Any = None) -> Audit:
    """Run a model and say whether its dropout drops: see docs/audit.md for what is measured.

    `data` are inputs as `check` takes them; without data they are made up. Nothing of the model changes.
    """
    run = _run(model, data)
    mistakes = []
    for name, rule in RULES.items():
        found: dict[str, str] = {}
        for address, what in rule(run):
            found.setdefault(address, what)
        mistakes += [Mistake(name, address, what, *AUDITED[name]) for address, what in found.items()]
    return Audit(mistakes, [_row(item, mistakes) for item in run.items], [*_notes(run), *run.notes])


def _run(model: keras.Model, data: Any) -> Run:
    graph.check_model(model)
    x = batch(model, data)
    items = _items(model)
    watched = [item.layer for item in items if item.layer is not model]
    watched += [each for each in model._flatten_layers() if isinstance(each, kinds.ATTENTIONS)]
    watched += [each for _, each, _ in inside(model) if _is_foreign(each) and own_options(each)]
    watched = list({id(each): each for each in watched}.values())
    runs = []
    for training in (True, False):
        try:
            runs.append(record(model, watched, x, training)[0])
        except Exception as error:  # the user's code may raise anything
            refuse(
                f"the model {model.name!r} cannot be run on {'made-up inputs' if data is None else 'the data'} "
                f"{'in training' if training else 'at prediction'}: {described(error)}",
                "Give inputs that the model takes: check(model, data, run=True), --data with the command.",
            )
        runs[-1][id(model)] = Record((x,), {}, [training])
    for item in items:
        item.training, item.prediction = (seen.get(id(item.layer)) for seen in runs)
    return Run(model, x, items, runs[0], [])


def _items(model: keras.Model) -> list[Item]:
    """Return the dropout layers of a model, at any depth, and the layers of others that draw themselves."""
    found: list[Item] = []
    for address, layer, owner in [(model.name, model, None), *inside(model)]:
        if getattr(owner, "_dropout", None) == 0 and type(layer) in TWINS:
            continue  # of an attention layer of Keras that was made without dropout: it is never called
        if isinstance(layer, AdoptedCell):
            rates = {"dropout": layer.rate if layer.dropout else 0.0, "recurrent_dropout": layer.recurrent_rate}
            rates["recurrent_dropout"] *= bool(layer.recurrent_dropout)
        elif isinstance(layer, DropoutRNNCell):
            rates = {"dropout": layer.dropout, "recurrent_dropout": layer.recurrent_dropout}
        else:
            role = _role(layer)
            found += [Item(address, layer, role, _rate(layer), ERROR)] if role else []
            continue
        found += [Item(f"{address} ({name})", layer, "cell", rate, ERROR, option=name) for name, rate in rates.items() if rate]
    for item in found:
        item.error = ERROR / (2 * len(found))
    return found


def _role(layer: keras.Layer) -> str:
    """Return what is expected of a layer; "" if it is no dropout and draws nothing."""
    kind = own_class(layer)
    if isinstance(layer, keras.layers.TimeDistributed) or kinds.is_preprocessing(kind):
        return ""
    if isinstance(layer, kinds.ALPHA_DROPOUT):
        return "alpha"
    if isinstance(layer, _NOISE):
        return "noise"
    if kind in _DROPS or isinstance(layer, kinds.KERAS_DROPOUT):
        return "drops"
    if isinstance(layer, Stochastic):
        return "draws"
    if is_known(kind.__module__):
        return "draws" if isinstance(layer, _DRAWING) and layer.dropout else ""
    if kinds.RATED_CLASSES.search(kind.__name__):
        return "draws" if layer.weights or any(word in kind.__name__ for word in _OTHERWISE) else "drops"
    leaf = not list(layer._flatten_layers(include_self=False))
    draws = any(isinstance(each, keras.random.SeedGenerator) for each in vars(layer).values())
    return "draws" if draws or (leaf and own_options(layer)) else ""


def _rate(layer: keras.Layer) -> float | None:
    if isinstance(layer, Stochastic) or is_known(own_class(layer).__module__):
        return rate_of(layer) if not isinstance(layer, _DRAWING) else number(layer.dropout)
    return max((*own_options(layer).values(), *([rate_of(layer) or 0.0] if hasattr(layer, "rate") else [])), default=None) if (
        own_options(layer) or hasattr(layer, "rate")
    ) else rate_of(layer)


def _is_foreign(layer: keras.Layer) -> bool:
    return not isinstance(layer, Stochastic) and not is_known(own_class(layer).__module__)


def _made_anew(layer: keras.Layer) -> keras.Layer | None:
    try:
        return own_class(layer).from_config(layer.get_config())
    except Exception:  # a class that cannot be made again
        return None


def dropout_fails(run: Run) -> Found:
    """Find a dropout layer that fails in training."""
    for item in run.items:
        if item.training is not None and item.training.error:
            yield item.address, f"{_named(item)} fails in training: {item.training.error}"


def dropout_never_called(run: Run) -> Found:
    """Find a dropout layer with a rate above 0 that a training step does not call."""
    for item in run.items:
        if item.rate and item.training is None and item.role != "cell":
            yield item.address, f"{_named(item)} is made and never called in a training step."


def dropout_without_training(run: Run) -> Found:
    """Find a dropout layer that a training step calls only with training off."""
    for item in run.items:
        if item.runs and item.role != "cell" and item.layer._call_has_training_arg and not any(map(_on, item.training.training)):
            yield item.address, f"{_named(item)} is called in a training step, but with training={item.training.training[0]}."


def dropout_never_drops(run: Run) -> Found:
    """Find a dropout layer with a rate above 0 that drops nothing in training."""
    for item in run.items:
        found = item.counted
        if not item.rate or (found is None and not item.runs):
            continue
        if found is not None and item.role in ("drops", "alpha", "cell") and found.share == 0 and item.rate > found.high:
            if not found.constant:
                least, greatest = found.kept
                yield (
                    item.address,
                    f"{_named(item)} multiplies by noise between {least:.3g} and {greatest:.3g}, of mean {found.mean:.3g}: of {found.draws:,} "
                    "draws none was 0.",
                )
            else:
                yield item.address, f"{_named(item)} multiplies by {found.mean:.3g}: of {found.draws:,} draws none was 0."
        elif item.runs and (found is None or (item.role == "draws" and found.constant and found.share == 0)) and item.moves is False:
            if not isinstance(item.layer, Stochastic):
                yield item.address, f"{_named(item)} gives the same output in each call in training: nothing is dropped."


def dropout_share(run: Run) -> Found:
    """Find a dropout layer whose share of drops is not its rate."""
    for item, found in _counted(run, "drops", "cell", "alpha"):
        if found.low <= item.rate <= found.high or (found.share == 0 and item.rate > found.high):
            continue
        told = f"{_named(item)} drops {found.share:.4f} (between {found.low:.4f} and {found.high:.4f}, {found.draws:,} draws)"
        kept = found.low <= 1 - item.rate <= found.high
        yield item.address, told + (", which is 1 - rate: the rate may be meant as what is kept." if kept else ".")


def dropout_mean(run: Run) -> Found:
    """Find a dropout layer whose mean output in training is not its output at prediction."""
    for item, found in _counted(run, "drops", "cell"):
        if not found.constant or not 0 < found.share < 1:
            continue
        ends = sorted(found.kept[1] * (1 - each) for each in (found.low, found.high))
        allowed = found.near * abs(found.predicted)
        if not ends[0] - allowed <= found.predicted <= ends[1] + allowed:
            yield (
                item.address,
                f"the mean factor of {_named(item)} is {found.mean:.4g} in training and {found.predicted:.4g} at prediction; what is "
                f"kept is multiplied by {found.kept[1]:.4g}.",
            )
    for item, found in _counted(run, "noise"):
        expected = math.sqrt(item.rate / (1 - item.rate)) if item.rate < 1 else math.inf
        if abs(found.mean - 1) > 6 * found.deviation / math.sqrt(found.draws) or abs(found.deviation / expected - 1) > 0.1:
            yield (
                item.address,
                f"{_named(item)} multiplies by noise of mean {found.mean:.4g} and deviation {found.deviation:.4g}; expected are 1 and "
                f"{expected:.4g}.",
            )


def dropout_at_prediction(run: Run) -> Found:
    """Find dropout that acts at prediction: outputs that differ from call to call, or that depend on a rate without making up."""
    for item in run.items:
        if item.role == "cell" or item.prediction is None or item.prediction.error or item.layer is run.model:
            continue
        on = item.layer._call_has_training_arg and any(map(_on, item.prediction.training)) and item.rate != 0
        try:
            with same_draws():
                moves = varies(item.layer, item.prediction, on, 8 if item.layer._call_has_training_arg else 64)
        except Exception:  # a layer that cannot be called once more
            continue
        if moves:
            said = f", and is called there with training={item.prediction.training[0]}" if on else ""
            yield item.address, f"{_named(item)} gives another output at each call at prediction{said}."
            continue
        try:
            with same_draws():
                plain = arrays(again(item.layer, item.prediction.args, item.prediction.options, False))
                with rates_off([item.layer]):
                    off = arrays(again(item.layer, item.prediction.args, item.prediction.options, False))
        except Exception:
            continue
        if graph.differ(plain, off) and not _close(plain, off):
            if item.counted is not None and abs(item.counted.predicted - 1) > item.counted.near and not _wrong_mean(run, item):
                run.notes.append(
                    f"{_named(item)} multiplies by {item.counted.predicted:.4g} at prediction, which is its mean in training: by design."
                )
            else:
                yield item.address, f"at prediction the output of {_named(item)} depends on its rate."
    with same_draws():
        one, two = (arrays(run.model(run.x, training=False)) for _ in range(2))
    if graph.differ(one, two):
        yield run.model.name, f"{type(run.model).__name__} {run.model.name!r} predicts something else each time."


def dropout_output_unused(run: Run) -> Found:
    """Find a dropout layer that is called, and whose output reaches no output of the model."""
    tried = [item for item in run.items if item.rate and item.runs and item.role in ("drops", "noise", "alpha")]
    if len(tried) > _UNUSED:
        run.notes.append(f"whether outputs are used was tried for the first {_UNUSED} of {len(tried)} dropout layers.")
    plain: list[np.ndarray] | None = None
    for item in tried[:_UNUSED]:

        def spoiled(change: Callable, item: Item = item) -> list[np.ndarray]:
            call = item.layer.call
            return run.outputs(
                run.x, True, instead=((item.layer, lambda *a, **o: keras.tree.map_structure(change, call(*a, **o))),)
            )

        try:
            if any(np.isnan(np.asarray(each, "float32")).any() for each in spoiled(lambda each: each * math.nan)):
                continue
            plain = run.outputs(run.x, True) if plain is None else plain
            unused = not graph.differ(plain, spoiled(lambda each: 5 - 3 * each))
        except Exception:  # for example ids, which cannot be multiplied
            continue
        if unused and not run.model.losses:
            yield item.address, f"{_named(item)} is called in a training step, and no output of the model depends on what it returns."


def dropout_option_unused(run: Run) -> Found:
    """Find a dropout option above 0 of a user's layer or model that reaches nothing that drops."""
    known = {id(item.layer) for item in run.items if item.role != "cell" and not (item.layer is run.model and item.rate)}
    for address, layer, *_ in [(run.model.name, run.model), *inside(run.model)]:
        if not _is_foreign(layer) or id(layer) in known:
            continue
        within = [item for item in run.items if any(item.layer is each for each in layer._flatten_layers(include_self=False))]
        for option, value in own_options(layer).items():
            arrives = option_changed(layer, option)
            if arrives is None:
                arrives = any(item.rate and (abs(item.rate - value) < 1e-6 or _is_path(option)) for item in within)
            if not arrives and not any(item.rate for item in within if item.training is None) | _draws_itself(run, layer, within):
                yield address, f"{type(layer).__name__} {layer.name!r} has {option}={value:g}, which reaches nothing that drops."


def mask_lost(run: Run) -> Found:
    """Find a causal or padding mask that holds at rate 0 and not with dropout."""
    dropping = [item for item in run.items if item.rate]
    if not dropping:
        return
    lost = False
    addresses = {id(layer): address for address, layer, _ in inside(run.model)}
    for key, call in run.seen.items():
        layer = next((each for each in run.layers if id(each) == key and isinstance(each, kinds.ATTENTIONS)), None)
        if layer is None or not any(item.layer in layer._flatten_layers() for item in dropping):
            continue
        if call.options.get("use_causal_mask") and (leak := _leak(layer, call)):
            lost = True
            yield addresses[key], f"{type(layer).__name__} {layer.name!r} has dropout and use_causal_mask=True: {leak}"
    if not lost:
        yield from _lost_in_model(run)


def _leak(layer: keras.Layer, call: Record) -> str:
    """Say how much the earlier outputs of an attention layer change with later inputs; "" if they do not."""
    first = call.args[0] if call.args else call.options["query"]
    length = first.shape[1]
    if length < 2:
        return ""

    def later(each: Any) -> Any:
        if not hasattr(each, "shape") or len(each.shape) != 3 or each.shape[1] != length or "float" not in str(each.dtype):
            return each
        return each + ops.cast(ops.reshape(ops.arange(length) >= length // 2, (1, length, 1)), each.dtype)

    found = []
    for change in (lambda each: each, later):
        with same_draws():
            args, options = keras.tree.map_structure(change, (call.args, call.options))
            found.append(arrays(again(layer, args, options, True))[0][:, : length // 2])
    return _changed(*found, "later inputs change earlier outputs")


def _changed(one: np.ndarray, two: np.ndarray, what: str) -> str:
    one, two = (np.asarray(each, "float64") for each in (one, two))
    largest, size = float(np.abs(one - two).max(initial=0)), float(np.abs(one).max(initial=0))
    return f"{what} by up to {largest:.3g} (outputs up to {size:.3g})." if largest > 1e-4 * max(size, 1e-6) else ""


def _lost_in_model(run: Run) -> Found:
    symbols = keras.tree.flatten(graph.inputs_of(run.model))
    values = [np.asarray(ops.convert_to_numpy(each)) for each in keras.tree.flatten(run.x)]
    names = [graph.input_name(each) for each in symbols]
    if len(names) != len(values):
        return
    tests: list[tuple[int, np.ndarray, str]] = []  # number of the input, the positions to change, what they are
    for place, (name, value) in enumerate(zip(names, values)):
        if is_mask(name) or not 2 <= value.ndim <= 3 or value.shape[1] < 2:
            continue
        late = np.broadcast_to(np.arange(value.shape[1]) >= value.shape[1] // 2, value.shape[:2])
        tests.append((place, late, f"later positions of {name!r}"))
        for mask_name, mask in zip(names, values):
            if is_mask(mask_name) and mask.shape == value.shape[:2] and (mask == 0).any() and (mask != 0).any():
                tests.append((place, mask == 0, f"positions of {name!r} that {mask_name!r} marks as padding"))
    if not tests:
        return
    plain = [run.outputs(run.x, False, off=True), run.outputs(run.x, True)]
    if graph.differ(plain[1], run.outputs(run.x, True)):
        run.notes.append("whether masks hold was not measured: the model's draws cannot be repeated.")
        return
    for place, positions, what in tests:
        changed = list(values)
        changed[place] = _other(values[place], positions)
        x = keras.tree.pack_sequence_as(run.x, [ops.convert_to_tensor(each, dtype=given.dtype) for each, given in zip(changed, keras.tree.flatten(run.x))])
        off = run.outputs(x, False, off=True)
        padding = "padding" in what
        holds = [
            number
            for number, (one, two) in enumerate(zip(plain[0], off))
            if _kept(one, positions, padding) is not None
            and not _changed(_kept(one, positions, padding), _kept(two, positions, padding), "x")
            and (padding or graph.differ([one], [two]))
        ]
        if not holds:
            continue
        on = run.outputs(x, True)
        for number_ in holds:
            leak = _changed(_kept(plain[1][number_], positions, padding), _kept(on[number_], positions, padding), f"{what} change other outputs")
            if leak:
                yield run.model.name, f"at rate 0 the mask of {run.model.name!r} holds; in training with dropout {leak}"


def _kept(output: np.ndarray, positions: np.ndarray, padding: bool) -> np.ndarray | None:
    """Return the outputs that must not change: those of the other positions; a pooled output for padding; None if there are none."""
    if output.ndim >= 2 and output.shape[:2] == positions.shape:
        return output[~positions]
    return output if padding else None


def _other(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return other values at some positions."""
    other = values + 1 if "float" in str(values.dtype) else np.where(values == 1, 2, 1).astype(values.dtype)
    return np.where(positions.reshape(*positions.shape, *(1,) * (values.ndim - 2)), other, values)


RULES: dict[str, Callable[[Run], Found]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        dropout_fails,
        dropout_never_called,
        dropout_without_training,
        dropout_never_drops,
        dropout_share,
        dropout_mean,
        dropout_at_prediction,
        dropout_output_unused,
        dropout_option_unused,
        mask_lost,
    )
}


def _row(item: Item, mistakes: list[Mistake]) -> Row:
    """Return the row of a layer, whose verdict is the mistakes found in it, or what was measured."""
    wrong = [mistake.rule for mistake in mistakes if mistake.layer == item.address]
    found, calls = item.counted, len(item.training.training) if item.training else 0
    if wrong:
        verdict = ", ".join(wrong)
    elif item.rate == 0:
        verdict = "off: its rate is 0"
    elif item.training is None and item.role != "cell":
        verdict = "not measured: not called in a training step, and its rate is not known"
    elif found is not None and item.role in ("drops", "cell"):
        rare = found.low == 0 and found.share == 0
        verdict = "not measured: too few draws for such a rate" if rare else "drops at its rate, mean kept"
        verdict = "drops; its rate is not known" if item.rate is None else verdict
    elif item.role == "noise" and found is not None:
        verdict = "multiplies by noise of mean 1, as it should"
    elif item.moves:
        verdict = "acts at random in training; share not measured: " + (
            "its values are made anew" if item.role == "alpha" else "not a share of units that are set to 0"
        )
    elif item.moves is None:
        verdict = "not measured: its calls cannot be repeated"
    else:
        verdict = "draws nothing that shows" if item.rate is None else "not measured: too few draws for such a rate"
    if found is not None and found.shared and not wrong and found.share:
        verdict += "; one mask for the whole batch"
    shown = found if found is not None and item.role in ("drops", "cell", "noise") or (found is not None and found.share) else None
    return Row(
        item.address,
        item.kind,
        item.rate,
        calls,
        *((shown.share, shown.low, shown.high, shown.mean, shown.draws) if shown and item.role != "noise" else (None, None, None, shown.mean if shown else None, shown.draws if shown else 0)),
        verdict,
    )


def _notes(run: Run) -> Iterator[str]:
    for item in run.items:
        if item.training is not None and item.counted is not None and item.counted.shared and item.counted.share:
            yield f"{_named(item)} draws one mask for the whole batch."
        if item.runs and item.layer._call_has_training_arg and item.role != "cell" and len({_on(each) for each in item.training.training}) > 1:
            yield f"{_named(item)} is called with training on and with training off in one training step."


def _counted(run: Run, *roles: str) -> Iterator[tuple[Item, Counted]]:
    for item in run.items:
        if item.role in roles and item.rate and item.counted is not None:
            yield item, item.counted


def _wrong_mean(run: Run, item: Item) -> bool:
    return any(address == item.address for address, _ in dropout_mean(run))


def _draws_itself(run: Run, layer: keras.Layer, within: list[Item]) -> bool:
    """Return whether a layer's outputs differ from call to call when all dropout in it that is known is off."""
    call = run.seen.get(id(layer))
    if call is None:
        return False
    try:
        with same_draws(), rates_off([item.layer for item in within]):
            return varies(layer, call, True)
    except Exception:  # a layer that cannot be called once more
        return True


def _close(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, 1e-5, 1e-6) for a, b in zip(one, two))


def _is_path(option: str) -> bool:
    return any(word in option for word in ("path", "depth", "connect", "survival"))


def _on(training: Any) -> bool:
    value = number(ops.convert_to_numpy(training)) if hasattr(training, "dtype") else training
    return bool(value)


def _named(item: Item) -> str:
    rate = "" if item.rate is None else f" (rate {item.rate:g})"
    return f"{item.kind} {item.address!r}{rate}"
