"""What planned seeds can show, from runs in the ledger: the spread is theirs, the rule is the verdict's."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from made_up import made_up_execution

from keras_dropout.bench import power
from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.execution import timing
from keras_dropout.bench.forecast import forecast, forecast_sentences
from keras_dropout.bench.ledger.looks import Asked
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.commands import studies

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the plan is one of JAX")


def test_the_spread_of_a_like_study_says_what_the_seeds_show(tmp_path, monkeypatch, capsys):
    def planned(**settings):
        return make_plan("digits-mlp", ledger=tmp_path / "r.db", engine="compiled", **settings)

    plan = planned(epochs=3, seeds=8, variants=["hidden", "last"], power=0.5)
    assert forecast(plan) is None
    assert "--seeds 2" in forecast_sentences(8, None)[0]

    losses = {("none", seed): 1.0 for seed in range(4)} | dict(
        zip((("hidden", seed) for seed in range(4)), np.random.default_rng(0).normal(1, 0.3, 4))
    )
    made_up_execution(
        monkeypatch, lambda run: {"test_loss": losses[run.variant.name, run.seed], "test_accuracy": 0.5 + 0.1 * run.seed}
    )
    carry_out(planned(epochs=1, seeds=4, variants=["hidden"]), quiet=True)
    carry_out(planned(epochs=1, seeds=3, variants=["hidden"]), quiet=True)
    carry_out(planned(epochs=1, seeds=2, variants=["hidden"], power=0.3), quiet=True)  # later, but of fewer pairs
    kept = retrieve(tmp_path / "r.db")
    assert kept.power == kept.document()["study"]["power"] == kept.figures("test_loss")["hidden"]["wanted_difference"] == 0.3

    found = forecast(plan)
    sd = np.std([losses["hidden", seed] for seed in range(4)], ddof=1)
    ends = power.sd_interval(sd, 4)
    assert (found["metric"], found["pairs"], found["variants"], found["rows"]) == ("test_loss", 4, 1, 4)
    assert found["sd"] == pytest.approx(sd)
    assert found["detectable_difference"] == pytest.approx(power.detectable_difference(sd, 8, 4))
    assert found["detectable_difference_interval"] == pytest.approx([power.detectable_difference(end, 8, 4) for end in ends])
    assert found["pairs_needed"] == power.pairs_needed(sd, 0.5, 4)
    assert found["pairs_needed_interval"] == [power.pairs_needed(end, 0.5, 4) for end in ends]
    shows, takes = forecast_sentences(8, found)
    assert f"8 seeds show a test loss difference of {found['detectable_difference']:.4f}" in shows
    assert "4 pairs of 1 epoch(s) in study 1" in shows
    assert f"0.5 takes {found['pairs_needed']} seeds" in takes

    monkeypatch.setattr(timing, "estimate_seconds", lambda plan, todo: 1.0)
    studies._print_plan(plan, Asked(), as_json=True)
    assert json.loads(capsys.readouterr().out)["power"] == found
    studies._print_plan(plan, Asked(), as_json=False)
    assert capsys.readouterr().out.endswith(f"{shows}\n{takes}\n")

    assert forecast(plan, 5)["rows"] == 10
    carry_out(planned(epochs=3, seeds=2, variants=["hidden"]), quiet=True)  # of as many epochs as the plan
    assert (forecast(plan)["epochs"], forecast(plan)["pairs"]) == (3, 2)
    few = forecast(planned(epochs=3, seeds=3, variants=["hidden"]))
    assert few["detectable_difference"] is few["pairs_needed"] is few["detectable_difference_interval"] is None
    assert "cannot show a difference" in forecast_sentences(3, few)[0]

    other = dataclasses.replace(plan.study, data=dataclasses.replace(plan.study.data, fingerprint="other"))
    assert forecast(dataclasses.replace(plan, study=other)) is None
