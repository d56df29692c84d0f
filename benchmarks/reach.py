"""What the package does with models that others wrote: keras.applications and KerasHub, small and with random weights.

Each model is made, and each of these is tried on it. What counts is the effect:

    sites          sites are found, and the table can be shown
    check          the known mistakes are looked for
    adopt          every dropout of Keras in it becomes ours; predictions are the same bit for bit
    set_rate       at rate 0 an adopted model is the same in training twice over; at 0.5 it is not
    saved          the adopted model is saved, loaded, predicts the same, and draws the same masks next
    place          dropout of 0.1 behind the hidden layers of a copy: same predictions, another training, saved and loaded
    strip          a copy in which nothing of Keras's or ours drops, with the same predictions
    uncertainty    three samples of the model's own dropout differ

An outcome is ok; refused (BadInput, with its first line); WRONG (it did something else); or crashed, with the error.
KerasHub is no dependency: pip install --no-deps keras-hub, and regex, tokenizers, sentencepiece.
Run: python benchmarks/reach.py [--only applications|hub] [NAME …] [--json FILE]; KERAS_BACKEND chooses the backend.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import applications as A
from report import write

import keras_dropout
from keras_dropout import BadInput, uncertainty
from keras_dropout.layers.adopted import dropout_in
from keras_dropout.layers.base import Stochastic
from keras_dropout.models.dropping import rated

_SMALL = {"weights": None, "input_shape": (64, 64, 3), "classes": 10}
APPLICATIONS: Mapping[str, Callable[[], keras.Model]] = {
    "VGG16": lambda: A.VGG16(**_SMALL),
    "ResNet50": lambda: A.ResNet50(**_SMALL),
    "ResNet50V2": lambda: A.ResNet50V2(**_SMALL),
    "DenseNet121": lambda: A.DenseNet121(**_SMALL),
    "MobileNet": lambda: A.MobileNet(**_SMALL),
    "MobileNetV2": lambda: A.MobileNetV2(**_SMALL),
    "MobileNetV3Small": lambda: A.MobileNetV3Small(**_SMALL),
    "EfficientNetB0": lambda: A.EfficientNetB0(**_SMALL),
    "EfficientNetV2B0": lambda: A.EfficientNetV2B0(**_SMALL),
    "ConvNeXtTiny": lambda: A.ConvNeXtTiny(**_SMALL),
    "Xception": lambda: A.Xception(**_SMALL | {"input_shape": (96, 96, 3)}),
    "InceptionV3": lambda: A.InceptionV3(**_SMALL | {"input_shape": (96, 96, 3)}),
}
_LENGTH = 8


def inputs_of(model: keras.Model, rows: int = 2) -> Any:
    """Numbers for a model's inputs: whole ones are small; masks let everything through, segments are the first."""
    draw = np.random.default_rng(0)

    def one(tensor: Any) -> np.ndarray:
        shape = (rows, *(size or _LENGTH for size in tensor.shape[1:]))
        if "int" not in tensor.dtype and "bool" not in tensor.dtype:
            return draw.random(shape).astype("float32")
        name = tensor._keras_history.operation.name
        if "mask" in name or "segment" in name:
            return np.full(shape, "mask" in name, tensor.dtype)
        return draw.integers(1, 6, shape).astype(tensor.dtype)

    return keras.tree.map_structure(one, model.inputs[0] if isinstance(model, keras.Sequential) else model.input)


class Wrong(Exception):
    """What was asked for did not happen."""


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)


def outputs(model: keras.Model, x: Any, training: bool) -> list[np.ndarray]:
    with keras.StatelessScope():  # leaves moving averages and streams as they are
        found = model(x, training=training)
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(found)]


def same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, two))


def in_turn(model: keras.Model, x: Any) -> list[list[np.ndarray]]:
    """Outputs of two training calls, one after the other: the streams move, as in a training; the weights are put back."""
    weights = model.get_weights()  # with the moving averages
    found = [keras.tree.flatten(model(x, training=True)) for _ in range(2)]
    model.set_weights(weights)
    return [[keras.ops.convert_to_numpy(each) for each in outputs] for outputs in found]


def reloaded(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        return keras.models.load_model(Path(folder, "model.keras"))


def check_saved(model: keras.Model, x: Any) -> None:
    again = reloaded(model)
    expect(same(outputs(model, x, False), outputs(again, x, False)), "loaded, it predicts something else")
    ours = [each for each in model._flatten_layers() if isinstance(each, Stochastic)]
    theirs = [each for each in again._flatten_layers() if isinstance(each, Stochastic)]
    states = [[np.array(keras.ops.convert_to_numpy(each.state.stream)) for each in layers] for layers in (ours, theirs)]
    expect(len(ours) == len(theirs) and all(map(np.array_equal, *states)), "loaded, it would draw other masks")
    expect([getattr(a, "rate", 0) for a in ours] == [getattr(b, "rate", 0) for b in theirs], "loaded, it has other rates")


def steps(model: keras.Model) -> Mapping[str, Callable[[], Any]]:
    x = inputs_of(model)
    before = outputs(model, x, False)

    def sites() -> Any:
        found = keras_dropout.sites(model)
        return f"{len(found)} sites, {sum(site.group == 'inside' for site in found)} inside: {len(str(found))} letters"

    def adopt() -> Any:
        found = keras_dropout.adopt(model)
        expect(same(outputs(model, x, False), before), "predictions differ")
        return f"{len(found)} layers"

    def set_rate() -> Any:
        addresses = [address for address, _ in dropout_in(model)]
        if not addresses:
            return "no dropout"
        foreign = [address for address, layer in rated(model) if not isinstance(layer, Stochastic)]
        keras_dropout.set_rate(model, dict.fromkeys(addresses, 0.0))
        if not foreign:
            expect(same(*in_turn(model, x)), "it still draws at rate 0")
        keras_dropout.set_rate(model, dict.fromkeys(addresses, 0.5))
        expect(not same(*in_turn(model, x)), "nothing drops at rate 0.5")
        return f"foreign: {', '.join(foreign)}" if foreign else ""

    def place() -> Any:
        new = keras_dropout.place(model, {"hidden": 0.1})
        expect(same(outputs(new, x, False), before), "predictions differ")
        expect(not same(*in_turn(new, x)), "nothing drops")
        check_saved(new, x)
        return "" if isinstance(new, type(model)) else f"it is a {type(new).__name__} now"

    def strip() -> Any:
        new = keras_dropout.strip(model)
        expect(same(outputs(new, x, False), before), "predictions differ")
        left = [type(each).__name__ for each in new._flatten_layers() if isinstance(each, Stochastic) and getattr(each, "rate", 0)]
        expect(not left, f"{', '.join(left)} still drop")
        return ""

    def samples() -> Any:
        found = uncertainty.predict(model, x, samples=3)
        return type(found).__name__

    return {
        "sites": sites,
        "check": lambda: f"{len(keras_dropout.check(model))} mistakes",
        "adopt": adopt,
        "set_rate": set_rate,
        "saved": lambda: check_saved(model, x),
        "place": place,
        "strip": strip,
        "uncertainty": samples,
    }


def tried(step: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outcome = {"outcome": "ok", "said": step() or ""}
        except BadInput as error:
            outcome = {"outcome": "refused", "said": str(error).splitlines()[0]}
        except Wrong as error:
            outcome = {"outcome": "WRONG", "said": str(error)}
        except Exception as error:  # what is counted here
            outcome = {"outcome": "crashed", "said": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return outcome | {"seconds": round(time.perf_counter() - start, 2)}


def row(group: str, name: str, make: Callable[[], keras.Model]) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    made: dict[str, Any] = {}

    def build() -> str:
        made["model"] = make()
        made["steps"] = steps(made["model"])
        return type(made["model"]).__name__

    found = {"group": group, "model": name, "made": tried(build)}
    for step, act in made.get("steps", {}).items():
        found[step] = tried(act)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--only", choices=("applications", "hub"))
    parser.add_argument("--json", help="FILE for the rows")
    asked = parser.parse_args()
    models = {("applications", name): make for name, make in APPLICATIONS.items()}
    if asked.only != "applications":
        from hub_models import MODELS  # imports KerasHub

        models |= {("hub", name): make for name, make in MODELS.items()}
    rows = []
    for (group, name), make in models.items():
        if asked.only in (None, group) and (not asked.names or name in asked.names):
            rows.append(row(group, name, make))
            tries = {step: each for step, each in rows[-1].items() if isinstance(each, dict)}
            print(f"{name}:", *(f"{step} {each['outcome']} {each['seconds']:.1f} s," for step, each in tries.items()), flush=True)
            print(*(f"    {step}: {each['said']}\n" for step, each in tries.items() if each["outcome"] != "ok"), sep="", end="")
    done = {group: [each for each in rows if each["group"] == group] for group in ("applications", "hub")}
    for group, each in done.items():
        for step in ("sites", "check", "adopt", "set_rate", "saved", "place", "strip", "uncertainty"):
            good = sum(one.get(step, {}).get("outcome") == "ok" for one in each)
            print(f"{group}: {step} {good} of {len(each)}")
    if asked.json:
        write("reach", rows)


if __name__ == "__main__":
    main()
