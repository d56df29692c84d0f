"""Options that several commands take, and what is made of them."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import keras_dropout
from keras_dropout.bench.settings import MASKS, Setting, rows
from keras_dropout.errors import check_choice, refuse
from keras_dropout.models.targets import RECIPES

# Named here too: their own modules load Keras.
METHODS = sorted(name for name, home in keras_dropout._HOME.items() if home in ("layers", "companions"))


def complete_target(incomplete: str) -> list[str]:
    """What a target may go on as: recipes, files of models and the folders on the way."""
    names = [name for name in RECIPES if name.startswith(incomplete)]
    return names + _files(incomplete, (".keras", ".py"))


def complete_reproduction(incomplete: str) -> list[str]:
    """What the name of a reproduction may go on as."""
    from keras_dropout.reproductions import names

    return [name for name in names() if name.startswith(incomplete)]


def complete_model_or_ledger(incomplete: str) -> list[str]:
    """What a target of `uncertainty` may go on as."""
    return _files(incomplete, (".keras", ".py", ".db", ".sqlite"))


def one_of(*choices: str) -> Callable[[str], Iterable[str]]:
    """What completes an option with these values."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def _files(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    folder, _, start = incomplete.rpartition("/")
    where = Path(f"{folder}/" if folder or incomplete.startswith("/") else ".")
    try:
        found = sorted(file for file in where.iterdir() if file.name.startswith(start) and not file.name.startswith("."))
    except OSError:
        return []
    prefix = incomplete.removesuffix(start) if start else incomplete
    shown = [f"{prefix}{file.name}{'/' if file.is_dir() else ''}" for file in found if file.is_dir() or file.suffix in endings]
    return [f"{name}:" if name.endswith(".py") else name for name in shown]


# The option with which each part of a long help begins.
PARTS = {
    "study": "Study",
    "data": "Data",
    "baseline": "Evidence",
    "epochs": "Training",
    "backend": "Where it runs",
    "ledger": "What is kept",
    "uses": "Training function",
    "space": "Search",
    "report": "Output",
    "variant_column": "Scores of your own",
}


class InParts(TyperCommand):
    """A command with many options: its help has them in parts."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parts: dict[str, list] = {}
        title = "Arguments"
        for parameter in self.get_params(ctx):
            title = PARTS.get(parameter.name or "", title)
            if record := parameter.get_help_record(ctx):
                parts.setdefault(title, []).append(record)
        for title, records in parts.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=24)


def help_of(command: Callable) -> dict[str, Any]:
    """Return a command's docstring as its help, and what stands behind the examples as its end, below the options.

    Lines below "Examples:" and "Try first:" stay lines of their own.
    """
    text = inspect.cleandoc(command.__doc__ or "")
    for head in ("Examples:", "Try first:"):
        text = text.replace(f"\n\n{head}\n", f"\n\n\b\n{head}\n")
    front, examples, rest = text.partition("\b\nExamples:\n")
    shown, _, end = rest.partition("\n\n")
    return {"help": front + examples + shown, "epilog": end}


Model = Annotated[
    str,
    typer.Argument(help="A .keras file, or file.py:function; to look at, also a recipe.", autocompletion=complete_target),
]
BACKEND = one_of("jax", "tensorflow", "torch")
Backend = Annotated[str, typer.Option(help="jax, tensorflow or torch.", autocompletion=BACKEND)]
Data = Annotated[
    str | None,
    typer.Option(
        help="Your data: .npz, x.npy,y.npy, .csv, .tsv, .jsonl, .parquet, .feather, .xlsx, .txt, a folder or archive of "
        "class folders, or file.py:function.",
        show_default=False,
    ),
]
# How data are read, and not divided; a series is always divided by time.
AS_READ = ("target", "text", "time", "sheet", "window", "horizon", "task", "image_size", "divide_by", "vocabulary", "length")


def takes(table: Any, *names: str, into: str | None = None) -> Callable[[Callable], Callable]:
    """Give a command the options of a table of settings beside its own: all of them, or those of these names.

    Those that are given reach it as keywords, or in one mapping, the keyword `into`.
    """
    taken = {name: row for name, row in rows(table).items() if row.help and (not names or name in names)}

    def extend(own: Callable) -> Callable:
        mine = {name: p for name, p in inspect.signature(own).parameters.items() if p.kind is not p.VAR_KEYWORD and name != into}

        @functools.wraps(own)
        def command(**options: Any) -> None:
            said = {name: _read(row, options.pop(_argument(name))) for name, row in taken.items()}
            said = {name: value for name, value in said.items() if value is not None}
            own(**options, **({into: said} if into else said))

        theirs = {_argument(name): _parameter(name, row) for name, row in taken.items()}
        behind = next((place for place, name in enumerate(mine, 1) if name in ("data", "ledger")), len(mine))
        order = [*mine.values()]
        order[behind:behind] = theirs.values()
        command.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in order])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in order}
        return command

    return extend


def _argument(name: str) -> str:
    """Return the name of a setting among a command's arguments, where "target" is the model or recipe."""
    return "column" if name == "target" else name


def _parameter(name: str, row: Setting) -> inspect.Parameter:
    """Return a setting as an option of typer. Its default is None, so that a study file counts where it is not given."""
    flag = row.flag or f"--{name.replace('_', '-')}"
    completed = one_of(*row.choices) if row.choices else None
    option = typer.Option(flag, help=row.help, metavar=row.metavar, autocompletion=completed)
    default, kind = (False, bool) if row.kind is bool else (None, row.kind | None)
    return inspect.Parameter(_argument(name), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _read(row: Setting, value: Any) -> Any:
    """Return what Python takes for an option's value; None if the option was not given."""
    if row.kind is bool:
        return (not row.flag.startswith("--no-")) if value else None
    if value is None or value == []:
        return None
    return row.read(value) if row.read else value


def check_masks(masks: str, backend: str) -> None:
    """Refuse unknown masks, and shared masks on another backend than JAX."""
    check_choice("masks", masks, MASKS)
    if masks == "shared" and backend != "jax":
        refuse(f"masks that all examples share need JAX; got the backend {backend}.", "Use --backend jax, or --masks independent.")


def choose_backend(backend: str) -> None:
    from keras_dropout.frameworks import check_backend

    os.environ["KERAS_BACKEND"] = check_backend(backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Keras loads TensorFlow where it is installed; this keeps it silent
