"""Options that several commands take, and what is made of them."""

import os
from typing import Annotated, Any

import typer

from keras_dropout.errors import refuse

Model = Annotated[str, typer.Argument(help="A .keras file, or file.py:function; to look at, also a recipe.")]
Backend = Annotated[str, typer.Option(help="jax, tensorflow or torch.")]
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
    return int(text) if text is not None and text.lstrip("-").isdecimal() else text


def choose_backend(backend: str) -> None:
    from keras_dropout.bench.execution import check_backend

    os.environ["KERAS_BACKEND"] = check_backend(backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Keras loads TensorFlow where it is installed; this keeps it silent
