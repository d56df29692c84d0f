"""One thinned network as a separate model: physically smaller, without dropout, equal to the masked one.

A unit is an entry of the last axis: of a vector, or a channel of a feature map. A pass forward through the graph finds which units
are certainly zero; a pass backward finds which ones are used. A layer that is known unit by unit is made anew with the needed units
alone. Any other layer keeps all its units, with zeros where units are dropped: right for every layer that drops nothing itself.
"""

from dataclasses import dataclass, field
from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from keras_dropout.errors import check_whole, refuse
from keras_dropout.layers.base import MaskLayer, RateAtCall
from keras_dropout.layers.units import Select
from keras_dropout.masks import POSITIONS
from keras_dropout.models import graph, kinds
from keras_dropout.models.dropping import is_dropout
from keras_dropout.models.graph import Call
from keras_dropout.sampling import as_trained, contains_dropout, shared_states

L = keras.layers
_NOT_ELEMENTWISE = ("deserialize", "get", "glu", "log_softmax", "serialize", "softmax", "sparsemax")
_ELEMENTWISE = {
    function for name, function in vars(keras.activations).items() if callable(function) and name not in _NOT_ELEMENTWISE
}
_KERNELS = (L.Dense, *kinds.PLAIN_CONVOLUTIONS)
_ACTIVATIONS = (L.Activation, *kinds.UNIT_ACTIVATIONS)
# They move entries within a channel, and a multiple of the input gives the same multiple of the output.
_WITHIN_CHANNELS = (*kinds.POOLINGS, *kinds.UPSAMPLING, *kinds.EDGES)
_SUMS = (L.Add, L.Subtract, L.Average, L.Maximum, L.Minimum)


@graph.leaves_unchanged
def thin(model: keras.Model, seed: int = 0, sample: int = 0) -> keras.Model:
    """Return one of the thinned networks that dropout trains, as a new model without dropout.

        thin(model, seed, k) predicts what sample number k of Passes(model, masks="shared", seed=seed) does, to rounding

    Dropped units are removed: the columns of the kernel and bias that make them, the rows of the kernel that uses them, and
    everything between. The factor 1 / (1 - rate) goes into the next kernel, or into a Rescaling if an activation comes first. If
    something needs a dropped unit, as a sum with another branch or a normalisation does, it stays, and a Rescaling makes it zero.

    Model:         Sequential, functional, with nested models (they are opened), or a subclass that can be followed. It does not
                   change; weights are copied, compile settings are kept.
    Dropout:       Dropout and LockedDropout of units, also in front of a Flatten; SpatialDropout of channels (last axis);
                   StochasticDepth; Keras's own. Others raise `BadInput`; Passes draws the masks of every layer.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    >>> [layer.units for layer in thin(model, seed=1).layers[1:]]
    [6, 1]
    """
    graph.check_model(model)
    check_whole("seed", seed, 0, "It is the seed of the masks.")
    if check_whole("sample", sample, 0, "It is the number of one thinned network, from 0 on.") >= POSITIONS:
        refuse(f"sample must be below 2**32; got {sample}.", "It is the number of one thinned network, from 0 on.")
    trained = as_trained(model)
    source = graph.opened(trained)
    factors = _factors(graph.read(source), trained, seed, sample)  # refused before anything is copied
    copied = graph.copy(source)
    new = _Thinning(copied, factors).model()
    graph.compile_like(new, trained)
    return new


def is_mask(layer: Any) -> bool:
    """Return whether our layer multiplies by an independent keep-or-drop decision for each entry of its mask, and does no more."""
    plain = isinstance(layer, MaskLayer) and type(layer).drop is MaskLayer.drop
    return plain and type(layer).call in (MaskLayer.call, RateAtCall.call) and not getattr(layer, "rates_given", False)


def mask_shape(layer: MaskLayer, shape: tuple, where: str) -> tuple:
    """Return the shape of one example's mask, with its first axis, for inputs of `shape` without the batch."""
    found = layer.mask_shape((1, *shape))
    if any(size is None for size in found):
        refuse(f"{where}: an axis of its mask has no fixed size: {found}.", "Give keras.Input the whole shape.")
    return found


def _factors(read: graph.Graph, model: keras.Model, seed: int, sample: int) -> list[np.ndarray | None]:
    """Return the factors by which each call of a dropout layer multiplies its units; None for the other calls.

    The factors are (units,), or (places, units) if the places of a feature map differ, and only Flatten layers follow the call.
    """
    states = shared_states(model, seed, sample)
    steps: dict[int, int] = {}
    found: list[np.ndarray | None] = []
    for call in read.calls:
        if not contains_dropout(call.layer):
            found.append(None)
            continue
        layer, state = states.get(id(call.layer), (None, None))
        if not is_mask(layer):
            _refuse(call, "drops in a way that no smaller network shows")
        shape = mask_shape(layer, call.shape, call.path)
        users = read.users.get(call.outputs[0], ())
        ends = call.outputs[0] in read.outputs or None in call.shape or not all(type(user.layer) is L.Flatten for user in users)
        single = any(size != 1 for size in shape[1:-1])
        if not call.shape or (single and ends):
            _refuse(call, "drops single entries of a feature map, or channels on another axis than the last")
        state_type = keras.backend.standardize_dtype(state.dtype)
        step = steps[id(layer)] = steps.get(id(layer), -1) + 1
        ones = ops.ones((1, *(1 if size is None else size for size in call.shape)), "float32")
        dropped = layer.drop(ones, state + ops.convert_to_tensor(np.array([0, 0, step], state_type)))
        places = ops.convert_to_numpy(dropped).reshape(-1, call.shape[-1])
        found.append(places if single else places[0])  # one place of a feature map stands for all
    if all(factor is None for factor in found):
        refuse(
            f"the model {model.name!r} has no dropout layer with a rate above 0 to thin it by.",
            "Put one in: keras_dropout.place(model, {'last': 0.2}).",
        )
    return found


def _refuse(call: Call, why: str) -> NoReturn:
    refuse(
        f"{type(call.layer).__name__} {call.path!r} {why}.",
        "thin takes Dropout of vectors or before Flatten, and SpatialDropout (channels last); sampling.Passes takes all.",
    )


@dataclass
class _Step:
    """A call: its kind, and, once known, which units of its inputs and of its output are in the new network."""

    call: Call
    kind: str
    factor: np.ndarray | None
    wants: list[np.ndarray] = field(default_factory=list)
    makes: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


class _Thinning:
    """The new network, made from a copy of the old one. `zero`, `need` and `has` hold a boolean for each unit of each tensor."""

    def __init__(self, copied: keras.Model, factors: list[np.ndarray | None]):
        self._old, self._read = graph.functional(copied), graph.read(copied)
        called = [id(call.layer) for call in self._read.calls]
        self._shapes = {number: shape for _, number, shape, _ in self._read.inputs}
        for call in self._read.calls:
            self._shapes |= {number: tuple(tensor.shape[1:]) for number, tensor in zip(call.outputs, call.node.outputs)}
        self._steps = [
            _Step(call, self._kind(call, factor, called.count(id(call.layer)) > 1), factor)
            for call, factor in zip(self._read.calls, factors, strict=True)
        ]
        self._drop_behind_flatten()
        self._zero, self._need = ({number: np.zeros(self._units(number), bool) for number in self._shapes} for _ in range(2))

    def _drop_behind_flatten(self) -> None:
        """Move the dropout of single entries of a feature map behind the Flatten that follows."""
        for step in self._steps:
            if step.kind == "dropout" and step.factor is not None and step.factor.ndim == 2:
                for user in self._steps:
                    if step.call.outputs[0] in user.call.inputs:
                        user.factor = step.factor.ravel()
                step.kind, step.factor = "same", None

    def model(self) -> keras.Model:
        for step in self._steps:
            if step.kind != "whole":
                self._zero[step.call.outputs[0]] = self._zeros(step)
        for number in self._read.outputs:
            self._need[number][:] = True
        for step in reversed(self._steps):
            step.wants, step.makes = self._uses(step)
            for number, wanted in zip(step.call.inputs, step.wants):
                self._need[number] |= wanted
        return self._build()

    def _units(self, number: int) -> int:
        """Return the number of units of a tensor; 1 if they cannot be told apart."""
        shape = self._shapes[number]
        return shape[-1] if shape and shape[-1] is not None else 1

    def _kind(self, call: Call, factor: np.ndarray | None, shared: bool) -> str:
        layer, sizes = call.layer, [self._units(number) for number in (*call.inputs, *call.outputs)]
        if factor is not None:
            return "dropout"
        if is_dropout(layer):  # with rate 0
            return "same"
        if not isinstance(layer, keras.Layer) or len(call.outputs) != 1 or (shared and layer.weights):
            return "whole"
        kind, shapes = type(layer), [self._shapes[number] for number in (*call.inputs, *call.outputs)]
        if kind in (*_SUMS, L.Multiply):
            return "merge" if len(set(sizes)) == 1 and len(set(map(len, shapes))) == 1 else "whole"
        if kind is L.Concatenate:
            return "concatenate" if layer.axis in (-1, len(call.shape)) and sum(sizes[:-1]) == sizes[-1] else "whole"
        if len(call.inputs) != 1 or getattr(layer, "data_format", None) == "channels_first":
            return "whole"
        if kind in _KERNELS:
            plain = getattr(layer, "groups", 1) == 1 and not getattr(layer, "lora_enabled", False)
            return "kernel" if plain and not getattr(layer, "quantization_mode", None) else "whole"
        if kind is L.Flatten:
            return "flatten" if None not in shapes[0] and shapes[0] else "whole"
        if kind in _WITHIN_CHANNELS:
            return "within"
        if kind is L.BatchNormalization:
            return "unitwise" if layer.axis in (-1, len(call.shape)) else "whole"
        if kind in _ACTIVATIONS:
            return "unitwise" if kind is not L.Activation or layer.activation in _ELEMENTWISE else "whole"
        return "whole"

    def _zeros(self, step: _Step) -> np.ndarray:
        """Return which units of a call's output are zero whatever the input."""
        call, known = step.call, [self._zero[number] for number in step.call.inputs]
        if step.kind == "dropout":
            return known[0] | (step.factor == 0)
        if step.kind == "merge":
            return (np.logical_or if type(call.layer) is L.Multiply else np.logical_and).reduce(known)
        if step.kind == "concatenate":
            return np.concatenate(known)
        if step.kind == "flatten":
            zero = np.resize(known[0], self._units(call.outputs[0]))
            return zero if step.factor is None else zero | (step.factor == 0)
        if step.kind == "unitwise":
            if not known[0].any():
                return known[0]
            shape = [1 if size is None else size for size in self._shapes[call.inputs[0]]]
            of_zero = ops.convert_to_numpy(call.layer(ops.zeros((1, *shape), call.dtype), training=False))
            return known[0] & (of_zero == 0).all(axis=tuple(range(len(shape))))
        return known[0] if step.kind in ("same", "within") else self._zero[call.outputs[0]]

    def _uses(self, step: _Step) -> tuple[list[np.ndarray], np.ndarray]:
        """Return which units of its inputs a call uses, and which units it then outputs. There is always at least one."""
        call, needed = step.call, self._need[step.call.outputs[0]]
        if step.kind == "kernel":
            wanted = ~self._zero[call.inputs[0]]
            elementwise = call.layer.activation in _ELEMENTWISE
            return [_one_at_least(wanted)], needed if elementwise else np.ones_like(needed)
        if step.kind == "flatten":
            wanted = np.logical_or.reduce(needed.reshape(-1, self._units(call.inputs[0])))
            return [wanted], np.resize(wanted, len(needed)) if step.factor is None else needed
        if step.kind == "concatenate":
            ends = np.cumsum([self._units(number) for number in call.inputs])
            wants = [_one_at_least(part) for part in np.split(needed, ends[:-1])]
            return wants, np.concatenate(wants)
        if step.kind == "whole":
            return [np.ones(self._units(number), bool) for number in call.inputs], np.ones_like(needed)
        return [needed for _ in call.inputs], needed

    def _build(self) -> keras.Model:
        inputs = keras.tree.map_structure(graph.fresh_input, self._old.input)
        flat = keras.tree.flatten(inputs)
        self._values = dict(enumerate(flat))
        self._has = {number: np.ones(self._units(number), bool) for number in self._values}
        self._scales: dict[int, float] = {}  # the factor by which a tensor is still to be multiplied
        self._selected: dict[tuple, Any] = {}
        self._names = {graph.input_name(tensor) for tensor in flat}
        self._named: set[int] = set()
        for step in self._steps:
            made = keras.tree.flatten(self._call(step))
            self._values.update(zip(step.call.outputs, made))
            for number in step.call.outputs:
                self._has[number] = np.ones(self._units(number), bool) if step.kind == "whole" else step.makes
        outputs = [self._part(number, np.ones(self._units(number), bool)) for number in self._read.outputs]
        outputs = keras.tree.pack_sequence_as(self._old.output, outputs)
        new = keras.Model(inputs, outputs, name=self._old.name)
        if not self._old.trainable:
            new.trainable = False
        return new

    def _call(self, step: _Step) -> Any:
        call = step.call
        tensors = [self._part(number, wanted) for number, wanted in zip(call.inputs, step.wants)]
        before = self._scales.get(call.inputs[0], 1.0) if call.inputs else 1.0
        if step.kind == "dropout":
            return self._drop(step, tensors[0], before)
        if step.kind == "flatten" and step.factor is not None:
            channels, output = step.wants[0], call.outputs[0]
            flat = L.Flatten.from_config(call.layer.get_config() | {"name": self._name(call)})(tensors[0])
            self._values[output], self._has[output] = flat, np.resize(channels, len(step.makes))
            return self._drop(step, self._part(output, step.makes), before)
        if step.kind in ("same", "within", "flatten"):
            self._scales[call.outputs[0]] = before
        if step.kind == "same":
            return tensors[0]
        if step.kind != "whole" and (before != 1 or not all(each.all() for each in (*step.wants, step.makes))):
            layer = self._smaller(step, before if step.kind == "kernel" else 1.0)
            arguments = [tensors] if step.kind in ("merge", "concatenate") else tensors
            return layer(*arguments)
        args, options = call.node.arguments.fill_in({id(old): new for old, new in zip(call.node.input_tensors, tensors)})
        options.pop("training", None)  # as at prediction, even where a call fixes it
        if id(call.layer) not in self._named:
            self._named.add(id(call.layer))
            if (name := self._name(call)) != call.layer.name:
                call.layer.name = name
        return call.layer(*args, **options)

    def _drop(self, step: _Step, tensor: Any, before: float) -> Any:
        assert step.factor is not None  # it is a dropout, or a Flatten that took over the factor of one
        output, factor = step.call.outputs[0], step.factor[step.makes]
        if (factor == 0).any():  # something needs the dropped units as zeros
            scale: Any = [float(each) for each in factor * before]
        else:
            scale = float(factor[0]) * before
            if self._can_wait(output):
                self._scales[output] = scale
                return tensor
        return tensor if scale == 1 else L.Rescaling(scale, dtype=step.call.layer.dtype_policy, name=self._name(step.call))(tensor)

    def _can_wait(self, number: int) -> bool:
        """Return whether only kernels come next, so that they can absorb a factor of this tensor."""
        users = [step for step in self._steps if number in step.call.inputs]
        return number not in self._read.outputs and all(
            step.kind == "kernel"
            or (step.kind in ("same", "within", "flatten", "dropout") and self._can_wait(step.call.outputs[0]))
            for step in users
        )

    def _part(self, number: int, wanted: np.ndarray) -> Any:
        """Return a tensor with only its wanted units."""
        there, tensor = self._has[number], self._values[number]
        if (there == wanted).all():
            return tensor
        key = number, wanted.tobytes()
        if key not in self._selected:
            self._selected[key] = Select(np.flatnonzero(wanted[there]), dtype=tensor.dtype)(tensor)
        return self._selected[key]

    def _smaller(self, step: _Step, scale: float) -> keras.Layer:
        """Return the layer made anew with the units that it has in this network."""
        old, wanted, made = step.call.layer, step.wants[0], step.makes
        config = old.get_config() | {"name": self._name(step.call)}
        if step.kind == "kernel":
            config["units" if type(old) is L.Dense else "filters"] = int(made.sum())
        new = type(old).from_config(config)
        if old.weights:
            new.build((None, *self._shapes[step.call.inputs[0]][:-1], int(wanted.sum())))
            if step.kind == "kernel":
                kernel, *bias = old.get_weights()
                kernel = (kernel.astype("float32") * np.float32(scale)).astype(kernel.dtype)
                new.set_weights([kernel[..., wanted, :][..., made], *(each[made] for each in bias)])
            else:
                new.set_weights([w[..., made] if w.shape[-1] == len(made) else w for w in old.get_weights()])
        new.trainable = old.trainable
        return new

    def _name(self, call: Call) -> str:
        """Return the name of a call's layer; if it is taken, put the nested models before it or a number behind it."""
        first = call.layer.name
        names = [first, call.path.replace("/", "_"), *(f"{first}_{number}" for number in range(1, len(self._steps) + 2))]
        name = next(name for name in names if name not in self._names)
        self._names.add(name)
        return name


def _one_at_least(wanted: np.ndarray) -> np.ndarray:
    """Return `wanted`, or the first unit if none is wanted: a layer needs at least one. It adds nothing, being zero or unused."""
    return wanted if wanted.any() else np.arange(len(wanted)) == 0


def sizes(model: keras.Model) -> list[tuple[str, str, int, int]]:
    """Return (path, class, units, parameters) of each layer with weights, in the order of the data."""
    calls = {id(call.layer): call for call in graph.read(as_trained(model)).calls if getattr(call.layer, "weights", ())}
    return [
        (call.path, type(call.layer).__name__, call.shape[-1] if call.shape else 1, call.layer.count_params())
        for call in calls.values()
    ]
