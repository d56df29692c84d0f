"""Places other than the ledger where runs are written: TensorBoard, MLflow, Weights & Biases."""

import importlib.util
from pathlib import Path
from typing import Any

from keras_dropout.errors import refuse

KINDS = {"tensorboard": ("tensorboard", "tensorboard"), "mlflow": ("mlflow", "mlflow"), "wandb": ("wandb", "wandb")}
_FORMS = "tensorboard:DIR, mlflow, mlflow:URI, wandb or wandb:PROJECT"


def is_place(text: str) -> bool:
    """Return whether a text begins like the name of a place."""
    return text.partition(":")[0] in KINDS


def check_place(place: Any) -> str:
    """Return the text that names a place; refuse another text, and a place whose package is not installed."""
    kind, colon, rest = place.partition(":") if isinstance(place, str) else ("", "", "")
    if kind not in KINDS or (not rest and (colon or kind == "tensorboard")):
        refuse(f"runs are written to {_FORMS}; got {place!r:.200}.", "For example tensorboard:logs.")
    module, package = KINDS[kind]
    if importlib.util.find_spec(module) is None:
        refuse(f"{place} needs {package}, which is not installed.", f"pip install {package}")
    if kind == "tensorboard" and Path(rest).exists() and not Path(rest).is_dir():
        refuse(f"{rest} is a file; TensorBoard reads a folder.", "Name a folder, for example tensorboard:logs.")
    return place
