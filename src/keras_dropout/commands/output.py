"""Where commands put what they have: the terminal, and files that nobody asked to lose."""

import contextlib
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from keras_dropout.errors import refuse

_WIDTH = 120  # of a pipe, which has none of its own: a usual table fits
_PATIENCE = 1.0  # seconds without a sign of life


def show(found: Any, file: Any = None) -> None:
    """Print a table or a text with rich."""
    from keras_dropout.display import Terminal, fitted

    console = Terminal(file=file)
    console = console if console.is_terminal else Terminal(width=_WIDTH, file=file)
    console.print(fitted(found, console.width))


@contextlib.contextmanager
def working(what: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """On a terminal, show a line on stderr that says what is being done and for how long, once it takes more than a second.

    `with working("reading data") as say:`, and `say("measuring", 3, 10)` when it goes on to something else, or is at the third
    of ten. Elsewhere than on a terminal nothing is printed; at the end the line goes away. What is printed on stdout is printed
    after that: the line would be in its way.
    """
    from keras_dropout.display import Terminal

    console = Terminal(file=sys.stderr)
    if not console.is_terminal or quiet:
        yield lambda *_: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    # What is data goes to stdout as it is.
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    task = bar.add_task(what, total=None)
    lock, over = threading.Lock(), threading.Event()

    def start() -> None:
        with lock:
            if not over.is_set():
                bar.start()

    def say(what: str, number: int | None = None, of: int | None = None) -> None:
        bar.update(task, description=what if of is None else f"{what}: {number} of {of}")

    timer = threading.Timer(_PATIENCE, start)
    timer.daemon = True
    timer.start()
    try:
        yield say
    finally:
        timer.cancel()
        with lock:
            over.set()
            bar.stop()


def stored_command() -> str:
    """Return the command line as a study keeps it: the same on every machine."""
    return shlex.join(["keras-dropout", *sys.argv[1:]])


def again(*arguments: str) -> str:
    """Return a command line that runs from where this process was started: that of this process, or of other `arguments`."""
    program = sys.argv[0]
    found = shutil.which("keras-dropout")
    if found and Path(found).resolve() == Path(program).resolve():
        start = ["keras-dropout"]
    elif Path(program).stem == "keras-dropout":
        start = [program]  # of an environment that is not on the PATH
    else:
        start = [sys.executable, "-m", "keras_dropout.cli"]
    return shlex.join([*start, *(arguments or sys.argv[1:])])


def exit_if_failed(found: Any, ledger: str) -> None:
    """Name the runs that failed, and exit with status 1 if there are any."""
    for run, error in found.failed:
        print(f"failed: {run.variant.name}, seed {run.seed}: {error}", file=sys.stderr)
    if found.failed:
        print(f"The other runs are kept in {ledger}. To try the failed ones again:\n{again()}", file=sys.stderr)
        raise typer.Exit(1)


def check_report(path: str | None) -> None:
    """Refuse a report that could not be written at the end."""
    if path is not None:
        from keras_dropout.bench.report.page import check_report_path  # takes a second to load

        check_report_path(path)


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
