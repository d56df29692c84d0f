"""A study in a ledger, even if it still runs -> its comparison. Changes nothing, trains nothing, loads no framework."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_dropout.bench.ledger.lookup import check_readable, decoding, latest_study, peek
from keras_dropout.bench.ledger.schema import LARGEST, refusing
from keras_dropout.bench.records import BASELINE, Study
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.errors import BadInput, check_whole, refuse

# Required fields of a document. `Study` itself checks counts and choices.
_FACTS = {"name": str, "fingerprint": str, "train": int, "validation": int, "test": int}
_DOCUMENT = {
    "study": {
        "target": str,
        "split": str,
        "baseline": str,
        "data": _FACTS,
        "compiled": dict,
        "seeds": [int],
        "variants": [{"name": str, "placement": dict | None}],
        "class_weight": dict | None,
        "from_weights": str | None,
    },
    "plan": {"engine_reason": str, "max_seeds": int | None, "margin": int | float | None, "primary": str | None, "notes": [str]},
}

_FUNCTION = {"function": {"name": str, "uses": dict, "rising": [str], "falling": [str]}}
_DIVIDED_ANEW = {"divisions": [{"seed": int, **_FACTS}], "fixed_keys": [{"variant": str, "seed": int, "key": str}]}


def retrieve(path: str | Path, target: str | None = None, number: int | None = None) -> ShownComparison:
    """Return a ledger's latest study, its latest study of a target, or its study with a number; of a running study, so far."""
    path = Path(path)
    listing = f"keras-dropout report {shlex.quote(str(path))} --list"
    if number is not None:
        check_whole("study", number, 1, f"{listing} shows what there is.", LARGEST)
    found = latest_study(path, target, number)
    if found is None:
        if not check_readable(path):
            refuse(f"there is no ledger {path}.", "Name the file that compare wrote to; it is keras-dropout.db by default.")
        which = f"study {number}" if number is not None else "study" if target is None else f"study of {target!r}"
        if latest_study(path) is None:
            refuse(
                f"the ledger {path} has no {which}.", f"keras-dropout compare TARGET --ledger {shlex.quote(str(path))} makes one."
            )
        refuse(f"the ledger {path} has no {which}.", f"{listing} shows what it has.")
    where = f"study {found['id']} cannot be read"
    with refusing(path, "read"), decoding(where):
        keys = {(run["variant"], run["seed"]): run["key"] for run in found["runs"]}
    results = peek(path, keys.values(), each_example=False)
    document = found["document"] or _document_before(found, path)
    try:
        check_shape(document, _DOCUMENT)
        for name, shape in (("divisions", _DIVIDED_ANEW), ("function", _FUNCTION)):
            if name in document["study"]:
                check_shape(document["study"], shape)
    except ValueError as error:  # `runs verify` does not check for this
        refuse(f"the ledger {path} is damaged: {where}: {error}.", "Go back to a copy of it, or name another --study.")
    with refusing(path, "read"), decoding(where):
        study, plan = Study.from_document(document["study"], keys), document["plan"]
        study.runs()  # each has a key
        _ = [study.data_of(seed) for seed in study.seeds]  # each has a division, if they differ
        found_so_far = ShownComparison(
            study,
            results,
            timing=document.get("timing", {}),
            command=found["command"],
            engine_reason=plan["engine_reason"],
            notes=plan["notes"],
            max_seeds=plan["max_seeds"],
            margin=plan["margin"],
            primary=plan.get("primary"),  # studies of earlier versions have none
            power=plan.get("power"),
            ledger=path,
            number=found["id"],
            made={name: found[name] for name in ("started", "versions", "machine")},
            more={name: document[name] for name in ("network", "search", "sweep", "worlds") if name in document},
        )
        return found_so_far.in_race()


def check_shape(value: Any, shape: Any) -> None:
    """Raise ValueError if a JSON value does not have a shape: a type, {name: shape}, or [shape] for each element of a list."""
    if isinstance(shape, dict):
        check_shape(value, dict)
        for name, inner in shape.items():
            check_shape(value.get(name), inner)
    elif isinstance(shape, list):
        check_shape(value, list)
        for each in value:
            check_shape(each, shape[0])
    elif not isinstance(value, shape) or isinstance(value, bool):
        raise ValueError(f"it has {type(value).__name__} where it should have {getattr(shape, '__name__', shape)}")


@contextlib.contextmanager
def shown(path: str | Path) -> Iterator[None]:
    """Refuse a study whose page cannot be made, because its ledger may hold anything for network, search and sweep."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        refuse(
            f"the study in {path} cannot be shown: {type(error).__name__}: {error!s:.200}.",
            f"keras-dropout runs verify --ledger {shlex.quote(str(path))} finds damage; where it finds none, please report this.",
        )


def _document_before(found: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Rebuild the document of a study from a version without documents, from the configurations of its runs.

    These configurations have numbers of layers, such as "#4", instead of names.
    """
    config, runs = found["config"], found["runs"]
    if not config:
        refuse(f"study {found['id']} in {path} has no finished run.", "Wait until one has ended, or name another --study.")
    names = list(dict.fromkeys(run["variant"] for run in runs))
    keys = [run["key"] for run in runs if run["status"] == "done"]
    losses = next((result.test_losses for result in peek(path, keys[:1]).values()), None)
    split, train, validation = config["split"]
    sizes = {"train": train, "validation": validation, "test": 0 if losses is None else len(losses)}
    taken = ("backend", "engine", "epochs", "batch_size", "compiled")
    study = {
        "target": found["target"],
        "data": {"name": found["target"], "fingerprint": config["data"], **sizes},
        **{name: config[name] for name in taken},
        "split": split,
        "seeds": list(dict.fromkeys(run["seed"] for run in runs)),
        "variants": [{"name": name, "placement": found["placements"].get(name)} for name in names],
        "baseline": BASELINE if BASELINE in names else names[0],
        **{name: config.get(name) for name in ("class_weight", "early_stopping", "samples")},
        "from_weights": config.get("weights"),
    }
    return {"study": study, "plan": {"engine_reason": "", "max_seeds": None, "margin": None, "notes": []}}
