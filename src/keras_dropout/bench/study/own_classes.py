"""Find the user's classes and functions that no module provides, as in a script or notebook, and send them by value."""

import collections
import contextlib
import dis
import functools
import hashlib
import inspect
import pickle
import sys
import types
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import cloudpickle

from keras_dropout.bench.data.streams import as_array, kind_of
from keras_dropout.errors import refuse

_PLAIN = (bool, int, float, complex, str, bytes, range, type(None), type(...))


def of_model(model: Any) -> dict[str, list[Any]]:
    """Return the classes and functions of a model and of its compile settings, by the names under which Keras saves them.

    A text that may name one of Keras's own is listed under itself.
    """
    import keras

    found: dict[str, list[Any]] = {}
    parts = [model, *model._flatten_layers(), model.optimizer, *_compiled(model)]
    for layer in model._flatten_layers():
        parts += [value for value in _attributes(layer) if not isinstance(value, str) or value != layer.name]
    for part in parts:
        named = part if isinstance(part, str) or inspect.isfunction(part) or inspect.isclass(part) else type(part)
        same_name = found.setdefault(named if isinstance(named, str) else keras.saving.get_registered_name(named), [])
        if (isinstance(named, str) or inspect.isfunction(named) or hasattr(named, "get_config")) and named not in same_name:
            same_name.append(named)
    return found


def kinds(model: Any, compiled: Any) -> collections.Counter[Any]:
    """Count the classes, functions and texts in the calls of a model, and in the losses and metrics of `compiled`.

    Functions are compared by their code, because a function sent to another process becomes another object.
    """
    import keras

    from keras_dropout.models import graph

    parts = _compiled(compiled)
    for call in graph.read(model).calls:
        for layer in call.layer._flatten_layers() if isinstance(call.layer, keras.Layer) else [call.layer]:
            parts.append(layer)
            if not isinstance(layer, keras.Model):  # a model also holds the functions of its training
                parts += filter(inspect.isfunction, _attributes(layer))
    return collections.Counter(_kind(part) for part in parts)


def _kind(part: Any) -> Any:
    if inspect.isfunction(part):
        return shown(part), None if is_keras(part) else part.__code__
    return part if isinstance(part, str) or inspect.isclass(part) else type(part)


def is_keras(found: Any) -> bool:
    """Return whether a class or function is Keras's own; a text always names one of Keras's own."""
    return isinstance(found, str) or str(found.__module__).startswith("keras.")


def shown(found: Any) -> str:
    """Return the name of a class or function for messages, with its module or "Keras's"; a text names one of Keras's own."""
    if is_keras(found):
        return f"Keras's {found if isinstance(found, str) else found.__name__}"
    return f"{found.__module__}.{found.__qualname__}"


def _compiled(model: Any) -> list[Any]:
    """Return the losses and metrics that a model was compiled with."""
    from keras_dropout.models.graph import flat

    metrics = getattr(model, "_compile_metrics", None)  # it has no public name
    given = [getattr(metrics, name, None) for name in ("_user_metrics", "_user_weighted_metrics")]
    return [part for part in flat([getattr(model, "loss", None), *given]) if part is not None]


def _attributes(layer: Any) -> Iterator[Any]:
    """Yield the values of a layer's attributes, without other layers."""
    import keras

    from keras_dropout.models.graph import flat

    return (value for value in flat(vars(layer)) if not isinstance(value, keras.Layer))


def packed(objects: Mapping[str, Any]) -> bytes:
    """Pickle classes and functions: by value if the running program defines them, by name if a module provides them."""
    try:
        return cloudpickle.dumps(dict(objects))
    except Exception as error:  # the program's globals may be anything
        refuse(
            f"{', '.join(objects)} cannot be sent to the processes that train: {type(error).__name__}: {error}",
            "Keep open files, locks and the like out of what they use, or put them into a module of their own.",
        )


@contextlib.contextmanager
def known(objects: bytes | None) -> Iterator[None]:
    """Register the classes and functions in these bytes with Keras; `packed` made the bytes in the user's own program."""
    if objects is None:
        yield
        return
    import keras

    with keras.saving.custom_object_scope(_unpacked(objects)):
        yield


@functools.lru_cache(maxsize=4)
def _unpacked(objects: bytes) -> dict[str, Any]:
    return cloudpickle.loads(objects)


def hash_of(objects: Mapping[str, Any], read: str | None = None) -> str | None:
    """Return a hash of the user's own code among these classes and functions, and of everything it uses. It is part of run keys.

    Objects of installed packages count by name. Objects of the module `read` add nothing, as its file is hashed as a whole
    elsewhere, but code that they use from other modules counts. None if there is no such code.
    """
    code = _Code(read)
    for name in sorted(objects):
        if _is_own(objects[name].__module__):
            code.follow(objects[name], name)
    return hashlib.sha256("\n".join(code.texts).encode()).hexdigest()[:32] if code.texts else None


def hash_of_value(value: Any, name: str, read: str | None = None) -> str | None:
    """Return a hash of a function, called `name`, and of all that it uses; the rules are those of `hash_of`."""
    code = _Code(read)
    code.follow(value, name)
    return hashlib.sha256("\n".join(code.texts).encode()).hexdigest()[:32] if code.texts else None


class _Code:
    """A collector of source texts: of code, of the values it uses, and of the code of these values, at any depth."""

    def __init__(self, read: str | None):
        self.read, self.texts = read, list[str]()
        self.seen: dict[int, tuple[int, Any]] = {}  # holds the values too, so that no id is freed and reused

    def follow(self, value: Any, name: str, silent: bool = False) -> None:
        """Record the code of `value`, called `name` in the code that uses it; `silent` if its file is hashed as a whole."""

        def note(text: Any) -> None:
            if not silent:
                self.texts.append(f"{name}: {text}")

        if isinstance(value, _PLAIN):
            return note(repr(value))
        if id(value) in self.seen:
            return note(f"number {self.seen[id(value)][0]}")
        if inspect.ismodule(value):
            return note(value.__name__)
        if kind_of(value) == "tf":  # its parts are handles of TensorFlow; a study hashes the batches
            return note(type(value).__qualname__)
        known = inspect.isclass(value) or inspect.isroutine(value)
        if known and not hasattr(value, "__module__"):  # a method of a class written in C
            return note(value.__qualname__)
        if known and not _is_own(value.__module__ or ""):
            return note(f"{value.__module__}.{value.__qualname__}")
        self.seen[id(value)] = len(self.seen), value
        if known:
            silent = value.__module__ == self.read
        if isinstance(value, types.FunctionType):
            note(_source(value.__code__))
            parts = _used(value)
        elif inspect.isclass(value):
            parts = {f"base {number}": base for number, base in enumerate(value.__mro__[1:])}
            parts |= {each: part for each, part in sorted(vars(value).items()) if each not in _OF_EVERY_CLASS}
        elif hasattr(value, "__array__"):
            try:
                array = as_array(value)
            except Exception:  # a tensor without numbers, such as a handle
                return note(type(value).__qualname__)
            return note(f"{array.dtype}, {array.shape}, {hashlib.sha256(array.tobytes()).hexdigest()}")
        elif isinstance(value, Set):
            inner = _Code(self.read)
            for each in value:
                inner.follow(each, "")
            return note(sorted(inner.texts))
        else:
            parts = _members(value)
        note(type(value).__qualname__)
        for each, part in parts.items():
            self.follow(part, f"{name}.{each}", silent)
        return None


_OF_EVERY_CLASS = {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "_abc_impl"}


def _is_own(module: str) -> bool:
    """Return whether a module belongs to the user's program: not to Python, to this package or to an installed package."""
    if module == "__main__":  # also if an installed program, such as a profiler, runs the user's program
        return True
    if module.partition(".")[0] in (*sys.stdlib_module_names, "keras_dropout"):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"} & {*Path(file).parts}


def _source(code: types.CodeType) -> str:
    """Return the source of a function, or its instructions if there is no source."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return "\n".join(f"{each.opname} {each.argval!r}" for each in _instructions(code) if not inspect.iscode(each.argval))


def _instructions(code: types.CodeType) -> list[dis.Instruction]:
    """Return the instructions of a function and of its inner functions."""
    inner = (each for part in code.co_consts if inspect.iscode(part) for each in _instructions(part))
    return [*dis.get_instructions(code), *inner]


def _used(function: types.FunctionType) -> dict[str, Any]:
    """Return the values that a function uses besides its arguments, by their names in the function."""
    named: dict[str, set[str]] = {}
    for each in _instructions(function.__code__):
        named.setdefault(each.opname, set()).add(str(each.argval))
    names = sorted(named.get("LOAD_GLOBAL", set()) | named.get("LOAD_NAME", set()))
    found = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, value in list(found.items()):
        if inspect.ismodule(value) and _is_own(value.__name__):
            attributes = named.get("LOAD_ATTR", set()) | named.get("LOAD_METHOD", set())
            found |= {f"{name}.{each}": vars(value)[each] for each in sorted(attributes & {*vars(value)})}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # the cell is still empty
            found[name] = cell.cell_contents
    return found | {"defaults": function.__defaults__, "keyword defaults": function.__kwdefaults__}


def _members(value: Any) -> dict[str, Any]:
    """Return the parts of an object that is neither a class nor a function."""
    if isinstance(value, Mapping):
        return {repr(key): each for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(number): each for number, each in enumerate(value)}
    if isinstance(value, property):
        return {"get": value.fget, "set": value.fset}
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "keywords": value.keywords}
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        return {"function": value.__func__, "of": getattr(value, "__self__", None)}
    with contextlib.suppress(Exception):  # the user's get_config may raise anything
        if hasattr(value, "get_config"):
            weights = value.get_weights() if hasattr(value, "get_weights") else ()
            return {"class": type(value), "config": value.get_config(), "weights": weights}
        return {"class": type(value), **vars(value)}
    try:
        return {"class": type(value), "pickled": pickle.dumps(value, protocol=4)}
    except Exception:  # a lock, an open file
        return {"class": type(value)}
