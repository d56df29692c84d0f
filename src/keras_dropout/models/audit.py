"""Does a model's dropout drop? The model is run, each of its dropout layers is measured, and what is wrong is told.

A rule reports what was measured. The error of all its statistical statements about a model together is at most `ERROR`: a model
without a fault is accused once in a million audits.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
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
from keras_dropout.errors import BadInput, described, refuse
from keras_dropout.layers.adopted import TWINS, AdoptedCell, inside, own_class
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import graph, kinds
from keras_dropout.models.dropping import is_known, number, option_changed, own_options, rate_of
from keras_dropout.models.evidence import AUDITED, NOTHING, Mistake, Mistakes
from keras_dropout.models.measuring import (
    Counted,
    Record,
    again,
    arrays,
    batches,
    counted,
    is_mask,
    measured,
    rates_off,
    record,
    same_draws,
    varies,
)

ERROR = 1e-6
_TOLD = 5  # findings of one rule that are told in words; the table has all
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
    share: float | None = None
    low: float | None = None
    high: float | None = None
    factor: float | None = None
    draws: int = 0
    verdict: str = ""


class Audit(Mistakes):
    """Hold what a run showed: the mistakes, a row for each dropout layer (`layers`), and what else there is to say (`notes`)."""

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
        parts = [table if self.layers else Text("no dropout layer found"), *(Text(f"Note: {note}") for note in self.notes)]
        for rule in dict.fromkeys(mistake.rule for mistake in self):
            alike = [mistake for mistake in self if mistake.rule == rule]
            told = [f"\n  {mistake.what}" for mistake in alike[:_TOLD]]
            more = f"\n  … and {len(alike) - _TOLD} more: see the table." if len(alike) > _TOLD else ""
            known = f"\n  {alike[0].evidence}\n  Source: {alike[0].source}\n  Fix: {alike[0].mend}"
            parts += [Text(), Text.assemble((rule, "bold"), ":", *told, more, known)]
        return Group(*parts, *([] if self else [Text(), Text(NOTHING)]))

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
    within: Any = None  # the layer whose calls count: for a recurrent cell the layer that runs it

    @property
    def kind(self) -> str:
        return own_class(self.layer).__name__

    @property
    def flags(self) -> list[Any]:
        """The training flags of its calls in the training step."""
        return self.training.training if self.training is not None else []

    @property
    def called(self) -> bool:
        """Say whether the layer was called in training and did not fail."""
        return bool(self.flags) and not (self.training and self.training.error)

    @cached_property
    def counted(self) -> Counted | None:
        """Give what the repeated calls of the layer show."""
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

    @property
    def fails(self) -> bool:
        """Whether a layer fails in training, so that the model can only be run with that layer passed over."""
        return any(call.error for call in self.seen.values())

    def outputs(self, x: Any, training: bool, off: bool = False, instead: tuple = ()) -> list[np.ndarray]:
        """Return the model's outputs, always with the same draws: with all rates at 0, or with other calls `instead` of layers'.

        Batch normalisations use their moving statistics: those of a batch would mix its rows and positions.
        """

        def still(layer: keras.Layer) -> Callable:
            call = layer.call
            return lambda *args, **options: call(*args, **{**options, "training": False})

        norms = [each for each in self.layers if isinstance(each, keras.layers.BatchNormalization)]
        with (
            graph.called_as([*((each, still(each)) for each in norms), *instead]),
            same_draws(),
            rates_off(self.layers if off else ()),
        ):
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
    items = _items(model)
    watched = [item.within or item.layer for item in items if item.layer is not model]
    watched += [each for each in model._flatten_layers() if isinstance(each, kinds.ATTENTIONS)]
    watched += [each for _, each, _ in inside(model) if _is_foreign(each) and own_options(each)]
    watched = list({id(each): each for each in watched}.values())
    given, reason = batches(model, data), ""
    runs: list[dict[int, Record]] = []
    while not runs:
        try:
            if (x := next(given, None)) is None:
                break
            runs = [record(model, watched, x, training)[0] for training in (True, False)]
        except BadInput:
            raise
        except Exception as error:  # the user's code may raise anything
            reason = reason or described(error)
    if not runs:
        refuse(
            f"the model {model.name!r} cannot be run on {'made-up inputs' if data is None else 'the data'}: {reason}",
            "Give inputs that the model takes: check(model, data, run=True), --data with the command.",
        )
    for training, seen in zip((True, False), runs):
        seen[id(model)] = Record((x,), {}, [training])
    for item in items:
        item.training, item.prediction = (seen.get(id(item.within or item.layer)) for seen in runs)
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
        found += [
            Item(f"{address} ({name})", layer, "cell", rate, ERROR, option=name, within=owner)
            for name, rate in rates.items()
            if rate
        ]
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
    if not _is_foreign(layer):
        return "draws" if isinstance(layer, _DRAWING) and layer.dropout else ""
    if kinds.RATED_CLASSES.search(kind.__name__):
        return "draws" if layer.weights or any(word in kind.__name__ for word in _OTHERWISE) else "drops"
    leaf = not list(layer._flatten_layers(include_self=False))
    draws = any(isinstance(each, keras.random.SeedGenerator) for each in vars(layer).values())
    return "draws" if draws or (leaf and own_options(layer)) else ""


def _rate(layer: keras.Layer) -> float | None:
    """Return the largest rate of a layer; None if it has none that is known."""
    if isinstance(layer, _DRAWING):
        return number(layer.dropout)
    found = [rate_of(layer), *(own_options(layer).values() if _is_foreign(layer) else ())]
    return max((rate for rate in found if rate is not None), default=None)


def _is_foreign(layer: keras.Layer) -> bool:
    """Return whether a layer is of another library, or one of those in keras.applications that a few models share."""
    module = own_class(layer).__module__
    return not isinstance(layer, Stochastic) and (not is_known(module) or ".applications." in module)


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
        if item.rate and not item.flags:
            yield item.address, f"{_named(item)} is made and never called in a training step."


def dropout_without_training(run: Run) -> Found:
    """Find a dropout layer that a training step calls only with training off."""
    for item in run.items:
        if item.rate != 0 and item.called and item.layer._call_has_training_arg and not any(map(_on, item.flags)):
            yield item.address, f"{_named(item)} is called in a training step, but with training={item.flags[0]}."


def dropout_never_drops(run: Run) -> Found:
    """Find a dropout layer with a rate above 0 that drops nothing in training."""
    for item in run.items:
        found = item.counted
        if not item.rate:
            continue
        if found is None or item.role == "draws":
            still = found is None or (found.constant and found.share == 0)
            if still and item.called and item.moves is False and not isinstance(item.layer, Stochastic):
                yield item.address, f"{_named(item)} gives the same output in each call in training: nothing is dropped."
        elif item.role != "noise" and found.never(item.rate):
            least, greatest = found.kept
            by = f"noise between {least:.3g} and {greatest:.3g}, of mean {found.mean:.3g}"
            by = f"{found.mean:.3g}" if found.constant else by
            yield item.address, f"{_named(item)} multiplies by {by}: of {found.draws:,} draws none was 0."


def dropout_share(run: Run) -> Found:
    """Find a dropout layer whose share of drops is not its rate."""
    for item, rate, found in _counted(run, "drops", "cell", "alpha"):
        if found.low <= rate <= found.high or found.never(rate):
            continue
        told = f"{_named(item)} drops {found.share:.4f} (between {found.low:.4f} and {found.high:.4f}, {found.draws:,} draws)"
        kept = found.low <= 1 - rate <= found.high
        yield item.address, told + (", which is 1 - rate: the rate may be meant as what is kept." if kept else ".")


def dropout_mean(run: Run) -> Found:
    """Find a dropout layer whose mean output in training is not its output at prediction."""
    for item, _, found in _counted(run, "drops", "cell"):
        if not found.constant or not 0 < found.share < 1:
            continue
        least, most = sorted(found.kept[1] * (1 - each) for each in (found.low, found.high))
        allowed = found.near * abs(found.predicted)
        if not least - allowed <= found.predicted <= most + allowed:
            what = f"the mean factor of {_named(item)} is {found.mean:.4g} in training and {found.predicted:.4g} at prediction"
            yield item.address, f"{what}; what is kept is multiplied by {found.kept[1]:.4g}."
    for item, rate, found in _counted(run, "noise"):
        expected = math.sqrt(rate / (1 - rate)) if rate < 1 else math.inf
        if abs(found.mean - 1) > 6 * found.deviation / math.sqrt(found.draws) or abs(found.deviation / expected - 1) > 0.1:
            what = f"{_named(item)} multiplies by noise of mean {found.mean:.4g} and deviation {found.deviation:.4g}"
            yield item.address, f"{what}; expected are 1 and {expected:.4g}."


def dropout_at_prediction(run: Run) -> Found:
    """Find dropout that acts at prediction: outputs that differ from call to call, or that depend on a rate without making up."""
    told = False
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
            told = True
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
        if _close(plain, off) or isinstance(item.layer, Stochastic):  # ours that depend on their rate say so
            continue
        found = item.counted
        if found is None:
            unknown = "whether that makes up for what it drops was not measured."
            run.notes.append(f"at prediction the output of {_named(item)} depends on its rate; {unknown}")
        elif abs(found.predicted - 1) > found.near and not _wrong_mean(run, item):
            run.notes.append(f"{_named(item)} multiplies by {found.predicted:.4g} at prediction, which is its mean in training.")
        else:
            yield item.address, f"at prediction the output of {_named(item)} depends on its rate."
    with same_draws():
        one, two = (arrays(run.model(run.x, training=False)) for _ in range(2))
    if graph.differ(one, two) and not told:
        yield run.model.name, f"{type(run.model).__name__} {run.model.name!r} predicts something else each time."


def dropout_output_unused(run: Run) -> Found:
    """Find a dropout layer that is called, and whose output reaches no output of the model."""
    tried = [item for item in run.items if item.rate and item.called and item.role in ("drops", "noise", "alpha")]
    if run.fails:
        run.notes.append("whether outputs are used and masks hold was not measured: training fails.")
        return
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
            yield (
                item.address,
                f"{_named(item)} is called in a training step, and no output of the model depends on what it returns.",
            )


def dropout_option_unused(run: Run) -> Found:
    """Find a dropout option above 0 of a user's layer or model that reaches nothing that drops."""
    known = {id(item.layer) for item in run.items if item.role != "cell" and not (item.layer is run.model and item.rate)}
    for address, layer, *_ in [(run.model.name, run.model), *inside(run.model)]:
        if not _is_foreign(layer) or id(layer) in known:
            continue
        within = [item for item in run.items if any(item.layer is each for each in layer._flatten_layers(include_self=False))]
        if any(item.rate and not item.flags for item in within):
            continue  # what it reaches is not called, and told already
        if any(isinstance(item.layer, Stochastic) for item in within):
            continue  # its dropout was changed in place: the options are old rates
        options = own_options(layer)
        arriving = {option: _arrives(layer, option, value, within) for option, value in options.items()}
        taken = inspect.signature(own_class(layer).__init__).parameters
        for option in (option for option in options if not arriving[option]):
            same = any(arriving[other] and options[other] == options[option] for other in options)
            if (same and option not in taken) or _draws_itself(run, layer, within):
                continue  # the first is another name of what arrives
            told = f"has {option}={options[option]:g}, which reaches nothing that drops."
            yield address, f"{own_class(layer).__name__} {layer.name!r} {told}"


def _arrives(layer: keras.Layer, option: str, value: float, within: list[Item]) -> bool:
    """Return whether a dropout option reaches the dropout in a layer: if it is made again with another value, or as far as seen."""
    changed = option_changed(layer, option)
    if changed is None:
        return any(item.rate and (abs(item.rate - value) < 1e-6 or _is_path(option)) for item in within)
    return changed


def mask_lost(run: Run) -> Found:
    """Find a causal or padding mask that holds at rate 0 and not with dropout."""
    dropping = [item for item in run.items if item.rate]
    if not dropping or run.fails:
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
    return _changed("later inputs change earlier outputs", found[0], found[1])


def _changed(what: str, one: np.ndarray | None, two: np.ndarray | None) -> str:
    """Say how much outputs changed; "" if they did not, or are none."""
    if one is None or two is None:
        return ""
    one, two = np.asarray(one, "float64"), np.asarray(two, "float64")
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
        like = keras.tree.flatten(run.x)
        tensors = [ops.convert_to_tensor(each, dtype=given.dtype) for each, given in zip(changed, like)]
        x = keras.tree.pack_sequence_as(run.x, tensors)
        padding = "padding" in what
        off, on = run.outputs(x, False, off=True), run.outputs(x, True)
        for still, trained, still_changed, changed_too in zip(*plain, off, on):
            one, two, three, four = (_kept(each, positions, padding) for each in (still, still_changed, trained, changed_too))
            holds = one is not None and not _changed("", one, two) and (padding or graph.differ([still], [still_changed]))
            if holds and (leak := _changed(f"{what} change other outputs", three, four)):
                yield run.model.name, f"at rate 0 the mask of {run.model.name!r} holds; in training with dropout {leak}"


def _kept(output: np.ndarray, positions: np.ndarray, padding: bool) -> np.ndarray | None:
    """Return the outputs that must not change: those of the other positions, or all if these are pooled and it is for padding."""
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
    found = item.counted
    wrong = [mistake.rule for mistake in mistakes if mistake.layer == item.address]
    verdict = ", ".join(wrong) or _verdict(item, found)
    if found is not None and found.shared and found.share:
        verdict += "; one mask for the whole batch"
    row = Row(item.address, item.kind, item.rate, len(item.flags), verdict=verdict)
    if found is None or (item.role == "draws" and not found.share):
        return row
    if item.role == "noise":
        return replace(row, factor=found.mean, draws=found.draws)
    factor = None if item.role == "alpha" else found.mean
    return replace(row, share=found.share, low=found.low, high=found.high, factor=factor, draws=found.draws)


def _verdict(item: Item, found: Counted | None) -> str:
    if item.rate == 0:
        return "off: its rate is 0"
    if not item.flags:
        return "not measured: not called in a training step, and its rate is not known"
    if found is not None and item.role in ("drops", "cell", "alpha"):
        if found.low == found.share == 0:
            return "not measured: too few draws for such a rate"
        drops = "drops at its rate" if item.rate else "drops; its rate is not known"
        drops = f"its mask {drops}" if item.role == "cell" else drops
        if item.role == "alpha":
            return f"{drops}; the mean was not measured: what is dropped becomes another number"
        return f"{drops}, mean kept" if found.constant else f"{drops}; the mean was not measured: what is kept has several factors"
    if found is not None and item.role == "noise":
        return "noise of the mean and deviation that its rate says"
    if item.moves:
        return "acts at random in training; not measured: which share it drops"
    if item.moves is None:
        return "not measured: its calls cannot be repeated"
    return "draws nothing that shows" if item.rate is None else "not measured: too few draws for such a rate"


def _notes(run: Run) -> Iterator[str]:
    for item in run.items:
        if item.called and item.rate != 0 and item.layer._call_has_training_arg and len(set(map(_on, item.flags))) > 1:
            yield f"{_named(item)} is called with training on and with training off in one training step."


def _counted(run: Run, *roles: str) -> Iterator[tuple[Item, float, Counted]]:
    for item in run.items:
        if item.role in roles and item.rate and item.counted is not None:
            yield item, item.rate, item.counted


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
