"""Classes and functions of the user's program that no module gives, as those of a script or notebook: found, and sent by value."""

import contextlib
import dis
import functools
import hashlib
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

from keras_dropout.errors import refuse

_PLAIN = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))


def of_model(model: Any) -> dict[str, Any]:
    """Return the classes and functions that a model is made of and compiled with, by the names under which Keras saves them."""
    import keras

    found: dict[str, Any] = {}
    parts = [model, *model._flatten_layers(), model.optimizer, getattr(model, "loss", None)]
    metrics = getattr(model, "_compile_metrics", None)  # it has no public name
    parts += [getattr(metrics, name, None) for name in ("_user_metrics", "_user_weighted_metrics")]
    for part in list(parts):
        if isinstance(part, keras.Layer):
            parts += [value for value in vars(part).values() if not isinstance(value, (keras.Layer, keras.Variable))]
    for part in _flat(parts):
        named = part if inspect.isfunction(part) or inspect.isclass(part) else type(part)
        found.setdefault(keras.saving.get_registered_name(named), named)
    return found


def _flat(value: Any) -> Iterator[Any]:
    """Yield the members of lists, tuples and mappings, at any depth."""
    if isinstance(value, (list, tuple, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _flat(each)
    else:
        yield value


def packed(objects: Mapping[str, Any]) -> bytes:
    """Return classes and functions as bytes: by value what is defined in the running program, by name what a module gives."""
    try:
        return cloudpickle.dumps(dict(objects))
    except Exception as error:  # whatever the program's globals are
        refuse(
            f"{', '.join(objects)} cannot be sent to the processes that train: {type(error).__name__}: {error}",
            "Keep open files, locks and the like out of what they use, or put them into a module of their own.",
        )


@contextlib.contextmanager
def known(objects: bytes | None) -> Iterator[None]:
    """Let Keras know the classes and functions in these bytes, which `packed` made in the user's own program."""
    if objects is None:
        yield
        return
    import keras

    with keras.saving.custom_object_scope(_unpacked(objects)):
        yield


@functools.lru_cache(maxsize=4)
def _unpacked(objects: bytes) -> dict[str, Any]:
    return cloudpickle.loads(objects)


def hash_of(objects: Mapping[str, Any]) -> str:
    """Return a hash of the code of classes and functions, and of what in their own module they use. It is part of run keys."""
    text = "\n".join(f"{name}: {_code(objects[name], set())}" for name in sorted(objects))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _code(found: Any, seen: set[int]) -> str:
    """The source of a class or function, or its instructions where there is none, and the same of what it uses."""
    if id(found) in seen:
        return ""
    seen.add(id(found))
    functions = [found] if inspect.isfunction(found) else [each for each in vars(found).values() if inspect.isfunction(each)]
    try:
        texts = [inspect.getsource(found)]
    except (OSError, TypeError):
        texts = [_instructions(function.__code__) for function in functions]
    for function in functions:
        used = inspect.getclosurevars(function)
        for name, value in sorted({**used.globals, **used.nonlocals}.items()):
            if isinstance(value, _PLAIN):
                texts.append(f"{name} = {value!r}")
            elif (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == found.__module__:
                texts.append(_code(value, seen))
    return "\n".join(texts)


def _instructions(code: types.CodeType) -> str:
    inner = [_instructions(each) for each in code.co_consts if inspect.iscode(each)]
    own = [f"{each.opname} {each.argval!r}" for each in dis.get_instructions(code) if not inspect.iscode(each.argval)]
    return "\n".join(own + inner)
