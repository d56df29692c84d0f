"""Classes and functions of the user's program that no module gives, as those of a script or notebook: found, and sent by value."""

import collections
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


def of_model(model: Any) -> dict[str, list[Any]]:
    """Return the classes and functions that a model is made of and compiled with, by the names under which Keras saves them.

    A text that may name one of Keras's stands under itself.
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
    """Count what the calls of a model are made of, and what `compiled` has as losses and metrics: classes, functions and texts.

    A function that was sent is another object with the same code.
    """
    import keras

    from keras_dropout import graph

    parts = _compiled(compiled)
    for call in graph.read(model).calls:
        for layer in call.layer._flatten_layers() if isinstance(call.layer, keras.Layer) else [call.layer]:
            parts.append(layer)
            if not isinstance(layer, keras.Model):  # which keeps functions of its training
                parts += filter(inspect.isfunction, _attributes(layer))
    return collections.Counter(_kind(part) for part in parts)


def _kind(part: Any) -> Any:
    if inspect.isfunction(part):
        return shown(part), None if is_keras(part) else part.__code__
    return part if isinstance(part, str) or inspect.isclass(part) else type(part)


def is_keras(found: Any) -> bool:
    """Whether a class or function is Keras's own, or a text, which can only mean one of Keras's."""
    return isinstance(found, str) or str(found.__module__).startswith("keras.")


def shown(found: Any) -> str:
    """Return where a class or function stands; a text is what Keras calls so."""
    if is_keras(found):
        return f"Keras's {found if isinstance(found, str) else found.__name__}"
    return f"{found.__module__}.{found.__qualname__}"


def _compiled(model: Any) -> list[Any]:
    """The losses and metrics that a model was compiled with."""
    metrics = getattr(model, "_compile_metrics", None)  # it has no public name
    given = [getattr(metrics, name, None) for name in ("_user_metrics", "_user_weighted_metrics")]
    return [part for part in _flat([getattr(model, "loss", None), *given]) if part is not None]


def _attributes(layer: Any) -> Iterator[Any]:
    """Yield what a layer holds beside other layers."""
    import keras

    return (value for value in _flat(vars(layer)) if not isinstance(value, keras.Layer))


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
