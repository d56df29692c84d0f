"""Put a variant's dropout into a model of a training function, check that it acts, and note whether it is called in training."""

import functools
from typing import Any

import keras

from keras_dropout.bench.records import Run
from keras_dropout.bench.training.acting import Acting
from keras_dropout.bench.training.build import reseed
from keras_dropout.errors import BadInput, refuse
from keras_dropout.layers.base import Stochastic
from keras_dropout.masks import derive_seed
from keras_dropout.models import graph, measuring
from keras_dropout.models.dropping import is_dropout, rate_of
from keras_dropout.models.placement import place, sites


class Watched:
    """A layer that was placed; `called` says whether it was called in training."""

    def __init__(self, layer: keras.Layer):
        self.called = False
        call = layer.call

        @functools.wraps(call)
        def watched(*args: Any, **options: Any) -> Any:
            self.called |= measuring.flag(call, args, options) not in (None, False)
            return call(*args, **options)

        object.__setattr__(layer, "call", watched)


def placed(model: Any, run: Run, part: str, number: int) -> tuple[keras.Model, set[str], list[tuple[Watched, str]]]:
    """Return the new model, the names in the variant's placement that it used, and its dropout layers with their addresses.

    `number` counts the models of the run, each of which gets masks of its own.
    """
    if not isinstance(model, keras.Model):
        refuse(
            f"run.place takes a Keras model; got {type(model).__name__}.",
            'For other models set the rates of your own dropout: torch.nn.Dropout(run.rate("encoder")).',
        )
    placement = run.variant.placement
    start = f"{part}." if part else ""
    there = sites(model)
    own = {name: spec for name, spec in (placement or {}).items() if name.startswith(start)}
    own = {name: spec for name, spec in own.items() if any(site.matches(name.removeprefix(start)) for site in there)}
    new = model if placement is None else place(model, {name.removeprefix(start): spec for name, spec in own.items()})
    reseed(new, derive_seed(run.seed, "model", number) if number else run.seed)
    layers = [layer for layer in new._flatten_layers() if (isinstance(layer, Stochastic) or is_dropout(layer)) and rate_of(layer)]
    if layers and (why := _not_acting(new)):
        raise BadInput(why)
    return new, set(own), [(Watched(layer), layer.name) for layer in layers]


def _not_acting(model: keras.Model) -> str | None:
    """Return two lines about the first layer that does not act on made-up inputs; None if all act, or no inputs can be made up."""
    try:
        inputs = keras.tree.map_structure(keras.ops.convert_to_numpy, next(iter(measuring.batches(model))))
        graph.read(model)
    except Exception:  # a model whose inputs are not known; its layers are watched while it trains
        return None
    values = [variable.value for variable in (*model.trainable_variables, *model.non_trainable_variables)]
    return Acting(model).refusal(values, inputs)
