"""The catalogue: complete, and true: every example is made and called, on the backend of this process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_dropout
from keras_dropout import BadInput, catalogue

METHODS = catalogue.methods()
ROOT = Path(__file__).resolve().parents[1]
CALLED = [name for name, method in METHODS.items() if method.input_shape]


def test_every_public_layer_and_companion_is_there():
    assert set(METHODS) == {name for name, home in keras_dropout._HOME.items() if home in ("layers", "companions")}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name):
    """A new one needs the docstring's sections, and a row in `examples.EXAMPLES`."""
    document = METHODS[name].document()
    assert document["name"] == name
    assert document["summary"].endswith(".")
    assert len(document["summary"]) < 120
    for field in ("reference", "differs"):
        assert document[field], field
        assert "\n" not in document[field]
    assert METHODS[name].formula
    called = issubclass(METHODS[name].value, keras.Layer) if isinstance(METHODS[name].value, type) else False
    assert bool(document["input_shape"]) == bool(document["input_dtype"]) == bool(document["example"]) == called
    assert catalogue.title(document["group"])


@pytest.mark.parametrize("name", CALLED)
def test_examples_are_made_and_called(name):
    """On shapes alone, which runs no arithmetic and all of the layer's code."""
    method = METHODS[name]
    assert type(method.make()).__name__ == method.value.__name__
    for training in (False, True):
        y = method.make()(keras.KerasTensor((2, *method.input_shape[1:]), method.input_dtype), training=training)
        assert y.shape[0] == 2


@pytest.mark.parametrize("name", CALLED)
def test_examples_run_in_training_and_at_inference(name):
    method = METHODS[name]
    x = np.ones(method.input_shape, method.input_dtype)
    layer = method.make()
    for training in (False, True):
        y = ops.convert_to_numpy(layer(x, training=training))
        assert np.isfinite(y).all()
        symbolic = method.make()(keras.KerasTensor((None, *method.input_shape[1:]), method.input_dtype), training=training)
        assert len(symbolic.shape) == y.ndim
        assert all(a in (None, b) for a, b in zip(symbolic.shape, y.shape)), (symbolic.shape, y.shape)


def test_examples_that_are_no_layers_run():
    assert METHODS["linear_decay"].make()[-1] == 0.5
    assert set(np.unique(METHODS["dare"].make()[0])) == {0.0, 2.0}
    kernel = METHODS["MaxNorm"].make()(ops.ones((100, 2)))
    np.testing.assert_allclose(np.linalg.norm(ops.convert_to_numpy(kernel), axis=0), 3, rtol=1e-5)


def test_sections_are_read_from_a_docstring():
    summary, formula, sections = catalogue._parts(
        "Drop it.\n\n    y = x * m\n\nShapes: any.\nSource:        Me 2020,\n               page 3.\nDiffers from:  all.\n\n"
        ">>> 1\n1"
    )
    assert (summary, formula) == ("Drop it.", "    y = x * m")
    assert sections == {"Shapes": "any.", "Source": "Me 2020, page 3.", "Differs from": "all."}


@pytest.mark.parametrize(("name", "close"), [("Dropuot", "Dropout"), ("zone_out", "Zoneout"), ("rdrop", "RDrop")])
def test_an_unknown_name_is_refused_with_the_closest(name, close):
    with pytest.raises(BadInput, match=f"unknown method '{name}'") as caught:
        catalogue.method(name)
    assert str(caught.value).splitlines()[1].startswith(f"Did you mean {close}?")


# What docs/how-to/add-a-layer.md says of the source: a class with its name in `__all__`, and a row.
TOY = '''

@keras.saving.register_keras_serializable("keras_dropout")
class Toy(MaskLayer):
    """Drop whole features of a batch.

        y = x * m / (1 - rate)

    Source:        ours.
    Differs from:  Dropout in what is shared.
    """

    def mask_shape(self, shape: tuple) -> tuple:
        return (1,) * (len(shape) - 1) + (shape[-1],)
'''
USES = """
import keras
import keras_dropout
assert "Toy" in keras_dropout.__all__
from keras_dropout.commands.options import METHODS
assert "Toy" in METHODS
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu", name="d"), keras.layers.Dense(2)])
assert "Toy" in keras_dropout.sites(model)[1].methods
placed = keras_dropout.place(model, {"hidden": "Toy(0.3)"})
assert isinstance(placed.layers[1], keras_dropout.Toy)
assert [each["kind"] for site in keras_dropout.sites(placed) for each in site.dropout] == ["Toy"]
from keras_dropout import catalogue
import generate
methods = catalogue.methods()
assert "[Toy](#toy)" in generate.page(methods) and ", Toy]" in generate.reference(methods)
assert generate.svg(generate.picture(methods["Toy"]), "Toy").startswith("<svg")
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="names are the same on every backend")
def test_a_layer_is_added_by_its_class_and_a_row(tmp_path):
    """In a copy of the package: found by its public name, at a site, in what the model has, and by the documents."""
    source = tmp_path / "src" / "keras_dropout"
    shutil.copytree(ROOT / "src" / "keras_dropout", source, ignore=shutil.ignore_patterns("__pycache__"))
    units, rows = source / "layers" / "units.py", source / "examples.py"
    units.write_text(units.read_text().replace('"NestedDropout"]', '"NestedDropout", "Toy"]', 1) + TOY)
    last = 'Example("NestedDropout(0.1, seed=1)", (8, 24)),\n'
    rows.write_text(rows.read_text().replace(last, f'{last}        Example("Toy(0.3, seed=1)", (8, 24)),\n', 1))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source.parent), str(ROOT / "docs")])}
    done = subprocess.run([sys.executable, "-c", USES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
