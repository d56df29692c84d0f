"""Live streams: each run asks for them, each epoch iterates them, and variants with the same seed see the same pixels."""

import pickle
import textwrap
import threading

import keras
import numpy as np
import pytest

from keras_dropout import BadInput, compare
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.study.loading import named_data
from keras_dropout.bench.training.messages import Paused
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.models.targets import load_function

L = keras.layers
HEAD = """
import keras
import numpy as np

SEEN = []  # training batches, in the order in which they are given
rng = np.random.default_rng(0)
X = rng.random((96, 6, 6, 1)).astype("float32")
Y = np.arange(96) % 2
X[Y == 1, :3] += 0.5
VALIDATION, TEST = (X[64:80], Y[64:80]), (X[80:], Y[80:])

def seen(x, y):
    SEEN.append(np.array(x))
    return x, y
"""
STREAMS = {
    "generator": """
        def data(seed):
            def train():
                while True:
                    rows = draw.permutation(64)[:16]
                    flip = draw.random(16) < 0.5
                    yield seen(np.where(flip[:, None, None, None], X[rows, :, ::-1], X[rows]), Y[rows])
            draw = np.random.default_rng(seed)
            return {"train": train(), "validation": VALIDATION, "test": TEST, "steps_per_epoch": 4}
        """,
    "PyDataset": """
        class Batches(keras.utils.PyDataset):
            def __init__(self):
                super().__init__()
                self.order = np.arange(64)
            def __len__(self):
                return 4
            def __getitem__(self, number):
                rows = self.order[number * 16 : number * 16 + 16]
                return seen(X[rows] + np.random.random((16, 1, 1, 1)).astype("float32"), Y[rows])
            def on_epoch_end(self):
                np.random.shuffle(self.order)
        def data():
            return Batches(), VALIDATION, TEST
        """,
    "DataLoader": """
        import torch
        class Examples(torch.utils.data.Dataset):
            def __len__(self):
                return 64
            def __getitem__(self, number):
                x = torch.tensor(X[number])
                return (x.flip(1) if torch.rand(()) < 0.5 else x), int(Y[number])
        class Loader(torch.utils.data.DataLoader):
            def __iter__(self):
                for x, y in super().__iter__():
                    seen(x.numpy(), y)
                    yield x, y
        def data():
            return Loader(Examples(), batch_size=16, shuffle=True), VALIDATION, TEST
        """,
    "tf.data": """
        import tensorflow as tf
        def data(seed):
            def augment(x, y):
                return tf.image.random_crop(tf.image.random_flip_left_right(tf.pad(x, [[1, 1], [1, 1], [0, 0]])), (6, 6, 1)), y
            class Noted:
                def __iter__(self):
                    for x, y in train.as_numpy_iterator():
                        yield seen(x, y)
            train = tf.data.Dataset.from_tensor_slices((X[:64], Y[:64])).shuffle(64, seed=seed).map(augment).batch(16)
            return lambda: iter(Noted()), FIXED, TEST
        FIXED = tf.data.Dataset.from_tensor_slices(VALIDATION).batch(8)
        """,
}


def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((6, 6, 1)), L.Flatten(), L.Dense(8, "relu", name="h"), L.Dense(2, "softmax")], name="m")
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def written(tmp_path, code, name="pipeline"):
    path = tmp_path / f"{name}_{tmp_path.name}.py"
    path.write_text(HEAD + textwrap.dedent(code))
    return f"{path}:data"


def planned(tmp_path, data, **settings):
    settings = {"epochs": 2, "seeds": 2, "ledger": tmp_path / "l.db", "variants": {"half": "h=0.5"}, "workers": 1} | settings
    return make_plan(model(), data, **settings)


def trainer_of(plan):
    return Trainer(plan.study, plan.data.sent(plan.study.split), plan.data.divide_by)


def pixels(plan, target, run):
    """Train a run, and return its result and the batches of its epochs, without those of the check that its dropout acts."""
    module = load_function(target).__globals__
    trainer = trainer_of(plan)
    module["SEEN"].clear()
    marks = []
    for told in trainer.follow((run,)):  # noqa: B007 - the last one is needed
        marks.append(len(module["SEEN"]))
    seen = module["SEEN"]
    assert marks[1] - marks[0] == 4
    return told.result, [seen[mark - 4 : mark] for mark in marks[: plan.study.epochs]]


@pytest.mark.parametrize("kind", STREAMS)
def test_augmentation_differs_between_epochs_and_is_the_same_for_the_variants_of_a_seed(tmp_path, kind):
    if kind == "DataLoader":
        pytest.importorskip("torch")
    if kind == "tf.data":
        pytest.importorskip("tensorflow")
    target = written(tmp_path, STREAMS[kind])
    plan = planned(tmp_path, target)
    assert plan.study.engine == "reference"
    assert plan.study.data.train == 64
    assert not [note for note in plan.notes if "pairs gain less" in note]
    seen = {}
    for run in plan.study.runs():
        result, seen[run.variant.name, run.seed] = pixels(plan, target, run)
        assert result.status == "done", result.error
        assert len(result.test_losses) == 16
        assert np.mean(result.test_losses) == pytest.approx(result.metrics["test_loss"], rel=1e-5)
        assert len(result.predictions) == 16
        assert {"train_accuracy", "validation_loss", "test_accuracy"} <= set(result.metrics)
    first, second = ({image.tobytes() for batch in epoch for image in batch} for epoch in seen["none", 0])
    assert first != second  # other pixels, not only another order
    np.testing.assert_array_equal(np.stack(seen["none", 0]), np.stack(seen["half", 0]))
    np.testing.assert_array_equal(np.stack(seen["none", 1]), np.stack(seen["half", 1]))
    assert not np.array_equal(np.stack(seen["none", 0]), np.stack(seen["none", 1]))


def test_the_figures_are_those_of_keras_evaluate(tmp_path):
    plan = planned(tmp_path, written(tmp_path, STREAMS["PyDataset"]), keep_weights=True, epochs=1)
    run = plan.study.runs()[1]
    *_, last = trainer_of(plan).follow((run,), settings={"keep_weights": True})
    (tmp_path / "m.keras").write_bytes(last.result.model)
    made = keras.models.load_model(tmp_path / "m.keras")
    test = load_function(written(tmp_path, STREAMS["PyDataset"])).__globals__["TEST"]
    loss, accuracy = made.evaluate(*test, verbose=0)
    assert last.result.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert last.result.metrics["test_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("kind", ["generator", "PyDataset"])
def test_a_resumed_run_sees_the_rest_of_its_stream_and_ends_in_the_same_bytes(tmp_path, kind):
    target = written(tmp_path, STREAMS[kind])
    plan = planned(tmp_path, target, epochs=3)
    run = plan.study.runs()[1]
    whole = trainer_of(plan).train(run)
    (*_, paused) = trainer_of(plan).follow((run,), until=1)
    assert isinstance(paused, Paused)
    *_, ended = trainer_of(plan).follow((run,), {run.key: paused.state})
    assert ended.result.curves == whole.curves
    assert ended.result.metrics == whole.metrics
    assert ended.result.test_losses.tobytes() == whole.test_losses.tobytes()


def test_as_a_program_on_real_workers_and_again_from_the_ledger(tmp_path):
    target = written(tmp_path, STREAMS["generator"])
    settings = {"epochs": 1, "seeds": 2, "ledger": tmp_path / "l.db", "variants": {"half": "h=0.5"}, "quiet": True}
    found = compare(model(), target, **settings)
    assert {result.status for result in found.results.values()} == {"done"}
    again = compare(model(), target, **settings)
    assert again.timing["model_epochs"] == 0


def test_the_code_and_the_examples_decide_the_key(tmp_path):
    def keys(code, **settings):
        plan = planned(tmp_path, written(tmp_path, code, f"p{len(made)}"), **settings)
        made.append(plan)
        return {run.key for run in plan.study.runs()}

    made = []
    code = STREAMS["generator"]
    there = keys(code)
    assert there == keys(code)  # another name of the file is the same data
    assert not there & keys(code.replace("< 0.5", "< 0.6"))
    assert not there & keys(code, steps_per_epoch=3)
    assert made[-1].study.data.train == 48


def test_streams_that_cannot_be_seeded_are_said(tmp_path):
    code = STREAMS["generator"].replace("default_rng(seed)", "default_rng()")
    notes = planned(tmp_path, written(tmp_path, code)).notes
    assert any("other training batches each time for the same seed" in note for note in notes)
    code = STREAMS["generator"].replace("default_rng(seed)", "default_rng(5)")
    notes = planned(tmp_path, written(tmp_path, code, "other")).notes
    assert any("the same for every seed" in note for note in notes)


REFUSED = {
    "a test part by chance": (
        "validation, TEST",
        "validation, (X[np.random.permutation(16)], Y[:16])",
        "gives other batches than before",
    ),
    "a generator for one pass": ("validation, TEST", "validation, ((x, y) for x, y in [TEST])", "gives them only once"),
    "single examples": ("validation, TEST", "validation, list(zip(*TEST))", "no batch"),
    "a label too many": ("validation, TEST", "validation, (TEST[0], TEST[1] + 1)", "from 0 to 1"),
    "another shape": ("validation, TEST", "validation, (TEST[0][:, 1:], TEST[1])", "takes the shape"),
    "nan": ("validation, TEST", "validation, (TEST[0] * np.nan, TEST[1])", "nan or infinity"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_stream_of_fixed_batches_is_refused(tmp_path, case):
    before, after, message = REFUSED[case]
    code = (
        STREAMS["PyDataset"]
        .replace("VALIDATION, TEST", "validation, TEST")
        .replace(before, after)
        .replace("validation,", "VALIDATION,")
    )
    with pytest.raises(BadInput, match=message):
        planned(tmp_path, written(tmp_path, code))


SETTINGS = {
    "resample_split": True,
    "class_weight": "balanced",
    "samples": 5,
    "engine": "compiled",
    "validation_split": 0.3,
    "batch_size": 8,
    "data_options": {"test_split": 0.3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_streams_cannot_have_are_refused(tmp_path, name):
    with pytest.raises(BadInput):
        planned(tmp_path, written(tmp_path, STREAMS["generator"]), **{name: SETTINGS[name]})


def test_an_endless_stream_needs_its_steps(tmp_path):
    code = STREAMS["PyDataset"].replace("def __len__(self):\n                return 4", "num_batches = None")
    with pytest.raises(BadInput, match=r"never ends.\n.*steps_per_epoch") as refusal:
        planned(tmp_path, written(tmp_path, code))
    assert "steps_per_epoch" in str(refusal.value)


def test_a_stream_that_changes_its_test_part_later_fails_the_run(tmp_path):
    code = STREAMS["generator"].replace('"test": TEST', '"test": (X[80:] + (seed == 1000), Y[80:])')
    plan = planned(tmp_path, written(tmp_path, code), seeds=[1000], epochs=1)
    with pytest.raises(BadInput, match="gives other batches than before"):
        trainer_of(plan).train(plan.study.runs()[0])


def test_a_function_and_objects_of_the_program_are_sent_by_value(tmp_path):
    x = np.random.default_rng(0).random((48, 6, 6, 1)).astype("float32")
    y = np.arange(48) % 2

    class Own(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            return x[number * 16 : number * 16 + 16] + np.random.random(), y[number * 16 : number * 16 + 16]  # noqa: NPY002

    def data(seed):
        return Own(), (x[32:40], y[32:40]), (x[40:], y[40:])

    for given in (data, data(0)):
        plan = planned(tmp_path, given, epochs=1)
        sent = pickle.loads(pickle.dumps(plan.data.sent("held-out")))  # as a worker gets it
        assert sent.source.packed is not None
        results = [Trainer(plan.study, sent, 1.0).train(run) for run in plan.study.runs()[:2]]
        assert [result.status for result in results] == ["done", "done"]
    own = Own()
    own.lock = threading.Lock()
    with pytest.raises(BadInput, match=r"cannot be sent.*\nHave a function make the streams"):
        planned(tmp_path, (own, (x[32:40], y[32:40]), (x[40:], y[40:])))


def test_what_measures_a_model_takes_no_streams(tmp_path):
    target = written(tmp_path, STREAMS["generator"])
    with pytest.raises(BadInput, match="only compare and tune iterate"):
        named_data(target, {})


def test_a_pair_whose_passes_differ_leads_here(tmp_path):
    code = STREAMS["PyDataset"].replace("Batches(), VALIDATION, TEST", "Batches(), TEST")
    with pytest.raises(BadInput, match=r"other examples in each pass.*\n.*return \(train, validation, test\)"):
        planned(tmp_path, written(tmp_path, code))
