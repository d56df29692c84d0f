"""Studies whose data are divided anew for each seed: runs, keys, training, what is computed of them, and what is said."""

import contextlib
import dataclasses
import json
import sqlite3

import keras
import numpy as np
import pytest
import scipy.stats
from made_up import made_up_execution
from typer.testing import CliRunner

from keras_dropout.bench import power
from keras_dropout.bench.compare import carry_out, compare, make_plan
from keras_dropout.bench.data import files
from keras_dropout.bench.data.divisions import of_arrays
from keras_dropout.bench.execution import scheduler, timing
from keras_dropout.bench.forecast import forecast, forecast_sentences
from keras_dropout.bench.ledger import lookup
from keras_dropout.bench.ledger.looks import Asked
from keras_dropout.bench.ledger.lookup import examples
from keras_dropout.bench.records import Result
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.study import loading
from keras_dropout.bench.study.planning import plan_study
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.cli import app
from keras_dropout.commands import studies
from keras_dropout.errors import BadInput

L = keras.layers
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="studies start their own processes")
_rng = np.random.default_rng(0)
Y = np.arange(120) % 3
X = (_rng.normal(size=(120, 4)) + Y[:, None]).astype("float32")


def model():
    made = keras.Sequential([keras.Input((4,)), L.Dense(6, "relu"), L.Dense(3, "softmax")], name="small")
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def planned(tmp_path, resample_split=True, data=(X, Y), **settings):
    settings = {"seeds": 3, "epochs": 1, "batch_size": 16, "engine": "compiled", "variants": ["hidden"]} | settings
    return make_plan(model(), data, ledger=tmp_path / "r.db", resample_split=resample_split, **settings)


def of_seed(study, seed):
    return {run.key for run in study.runs() if run.seed == seed}


def as_data(document):
    return json.loads(json.dumps(document, allow_nan=False))


def test_each_run_is_known_by_its_own_division(tmp_path):
    study, plain = planned(tmp_path).study, planned(tmp_path, False).study
    facts = [study.data_of(seed).fingerprint for seed in study.seeds]
    assert len(set(facts)) == 3
    for seed in study.seeds:
        for variant in study.variants:
            assert study.deciding(variant, seed)["data"] == study.data_of(seed).fingerprint  # variants of a seed share it
            assert study.fixed_key(variant, seed) == plain.key(variant, seed)
    assert of_seed(study, 0) == of_seed(plain, 0), "the runs of the usual division are not those of the plain study"
    assert not {run.key for run in study.runs()} & (of_seed(plain, 1) | of_seed(plain, 2))
    assert study.data == plain.data
    assert plain.document().keys() == study.document().keys() - {"divisions", "fixed_keys"}


def test_a_division_given_as_data_has_the_same_runs(tmp_path):
    """Nothing but the division itself decides a run."""
    study = planned(tmp_path).study
    data, _ = of_arrays((X, Y)).of(2)
    assert of_seed(planned(tmp_path, False, data).study, 2) == of_seed(study, 2)


def test_the_digits_are_pooled_and_seed_0_is_the_plain_study():
    plan = plan_study("digits-mlp", resample_split=True, seeds=3)
    assert of_seed(plan.study, 0) == of_seed(plan_study("digits-mlp", seeds=3).study, 0)
    whole = {np.asarray(x).tobytes() for part in plan.data.parts("held-out").values() for x in part.x}
    for seed in (1, 2):
        parts = plan.data_of(seed).parts("held-out")
        assert [len(part.y) for part in parts.values()] == [1237, 200, 360]
        assert {np.asarray(x).tobytes() for part in parts.values() for x in part.x} == whole
        assert not {x.tobytes() for x in parts["train"].x} & {x.tobytes() for x in parts["test"].x}
    assert "all examples together, by class, at random" in plan.notes[0]


@pytest.mark.parametrize("engine", ["compiled", "reference", "stacked"])
def test_a_worker_goes_on_with_another_division_as_if_it_had_begun_with_it(engine, tmp_path):
    plan = planned(tmp_path, engine=engine, epochs=2, samples=3)
    runs = {run.seed: run for run in plan.study.runs() if run.variant.name == "hidden"}

    def parts(seed):
        return plan.data_of(seed).parts("held-out")

    one = Trainer(plan.study, parts(0), 1.0)
    first = one.train(runs[0])
    one.hold(parts(1))
    changed = one.train(runs[1])
    fresh = Trainer(plan.study, parts(1), 1.0).train(runs[1])
    assert changed.status == "done"
    assert changed.metrics == fresh.metrics
    assert np.array_equal(changed.test_losses, fresh.test_losses)
    assert changed.metrics != first.metrics
    one.hold(parts(0))
    assert one.train(runs[0]).metrics == first.metrics


def test_a_task_has_runs_of_one_division_only(tmp_path):
    """A stack of runs trains on one division; without new divisions it takes runs of all seeds."""
    runs = planned(tmp_path).study.runs()
    waiting = scheduler._Queue(runs)
    taken = []
    while waiting:
        taken.append(waiting.take_together(4, one_seed=True))
    assert [[run.seed for run in each] for each in taken] == [[0, 0], [1, 1], [2, 2]]
    assert sorted(run.key for each in taken for run in each) == sorted(run.key for run in runs)
    assert [run.seed for run in scheduler._Queue(runs).take_together(4, one_seed=False)] == [0, 0, 1, 1]


def test_the_stacked_engine_trains_each_seed_on_its_own_division(tmp_path):
    settings = _settings(tmp_path, engine="stacked", seeds=2)
    found = compare(model(), (X, Y), quiet=True, **settings)
    plan = planned(tmp_path, engine="stacked", seeds=2)
    for run in plan.study.runs():
        expected = Trainer(plan.study, plan.data_of(run.seed).parts("held-out"), 1.0).train(run)
        assert found.results[run.key].metrics == pytest.approx(dict(expected.metrics), rel=1e-5)


def test_a_study_is_trained_once_and_shares_runs_with_the_plain_one(tmp_path):
    found = compare(model(), (X, Y), quiet=True, **_settings(tmp_path, workers=2))
    assert found.timing["model_epochs"] == 6
    again = compare(model(), (X, Y), quiet=True, **_settings(tmp_path, workers=1))
    assert again.timing["model_epochs"] == 0
    assert as_data(again.document()["comparisons"]) == as_data(found.document()["comparisons"])
    plain = compare(model(), (X, Y), quiet=True, **_settings(tmp_path) | {"resample_split": False})
    assert plain.timing["model_epochs"] == 4  # seed 0 is there
    # Each run was trained on its own division: a fresh trainer of that division gives its figures.
    plan = planned(tmp_path)
    for seed in (1, 2):
        run = next(run for run in plan.study.runs() if run.seed == seed)
        expected = Trainer(plan.study, plan.data_of(seed).parts("held-out"), 1.0).train(run)
        assert found.results[run.key].metrics == pytest.approx(dict(expected.metrics), rel=1e-6)


def _settings(tmp_path, **more):
    base = {"seeds": 3, "epochs": 1, "batch_size": 16, "engine": "compiled", "variants": ["hidden"], "resample_split": True}
    return base | {"ledger": tmp_path / "r.db"} | more


def test_models_are_kept_and_checkpoints_are_used(tmp_path):
    kept = compare(model(), (X, Y), quiet=True, keep_weights=True, checkpoint_every=1, **_settings(tmp_path, seeds=2, epochs=2))
    assert not kept.failed
    assert lookup.kept(tmp_path / "r.db", [run.key for run in kept.study.runs()]) == {run.key for run in kept.study.runs()}
    with pytest.raises(BadInput, match="divided anew for each seed") as refused:
        loading.kept_models(str(tmp_path / "r.db"), "hidden")
    assert len(str(refused.value).splitlines()) == 2


def trained(tmp_path, monkeypatch, loss, plain=False, losses=None, **settings):
    """Return a study with made-up test losses, `loss(variant, seed, fixed)`, which is carried out."""
    plan = planned(tmp_path, not plain, **settings)

    def metrics(run):
        value = loss(run.variant.name, run.seed, plain)
        return {"test_loss": value, "test_accuracy": 1 - value / 8, "train_loss": value / 2}

    made_up_execution(monkeypatch, metrics)
    return carry_out(plan, quiet=True, command="keras-dropout compare m.py:f --resample-split --seeds 8")


def noisy(variant, seed, fixed):
    noise = np.random.default_rng([seed, fixed, len(variant)]).normal(0, 0.02 if fixed else 0.1)
    return 1.0 + noise - (0.35 if variant == "hidden" else 0.0)


def test_intervals_and_verdicts_allow_for_the_overlap(tmp_path, monkeypatch):
    found = trained(tmp_path, monkeypatch, noisy, seeds=8)
    difference = found.differences("test_loss")["hidden"]
    pairs = found.values("hidden", "test_loss") - found.values("none", "test_loss")
    facts = found.study.data_of(0)
    assert found.overlap == pytest.approx(facts.test / facts.train) == pytest.approx(24 / 86, abs=0.01)
    error = pairs.std(ddof=1) * np.sqrt(1 / 8 + found.overlap)
    half = scipy.stats.t.isf(0.025, 7) * error
    assert difference.interval == pytest.approx((pairs.mean() - half, pairs.mean() + half))
    rows = [found.differences(metric)["hidden"] for metric in ("test_loss", "test_accuracy")]
    p = 2 * scipy.stats.t.sf(abs(pairs.mean()) / error, 7)
    assert rows[0].p_overlap == pytest.approx(min(1, 2 * p))  # Holm over the two metrics, which say the same
    figures = found.figures("test_loss")["hidden"]
    plain = scipy.stats.t.interval(0.95, 7, pairs.mean(), pairs.std(ddof=1) / np.sqrt(8))
    assert figures["interval_without_overlap"] == pytest.approx(plain)
    assert figures["interval_new_examples"] is None
    sd = pairs.std(ddof=1)
    assert figures["detectable_difference"] == pytest.approx(power.detectable_difference(sd, 8, 2, overlap=found.overlap))
    assert figures["detectable_floor"] == pytest.approx(power.detectable_floor(sd, found.overlap, 2))
    assert difference.verdict == "better"
    assert as_data(found.document())["study"]["resample_split"] is True


def test_a_difference_that_only_independent_pairs_would_show_gets_no_verdict(tmp_path, monkeypatch):
    def loss(variant, seed, fixed):
        return 1.0 + 0.01 * seed + (0.01 + 0.05 * (seed % 4) if variant == "hidden" else 0.0)

    found = trained(tmp_path, monkeypatch, loss, seeds=8)
    difference = found.differences("test_loss")["hidden"]
    assert difference.p_adjusted <= 0.05
    assert min(found.figures("test_loss")["hidden"]["interval_without_overlap"]) > 0
    assert difference.verdict == "no difference shown"
    assert "no number of new divisions" in found.report_document()["seeds_sentences"][0] or "no number" in str(found.with_details())
    without = dataclasses.replace(found.study, divisions=None)
    vars(without).update(_keys={(run.variant.name, run.seed): run.key for run in found.study.runs()})
    assert dataclasses.replace(found, study=without).verdicts["hidden"]["test_loss"] == "worse"


def test_what_is_read_back_is_what_was_found(tmp_path, monkeypatch):
    here = trained(tmp_path, monkeypatch, noisy, seeds=6)
    there = retrieve(tmp_path / "r.db")
    a, b = (as_data(found.report_document()) for found in (here, there))
    a["made"].pop("started"), b["made"].pop("started")
    assert a == b
    assert str(here) == str(there)
    assert there.study.divisions == {seed: here.study.data_of(seed) for seed in range(6)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("json_remove(document, '$.study.divisions[2]')", "cannot be read"),
        ("json_set(document, '$.study.divisions[1].train', 'many')", "it has str where it should have int"),
        ("json_remove(document, '$.study.fixed_keys')", "it has NoneType where it should have list"),
    ],
)
def test_a_damaged_division_is_refused(change, why, tmp_path, monkeypatch):
    trained(tmp_path, monkeypatch, noisy, seeds=6)
    with contextlib.closing(sqlite3.connect(tmp_path / "r.db")) as connection, connection:
        connection.execute(f"UPDATE studies SET document = {change}")
    with pytest.raises(BadInput, match=why):
        retrieve(tmp_path / "r.db")


def test_all_ways_of_showing_tell_that_each_seed_divides_anew(tmp_path, monkeypatch, capsys):
    found = trained(tmp_path, monkeypatch, noisy, seeds=6)
    text = " ".join(str(found.with_details()).split())
    for said in (
        "paired by seed and division of the data",
        "p overlap",
        "! Each seed divides the data anew",
        "no number of seeds shows",
    ):
        assert said in text
    assert "new examples too" not in text
    page = found.save_report(tmp_path / "p.html").read_text()
    for said in ("divided anew for each seed", "Nadeau and Bengio", "p overlap", "Each seed divides the data anew"):
        assert said in page
    assert all(found.study.data_of(seed).fingerprint in page for seed in range(6))
    assert "new seeds and examples" not in page
    assert 'id="examples"' not in page
    assert examples(tmp_path / "r.db", found.study.data.fingerprint) is None
    listed = CliRunner().invoke(app, ["report", str(tmp_path / "r.db"), "--list", "--json"], catch_exceptions=False)
    assert [row["resample_split"] for row in json.loads(listed.stdout)] == [True]
    listed = CliRunner().invoke(app, ["report", str(tmp_path / "r.db"), "--list"], catch_exceptions=False)
    assert "divided anew for each seed" in " ".join(listed.stdout.split())
    json_of = as_data(found.document())
    assert [row["seed"] for row in json_of["study"]["divisions"]] == list(range(6))
    assert {"p_overlap", "interval_without_overlap", "detectable_floor", "variance"} <= json_of["comparisons"][0].keys()
    monkeypatch.setattr(timing, "estimate_seconds", lambda plan, todo: 1.0)
    plan = planned(tmp_path, seeds=6)
    studies._print_plan(plan, Asked(), as_json=False)
    assert "for each seed a new split" in capsys.readouterr().out
    studies._print_plan(plan, Asked(), as_json=True)
    assert json.loads(capsys.readouterr().out)["resample_split"] is True
    assert "divided anew for each seed, by class, at random" in plan.notes[0]


def test_the_forecast_is_from_runs_that_are_divided_in_the_same_way(tmp_path, monkeypatch):
    trained(tmp_path, monkeypatch, noisy, plain=True, seeds=6)
    plan = planned(tmp_path, seeds=10, power=0.2)
    assert forecast(plan) is None
    found = trained(tmp_path, monkeypatch, noisy, seeds=6)
    assert forecast(planned(tmp_path, False, seeds=10))["study"] == 1
    told = forecast(plan)
    assert told["study"] == found.number == 2
    pairs = found.values("hidden", "test_loss") - found.values("none", "test_loss")
    shown = power.detectable_difference(pairs.std(ddof=1), 10, 2, overlap=found.overlap)
    assert told["detectable_difference"] == pytest.approx(shown)
    assert told["pairs_needed"] == power.pairs_needed(pairs.std(ddof=1), 0.2, 2, overlap=found.overlap)
    assert (
        f"no number of seeds shows a test loss difference below {told['detectable_floor']:.4f}" in forecast_sentences(10, told)[-1]
    )


def with_losses(found, spread):
    """Give each run a loss for each of its test examples, whose differences spread by `spread`."""
    for run in found.study.runs():
        result = found.results[run.key]
        each = np.random.default_rng([run.seed, len(run.variant.name)]).normal(
            0, spread / np.sqrt(2), found.study.data_of(run.seed).test
        )
        found.results[run.key] = dataclasses.replace(result, test_losses=result.metrics["test_loss"] + each - each.mean())
    found.ledger = None
    return found


def test_the_variance_is_divided_into_examples_seed_and_division(tmp_path, monkeypatch):
    found = with_losses(trained(tmp_path, monkeypatch, noisy, seeds=8), 0.2)
    parts = found.figures("test_loss")["hidden"]["variance"]
    assert parts["seed"] is None
    assert parts["total"] == pytest.approx(parts["examples"] + parts["division"])
    assert 0.5 < parts["examples"] / (0.04 / 24 * 0.8) < 2
    text = " ".join(str(found.with_details()).split())
    assert "seed and division together" in text
    assert (
        "To tell seed and division apart, train at least 3 seeds with one division: keras-dropout compare m.py:f --seeds 8" in text
    )

    plain = trained(tmp_path, monkeypatch, noisy, plain=True, seeds=8)
    found.results |= plain.results
    parts = found.figures("test_loss")["hidden"]["variance"]
    pairs = plain.values("hidden", "test_loss") - plain.values("none", "test_loss")
    assert parts["fixed_seeds"] == 8
    assert parts["seed"] == pytest.approx(pairs.var(ddof=1))
    text = " ".join(str(found.with_details()).split())
    assert "from the seed and" in text
    assert "(the seed's from 8 seeds with one division)" in text
    assert "together" not in text


def test_runs_with_one_division_are_found_in_the_ledger(tmp_path, monkeypatch):
    trained(tmp_path, monkeypatch, noisy, plain=True, seeds=5)
    found = trained(tmp_path, monkeypatch, noisy, seeds=6)
    assert np.isfinite(found._with_fixed_division("hidden", "test_loss")).sum() == 5
    assert np.isfinite(retrieve(tmp_path / "r.db")._with_fixed_division("hidden", "test_loss")).sum() == 5


def test_where_the_plain_table_has_other_columns_its_runs_are_no_measure_of_the_seed(tmp_path, monkeypatch):
    """The only row of a category is in the test part of the usual division."""
    for rare in range(60):
        rows = (f"{'c' if n == rare else 'ab'[n % 3 > 0]},{'pq'[n % 2]}" for n in range(60))
        (tmp_path / "t.csv").write_text("\n".join(["k,y", *rows]))
        if "k=c" not in files.load(tmp_path / "t.csv", target="y")[1].features:
            break
    wide = keras.Sequential([keras.Input((4,)), L.Dense(6, "relu"), L.Dense(2, "softmax")])
    wide.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    settings = {"data_options": {"target": "y"}, "seeds": 6, "epochs": 1, "engine": "compiled", "ledger": tmp_path / "r.db"}
    plan = make_plan(wide, tmp_path / "t.csv", resample_split=True, variants=["hidden"], **settings)
    assert plan.study.fixed_key(plan.study.variants[0], 0) is None
    made_up_execution(monkeypatch, lambda run: {"test_loss": noisy(run.variant.name, run.seed, False), "test_accuracy": 0.5})
    found = with_losses(carry_out(plan, quiet=True), 0.2)
    assert found.figures("test_loss")["hidden"]["variance"]["fixed_seeds"] is None
    assert "cannot be told apart here" in " ".join(str(found.with_details()).split())
    assert retrieve(tmp_path / "r.db").study.fixed_key(plan.study.variants[0], 0) is None


def test_few_different_divisions_are_noted(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join(["g,v,y", *(f"g{n % 3},{n * 0.1},{'pq'[n % 2]}" for n in range(60))]))
    small = keras.Sequential([keras.Input((1,)), L.Dense(6, "relu"), L.Dense(2, "softmax")])
    small.compile("sgd", "sparse_categorical_crossentropy")
    options = {"target": "y", "group": "g"}
    plan = plan_study(small, tmp_path / "t.csv", data_options=options, resample_split=True, seeds=10, batch_size=8)
    assert any(note.startswith("10 seeds, and only ") for note in plan.notes)


def test_equal_class_weights_are_taken_and_unequal_ones_refused(tmp_path):
    plan = planned(tmp_path, class_weight="balanced")
    assert plan.study.class_weight == planned(tmp_path, False, class_weight="balanced").study.class_weight
    rows = ["g,v,y", *(f"g{n % 23},{n * 0.1},{'pq'[n % 5 > 2]}" for n in range(100))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    binary = keras.Sequential([keras.Input((1,)), L.Dense(6, "relu"), L.Dense(2, "softmax")])
    binary.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(BadInput, match="balanced class weights differ"):
        make_plan(
            binary, tmp_path / "t.csv", data_options={"target": "y", "group": "g"}, class_weight="balanced", resample_split=True
        )


def test_other_vocabularies_are_refused_with_one_that_works(tmp_path):
    lines = [
        f"{'good' if n % 2 else 'bad'}\t" + " ".join(f"w{(n * 7 + m) % 90 if n < 55 else n * 9 + m}" for m in range(9))
        for n in range(60)
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    (tmp_path / "m.py").write_text(
        "import keras\ndef text(input_shape, outputs, vocabulary):\n"
        "    layers = keras.layers\n"
        "    model = keras.Sequential([keras.Input(input_shape, dtype='int32'), layers.Embedding(vocabulary, 4),"
        " layers.GlobalAveragePooling1D(), layers.Dense(4, 'relu'), layers.Dense(outputs, 'softmax')])\n"
        "    model.compile('sgd', 'sparse_categorical_crossentropy')\n    return model\n"
    )
    target = f"{tmp_path / 'm.py'}:text"
    settings = {"resample_split": True, "seeds": 6, "ledger": tmp_path / "r.db"}
    with pytest.raises(BadInput, match="vocabularies of") as refused:
        plan_study(target, tmp_path / "t.txt", **settings)
    number = int(str(refused.value).partition("--vocabulary ")[2].partition(";")[0])
    plan = plan_study(target, tmp_path / "t.txt", data_options={"vocabulary": number}, **settings)
    assert all(plan.data_of(seed).train.x.max() < number for seed in range(6))


REFUSED = {
    "the published split": ["digits-mlp", "--split", "as-published"],
    "got auto": ["digits-mlp", "--seeds", "auto"],
    "table of scores": ["scores.csv"],
    "test_data": ["m.py:f", "--data", "t.csv", "--target", "y", "--test-data", "t.csv"],
    "by time": ["m.py:f", "--data", "t.csv", "--target", "y", "--time", "day"],
}


@pytest.mark.parametrize("why", REFUSED)
def test_the_command_refuses_what_does_not_go_with_it_in_two_lines(why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("\n".join(["v,day,y", *(f"{n * 0.5},2024-01-{n % 28 + 1:02},{n % 2}" for n in range(60))]))
    (tmp_path / "scores.csv").write_text("variant,seed,loss\nnone,0,1\nhidden,0,2\n")
    (tmp_path / "m.py").write_text("def f(input_shape):\n    raise AssertionError\n")
    with pytest.raises(BadInput) as refused:
        CliRunner().invoke(app, ["compare", *REFUSED[why], "--resample-split", "--quiet"], catch_exceptions=False)
    assert why in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.parametrize("more", [[], ["--sweep", "hidden=0:0.4:3"]])
def test_a_search_refuses_new_divisions(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="resample_split is for compare"):
        CliRunner().invoke(app, ["tune", "digits-mlp", "--resample-split", *more], catch_exceptions=False)


def test_an_accuracy_has_the_step_of_each_seeds_own_test_part(tmp_path):
    """Whole groups make test parts of different sizes."""
    rows = ["g,v,y", *(f"g{n % 7},{n * 0.1},{'pq'[n % 2]}" for n in range(100))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    binary = keras.Sequential([keras.Input((1,)), L.Dense(6, "relu"), L.Dense(2, "softmax")])
    binary.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    plan = make_plan(
        binary,
        tmp_path / "t.csv",
        data_options={"target": "y", "group": "g"},
        resample_split=True,
        engine="compiled",
        ledger=tmp_path / "r.db",
    )
    from keras_dropout.bench.comparison import Comparison

    for variant, seed in ((variant, seed) for variant in plan.study.variants for seed in plan.study.seeds):
        facts = plan.study.data_of(seed)
        assert plan.study.deciding(variant, seed)["split"] == ["held-out", facts.train, facts.validation]
    sizes = np.array([plan.study.data_of(seed).test for seed in plan.study.seeds])
    assert len(set(sizes)) > 1
    results = {
        run.key: Result(
            "done", 1.0, 1, {"test_loss": 1.0, "test_accuracy": float(np.float32(7 / plan.study.data_of(run.seed).test))}
        )
        for run in plan.study.runs()
    }
    assert Comparison(plan.study, results)._step("test_accuracy") == pytest.approx(1 / sizes)
