"""The catalogue: every method with what its docstring says of it, and an example that runs.

A method is a public name of `keras_dropout.layers` or `keras_dropout.companions`; its group is the module where it is defined,
whose docstring is the group's title. All that is written here is the examples, which the tests call.
"""

import difflib
import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

import keras

from keras_dropout import companions, layers
from keras_dropout.errors import refuse

_ORDER = ("units", "regions", "paths", "weights", "steps", "tokens", "attention", "learned", "companions")

# name -> (a call that makes it, a batch shape that it accepts or None for what is no layer, the dtype where not float32)
_EXAMPLES: dict[str, tuple] = {
    # units
    "Dropout": ("Dropout(0.3, seed=1)", (8, 24)),
    "GaussianDropout": ("GaussianDropout(0.3, seed=1)", (8, 24)),
    "AlphaDropout": ("AlphaDropout(0.3, seed=1)", (8, 24)),
    "FeatureAlphaDropout": ("FeatureAlphaDropout(0.3, seed=1)", (3, 7, 12)),
    # regions
    "SpatialDropout1D": ("SpatialDropout1D(0.3, seed=1)", (3, 7, 12)),
    "SpatialDropout2D": ("SpatialDropout2D(0.3, seed=1)", (2, 6, 6, 6)),
    "SpatialDropout3D": ("SpatialDropout3D(0.3, seed=1)", (2, 3, 5, 5, 6)),
    "DropBlock1D": ("DropBlock1D(0.3, block_size=4, seed=1)", (3, 16, 8)),
    "DropBlock2D": ("DropBlock2D(0.2, block_size=3, seed=1)", (2, 10, 10, 4)),
    "DropBlock3D": ("DropBlock3D(0.2, block_size=2, seed=1)", (2, 3, 7, 7, 4)),
    "Cutout": ("Cutout(0.8, size=6, seed=2)", (5, 12, 12, 3)),
    "RandomErasing": ("RandomErasing(0.8, seed=1)", (5, 12, 12, 3)),
    "PatchDropout": ("PatchDropout(0.5, prefix=1, seed=1)", (4, 17, 8)),
    # paths
    "StochasticDepth": ("StochasticDepth(0.4, seed=1)", (8, 24)),
    "DropPath": ("DropPath(0.4, seed=1)", (8, 24)),
    "ScheduledDropPath": ("ScheduledDropPath(0.8, steps=20, seed=1)", (8, 24)),
    "ShakeDrop": ("ShakeDrop(0.5, seed=3)", (8, 24)),
    "ShakeShake": ("ShakeShake(seed=1)", (8, 2, 24)),
    "DropEdge": ("DropEdge(0.4, seed=1)", (2, 12, 12)),
    "LayerDrop": ("LayerDrop(0.3, keras.layers.Dense(24, activation='relu'), seed=1)", (8, 24)),
    "linear_decay": ("linear_decay(0.5, 12)", None),
    # weights
    "DropConnect": ("DropConnect(0.3, keras.layers.Dense(24), seed=1)", (8, 16)),
    "WeightDrop": ("WeightDrop(0.3, keras.layers.LSTM(12), seed=1)", (8, 7, 16)),
    "LoRADropout": ("LoRADropout(0.3, keras.layers.Dense(24, lora_rank=4), seed=1)", (8, 16)),
    # steps
    "LockedDropout": ("LockedDropout(0.3, seed=1)", (3, 7, 12)),
    "VariationalRNNDropout": ("VariationalRNNDropout(0.3, keras.layers.LSTM(12), seed=1)", (8, 7, 16)),
    "RecurrentDropout": ("RecurrentDropout(0.3, keras.layers.LSTM(12), seed=1)", (8, 7, 16)),
    "Zoneout": ("Zoneout(0.3, keras.layers.GRU(12, return_sequences=True), seed=1)", (8, 7, 16)),
    # tokens
    "EmbeddingDropout": ("EmbeddingDropout(0.3, keras.layers.Embedding(100, 12), seed=1)", (8, 24), "int32"),
    "WordDropout": ("WordDropout(0.3, unknown=2, seed=1)", (8, 24), "int32"),
    "TokenDropout": ("TokenDropout(0.3, seed=1)", (3, 7, 12)),
    # attention
    "AttentionDropout": ("AttentionDropout(0.3, keras.layers.MultiHeadAttention(num_heads=4, key_dim=4), seed=1)", (8, 7, 16)),
    "DropKey": ("DropKey(0.3, keras.layers.MultiHeadAttention(num_heads=4, key_dim=4), seed=1)", (8, 7, 16)),
    "DropHead": ("DropHead(0.3, keras.layers.MultiHeadAttention(num_heads=4, key_dim=4), seed=1)", (8, 7, 16)),
    # learned
    "ConcreteDropout": ("ConcreteDropout(0.3, keras.layers.Dense(24), seed=1)", (8, 16)),
    "VariationalDropout": ("VariationalDropout(0.3, keras.layers.Dense(24), kl_weight=1e-4, seed=1)", (8, 16)),
    "SparseVariationalDropout": ("SparseVariationalDropout(keras.layers.Dense(24), kl_weight=1e-4, seed=1)", (8, 16)),
    "Standout": ("Standout(keras.layers.Dense(24), seed=1)", (8, 16)),
    "TargetedDropout": ("TargetedDropout(0.66, keras.layers.Dense(24), targeted=0.75, seed=1)", (8, 16)),
    # companions
    "RDrop": ("RDrop(keras.Sequential([keras.Input((24,)), Dropout(0.3, seed=1), keras.layers.Dense(3, 'softmax')]))", (8, 24)),
    "MultiSampleDropout": ("MultiSampleDropout(0.3, keras.layers.Dense(24), keras.layers.Dense(3, 'softmax'), seed=1)", (8, 24)),
    "MaxNorm": ("MaxNorm(3.0)", None),
}


@dataclass(frozen=True)
class Method:
    """One method: its public name and object, and the parts of its docstring."""

    name: str
    value: Any
    group: str
    summary: str
    formula: str
    sections: dict[str, str]
    example: str | None
    input_shape: tuple[int, ...] | None
    input_dtype: str | None

    @property
    def alias(self) -> bool:
        """Whether it is another name for a method."""
        return self.value.__name__ != self.name

    def make(self) -> Any:
        """What the example makes."""
        assert self.example is not None  # tests/test_catalogue.py sees to it that all have one
        return eval(self.example, {"keras": keras, **_public()})

    def document(self) -> dict:
        """The method as in the JSON of `keras-dropout layers`: what is no layer has no example there."""
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
    """All methods by their names: group by group, each in the order of its source."""
    public = _public()
    modules = {value.__module__ for value in public.values()}
    found: dict[str, Method] = {}
    for module in sorted(modules, key=lambda module: _ORDER.index(_group(module))):
        names = [name for name in vars(sys.modules[module]) if name in public and public[name].__module__ == module]
        found |= {name: _method(name, public[name]) for name in names}
    return found


def method(name: str) -> Method:
    """The method of that name; an unknown one is refused with the closest."""
    known = methods()
    if name in known:
        return known[name]
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f"Did you mean {lower[close[0]]}? " if close else ""
    refuse(f"unknown method {name!r}.", f"{hint}keras-dropout layers lists all.")


def title(group: str) -> str:
    """What a group's module says of itself, in one line."""
    home = companions if group == "companions" else getattr(layers, group)
    return (home.__doc__ or group).splitlines()[0]


def _public() -> dict[str, Any]:
    return {name: getattr(home, name) for home in (layers, companions) for name in home.__all__}


def _group(module: str) -> str:
    return module.rpartition(".")[2]


def _method(name: str, value: Any) -> Method:
    summary, formula, sections = _parts(inspect.getdoc(value) or "")
    example, shape, dtype = (*_EXAMPLES.get(name, (None, None)), "float32")[:3]
    return Method(name, value, _group(value.__module__), summary, formula, sections, example, shape, dtype if shape else None)


def _parts(text: str) -> tuple[str, str, dict[str, str]]:
    """Of a docstring the first line, what stands before the first section, and the sections, each in one line."""
    text = re.split(r"^>>>", text, maxsplit=1, flags=re.MULTILINE)[0]
    head, *rest = re.split(r"^([A-Z][a-z]+(?: [a-z]+)?):\s+", text, flags=re.MULTILINE)
    summary, _, formula = head.partition("\n")
    return summary.strip(), formula.strip("\n"), {name: " ".join(body.split()) for name, body in zip(rest[::2], rest[1::2])}
