"""Read tables that a program holds: a pandas DataFrame, and a Dataset or DatasetDict of Hugging Face.

They are recognised by their attributes, so this module imports neither library.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_dropout.bench.data import readers, tables, typed
from keras_dropout.bench.data.readers import Examples, Options, Raw
from keras_dropout.errors import refuse

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {
    "train": "all",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def is_frame(data: Any) -> bool:
    """Return whether `data` is a DataFrame, a Dataset of Hugging Face, or a mapping of such Datasets."""
    if isinstance(data, Mapping):
        return bool(data) and all(map(_is_dataset, data.values()))
    return _is_table(data) or _is_dataset(data)


def _is_table(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("iloc", "columns", "dtypes", "to_numpy"))


def _is_dataset(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("features", "column_names", "with_format", "to_pandas"))


def read(data: Any, name: str, options: Options) -> Raw:
    """Return the examples of a frame, in its parts if it has some."""
    if options.sheet is not None:
        refuse(f"{name} has no sheets, so there is no sheet {options.sheet!r}.", "Leave sheet out.")
    parts, notes = _parts(data, name)
    options = replace(options, target=_target(parts["all"], name, options))
    raw = _one(parts.pop("all"), name, options)
    for part, other in parts.items():
        of_part = replace(options, task=_task_as(raw, options), group=None, time=options.time if options.window else None)
        raw = readers.with_part(raw, _one(other, f"{name}, {part}", of_part, raw.like), part, name)
    return replace(raw, notes=(*notes, *raw.notes))


def _task_as(raw: Raw, options: Options) -> str:
    return options.task if raw.kind == "arrays" else "classification" if raw.classes else "regression"


def _parts(data: Any, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the data sets by the names of our parts, and a note on those that are not used."""
    if not isinstance(data, Mapping):
        return {"all": data}, []
    found = {_PARTS[split]: one for split, one in data.items() if split in _PARTS}
    if "all" not in found or len(found) < sum(split in _PARTS for split in data):
        refuse(f"{name} has the splits {', '.join(data)}.", "It must have train, and may have validation and test.")
    left = [split for split in data if split not in _PARTS]
    return found, [f"split {', '.join(left)}: not used"] if left else []


def _target(data: Any, name: str, options: Options) -> Any:
    """Return the target, by default the one column of class labels."""
    if options.target is None and _is_dataset(data):
        labels = [column for column, feature in data.features.items() if _names(feature)]
        if len(labels) == 1:
            return labels[0]
    if options.target is None:
        columns = ", ".join(map(str, data.column_names if _is_dataset(data) else data.columns))
        refuse(f"{name} is a table, and no target column is named.", f'In Python data_options={{"target": NAME}}: {columns}.')
    return options.target


def _names(feature: Any) -> tuple[str, ...]:
    """Return the names of the classes of a ClassLabel; () for other columns."""
    return tuple(map(str, feature.names)) if type(feature).__name__ == "ClassLabel" else ()


def _one(data: Any, name: str, options: Options, like: tables.Like | None = None) -> Raw:
    if _is_table(data):
        table, notes = typed.plain(data.reset_index(drop=True).rename(columns=str))
        return readers.from_table(table, name, options, like, notes=notes, call="table")
    features, target = data.features, options.target
    plain = [column for column, feature in features.items() if type(feature).__name__ in ("Value", "ClassLabel")]
    nested = [column for column in features if column not in plain]
    labels = {column: _names(features[column]) for column in plain if _names(features[column])}
    if nested and options.text is None:
        return _arrays(data, name, options, nested, plain, labels)
    table, notes = typed.plain(data.select_columns(plain).to_pandas())
    for column in labels.keys() - {target}:
        table[column] = _called(table[column], labels[column])
    notes += [f"column {column} holds no plain values: left out" for column in nested]
    return readers.from_table(table, name, options, like, notes=notes, call=f"{name}.to_pandas()", labels=labels)


def _called(values: "pd.Series", names: tuple[str, ...]) -> "pd.Series":
    return values.map(lambda number: names[int(number)] if number >= 0 else None, na_action="ignore")


def _arrays(data: Any, name: str, options: Options, nested: list[str], plain: list[str], labels: Mapping[str, Any]) -> Raw:
    """Return the examples of a data set with one column of pictures or arrays."""
    if not isinstance(options.target, str) or options.target not in plain or len(nested) > 1:
        refuse(
            f"{name} has the columns {', '.join(data.column_names)}; one of arrays and one target of numbers or classes are read.",
            "Choose them: dataset.select_columns([INPUT, TARGET]), and name the target.",
        )
    replace(options, target=None).refuse_columns(name)
    (column,) = nested
    rows = data.with_format("numpy", columns=[column, options.target])
    x, y = (np.asarray(rows[each][:]) for each in (column, options.target))
    if x.dtype.hasobject or y.dtype.kind not in "biuf":
        what = column if x.dtype.hasobject else options.target
        refuse(
            f"{name}: the column {what!r} has values of several shapes, or none that are numbers.",
            "Bring all into one shape first, with dataset.map; targets are numbers or ClassLabel.",
        )
    notes = [f"column {each} is not used" for each in plain if each != options.target]
    classes = labels.get(options.target, ())
    if classes and not ((y >= 0) & (y < len(classes))).all():
        refuse(f"{name}: {int((y < 0).sum())} example(s) have no label.", "Leave these out: dataset.filter(…).")
    return Raw("arrays", {"all": Examples(x, y.astype("int32") if classes else y)}, classes, tuple(notes))
