"""What the package does with models that others wrote: keras.applications, KerasHub and the forms of keras.io's examples.

Each model is made, small and with random weights, and each of these is tried on it. What counts is the effect:

    sites          sites are found, and the table can be shown
    check          the known mistakes are looked for
    adopt          every dropout of Keras in it becomes ours; predictions are the same bit for bit
    set_rate       at rate 0 an adopted model is the same in training twice over; at 0.5 it is not
    saved          the adopted model is saved, loaded, predicts the same, and draws the same masks next
    place          dropout of 0.1 behind the hidden layers of a copy: same predictions, another training, saved and loaded; where a
                   copy is refused, behind the layers of the model itself, or of the model in it that its own training calls
    strip          nothing of Keras's or ours drops, with the same predictions: a copy, or the model itself where that is refused
    uncertainty    three samples of the model's own dropout differ

An outcome is ok, with what was seen; refused (BadInput, with its first line); WRONG (it did something else); or crashed, with the
error. A model that cannot be trained as its library made it is compared at prediction alone, and that is said.
With --json the rows are put into FILE after each model, in the place of older ones of the same model and backend.
KerasHub is no dependency: pip install --no-deps keras-hub, and regex, tokenizers, sentencepiece.
Run: python benchmarks/reach.py [--only applications|hub|forms] [NAME …] [--json FILE]; KERAS_BACKEND chooses the backend.
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
from forms import FORMS, Form
from keras import applications as A
from report import made as provenance
from report import stored, write

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
# The shapes of inputs of that name, without the batch, where sizes that are open must have one value.
SHAPES = {"encoder_input_values": (1024, 1), "masks": (1, 16, 16, 1)}


STEPS = ("sites", "check", "adopt", "set_rate", "saved", "place", "strip", "uncertainty")


def inputs_of(model: keras.Model, rows: int = 2) -> Any:
    """Numbers for a model's inputs: whole ones are small; masks let everything through, segments are the first."""
    draw = np.random.default_rng(0)

    def one(tensor: Any) -> np.ndarray:
        name = tensor._keras_history.operation.name
        shape = (rows, *SHAPES.get(name, (size or _LENGTH for size in tensor.shape[1:])))
        if "int" not in tensor.dtype and "bool" not in tensor.dtype:
            return draw.random(shape).astype("float32")
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


def trouble(model: keras.Model, x: Any) -> str:
    """Return why a model cannot be called in training as its library made it; "" if it can."""
    try:
        outputs(model, x, True)
    except Exception as error:  # a library's code may raise anything
        return f"as it is made, it cannot be called in training: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def steps(make: Callable[[], Form]) -> Mapping[str, Callable[[], Any]]:
    model, x, inner = make()
    before, untrained = outputs(model, x, False), trouble(model, x)
    changed = getattr(model, inner) if inner else model

    def sites() -> Any:
        found = keras_dropout.sites(changed)
        return f"{len(found)} sites, {sum(site.group == 'inside' for site in found)} inside: {len(str(found))} letters"

    def adopt() -> Any:
        found = keras_dropout.adopt(changed)
        expect(same(outputs(model, x, False), before), "predictions differ")
        return f"{len(found)} layers"

    def set_rate() -> Any:
        addresses = [address for address, _ in dropout_in(changed)]
        if not addresses:
            return "no dropout"
        for _, layer in dropout_in(changed):
            if getattr(layer, "recurrent_rate", 0):  # which `set_rate` leaves as it is
                layer.recurrent_rate = 0.0
        foreign = [address for address, layer in rated(model) if not isinstance(layer, Stochastic)]
        drawing = [site.name for site in keras_dropout.sites(changed) if site.group == "draws"]
        keras_dropout.set_rate(changed, dict.fromkeys(addresses, 0.0))
        if not foreign and not drawing and not untrained and not inner:
            expect(same(*in_turn(model, x)), "it still draws at rate 0")
        keras_dropout.set_rate(changed, dict.fromkeys(addresses, 0.5))
        if not untrained:
            expect(not same(*in_turn(model, x)), "nothing drops at rate 0.5")
        return "; ".join(filter(None, (untrained, f"not ours: {', '.join(foreign + drawing)}" if foreign or drawing else "")))

    def put(new: keras.Model, said: str) -> Any:
        expect(same(outputs(new, x, False), before), "predictions differ")
        if not untrained:
            expect(not same(*in_turn(new, x)), "nothing drops")
        check_saved(new, x)
        return "; ".join(filter(None, (said, untrained)))

    def anew() -> tuple[keras.Model, keras.Model]:
        new = make().model
        new.set_weights(model.get_weights())
        return new, getattr(new, inner) if inner else new

    def place() -> Any:
        try:
            if not inner:
                start = time.process_time()
                new = keras_dropout.place(model, {"hidden": 0.1})
                said = f"the call itself: {time.process_time() - start:.1f} s of the processor"
                return put(new, said if isinstance(new, type(model)) else f"it is a {type(new).__name__} now; {said}")
        except BadInput as error:
            why = str(error).splitlines()[0]
        new, part = anew()
        step = new.train_step
        # The last site of a model whose call cannot be followed may be its output.
        inside = [site.name for site in keras_dropout.sites(part)[:-1] if site.group == "inside"]
        where = {"hidden": 0.1} if inner else dict.fromkeys(inside, 0.1)
        keras_dropout.place(part, where, in_place=True)
        expect(step.__func__ is new.train_step.__func__, "it trains in another way")
        return put(new, f"in place, in its {inner}" if inner else f"in place; a copy is refused: {why}")

    def strip() -> Any:
        said = ""
        try:
            new = keras_dropout.strip(model) if not inner else None
        except BadInput as error:
            new, said = None, f"in place; a copy is refused: {str(error).splitlines()[0]}"
        if new is None:
            new, part = anew()
            keras_dropout.strip(part, in_place=True)
        expect(same(outputs(new, x, False), before), "predictions differ")
        among = (getattr(new, inner) if inner else new)._flatten_layers()
        left = [type(each).__name__ for each in among if isinstance(each, Stochastic) and getattr(each, "rate", 0)]
        expect(not left, f"{', '.join(left)} still drop")
        return said

    def saved() -> None:
        try:
            check_saved(model, x)
        except Wrong as error:
            untouched = make().model
            own = not same(outputs(untouched, x, False), outputs(reloaded(untouched), x, False))
            raise Wrong(f"{error}{'; so does the file of the model as its library made it' if own else ''}") from None

    def samples() -> Any:
        found = uncertainty.predict(model, x, samples=3)
        return type(found).__name__

    return {
        "sites": sites,
        "check": lambda: f"{len(keras_dropout.check(changed))} mistakes",
        "adopt": adopt,
        "set_rate": set_rate,
        "saved": saved,
        "place": place,
        "strip": strip,
        "uncertainty": samples,
    }


def tried(step: Callable[[], Any]) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
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
    seconds = {"seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    return outcome | seconds  # on a machine that does other work the second says more


def row(group: str, name: str, make: Callable[[], keras.Model | Form]) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    made: dict[str, Any] = {}

    def form() -> Form:
        found = make()
        return found if isinstance(found, Form) else Form(found, inputs_of(found))

    def build() -> str:
        made["steps"] = steps(form)
        return ""

    made_at = provenance("")
    found = {
        "group": group,
        "model": name,
        "backend": keras.backend.backend(),
        "commit": made_at["commit"],
        "date": made_at["date"],
    }
    found["made"] = tried(build)
    for step, act in made.get("steps", {}).items():
        found[step] = tried(act)
    return found


def chosen(only: str | None, names: list[str]) -> list[tuple[str, str, Callable[[], Any]]]:
    groups: dict[str, Mapping[str, Callable[[], Any]]] = {"applications": APPLICATIONS, "forms": FORMS}
    if only in (None, "hub"):
        from hub_models import MODELS  # imports KerasHub

        groups["hub"] = MODELS
    found = [(group, name, make) for group, models in groups.items() if only in (None, group) for name, make in models.items()]
    return [each for each in found if not names or each[1] in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--only", choices=("applications", "hub", "forms"))
    parser.add_argument("--json", help="FILE for the rows")
    asked = parser.parse_args()
    before = stored()
    rows = {(each["group"], each["model"], each["backend"]): each for each in (before or {"rows": []})["rows"]}
    done = []
    for group, name, make in chosen(asked.only, asked.names):
        found = row(group, name, make)
        done.append(found)
        rows[group, name, found["backend"]] = found
        tries = {step: each for step, each in found.items() if isinstance(each, dict)}
        print(f"{name}:", *(f"{step} {each['outcome']} {each['seconds']:.1f} s," for step, each in tries.items()), flush=True)
        print(*(f"    {step}: {each['said']}\n" for step, each in tries.items() if each["outcome"] != "ok"), sep="", end="")
        write("reach", list(rows.values()))
    for group in dict.fromkeys(each["group"] for each in done):
        here = [each for each in done if each["group"] == group]
        good = (f"{step} {sum(each.get(step, {}).get('outcome') == 'ok' for each in here)}" for step in STEPS)
        print(f"{group}, of {len(here)}:", ", ".join(good))


if __name__ == "__main__":
    main()
