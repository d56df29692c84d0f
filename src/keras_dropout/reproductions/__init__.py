"""Published experiments, one a file: `NAME.py` has the `REPRODUCTION` that `keras-dropout reproduce NAME` carries out."""

import difflib
import importlib
from pathlib import Path

from keras_dropout.bench.reproduction import Reproduction
from keras_dropout.errors import refuse

_COMMON = ("networks",)  # what several of them train


def names() -> list[str]:
    """All, in alphabetical order."""
    stems = (path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return sorted(stem.replace("_", "-") for stem in stems if stem not in _COMMON)


def find(name: str) -> Reproduction:
    """The reproduction of that name, or a refusal with the nearest ones."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or [each for each in known if name in each]
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        refuse(f"unknown reproduction {name!r}.", f"{hint}keras-dropout reproduce --list shows all {len(known)}.")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").REPRODUCTION
