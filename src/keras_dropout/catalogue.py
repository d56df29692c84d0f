"""The catalogue: every method, with the parts of its docstring and an example that runs.

A method is a public name of `keras_dropout.layers` or `keras_dropout.companions`. Its group is the module that defines it, and the
module's docstring is the group's title. `keras_dropout.examples` holds the names and the examples, which the tests call.
"""

import inspect
import re
from dataclasses import dataclass
from typing import Any

import keras

from keras_dropout import companions, layers
from keras_dropout.errors import meant, refuse
from keras_dropout.examples import EXAMPLES, Example

_PUBLIC = {name: getattr(home, name) for home in (layers, companions) for name in home.__all__}


@dataclass(frozen=True)
class Method:
    """One method: its public name and object, and the parts of its docstring."""

    name: str
    value: Any
    group: str
    summary: str
    formula: str
    sections: dict[str, str]
    example: str
    input_shape: tuple[int, ...] | None
    input_dtype: str | None

    @property
    def alias(self) -> bool:
        """Whether the name is an alias of another method."""
        return self.value.__name__ != self.name

    def make(self) -> Any:
        """Return the object that the example makes."""
        return eval(self.example, {"keras": keras, **_PUBLIC})

    def document(self) -> dict:
        """Return the method as in the JSON of `keras-dropout layers`; a method that is no layer has no example there."""
        return {
            "name": self.name,
            "group": self.group,
            "summary": self.summary,
            "reference": self.sections.get("Source"),
            "differs": self.sections.get("Differs from"),
            "example": self.example if self.input_shape else None,
            "input_shape": self.input_shape and list(self.input_shape),
            "input_dtype": self.input_dtype,
        }

    def __str__(self) -> str:
        text = inspect.getdoc(self.value)
        shown = f" on {self.input_dtype} of shape {self.input_shape}" if self.input_shape else ""
        return f"{self.name}{inspect.signature(self.value)}\n\n{text}\n\nExample:       {self.example}{shown}"


def methods() -> dict[str, Method]:
    """Return all methods by name: group by group, each in the order of its source."""
    return {each.name: _method(group, each) for group, rows in EXAMPLES.items() for each in rows}


def method(name: str) -> Method:
    """Return the method with that name; refuse an unknown name and suggest the closest one."""
    known = methods()
    if name in known:
        return known[name]
    refuse(f"unknown method {name!r}.", f"{meant(name, known)}keras-dropout layers lists all.")


def title(group: str) -> str:
    """Return the first line of the docstring of a group's module."""
    home = companions if group == "companions" else getattr(layers, group)
    return (home.__doc__ or group).splitlines()[0]


def _method(group: str, example: Example) -> Method:
    value = _PUBLIC[example.name]
    summary, formula, sections = _parts(inspect.getdoc(value) or "")
    dtype = example.dtype if example.shape else None
    return Method(example.name, value, group, summary, formula, sections, example.call, example.shape, dtype)


def _parts(text: str) -> tuple[str, str, dict[str, str]]:
    """Return the first line of a docstring, the text before the first section, and the sections, each on one line."""
    text = re.split(r"^>>>", text, maxsplit=1, flags=re.MULTILINE)[0]
    head, *rest = re.split(r"^([A-Z][a-z]+(?: [a-z]+)?):\s+", text, flags=re.MULTILINE)
    summary, _, formula = head.partition("\n")
    return summary.strip(), formula.strip("\n"), {name: " ".join(body.split()) for name, body in zip(rest[::2], rest[1::2])}
