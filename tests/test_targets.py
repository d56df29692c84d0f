"""Models and functions that a command names; broken files, and files that hold code."""

import pickle
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_dropout import BadInput
from keras_dropout.models.targets import import_file, is_function, load_function, load_model

L = keras.layers
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
CODE = """
import keras
from neighbour import UNITS

def good(input_shape=(4,), outputs=3):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(UNITS), keras.layers.Dense(outputs)])

def needs(input_shape):
    return good(input_shape)

def needs_more(depth):
    return None

def no_model():
    return 3

def fails():
    raise KeyError("lost")
"""


@pytest.fixture
def folder(tmp_path):
    """Good and bad files."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(2, name="two")])
    model.save(tmp_path / "good.keras")
    whole = (tmp_path / "good.keras").read_bytes()
    (tmp_path / "truncated.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pickle.keras").write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    (tmp_path / "weights.h5").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme", "not a model")
    keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: 2 * x)]).save(tmp_path / "lambda.keras")
    keras.Sequential([keras.Input((4,)), Unknown()]).save(tmp_path / "known.keras")
    with zipfile.ZipFile(tmp_path / "known.keras") as old, zipfile.ZipFile(tmp_path / "unknown.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"Unknown"', b'"Elsewhere"'))
    with zipfile.ZipFile(tmp_path / "keras2.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
    (tmp_path / "old.keras").write_bytes(HDF5)  # as Keras 2 wrote that name before 2.12
    (tmp_path / "old.h5").write_bytes(HDF5)
    (tmp_path / "old.weights.h5").write_bytes(HDF5)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "folder.keras").mkdir()
    with zipfile.ZipFile(tmp_path / "good.keras") as good, zipfile.ZipFile(tmp_path / "newer.keras", "w") as newer:
        for name in good.namelist():
            content = good.read(name)
            if name == "metadata.json":
                content = content.replace(keras.__version__.encode(), b"3.999.0")
            newer.writestr(name, content.replace(b'"Dense"', b'"Denser"'))
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "neighbour.py").write_text("UNITS = 7\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    return tmp_path


class Unknown(L.Layer):
    pass


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_of_a_model(folder):
    assert load_model(folder / "good.keras").layers[0].name == "two"


def test_a_function_gets_what_it_asks_for(folder):
    target = f"{folder}/code.py:good"
    assert load_model(target).output_shape == (None, 3)
    assert load_model(target, input_shape=(9,), outputs=5, unasked=1).input_shape == (None, 9)
    assert load_model(f"{folder}/code.py:needs", input_shape=(9,)).layers[0].units == 7
    assert load_function(target) is load_function(target)  # the file is run once


def test_a_function_of_a_module():
    from keras_dropout.bench.study import recipes

    assert load_function("keras_dropout.bench.study.recipes:find") is recipes.find


def test_the_name_of_a_file_as_a_module_does_not_depend_on_its_folder(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "code.py").write_text("WHERE = 'sub'\n")
    one, two = import_file(folder / "code.py"), import_file(folder / "sub" / "code.py")
    assert one.__name__ == two.__name__
    assert two.WHERE == "sub"


@pytest.mark.parametrize("broken", ["1 / 0", "from keras_dropout.errors import refuse\nrefuse('no', 'mend it')"])
def test_a_file_that_fails_is_run_again_once_it_is_mended(broken, tmp_path):
    file = tmp_path / "half.py"
    file.write_text(f"first = 1\n{broken}\n")
    with pytest.raises(BadInput):
        import_file(file)
    file.write_text("def second():\n    return 'whole'\n")
    assert load_function(f"{file}:second")() == "whole"


@pytest.mark.parametrize(
    ("target", "expected"),
    [("a.py:f", True), ("m.n:f", True), ("a.keras", False), ("digits-mlp", False), (":f", False), ("a:", False)],
)
def test_what_is_a_function(target, expected):
    assert is_function(target) is expected


REFUSED = {
    "none.keras": "does not exist",
    "weights.h5": "is not a .keras file",
    "truncated.keras": "broken or no Keras model",
    "pickle.keras": "broken or no Keras model",
    "other.keras": "cannot be loaded",
    "lambda.keras": "holds code (a Lambda layer), which is not run",
    "unknown.keras": "needs a class that is not known here: Elsewhere",
    "keras2.keras": "was saved by Keras 2.15.0",
    "old.keras": "is an HDF5 file, as Keras 2 wrote it",
    "old.h5": "is an HDF5 file, not a .keras file",
    "old.weights.h5": "holds weights without a model",
    "saved": "is a SavedModel of Keras 2",
    "folder.keras": "cannot be read: Is a directory",
    "newer.keras": "cannot be loaded: ValueError",
    "code.py:god": "has no function 'god'",
    "code.py:needs": "needs the argument(s) input_shape",
    "code.py:needs_more": "needs the argument(s) depth",
    "code.py:no_model": "returned int, not a Keras model",
    "code.py:fails": "failed: KeyError: 'lost'",
    "broken.py:f": "broken.py cannot be run: SyntaxError",
    "none.py:f": "is no Python file that exists",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_refused_and_not_run(name, folder):
    with pytest.raises(BadInput) as caught:
        load_model(folder / name)
    assert REFUSED[name] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert not (folder / "exploded").exists()


def test_a_module_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="'no_such_module' cannot be imported"):
        load_model("no_such_module:f")


def test_the_way_out_of_an_hdf5_file_works(folder, monkeypatch):
    """The steps that the refusal names; Keras 3 does not load a file whole that was compiled with a loss by its name."""
    monkeypatch.chdir(folder)
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    model.compile("sgd", "mse")
    model.save("mine.h5")
    with pytest.raises(BadInput) as caught:
        load_model("mine.h5")
    first, second = re.findall(r"keras\.models\.\S+ .*?\)|model\.save\(.*?\)", str(caught.value))
    again = eval(first)
    again.compile("sgd", "mse")
    eval(second, {"model": again})
    np.testing.assert_array_equal(load_model("mine.keras").get_weights()[0], model.get_weights()[0])


def test_a_file_of_another_version_names_that_version(folder):
    with pytest.raises(BadInput, match=r"Keras 3\.999\.0 saved it; here is .*: pip install keras==3\.999\.0\."):
        load_model(folder / "newer.keras")


def test_a_model_of_keras_2_names_the_program_that_reads_it(folder):
    for name in ("keras2.keras", "saved"):
        with pytest.raises(BadInput) as caught:
            load_model(folder / name)
        _, fix = str(caught.value).splitlines()
        path, hdf5 = str(folder / name), str(folder / f"{Path(name).stem}.h5")
        assert f'tf_keras.models.load_model("{path}").save("{hdf5}"); keras.models.load_model("{hdf5}", compile=False)' in fix


def test_a_file_in_hdf5_is_loaded_from_where_it_is(folder):
    with pytest.raises(BadInput) as caught:
        load_model(folder / "old.h5")
    assert f'keras.models.load_model("{folder}/old.h5", compile=False)' in str(caught.value)
    assert f'model.save("{folder}/old.keras")' in str(caught.value)
