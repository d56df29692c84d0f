"""What is asked for -> a study that was found valid, and what is left to train of it. Writes nothing, trains nothing."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_dropout.bench import execution
from keras_dropout.bench.data import SPLITS, Data, from_arrays
from keras_dropout.bench.ledger import check_ledger_path, peek
from keras_dropout.bench.records import BASELINE, ENGINES, Result, Run, Study, Variant
from keras_dropout.errors import check_choice, check_positive, check_whole, refuse
from keras_dropout.schedules import spread_over_depth

DEFAULT_LEDGER = "keras-dropout.db"
AS_BUILT = "as-built"


@dataclass(frozen=True)
class Plan:
    """A study that was found valid, with its data and the place of its ledger."""

    study: Study
    data: Data
    ledger: Path
    workers: int

    def todo(self, known: Mapping[str, Result]) -> list[Run]:
        """The runs that `known` lacks, each key once; failed ones are tried again."""
        missing: dict[str, Run] = {}
        for run in self.study.runs():
            if run.key not in known or known[run.key].status == "failed":
                missing.setdefault(run.key, run)
        return list(missing.values())

    def known(self) -> dict[str, Result]:
        """What the ledger already has, read without changing it."""
        return peek(self.ledger, {run.key for run in self.study.runs()})

    def estimate_seconds(self, todo: Sequence[Run]) -> float:
        """Wall time for `todo`, from a short training of its first run in a worker."""
        if not todo:
            return 0.0
        start, each = execution.time_run(self.study, self.data, todo[0])
        return start + each * math.ceil(len(todo) / self.workers)


def make_plan(
    target: Any,
    data: Any = None,
    *,
    variants: Mapping[str, Any] | Sequence[Variant | str] | None = None,
    baseline: str = BASELINE,
    seeds: int | Sequence[int] = 6,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    split: str = SPLITS[0],
    validation_split: float = 0.1,
    data_dir: str | None = None,
    backend: str = "jax",
    engine: str = "auto",
    workers: int | None = None,
    ledger: str | Path = DEFAULT_LEDGER,
) -> Plan:
    """Check everything and make the study; see `compare`. Raises `BadInput`."""
    execution.check_backend(backend)
    check_choice("engine", engine, ("auto", *ENGINES))
    if engine == "compiled" and backend != "jax":
        refuse(f"the compiled engine runs on jax; got the backend {backend}.", "Leave --engine out, or use --backend jax.")
    check_choice("split", split, SPLITS)
    if isinstance(seeds, Sequence):
        seeds = tuple(check_whole("seed", seed, 0, "Seeds are whole numbers from 0 on.") for seed in seeds)
    else:
        seeds = tuple(range(check_whole("seeds", seeds, 1, "Six are the fewest that can show a difference.")))
    for name, value in (("epochs", epochs), ("batch size", batch_size), ("workers", workers)):
        if value is not None:
            check_whole(name, value, 1, f"Leave {name} out for the default, or give 1 or more.")
    if learning_rate is not None:
        check_positive("learning rate", learning_rate, "For example 0.01.")
    ledger = check_ledger_path(ledger)

    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", backend)
    if isinstance(target, str):
        from keras_dropout.bench import recipes

        recipe = recipes.find(target)
        name, model = recipe.name, recipe.model()
        ready = {variant.name: variant for variant in recipe.variants}
        ready[AS_BUILT] = Variant(AS_BUILT, None)
        default = [variant.name for variant in recipe.variants]
        epochs, batch_size = epochs or recipe.epochs, batch_size or recipe.batch_size
    else:
        from keras_dropout.placement import is_dropout

        name, model = _check_model(target)
        ready = {BASELINE: Variant(BASELINE, {}), AS_BUILT: Variant(AS_BUILT, None)}
        ready |= {group: Variant.of(group, {group: 0.2}) for group in ("hidden", "last")}
        # A model that is built without dropout is the baseline.
        default = [name for name in ready if name != AS_BUILT or any(map(is_dropout, model.layers))]
        epochs, batch_size = epochs or 20, batch_size or 32
    compiled = _compile_settings(model, optimizer, learning_rate)
    chosen = _choose(variants, ready, default)
    placed = [Variant(variant.name, _resolve(model, variant)) for variant in chosen if variant != ready[BASELINE]]
    if any(variant.name == BASELINE for variant in placed):
        refuse(f"the variant {BASELINE!r} is the model without dropout; it cannot be placed.", "Give the variant another name.")
    if isinstance(target, str):
        loaded = recipe.data(data_dir)
    else:
        if data is None:
            refuse("a model needs data to be trained on.", "compare(model, ((x_train, y_train), (x_test, y_test)))")
        loaded = from_arrays(data, validation_split)
        if split != SPLITS[0]:
            refuse(f"the split {split} is for recipes.", "Leave it out: validation data are held out.")
    study = Study(
        target=name,
        data=loaded.facts(split),
        model=_model_settings(model),
        compiled=compiled,
        split=split,
        backend=backend,
        engine={"auto": "compiled" if backend == "jax" else "reference"}.get(engine, engine),
        epochs=epochs,
        batch_size=batch_size,
        seeds=seeds,
        variants=(ready[BASELINE], *placed),
        baseline=baseline,
    )
    return Plan(study, loaded, ledger, workers or execution.usable_cores())


def _choose(variants: Any, ready: Mapping[str, Variant], default: Sequence[str]) -> list[Variant]:
    """The variants asked for: by name, as {name: placement}, or as they are; all the ready ones where none is."""
    if not variants:
        return [ready[name] for name in default]
    if isinstance(variants, Mapping):
        variants = [name if placement == name else Variant.of(name, placement) for name, placement in variants.items()]
    for variant in variants:
        if isinstance(variant, str) and variant not in ready:
            refuse(f"unknown variant {variant!r}.", f'Use one of {", ".join(ready)}, or NAME="SITE=RATE, …".')
    return [ready[variant] if isinstance(variant, str) else variant for variant in variants]


def _resolve(model: Any, variant: Variant) -> dict[str, Any] | None:
    from keras_dropout.bench.training import layer_of
    from keras_dropout.placement import resolve

    if variant.placement is None:
        return None
    for spec in variant.placement.values():
        layer_of(spec)
    return spread_over_depth(resolve(model, variant.placement))


def _check_model(model: Any) -> tuple[str, Any]:
    from keras_dropout.placement import sites

    sites(model)  # refuses what cannot be read
    if not getattr(model, "compiled", False):
        refuse(f"the model {model.name!r} is not compiled.", "Call model.compile(optimizer, loss, metrics) first.")
    if len(model.outputs) != 1 or not isinstance(model.get_compile_config().get("loss"), (str, Mapping)):
        refuse(f"the model {model.name!r} needs one output and one Keras loss.", 'For example compile(…, loss="mse").')
    return model.name, model


def _model_settings(model: Any) -> dict[str, Any]:
    import keras

    settings = keras.saving.serialize_keras_object(model)
    return {name: value for name, value in settings.items() if name != "compile_config"}


def _compile_settings(model: Any, optimizer: str | None, learning_rate: float | None) -> dict[str, Any]:
    """What the model was compiled with, with another optimizer or learning rate if asked for. The model stays as it is."""
    import keras

    made = model.optimizer
    if optimizer is not None:
        try:
            made = keras.optimizers.get(optimizer)
        except ValueError:
            known = sorted(n.lower() for n in dir(keras.optimizers) if isinstance(getattr(keras.optimizers, n), type))
            known = [name for name in known if name not in ("optimizer", "lossscaleoptimizer")]
            refuse(f"unknown optimizer {optimizer!r}.", f"Use one of: {', '.join(known)}.")
    if learning_rate is not None:
        made = type(made).from_config(made.get_config() | {"learning_rate": learning_rate})
    settings = keras.optimizers.serialize(made)
    settings["config"].pop("name", None)  # counted up by Keras with every optimizer made; it would change the runs' keys
    return model.get_compile_config() | {"optimizer": settings}
