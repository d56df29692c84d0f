"""How a file is written: whole or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_dropout.errors import refuse


def write_whole(path: Path, write: Callable[[Path], Any], fix: str = "Free the disk, or name a file elsewhere.") -> None:
    """Write a file whole or not at all: `write` gets the path of a temporary file beside it, which then takes its name."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror or error}.", fix)
    finally:
        with contextlib.suppress(OSError):  # for example a name that is too long
            part.unlink(missing_ok=True)
