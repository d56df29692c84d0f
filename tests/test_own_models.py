"""The commands on the user's own model and data: each kind of data, study files, the check, and what is refused."""

import contextlib
import csv
import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_dropout import cli
from keras_dropout.bench.study import study_file

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command runs on JAX by default")

MODELS = '''
import keras
from keras import layers as L

@keras.saving.register_keras_serializable("own")
class Scale(L.Layer):
    """A layer of the user's own."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x * self.scale

def finish(model, loss="sparse_categorical_crossentropy", metrics=("accuracy",)):
    model.compile("adam", loss, metrics=list(metrics))
    return model

def classifier(input_shape, outputs):
    layers = [L.Flatten(), L.Dense(8, "relu", name="first"), Scale(), L.Dense(8, "relu", name="second")]
    return finish(keras.Sequential([keras.Input(input_shape), *layers, L.Dense(outputs, "softmax")]))

def regression(input_shape, outputs):
    layers = [L.Dense(8, "relu"), L.Dense(outputs)]
    return finish(keras.Sequential([keras.Input(input_shape), *layers]), "mse", ["mae"])

def convnet(input_shape, outputs):
    layers = [L.RandomFlip(seed=1), L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(8, "relu")]
    return finish(keras.Sequential([keras.Input(input_shape), *layers, L.Dense(outputs, "softmax")]))

def text(input_shape, outputs, vocabulary):
    layers = [L.Embedding(vocabulary, 4), L.GlobalAveragePooling1D(), L.Dense(8, "relu")]
    return finish(keras.Sequential([keras.Input(input_shape, dtype="int32"), *layers, L.Dense(outputs, "softmax")]))

def two_ways():
    wide, deep = keras.Input((3,), name="wide"), keras.Input((2,), name="deep")
    x = L.Concatenate()([L.Dense(8, "relu", name="left")(wide), L.Dense(8, "relu", name="right")(deep)])
    outputs = {"kind": L.Dense(2, "softmax", name="kind")(x), "size": L.Dense(1, name="size")(x)}
    return finish(keras.Model([wide, deep], outputs), {"kind": "sparse_categorical_crossentropy", "size": "mse"}, ())

def bare(input_shape):
    return finish(keras.Sequential([keras.Input(input_shape), L.Flatten(), L.Softmax()]))

def not_compiled(input_shape):
    return keras.Sequential([keras.Input(input_shape), L.Dense(3)])

def asks(secret):
    return secret

def no_model():
    return 3

def breaks():
    raise RuntimeError("no luck today")

def mistaken(input_shape):
    layers = [L.Dense(8, "relu"), L.Dropout(0.5), L.BatchNormalization(name="norm"), L.Dense(3, "softmax")]
    return finish(keras.Sequential([keras.Input(input_shape), *layers]))

def data():
    import numpy as np
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32") + y[:, None]
    return (x, y), (x[:20], y[:20])

def many():
    import numpy as np
    wide, deep = np.random.default_rng(0).normal(size=(60, 3)), np.random.default_rng(1).normal(size=(60, 2))
    return {"x_wide": wide, "x_deep": deep, "y_kind": np.arange(60) % 2, "y_size": wide[:, 0]}
'''


def command(monkeypatch, capsys, *arguments):
    """(exit status, stdout, stderr) of the command's own entry point in this process: it is the start of Keras that takes long."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # the command sets it: put back afterwards
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return (ended.value.code, *capsys.readouterr())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODELS)
    return tmp_path


def table(path, n=60, label=lambda k: "abc"[k % 3], **columns):
    random = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["size", "colour", "label", *columns])
        for k in range(n):
            size = "" if k % 10 == 4 else f"{random.normal() + k % 3:.3f}"
            rows.writerow([size, ["red", "blue", ""][random.integers(3)], label(k), *(column(k) for column in columns.values())])
    return path


def pictures(path):
    """Grey squares, the brighter the later the class, as a tar of class folders."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for k in range(60):
            pixels = random.integers(0, 80, (8, 8, 3)) + 80 * (k % 3)
            content = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(content, "png")
            found = tarfile.TarInfo(f"{'abc'[k % 3]}/{k}.png")
            found.size = content.tell()
            content.seek(0)
            archive.addfile(found, content)


def make_data(here):
    table(here / "table.csv", who=lambda k: k // 4, when=lambda k: f"2020-01-{1 + k % 28:02d}", often=lambda k: 1 + k % 2)
    table(here / "prices.csv", label=lambda k: 0.5 * k)
    pictures(here / "pictures.tar.gz")
    lines = (f"{'good' if k % 2 else 'bad'}\ta film that is {['dull', 'great'][k % 2]} {k}\n" for k in range(60))
    (here / "lines.txt").write_text("".join(lines))
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32") + y[:, None]
    np.savez(here / "arrays.npz", x=x, y=y)
    np.save(here / "x.npy", x)
    np.save(here / "y.npy", y)


EACH_KIND = {
    "csv": ("classifier", "--data", "table.csv", "--target", "label"),
    "csv by group": ("classifier", "--data", "table.csv", "--target", "label", "--group", "who", "--class-weight", "balanced"),
    "csv by time, weighted": ("classifier", "--data", "table.csv", "--target", "label", "--time", "when", "--weight", "often"),
    "csv to be predicted": ("regression", "--data", "prices.csv", "--target", "label", "--task", "regression"),
    "csv with two targets": ("regression", "--data", "table.csv", "--target", "who", "--target", "often"),
    "pictures": ("convnet", "--data", "pictures.tar.gz", "--divide-by", "255", "--image-size", "8x8"),
    "lines": ("text", "--data", "lines.txt", "--vocabulary", "50", "--length", "8"),
    "npz": ("classifier", "--data", "arrays.npz", "--early-stopping", "1", "--class-weight", "0=1, 1=2"),
    "npy": ("classifier", "--data", "x.npy,y.npy", "--from-weights", "--test-split", "0.3"),
    "a function": ("classifier", "--data", "model.py:data"),
    "a function, two inputs and outputs": ("two_ways", "--data", "model.py:many"),
}


FIRST = ("csv", "csv by time, weighted", "pictures", "lines", "npz", "a function, two inputs and outputs")


@pytest.mark.parametrize("kind", [kind if kind in FIRST else pytest.param(kind, marks=pytest.mark.slow) for kind in EACH_KIND])
def test_each_kind_of_data(kind, here, monkeypatch, capsys):
    """The whole way: read, divided, one variant trained beside the baseline, compared."""
    make_data(here)
    model, *options = EACH_KIND[kind]
    settings = ("--variant", "some=hidden=0.2", "--seeds", 1, "--epochs", 2, "--batch-size", 16, "--workers", 1, "--json")
    engine = () if kind == "csv" else ("--engine", "reference" if kind == "npy" else "compiled")
    status, out, err = command(monkeypatch, capsys, "compare", f"model.py:{model}", *options, *settings, *engine)
    assert status == 0, err
    document = json.loads(out)
    assert [run["status"] for variant in document["variants"] for run in variant["runs"]] == ["done", "done"]
    assert document["study"]["target"] == f"model.py:{model}"
    assert "validation" in document["study"]["data"]["notes"][0]
    assert document["study"]["data"]["notes"][0] in err
    assert f"engine {document['study']['engine']}: " in err
    assert str(here) not in out.replace(json.dumps(str(here)), "")


def test_a_saved_model_and_the_files_settings(here, monkeypatch, capsys):
    """A .keras file, with what the study file says; the command line counts before it."""
    make_data(here)
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu", name="d"), L.Dropout(0.5), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(here / "model.keras")
    status, out, err = command(monkeypatch, capsys, "init", "model.keras", "--data", "arrays.npz")
    assert (status, out) == (0, "study.toml\n"), err
    assert "keras-dropout compare --study study.toml" in err
    settings = study_file.read("study.toml")
    assert (settings["target"], settings["data"]) == ("model.keras", "arrays.npz")
    with open("study.toml", "a") as file:
        file.write('\n[variants.mine]\nd = "linear(0.4, 0.0)"\n')
    with open("study.toml") as file:
        text = file.read()
    with open("study.toml", "w") as file:
        file.write('seeds = 3\nepochs = 1\nengine = "reference"\nbatch_size = 20\nreport = "report.html"\n' + text)
    status, out, err = command(monkeypatch, capsys, "compare", "--study", "study.toml", "--seeds", 1, "--json", "--quiet")
    assert (status, err) == (0, "Report: report.html\n")
    document = json.loads(out)
    assert document["study"]["seeds"] == [0]
    assert {v["name"]: v["schedule"] for v in document["variants"]}["mine"] == {"d": "linear(0.4, 0.0)"}
    page = (here / "report.html").read_text()
    assert document["study"]["data"]["notes"][0] in page
    assert "engine reference: asked for" in page
    assert "linear(0.4, 0.0)" in page
    status, _, err = command(monkeypatch, capsys, "init", "model.keras", "--data", "arrays.npz")
    assert status == 2
    assert err.startswith("keras-dropout: study.toml is there already.")


def test_init_keeps_what_was_said_of_the_data(here, monkeypatch, capsys):
    make_data(here)
    options = ("--data", "table.csv", "--target", "who", "--target", "often")
    status, _, err = command(monkeypatch, capsys, "init", "model.py:regression", *options, "-o", "a.toml")
    assert status == 0, err
    assert study_file.read("a.toml")["data_options"] == {"target": ("who", "often")}


def test_check_runs_a_model_and_says_whether_its_dropout_drops(here, monkeypatch, capsys):
    make_data(here)
    status, out, err = command(monkeypatch, capsys, "check", "model.py:classifier", "--data", "arrays.npz", "--run", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["mistakes"] == []
    assert all(row["low"] <= row["rate"] <= row["high"] for row in found["layers"])
    Path("wrong.py").write_text(WRONG)
    status, out, err = command(monkeypatch, capsys, "check", "wrong.py:model", "--run")
    assert status == 1, err
    assert "dropout-mean" in out
    assert "drop" in out.splitlines()[1]


WRONG = """
import keras

class Drop(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.drop_rate, self.seeds = 0.5, keras.random.SeedGenerator()

    def call(self, x, training=None):
        kept = keras.random.uniform(keras.ops.shape(x), seed=self.seeds) >= self.drop_rate
        return x * keras.ops.cast(kept, x.dtype) if training else x

class OwnDropout(Drop):
    pass

def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), OwnDropout(name="drop"), keras.layers.Dense(1)])
"""


def test_check_finds_mistakes_and_measures_them_on_the_data(here, monkeypatch, capsys):
    make_data(here)
    status, out, err = command(monkeypatch, capsys, "check", "model.py:mistaken", "--data", "arrays.npz", "--json")
    assert status == 1, err
    (found,) = json.loads(out)
    assert found["rule"] == "dropout-before-batch-normalisation"
    assert set(found) == {"rule", "layer", "what", "evidence", "source", "mend"}
    status, out, _ = command(monkeypatch, capsys, "check", "model.py:mistaken", "--data", "x.npy,y.npy")
    assert status == 1
    assert "Fix: " in out
    status, out, err = command(monkeypatch, capsys, "check", "model.py:classifier", "--data", "arrays.npz")
    assert status == 0, err
    assert out.startswith("no known mistake with dropout found\n\nNothing like this was studied in the atlas: the data are rows")
    assert command(monkeypatch, capsys, "check", "digits-mlp", "--json")[:2] == (0, "[]\n")


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with files that can be used and files that cannot."""
    here = tmp_path_factory.mktemp("broken")
    with contextlib.chdir(here):
        make_broken(here)
    return here


def make_broken(here):
    (here / "model.py").write_text(MODELS)
    make_data(here)
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(here / "good.keras")
    (here / "half.keras").write_bytes((here / "good.keras").read_bytes()[:2000])
    runs = L.Lambda(lambda x: __import__("pathlib").Path("ran").write_text("") or x)
    model = keras.Sequential([keras.Input((4,)), runs, L.Dense(3)])
    model.compile("sgd", "mse")
    model.save(here / "lambda.keras")
    (here / "ran").unlink()  # by the layer that was made here
    with zipfile.ZipFile(here / "good.keras") as old, zipfile.ZipFile(here / "function.keras", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1]["config"]["activation"] = {
                    "class_name": "function",
                    "config": "system",
                    "module": "os",
                    "registered_name": "system",
                }
                content = json.dumps(config)
            new.writestr(name, content)

    class Runs:
        def __reduce__(self):
            return (open, ("ran", "w"))

    (here / "pickle.keras").write_bytes(pickle.dumps(Runs()))
    x, y = np.random.default_rng(0).normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
    np.savez(here / "pickled.npz", x=np.array([Runs()] * 60, object), y=y)
    np.savez(here / "nan.npz", x=np.where(np.arange(240).reshape(60, 4) == 7, np.nan, x), y=y)
    np.savez(here / "inf.npz", x=x, y=np.where(np.arange(60) == 7, np.inf, 1.0))
    np.savez(here / "one.npz", x=x, y=np.zeros(60, int))
    np.savez(here / "constant.npz", x=x, y=np.full(60, 2.5))
    np.savez(here / "gap.npz", x=x, y=2 * y)
    np.savez(here / "four.npz", x=x, y=np.arange(60) % 4)
    np.savez(here / "wide.npz", x=np.zeros((60, 7)), y=y)
    np.savez(here / "few.npz", x=x[:12], y=y[:12])
    table(here / "same.csv", label=lambda k: "a")
    (here / "empty.csv").write_text("")
    (here / "notes.docx").write_text("no data")
    (here / "wrong.py").write_text("import no_such_module_at_all")
    (here / "study.toml").write_text("sedes = 3")


def content(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


OK = ("--data", "arrays.npz")
TABLE = ("compare", "model.py:classifier", "--data", "table.csv")
PRICES = ("compare", "model.py:regression", "--data", "prices.csv", "--target", "label", "--task", "regression")
VARIANT = ("compare", "model.py:classifier", *OK, "--variant")
BAD = {
    "model file truncated": (("sites", "half.keras"), "is broken or no Keras model"),
    "a pickle as a model": (("sites", "pickle.keras"), "is broken or no Keras model"),
    "a Lambda layer": (("compare", "lambda.keras", *OK), "holds code (a Lambda layer), which is not run"),
    "a function of the system": (("check", "function.keras"), "function.keras"),
    "no such model file": (("compare", "nothing.keras", *OK), "does not exist"),
    "no such file of functions": (("compare", "nothing.py:build", *OK), "is no Python file that exists"),
    "no such function": (("compare", "model.py:clasifier", *OK), "Did you mean classifier?"),
    "a file that cannot be run": (("compare", "wrong.py:build", *OK), "wrong.py cannot be run: ModuleNotFoundError"),
    "a function that returns no model": (("compare", "model.py:no_model", *OK), "returned int, not a Keras model"),
    "a function that breaks": (("compare", "model.py:breaks", *OK), "failed: RuntimeError: no luck today"),
    "a function that asks too much": (("compare", "model.py:asks", *OK), "needs the argument(s) secret"),
    "a model without a place": (("compare", "model.py:bare", *OK), "no place for dropout"),
    "a model that is not compiled": (("compare", "model.py:not_compiled", *OK), "is not compiled"),
    "no data": (("compare", "good.keras"), "needs data"),
    "data for a recipe": (("compare", "digits-mlp", *OK), "has data of its own"),
    "no such data": (("compare", "model.py:classifier", "--data", "nothing.npz"), "nothing.npz does not exist"),
    "an ending that is not known": (("compare", "model.py:classifier", "--data", "notes.docx"), "the ending .docx is not known"),
    "an empty table": (("compare", "model.py:classifier", "--data", "empty.csv", "--target", "label"), "empty.csv"),
    "no target": (("compare", "model.py:classifier", "--data", "table.csv"), "no target column is named"),
    "missing target column": ((*TABLE, "--target", "lable"), "Did you mean 'label'?"),
    "a pickle in the data": (("compare", "model.py:classifier", "--data", "pickled.npz"), "holds Python objects"),
    "nan": (("compare", "model.py:classifier", "--data", "nan.npz"), "NaN or infinite"),
    "inf": (("compare", "model.py:classifier", "--data", "inf.npz"), "NaN or infinite"),
    "one class": (("compare", "model.py:classifier", "--data", "one.npz"), "all examples have the label 0"),
    "one class in a table": (("compare", "model.py:classifier", "--data", "same.csv", "--target", "label"), "label"),
    "a constant": (("compare", "model.py:regression", "--data", "constant.npz"), "is 2.5 for all examples"),
    "labels with a gap": (("compare", "model.py:classifier", "--data", "gap.npz"), "0, 2, 4"),
    "labels out of range": (("compare", "model.py:two_ways", "--data", "four.npz"), "the model takes the input(s)"),
    "labels beyond the units": (("compare", "good.keras", "--data", "four.npz"), "from 0 to 2, one for each unit"),
    "shapes that do not fit": (("compare", "good.keras", "--data", "wide.npz"), "takes the shape (None, 4)"),
    "fewer rows than a batch": (("compare", "model.py:classifier", "--data", "few.npz"), "fewer than the batch size of 32"),
    "columns of arrays": (("compare", "model.py:classifier", *OK, "--target", "y"), "has no columns"),
    "options without data": (("check", "good.keras", "--target", "y"), "there are none"),
    "a share that is none": (("compare", "model.py:classifier", *OK, "--test-split", "1.5"), "test_split must lie between 0 and 1"),
    "a scale of zero": (("compare", "model.py:classifier", *OK, "--divide-by", "0"), "divide_by"),
    "texts without words": (("compare", "model.py:text", "--data", "lines.txt", "--length", "0"), "length"),
    "a size that is none": (("compare", "model.py:classifier", *OK, "--image-size", "big"), "HEIGHTxWIDTH"),
    "class weights of nothing": (("compare", "model.py:classifier", *OK, "--class-weight", "a=1"), "must map class numbers"),
    "a class that is not there": (("compare", "model.py:classifier", *OK, "--class-weight", "7=1"), "names the class 7"),
    "class weights in a regression": (
        (*PRICES, "--class-weight", "balanced"),
        "for classification",
    ),
    "no patience": (("compare", "model.py:classifier", *OK, "--early-stopping", "0"), "early stopping"),
    "weights of a recipe": (("compare", "digits-mlp", "--from-weights"), "no weights of its own"),
    "an unknown setting in a study file": (("compare", "--study", "study.toml"), "Did you mean seeds?"),
    "no such study file": (("compare", "--study", "nothing.toml"), "does not exist"),
    "nothing to compare": (("compare",), "there is no target"),
    "a site that is none": ((*VARIANT, "a=frist=0.2"), "unknown site 'frist'"),
    "a method that fits nowhere": ((*VARIANT, "a=hidden=SpatialDropout2D(0.2)"), "fits no site"),
    "a schedule that is none": ((*VARIANT, "a=hidden=lineal(0.5, 0)"), "lineal"),
    "a schedule in a model": (("place", "good.keras", "--put", "all=linear(0.5, 0)", "-o", "new.keras"), "belongs to a training"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_two_lines_and_exit_2(name, broken, monkeypatch, capsys):
    monkeypatch.chdir(broken)
    before = content(broken)
    arguments, words = BAD[name]
    status, out, err = command(monkeypatch, capsys, *arguments)
    assert status == 2, err
    assert out == ""
    assert len(err.splitlines()) == 2, err
    assert err.startswith("keras-dropout: ")
    assert words in err
    assert content(broken) == before


def test_refused_in_a_process_of_its_own(broken):
    arguments, words = BAD["a Lambda layer"]
    done = subprocess.run([sys.executable, "-m", "keras_dropout.cli", *arguments], cwd=broken, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (broken / "ran").exists()
