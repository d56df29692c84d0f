"""Where commands put what they have: the terminal, and files that nobody asked to lose."""

import os
from pathlib import Path
from typing import Any

from keras_dropout.errors import refuse


def show(found: Any, file: Any = None) -> None:
    """Print a table or a text with rich."""
    from rich.console import Console

    console = Console(file=file)
    # A pipe has no width of its own: wide enough that no cell is cut.
    (console if console.is_terminal else Console(width=120, file=file)).print(found)


def check_output_path(path: str, ending: str | tuple[str, ...], force: bool) -> Path:
    """Refuse a file that cannot be written, before anything is done."""
    endings = (ending,) if isinstance(ending, str) else ending
    if not path.endswith(endings):
        refuse(f"the output must be a {' or '.join(endings)} file; got {path!r}.", f"For example: new{endings[0]}")
    found = Path(path)
    if found.exists() and not force:
        refuse(f"{path} is there already.", "Choose another name, or write over it with --force.")
    if found.is_dir() or not found.parent.is_dir() or not os.access(found.parent, os.W_OK):
        refuse(f"{path} cannot be written there.", "Name a file in a folder that exists and that you can write to.")
    return found
