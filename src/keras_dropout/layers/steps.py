"""Layers that drop along the steps of a sequence: inputs, hidden states and updates of recurrent layers."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_dropout import masks, noise
from keras_dropout.errors import check_choice, refuse
from keras_dropout.layers.base import MaskLayer, MaskWrapper, Rate, check_floating

__all__ = ["LockedDropout", "RecurrentDropout", "VariationalRNNDropout", "Zoneout"]


@keras.saving.register_keras_serializable("keras_dropout")
class LockedDropout(MaskLayer):
    """Drop the same units at every step of a sequence, and scale the others up so that the mean is kept.

        y = x * m / (1 - rate),    m ~ Bernoulli(1 - rate), one draw per example and unit, the same at all steps

    Shapes:        (batch, steps, ..., features) -> the same; rank 3 or more.
    Inference:     y = x.
    Arguments:     rate: fraction of units dropped, in [0, 1]; 1 gives zeros. seed: whole number.
    Source:        Gal and Ghahramani 2016, arXiv:1512.05287; under this name Merity, Keskar and Socher 2018, arXiv:1708.02182.
    Differs from:  nothing for rank 3, where SpatialDropout1D is the same layer with the same masks: this name says what it is for.
                   AWD-LSTM's code expects (steps, batch, features) and shares the mask over the batch if given anything else.

    >>> y = np.asarray(LockedDropout(0.5, seed=0)(np.ones((2, 7, 8), "float32"), training=True))
    >>> bool((y == y[:, :1]).all()), bool((y[0] == y[1]).all())
    (True, False)
    """

    ranks = range(3, 99)
    layout = "(batch, steps, ..., features)"

    def mask_shape(self, shape: tuple) -> tuple:
        return (shape[0], 1, *shape[2:])


def _of_layer(name: str) -> property:
    """Return an attribute of the wrapped layer as one of the wrapper, which Keras's Bidirectional reads and sets."""
    return property(lambda self: getattr(self.layer, name), lambda self, value: setattr(self.layer, name, value))


class _RecurrentWrapper(MaskWrapper):
    """A wrapper that runs its own steps with the weights of a recurrent layer; Keras's RNN runs the loop.

    A subclass defines the steps. With `plain_inference`, the wrapped layer itself is called at inference.
    """

    plain_inference = True
    cells: tuple[type, ...] = ()  # the supported ones, if not all are
    otherwise = ""  # what to use for another cell

    go_backwards, return_sequences, return_state = map(_of_layer, ("go_backwards", "return_sequences", "return_state"))
    stateful, unroll, zero_output_for_mask = map(_of_layer, ("stateful", "unroll", "zero_output_for_mask"))

    def __init__(self, rate: float, layer: keras.layers.RNN, *, seed: int | None = None, **kwargs: Any):
        if isinstance(layer, keras.Layer):  # the base refuses anything else
            self.check_layer(layer)
        super().__init__(rate, layer, seed=seed, **kwargs)
        if seed is not None and layer.go_backwards:
            self.stream.reseed(masks.derive_seed(seed, "backwards"))  # the two halves of a Bidirectional have one seed

    def check_layer(self, layer: keras.Layer) -> None:
        """Refuse a layer whose steps cannot be run."""
        name = type(self).__name__
        if not isinstance(layer, keras.layers.RNN):
            refuse(
                f"{name}: layer must be a recurrent layer; got {type(layer).__name__}.",
                "Put a cell into keras.layers.RNN first; put a Bidirectional around this layer.",
            )
        if self.cells and type(layer.cell) not in self.cells:
            refuse(
                f"{name}: the layer's cell must be {' or '.join(cell.__name__ for cell in self.cells)}; "
                f"got {type(layer.cell).__name__}.",
                self.otherwise,
            )
        for option in ("dropout", "recurrent_dropout"):
            own = getattr(layer.cell, option, 0)
            if isinstance(own, (int, float)) and own > 0:
                refuse(
                    f"{name}: the layer must not have dropout of its own; it has {option}={own}.",
                    "Set it to 0: this layer runs the steps in its place. For the inputs put a LockedDropout before it.",
                )
        if layer.stateful:
            refuse(f"{name}: the layer must not be stateful.", "Use return_state=True, and pass the states on as initial_state.")

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) != 3:
            refuse(
                f"{type(self).__name__}: inputs must have rank 3, (batch, steps, features); got shape {tuple(input_shape)}.",
                "Reshape them.",
            )
        super().build(input_shape)

    def call(self, inputs: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        check_floating(type(self).__name__, inputs)
        if training or not self.plain_inference:
            outputs = self._loop(*self.steps(inputs, self.stream.next() if training else None), initial_state, mask)
        else:
            outputs = self.call_layer(inputs, False, initial_state=initial_state, mask=mask)
        return keras.tree.map_structure(lambda y: ops.cast(y, self.compute_dtype), outputs)

    def steps(self, inputs: Any, state: Any) -> tuple[Any, list, Callable]:
        """Return the input of each step, the flags that go with it, and the step: (input, *flags, states) -> states.

        The first state is also the output. `state` gives this call's randomness; it is None at inference.
        """
        raise NotImplementedError

    def _loop(self, x: Any, flags: list, step: Callable, initial_state: Any, mask: Any) -> Any:
        # Keras's loop takes one tensor: the masks are joined to the inputs, so that nothing random happens inside the loop.
        parts = [ops.cast(x, self.layer.cell.compute_dtype), *flags]
        ends = list(itertools.accumulate(part.shape[-1] for part in parts))[:-1]

        def call(packed: Any, states: Any) -> tuple[Any, Any]:
            states = step(*(ops.split(packed, ends, axis=-1) if ends else [packed]), states)
            return states[0], states

        layer = self.layer
        loop = keras.layers.RNN(
            _Cell(layer.cell, call),
            return_sequences=layer.return_sequences,
            return_state=layer.return_state,
            go_backwards=layer.go_backwards,
            unroll=layer.unroll,
            zero_output_for_mask=layer.zero_output_for_mask,
            dtype=layer.dtype_policy,
            name=layer.name,
        )
        outputs = loop.call(ops.concatenate(parts, axis=-1), initial_state=initial_state, mask=mask)
        if layer.activity_regularizer is not None:
            for output in keras.tree.flatten(outputs):
                self.add_loss(layer.activity_regularizer(output) / ops.cast(ops.shape(output)[0], output.dtype))
        return outputs

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "_RecurrentWrapper":
        if "go_backwards" in config:  # Bidirectional asks in this way for the same layer in the other direction
            config, wrapped = dict(config), config["layer"]
            # It renames the wrapper alone. Otherwise both halves' weights would have one path, and torch would train one wrongly.
            name = f"backward_{wrapped['config']['name']}"
            turned = {**wrapped["config"], "go_backwards": config.pop("go_backwards"), "name": name}
            config["layer"] = {**wrapped, "config": turned}
        return super().from_config(config, custom_objects)


class _Cell:
    """The parts of a cell that Keras's RNN needs, around a step function: no weights, and nothing that a layer would track."""

    def __init__(self, cell: Any, call: Callable):
        self.state_size, self.compute_dtype = cell.state_size, cell.compute_dtype
        self.get_initial_state = getattr(cell, "get_initial_state", None)
        self.call = call

    def __call__(self, inputs: Any, states: Any) -> tuple[Any, list]:
        return self.call(inputs, states)


@keras.saving.register_keras_serializable("keras_dropout")
class VariationalRNNDropout(_RecurrentWrapper):
    """Drop inputs and hidden states of a recurrent layer, the same units at every step of a sequence.

        step(x_t * m_x / (1 - rate), h_{t-1} * m_h / (1 - recurrent_rate)),    one draw of m_x and m_h per sequence and unit

    m_h acts where h meets the recurrent kernel, one mask for all gates. What a GRU carries over, and an LSTM's cell, stay whole.

    Shapes:        those of the layer: (batch, steps, features) -> (batch, units), or more with return_sequences, return_state.
    Inference:     the layer itself.
    Arguments:     rate: fraction of input units dropped, in [0, 1]. layer: a keras LSTM, GRU or SimpleRNN, or an RNN of such a
                   cell. recurrent_rate: the rate of hidden units; by default it follows `rate`. seed: whole number.
    Source:        Gal and Ghahramani 2016, arXiv:1512.05287, with rates of 0.2 to 0.5. In a stack, each layer's input mask
                   is the mask on the outputs of the one below; words are dropped before the embedding.
    Differs from:  dropout and recurrent_dropout of Keras's layers as Dropout differs from Keras's. Keras's recurrent_dropout makes
                   a separate mask for each gate, also on the inputs, and turns the fused layer off, also at inference. Here rate 1
                   drops all on every backend, and implementation=1 works. torch's LSTM(dropout=...) drops outputs, step by step.

    >>> layer = VariationalRNNDropout(0.25, keras.layers.LSTM(3), seed=0)
    >>> tuple(layer(np.ones((2, 5, 4), "float32"), training=True).shape), len(layer.weights)
    ((2, 3), 3)
    """

    recurrent_rate = Rate(follows="rate")
    cells = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)
    otherwise = "The place of the hidden state in other cells is not known; Zoneout works for any."

    def __init__(
        self,
        rate: float,
        layer: keras.layers.RNN,
        *,
        recurrent_rate: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, layer, seed=seed, **kwargs)
        self.recurrent_rate = recurrent_rate

    def steps(self, inputs: Any, state: Any) -> tuple[Any, list, Callable]:
        batch, _, features = ops.shape(inputs)
        inputs = noise.bernoulli_product(inputs, noise.fold(state, 0), self.state.rate, (batch, 1, features))
        cell, rate = self.layer.cell, type(self).recurrent_rate.now(self)
        recurrent = _dropping(_flags(noise.fold(state, 1), rate, (batch, cell.units), cell.compute_dtype), rate)
        step = _STEPS[type(cell)](cell)
        return inputs, [], lambda x, states: step(x, states, recurrent=recurrent)


@keras.saving.register_keras_serializable("keras_dropout")
class RecurrentDropout(_RecurrentWrapper):
    """Drop the updates of a recurrent layer's memory, never the memory.

        LSTM    c_t = f * c_{t-1} + i * d(g_t)
        GRU     h_t = z * h_{t-1} + (1 - z) * d(g_t)        d(g) = g * m / (1 - rate),    m ~ Bernoulli(1 - rate)

    Shapes:        those of the layer: (batch, steps, features) -> (batch, units), or more with return_sequences, return_state.
    Inference:     the layer itself.
    Arguments:     rate: fraction of updates dropped, in [0, 1]; at 1 the memory only fades. layer: a keras LSTM or GRU, or an RNN
                   of such a cell. per: "step", a draw of m for each step, or "sequence", one for all. seed: whole number.
    Source:        Semeniuta, Severyn and Barth 2016, arXiv:1603.05118, with rates of 0.25 and 0.5.
    Differs from:  the paper: scales in training, not at inference. Keras's recurrent_dropout drops the hidden state in the gates.

    >>> layer = RecurrentDropout(1, keras.layers.GRU(3), seed=0)
    >>> float(np.abs(np.asarray(layer(np.ones((2, 5, 4), "float32"), training=True))).max())
    0.0
    """

    in_config = ("per",)
    cells = (keras.layers.LSTMCell, keras.layers.GRUCell)
    otherwise = "A SimpleRNN has no update apart from its state; use VariationalRNNDropout or Zoneout."

    def __init__(self, rate: float, layer: keras.layers.RNN, *, per: str = "step", seed: int | None = None, **kwargs: Any):
        super().__init__(rate, layer, seed=seed, **kwargs)
        self.per = check_choice("per for RecurrentDropout", per, ("step", "sequence"))

    def steps(self, inputs: Any, state: Any) -> tuple[Any, list, Callable]:
        cell, (batch, length, _), rate = self.layer.cell, ops.shape(inputs), self.state.rate
        step = _STEPS[type(cell)](cell)
        if self.per == "step":
            flags = _flags(state, rate, (batch, length, cell.units), cell.compute_dtype)
            return inputs, [flags], lambda x, flags, states: step(x, states, candidate=_dropping(flags, rate))
        candidate = _dropping(_flags(state, rate, (batch, cell.units), cell.compute_dtype), rate)
        return inputs, [], lambda x, states: step(x, states, candidate=candidate)


@keras.saving.register_keras_serializable("keras_dropout")
class Zoneout(_RecurrentWrapper):
    """Let units of a recurrent layer's states keep, at random, the value of the step before.

        h_t = d * h_{t-1} + (1 - d) * h~_t,    d ~ Bernoulli(rate), one draw per sequence, step and unit

    h~_t is the plain layer's new state from the previous states; an LSTM computes it from the new cell before zoneout. Cells have
    their own draws: c_t = d_c * c_{t-1} + (1 - d_c) * c~_t.

    Shapes:        those of the layer: (batch, steps, features) -> (batch, units), or more with return_sequences, return_state.
    Inference:     the expectation of each step: h_t = rate * h_{t-1} + (1 - rate) * h~_t.
    Arguments:     rate: probability in [0, 1] that a hidden unit keeps its value; at 1 the state never changes. layer: a keras
                   LSTM, GRU, SimpleRNN, or an RNN of any cell whose states are (batch, units) and whose first state is its
                   output. cell_rate: that of other states, as an LSTM's cell; by default `rate`. seed: whole number.
    Source:        Krueger et al. 2016, arXiv:1606.01305, with rate 0.05 and cell_rate 0.5 for characters.
    Differs from:  the authors' published TensorFlow code, whose outputs are those before zoneout, and wrappers that zone the
                   cell first and compute h from it. The fused layer is not used at inference either, because its steps differ.

    >>> y = Zoneout(0.5, keras.layers.GRU(4, return_sequences=True), seed=1)(np.ones((1, 9, 3), "float32"), training=True)
    >>> unchanged = np.diff(np.asarray(y), axis=1) == 0
    >>> bool(unchanged.any()), bool(unchanged.all())
    (True, False)
    """

    cell_rate = Rate(follows="rate")
    plain_inference = False

    def __init__(
        self, rate: float, layer: keras.layers.RNN, *, cell_rate: float | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, layer, seed=seed, **kwargs)
        if len(layer.state_size) > 1:
            self.cell_rate = cell_rate
        elif cell_rate is not None:
            refuse("Zoneout: cell_rate is for layers with more than one state; this one has h alone.", "Leave it out.")

    def check_layer(self, layer: keras.Layer) -> None:
        super().check_layer(layer)
        sizes = layer.state_size
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            refuse(
                f"Zoneout: the states must be (batch, units) each; {type(layer.cell).__name__} has state_size {sizes}.",
                "Wrap each layer of a stack by itself.",
            )
        if getattr(layer.cell, "output_size", None) not in (None, sizes[0]):
            refuse(
                f"Zoneout: the cell's output must be its first state; sizes are {layer.cell.output_size} and {sizes[0]}.",
                "Put what is made of the state into a layer behind it.",
            )

    def steps(self, inputs: Any, state: Any) -> tuple[Any, list, Callable]:
        cell, sizes = self.layer.cell, self.layer.state_size
        rates = [self.state.rate] + [type(self).cell_rate.now(self) for _ in sizes[1:]]

        def plain(x: Any, states: Any) -> list:
            _, new = cell(x, states)  # Keras passes `training` on
            return new if keras.tree.is_nested(new) else [new]

        if state is None:
            shares = [ops.cast(rate, cell.compute_dtype) for rate in rates]
            return inputs, [], lambda x, states: [z * old + (1 - z) * new for z, old, new in zip(shares, states, plain(x, states))]
        batch, length, _ = ops.shape(inputs)
        updated = [
            _flags(noise.fold(state, k), rate, (batch, length, size), cell.compute_dtype)
            for k, (rate, size) in enumerate(zip(rates, sizes))
        ]

        def step(x: Any, *rest: Any) -> list:
            *updated, states = rest
            return [ops.where(u > 0, new, old) for u, old, new in zip(updated, states, plain(x, states))]

        return inputs, updated, step


def _flags(state: Any, rate: Any, shape: tuple, dtype: str) -> Any:
    """Return 1 with probability 1 - rate, else 0: a mask that can go beside inputs."""
    return noise.bernoulli_product(ops.ones(shape, dtype), state, rate, shape, scaled=False)


def _dropping(flags: Any, rate: Any) -> Callable:
    """Return x -> x * flags / (1 - rate)."""
    return functools.partial(noise.masked, kept=flags > 0, scale=noise.scale(rate))


def _whole(x: Any) -> Any:
    return x


# The steps of Keras's cells, as functions (inputs, states) -> states with two more arguments: `recurrent` acts on h where it meets
# the recurrent kernel, `candidate` on the update. (Multiplying the inputs of all steps by the kernel before the loop does not help:
# with XLA on a CPU a training step then takes up to twice as long.)


def _weights(cell: Any) -> tuple[Any, Any, Any]:
    bias = cell.bias if cell.use_bias else ops.zeros(())
    return tuple(ops.cast(ops.convert_to_tensor(w), cell.compute_dtype) for w in (cell.kernel, cell.recurrent_kernel, bias))


def _lstm(cell: keras.layers.LSTMCell) -> Callable:
    kernel, recurrent_kernel, bias = _weights(cell)
    gate, activation = cell.recurrent_activation, cell.activation

    def step(x: Any, states: Any, recurrent: Callable = _whole, candidate: Callable = _whole) -> list:
        h, c = states
        i, f, g, o = ops.split(ops.matmul(x, kernel) + ops.matmul(recurrent(h), recurrent_kernel) + bias, 4, axis=-1)
        c = gate(f) * c + gate(i) * candidate(activation(g))
        return [gate(o) * activation(c), c]

    return step


def _gru(cell: keras.layers.GRUCell) -> Callable:
    kernel, recurrent_kernel, bias = _weights(cell)
    gate, activation, reset_after = cell.recurrent_activation, cell.activation, cell.reset_after
    bias, recurrent_bias = (bias[0], bias[1]) if cell.use_bias and reset_after else (bias, 0)
    for_gates, for_update = ops.split(recurrent_kernel, [2 * cell.units], axis=-1)

    def step(x: Any, states: Any, recurrent: Callable = _whole, candidate: Callable = _whole) -> list:
        (h,) = states
        seen = recurrent(h)
        x_z, x_r, x_g = ops.split(ops.matmul(x, kernel) + bias, 3, axis=-1)
        if reset_after:
            h_z, h_r, h_g = ops.split(ops.matmul(seen, recurrent_kernel) + recurrent_bias, 3, axis=-1)
            g = x_g + gate(x_r + h_r) * h_g
        else:
            h_z, h_r = ops.split(ops.matmul(seen, for_gates), 2, axis=-1)
            g = x_g + ops.matmul(gate(x_r + h_r) * seen, for_update)
        z = gate(x_z + h_z)
        return [z * h + (1 - z) * candidate(activation(g))]

    return step


def _simple(cell: keras.layers.SimpleRNNCell) -> Callable:
    kernel, recurrent_kernel, bias = _weights(cell)

    def step(x: Any, states: Any, recurrent: Callable = _whole) -> list:
        return [cell.activation(ops.matmul(x, kernel) + ops.matmul(recurrent(states[0]), recurrent_kernel) + bias)]

    return step


_STEPS = {keras.layers.LSTMCell: _lstm, keras.layers.GRUCell: _gru, keras.layers.SimpleRNNCell: _simple}
