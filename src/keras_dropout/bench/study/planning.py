"""What is asked for -> a study that was found valid, and what is left to train of it. Writes nothing, trains nothing."""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import math
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import numpy as np

import keras_dropout
from keras_dropout import frameworks
from keras_dropout.bench.data import arrays, files
from keras_dropout.bench.data.dataset import SPLITS, Data, Part, from_arrays, is_part
from keras_dropout.bench.data.streams import is_stream
from keras_dropout.bench.execution import scheduler, timing
from keras_dropout.bench.execution.engine_choice import choose_engine
from keras_dropout.bench.ledger.lookup import kept, latest_study, models, peek
from keras_dropout.bench.ledger.schema import LARGEST
from keras_dropout.bench.ledger.store import DEFAULT_LEDGER, check_ledger_path
from keras_dropout.bench.records import BASELINE, ENGINES, Result, Run, Study, Variant, check_seeds, check_variant_names
from keras_dropout.bench.study import checks, own_classes
from keras_dropout.errors import (
    BadInput,
    check_choice,
    check_flag,
    check_path,
    check_positive,
    check_share,
    check_whole,
    refuse,
)
from keras_dropout.frameworks import BACKENDS
from keras_dropout.models import targets
from keras_dropout.schedules import spread_over_depth

DEFAULT_MAX_SEEDS = 30
MOST_SEEDS = 100_000  # of a variant: a study is listed run by run
AS_BUILT = "as-built"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Plan:
    """A study that was found valid, with its data and the place of its ledger.

    `notes` say how the data were divided and what was found in them; `engine_reason` why the study has the engine it has; `on`
    where its workers are. With `max_seeds` seeds are added until there are verdicts; the study then has as many as there may be.
    `margin` is the difference in test loss that matters. With `keep_weights` a run's trained model is stored with it,
    with `keep_examples` some test examples of the data.
    """

    study: Study
    data: Data
    ledger: Path
    workers: int
    engine_reason: str = ""
    notes: tuple[str, ...] = ()
    on: str = scheduler.HERE
    checkpoint_every: int | None = None
    max_seeds: int | None = None
    margin: float | None = None
    keep_weights: bool = False
    keep_examples: bool = True

    def document(self) -> dict[str, Any]:
        """What a report says of the plan beside the study, as plain values."""
        said = ("engine_reason", "max_seeds", "margin")
        return {"plan": {name: getattr(self, name) for name in said} | {"notes": list(self.notes)}}

    def rounds(self) -> Iterator[Study]:
        """The study; with `max_seeds` with ever more seeds: first as many as a verdict takes, then as many more as the workers
        can train at once."""
        if self.max_seeds is None:
            yield self.study
            return
        from keras_dropout.bench.statistics import LEVEL, first_look

        variants = len(self.study.variants)
        seeds = first_look(self.max_seeds, LEVEL / max(1, variants - 1))
        assert seeds is not None  # `make_plan` refuses fewer seeds than a verdict takes
        while seeds < self.max_seeds:
            yield dataclasses.replace(self.study, seeds=self.study.seeds[:seeds])
            seeds += max(1, self.workers // variants)
        yield self.study

    def todo(self, known: Mapping[str, Result], kept: Collection[str] = ()) -> list[Run]:
        """The runs that `known` lacks, each key once; failed ones are tried again. Where models are wanted, also those that are
        done and whose models are not `kept`."""
        missing: dict[str, Run] = {}
        for run in self.study.runs():
            status = known[run.key].status if run.key in known else None
            if status in (None, "failed") or (self.keep_weights and status == "done" and run.key not in kept):
                missing.setdefault(run.key, run)
        return list(missing.values())

    def known(self) -> dict[str, Result]:
        """What the ledger already has, read without changing it."""
        return peek(self.ledger, {run.key for run in self.study.runs()})

    def kept(self) -> set[str]:
        """The keys of the runs whose models the ledger has."""
        return kept(self.ledger, {run.key for run in self.study.runs()})

    def estimate_seconds(self, todo: Sequence[Run]) -> float:
        """Wall time for `todo`, from a short training of its first run (or stack) in a worker."""
        if not todo:
            return 0.0
        tried = todo[: scheduler.STACK if self.study.engine == "stacked" else 1]
        start, each = timing.time_runs(self.study, self.data, tried)
        return start + each * math.ceil(len(todo) / len(tried) / self.workers)


@contextlib.contextmanager
def _without_random_numbers() -> Iterator[None]:
    """Leave Python's `random` as it was: layers that are made draw from it, and the reader's program may too."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _leaves_target_unchanged(function: _Function) -> _Function:
    """Make a function leave a model that it is given as it was; see `models.graph.unchanged`."""

    @functools.wraps(function)
    def guarded(target: Any, *args: Any, **options: Any) -> Any:
        if isinstance(target, (str, Path)) or "keras" not in sys.modules:  # what is no model needs no framework
            return function(target, *args, **options)
        from keras_dropout.models import graph

        return graph.leaves_unchanged(function)(target, *args, **options)

    return cast(_Function, guarded)


class Settings(TypedDict, total=False):
    """The settings that `compare` and `tune` share, those of `make_plan`; what they mean is said at `compare`."""

    data_options: Mapping[str, Any] | None
    baseline: str
    seeds: int | Sequence[int] | str
    max_seeds: int | None
    margin: float | None
    epochs: int | None
    batch_size: int | None
    optimizer: str | None
    learning_rate: float | None
    class_weight: Mapping[int, float] | str | None
    early_stopping: int | None
    from_weights: bool | str | Path | None
    split: str
    validation_split: float
    data_dir: str | None
    backend: str | None
    engine: str
    workers: int | None
    on: str
    checkpoint_every: int | None
    keep_weights: bool
    keep_examples: bool
    samples: int | None


def _own_backend() -> str:
    """Return the backend that the program's own Keras runs on; jax where none is loaded, as in the command."""
    keras = sys.modules.get("keras")
    own = keras.backend.backend() if keras and hasattr(keras, "backend") else "jax"
    return own if own in BACKENDS else "jax"


_OF_FIT = {  # arguments of Keras's fit, and what stands for them here
    "validation_data": "Data to test on stand beside those to train on: ((x, y), (x_test, y_test)). From (x, y) a share is divided "
    "off to validate on, validation_split=0.1.",
    "x": "Give both together: (x, y).",
    "y": "Give both together: (x, y).",
    "sample_weight": "Give it as a third member: (x, y, weights).",
    "callbacks": "Use early_stopping=5 to stop early; a schedule of the learning rate goes into the optimizer.",
    "verbose": "Use quiet=True to print nothing.",
}


def check_names(function: str, settings: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise the TypeError of an unexpected keyword in the words of the function that the user called."""
    for name in settings:
        if name in _OF_FIT:
            refuse(f"{function} has no {name}; that is an argument of fit.", _OF_FIT[name])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}.{hint}")


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a study that `make_plan` reads in another form; refuse a wrong one of any. No framework is loaded.

    `settings` may leave names out, which have their defaults then, and hold others.
    """
    get = settings.get
    backend, engine, split = get("backend") or _own_backend(), get("engine", "auto"), get("split", SPLITS[0])
    check_choice("backend", backend, BACKENDS)
    check_choice("engine", engine, ("auto", *ENGINES))
    if engine in ("compiled", "stacked") and backend != "jax":
        refuse(f"the {engine} engine runs on jax; got the backend {backend}.", "Leave --engine out, or use --backend jax.")
    check_choice("split", split, SPLITS)
    for name in ("epochs", "batch_size", "workers", "early_stopping", "checkpoint_every", "samples"):
        if get(name) is not None:
            shown = name.replace("_", " ")
            check_whole(shown, get(name), 1, f"Leave {shown} out for the default, or give 1 or more.", 2**31 - 1)
    check_flag("keep_weights", get("keep_weights", False))
    check_flag("keep_examples", get("keep_examples", True))
    if (learning_rate := get("learning_rate")) is not None:
        mend = "For example 0.01. A schedule goes into the optimizer that the model is compiled with."
        learning_rate = check_positive("learning rate", learning_rate, mend)
    if get("margin") is not None:
        mend = "Give the difference in test loss that would matter to you, for example 0.005."
        check_positive("margin", get("margin"), mend)
    if get("early_stopping") is not None and split != SPLITS[0]:
        refuse(
            f"early stopping needs validation data of their own; the split {split} trains on them.",
            f"Use --split {SPLITS[0]}.",
        )
    check_share("validation_split", get("validation_split", 0.1))
    if (on := get("on", scheduler.HERE)) != scheduler.HERE:
        scheduler._ray_address(on)
    if (folder := get("data_dir")) is not None and not Path(check_path("data_dir", folder, "data")).is_dir():
        refuse(f"the data folder {folder} does not exist.", "Name a folder that holds the files of the data set, or leave it out.")
    variants = _read_variants(get("variants"))
    names = [each if isinstance(each, str) else each.name for each in variants if each not in (BASELINE, Variant(BASELINE, {}))]
    for each in variants:
        if isinstance(each, str) and each not in (*_READY, _PUBLISHED):
            ready = f"{', '.join(_READY)}, of recipes also {_PUBLISHED}"
            refuse(f"unknown variant {each!r}.", f'Use one of {ready}, or NAME="SITE=RATE, …".')
    if BASELINE in names:  # one that places something, or leaves the model as it is built
        refuse(f"the variant {BASELINE!r} is the model without dropout; it cannot be placed.", "Give the variant another name.")
    check_variant_names([BASELINE, *(names or (*_READY[1:], _PUBLISHED))], get("baseline", BASELINE))
    seeds, max_seeds = _read_seeds(get("seeds", 6), get("max_seeds"), len(names))
    return {
        "variants": variants,
        "seeds": seeds,
        "max_seeds": max_seeds,
        "learning_rate": learning_rate,
        "from_weights": _check_weights_file(get("from_weights")),
        "ledger": check_ledger_path(check_path("ledger", get("ledger", DEFAULT_LEDGER), "runs.db")),
    }


def check_sources(target: Any, data: Any, settings: Mapping[str, Any]) -> None:
    """Refuse a target of a study, or data for it, that cannot be used whatever they hold. No framework is loaded."""
    options, split = settings.get("data_options"), settings.get("split", SPLITS[0])
    if options is not None and not isinstance(options, Mapping):
        refuse(f"data_options must be a mapping; got {options!r}.", 'For example {"target": "price"}.')
    if isinstance(target, str | Path):
        targets.check(str(target))
    if isinstance(target, str) and not targets.names_model(target):
        if data is not None or options:
            refuse(f"the recipe {target} has data of its own.", "Leave data out, or name a model: file.keras or file.py:function.")
        if settings.get("from_weights") is True:
            refuse(f"the recipe {target} has no weights of its own.", "Name a file of weights, or leave from_weights out.")
        return
    if inspect.isroutine(target) or isinstance(target, type):
        refuse(
            f"expected a Keras model; got {target.__name__}, which was not called.", f"Give what it returns: {target.__name__}()."
        )
    if any(cls.__module__.startswith(("tf_keras.", "tensorflow.python.keras.")) for cls in type(target).__mro__):
        refuse(
            "the model is one of Keras 2; only models of Keras 3 can be studied.",
            f'model.save("model.h5"). {targets.from_keras_2("model.h5")}',
        )
    if split != SPLITS[0]:
        refuse(f"the split {split} is for recipes.", "Leave it out: validation data are held out.")
    if data is None:
        refuse("a model needs data to be trained on.", "compare(model, ((x_train, y_train), (x_test, y_test))), or --data FILE.")


@_leaves_target_unchanged
@_without_random_numbers()
def make_plan(
    target: Any,
    data: Any = None,
    *,
    data_options: Mapping[str, Any] | None = None,
    variants: Mapping[str, Any] | Sequence[Variant | str] | None = None,
    baseline: str = BASELINE,
    seeds: int | Sequence[int] | str = 6,
    max_seeds: int | None = None,
    margin: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    early_stopping: int | None = None,
    from_weights: bool | str | Path | None = None,
    split: str = SPLITS[0],
    validation_split: float = 0.1,
    data_dir: str | None = None,
    backend: str | None = None,
    engine: str = "auto",
    workers: int | None = None,
    on: str = scheduler.HERE,
    checkpoint_every: int | None = None,
    keep_weights: bool = False,
    keep_examples: bool = True,
    samples: int | None = None,
    ledger: str | Path = DEFAULT_LEDGER,
) -> Plan:
    """Check everything and make the study; see `compare`. `data` may also be a `Data`. Raises `BadInput`."""
    checked = check_settings(dict(locals()))
    check_sources(target, data, dict(locals()))
    max_seeds, learning_rate, from_weights = (checked[name] for name in ("max_seeds", "learning_rate", "from_weights"))
    any_backend, backend = backend is None, frameworks.check_backend(backend or _own_backend())
    cores = scheduler.check_on(on)

    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", backend)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is for the workers
    target = str(target) if isinstance(target, Path) else target
    recipe = None
    notes: tuple[str, ...] = ()
    if isinstance(target, str) and not targets.names_model(target):
        from keras_dropout.bench.study import recipes

        recipe = recipes.find(target)
        name, model, loaded = recipe.name, recipe.model(), recipe.data(data_dir)
        given = model
        ready = {variant.name: variant for variant in recipe.variants}
        ready[AS_BUILT] = Variant(AS_BUILT, None)
        default = [variant.name for variant in recipe.variants]
        epochs, batch_size = epochs or recipe.epochs, batch_size or recipe.batch_size
    else:
        loaded, about = _load_data(target, data, {"validation_split": validation_split, **(data_options or {})})
        model = target
        if isinstance(target, str):
            model = _load_model(target, **_facts(loaded, about))
        notes = (about.split, *about.notes) if about is not None else (loaded.division,) if loaded.division else ()
        name = Path(target).name if isinstance(target, str) else getattr(model, "name", "")
        given, model = model, _opened(model)
        ready = {BASELINE: Variant(BASELINE, {}), AS_BUILT: Variant(AS_BUILT, None)}
        ready |= {group: Variant.of(group, {group: 0.2}) for group in ("hidden", "last")}
        default = [name for name in ready if _makes_sense(model, ready[name])]
        if default == [BASELINE] and not checked["variants"]:
            refuse(
                f"the model {name!r} has no place for dropout: no hidden layer with weights.",
                'Name a place, for example the input: variants={"input": {"input": 0.2}}.',
            )
        epochs, batch_size = epochs or 20, batch_size or 32
    compiled = _compile_settings(given, optimizer, learning_rate)
    chosen = _choose(checked["variants"], ready, default)
    if max_seeds is not None:
        _check_enough_seeds(max_seeds, sum(variant != ready[BASELINE] for variant in chosen))
    placed = [Variant(variant.name, _resolve(model, variant)) for variant in chosen if variant != ready[BASELINE]]
    begun = _with_weights(model, from_weights)
    settings = checks.settings_of(begun)
    needed: dict[str, Any] = {}
    if recipe is None:
        from keras_dropout.models import graph

        source = targets.file_of(target) if isinstance(target, str) and targets.is_function(target) else None
        if model is not given:
            settings = checks.without_batch(settings)
        made, needed = checks.check_can_be_made_again(settings, compiled, source, own_classes.of_model(given))
        settings = graph.with_frozen(settings, begun, made)
        checks.check_statistics(begun, made)
        checks.check_same(model, given, made)
        placed = [_renamed(variant, model, made) for variant in placed]
        notes += _still_random(made)
    notes += checks.check_data(model, loaded, split, batch_size, compiled["loss"])
    study = Study(
        target=name,
        data=loaded.facts(split),
        model=settings,
        compiled=compiled,
        split=split,
        backend=backend,
        engine="compiled" if backend == "jax" else "reference",
        epochs=epochs,
        batch_size=batch_size,
        seeds=checked["seeds"],
        variants=(ready[BASELINE], *placed),
        baseline=baseline,
        class_weight=checks.resolve_class_weight(class_weight, loaded.parts(split)["train"], model, compiled["loss"]),
        early_stopping=early_stopping,
        samples=samples,
        weights=None if from_weights is None else checks.weights_of(begun),
        **needed,
    )
    if samples is not None:
        from keras_dropout.bench.training.trainer import check_samples

        check_samples(study, loaded)
    study, reason = choose_engine(study, loaded, checked["ledger"], engine, recipe is not None, any_backend)
    workers = workers or (1 if study.engine == "stacked" else cores)
    return Plan(
        study,
        loaded,
        checked["ledger"],
        workers,
        reason,
        notes,
        on,
        checkpoint_every,
        max_seeds,
        margin,
        keep_weights,
        keep_examples,
    )


def load_target(target: str, data: str | None, data_options: Mapping[str, Any]) -> tuple[Any, Any, int | None]:
    """The model that a recipe's name, a file or a function gives; inputs as it sees them, at most 1,000 of training's; and the
    number of training examples. Without data there are neither."""
    targets.check(target)
    if data is None and data_options:
        refuse(f"{', '.join(data_options)} say how data are read, and there are none.", "Add --data FILE.")
    loaded, about = (None, None) if data is None else _load_data(None, data, {"validation_split": 0.1, **data_options})
    if targets.names_model(target):
        model = _load_model(target, **({} if loaded is None else _facts(loaded, about)))
    else:
        from keras_dropout.bench.study import recipes

        model = recipes.find(target).model()
    if loaded is None:
        return model, None, None
    from keras_dropout.bench.training.reference import as_seen

    few = slice(loaded.validation, loaded.validation + 1000)
    inputs = arrays.each(lambda x: as_seen(np.asarray(x[few]), loaded.divide_by), loaded.train.x)
    return model, inputs, arrays.count(loaded.train.y) - loaded.validation


def evaluation_data(
    target: str, data: str | None, data_options: Mapping[str, Any], data_dir: str | None = None
) -> tuple[Any, Data, dict[str, Part], files.Description | None]:
    """The model that a recipe's name, a file or a function gives, all data, the "validation" and "test" examples as the model sees
    them, and what the data are where they came from files. A recipe brings its own data; its name also stands for them."""
    targets.check(target)
    if not targets.names_model(target):
        if data is not None or data_options:
            refuse(f"the recipe {target} has data of its own.", "Leave data out, or name a model: file.keras or file.py:function.")
        from keras_dropout.bench.study import recipes

        loaded, about = recipe_data(target, data_dir), None
        model = recipes.find(target).model()
    else:
        loaded, about = named_data(data, data_options, data_dir)
        model = _load_model(target, **_facts(loaded, about))
    return model, loaded, as_seen_parts(loaded), about


def check_data_name(data: str | None) -> None:
    """Refuse the name of data that are not there; nothing of them is read."""
    if data is None:
        return
    if targets.is_function(data):
        targets.file_of(data)
    elif "," in data or targets.names_model(data):
        for each in [data] if Path(data).exists() else data.split(","):
            if not Path(each).exists():
                refuse(f"{each} does not exist.", "Give the path of a file or folder.")
    else:
        targets.check_recipe(data)


def named_data(
    data: str | None, data_options: Mapping[str, Any], data_dir: str | None = None
) -> tuple[Data, files.Description | None]:
    """The data that a file, a function or a recipe's name gives."""
    if data is None:
        refuse("there are no data to measure the model on.", "Add --data FILE, with labels, or --data RECIPE.")
    if "," in data or targets.names_model(data):
        return _load_data(None, data, {"validation_split": 0.1, **data_options})
    if data_options:
        refuse(f"{', '.join(data_options)} say how files are read; {data} is a recipe.", "Leave them out.")
    return recipe_data(data, data_dir), None


def recipe_data(name: str, data_dir: str | None = None) -> Data:
    """Return the data of the recipe of that name."""
    targets.check_recipe(name)
    from keras_dropout.bench.study import recipes

    return recipes.find(name).data(data_dir)


def as_seen_parts(loaded: Data) -> dict[str, Part]:
    """The "validation" and "test" examples as the model sees them."""
    from keras_dropout.bench.training.reference import as_seen

    parts = loaded.parts(SPLITS[0])
    return {
        name: parts[name]._replace(x=arrays.each(lambda x: as_seen(np.asarray(x[:]), loaded.divide_by), parts[name].x))
        for name in ("validation", "test")
    }


def kept_models(ledger: str, variant: str | None) -> tuple[dict[int, Any], dict[str, Any]]:
    """The trained models of one variant of the latest study in a ledger, by seed, and the study as `latest_study` has it."""
    study = latest_study(ledger)
    if study is None:
        refuse(f"there is no study in {ledger}.", "Make one: keras-dropout compare TARGET --keep-weights --ledger FILE")
    names = list(dict.fromkeys(run["variant"] for run in study["runs"]))
    if variant not in names:
        said = "--variant is missing" if variant is None else f"the study has no variant {variant!r}"
        refuse(f"{said}; {ledger} has the variants {', '.join(names)}.", f"For example --variant {names[-1]}")
    runs = {run["key"]: run["seed"] for run in study["runs"] if run["variant"] == variant}
    found: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for key, archive in models(ledger, runs):
            path = Path(folder, "model.keras")
            path.write_bytes(archive)
            found[runs[key]] = _load_model(path)
    if not found:
        refuse(f"no model of {variant!r} is kept in {ledger}.", "Run the same command again with --keep-weights.")
    return found, study


def held_out(study: Mapping[str, Any], loaded: Data) -> bool:
    """Whether the validation examples of these data are those that a study, as `latest_study` has it, did not train on."""
    facts = loaded.facts(SPLITS[0])
    split = [SPLITS[0], facts.train, facts.validation]
    return (study["config"].get("data"), study["config"].get("split")) == (facts.fingerprint, split)


def _load_data(target: Any, data: Any, options: Mapping[str, Any]) -> tuple[Data, files.Description | None]:
    """Return the data, and what they are where they came from files or a function."""
    if isinstance(data, Data):
        return data, None
    if isinstance(data, str | Path) and not targets.is_function(str(data)):
        return files.load(data, **options)
    if isinstance(data, str | Path):
        value = targets.call(str(data), {})
        if not (is_stream(value) or (isinstance(value, tuple | list) and any(map(is_stream, value)))):
            return files.from_returned(value, Path(data).name, **options)
        data = value
    if strange := [name for name in options if name not in ("validation_split", "test_split")]:
        refuse(f"{', '.join(strange)}: options for files; the data are arrays.", "Leave them out, or give the path of a file.")
    inputs, outputs = getattr(target, "inputs", None), getattr(target, "outputs", None)
    arity = (len(inputs), len(outputs)) if inputs and outputs else None
    if "test_split" in options and not is_part(data, arity):
        refuse("test_split is for data that are not divided; the test part is given.", "Leave it out, or pass (x, y).")
    return from_arrays(data, **options, rank=len(inputs[0].shape) if inputs else None, arity=arity), None


def _load_model(target: str | Path, **facts: Any) -> Any:
    """The model that a target names; our own layers in its file are known to Keras."""
    from keras_dropout import companions, layers  # noqa: F401

    return targets.load_model(target, **facts)


def _facts(data: Data, about: files.Description | None) -> dict[str, Any]:
    """What a function that makes a model may ask for."""
    if about is None:
        return {"input_shape": arrays.each(lambda array: array.shape[1:], data.train.x)}
    return {"input_shape": about.input_shape, "outputs": about.outputs, "vocabulary": about.vocabulary}


def _with_weights(model: Any, from_weights: Any) -> Any:
    """The model with the weights that every run starts from: itself, or a copy with those in a file."""
    from keras_dropout.models import graph

    if from_weights is None:
        return model
    if from_weights is True:
        if not model.built:
            refuse(f"the model {model.name!r} has no weights yet: it is not built.", "Call it on some data first.")
        return model
    filled = graph.copy(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an optimizer that the file has no state of, or another
            filled.load_weights(from_weights)
    except Exception as error:  # h5py, zipfile and Keras each raise their own
        text = " ".join((str(error) or type(error).__name__).split())[:300]
        refuse(f"{from_weights} does not fit the model: {text}", "Give the weights of this model, in a file that is whole.")
    return filled


_READY, _PUBLISHED = (BASELINE, AS_BUILT, "hidden", "last"), "as-published"  # of every model; of recipes too
_PLACEMENT = 'Write {"NAME": {"hidden": 0.2}}, {"NAME": "hidden=0.2, last=0.5"}, or a list of the names of ready ones.'


def _read_variants(variants: Any) -> list[Variant | str]:
    """Return the variants asked for, each as a `Variant` or as the name of a ready one."""
    if variants is None:
        return []
    if isinstance(variants, Mapping):
        return [_read_variant(name, value) for name, value in variants.items()]
    if isinstance(variants, str | Variant):
        variants = [variants]
    elif isinstance(variants, Set):
        variants = sorted(variants, key=str)  # a set has another order in each process
    elif not isinstance(variants, Sequence):
        refuse(f"variants must map names to placements; got {variants!r}.", _PLACEMENT)
    found = []
    for each in variants:
        if not isinstance(each, str | Variant):
            refuse(f"a variant of a list must be a text; got {each!r}.", _PLACEMENT)
        found.append(Variant.parse(each) if isinstance(each, str) and "=" in each else each)
    for each in found:
        if isinstance(each, Variant):
            _check_kinds(each)
    return found


def _read_variant(name: Any, value: Any) -> Variant | str:
    if not isinstance(name, str):
        refuse(f"the name of a variant must be a text; got {name!r}.", _PLACEMENT)
    if value is True or (isinstance(value, str) and value == name):
        return name
    if isinstance(value, Variant):
        variant = dataclasses.replace(value, name=name)
    elif isinstance(value, str) and "=" in value:
        variant = dataclasses.replace(Variant.parse(f"{name.replace('=', ' ')}={value}"), name=name)
    elif value is None or (isinstance(value, Mapping) and all(isinstance(site, str) for site in value)):
        variant = Variant.of(name, value)
    else:
        rate = value if isinstance(value, int | float) and 0 < value < 1 else 0.2
        mend = f"For example {{{name!r}: 'hidden={rate}'}}; in a study file {name!r} = 'hidden={rate}'."
        refuse(f"variant {name!r} must say what stands at which site; got {value!r}.", mend)
    _check_kinds(variant)
    return variant


def _check_kinds(variant: Variant) -> None:
    """Refuse a layer that the library has not."""
    known = sorted(name for name, home in keras_dropout._HOME.items() if home == "layers" and name[0].isupper())
    for spec in (variant.placement or {}).values():
        if spec["kind"] not in known:
            refuse(f"no dropout layer {spec['kind']!r} that can be put at a site.", f"Use one of: {', '.join(known)}.")


def _read_seeds(seeds: Any, max_seeds: Any, variants: int) -> tuple[tuple[int, ...], int | None]:
    """Return the seeds, and the most that there may be where they are added until there is a verdict."""
    if isinstance(seeds, str):
        if seeds != "auto":
            refuse(f"seeds must be a whole number of at least 1, or auto; got {seeds!r}.", "For example 6.")
        most = DEFAULT_MAX_SEEDS if max_seeds is None else max_seeds
        most = check_whole("max seeds", most, 1, "For example 30.", MOST_SEEDS)
        _check_enough_seeds(most, variants)
        return tuple(range(most)), most
    if max_seeds is not None:
        refuse(f"max seeds {max_seeds} is for seeds that are added until there is a verdict.", "Use --seeds auto with it.")
    if isinstance(seeds, Sequence | Set) or (isinstance(seeds, np.ndarray) and seeds.ndim):
        mend = "Seeds are whole numbers from 0 to 2**63 - 1."
        found = tuple(check_whole("seed", seed, 0, mend, LARGEST) for seed in seeds)
        check_seeds(found)
        return found, None
    mend = "Six are the fewest that can show a difference. The seeds themselves go into a list."
    return tuple(range(check_whole("seeds", seeds, 1, mend, MOST_SEEDS))), None


def _check_enough_seeds(most: int, variants: int) -> None:
    """Refuse fewer seeds than the differences of so many variants from the baseline can be shown with."""
    from keras_dropout.bench.statistics import LEVEL, fewest_pairs

    if most < (fewest := fewest_pairs(LEVEL / max(1, variants))):
        refuse(
            f"max seeds must be at least {fewest}, as fewer cannot show a difference of that many variants; got {most}.",
            f"Use --max-seeds {fewest} or more, or fewer variants.",
        )


def _check_weights_file(from_weights: Any) -> Any:
    """Return True or the file of weights that every run starts from, None where there is neither."""
    if from_weights is None or from_weights is False:
        return None
    mend = "Give True, or the path of a file made by save_weights (.weights.h5) or save (.keras)."
    if from_weights is not True:
        if not isinstance(from_weights, str | Path) or not str(from_weights).endswith((".weights.h5", ".keras")):
            refuse(f"from_weights must be True or a file of weights; got {from_weights!r:.200}.", mend)
        if not Path(from_weights).is_file():
            refuse(f"the file of weights {from_weights} does not exist.", mend)
    return from_weights


def _choose(variants: Sequence[Variant | str], ready: Mapping[str, Variant], default: Sequence[str]) -> list[Variant]:
    """Return the variants asked for, as `_read_variants` gives them; all the ready ones where none is."""
    for variant in variants:
        if isinstance(variant, str) and variant not in ready:
            refuse(f"unknown variant {variant!r}.", f'Use one of {", ".join(ready)}, or NAME="SITE=RATE, …".')
    return [ready[each] if isinstance(each, str) else each for each in variants or default]


def _resolve(model: Any, variant: Variant) -> dict[str, Any] | None:
    from keras_dropout.models.placement import resolve

    return None if variant.placement is None else spread_over_depth(resolve(model, variant.placement))


def _renamed(variant: Variant, model: Any, made: Any) -> Variant:
    """Return the variant with its sites renamed as they are called in the model made again: some classes number their layers."""
    from keras_dropout.models.placement import sites

    if variant.placement is None:
        return variant
    before, after = ([site.name for site in sites(each)] for each in (model, made))
    if len(before) != len(after):
        refuse(
            f"made again from its configuration, the model has {len(after)} sites, where it has {len(before)} now.",
            "Have the get_config of each class of your own return all arguments of its constructor.",
        )
    names = dict(zip(before, after))
    return Variant(variant.name, {names.get(site, site): spec for site, spec in variant.placement.items()})


def _opened(model: Any) -> Any:
    """Return the model as it is trained: a subclassed one as a functional model with its layers. Refuse what cannot be studied."""
    from keras_dropout.models import graph
    from keras_dropout.models.placement import sites

    opened = graph.opened(model)
    if not sites(opened):
        refuse(f"the model {model.name!r} has no place for dropout.", "Give it a layer with weights.")
    checks.check_compiled(model)
    return opened


def _still_random(model: Any) -> tuple[str, ...]:
    """Say which layers draw at random in every variant; refuse dropout that cannot be taken out for the baseline."""
    from keras_dropout.models.placement import rewire, still_random

    return tuple(
        f"the layer {path!r} ({type(layer).__name__}) draws at random in training in every variant, {BASELINE} too: "
        "it has no option that is known as dropout"
        for path, layer in still_random(rewire(model, {})[0])
    )


def _makes_sense(model: Any, variant: Variant) -> bool:
    """Whether a ready variant says something about this model; one that is built without dropout is the baseline as built."""
    from keras_dropout.models.placement import is_dropout, resolve

    if variant.placement is None:
        return any(map(is_dropout, model._flatten_layers()))
    try:
        return variant.name == BASELINE or bool(resolve(model, variant.placement))
    except BadInput:
        return False


def _optimizer(name: str) -> Any:
    """Return the optimizer of a name; None where there is none, and where a name is not enough to make it."""
    import keras

    try:
        return keras.optimizers.get(name)
    except (ValueError, KeyError, TypeError):
        return None


def _with_rate(optimizer: Any, learning_rate: float) -> Any:
    """Another optimizer like this one, with a learning rate; of one around another, that inside has it."""
    import keras

    inner = getattr(optimizer, "inner_optimizer", None)
    changed = (
        {"learning_rate": learning_rate}
        if inner is None
        else {"inner_optimizer": keras.optimizers.serialize(_with_rate(inner, learning_rate))}
    )
    return type(optimizer).from_config(optimizer.get_config() | changed)


def _compile_settings(model: Any, optimizer: str | None, learning_rate: float | None) -> dict[str, Any]:
    """What the model was compiled with, with another optimizer or learning rate if asked for. The model stays as it is."""
    import keras

    made = model.optimizer
    if optimizer is not None:
        made = _optimizer(optimizer)
        if made is None:
            known = sorted(n.lower() for n in dir(keras.optimizers) if isinstance(getattr(keras.optimizers, n), type))
            refuse(f"unknown optimizer {optimizer!r}.", f"Use one of: {', '.join(filter(_optimizer, known))}.")
    if learning_rate is not None:
        made = _with_rate(made, learning_rate)
    settings = checks.portable(keras.optimizers.serialize(made))
    settings["config"].pop("name", None)  # counted up by Keras with every optimizer made; it would change the runs' keys
    return model.get_compile_config() | {"optimizer": settings}
