"""Test examples as a report shows them: small pictures or rows, their answers, and the names of classes and columns."""

from typing import Any

import numpy as np

from keras_dropout.bench.data.arrays import is_one_hot
from keras_dropout.bench.data.dataset import Data

MOST_IMAGES, MOST_ROWS = 1000, 2000
_SIDE, _COLUMNS = 64, 30


def shown(data: Data) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Return what `Ledger.put_examples` stores of the test part, (about, arrays); None if an example has several answers.

    About: "kind" is "images", "rows" or "none"; "names" of the classes and "columns" of the rows, empty if there are none;
    "classes" says whether the answers can be class numbers. Arrays: "answers" of all test examples; "index" of the examples that
    can be drawn, evenly spaced; "inputs" of these, images as uint8 with at most 64 pixels a side, rows as float32 with at most 30
    columns.
    """
    x, y = data.test.x, data.test.y
    if not isinstance(y, np.ndarray) or y.ndim > 2:
        return None
    if y.ndim == 2:
        if y.shape[1] > 1 and not is_one_hot(y):
            return None
        y = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0]
    classes = y.dtype.kind in "iub" and int(y.min(initial=0)) >= 0  # a negative number is a quantity
    kind = "none" if data.columns and x.ndim > 2 else _kind(x)  # windows of a table's rows are no pictures
    about = {
        "kind": kind,
        "names": list(data.classes) if classes else [],
        "columns": list(data.columns[:_COLUMNS]) if kind == "rows" else [],
        "classes": classes,
    }
    arrays = {"answers": y.astype(np.min_scalar_type(int(y.max(initial=0)))) if classes else y.astype("float32")}
    if kind == "none":
        return about, arrays
    most = MOST_IMAGES if kind == "images" else MOST_ROWS
    index = np.unique(np.linspace(0, len(y) - 1, min(most, len(y))).round().astype(int))
    some = np.asarray(x[index])
    arrays |= {"index": index, "inputs": _pictures(some) if kind == "images" else some[:, :_COLUMNS].astype("float32")}
    return about, arrays


def _kind(x: Any) -> str:
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "iufb":
        return "none"
    if (x.ndim == 3 and min(x.shape[1:]) >= 5) or (x.ndim == 4 and x.shape[-1] in (1, 3)):
        return "images"
    return "rows" if x.ndim == 2 and not (x.dtype.kind in "iu" and x.shape[1] > _COLUMNS) else "none"  # texts are word numbers


def _pictures(x: np.ndarray) -> np.ndarray:
    """Subsample the pixels at equal distances and scale them to 0 to 255; drop the axis of a single channel."""
    x = x[..., 0] if x.ndim == 4 and x.shape[-1] == 1 else x
    stride = -(-max(x.shape[1:3]) // _SIDE)
    x = x[:, ::stride, ::stride]
    x = np.nan_to_num(x.astype("float32"))
    low, high = float(x.min(initial=0)), float(x.max(initial=0))
    return ((x - low) / ((high - low) or 1) * 255).round().astype("uint8")
