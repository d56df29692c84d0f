"""Turn a request into a valid study, and find the runs that are left to train. Writes nothing, trains nothing."""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import os
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import numpy as np

import keras_dropout
from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.divisions import Divisions, pooled, refuse_divided
from keras_dropout.bench.data.live import LiveData
from keras_dropout.bench.ledger.lookup import kept, peek
from keras_dropout.bench.ledger.schema import LARGEST
from keras_dropout.bench.ledger.store import check_ledger_path
from keras_dropout.bench.records import BASELINE, Result, Run, Study, Variant, check_seeds, check_variant_names
from keras_dropout.bench.settings import SPLITS, CompareSettings, Settings, complete, rows
from keras_dropout.bench.study import checks, own_classes, redivision
from keras_dropout.bench.study.loading import facts_for_model, load_data, load_divisions, load_model, shipped, with_weights
from keras_dropout.errors import BadInput, check_whole, refuse
from keras_dropout.frameworks import BACKENDS, check_backend
from keras_dropout.models import targets
from keras_dropout.schedules import spread_over_depth

if TYPE_CHECKING:
    from keras_dropout.bench.racing import Race  # loads SciPy

DEFAULT_MAX_SEEDS = 30
MOST_SEEDS = 100_000  # per variant, because a study lists every run
AS_BUILT = "as-built"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Plan:
    """A valid study, with its data and all its settings, as `complete` returns them.

    `notes` describe how the data were divided and what was found in them. The engine, the reason for the engine and the number of
    workers are chosen later: see `execution.engine_choice`. With `max_seeds` in the settings, seeds are added until there are
    verdicts; `study.seeds` then lists the maximum. `world` is set in the plan of a world, {"name": …, "of": number of the study}:
    see `robustness`.
    With `divisions`, each seed has a division of its own, and `data` is that of the
    first seed.
    """

    study: Study
    data: Data
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    of_recipe: bool = False
    engine_reason: str = ""
    workers: int = 1
    world: Mapping[str, Any] | None = None
    divisions: Divisions | None = None

    def data_of(self, seed: int) -> Data:
        """Return the data of this seed's runs."""
        return self.data if self.divisions is None else self.divisions.of(seed)[0]

    @property
    def first_seed(self) -> int:
        """The seed whose division of the data is `data`, if each seed has its own."""
        return self.settings["seeds"][0]

    @property
    def ledger(self) -> Path:
        """The file that keeps the runs."""
        return self.settings["ledger"]

    def document(self) -> dict[str, Any]:
        """Return the parts of the plan that a report shows besides the study, as plain values."""
        said = {name: self.settings[name] for name in ("max_seeds", "margin", "primary", "power")}
        world = {"world": dict(self.world)} if self.world else {}
        return {"plan": {"engine_reason": self.engine_reason, **said, "notes": list(self.notes)}, **world}

    def round(self, race: "Race | None" = None) -> Study:
        """Return the study; with `max_seeds`, with the seeds of the next round of a race, or of one that has ended.

        The first round has the fewest seeds that can give a verdict. Each later one adds, for the variants that are racing and the
        baseline, as many seeds as the workers can train at once.
        """
        most = self.settings["max_seeds"]
        if most is None:
            return self.study
        from keras_dropout.bench.racing import first_look

        names = [variant.name for variant in self.study.variants]
        if race is None:
            return self.study.with_counts(dict.fromkeys(names, first_look(most)))
        seeds = min(most, max(first_look(most), race.looked + max(1, self.workers // (1 + len(race.racing)))))
        return self.study.with_counts(dict(race.stops) | dict.fromkeys(race.racing, seeds))

    def at_most(self, race: "Race | None") -> Study:
        """Return the study with all seeds that a race can still use; all there are without one."""
        if race is None or self.settings["max_seeds"] is None:
            return self.study
        return self.study.with_counts(dict(race.stops) | dict.fromkeys(race.racing, self.settings["max_seeds"]))

    def todo(self, known: Mapping[str, Result], kept: Collection[str] = ()) -> list[Run]:
        """Return the runs that `known` lacks, each key once; failed runs are tried again.

        If models are to be kept, this includes finished runs whose models are not in `kept`.
        """
        missing: dict[str, Run] = {}
        for run in self.study.runs():
            status = known[run.key].status if run.key in known else None
            if status in (None, "failed") or (self.settings["keep_weights"] and status == "done" and run.key not in kept):
                missing.setdefault(run.key, run)
        return list(missing.values())

    def known(self) -> dict[str, Result]:
        """Return the results that the ledger already has, without changing it."""
        return peek(self.ledger, {run.key for run in self.study.runs()})

    def kept(self) -> set[str]:
        """Return the keys of the runs whose models the ledger has."""
        return kept(self.ledger, {run.key for run in self.study.runs()})


@contextlib.contextmanager
def without_random_numbers() -> Iterator[None]:
    """Restore the state of Python's `random`: creating layers draws from it, and the user's program may use it too."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def leaves_target_unchanged(function: _Function) -> _Function:
    """Make a function leave a model passed to it unchanged; see `models.graph.unchanged`."""

    @functools.wraps(function)
    def guarded(target: Any, *args: Any, **options: Any) -> Any:
        if isinstance(target, (str, Path)) or "keras" not in sys.modules:  # without a model, no framework is needed
            return function(target, *args, **options)
        from keras_dropout.models import graph

        return graph.leaves_unchanged(function)(target, *args, **options)

    return cast(_Function, guarded)


def _own_backend() -> str:
    """Return the backend of the program's own Keras; jax if Keras is not loaded, as in the command."""
    keras = sys.modules.get("keras")
    own = keras.backend.backend() if keras and hasattr(keras, "backend") else "jax"
    return own if own in BACKENDS else "jax"


_OF_FIT = {  # arguments of Keras's fit, and their replacements here
    "x": "Give both together: (x, y).",
    "y": "Give both together: (x, y).",
    "sample_weight": "Give it as a third member: (x, y, weights).",
    "verbose": "Use quiet=True to print nothing.",
}


def check_names(function: str, settings: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise TypeError for an unexpected keyword, in the name of the function that the user called; refuse arguments of fit."""
    for name in settings:
        if name in _OF_FIT:
            refuse(f"{function} has no {name}; that is an argument of fit.", _OF_FIT[name])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}.{hint}")


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a study in the form in which they are used, `variants` included; refuse wrong ones.

    Missing names get their defaults, and `settings` may hold other names. No framework is loaded.
    """
    for name in rows(CompareSettings).keys() - rows(Settings).keys():
        if settings.get(name):
            refuse(
                f"{name} is for a training function or for scores of your own; got a model.",
                f"Leave {name} out; whether more of a metric is better is known by its name.",
            )
    found = complete(settings, Settings)
    backend, engine, split = found["backend"] or _own_backend(), found["engine"], found["split"]
    if engine in ("compiled", "stacked") and backend != "jax":
        refuse(f"the {engine} engine runs on jax; got the backend {backend}.", "Leave --engine out, or use --backend jax.")
    if found["early_stopping"] is not None and split != SPLITS[0]:
        refuse(
            f"early stopping needs validation data of their own; the split {split} trains on them.",
            f"Use --split {SPLITS[0]}.",
        )
    if found["validation_data"] is not None and found["validation_split"] != 0.1:
        refuse("validation_split is for data without validation data; validation_data are given.", "Leave one of the two out.")
    if found["callbacks"] is not None:
        if engine in ("compiled", "stacked"):
            refuse(
                f"callbacks are called by Keras's fit; got the engine {engine}.", "Leave --engine out, or leave out the callbacks."
            )
        if found["checkpoint_every"] is not None:
            refuse(
                "a run with callbacks cannot go on from a checkpoint, which lacks their state.",
                "Leave --checkpoint-every out, or the callbacks.",
            )
    if found["robust"] and (found["seeds"] == "auto"):
        refuse(
            "robust asks again with the same seeds; got auto, which adds seeds until there is a verdict.",
            "Use --seeds 6, or leave --robust out.",
        )
    if found["resample_split"]:
        redivision.check_settings(found, found["seeds"])
    variants = _read_variants(settings.get("variants"))
    names = [each if isinstance(each, str) else each.name for each in variants if each not in (BASELINE, Variant(BASELINE, {}))]
    for each in variants:
        if isinstance(each, str) and each not in (*_READY, _PUBLISHED):
            ready = f"{', '.join(_READY)}, of recipes also {_PUBLISHED}"
            refuse(f"unknown variant {each!r}.", f'Use one of {ready}, or NAME="SITE=RATE, …".')
    if BASELINE in names:  # a variant that places something, or leaves the model as built
        refuse(f"the variant {BASELINE!r} is the model without dropout; it cannot be placed.", "Give the variant another name.")
    check_variant_names([BASELINE, *(names or (*_READY[1:], _PUBLISHED))], found["baseline"])
    seeds, max_seeds = _read_seeds(found["seeds"], found["max_seeds"])
    return found | {"variants": variants, "seeds": seeds, "max_seeds": max_seeds, "ledger": check_ledger_path(found["ledger"])}


def check_sources(target: Any, data: Any, settings: Mapping[str, Any]) -> None:
    """Refuse a target or data that cannot be used, whatever their contents. No framework is loaded."""
    options, split = settings.get("data_options"), settings.get("split") or SPLITS[0]
    if isinstance(target, str | Path):
        targets.check(str(target))
    if isinstance(target, str) and not targets.names_model(target):
        if data is not None or options:
            refuse(f"the recipe {target} has data of its own.", "Leave data out, or name a model: file.keras or file.py:function.")
        if settings.get("from_weights") is True and target not in targets.TUNED:
            refuse(f"the recipe {target} has no weights of its own.", "Name a file of weights, or leave from_weights out.")
        return
    if inspect.isroutine(target) or isinstance(target, type):
        refuse(
            f"expected a Keras model; got {target.__name__}, which was not called.",
            f"Give what it returns: {target.__name__}(). A function that trains by itself takes run: def {target.__name__}(run).",
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


@dataclass(frozen=True)
class _Subject:
    """The subject of a study: the model as `given` and as trained, its data, and the ready variants for it."""

    name: str
    given: Any
    model: Any
    data: Data
    notes: tuple[str, ...]
    ready: Mapping[str, Variant]
    default: Sequence[str]
    epochs: int
    batch_size: int
    source: str | None = None  # the file of the function that made the model
    divisions: Divisions | None = None


def plan_study(target: Any, data: Any = None, *, variants: Any = None, **settings: Unpack[Settings]) -> Plan:
    """Check everything and plan the study; see `compare`. `data` may also be a `Data`. Writes nothing, trains nothing.

    Raises `BadInput`.
    """
    asked = check_settings({**settings, "variants": variants})
    check_sources(target, data, asked)
    backend = check_backend(asked["backend"] or _own_backend())
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", backend)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves a GPU's memory to the workers
    target = str(target) if isinstance(target, Path) else target
    of_recipe = isinstance(target, str) and not targets.names_model(target)
    subject = _recipe(target, asked) if of_recipe else _own_model(target, data, asked)
    model, ready = subject.model, subject.ready
    compiled = _compile_settings(subject.given, asked["optimizer"], asked["learning_rate"])
    chosen = _choose(asked["variants"], ready, subject.default)
    placed = [Variant(variant.name, _resolve(model, variant)) for variant in chosen if variant != ready[BASELINE]]
    check_live(subject.data, asked)
    start = asked["from_weights"] or (True if of_recipe and target in targets.TUNED else None)
    begun = with_weights(model, start)
    made, notes = checks.settings_of(begun), subject.notes
    needed: dict[str, Any] = {}
    if not of_recipe:
        made, placed, needed, more = _made_again(subject, begun, compiled, placed)
        notes += more
    loss, batch_size = compiled["loss"], asked["batch_size"] or subject.batch_size

    def check(data: Data) -> tuple[str, ...]:
        return checks.check_data(model, data, asked["split"], batch_size, loss)

    def weigh(data: Data) -> dict[int, float] | None:
        return checks.resolve_class_weight(asked["class_weight"], data.parts(asked["split"])["train"], model, loss)

    if isinstance(subject.data, LiveData):
        notes += check(subject.data)
        looked = subject.data.looked(lambda role, batch: list(checks.check_part(model, role, batch, loss)))
        subject, notes = dataclasses.replace(subject, data=looked), (*notes, *looked.notes)
    elif subject.divisions is None:
        notes += check(subject.data)
    else:
        needed["divisions"], more = redivision.facts_of(subject.divisions, asked["seeds"], check, weigh)
        needed["comparable"] = subject.divisions.same_form
        notes = (more[0], *notes, *more[1:])
    callbacks = None if asked["callbacks"] is None else shipped(asked["callbacks"], "callbacks")
    if callbacks is not None:
        notes += (f"each run has callbacks of its own: {callbacks.name}",)
    if asked["steps_per_epoch"] is not None:
        notes += (f"an epoch is {asked['steps_per_epoch']:,} training batches",)
    study = Study(
        target=subject.name,
        data=subject.data.facts(asked["split"]) if subject.divisions is None else subject.divisions.facts,
        model=made,
        compiled=compiled,
        split=asked["split"],
        backend=backend,
        engine="compiled" if backend == "jax" else "reference",
        epochs=asked["epochs"] or subject.epochs,
        batch_size=batch_size,
        seeds=asked["seeds"],
        variants=(ready[BASELINE], *placed),
        baseline=asked["baseline"],
        class_weight=weigh(subject.data),
        early_stopping=asked["early_stopping"],
        samples=asked["samples"],
        weights=None if start is None else checks.weights_of(begun),
        steps_per_epoch=asked["steps_per_epoch"],
        callbacks=callbacks,
        **needed,
    )
    return Plan(study, subject.data, asked, notes, of_recipe, divisions=subject.divisions)


def _recipe(name: str, asked: Mapping[str, Any]) -> _Subject:
    """Return the subject of a recipe."""
    from keras_dropout.bench.study import recipes

    recipe = recipes.find(name)
    model, ready = recipe.model(), {variant.name: variant for variant in recipe.variants}
    data, default, divisions = recipe.data(asked["data_dir"]), list(ready), None
    ready[AS_BUILT] = Variant(AS_BUILT, None)
    if asked["resample_split"]:
        if name in targets.TUNED:
            refuse_divided(f"{name} is pretrained on films that are in no part, and divided by film", "Name another recipe, or")
        divisions = pooled(data, recipe.drawn)
        data, _ = divisions.of(asked["seeds"][0])
    return _Subject(recipe.name, model, model, data, (), ready, default, recipe.epochs, recipe.batch_size, None, divisions)


def _own_model(target: Any, data: Any, asked: Mapping[str, Any]) -> _Subject:
    """Return the subject for the user's model, or for a file or function that names a model."""
    options = {"validation_split": asked["validation_split"], **(asked["data_options"] or {})}
    if asked["validation_data"] is not None:
        options["validation_data"] = asked["validation_data"]
    divisions = load_divisions(target, data, options) if asked["resample_split"] else None
    to_stream = asked["steps_per_epoch"], asked["batch_size"]
    loaded, about = load_data(target, data, options, *to_stream) if divisions is None else divisions.of(asked["seeds"][0])
    given = load_model(target, **facts_for_model(loaded, about)) if isinstance(target, str) else target
    notes = (about.split, *about.notes) if about is not None else (loaded.division,) if loaded.division else ()
    notes = () if divisions is not None else notes  # each division has notes of its own
    name = Path(target).name if isinstance(target, str) else getattr(given, "name", "")
    model = _opened(given)
    ready = {BASELINE: Variant(BASELINE, {}), AS_BUILT: Variant(AS_BUILT, None)}
    ready |= {group: Variant.of(group, {group: 0.2}) for group in ("hidden", "last")}
    default = [name for name in ready if _makes_sense(model, ready[name])]
    if default == [BASELINE] and not asked["variants"]:
        refuse(
            f"the model {name!r} has no place for dropout: no hidden layer with weights.",
            'Name a place, for example the input: variants={"input": {"input": 0.2}}.',
        )
    source = targets.file_of(target) if isinstance(target, str) and targets.is_function(target) else None
    batch_size = 32 if loaded.whole else arrays.count(loaded.train.y)
    return _Subject(name, given, model, loaded, notes, ready, default, 20, batch_size, source, divisions)


def check_live(data: Data, asked: Mapping[str, Any]) -> None:
    """Refuse settings that live streams cannot have."""
    if not isinstance(data, LiveData):
        return
    assert data.live is not None
    refused = {
        "class_weight": (asked["class_weight"], "Give sample weights in the stream: (x, y, weights)."),
        "samples": (asked["samples"], "Keep the models, --keep-weights, and measure them with keras-dropout uncertainty."),
        "validation_split": (asked["validation_split"] != 0.1, "Divide in the function that gives the streams."),
        "data_options": (asked["data_options"], "Do that in the function that gives the streams."),
    }
    for name, (value, fix) in refused.items():
        if value:
            refuse(f"{name} is for data in memory; {data.name} gives streams, which a run only iterates.", fix)
    if asked["engine"] in ("compiled", "stacked"):
        refuse(
            f"streams are iterated by Keras's fit; got the engine {asked['engine']}.",
            "Leave --engine out: a study of streams is trained by fit.",
        )
    if asked["batch_size"] is not None and data.live.batch_size is None:
        refuse(
            f"the streams of {data.name} make batches themselves; got the batch size {asked['batch_size']}.",
            "Leave --batch-size out, or have the function take batch_size=.",
        )


def _made_again(
    subject: _Subject, begun: Any, compiled: Mapping[str, Any], placed: list[Variant]
) -> tuple[dict[str, Any], list[Variant], dict[str, Any], tuple[str, ...]]:
    """Check that each run can make the model again; return (settings, variants, fields for the worker, notes).

    The settings are those from which each run makes the model, and the variants name the sites of the model made again. Refuse a
    model that differs when it is made again.
    """
    from keras_dropout.models import graph

    settings = checks.settings_of(begun)
    if subject.model is not subject.given:
        settings = checks.without_batch(settings)
    made, needed = checks.check_can_be_made_again(settings, compiled, subject.source, own_classes.of_model(subject.given))
    settings = graph.with_lost(settings, begun, made)
    checks.check_statistics(begun, made)
    checks.check_same(subject.model, subject.given, made)
    return settings, [_renamed(variant, subject.model, made) for variant in placed], needed, _still_random(made)


_READY, _PUBLISHED = (BASELINE, AS_BUILT, "hidden", "last"), "as-published"  # ready for every model; for recipes too
_PLACEMENT = 'Write {"NAME": {"hidden": 0.2}}, {"NAME": "hidden=0.2, last=0.5"}, or a list of the names of ready ones.'


def _read_variants(variants: Any) -> list[Variant | str]:
    """Return the requested variants, each as a `Variant` or as the name of a ready variant."""
    if variants is None:
        return []
    if isinstance(variants, Mapping):
        return [_read_variant(name, value) for name, value in variants.items()]
    if isinstance(variants, str | Variant):
        variants = [variants]
    elif isinstance(variants, Set):
        variants = sorted(variants, key=str)  # the order of a set differs between processes
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
        fix = f"For example {{{name!r}: 'hidden={rate}'}}; in a study file {name!r} = 'hidden={rate}'."
        refuse(f"variant {name!r} must say what stands at which site; got {value!r}.", fix)
    _check_kinds(variant)
    return variant


def _check_kinds(variant: Variant) -> None:
    """Refuse a kind of layer that the library lacks."""
    known = sorted(name for name, home in keras_dropout._HOME.items() if home == "layers" and name[0].isupper())
    for spec in (variant.placement or {}).values():
        if spec["kind"] not in known:
            refuse(f"no dropout layer {spec['kind']!r} that can be put at a site.", f"Use one of: {', '.join(known)}.")


def _read_seeds(seeds: Any, max_seeds: Any) -> tuple[tuple[int, ...], int | None]:
    """Return the seeds, and their maximum number if seeds are added until there is a verdict."""
    if isinstance(seeds, str):
        if seeds != "auto":
            refuse(f"seeds must be a whole number of at least 1, or auto; got {seeds!r}.", "For example 6.")
        most = DEFAULT_MAX_SEEDS if max_seeds is None else max_seeds
        from keras_dropout.bench.statistics import fewest_pairs

        fix = f"Use --max-seeds 30, or another number from {fewest_pairs()}, the fewest that show a difference, to {MOST_SEEDS:,}."
        most = check_whole("max seeds", most, fewest_pairs(), fix, MOST_SEEDS)
        return tuple(range(most)), most
    if max_seeds is not None:
        refuse(f"max seeds {max_seeds} is for seeds that are added until there is a verdict.", "Use --seeds auto with it.")
    if isinstance(seeds, Sequence | Set) or (isinstance(seeds, np.ndarray) and seeds.ndim):
        fix = "Seeds are whole numbers from 0 to 2**63 - 1."
        found = tuple(check_whole("seed", seed, 0, fix, LARGEST) for seed in seeds)
        check_seeds(found)
        return found, None
    fix = "Six are the fewest that can show a difference. The seeds themselves go into a list."
    return tuple(range(check_whole("seeds", seeds, 1, fix, MOST_SEEDS))), None


def _choose(variants: Sequence[Variant | str], ready: Mapping[str, Variant], default: Sequence[str]) -> list[Variant]:
    """Return the requested variants, from the output of `_read_variants`; the default ones if none are requested."""
    for variant in variants:
        if isinstance(variant, str) and variant not in ready:
            refuse(f"unknown variant {variant!r}.", f'Use one of {", ".join(ready)}, or NAME="SITE=RATE, …".')
    return [ready[each] if isinstance(each, str) else each for each in variants or default]


def _resolve(model: Any, variant: Variant) -> dict[str, Any] | None:
    from keras_dropout.models.placement import resolve

    return None if variant.placement is None else spread_over_depth(resolve(model, variant.placement))


def _renamed(variant: Variant, model: Any, made: Any) -> Variant:
    """Return the variant with the site names of the model made again: some classes number their layers anew."""
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
    """Return the model as trained: a subclassed model becomes a functional one with its layers. Refuse unsuitable models."""
    from keras_dropout.models import graph
    from keras_dropout.models.placement import sites

    opened = graph.opened(model)
    if not sites(opened):
        refuse(f"the model {model.name!r} has no place for dropout.", "Give it a layer with weights.")
    checks.check_compiled(model)
    return opened


def _still_random(model: Any) -> tuple[str, ...]:
    """Return notes on layers that draw at random in every variant; refuse dropout that cannot be removed for the baseline."""
    from keras_dropout.models.placement import rewire
    from keras_dropout.models.randomness import still_random

    return tuple(
        f"the layer {path!r} ({type(layer).__name__}) draws at random in training in every variant, {BASELINE} too: "
        "it has no option that is known as dropout"
        for path, layer in still_random(rewire(model, {})[0])
    )


def _makes_sense(model: Any, variant: Variant) -> bool:
    """Return whether a ready variant is useful for this model; "as-built" is useful only if the model has dropout."""
    from keras_dropout.models.dropping import is_dropout
    from keras_dropout.models.placement import resolve

    if variant.placement is None:
        return any(map(is_dropout, model._flatten_layers()))
    try:
        return variant.name == BASELINE or bool(resolve(model, variant.placement))
    except BadInput:
        return False


def _optimizer(name: str) -> Any:
    """Return the optimizer with this name, or None if there is none or if it needs more than a name."""
    import keras

    try:
        return keras.optimizers.get(name)
    except (ValueError, KeyError, TypeError):
        return None


def _with_rate(optimizer: Any, learning_rate: float) -> Any:
    """Return a copy of the optimizer with another learning rate; in a wrapper, the inner optimizer gets the rate."""
    import keras

    inner = getattr(optimizer, "inner_optimizer", None)
    changed = (
        {"learning_rate": learning_rate}
        if inner is None
        else {"inner_optimizer": keras.optimizers.serialize(_with_rate(inner, learning_rate))}
    )
    return type(optimizer).from_config(optimizer.get_config() | changed)


def _compile_settings(model: Any, optimizer: str | None, learning_rate: float | None) -> dict[str, Any]:
    """Return the model's compile settings, with another optimizer or learning rate if requested. The model stays unchanged."""
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
    settings["config"].pop("name", None)  # Keras numbers the names of optimizers, which would change the runs' keys
    return model.get_compile_config() | {"optimizer": settings}
