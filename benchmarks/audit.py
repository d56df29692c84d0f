"""Does the dropout of KerasHub's models drop, and that of keras.applications? An audit of each, small and with random weights.

Needs keras-hub (see hub_models.py). Run: python benchmarks/audit.py [--only NAME …] [--json FILE]
"""

import argparse
import importlib.metadata
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from hub_models import MODELS
from keras.src.applications.convnext import ConvNeXt  # its sizes have no option for a drop path
from report import write

import keras_dropout

_SMALL = {"weights": None, "input_shape": (64, 64, 3), "classes": 3}
APPLICATIONS: dict[str, Callable[[], keras.Model]] = {
    name: (lambda name=name, more=more: getattr(keras.applications, name)(**_SMALL, **more))
    for name, more in {
        "EfficientNetB0": {},
        "EfficientNetV2B0": {},
        "MobileNet": {"dropout": 0.1},
        "MobileNetV3Small": {"dropout_rate": 0.1},
        "ResNet50": {},
        "DenseNet121": {},
    }.items()
}
_CONVNEXT = {"depths": [1, 1, 2, 1], "projection_dims": [4, 8, 8, 16], "drop_path_rate": 0.2, "name": "convnext"}
APPLICATIONS["ConvNeXt"] = lambda: ConvNeXt(**_CONVNEXT, **_SMALL)


def row(name: str, library: str, make: Callable[[], keras.Model]) -> dict[str, Any]:
    """What an audit of a model says."""
    keras.utils.set_random_seed(1)
    begin = time.perf_counter()
    made: dict[str, Any] = {"model": name, "library": library}
    try:
        found = keras_dropout.check(make(), run=True)
    except Exception as error:  # what another library's code raises is a result here
        return made | {"refused": str(error).splitlines()[0]}
    on = [each for each in found.layers if each.rate != 0]
    wrong = {mistake.rule: [each for each in found if each.rule == mistake.rule] for mistake in found}
    return made | {
        "layers": len(on),
        "off": len(found.layers) - len(on),
        "measured": sum(each.share is not None or each.factor is not None for each in on),
        "not_measured": [f"{each.layer}: {each.verdict}" for each in on if "not measured" in each.verdict],
        "mistakes": [
            {"rule": rule, "layers": [each.layer for each in alike], "what": alike[0].what} for rule, alike in wrong.items()
        ],
        "notes": found.notes,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--json")
    only = parser.parse_args().only
    versions = {"KerasHub": importlib.metadata.version("keras-hub"), "keras.applications": keras.__version__}
    rows = []
    for library, models in (("KerasHub", MODELS), ("keras.applications", APPLICATIONS)):
        for name, make in models.items():
            if not only or name in only:
                rows.append(row(name, f"{library} {versions[library]}", make))
                said = rows[-1].get("refused") or [each["rule"] for each in rows[-1]["mistakes"]] or "no mistake"
                print(name, rows[-1].get("layers", ""), said, flush=True)
    write("audit", rows)


if __name__ == "__main__":
    main()
