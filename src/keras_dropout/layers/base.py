"""The shared parts of the layers: rates and a stream of masks as state, saved and configured once for all of them."""

import math
import numbers
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_dropout import noise
from keras_dropout.errors import check_choice, check_rate, refuse
from keras_dropout.masks import Stream


class Rate:
    """An attribute of a layer that holds a rate in a variable: setting it takes effect at the next step, without compiling again.

    `one_is` says why the rate cannot be 1; None allows it. `follows` names the rate to use while this one is None. The variable is
    then -1, because the other rate's variable may be set without this layer's knowledge.
    """

    def __init__(self, one_is: str | None = None, follows: str = ""):
        self.one_is, self.follows = one_is, follows

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        own = self.own(layer)
        return getattr(layer, self.follows) if own is None and self.follows else own

    def __set__(self, layer: Any, value: float | None) -> None:
        value = -1.0 if value is None and self.follows else self.check(layer, value)
        if hasattr(layer.state, self.name):
            getattr(layer.state, self.name).assign(value)
        else:
            options: Any = {"dtype": "float32", "trainable": False, "autocast": False, "name": self.name}
            # Not a value: a layer may be made while Keras looks for the shape of another one's output.
            variable = keras.Variable(lambda shape, dtype: ops.convert_to_tensor(value, dtype), shape=(), **options)
            setattr(layer.state, self.name, variable)

    def own(self, layer: Any) -> float | None:
        """Return the rate that was set; None while it follows another."""
        value = np.float32(ops.convert_to_numpy(getattr(layer.state, self.name)))
        return None if value < 0 else float(np.format_float_positional(value, unique=True))  # 0.2, not 0.20000000298

    def now(self, layer: Any) -> Any:
        """Return the rate in a step, where it may follow another."""
        own, other = (ops.convert_to_tensor(getattr(layer.state, name)) for name in (self.name, self.follows))
        return ops.where(own < 0, other, own)

    def check(self, layer: Any, value: Any) -> float:
        rate = check_rate(type(layer).__name__, value, self.name, self.one_is)
        if self.one_is and np.float32(rate) == 1:  # as the variable holds it
            told = f"{type(layer).__name__}: {self.name} must be in [0, 1); got {value!r}, which is 1 in float32."
            refuse(told, f"At rate 1 {self.one_is}; use a smaller rate.")
        return rate


class Number(Rate):
    """An attribute held in a variable like a `Rate`: a finite number, of at least `least` if that is given."""

    def __init__(self, fix: str, least: float = -math.inf):
        super().__init__()
        self.fix, self.least = fix, least

    def check(self, layer: Any, value: Any) -> float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if real and math.isfinite(value) and value >= self.least:
            return float(value)
        range_ = "" if self.least == -math.inf else f" of at least {self.least:g}"
        refuse(f"{type(layer).__name__}: {self.name} must be a finite number{range_}; got {value!r}.", self.fix)


# To a type checker, a mixin of a layer is a layer.
if TYPE_CHECKING:
    from keras import Layer as _Mixin
else:
    _Mixin = object


class Stochastic(_Mixin):
    """The random state of a layer: its rates and its stream of masks. It comes first among the bases of a Keras layer.

    Rates and stream are in `variables`, so that every backend carries them through a step, and in saved files, so that resumed
    training continues with the masks it would have had. They are not in `weights`: their lists are those without dropout.
    """

    state: SimpleNamespace
    in_config: tuple[str, ...] = ()  # arguments of the constructor, besides the rates and the seed, that are in the layer's config

    def start(self, seed: int | None, **rates: float) -> None:
        """Make the state. Call it once, after Keras's own constructor."""
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
            refuse(f"{type(self).__name__}: seed must be a whole number or None; got {seed!r}.", "Leave it out for a random one.")
        self.seed = None if seed is None else int(seed)
        # In a plain object: Keras would count variables that are attributes of the layer as weights.
        self.state = SimpleNamespace()
        self.__dict__["saved_state"] = _SavedState(self.state)  # hidden from layer tracking, still saved
        for name, rate in rates.items():
            setattr(self, name, rate)
        self.stream = Stream(self.seed)
        self.state.stream = self.stream.state
        self.supports_masking = True

    @classmethod
    def free_rates(cls) -> set[str]:
        """Return the names of the rates that can be changed without compiling again."""
        return {name for base in cls.__mro__ for name in vars(base) if isinstance(getattr(cls, name, None), Rate)}

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *vars(self.state).values()]

    def get_config(self) -> dict:
        held = {name: getattr(type(self), name, None) for name in vars(self.state)}
        rates = {name: rate.own(self) for name, rate in held.items() if isinstance(rate, Rate)}
        more = (name for cls in reversed(type(self).__mro__) for name in vars(cls).get("in_config", ()))
        return {**super().get_config(), **rates, "seed": self.seed, **{name: getattr(self, name) for name in more}}


class _SavedState(keras.Layer):
    """A layer's random state in saved files, in a place of its own beside the layer's weights.

    Keras's dropout does not read this place, and ours works without it: files of weights move between models with either.
    """

    def __init__(self, state: SimpleNamespace):
        super().__init__()
        self.state = state

    def save_own_variables(self, store: dict) -> None:
        for name, variable in vars(self.state).items():
            value = ops.convert_to_numpy(variable)
            store[name] = value.astype("uint32") if name == "stream" else value

    def load_own_variables(self, store: dict) -> None:
        stored = set(store.keys())  # Keras's stores cannot be iterated
        for name, variable in vars(self.state).items():
            if name in stored:
                variable.assign(np.asarray(store[name]))


class MaskLayer(Stochastic, keras.Layer):
    """A layer that drops parts of its input with one rate. A subclass defines which parts, by `mask_shape` or by `drop`."""

    rate = Rate()
    ranks: range | None = None  # of the inputs, if not all are accepted
    at_prediction = False  # whether it is part of the network at prediction too, so that it cannot be left out
    layout = ""  # the axes of the inputs, for the message about a wrong rank

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.start(seed, rate=rate)
        self._build_at_init()

    def mask_shape(self, shape: tuple) -> tuple:
        """Return the shape of the mask for inputs of `shape`: 1 on an axis that shares one draw."""
        return shape

    def drop(self, inputs: Any, state: Any) -> Any:
        """Return the output in training; `state` gives this call's randomness."""
        return noise.bernoulli_product(inputs, state, self.state.rate, self.mask_shape(tuple(ops.shape(inputs))))

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.check_inputs(inputs)
        return self.drop(inputs, self.stream.next()) if training else inputs

    def check_inputs(self, inputs: Any) -> None:
        """Refuse inputs of a dtype or rank that the layer does not support."""
        check_floating(type(self).__name__, inputs)
        if self.ranks is not None and len(inputs.shape) not in self.ranks:
            rank = self.ranks[0] if len(self.ranks) == 1 else f"{self.ranks[0]} or more"
            refuse(
                f"{type(self).__name__}: inputs must have rank {rank}, {self.layout}; got shape {tuple(inputs.shape)}.",
                "Reshape them, or use the layer for this number of axes.",
            )

    def compute_output_spec(self, inputs: Any, *args: Any, **options: Any) -> Any:
        self.check_inputs(inputs)  # already when a model is made, not only when it runs
        return super().compute_output_spec(inputs, *args, **options)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


class NoiseLayer(MaskLayer):
    """A layer like these, without a rate: other numbers than a rate, or none, say what it does."""

    rate: Any = None

    def __init__(self, seed: int | None, **options: Any):
        values = {name: options.pop(name) for name in self.free_rates()}
        super(MaskLayer, self).__init__(**options)
        self.start(seed, **values)
        self._build_at_init()


class RateAtCall(MaskLayer):
    """A mask layer that takes a tensor of rates at the call, one for each draw of its mask. It comes first among the bases."""

    rates_given = False  # whether a call gave it some, so that its own rate says nothing

    def call(self, inputs: Any, training: bool = False, rate: Any = None) -> Any:
        if rate is None:
            return super().call(inputs, training=training)
        self.check_inputs(inputs)
        shape = self.mask_shape(tuple(ops.shape(inputs)))
        self.take_rates(rate, shape)
        return noise.bernoulli_product_at(inputs, self.stream.next(), rate, shape) if training else inputs

    def compute_output_spec(self, inputs: Any, training: bool = False, rate: Any = None) -> Any:
        if rate is not None:
            self.take_rates(rate, self.mask_shape(tuple(inputs.shape)))  # already when a model is made, as `check_inputs`
        return super().compute_output_spec(inputs, training=training)

    def take_rates(self, rates: Any, shape: tuple) -> None:
        """Refuse rates that do not stand for the draws of a mask of `shape`. Fewer axes would be taken for the last ones."""
        given = tuple(rates.shape) if hasattr(rates, "shape") else ()
        off = any(isinstance(n, int) and n != 1 and isinstance(m, int) and n != m for n, m in zip(given, shape))
        if given and (off or len(given) != len(shape)):
            refuse(
                f"{type(self).__name__}: rate at the call must have, for each axis of {shape}, its size or 1; got shape {given}.",
                "One rate per example is (batch, 1, ...), one per unit of the last axis (1, ..., units).",
            )
        if not hasattr(rates, "shape"):
            self.__class__.rate.check(self, rates)
        elif "float" not in (kind := keras.backend.standardize_dtype(rates.dtype)):
            refuse(f"{type(self).__name__}: rate at the call must be floating point; got {kind}.", "Cast it.")
        self.rates_given = True


class LayerWrapper(Stochastic, keras.layers.Wrapper):
    """A layer that wraps another one and changes its computation. A subclass calls `start`."""

    def __init__(self, layer: keras.Layer, **kwargs: Any):
        if not isinstance(layer, keras.Layer):
            refuse(
                f"{type(self).__name__}: layer must be a Keras layer; got {layer!r}.",
                "Write the rate first, where there is one, then the layer.",
            )
        if kwargs.get("dtype") is None:
            policy = layer.dtype_policy  # of a quantized layer, as in int8_from_float32, without the quantization
            kwargs["dtype"] = policy.name.rpartition("_from_")[2] if policy.quantization_mode else policy
        super().__init__(layer, **kwargs)

    def call_layer(self, inputs: Any, training: bool, values: Iterable[tuple[keras.Variable, Any]] = (), **options: Any) -> Any:
        """Return the wrapped layer's outputs, with other `values` in some of its variables for this call.

        Gradients flow through the values to their sources. Changes that the call makes in other variables stay.
        """
        if self.layer._call_has_training_arg:
            options["training"] = training
        if not values:
            return self.layer(inputs, **options)
        values = list(values)
        given = {id(variable) for variable, _ in values}
        # Name every variable: inside another scope, as in a compiled step, its value is that of the scope.
        values += [(variable, variable.value) for variable in self.inner_variables() if id(variable) not in given]
        with keras.StatelessScope(values, collect_losses=True) as scope:
            before = {id(variable): scope.get_current_value(variable) for variable, _ in values}
            outputs = self.layer(inputs, **options)
        for loss in scope.losses:
            self.add_loss(loss)
            self._loss_ids.discard(id(loss))  # inside another scope the wrapped layer has it already, and it would count twice
        for variable, _ in values:
            after = scope.get_current_value(variable)
            if id(variable) not in given and after is not before[id(variable)]:
                variable.assign(after)
        return outputs

    def activated(self, values: Any) -> Any:
        """Return the wrapped layer's activation of values that the layer itself did not compute."""
        return self.regularized(self.layer.activation(values))

    def regularized(self, outputs: Any) -> Any:
        """Return outputs that no call of the wrapped layer made, and add the loss that its call would have added."""
        outputs = ops.cast(outputs, self.layer.compute_dtype)
        if self.layer.activity_regularizer is not None:
            loss = self.layer.activity_regularizer(outputs)
            self.add_loss(loss / ops.maximum(ops.cast(ops.shape(outputs)[0], loss.dtype), 1))
        return outputs

    def inner_variables(self) -> list[keras.Variable]:
        """Return the variables that a call of the wrapped layer may use or change."""
        return self.layer.variables

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.layer.compute_mask(inputs, previous_mask) if self.layer.supports_masking else None

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.layer.compute_output_shape(input_shape)

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "LayerWrapper":
        layer = keras.saving.deserialize_keras_object(config["layer"], custom_objects=custom_objects)
        return cls(**{**config, "layer": layer})


class MaskWrapper(LayerWrapper):
    """A layer that wraps another one and changes its computation with one rate."""

    rate = Rate()

    def __init__(self, rate: float, layer: keras.Layer, *, seed: int | None = None, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.start(seed, rate=rate)


class ChannelLayer(MaskLayer):
    """A layer for (batch, *spatial, channels), or (batch, channels, *spatial); its mask has one draw per example and channel."""

    in_config: tuple[str, ...] = ("data_format",)

    def __init__(self, rate: float, *, data_format: str | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        value = str(data_format or keras.config.image_data_format()).lower()  # upper or lower case, as in Keras
        self.data_format = check_choice(f"data_format for {type(self).__name__}", value, ("channels_first", "channels_last"))

    def channel_axis(self, rank: int) -> int:
        return rank - 1 if self.data_format == "channels_last" else 1

    def spatial_axes(self, rank: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(1, rank) if axis != self.channel_axis(rank))

    def mask_shape(self, shape: tuple) -> tuple:
        spatial = self.spatial_axes(len(shape))
        return tuple(1 if axis in spatial else n for axis, n in enumerate(shape))


def check_tensor(owner: str, inputs: Any) -> None:
    """Refuse several tensors."""
    if isinstance(inputs, (list, tuple, dict)):
        refuse(f"{owner}: inputs must be one tensor; got a {type(inputs).__name__} of {len(inputs)}.", "Call it on each of them.")


def check_floating(owner: str, *inputs: Any) -> None:
    """Refuse integers and booleans: a mask scales the values it keeps. None is no input."""
    for each in inputs:
        check_tensor(owner, each)
        if each is not None and "float" not in (kind := keras.backend.standardize_dtype(each.dtype)):
            refuse(f"{owner}: inputs must be floating point; got {kind}.", "Cast them, or put the layer behind the embedding.")
