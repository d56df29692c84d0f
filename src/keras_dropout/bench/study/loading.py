"""Load models, data, and the trained models of a ledger by name."""

import hashlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_dropout.bench.data import arrays, divisions, files
from keras_dropout.bench.data.dataset import Data, Part, from_arrays, is_part
from keras_dropout.bench.data.divisions import Divisions
from keras_dropout.bench.data.frames import is_frame
from keras_dropout.bench.data.live import Given, is_live, live_data, parameters
from keras_dropout.bench.data.streams import is_stream
from keras_dropout.bench.ledger.lookup import latest_study, models
from keras_dropout.bench.settings import SPLITS
from keras_dropout.bench.study import own_classes
from keras_dropout.errors import BadInput, refuse
from keras_dropout.models import targets


def load_target(target: str, data: str | None, data_options: Mapping[str, Any]) -> tuple[Any, Any, int | None]:
    """Load a model from a recipe's name, a file or a function; return (model, inputs, number of training examples).

    The inputs are at most 1,000 of the training inputs, as the model sees them. Without data, the inputs and the number are None.
    """
    targets.check(target)
    if data is None and data_options:
        refuse(f"{', '.join(data_options)} say how data are read, and there are none.", "Add --data FILE.")
    loaded, about = (None, None) if data is None else _load_whole(data, data_options)
    if targets.names_model(target):
        model = load_model(target, **({} if loaded is None else facts_for_model(loaded, about)))
    else:
        from keras_dropout.bench.study import recipes

        model = recipes.find(target).model()
    if loaded is None:
        return model, None, None
    inputs = arrays.as_seen(arrays.take(loaded.train.x, slice(loaded.validation, loaded.validation + 1000)), loaded.divide_by)
    return model, inputs, arrays.count(loaded.train.y) - loaded.validation


def evaluation_data(
    target: str, data: str | None, data_options: Mapping[str, Any], data_dir: str | None = None
) -> tuple[Any, Data, dict[str, Part], files.Description | None]:
    """Load a model from a recipe's name, a file or a function, and its data; return (model, data, parts, description).

    The parts are the "validation" and "test" examples as the model sees them. The description is None unless the data
    came from files or a function. A recipe as the target has its own data; for other targets, `data` may be the name of a recipe.
    """
    targets.check(target)
    if not targets.names_model(target):
        if data is not None or data_options:
            refuse(f"the recipe {target} has data of its own.", "Leave data out, or name a model: file.keras or file.py:function.")
        from keras_dropout.bench.study import recipes

        loaded, about = recipe_data(target, data_dir), None
        model = recipes.find(target).model()
    else:
        loaded, about = named_data(data, data_options, data_dir)
        model = load_model(target, **facts_for_model(loaded, about))
    return model, loaded, as_seen_parts(loaded), about


def check_data_name(data: str | None) -> None:
    """Refuse the name of data that do not exist; read nothing."""
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
    """Load the data of a file, a function or a recipe, with a description for files and functions."""
    if data is None:
        refuse("there are no data to measure the model on.", "Add --data FILE, with labels, or --data RECIPE.")
    if "," in data or targets.names_model(data):
        return _load_whole(data, data_options)
    if data_options:
        refuse(f"{', '.join(data_options)} say how files are read; {data} is a recipe.", "Leave them out.")
    return recipe_data(data, data_dir), None


def _load_whole(data: str, options: Mapping[str, Any]) -> tuple[Data, files.Description | None]:
    """Return the data of a file or function, with a description; refuse streams, of which only the first batches are known."""
    loaded, about = load_data(None, data, {"validation_split": 0.1, **options})
    if not loaded.whole:
        refuse(
            f"{loaded.name} gives streams, which only compare and tune iterate.",
            "Have a function return arrays: the examples to measure on, ((x, y), (x_test, y_test)).",
        )
    return loaded, about


def recipe_data(name: str, data_dir: str | None = None) -> Data:
    """Return the data of the recipe with this name."""
    targets.check_recipe(name)
    from keras_dropout.bench.study import recipes

    return recipes.find(name).data(data_dir)


def as_seen_parts(loaded: Data) -> dict[str, Part]:
    """Return the "validation" and "test" examples as the model sees them."""
    parts = loaded.parts(SPLITS[0])
    return {name: parts[name]._replace(x=arrays.as_seen(parts[name].x, loaded.divide_by)) for name in ("validation", "test")}


def kept_models(ledger: str, variant: str | None) -> tuple[dict[int, Any], dict[str, Any]]:
    """Return the trained models of one variant of a ledger's latest study, by seed, and the study as from `latest_study`."""
    study = latest_study(ledger)
    if study is None:
        refuse(f"there is no study in {ledger}.", "Make one: keras-dropout compare TARGET --keep-weights --ledger FILE")
    if "divisions" in ((study["document"] or {}).get("study") or {}):
        refuse(
            f"the data were divided anew for each seed of the study in {ledger}: its models have no test data in common.",
            "Make the study again with the data divided once.",
        )
    names = list(dict.fromkeys(run["variant"] for run in study["runs"]))
    if variant not in names:
        said = "--variant is missing" if variant is None else f"the study has no variant {variant!r}"
        refuse(f"{said}; {ledger} has the variants {', '.join(names)}.", f"For example --variant {names[-1]}")
    runs = {run["key"]: run["seed"] for run in study["runs"] if run["variant"] == variant}
    found = {runs[key]: model for key, model in trained_models(ledger, runs)}
    if not found:
        refuse(f"no model of {variant!r} is kept in {ledger}.", "Run the same command again with --keep-weights.")
    return found, study


def trained_models(ledger: str | Path, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield (key, trained model) for each of these runs whose model the ledger has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        for key, archive in models(ledger, keys):
            path.write_bytes(archive)
            yield key, load_model(path)


def held_out(study: Mapping[str, Any], loaded: Data) -> bool:
    """Return whether a study, as from `latest_study`, held out exactly the validation examples of these data."""
    facts = loaded.facts(SPLITS[0])
    split = [SPLITS[0], facts.train, facts.validation]
    return (study["config"].get("data"), study["config"].get("split")) == (facts.fingerprint, split)


def load_data(
    target: Any, data: Any, options: Mapping[str, Any], steps: int | None = None, batch_size: int | None = None
) -> tuple[Data, files.Description | None]:
    """Return the data, and a description if they came from files or a function; `steps` and `batch_size` are for live streams."""
    if isinstance(data, Data):
        return data, None
    if "validation_data" in options and (isinstance(data, str | Path) or is_live(data) or _is_function(data)):
        refuse(
            "validation_data are for arrays; a file or function gives validation data itself.",
            "An .npz has x_val and y_val; a folder val/; a function returns (train, validation, test).",
        )
    if isinstance(data, str | Path) and not targets.is_function(str(data)):
        return files.load(data, **options)
    if isinstance(data, str | Path) or _is_function(data):
        source, value, batch_size = _asked_once(data, batch_size)
        if is_live(value):
            return live_data(source, value, steps, batch_size), None
        if not _holds_streams(value):
            return files.from_returned(value, source.name, **options)
        data = value
    if is_frame(data):
        return files.from_returned(data, type(data).__name__, **options)
    if is_live(data):
        source = _by_value("streams", data)
        return live_data(source, source.get(), steps, None), None
    rank, arity = _check_arrays(target, options)
    if "test_split" in options and not is_part(data, arity):
        refuse("test_split is for data that are not divided; the test part is given.", "Leave it out, or pass (x, y).")
    return from_arrays(data, **options, rank=rank, arity=arity), None


def load_divisions(target: Any, data: Any, options: Mapping[str, Any]) -> Divisions:
    """Return the data, which any seed can divide; arguments as for `load_data`. Refuse data that come divided."""
    if "validation_data" in options or is_live(data):
        divisions.refuse_divided("validation data are given")
    if isinstance(data, Data):
        divisions.refuse_divided("a Data has test data of its own")
    if isinstance(data, str | Path) and not targets.is_function(str(data)):
        return divisions.of_file(data, **options)
    if isinstance(data, str | Path) or _is_function(data):
        source, value, _ = _asked_once(data, None)
        if is_live(value):
            divisions.refuse_divided(f"{source.name} gives its parts itself")
        if not _holds_streams(value):
            return divisions.of_returned(value, Path(data).name, **options)
        data = value
    if is_frame(data):
        return divisions.of_returned(data, type(data).__name__, **options)
    rank, arity = _check_arrays(target, options)
    if not is_part(data, arity):
        from_arrays(data, options["validation_split"], rank=rank, arity=arity)  # refuses what are no data
        divisions.refuse_divided("the test data are given")
    return divisions.of_arrays(data, **options, rank=rank)


def _is_function(data: Any) -> bool:
    return callable(data) and not is_stream(data) and not isinstance(data, type)


def _asked_once(data: Any, batch_size: int | None) -> tuple[Given, Any, int | None]:
    """Return a function that gives data, what it returned, and the batch size if it takes one.

    A function that must have a seed gets 0.
    """
    source = shipped(data, getattr(data, "__name__", type(data).__name__))
    taken = parameters(targets.load_function(source.target) if source.target else data)
    batch_size = batch_size if "batch_size" in taken else None
    facts = {} if batch_size is None else {"batch_size": batch_size}
    if "seed" in taken and taken["seed"].default is taken["seed"].empty:
        facts["seed"] = 0
    return source, source.get(**facts), batch_size


def shipped(value: Any, name: str) -> Given:
    """Return a function or an object of the user's for other processes; a text names a function: file.py:function."""
    if not isinstance(value, str | Path):
        return _by_value(name, value)
    target = str(value)
    file = targets.file_of(target)
    where, _, name = target.rpartition(":")
    code = own_classes.hash_of({name: targets.load_function(target)}, read=file and targets.module_name(file)) or ""
    if file is not None:
        code += hashlib.sha256(Path(file).read_bytes()).hexdigest()
        target = f"{file}:{name}"
    return Given(f"{Path(where).name}:{name}", code, target=target)


def _by_value(name: str, value: Any) -> Given:
    """Return an object of the user's program for other processes, by value."""
    try:
        packed = own_classes.packed({name: value})
    except BadInput as error:
        if callable(value) and not is_stream(value):
            raise
        kinds = sorted({type(each).__name__ for each in (value.values() if isinstance(value, Mapping) else value)})
        refuse(
            f"{' and '.join(kinds)} cannot be sent to the processes that train: {str(error).splitlines()[0]:.200}",
            f"Have a function make the {name}, and give that function.",
        )
    parts = value if isinstance(value, Mapping) else {name: value} if callable(value) else dict(enumerate(value))
    code = own_classes.hash_of({str(part): each for part, each in parts.items() if hasattr(each, "__module__")})
    return Given(name, code or "", packed=packed)


def _holds_streams(value: Any) -> bool:
    return is_stream(value) or (isinstance(value, tuple | list) and any(map(is_stream, value)))


def _check_arrays(target: Any, options: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """Refuse options that are not for arrays; return the rank of the model's first input, and its numbers of inputs and outputs."""
    if strange := [name for name in options if name not in ("validation_split", "test_split", "validation_data")]:
        refuse(f"{', '.join(strange)}: options for files; the data are arrays.", "Leave them out, or give the path of a file.")
    inputs, outputs = getattr(target, "inputs", None), getattr(target, "outputs", None)
    arity = (len(inputs), len(outputs)) if inputs and outputs else None
    return len(inputs[0].shape) if inputs else None, arity


def load_model(target: str | Path, **facts: Any) -> Any:
    """Load the model that a target names; a file may contain the layers of this package."""
    from keras_dropout import companions, layers  # noqa: F401

    return targets.load_model(target, **facts)


def facts_for_model(data: Data, about: files.Description | None) -> dict[str, Any]:
    """Return the facts that a function that makes a model may take as arguments."""
    if about is None:
        return {"input_shape": arrays.each(lambda array: array.shape[1:], data.train.x)}
    return {"input_shape": about.input_shape, "outputs": about.outputs, "vocabulary": about.vocabulary}


def with_weights(model: Any, from_weights: Any) -> Any:
    """Return the model with the weights that every run starts from: the model itself, or a copy with weights from a file."""
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
            warnings.simplefilter("ignore")  # about an optimizer whose state is missing in the file or different
            filled.load_weights(from_weights)
    except Exception as error:  # h5py, zipfile and Keras each raise their own errors
        text = " ".join((str(error) or type(error).__name__).split())[:300]
        refuse(f"{from_weights} does not fit the model: {text}", "Give the weights of this model, in a file that is whole.")
    graph.begin_adapters(filled, model)
    return filled
