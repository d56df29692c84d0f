"""The public names, and what loading them costs."""

import importlib
import subprocess
import sys

import pytest

import keras_dropout

HEAVY = ("keras", "jax", "tensorflow", "torch", "numpy", "scipy", "altair")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*(m for m in {HEAVY} if m in sys.modules), sep='\\n')"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()) & set(HEAVY)


def test_every_public_name_resolves_and_is_documented():
    for name in keras_dropout.__all__:
        assert getattr(keras_dropout, name).__doc__, name
    assert set(keras_dropout.__all__) <= set(dir(keras_dropout))


def test_every_layer_is_public():
    """Each dropout layer in a module of layers, in its `__all__`, and in the table of examples."""
    from keras_dropout import examples, layers
    from keras_dropout.layers.base import Stochastic

    homes = {group: getattr(layers, group) for group in examples.EXAMPLES if group != "companions"}
    for group, home in homes.items():
        own = {name for name, value in vars(home).items() if isinstance(value, type) and value.__module__ == home.__name__}
        dropout = {name for name in own if not name.startswith("_") and issubclass(getattr(home, name), Stochastic)}
        assert home.__all__ == sorted(each.name for each in examples.EXAMPLES[group]), group
        assert dropout <= set(home.__all__), group
    assert layers.__all__ == examples.LAYERS == sorted(name for home in homes.values() for name in home.__all__)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(keras_dropout, "Dropuot")


def test_import_loads_no_framework():
    assert loaded_after("import keras_dropout") == set()


def test_help_loads_no_framework():
    start = "sys.argv = ['keras-dropout', 'compare', '--help']\nfrom keras_dropout.cli import main"
    assert loaded_after(f"{start}\ntry: main()\nexcept SystemExit: pass") == set()


def test_the_check_sees_a_framework():
    assert "keras" in loaded_after("import keras_dropout; keras_dropout.Dropout")


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("keras_dropout.survey", "keras_dropout.models.survey", "Site"),
        ("keras_dropout.bench.lookup", "keras_dropout.bench.ledger.lookup", "models"),
        ("keras_dropout.bench.spaces", "keras_dropout.bench.tuning.spaces", "Space"),
        ("keras_dropout.bench.data", "keras_dropout.bench.data.dataset", "from_arrays"),
        ("keras_dropout.bench.data", "keras_dropout.bench.data.public_sets", "digits"),
    ],
)
def test_documented_paths_of_before_still_lead_there(old, new, name):
    assert getattr(importlib.import_module(old), name) is getattr(importlib.import_module(new), name)
