"""Known mistakes with dropout, found in a model: what was found, what is known about it, and how to fix it.

A rule reports what follows from the model's structure or was measured on it. If something is only likely, the rule says so.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, overload

import keras

from keras_dropout import layers
from keras_dropout.errors import warn
from keras_dropout.layers.base import Stochastic
from keras_dropout.models import graph, kinds
from keras_dropout.models.audit import Audit, audit
from keras_dropout.models.evidence import KNOWN, Mistake, Mistakes
from keras_dropout.models.graph import Call, differ
from keras_dropout.models.inspection import (
    Inspection,
    activation,
    attribute,
    bare,
    contains_dropout,
    drops_units,
    keeps_values,
    look,
    number,
    rate,
)

_ALPHA = (*kinds.ALPHA_DROPOUT, layers.FeatureAlphaDropout)
_KEEP_MAPS = (*kinds.NORMALISATIONS, keras.layers.PReLU)
_SMALL_SHIFT = 0.1  # a measured variance ratio this near to 1 is no shift
# An uncompiled model whose outputs end with these may be for predictions; with relu or a normalisation it is for features.
_OF_OUTPUTS = ("linear", "sigmoid", "hard_sigmoid", "log_softmax", "softplus", "exponential")
_FEW_STEPS = 1000  # seeds further apart meet only in long trainings

Found = Iterator[tuple[str, str]]  # (path of the layer, what was found)


@overload
def check(model: keras.Model, data: Any = None, *, run: Literal[False] = False) -> Mistakes: ...


@overload
def check(model: keras.Model, data: Any = None, *, run: Literal[True]) -> Audit: ...


@graph.leaves_unchanged
def check(model: keras.Model, data: Any = None, *, run: bool = False) -> Mistakes:
    """Return the known mistakes with dropout in a model, in the order of `RULES`; an empty list if none is found.

    With `run`, the model is run instead, on the data or on made-up inputs, and the result says of each dropout layer whether it
    drops what its rate says: `layers` has a row for each, `notes` what else was seen. See docs/audit.md.

    `data` are inputs to measure on: an array, a list of arrays or a dict by the inputs' names; or (x, y), of which x is used. At
    most 256 evenly spaced rows are used. Without data, what the structure does not show is measured on random inputs or
    left out. The model does not change. If the calls of a model cannot be followed, a warning says so, and its layers are
    checked one by one. Refused is anything that is not a Keras model, has no layers, or does not fit or run on the data.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax"), keras.layers.Dropout(0.2, name="drop")])
    >>> [(mistake.rule, mistake.layer) for mistake in check(model)]
    [('dropout-after-softmax', 'drop')]
    """
    if run:
        return audit(model, data)
    inspection = look(model, data)
    if inspection.reason:
        warn(f"only single layers were checked, not their order: {inspection.reason}")
    mistakes = []
    for name, rule in RULES.items():
        found: dict[str, str] = {}
        for path, what in rule(inspection):
            found.setdefault(path, what)  # if a layer is called several times, its first call with the mistake counts
        mistakes += [Mistake(name, path, what, *KNOWN[name]) for path, what in found.items()]
    return Mistakes(mistakes)


def dropout_before_batch_normalisation(model: Inspection) -> Found:
    """Find dropout of single units before a batch normalisation that learns its statistics.

    With data, the shift of the variance at the normalisation is measured; one below 10 % is not reported.
    """
    first = model.reached(lambda layer: isinstance(layer, kinds.NORMALISATIONS))
    pairs = []
    for call in filter(lambda call: drops_units(call.layer), model.dropouts):
        norms = [each for each in first[call] if isinstance(each.layer, keras.layers.BatchNormalization) and each.layer.trainable]
        pairs += [(call, norms)] if norms else []
    all_norms = [*{norm: None for _, norms in pairs for norm in norms}]
    shifts = model.measured(lambda: model.variance_shift(all_norms)) if model.data is not None and pairs else None
    for call, norms in pairs:
        if shifts is not None:
            norms = [each for each in norms if each in shifts and abs(shifts[each].mean - 1) > _SMALL_SHIFT]
            if not norms:
                continue
            shift = shifts[norms[0]]
            size = (
                f"the variance there is in training {shift.mean:.2f} times that at prediction (mean of {shift.channels} channels, "
                f"{shift.least:.2f} to {shift.greatest:.2f}; measured on {shift.rows} rows of the data)"
            )
        elif norms[0] in model.graph.after(call):
            factor = 1 / (1 - rate(call.layer)) if rate(call.layer) < 1 else 0
            size = f"the variance there is in training {factor:.3g} times that at prediction, or more where the mean is not 0"
        else:
            size = "give data to have the shift of the variance there measured"
        more = f" and {len(norms) - 1} more" if len(norms) > 1 else ""
        yield call.path, f"{_named(call)} stands before the batch normalisation {norms[0].path!r}{more}: {size}."


def dropout_before_masking(model: Inspection) -> Found:
    """Find dropout of the values that a padding mask is computed from: by Masking, mask_zero or an explicit comparison.

    The masks in training are compared with those at prediction, on the data or on sequences whose second half is padding.
    """
    on_ids = _on_ids(model)
    for call, users in model.masked_by().items():
        if call in on_ids:
            continue
        first = f"the mask of {users[0][0].path!r}" + (f" and {len(users) - 1} more" if len(users) > 1 else "")
        errors = model.mask_errors(users)
        if errors is None:
            yield call.path, f"{_named(call)} drops what {first} is computed from; give data to have the effect measured."
        elif errors.counted or errors.lost:
            on = f"{errors.rows} rows of the data" if model.data is not None else "made-up sequences"
            what = f"{_named(call)} drops what {first} is computed from: in training {errors.counted:.0%} of the padded steps count"
            yield call.path, f"{what} as data, and {errors.lost:.0%} of the others as padding (measured on {on})."


def dropout_of_ids(model: Inspection) -> Found:
    """Find dropout that multiplies the ids that go into an embedding."""
    for call, embedding in _on_ids(model).items():
        yield call.path, f"{_named(call)} drops and multiplies the ids that the embedding {embedding.path!r} looks up."


def dropout_after_softmax(model: Inspection) -> Found:
    """Find dropout on probabilities, except for weights of an attention or of a mixture, which are multiplied with something."""
    sources, users = model.sources(keeps_values), model.reached(_changes_values)
    for call in model.dropouts:
        source = sources[call]
        if source is None or activation(source.layer) != "softmax":
            continue
        if all(len(set(user.inputs)) == 1 for user in users[call]):
            yield call.path, f"{_named(call)} drops probabilities, those of the softmax of {source.path!r}."


def dropout_on_logits(model: Inspection) -> Found:
    """Find dropout behind the output layer, on the values that the loss sees; behind a softmax it is dropout-after-softmax.

    A model without a loss may give features instead of predictions: it is reported only if its last layer is one for predictions.
    """

    def passes(layer: Any) -> bool:
        return keeps_values(layer) or (activation(layer) is not None and not attribute(layer, "weights"))

    sources, befores, leading_out = model.sources(passes), model.sources(keeps_values), model.leading_out(passes)
    has_loss = model.model.compiled and attribute(model.model, "loss") is not None
    seen = "the loss sees" if has_loss else "a loss on the model's outputs sees"
    for call in model.dropouts:
        source, before = sources[call], befores[call]
        if source is None or before is None or call not in leading_out:
            continue
        ends_with = activation(before.layer)
        if ends_with != "softmax" and (has_loss or ends_with in _OF_OUTPUTS or before.options.get("reverse")):
            yield call.path, f"{_named(call)} stands behind the output layer {source.path!r}: {seen} what is dropped at random."


def elementwise_on_convolution_maps(model: Inspection) -> Found:
    """Find dropout of single units on the maps of a 2D or 3D convolution, before they become vectors."""
    convolutions = _convolutions_behind(model)
    for call in model.dropouts:
        source = convolutions[call] if drops_units(call.layer) else None
        if source is None:
            continue
        convolution = bare(source.layer)
        rank = len(convolution.kernel_size)
        first = convolution.data_format == "channels_first"
        if any(size != 1 for size in (call.shape[-rank:] if first else call.shape[-rank - 1 : -1])):
            what = f"{_named(call)} drops single units of maps of shape {call.shape}, those of the convolution {source.path!r}."
            yield call.path, what


def _together(rule: Callable[[Inspection], Iterator[tuple[str, Any, str]]]) -> Callable[[Inspection], Found]:
    """Let a rule that yields (path, layer, finding) have one entry for all layers with the same finding."""

    @functools.wraps(rule)
    def together(model: Inspection) -> Found:
        alike: dict[str, list[tuple[str, Any]]] = {}
        for path, layer, said in rule(model):
            alike.setdefault(said, []).append((path, layer))
        for said, ((path, layer), *others) in alike.items():
            names = ", ".join([other for other, _ in others[:3]] + ["…"] * (len(others) > 3))
            more = f" The same holds for {len(others)} more: {names}." if others else ""
            yield path, f"{_called(layer)} {said}.{more}"

    return together


@_together
def keras_rate_0(model: Inspection) -> Iterator[tuple[str, Any, str]]:
    """Find a dropout layer of Keras that was made with rate 0, whose rate can never be raised."""
    for path, layer in model.layers:
        if isinstance(layer, kinds.KERAS_DROPOUT) and attribute(layer, "seed_generator") is None:
            now = f"and its rate is now {rate(layer):g}: it cannot be trained" if rate(layer) else "and drops nothing"
            yield path, layer, f"was made with rate 0 {now}"


def alpha_without_selu(model: Inspection) -> Found:
    """Find alpha dropout behind an activation other than SELU."""
    sources, users = model.sources(keeps_values), model.reached(_changes_values)
    for call in filter(lambda call: isinstance(bare(call.layer), _ALPHA), model.dropouts):
        source = sources[call]
        if source is None:
            continue
        found = activation(source.layer)
        before_selu = found == "linear" and any(activation(user.layer) == "selu" for user in users[call])
        if found not in (None, "selu") and not before_selu:
            yield call.path, f"{_named(call)} stands behind {source.path!r}, whose activation is {found}, not selu."


def selu_with_plain_dropout(model: Inspection) -> Found:
    """Find dropout that sets units to 0 behind SELU."""
    sources = model.sources(keeps_values)
    for call in model.dropouts:
        plain = drops_units(call.layer) or isinstance(bare(call.layer), kinds.CHANNEL_DROPOUT)
        source = sources[call] if plain else None
        if source and activation(source.layer) == "selu":
            yield call.path, f"{_named(call)} stands behind {source.path!r}, whose activation is selu."


def shared_seed(model: Inspection) -> Found:
    """Find several dropout layers with one seed."""
    for (_, seed), paths in _seeds(model).items():
        if len(paths) > 1:
            yield paths[0], f"{len(paths)} dropout layers have the seed {seed}: {', '.join(paths)}."


def neighbouring_seeds(model: Inspection) -> Found:
    """Find, on torch, dropout layers of Keras whose seeds are less than 1000 apart."""
    theirs = sorted((seed, paths[0]) for (ours, seed), paths in _seeds(model).items() if not ours)
    for (seed, path), (later, other) in itertools.pairwise(theirs):
        if keras.backend.backend() == "torch" and later - seed < _FEW_STEPS:
            yield other, f"{other!r} (seed {later}) draws at each step what {path!r} (seed {seed}) draws {later - seed} later."


@_together
def recurrent_dropout(model: Inspection) -> Iterator[tuple[str, Any, str]]:
    """Find an LSTM or GRU whose recurrent_dropout is all that keeps it from the fused kernel."""
    for path, layer in model.layers:
        inner = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
        if not isinstance(inner, (keras.layers.LSTM, keras.layers.GRU)) or not number(inner.recurrent_dropout):
            continue
        names = [getattr(each, "__name__", "") for each in (inner.activation, inner.recurrent_activation)]
        fits = names == ["tanh", "sigmoid"] and inner.use_bias and not inner.unroll and getattr(inner, "reset_after", True)
        if fits and inner.use_cudnn in ("auto", True):
            option = f"recurrent_dropout={number(inner.recurrent_dropout):g}"
            yield path, inner, f"with {option} cannot use the fused kernel, that of cuDNN on a GPU"


@_together
def attention_dropout(model: Inspection) -> Iterator[tuple[str, Any, str]]:
    """Find an attention of Keras whose dropout is all that keeps it from fused attention, at prediction too."""
    calls = [call for call in model.graph.calls if type(call.layer) in kinds.ATTENTIONS]
    unfused = [call for call in calls if call.options.get("return_attention_scores") or len(call.shape) != 2]
    never = {id(call.layer) for call in unfused} - {id(call.layer) for call in calls if call not in unfused}
    for path, layer in model.layers:
        dropped = number(layer.get_config()["dropout"]) if type(layer) in kinds.ATTENTIONS and id(layer) not in never else 0
        if dropped > 0:
            yield path, layer, f"with dropout={dropped:g} cannot use fused attention, at prediction neither"


def live_rate(model: Inspection) -> Found:
    """Suspect a rate set on a layer of Keras in a model whose training step is compiled, on JAX and TensorFlow."""
    compiled = getattr(model.model, "train_function", None) is not None and not model.model.run_eagerly
    keras_layers = [(path, layer) for path, layer in model.layers if type(layer) in kinds.KERAS_DROPOUT]
    for path, layer in keras_layers if compiled and keras.backend.backend() != "torch" else ():
        made = getattr(getattr(layer, "_auto_config", None), "config", {}).get("rate")
        if made is not None and rate(layer) != number(made):
            old, now = f"{number(made):g}", f"its rate is now {rate(layer):g}, and the training step is compiled"
            yield path, f"{_called(layer)} was made with rate {old}, {now}: if that was before the change, {old} it is."


def training_frozen(model: Inspection) -> Found:
    """Find a call with training=True fixed in the graph, of a layer or nested model that drops something."""
    for path, layer in model.frozen:
        if contains_dropout(layer):
            what = f"{_called(layer)} is called with training=True in the graph"
            yield path, f"{what}: it drops in model(x), and does not in predict and evaluate."


def drops_at_prediction(model: Inspection) -> Found:
    """Find a user's layer with dropout in it, whose output at training=False differs from call to call."""
    own = {id(layer) for _, layer in model.foreign() if contains_dropout(layer)}
    calls = [call for call in model.graph.calls if id(call.layer) in own]
    for call in (calls and model.measured(lambda: model.varying(calls))) or ():
        yield call.path, f"{_called(call.layer)} gives another output at each call with training=False."
    if model.reason and contains_dropout(model.model):
        (one, two), _ = model.measured(lambda: model.predict(2, training=False)) or (([], []), [])
        if differ(one, two):
            what = f"{_called(model.model)} gives another output at each call with training=False"
            yield model.model.name, f"{what}: most likely it calls its dropout with training=True."


def mc_wrapper_batch_normalisation(model: Inspection) -> Found:
    """Find a wrapper, model or call that turns training on at prediction for batch normalisation too, like Monte-Carlo wrappers."""
    holders = [*model.frozen, *model.foreign(), *([(model.model.name, model.model)] if model.reason else [])]
    holders = [(path, layer) for path, layer in holders if isinstance(layer, keras.Layer) and _norms(layer)]
    moves = model.measured(lambda: (model.predict()[1], model.predict(training=False)[1])) if holders else None
    if moves is None:
        return
    plain, off = moves
    told: set[int] = set()
    for path, layer in holders:
        moved = [norm for norm in _norms(layer) if (norm in plain or norm in off) and id(norm) not in told]
        if moved:
            told |= {id(norm) for norm in moved}
            where = "model(x), predict and evaluate" if moved[0] in off else "model(x)"
            what = f"{_called(layer)} has {len(moved)} batch normalisation{'s' * (len(moved) > 1)} in training at prediction"
            yield path, f"{what}: {where} changed the moving statistics of {moved[0].name!r}."


def keep_probability_as_rate(model: Inspection) -> Found:
    """Suspect a rate above 0.5 on an input, or of 0.8 and more elsewhere, that reads like a probability to keep."""
    sources = model.sources(lambda layer: keeps_values(layer) or kinds.is_preprocessing(type(layer)))
    for call in filter(lambda call: drops_units(call.layer), model.dropouts):
        value, source = rate(call.layer), sources[call]
        if value >= 0.8 or (value > 0.5 and source is None):
            where = "of an input" if source is None else "of what goes into it"
            what = f"{_called(call.layer)} drops {100 * value:g} % {where}"
            yield call.path, f"{what}; suspicion: {value:g} may be meant as what is kept."


RULES: dict[str, Callable[[Inspection], Found]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        dropout_before_batch_normalisation,
        dropout_before_masking,
        dropout_of_ids,
        dropout_after_softmax,
        dropout_on_logits,
        elementwise_on_convolution_maps,
        keras_rate_0,
        alpha_without_selu,
        selu_with_plain_dropout,
        shared_seed,
        neighbouring_seeds,
        recurrent_dropout,
        attention_dropout,
        live_rate,
        training_frozen,
        drops_at_prediction,
        mc_wrapper_batch_normalisation,
        keep_probability_as_rate,
    )
}


def _called(layer: Any) -> str:
    return f"{type(layer).__name__} {layer.name!r}"


def _named(call: Call) -> str:
    return f"{type(call.layer).__name__} {call.path!r} (rate {rate(call.layer):g})"


def _changes_values(layer: Any) -> bool:
    return not keeps_values(layer)


def _on_ids(model: Inspection) -> dict[Call, Call]:
    """Return the dropout calls whose outputs an embedding looks up, with its call; an embedding in reverse looks up nothing."""
    users, found = model.reached(_changes_values), {}
    for call in model.dropouts:
        for user in users[call] if not isinstance(bare(call.layer), layers.WordDropout) else ():
            looks_up = len(user.node.outputs[0].shape) > len(user.node.input_tensors[0].shape)
            if isinstance(bare(user.layer), keras.layers.Embedding) and looks_up:
                found[call] = user
    return found


def _norms(layer: keras.Layer) -> list[keras.layers.BatchNormalization]:
    return [each for each in layer._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]


def _seeds(model: Inspection) -> dict[tuple[bool, int], list[str]]:
    """Return the paths of the dropout layers with each seed, ours and Keras's apart; how others use their seeds is unknown."""
    found: dict[tuple[bool, int], list[str]] = {}
    for path, layer in model.layers:
        ours, seed = isinstance(layer, Stochastic), attribute(layer, "seed")
        if (ours or (isinstance(layer, kinds.KERAS_DROPOUT) and rate(layer) > 0)) and isinstance(seed, int):
            found.setdefault((ours, seed), []).append(path)
    return found


def _convolutions_behind(model: Inspection) -> dict[Call, Call | None]:
    """Return, for each call, the convolution whose maps it gets, possibly through layers that keep them maps."""
    found: dict[Call, Call | None] = {}
    for call in model.graph.calls:
        found[call] = None
        for before in model.graph.before(call):
            layer = bare(before.layer)
            if isinstance(layer, kinds.MAP_CONVOLUTIONS):
                found[call] = before
            elif isinstance(layer, _KEEP_MAPS) or not attribute(layer, "weights"):
                found[call] = found[before] if len(before.shape) == len(call.shape) else None
            if found[call]:
                break
    return found
