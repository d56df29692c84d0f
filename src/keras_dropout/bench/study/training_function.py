"""A training function: the user's own training as the target of `compare`. Recognise it, and plan its study. Trains nothing."""

import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.data.dataset import Data, Part
from keras_dropout.bench.ledger.store import check_ledger_path
from keras_dropout.bench.records import BASELINE, DataFacts, FunctionStudy, Variant, check_variant_names
from keras_dropout.bench.settings import CompareSettings, Setting, complete, rows
from keras_dropout.bench.study import own_classes
from keras_dropout.bench.study.planning import AS_BUILT, Plan, _own_backend, _read_seeds, _read_variants
from keras_dropout.characters import clean_line
from keras_dropout.errors import check_choice, refuse
from keras_dropout.frameworks import check_backend
from keras_dropout.models import targets

PARAMETER = "run"  # a function with this parameter is a training function
TAKEN = (
    *("baseline", "seeds", "max_seeds", "margin", "primary", "power", "epochs", "backend", "workers", "on", "ledger"),
    *("uses", "higher_is_better", "lower_is_better"),
)
_VARIANTS = 'Write {"dropout": {"encoder": 0.2}} for run.rate("encoder"), or {"dropout": {"hidden": 0.2}} for run.place(model).'


class NoData(Data):
    """The data of a study of a training function: none, because the function brings its own."""

    def parts(self, split: str) -> dict[str, Part]:
        """Return no parts."""
        return {}


def is_training_function(target: Any, data: Any = None) -> bool:
    """Return whether a target is a training function: one that has a parameter `run`, given in Python or by name.

    The file or module of a name is run for that, unless there are data: then the name is that of a model's function.
    """
    if isinstance(target, str | Path):
        if data is not None or not targets.is_function(str(target)):
            return False
        targets.check(str(target))
        target = targets.load_function(str(target))
    if not callable(target) or isinstance(target, type):
        return False
    try:
        return PARAMETER in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False


def refuse_in_search(target: Any, data: Any = None) -> None:
    """Refuse a training function as the target of a search."""
    if is_training_function(target, data):
        refuse(
            f"{_name(target)} trains by itself; got a search, which needs a model and its validation data.",
            "Compare some rates instead: keras-dropout compare, with a --variant for each.",
        )


def plan_function(target: Any, data: Any = None, *, variants: Any = None, **settings: Any) -> Plan:
    """Check everything and plan the study of a training function; see `compare`. Writes nothing, trains nothing.

    Raises `BadInput`.
    """
    name = _name(target)
    if data is not None:
        refuse(f"{name} trains by itself, on data that it brings; got data too.", "Leave data out, or name a model as the target.")
    asked = _check_settings(name, settings)
    chosen = _choose(name, variants)
    check_variant_names([variant.name for variant in chosen], asked["baseline"])
    backend = check_backend(asked["backend"] or _own_backend())
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", backend)
    uses = {path: _hash_of(Path(path)) for path in asked["uses"]}
    fingerprint = hashlib.sha256(repr((name, sorted(uses.values()))).encode()).hexdigest()[:32]
    study = FunctionStudy(
        target=name,
        data=DataFacts(", ".join(map(os.path.basename, uses)), fingerprint, 0, 0, 0),
        model={},
        compiled={},
        split="",
        backend=backend,
        engine="",
        epochs=asked["epochs"] or 0,
        batch_size=0,
        seeds=asked["seeds"],
        variants=chosen,
        baseline=asked["baseline"],
        uses=uses,
        rising=asked["higher_is_better"],
        falling=asked["lower_is_better"],
        **_code_of(target),
    )
    nothing = Part(np.empty(0), np.empty(0))
    return Plan(study, NoData(study.data.name, nothing, nothing, 0), asked | {"keep_examples": False})


def _name(target: Any) -> str:
    """Return a name of a training function for messages, tables and the ledger."""
    if isinstance(target, str | Path):
        return Path(target).name
    function = target.func if isinstance(target, functools.partial) else target
    return clean_line(getattr(function, "__name__", type(function).__name__))


def _check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings in the form in which they are used; refuse those that say how a model is trained."""
    table: dict[str, Setting] = rows(CompareSettings)
    for each, row in table.items():
        given = settings.get(each)
        if each not in TAKEN and given is not None and given != row.default:
            option = (row.flag or f"--{each.replace('_', '-')}") if row.help else each
            refuse(
                f"{each} is for a model that is trained here; {name} trains by itself.",
                f"Leave {option} out; what it does is for the function to do.",
            )
    taken = {each: settings[each] for each in TAKEN if each in settings}
    primary = taken.pop("primary", None)
    if primary is not None and not isinstance(primary, str):
        refuse(f"primary must name a metric; got {primary!r:.200}.", "Use a name that the function returns, for example test_loss.")
    found = complete(taken, CompareSettings) | {"primary": primary}
    if both := [each for each in found["higher_is_better"] if each in found["lower_is_better"]]:
        refuse(f"of {both[0]!r} both higher and lower are said to be better.", "Say one of them.")
    seeds, max_seeds = _read_seeds(found["seeds"], found["max_seeds"])
    return found | {"seeds": seeds, "max_seeds": max_seeds, "ledger": check_ledger_path(found["ledger"])}


def _choose(name: str, variants: Any) -> tuple[Variant, ...]:
    """Return the variants of a training function, the baseline first. A text names the baseline or the model as built."""
    ready = {BASELINE: Variant(BASELINE, {}), AS_BUILT: Variant(AS_BUILT, None)}
    found = []
    for each in _read_variants(variants):
        if isinstance(each, str):
            check_choice("variant", each, tuple(ready), f'Use one of {", ".join(ready)}, or NAME="NAME_OF_A_RATE=RATE, …".')
            each = ready[each]
        if each.name == BASELINE and each.placement:
            refuse(f"the variant {BASELINE!r} is the model without dropout; it cannot be placed.", "Give the variant another name.")
        found += [each] if each.name != BASELINE else []
    if not found:
        refuse(f"{name} has no variant to compare with {BASELINE}.", _VARIANTS)
    return ready[BASELINE], *found


def _code_of(target: Any) -> dict[str, Any]:
    """Return the fields of a study that say how a worker gets the function, and what of its code is part of the runs' keys."""
    if isinstance(target, str | Path):
        target = str(target)
        where, _, name = target.rpartition(":")
        source = targets.file_of(target)
        read = None if source is None else targets.module_name(source)
        code = own_classes.hash_of_value(targets.load_function(target), name, read)
        return {"function": f"{source or where}:{name}", "source": source, "objects_hash": code}
    return {"objects": own_classes.packed({PARAMETER: target}), "objects_hash": own_classes.hash_of_value(target, _name(target))}


def _hash_of(path: Path) -> str:
    """Return a hash of a file's contents, or of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for each in files:
        if each != path:
            digest.update(repr(each.relative_to(path).as_posix()).encode())
        with each.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
