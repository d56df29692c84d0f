"""The command: which commands there are, and what bad input, Ctrl-C and a closed pipe end in. Data go to stdout, everything else to
stderr."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keras_dropout import __version__
from keras_dropout.commands.ensemble import ensemble
from keras_dropout.commands.models import check, init, layers, place, sites
from keras_dropout.commands.options import help_of
from keras_dropout.commands.report import report
from keras_dropout.commands.reproductions import reproduce
from keras_dropout.commands.runs import runs
from keras_dropout.commands.studies import compare, tune
from keras_dropout.commands.uncertainty import uncertainty
from keras_dropout.errors import BadInput, refuse

_UsageError: Any = typer.BadParameter.__mro__[1]  # what typer raises for a bad command line; it has no public name there
GROUPS = {
    "Find the dropout that a model wants": ("compare", "tune", "report", "init", "reproduce"),
    "Look at a model and change it": ("sites", "check", "place", "layers"),
    "Use dropout at prediction": ("uncertainty", "ensemble"),
    "What is kept": ("runs",),
}


class _ReaderGone(Exception):
    """Whoever reads our output has gone, as in `| head`; typer itself would end with 1."""


class _Grouped(TyperGroup):
    """Commands in groups, and a closed pipe told from a failure."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: found for name in self.list_commands(ctx) if (found := self.get_command(ctx, name))}
        named = {name for names in GROUPS.values() for name in names}
        rest = tuple(name for name in commands if name not in named)
        width = max(map(len, commands))
        for title, names in (GROUPS | ({"More": rest} if rest else {})).items():
            with formatter.section(title):
                first = ((name, commands[name].help or "") for name in names if name in commands)
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


app.callback(invoke_without_command=True, help=help_of(_keras_dropout))(_keras_dropout)
for command in (compare, tune, report, sites, place, check, uncertainty, ensemble, init, layers, reproduce):
    app.command(help=help_of(command))(command)
app.add_typer(runs, name="runs")


def _command_of(context: Any) -> str:
    """Return the command that was typed, as far as it was understood."""
    return f"{_command_of(context.parent)} {context.info_name}" if context and context.parent else "keras-dropout"


def main() -> None:
    """Run the command; bad input is two lines on stderr and exit status 2, without a traceback."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except BadInput as error:
        print(f"keras-dropout: {error}", file=sys.stderr)
        sys.exit(2)
    except _UsageError as error:
        try:
            refuse(error.format_message(), f"See {_command_of(error.ctx)} --help.")
        except BadInput as shown:
            print(f"keras-dropout: {shown}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted: nothing was started.", file=sys.stderr)
        sys.exit(130)
    except (_ReaderGone, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written goes nowhere
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
