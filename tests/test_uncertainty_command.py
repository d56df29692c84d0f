"""`keras-dropout uncertainty` as its users meet it: trained files, ledgers with kept models, arrays, and bad input."""

import csv
import json
import math
import shutil
import sqlite3
import sys
from contextlib import closing

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from keras_dropout import cli, metrics, place, uncertainty
from keras_dropout.bench.statistics import Row, compare_family
from keras_dropout.bench.study.loading import as_seen_parts, kept_models, named_data

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the command runs on JAX by default")
METRICS = {"accuracy", "nll", "brier", "ece", "ece_debiased", "smooth_ece", "aurc"}


def command(monkeypatch, capsys, *arguments):
    """(exit status, stdout, stderr) of the command's own entry point in this process: it is the start of Keras that takes long."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # the command sets it: put back afterwards
    monkeypatch.setattr(sys, "argv", ["keras-dropout", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return (ended.value.code, *capsys.readouterr())


def net(shape, outputs, activation, loss, x, y, rate=0.3, epochs=5):
    keras.utils.set_random_seed(0)
    dropout = [L.Dropout(rate)] if rate else []
    model = keras.Sequential([keras.Input(shape), L.Flatten(), L.Dense(32, "relu"), *dropout, L.Dense(outputs, activation)])
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trained models and data for them, and a small study whose models are kept."""
    here = tmp_path_factory.mktemp("uncertainty")
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8).astype("float32")
    np.savez(here / "digits.npz", x=x, y=y)
    np.save(here / "x.npy", x)
    crossentropy = "sparse_categorical_crossentropy"
    model = net((8, 8), 10, "softmax", crossentropy, x, y)
    model.save(here / "model.keras")
    place(model, {}).save(here / "bare.keras")
    logits = keras.Model(model.inputs, (last := L.Dense(10))(model.layers[-2].output))
    last.set_weights(model.layers[-1].get_weights())
    logits.save(here / "logits.keras")
    x, y = load_diabetes(return_X_y=True)
    x, y = (x / x.std(0)).astype("float32"), ((y - y.mean()) / y.std()).astype("float32")
    np.savez(here / "diabetes.npz", x=x, y=y)
    net((10,), 1, None, "mse", x, y).save(here / "regression.keras")
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    np.savez(here / "cancer.npz", x=x, y=y)
    net((30,), 1, "sigmoid", "binary_crossentropy", x, y).save(here / "sigmoid.keras")
    (here / "text.db").write_text("this is no database at all")
    return here


@pytest.fixture(scope="module")
def ledgers(folder):
    """runs.db has the models of three seeds, lost.db those of none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KERAS_BACKEND", "jax")
        study = ("compare", "digits-mlp", "--variant", "last", "--epochs", "4", "--workers", "1", "--quiet", "--keep-weights")
        patch.setattr(sys, "argv", ["keras-dropout", *study, "--seeds", "3", "--ledger", "runs.db"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
    shutil.copy(folder / "runs.db", folder / "lost.db")
    with closing(sqlite3.connect(folder / "lost.db")) as connection:
        connection.execute("DELETE FROM models")
        connection.commit()
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """The document, and stderr, of `keras-dropout uncertainty … --json` in the folder."""
    monkeypatch.chdir(folder)

    def run(*arguments, samples=10):
        status, out, err = command(monkeypatch, capsys, "uncertainty", *arguments, "--samples", samples, "--json")
        assert status == 0, err
        document = json.loads(out)
        assert all(map(math.isfinite, numbers(document)))
        return document, err

    return run


def numbers(value):
    """All numbers in plain values."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return [value] if isinstance(value, (int, float)) else []
    return [number for each in value for number in numbers(each)]


def methods(document):
    return {each["method"]: each for each in document["methods"]}


def test_a_model_file(run, folder, monkeypatch, capsys):
    document, _ = run("model.keras", "--data", "digits.npz", "--temperature", "--moments")
    found = methods(document)
    assert list(found) == ["plain", "Monte-Carlo", "temperature", "moments"]
    parts = as_seen_parts(named_data("digits.npz", {})[0])
    x, y, _ = parts["test"]
    model = keras.models.load_model("model.keras")
    for method, p in {"plain": model.predict(x, verbose=0), "Monte-Carlo": uncertainty.predict(model, x, 10).mean}.items():
        assert set(found[method]["values"]) == METRICS
        assert found[method]["values"]["nll"] == pytest.approx([metrics.nll(p, y)], rel=1e-5)
        assert found[method]["mean"]["accuracy"] == metrics.accuracy(p, y)
    assert document["examples"] == len(y)
    assert document["notes"] == [
        f"What is fitted on the {len(parts['validation'].y)} validation examples holds only where they were not trained on."
    ]


def test_every_field_in_the_help_is_there(run, monkeypatch, capsys):
    text = " ".join(command(monkeypatch, capsys, "uncertainty", "--help")[1].split())
    fields = text.partition("The fields of --json: ")[2].partition(". ece_of_calibrated is")[0]
    inside = "methods (method, values by metric, mean, interval, ece_of_calibrated, milliseconds an example)"
    differences = "differences to plain (method, metric, difference, interval, p, p_adjusted, verdict)"
    assert inside in fields
    assert differences in fields
    names = fields.replace(inside, "methods").replace(differences, "differences").split(", ")
    document, _ = run("model.keras", "--data", "digits.npz")
    assert set(document) == set(names)
    assert {"method", "values", "mean", "interval", "ece_of_calibrated", "milliseconds"} == set(document["methods"][0])
    for each in document["methods"]:
        assert 0 < each["ece_of_calibrated"] < 0.2
    assert set(document["differences"][0]) == {"method", "metric", "difference", "interval", "p", "p_adjusted", "verdict"}
    assert document["notes"] == []


def test_a_ledger_gives_one_value_a_seed(ledgers, run):
    document, _ = run("runs.db", "--variant", "last", "--temperature")
    found = methods(document)
    assert document["seeds"] == [0, 1, 2]
    assert document["notes"] == []  # the study held its validation data out
    other, _ = run("runs.db", "--variant", "last", "--temperature", "--data", "digits.npz")
    assert "validation examples" in other["notes"][0]  # of which the study may have seen some
    models, _ = kept_models("runs.db", "last")
    test = as_seen_parts(named_data("digits-mlp", {})[0])["test"]
    for number, model in models.items():
        p = model.predict(test.x, verbose=0)
        assert found["plain"]["values"]["nll"][number] == pytest.approx(metrics.nll(p, test.y), rel=1e-5)
    family = {
        (each["method"], each["metric"]): Row(
            np.subtract(*(found[m]["values"][each["metric"]] for m in (each["method"], "plain"))), each["metric"] == "accuracy"
        )
        for each in document["differences"]
        if each["verdict"] is not None
    }
    expected = compare_family(family)
    assert {method for method, _ in family} == {"Monte-Carlo", "temperature"}
    for each in document["differences"]:
        if wanted := expected.get((each["method"], each["metric"])):
            assert (each["difference"], each["p"], each["p_adjusted"]) == (wanted.mean, wanted.p, wanted.p_adjusted)
            assert (each["interval"], each["verdict"]) == (list(wanted.interval), wanted.verdict)
    for method in ("plain", "Monte-Carlo"):
        assert found[f"ensemble, {method}"]["values"]["nll"][0] <= found[method]["mean"]["nll"]


def test_a_baseline_without_dropout_is_measured_as_it_is(ledgers, run, monkeypatch, capsys):
    document, _ = run("runs.db", "--variant", "none", "--data", "digits-mlp")
    assert [each["method"] for each in document["methods"]] == ["plain", "ensemble, plain"]
    assert "no figures of Monte-Carlo" in document["notes"][0]
    status, _, err = command(monkeypatch, capsys, "uncertainty", "runs.db", "--variant", "none", "-o", "none.csv")
    assert (status, "there is none in the model" in err) == (2, True)
    document, _ = run("runs.db", "--variant", "none", "--place", "last=0.2")
    assert "Monte-Carlo" in methods(document)


def test_dropout_put_in_and_its_rate_chosen(run, folder):
    document, _ = run("bare.keras", "--data", "digits.npz", "--place", "last=0.2", "--tune-rate", "brier", "-o", "tuned.csv")
    (chosen,) = (row for row in document["rates"] if row["chosen"])
    assert chosen["brier"] == min(row["brier"] for row in document["rates"])
    with open("tuned.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == document["examples"]
    # The figures are those of the chosen rate: so is their accuracy.
    y = as_seen_parts(named_data("digits.npz", {})[0])["test"].y
    right = np.mean([float(row["class"]) == answer for row, answer in zip(rows, y)])
    assert right == pytest.approx(methods(document)["Monte-Carlo"]["mean"]["accuracy"])


def test_other_data_and_shifts(run):
    document, _ = run("model.keras", "--data", "digits.npz", "--ood", "digits-mlp", "--shift", "rotation", "--shift", "noise")
    assert {row["data"] for row in document["ood"]} == {"digits-mlp"}
    accuracy = {(r["shift"], r["strength"]): r["accuracy"] for r in document["shifts"] if r["method"] == "plain"}
    assert len(accuracy) == 10
    means = [np.mean([accuracy[kind, strength] for kind in ("rotation", "noise")]) for strength in (1, 3, 5)]
    assert methods(document)["plain"]["mean"]["accuracy"] > means[0] > means[1] > means[2]


def test_a_regression(run, folder, monkeypatch, capsys):
    document, _ = run("regression.keras", "--data", "diabetes.npz", "-o", "values.csv")
    assert document["task"] == "regression"
    assert document["precisions"][0] > 0
    assert "validation examples" in document["notes"][0]
    with open("values.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == document["examples"]
    found = -np.mean([float(row["log_likelihood"]) for row in rows])
    assert methods(document)["Monte-Carlo"]["values"]["nll"] == pytest.approx([found], rel=1e-4)
    document, _ = run("regression.keras", "--data", "diabetes.npz", "--precision", "2.5")
    assert (document["precisions"], document["notes"]) == ([2.5], [])


def test_labels_and_logits(run):
    document, _ = run("sigmoid.keras", "--data", "cancer.npz", "--temperature")
    assert methods(document)["plain"]["mean"]["accuracy"] > 0.9
    plain, logits = (
        run(name, "--data", "digits.npz", *more)[0] for name, *more in (("model.keras",), ("logits.keras", "--logits"))
    )
    for one, other in zip(plain["methods"], logits["methods"], strict=True):
        assert one["mean"]["nll"] == pytest.approx(other["mean"]["nll"], rel=1e-4)


def test_a_row_for_each_example_and_seed(ledgers, monkeypatch, capsys):
    monkeypatch.chdir(ledgers)
    status, out, err = command(
        monkeypatch, capsys, "uncertainty", "runs.db", "--variant", "last", "--samples", 5, "-o", "seeds.csv"
    )
    assert status == 0, err
    assert err.splitlines()[-1] == "seeds.csv"
    assert "ensemble, Monte-Carlo" in out
    with open("seeds.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["example"]) for row in rows] == [(str(s), str(n)) for s in range(3) for n in range(360)]
    for row in rows:
        assert 0 <= float(row["mutual_information"]) <= float(row["entropy"]) <= math.log(10) + 1e-6


MODEL = ("model.keras", "--data", "digits.npz")
BAD = {
    "0 samples": ((*MODEL, "--samples", 0), "samples must be a whole number of at least 1"),
    "no dropout": (("bare.keras", "--data", "digits.npz"), '--place "last=0.2"'),
    "no data": (("model.keras",), "there are no data to measure the model on"),
    "no labels": (("model.keras", "--data", "x.npy"), "x.npy"),
    "images of another shape": (("model.keras", "--data", "diabetes.npz", "--task", "regression"), "(8, 8)"),
    "logits that are not called so": (("logits.keras", "--data", "digits.npz"), "--logits"),
    "unknown shift": ((*MODEL, "--shift", "fog"), "rotation"),
    "a shift of a table": (("sigmoid.keras", "--data", "cancer.npz", "--shift", "blur"), "images must be"),
    "a variant without a ledger": ((*MODEL, "--variant", "last"), "--variant is for a ledger"),
    "unknown variant": (("runs.db", "--variant", "lost"), "the variants none, last"),
    "no variant": (("runs.db",), "--variant is missing"),
    "a ledger without models": (("lost.db", "--variant", "last"), "--keep-weights"),
    "no ledger": (("text.db", "--variant", "last"), "not an SQLite file"),
    "no such ledger": (("nothing.db", "--variant", "last"), "nothing.db"),
    "unknown metric": ((*MODEL, "--tune-rate", "accuracy"), "unknown metric to tune the rate by 'accuracy'"),
    "other data of a regression": (("regression.keras", "--data", "diabetes.npz", "--shift", "blur"), "this is a regression"),
    "a regression among images": (("regression.keras", "--data", "diabetes.npz", "--ood", "digits-mlp"), "this is a regression"),
    "precision of classes": ((*MODEL, "--precision", 2), "for a regression"),
    "precision 0": ((*MODEL, "--precision", 0), "precision must be a number above 0"),
    "unknown masks": ((*MODEL, "--masks", "some"), "unknown masks 'some'"),
    "a negative seed": ((*MODEL, "--seed", -1), "seed must be a whole number"),
    "an output of another kind": ((*MODEL, "-o", "figures.txt"), "must be a .csv file"),
    "an output that is there": ((*MODEL, "-o", "there.csv"), "is there already"),
    "unknown data": (("model.keras", "--data", "digits"), "unknown recipe 'digits'"),
    "unknown site": ((*MODEL, "--place", "nowhere=0.2"), "unknown site 'nowhere'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_two_lines_and_exit_2(name, ledgers, monkeypatch, capsys):
    monkeypatch.chdir(ledgers)
    (ledgers / "there.csv").touch()
    before = {path: path.stat().st_mtime_ns for path in ledgers.iterdir()}
    arguments, words = BAD[name]
    status, out, err = command(monkeypatch, capsys, "uncertainty", *arguments)
    assert status == 2, err
    assert out == ""
    assert len(err.splitlines()) == 2, err
    assert err.startswith("keras-dropout: ")
    assert words in err
    assert {path: path.stat().st_mtime_ns for path in ledgers.iterdir()} == before
