"""Stochastic forward passes with dropout on and everything else as at prediction, many passes at the cost of few.

Layers before the first dropout are computed once. The layers behind it are one compiled program over samples and examples.

The masks are a pure function of (seed, layer, sample, example), whatever the batch size. On JAX each example is computed as a
batch of one with its own random states (or, where masks are shared, with those of its sample). A vectorising map joins these
products into one again, for every layer. TensorFlow and PyTorch have no such map: there `BLOCK` examples have one state.
"""

import contextlib
import copy
import functools
import inspect
import math
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from keras_dropout import backends, layers
from keras_dropout.companions import MultiSampleDropout, RDrop
from keras_dropout.cores import usable_cores
from keras_dropout.errors import BadInput, check_choice, check_whole, described, refuse, refused
from keras_dropout.layers.base import Stochastic
from keras_dropout.masks import derive_seed, seed_words
from keras_dropout.models import graph, kinds
from keras_dropout.models.dropping import dropout_options, has_option, is_dropout, is_known, rate_of

MASKS = ("independent", "shared")
BLOCK = 256  # examples with one state, where examples cannot have one each: it is part of what decides the masks
_GROUP = 100  # samples in one call of the program
_BATCH = 500
_ACTIVATIONS = 2**21  # numbers that one layer may have for a batch: they fit a processor's cache
_OUTPUTS = 2**24  # numbers that the outputs of one call of the program may have


_CHANGING = threading.RLock()  # held while layers have replaced calls: otherwise two threads that trace would disturb each other

# The compiled passes of each model, keyed by what they depend on. They are kept outside the model, so that nothing stays on it.
_KEPT: weakref.WeakKeyDictionary[keras.Model, dict[tuple, "Passes"]] = weakref.WeakKeyDictionary()


class Passes:
    """The stochastic forward passes of a model.

    With `masks` "independent", each example has its own masks in each sample, as in training. With "shared", a sample has one mask
    for all examples: it is one thinned network, a function. `dropping` holds the names of the layers that are on.
    """

    def __init__(self, model: keras.Model, *, masks: str = "independent", seed: int = 0):
        graph.check_model(model)
        check_choice("masks", masks, MASKS)
        self._by_example = keras.backend.backend() == "jax"
        if masks == "shared" and not self._by_example:
            refuse(
                f'masks="shared" runs on the JAX backend; Keras runs on {keras.backend.backend()}.',
                "Set KERAS_BACKEND=jax before Keras is imported; a saved model loads on any backend.",
            )
        self.masks = masks
        with graph.unchanged(model):
            self._prepare(model)
        self._begin(seed)

    @property
    def model(self) -> keras.Model:
        """The model that is called: the inner one, if the model is only a wrapper for training."""
        model = self._trained()
        assert model is not None  # `_whole` holds it
        return model

    def _prepare(self, model: keras.Model) -> None:
        trained = as_trained(model)
        self._whole: keras.Model | None = model
        self._trained: Callable[[], keras.Model | None] = weakref.ref(trained) if trained is model else lambda: trained
        if not trained.built:
            refuse(f"the model {model.name!r} is not built.", "Start it with keras.Input(shape), or call it once.")
        stateful = [layer.name for layer in trained._flatten_layers() if getattr(layer, "stateful", False) is True]
        if stateful:
            refuse(
                f"{', '.join(stateful)} of the model {model.name!r} is stateful: what it predicts depends on the batch before.",
                "Make the model with stateful=False and keras.Input(shape), and give it the weights: "
                "new.set_weights([v.numpy() for v in model.weights if v.name != 'rnn_state']).",
            )
        dropping = [layer for layer in trained._flatten_layers() if drops(layer)]
        self.dropping = [layer.name for layer in dropping]  # names only: what is cached must not hold the model itself
        if not dropping:
            _refuse_without_randomness(trained)
        self.inputs: list[tuple[str, tuple, str]] = []  # (name, shape without the batch, dtype); empty if the graph cannot be read
        self._twins = _twins(dropping)
        self._random, self._generators = random_states(trained, self._twins)
        self._variables = trained.variables
        self._fixed = [v for v in self._variables if id(v) not in {id(state) for state in self._random}]
        self._calls = _fixed_calls(trained, self._twins)
        self._before, self._behind = self._parts()
        self._calm = backends.current().compiled(self._run_calm)
        self._prefix = backends.current().compiled(self._run_before)
        self._programs: dict[Any, Callable] = {}
        self._clocks = {id(layer.stream.state) for layer in dropping if isinstance(layer, layers.ScheduledDropPath)}

    def _begin(self, seed: int) -> None:
        self.seed = check_whole("seed", seed, 0, "It is the seed of the masks.")
        self._words = _words(seed, self._random, self._clocks)

    @classmethod
    def of(cls, model: keras.Model, *, masks: str = "independent", seed: int = 0) -> "Passes":
        """Return the passes of a model, with the programs compiled before if only values have changed in it."""
        graph.check_model(model)
        rates = [() if isinstance(layer, Stochastic) else _options(layer) for layer in model._flatten_layers()]
        now = (masks, *((id(layer), drops(layer), *each) for layer, each in zip(model._flatten_layers(), rates)))
        kept = _KEPT.setdefault(model, {})
        if now not in kept:
            for before in [each for each in kept if each[1:] != now[1:]]:
                del kept[before]
            made = cls(model, masks=masks)
            made._whole = None  # as in `_program`
            kept[now] = made
        found = copy.copy(kept[now])
        found._whole = model
        found._begin(seed)
        return found

    def run(
        self,
        x: Any,
        samples: int,
        reduce: Callable = lambda outputs: outputs,
        *,
        batch_size: int | None = None,
        together: bool = False,
        first: int = 0,
    ) -> Iterator[tuple[slice, int, dict[str, np.ndarray]]]:
        """Yield (slice of the examples, number of samples, `reduce(outputs)`) piece by piece.

        Memory does not grow with the examples, nor with the samples if `reduce` combines them. They are numbered from `first`.

        `reduce` gets the outputs of some samples for some examples, float32 of shape (samples, examples, …), inside the compiled
        program. It returns a dict of tensors (examples, …), but for one named "outputs". `together` gives it all samples at once.
        """
        check_whole("samples", samples, 1, "It is the number of stochastic forward passes; 100 is a usual one.")
        x = self.check(x)
        count = len(x[0])
        at_once = samples if together else min(samples, _GROUP)
        size = self._batch(x, at_once) if batch_size is None else check_whole("batch size", batch_size, 1, "Give at least one.")
        size = min(size, count) if self._by_example else BLOCK
        groups = np.array_split(np.arange(first, first + samples, dtype="uint32"), -(-samples // at_once))
        program = self._program(reduce)
        values = [ops.convert_to_tensor(variable) for variable in self._fixed]

        def prepared(start: int) -> tuple[slice, Any, list]:
            rows = slice(start, min(start + size, count))
            examples = np.arange(start, start + size, dtype="uint32") if self._by_example else np.uint32(start // BLOCK)
            with self._refusing():
                return rows, examples, self._prefix(values, [ops.convert_to_tensor(padded(each[rows], size)) for each in x])

        def reduced(group: np.ndarray, piece: tuple) -> tuple[slice, int, dict]:
            rows, examples, held = piece
            with self._refusing():
                found = program(values, held, self._words, group, examples)
            there = slice(rows.stop - rows.start)  # without the padding
            arrays = {name: ops.convert_to_numpy(tensor) for name, tensor in found.items()}
            return rows, len(group), {name: v[:, there] if name == "outputs" else v[there] for name, v in arrays.items()}

        # One thread per core, because these are many small products; one piece per thread, so that memory does not grow.
        workers = _threads() if self._by_example else 1
        starts = range(0, count, size)
        with ThreadPoolExecutor(workers) as threads:
            for chunk in (starts[:1], *(starts[n : n + workers] for n in range(1, len(starts), workers))):  # the first compiles
                pieces = list(threads.map(prepared, chunk))
                for group in groups:
                    yield from threads.map(functools.partial(reduced, group), pieces)

    def plain(self, x: Any, batch_size: int | None = None) -> np.ndarray:
        """Return the outputs with dropout off. Keras's `predict` would leave its program, or a broken state, on the model."""
        arrays = self.check(x)
        size = min(batch_size or _BATCH, len(arrays[0]))
        values = [ops.convert_to_tensor(variable) for variable in self._variables]
        with self._refusing():
            return in_batches(lambda *rows: [self._calm(values, list(rows))], arrays, size)[0]

    def check(self, x: Any) -> list[np.ndarray]:
        """Return the inputs as arrays, in the order of the model's; refuse arrays that do not fit."""
        return check_examples(self.inputs, x)

    def _batch(self, x: list[np.ndarray], samples: int) -> int:
        """Return how many examples there is room for with this many samples at once."""
        if self._behind is None:
            return BLOCK
        lengths = max(max(each.shape[1:], default=1) for each in x)
        sizes = [math.prod(n or lengths for n in call.shape) for call in (*self._before, *self._behind)]
        room = min(_ACTIVATIONS // max(sizes), _OUTPUTS // (samples * sizes[-1]))
        return min(max(room, 1), _BATCH)

    def _parts(self) -> tuple[list[graph.Call], list[graph.Call] | None]:
        """Return the calls before the first dropout, and those that depend on one; None if the model's graph cannot be read."""
        try:
            seen = graph.functional(self.model)
        except BadInput:  # a subclass whose call cannot be followed is called as a whole
            return [], None
        # Calls hold the model that contains them. Use a model of ours, because the cache must not hold the user's.
        read = graph.read(seen if seen is not self.model else keras.Model(seen.input, seen.output))
        self.inputs = [(name, shape, dtype) for name, _, shape, dtype in read.inputs]
        self._output = read.output(self.model.name)
        self._structure = seen.input
        self._held = [number for _, number, *_ in read.inputs]
        behind: list[graph.Call] = []
        random: set[int] = set()
        for call in read.calls:
            if random.intersection(call.inputs) or contains_dropout(call.layer):
                behind.append(call)
                random.update(call.outputs)
        if self._output not in random:
            refuse(
                f"the model {self.model.name!r} has no randomness on the way to its output.",
                "Put some there: keras_dropout.place(model, {'last': 0.2}).",
            )
        made = {number for call in behind for number in call.outputs}
        held = list(dict.fromkeys(number for call in behind for number in call.inputs if number not in made))
        first = {number: tensor for call in read.calls for number, tensor in zip(call.outputs, call.node.outputs)}
        if any(getattr(first.get(number), "_keras_mask", None) is not None for number in held):
            return [], read.calls  # a padding mask travels with its tensor only inside one program
        self._held = held
        return [call for call in read.calls if call not in behind], behind

    def _run_calm(self, values: list, x: list) -> Any:
        packed = keras.tree.pack_sequence_as(self._structure, x) if self.inputs else x[0] if len(x) == 1 else x
        with _CHANGING, keras.StatelessScope([*zip(self._variables, values)]):
            return self._only(self.model(packed, training=False))

    def _only(self, outputs: Any) -> Any:
        """Return the one output, in float32."""
        flat = keras.tree.flatten(outputs)
        if len(flat) != 1:
            refuse(f"the model {self.model.name!r} has {len(flat)} outputs.", "Write a keras.Model whose call returns one of them.")
        return ops.cast(flat[0], "float32")

    def _refusing(self) -> contextlib.AbstractContextManager[None]:
        """Turn the errors that layers raise into refusals."""
        return refused(
            f"the model {self.model.name!r} cannot be sampled on these examples",
            "Give what model.predict takes; a layer of your own must draw from a keras.random.SeedGenerator of its own.",
        )

    def _run_before(self, values: list, x: list) -> list:
        if self._behind is None or not self._before:
            return x
        with self._scope(values):
            known = dict(enumerate(x))
            graph.run(self._before, known)
        return [known[number] for number in self._held]

    def _run_behind(self, values: list, held: list, states: list) -> Any:
        with self._scope(values, states):
            if self._behind is None:
                on = {"training": True} if _draws(self.model) else {}  # the model draws in its own call
                return self._only(self.model(held[0] if len(held) == 1 else held, **on))
            known = dict(zip(self._held, held))
            graph.run(self._behind, known)
            return self._only(known[self._output])

    @contextlib.contextmanager
    def _scope(self, values: list, states: Sequence = ()) -> Iterator[None]:
        """Run calls with these values of the variables, with only dropout on."""
        with _CHANGING:
            unseeded = [generator for generator in self._generators if generator._initial_seed is None]
            try:
                for generator in unseeded:
                    generator._initial_seed = 0  # on PyTorch, Keras does not read the state of unseeded generators
                scope = keras.StatelessScope([*zip(self._fixed, values), *zip(self._random, states)])
                with graph.called_as(self._calls), scope:
                    yield
            finally:
                for generator in unseeded:
                    generator._initial_seed = None

    def _program(self, reduce: Callable) -> Callable:
        if reduce not in self._programs:
            kept = copy.copy(self)
            kept._whole = None  # so that the cached program goes when the model goes
            self._programs[reduce] = backends.current().compiled(functools.partial(kept._run_samples, reduce))
        return self._programs[reduce]

    def _run_samples(self, reduce: Callable, values: list, held: list, words: Any, samples: Any, examples: Any) -> dict:
        def one_example(rows: list, example: Any, sample: Any) -> Any:
            return self._run_behind(values, [row[None] for row in rows], self._states(words, sample, example))[0]

        def one_sample(sample: Any) -> Any:
            if not self._by_example:
                return self._run_behind(values, held, self._states(words, sample, examples))
            if self.masks == "shared":
                return ops.vectorized_map(lambda rows: one_example(rows, 0, sample), held)
            return ops.vectorized_map(lambda pair: one_example(pair[0], pair[1], sample), (held, examples))

        found = reduce(ops.map(one_sample, samples))
        return found if isinstance(found, dict) else {"outputs": found}

    def _states(self, words: Any, sample: Any, example: Any) -> list:
        """Return the states of all layers for one sample of one example, before their first calls."""
        return [_first_state(words[number], sample, example, variable) for number, variable in enumerate(self._random)]


def shared_states(model: keras.Model, seed: int, sample: int) -> dict[int, tuple[keras.Layer, Any]]:
    """Return the state that decides one sample's masks where all examples share them, as in `Passes`, on any backend.

    For each dropout layer of the model, by its id: our equivalent layer, and the state of its first call (each further call of the
    layer is one step later). Layers that draw in their own way are left out.
    """
    twins = _twins([layer for layer in model._flatten_layers() if drops(layer)])
    variables, _ = random_states(model, twins)
    number = {id(variable): n for n, variable in enumerate(variables)}
    words, found = _words(seed, variables), {}
    for layer in model._flatten_layers():
        ours = twins.get(id(layer), layer)
        if isinstance(ours, Stochastic) and drops(layer):
            variable = ours.stream.state
            found[id(layer)] = ours, _first_state(words[number[id(variable)]], np.uint32(sample), np.uint32(0), variable)
    return found


def _options(layer: keras.Layer) -> tuple[str, ...]:
    """Return the rates and other plain values of a layer of Keras or another library: programs are compiled for them."""
    plain = (bool, int, float, str, np.generic)
    held = ((k, v) for k, v in vars(layer).items() if all(isinstance(each, plain) for each in graph.flat(v)))
    return (repr(getattr(layer, "rate", None)), *(f"{k}={v!r}" for k, v in held if k != "_called"))  # Keras sets it at a call


def drops(layer: Any) -> bool:
    """Return whether a layer drops something in training: a dropout layer with a rate above 0, or one with dropout as an option."""
    if is_dropout(layer) or isinstance(layer, Stochastic):
        given = [rate_of(layer), *(getattr(layer, name, None) for name in ("recurrent_rate", "cell_rate"))]
        rates = [rate for rate in given if rate is not None]
        return not rates or any(rate != 0 for rate in rates)  # without a rate, something else decides what is dropped
    return _draws(layer) or (not isinstance(layer, keras.Model) and bool(dropout_options(layer)))


def _draws(layer: Any) -> bool:
    """Return whether a user-defined layer draws random numbers, and no option says that it is off."""
    return _is_own(layer) and bool(getattr(layer, "_seed_generators", ())) and not _is_off(layer)


def _is_off(layer: keras.Layer) -> bool:
    """Return whether a layer has dropout options, all of them 0."""
    return has_option(layer) and not dropout_options(layer)


def _is_own(layer: Any) -> bool:
    """Return whether a layer's class is user-defined; a subclass of a Keras layer with a `seed` says by options what it drops."""
    known = [cls for cls in type(layer).__mro__ if is_known(cls.__module__)]
    preprocessing = any(map(kinds.is_preprocessing, type(layer).__mro__))
    options = inspect.signature(known[0].__init__).parameters  # type: ignore[misc]
    return type(layer) not in known and not preprocessing and "seed" not in options


def _refuse_without_randomness(model: keras.Model) -> NoReturn:
    inner = model._flatten_layers(include_self=False)
    if own := [layer for layer in inner if layer._call_has_training_arg and _is_own(layer) and not _is_off(layer)]:
        named = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in own[:5])
        refuse(
            f"the model {model.name!r} has no dropout layer with a rate above 0; whether {named} is random cannot be seen.",
            "If it is, let it draw from a generator of its own, made in __init__: self.seeds = keras.random.SeedGenerator(1), and "
            "keras.random.dropout(x, rate, seed=self.seeds). Else put dropout in: keras_dropout.place(model, {'last': 0.2}).",
        )
    refuse(
        f"the model {model.name!r} has no randomness: no dropout layer with a rate above 0.",
        "Put some in: keras_dropout.place(model, {'last': 0.2}), or keras-dropout place MODEL --put \"last=0.2\" "
        '-o new.keras; keras-dropout uncertainty has --place "last=0.2" for it.',
    )


def check_examples(inputs: list[tuple[str, tuple, str]], x: Any) -> list[np.ndarray]:
    """Return x as arrays, in the order of the `inputs` (name, shape without the batch, dtype); refuse misfits.

    `inputs` may be unknown. Datasets are read once, and their answers are left out.
    """
    given, x = x, _read(x)
    names = [name for name, *_ in inputs]
    if isinstance(x, dict) and names:
        if set(names) - set(x):
            refuse(f"the model's inputs are {', '.join(names)}; got {', '.join(map(str, x))}.", "Give an array for each.")
        x = [x[name] for name in names]
    arrays = [_as_array(each) for each in (keras.tree.flatten(x) if isinstance(x, (list, tuple, dict)) else [x])]
    if names and len(arrays) != len(names):
        refuse(f"the model has {len(names)} inputs ({', '.join(names)}); got {len(arrays)} arrays.", "Give one for each.")
    if not arrays or any(each.ndim == 0 or len(each) != len(arrays[0]) or not len(each) for each in arrays):
        refuse(
            f"x must hold the same examples, one at least, for each input; got shapes {[a.shape for a in arrays]}.",
            "The first axis of an array is the examples.",
        )
    for number, (name, shape, dtype) in enumerate(inputs):
        array = arrays[number]
        if array.ndim == len(shape) and shape[-1:] == (1,):  # a column without its last axis, which Keras accepts
            array = array[..., None]
        if array.ndim != len(shape) + 1 or not all(n in (None, m) for n, m in zip(shape, array.shape[1:])):
            refuse(
                f"input {name!r} takes examples of shape {shape}; got an array of shape {array.shape}.",
                f"Reshape it to (examples, {', '.join('any size' if n is None else str(n) for n in shape)})."
                if x is given
                else "If the dataset gives single examples, batch it: dataset.batch(32).",
            )
        if dtype != "string":
            try:
                array = array.astype(dtype, copy=False)
            except (TypeError, ValueError) as error:
                refuse(f"input {name!r} takes {dtype}; {described(error)}", "Leave out or encode what is no number.")
        arrays[number] = array
    return arrays


class _Reader(keras.Model):
    """A model that returns its input: through it, Keras's `predict` reads all that it can read, and leaves answers out."""

    def call(self, inputs: Any) -> Any:
        return inputs


def _read(x: Any) -> Any:
    """Return the inputs in a tf.data.Dataset, PyDataset or DataLoader as arrays; return anything else unchanged."""
    kind = type(x).__name__
    if hasattr(x, "__next__"):
        refuse(
            f"x is a {kind}, of which only its last element would say how many examples it gives.",
            "Make a list of it and join the inputs: np.concatenate([x for x, *_ in itertools.islice(generator, steps)]).",
        )
    endless = int(x.cardinality()) == -1 if hasattr(x, "cardinality") else getattr(x, "num_batches", 0) is None
    if endless:
        refuse(f"the {kind} never ends.", "Take a part: dataset.take(steps) of tf.data; __len__ or num_batches of a PyDataset.")
    if not (hasattr(x, "cardinality") or hasattr(x, "batch_sampler") or isinstance(x, keras.utils.PyDataset)):
        return x
    reader = _Reader()
    reader.compile(run_eagerly=True)
    try:
        return reader.predict(x, verbose=0)
    except Exception as error:  # a user's dataset may raise anything
        refuse(
            f"the {kind} cannot be read: {described(error)}",
            "It must give batches of inputs, or (inputs, answers), as for Keras's predict; of tf.data: dataset.batch(32).",
        )


def _as_array(value: Any) -> np.ndarray:
    value = value.detach() if hasattr(value, "detach") else value  # a tensor of torch, on any backend
    return np.asarray(ops.convert_to_numpy(value) if ops.is_tensor(value) else value)


def contains_dropout(layer: Any) -> bool:
    """Return whether a layer drops something, or contains a layer that does."""
    return isinstance(layer, keras.Layer) and any(map(drops, layer._flatten_layers()))


def as_trained(model: keras.Model) -> keras.Model:
    """Return the inner model of a wrapper for training; return any other model unchanged."""
    if isinstance(model, RDrop):
        return as_trained(model.model)
    if isinstance(model, MultiSampleDropout):
        return keras.Sequential([model.trunk, model.dropout, model.head], name=model.name)
    return model


def _twins(dropping: list[keras.Layer]) -> dict[int, keras.Layer]:
    """Return our equivalent of each of Keras's layers, by the layer's id: it has the same masks on every backend, at low cost."""
    found = {}
    for layer in dropping:
        if type(layer) in kinds.KERAS_DROPOUT:
            options = {name: value for name, value in layer.get_config().items() if name != "seed"}
            found[id(layer)] = getattr(layers, type(layer).__name__).from_config(options)
    return found


def random_states(holder: keras.Layer, twins: Mapping[int, keras.Layer]) -> tuple[list[keras.Variable], list[Any]]:
    """Return the variables from which layers draw, a twin's instead of its layer's, and the seed generators among their owners."""
    states, generators = {}, {}
    for layer in holder._flatten_layers():
        layer = twins.get(id(layer), layer)
        if isinstance(layer, Stochastic):
            states[id(layer.stream.state)] = layer.stream.state
        if isinstance(layer, layers.Masksembles):
            states[id(layer.state.member)] = layer.state.member
        for generator in getattr(layer, "_seed_generators", ()):
            generators[id(generator)] = generator
            states[id(generator.state)] = generator.state
    return list(states.values()), list(generators.values())


def _words(seed: int, states: list[keras.Variable], clocks: Collection[int] = ()) -> np.ndarray:
    """Return the start of each state: two random words, and the step of its first call.

    The step is 0. For the ids in `clocks` it is the step that training has reached, because the layer's rate follows it.
    """
    steps = [int(ops.convert_to_numpy(state)[2]) if id(state) in clocks else 0 for state in states]
    return np.array([[*seed_words(derive_seed(seed, "samples", k)), step] for k, step in enumerate(steps)], "uint32")


def _first_state(words: Any, sample: Any, example: Any, variable: keras.Variable) -> Any:
    """Return the value of the state `variable` at the first call in one sample of one example."""
    if variable.name == "member":  # of Masksembles: the k-th sample is that of the k-th network
        return ops.reshape(ops.cast(sample, variable.dtype), (1,))
    fold = backends.current().fold
    start = ops.concatenate([ops.cast(words[:2], "uint32"), ops.zeros((1,), "uint32")])
    return ops.cast(fold(fold(fold(start, sample), example), words[2])[: variable.shape[0]], variable.dtype)


def _fixed_calls(model: keras.Model, twins: dict[int, keras.Layer]) -> list[tuple[keras.Layer, Callable]]:
    """Return the layers whose `training` is fixed, with their new calls: on for those with dropout, off for all others.

    A layer that contains others and drops nothing keeps its call; the `training` that it passes on does not matter.
    """
    calls = []
    for layer in model._flatten_layers(include_self=False):
        on = drops(layer)
        alone = not isinstance(layer, keras.Model) and not any(True for _ in layer._flatten_layers(include_self=False))
        if layer._call_has_training_arg and (on or alone):
            calls.append((layer, with_training(twins.get(id(layer), layer).call, on)))
    return calls


def with_training(call: Callable, on: bool) -> Callable:
    signature = inspect.signature(call)

    @functools.wraps(call)
    def fixed(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["training"] = on
        return call(*bound.args, **bound.kwargs)

    return fixed


def _threads() -> int:
    """Return the number of usable cores, or fewer if NPROC limits JAX, as in the bench's workers."""
    cores = usable_cores()
    allowed = os.environ.get("NPROC", "")
    return min(cores, int(allowed)) if allowed.isdecimal() and int(allowed) else cores


def in_batches(program: Callable, arrays: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Return the program's outputs for all rows. The program gets `size` rows at a time: one shape, one compilation."""
    found = []
    for start in range(0, len(arrays[0]), size):
        rows = [each[start : start + size] for each in arrays]
        outputs = program(*(ops.convert_to_tensor(padded(each, size)) for each in rows))
        found.append([ops.convert_to_numpy(each)[: len(rows[0])] for each in outputs])
    return [np.concatenate(pieces) for pieces in zip(*found)]


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Return the rows, with the last one repeated up to `size`, so that every batch has the same shape."""
    missing = size - len(rows)
    return rows if not missing else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
