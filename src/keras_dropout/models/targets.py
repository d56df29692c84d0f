"""Models and functions that a command names: a `.keras` file, `file.py:function` or `module:function`.

A model file is loaded in Keras's safe mode: nothing in it is executed. Only code that the user names runs, a Python file.
"""

import contextlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import warnings
import weakref
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_dropout.errors import meant, refuse, refused

RECIPES = ("fashion-mnist-mlp", "digits-mlp", "lora-reviews")  # kept here, because their module loads Keras
TUNED = ("lora-reviews",)  # those whose runs start from the recipe's own weights, which are pretrained

# Models that came from a file: their copies are made in safe mode, too.
FROM_FILES: weakref.WeakSet[Any] = weakref.WeakSet()


def is_function(target: str) -> bool:
    """Return whether a text has the form file.py:function or module:function."""
    where, colon, name = target.rpartition(":")
    return bool(colon and where) and name.isidentifier() and "\\" not in name


def names_model(target: str) -> bool:
    """Return whether a text is a target of this module: a path or a function, not a plain name."""
    return is_function(target) or bool(Path(target).suffix) or "/" in target or "\\" in target


def check(target: str) -> None:
    """Refuse the name of a recipe or model that cannot be loaded; load no framework and run no code."""
    if is_function(target):
        file_of(target)
    elif names_model(target) or (Path(target) / "saved_model.pb").exists():
        _check_file(Path(target))
    else:
        check_recipe(target)


def check_recipe(name: str) -> None:
    """Refuse the name of an unknown recipe."""
    if name not in RECIPES:
        refuse(f"unknown recipe {name!r}.", f"Use one of: {', '.join(RECIPES)}; or a model of yours: file.keras, file.py:function.")


def load_model(target: str | Path, **facts: Any) -> Any:
    """Return the Keras model that `target` names; a function gets those of `facts`, as input_shape, that its parameters name."""
    target = str(target)
    if is_function(target):
        model = call(target, facts)
        import keras

        if not isinstance(model, keras.Model):
            refuse(f"{target} returned {type(model).__name__}, not a Keras model.", "End the function with: return model")
        return model
    return _load_file(Path(target))


def file_of(target: str) -> str | None:
    """Return the Python file in `file.py:function`; None for a module."""
    where = target.rpartition(":")[0]
    return str(check_python_file(where)) if where.endswith(".py") else None


def load_function(target: str) -> Callable:
    """Return the function that `file.py:function` or `module:function` names; its file is run once in a process."""
    where, _, name = target.rpartition(":")
    module = import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        refuse(f"{where} has no function {name!r}.", f"{meant(name, known)}It has: {', '.join(known) or 'none'}.")
    return found


def import_file(path: Path) -> Any:
    """Return a Python file as a module; it is run once in a process, under the name that `module_name` gives it."""
    path = check_python_file(path)
    name = module_name(path)
    if getattr(sys.modules.get(name), "__file__", None) != str(path):
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None  # for the suffix .py there is always one
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(path.parent))  # so that it finds its neighbours, as when run as a script
        try:
            with refused(f"{path.name} cannot be run", "Run it with python to see where."):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]  # half a module; the file may be mended and named again
            raise
        finally:
            sys.path.remove(str(path.parent))
    return sys.modules[name]


def check_python_file(path: str | Path) -> Path:
    """Return the file's full path, or refuse a file that does not exist."""
    path = Path(path).resolve()
    if path.suffix != ".py" or not path.is_file():
        refuse(f"{path} is no Python file that exists.", "Name a Python file: file.py:function")
    return path


def module_name(path: str | Path) -> str:
    """Return the module name of a user's file. It is in saved configurations, so it is the same in every process and folder."""
    return f"_keras_dropout_source_{Path(path).stem}"


def _import_module(name: str) -> Any:
    sys.path.insert(0, "")  # as in python -m
    try:
        return importlib.import_module(name)
    except ImportError as error:
        refuse(f"the module {name!r} cannot be imported: {error}.", "Write file.py:function, or install the module.")
    finally:
        sys.path.remove("")


def call(target: str, facts: Mapping[str, Any]) -> Any:
    """Call the function that `target` names with those of `facts` that its parameters name, and return its result."""
    function = load_function(target)
    parameters: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(TypeError, ValueError):
        parameters = inspect.signature(function).parameters
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [name for name in needed if name not in facts]
    if missing == ["run"]:
        refuse(f"{target} trains by itself: it takes run, and brings its own data.", "Compare it without --data.")
    if missing:
        refuse(
            f"{target} needs the argument(s) {', '.join(missing)}, which are not known here.",
            "Give them default values. A model's function may ask for input_shape, outputs and vocabulary, told by --data.",
        )
    with refused(f"{target} failed", "Call it in Python to see where."):
        return function(**{name: value for name, value in facts.items() if name in parameters})


def from_keras_2(saved: str) -> str:
    """Return how to turn a model that Keras 2 saved, or can save, into a .keras file."""
    was, hdf5, keras = (
        json.dumps(each, ensure_ascii=False) for each in (saved, *(str(Path(saved).with_suffix(end)) for end in (".h5", ".keras")))
    )
    already = saved.endswith((".h5", ".hdf5"))
    steps = [f"keras.models.load_model({was if already else hdf5}, compile=False), then compile it", f"model.save({keras})"]
    if not already:
        steps.insert(0, f"with Keras 2 (pip install tf_keras) tf_keras.models.load_model({was}).save({hdf5})")
    return f"In Python: {'; '.join(steps)}."


def _check_file(path: Path) -> None:
    """Refuse a path that is no model of Keras 3, as far as that can be seen without Keras."""
    if not path.exists():
        refuse(f"the model {path} does not exist.", "Name a .keras file, or a function that builds a model: file.py:function")
    if (path / "saved_model.pb").exists():
        refuse(f"{path} is a SavedModel of Keras 2, which Keras 3 does not load.", from_keras_2(str(path)))
    try:
        with path.open("rb") as file:
            hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:  # for example for a folder
        refuse(f"the model {path} cannot be read: {error.strerror}.", "Name a .keras file, or a function: file.py:function")
    if hdf5 and path.name.endswith(".weights.h5"):
        refuse(f"{path} holds weights without a model.", "Build the model in a function that calls load_weights: file.py:function")
    if hdf5 and path.suffix == ".keras":
        renamed = str(path.with_suffix(".h5"))
        refuse(f"{path} is an HDF5 file, as Keras 2 wrote it.", f"Rename it to {renamed}. {from_keras_2(renamed)}")
    if hdf5:
        refuse(f"{path} is an HDF5 file, not a .keras file.", from_keras_2(str(path)))
    if path.suffix != ".keras":
        refuse(
            f"{path} is not a .keras file.", 'Save the model with model.save("model.keras"), or name a function: file.py:function'
        )
    if not zipfile.is_zipfile(path):
        refuse(f"{path} is broken or no Keras model: it does not unpack.", "Save the model again.")
    if (version := _version(path)).startswith("2."):
        refuse(f"{path} was saved by Keras {version}, which Keras 3 does not load.", from_keras_2(str(path)))


def _version(path: Path) -> str:
    """Return the version of Keras that saved a .keras file, "" if the file does not say."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as file:
            return str(json.loads(file.read(10_000))["keras_version"])
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return ""


def _load_file(path: Path) -> Any:
    _check_file(path)
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an optimizer that has not trained yet
            loaded = keras.models.load_model(path, safe_mode=True)
            FROM_FILES.add(loaded)
            return loaded
    except Exception as error:  # Keras may raise anything
        text = " ".join(str(error).split())
        if "safe mode" in text or "lambda" in text.lower() or "unsafe" in text.lower():
            refuse(
                f"{path} holds code (a Lambda layer), which is not run.",
                "Trust it by building the model in a function of your own, file.py:function, or replace the Lambda layer.",
            )
        if "Could not locate" in text or "custom object" in text.lower():
            unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", text)
            refuse(
                f"{path} needs a class that is not known here: {unknown[1] if unknown else text[:200]}.",
                "Load it in a function that imports the class, and name that: file.py:function",
            )
        fix = "Save the model again with this version of Keras."
        if (version := _version(path)) not in ("", keras.__version__):
            fix = f"Keras {version} saved it; here is {keras.__version__}: pip install keras=={version}."
        refuse(f"{path} cannot be loaded: {type(error).__name__}: {text[:200]}", fix)
