"""The command: which commands there are, and what bad input, Ctrl-C and a closed pipe end in. Data go to stdout, everything else to
stderr."""

import os
import sys
from typing import Annotated

import typer

from keras_dropout import __version__
from keras_dropout.commands.ensemble import ensemble
from keras_dropout.commands.models import check, init, layers, place, sites
from keras_dropout.commands.report import report
from keras_dropout.commands.runs import runs
from keras_dropout.commands.studies import compare, tune
from keras_dropout.commands.uncertainty import uncertainty
from keras_dropout.errors import BadInput, refuse

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_UsageError: type = typer.BadParameter.__mro__[1]  # what typer raises for a bad command line; it has no public name there


@app.callback(invoke_without_command=True)
def _keras_dropout(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Whether, where and how much dropout a model wants, with proof."""
    if version:
        print(__version__)
        raise typer.Exit


for command in (compare, tune, report, sites, place, check, uncertainty, ensemble, init, layers):
    app.command()(command)
app.add_typer(runs, name="runs")


def main() -> None:
    """Run the command; bad input is two lines on stderr and exit status 2, without a traceback."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except BadInput as error:
        print(f"keras-dropout: {error}", file=sys.stderr)
        sys.exit(2)
    except _UsageError as error:
        try:
            refuse(error.format_message(), "See keras-dropout --help, or keras-dropout compare --help.")
        except BadInput as shown:
            print(f"keras-dropout: {shown}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted: nothing was started.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
