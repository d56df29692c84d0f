"""Options that several commands take, and what is made of them."""

import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

import keras_dropout
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


def help_of(command: Callable) -> str:
    """The docstring as its help: lines below "Examples:" and "Try first:" stay lines of their own."""
    text = inspect.cleandoc(command.__doc__ or "")
    for head in ("Examples:", "Try first:"):
        text = text.replace(f"\n\n{head}\n", f"\n\n\b\n{head}\n")
    return text


Model = Annotated[
    str,
    typer.Argument(help="A .keras file, or file.py:function; to look at, also a recipe.", autocompletion=complete_target),
]
BACKEND = one_of("jax", "tensorflow", "torch")
Backend = Annotated[str, typer.Option(help="jax, tensorflow or torch.", autocompletion=BACKEND)]
Data = Annotated[
    str | None,
    typer.Option(
        help="Your data: .npz, x.npy,y.npy, .csv, .tsv, .parquet, .txt, a folder or archive of class folders, or file.py:function.",
        show_default=False,
    ),
]
Target = Annotated[list[str] | None, typer.Option("--target", metavar="COLUMN", help="Tables: the column to predict. Repeatable.")]
Text = Annotated[str | None, typer.Option(help="Tables: the column with the text.")]
Task = Annotated[str | None, typer.Option(help="auto, classification or regression.")]
ImageSize = Annotated[str | None, typer.Option(help="Images: HEIGHTxWIDTH, for example 32x32.")]
DivideBy = Annotated[float | None, typer.Option(help="The model sees x / this, for example 255.")]
Vocabulary = Annotated[int | None, typer.Option(help="Text: words that are told apart. Default 10000.")]
Length = Annotated[int | None, typer.Option(help="Text: words of an example. Default 200.")]
DATA_OPTIONS = (
    *("text", "group", "time", "weight", "test_data", "test_split", "validation_split"),
    *("task", "image_size", "divide_by", "vocabulary", "length"),
)


def data_options(**options: Any) -> dict[str, Any]:
    """What was said of the data, as `bench.data.files.load` takes it."""
    said = {name: value for name, value in options.items() if value is not None and value != []}
    if len(target := said.get("target", ())) == 1:
        said["target"] = target[0]
    if size := said.get("image_size"):
        try:
            said["image_size"] = tuple(int(each) for each in size.lower().split("x"))
        except ValueError:
            refuse(f"--image-size must be HEIGHTxWIDTH; got {size!r}.", "For example 32x32.")
    return said


def read_seeds(text: str | None) -> int | str | None:
    """The number of seeds, or the word that stands for it."""
    try:
        return text if text is None else int(text)
    except ValueError:
        return text


def check_masks(masks: str, backend: str) -> None:
    """Refuse masks that there are not, or not on a backend."""
    check_choice("masks", masks, ("independent", "shared"))
    if masks == "shared" and backend != "jax":
        refuse(f"masks that all examples share need JAX; got the backend {backend}.", "Use --backend jax, or --masks independent.")


def choose_backend(backend: str) -> None:
    from keras_dropout.frameworks import check_backend

    os.environ["KERAS_BACKEND"] = check_backend(backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Keras loads TensorFlow where it is installed; this keeps it silent
