"""The command line: its commands, and how it ends after bad input, Ctrl-C, a signal or a closed pipe. Only data go to stdout."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keras_dropout import __version__
from keras_dropout.characters import CleanStream
from keras_dropout.commands.ensemble import ensemble
from keras_dropout.commands.models import check, init, layers, place, sites
from keras_dropout.commands.options import InParts, help_of
from keras_dropout.commands.output import again
from keras_dropout.commands.report import report
from keras_dropout.commands.reproductions import reproduce
from keras_dropout.commands.runs import runs
from keras_dropout.commands.studies import compare, tune
from keras_dropout.commands.uncertainty import uncertainty
from keras_dropout.errors import BadInput, refuse

_UsageError: Any = typer.BadParameter.__mro__[1]  # typer raises it for a bad command line and gives it no public name
GROUPS = {
    "Find the dropout that a model wants": ("compare", "tune", "report", "init", "reproduce"),
    "Look at a model and change it": ("sites", "check", "place", "layers"),
    "Use dropout at prediction": ("uncertainty", "ensemble"),
    "What is kept": ("runs",),
}


class _ReaderGone(Exception):
    """The reader of our output has gone, as in `| head`. typer itself would exit with 1."""


class _Grouped(TyperGroup):
    """A group that lists its commands under titles and tells a closed pipe from a failure."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: found for name in self.list_commands(ctx) if (found := self.get_command(ctx, name))}
        width = max(map(len, commands))
        for title, names in GROUPS.items():
            with formatter.section(title):
                first = ((name, commands[name].help or "") for name in names)
                formatter.write_dl([(f"{name:{width}}", " ".join(text.split("\n\n")[0].split())) for name, text in first])

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError:
            raise _ReaderGone from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGone from None


app = typer.Typer(cls=_Grouped, add_completion=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _keras_dropout(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Whether, where and how much dropout a model wants, with proof.

    Each command has examples: keras-dropout COMMAND --help.

    Try first:
      keras-dropout compare digits-mlp
    """
    if version:
        print(__version__)
        raise typer.Exit


app.callback(invoke_without_command=True, **help_of(_keras_dropout))(_keras_dropout)
for command in (compare, tune, report, sites, place, check, uncertainty, ensemble, init, layers, reproduce):
    app.command(cls=InParts if command in (compare, tune) else None, **help_of(command))(command)
app.add_typer(runs, name="runs")


def main() -> None:
    """Run the command. Bad input prints two lines on stderr and exits with status 2, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # characters that a terminal's encoding lacks do not stop a command
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with contextlib.redirect_stdout(CleanStream(sys.stdout)), contextlib.redirect_stderr(CleanStream(sys.stderr)):
        with _ended_as_by_ctrl_c() as signals:
            try:
                status = _run()
            except OSError as error:
                if not signals or error.errno != errno.EIO:
                    raise
                status = _print_nowhere(130)  # the terminal has gone, as SIGHUP says
    sys.exit(128 + signals[0] if signals and status == 130 else status)


def _run() -> int:
    """Run the command, and return its exit status."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except BadInput as error:
        print(f"keras-dropout: {error}", file=sys.stderr)
        return 2
    except _UsageError as error:
        try:
            refuse(error.format_message(), f"See {again('--help')}, or {again('compare', '--help')}.")
        except BadInput as shown:
            print(f"keras-dropout: {shown}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted: nothing was started.", file=sys.stderr)
        return 130
    except (_ReaderGone, BrokenPipeError):
        return _print_nowhere(0)
    return status if isinstance(status, int) else 0


def _print_nowhere(status: int) -> int:
    """Discard all output that is still to be written, and return the status."""
    with contextlib.suppress(OSError):  # the stream of a program that embeds this one may have no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[list[int]]:
    """Make SIGTERM and SIGHUP act like Ctrl-C: finished runs are kept and workers are stopped. Yield the signals received.

    A signal that is already ignored, as under `nohup`, stays ignored. The exit status is 143 or 129 instead of Ctrl-C's 130.
    """
    came: list[int] = []

    def end(number: int, frame: Any) -> None:
        came.append(number)
        pressed = signal.getsignal(signal.SIGINT)
        (pressed if callable(pressed) else signal.default_int_handler)(number, frame)  # in the background Ctrl-C is ignored

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    here = threading.current_thread() is threading.main_thread()  # only the main thread may set handlers
    ours = [number for number in known if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
