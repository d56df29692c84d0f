"""The Python file that holds the reader's own layers, losses and model: run under a name of its own, here and in workers."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from keras_dropout.errors import refuse

MODULE = "_keras_dropout_source"  # always the same: it stands in saved configurations


def load_source(path: str | Path) -> ModuleType:
    """Run the file as the module `MODULE` and return it; what it registers with Keras can then be made from configurations."""
    path = check_source(path)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[MODULE]
        text = (str(error).splitlines() or [""])[0]
        refuse(f"{path} cannot be run: {type(error).__name__}: {text}", "Mend the file; python should run it without an error.")
    return module


def source_hash(path: str | Path) -> str:
    """A hash of the file's contents."""
    return hashlib.sha256(check_source(path).read_bytes()).hexdigest()[:32]


def check_source(path: str | Path) -> Path:
    """The file's whole path, or a refusal where there is none."""
    path = Path(path).resolve()
    if path.suffix != ".py" or not path.is_file():
        refuse(f"{path} is not a Python file.", "Name the file that defines your layers and losses, for example model.py.")
    return path
