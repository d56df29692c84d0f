"""Build a run's model under the run's seed, with the variant's dropout in it."""

import copy
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras.src.utils import rng_utils  # it has no public name

from keras_dropout.bench.records import Run, Study, Variant
from keras_dropout.bench.study import own_classes
from keras_dropout.layers.base import Stochastic
from keras_dropout.masks import derive_seed
from keras_dropout.models import graph
from keras_dropout.models.placement import rewire, with_ours
from keras_dropout.schedules import Schedule, from_document


def _assign(model: keras.Model, values: Sequence[Any]) -> None:
    """Assign values to a model, the trainable ones first."""
    for variable, value in zip((*model.trainable_variables, *model.non_trainable_variables), values, strict=True):
        variable.assign(np.array(value))  # a copy: Keras's `predict` donates the memory of a model's values


def build(study: Study, run: Run) -> tuple[keras.Model, dict[keras.Layer, Schedule]]:
    """Return the run's compiled model and the schedules of its layers' rates.

    Initial weights depend only on the seed, masks on the seed and their layer. If the study starts from given weights, all runs
    start from these.
    """
    _set_random_seed(derive_seed(run.seed, "weights") % 2**32)
    model, schedules = make(study, run.variant)
    reseed(model, run.seed)
    return model, schedules


def reseed(model: keras.Model, seed: int) -> None:
    """Reseed the mask streams of the model's layers for a run with this seed."""
    # Keras lists the layers in the order of the data, a shared layer once.
    for number, layer in enumerate(layer for layer in model._flatten_layers() if isinstance(layer, Stochastic)):
        layer.stream.reseed(derive_seed(seed, "mask", number))


def _set_random_seed(seed: int) -> None:
    """Call `keras.utils.set_random_seed` without loading TensorFlow only to seed it, which takes seconds in each worker."""
    loaded = rng_utils.tf
    if "tensorflow" not in sys.modules:
        rng_utils.tf = SimpleNamespace(available=False)
    try:
        keras.utils.set_random_seed(seed)
    finally:
        rng_utils.tf = loaded


def make(study: Study, variant: Variant) -> tuple[keras.Model, dict[keras.Layer, Schedule]]:
    """Return the study's compiled model with a variant's dropout, and the schedules of its layers."""
    with own_classes.known(study.objects):
        model = graph.make(study.model)
        if study.weights is not None:
            model.set_weights(study.weights)
        schedules = {}
        if variant.placement is not None:
            model, placed = rewire(model, variant.placement)
            specs = ((placed[site], spec) for site, spec in variant.placement.items())
            schedules = {layer: from_document(spec["schedule"]) for layer, spec in specs if "schedule" in spec}
        elif any(type(layer) is keras.layers.Dropout for layer in model._flatten_layers()):
            model = with_ours(model)
        model.compile_from_config(copy.deepcopy(study.of(variant).compiled))
    return model, schedules
