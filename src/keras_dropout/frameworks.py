"""Find what is installed: the backends, of which one is chosen before Keras is loaded, as it fails without; and the bench."""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from keras_dropout.errors import check_choice, refuse

BACKENDS = ("jax", "tensorflow", "torch")
_BENCH = ("altair", "cloudpickle", "jinja2", "scipy", "typer", "vl_convert")  # what the extra has beside what Keras brings


def installed() -> list[str]:
    """Return the backends that can be imported, without importing them."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def choose() -> None:
    """Make sure that Keras, if it is not loaded yet, loads with an installed backend.

    KERAS_BACKEND decides if it is set; else keras.json, or TensorFlow, or if that is not installed another one; refuse if none is.
    """
    if "keras" in sys.modules:
        return
    there, said = installed(), os.environ.get("KERAS_BACKEND")
    wanted = said or _configured()
    if wanted in there or wanted not in BACKENDS:
        return
    if said:
        others = f", or set KERAS_BACKEND to {' or '.join(there)}, which is here" if there else ""
        refuse(f"KERAS_BACKEND is {said}, which is not installed.", f"pip install 'keras-dropout[{said}]'{others}.")
    if not there:
        refuse(
            "no backend of Keras is installed: none of jax, tensorflow and torch.",
            "pip install 'keras-dropout[jax]', or [tensorflow] or [torch].",
        )
    os.environ["KERAS_BACKEND"] = there[0]


def _configured() -> str:
    """Return the backend that Keras uses without KERAS_BACKEND. Keras writes the file itself."""
    file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        return json.loads(file.read_text()).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def check_backend(backend: str) -> str:
    """Return `backend`, or refuse it before anything is loaded if it is unknown or not installed."""
    check_choice("backend", backend, BACKENDS)
    if importlib.util.find_spec(backend) is None:
        others = "".join(f", or --backend {each}, which is here" for each in installed()[:1])
        refuse(f"the backend {backend} is not installed.", f"pip install 'keras-dropout[{backend}]'{others}")
    return backend


@contextlib.contextmanager
def needing(what: str) -> Iterator[None]:
    """Import something that needs the extra `bench`; refuse if a package of it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (missing := (error.name or "").partition(".")[0]) not in _BENCH:
            raise
        refuse(f"{what} needs {missing}, which is not installed.", "pip install 'keras-dropout[bench]'")
