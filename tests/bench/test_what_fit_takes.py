"""What Keras's fit takes: validation_data, callbacks, steps_per_epoch."""

import keras
import numpy as np
import pytest

from keras_dropout import BadInput, compare
from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.training.trainer import Trainer, _Course

L = keras.layers
rng = np.random.default_rng(0)
X = rng.random((120, 6)).astype("float32")
Y = (X[:, 0] > X[:, 1]).astype("int32")
PAIR = ((X[:64], Y[:64]), (X[64:90], Y[64:90]))
VALIDATION = (X[90:], Y[90:])


def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu", name="h"), L.Dense(2, "softmax")], name="m")
    made.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def planned(tmp_path, data=PAIR, **settings):
    settings = {"epochs": 4, "seeds": 1, "ledger": tmp_path / "l.db", "variants": {"half": "h=0.5"}, "workers": 1} | settings
    settings = {"engine": "reference"} | settings
    return make_plan(model(), data, **settings)


def result(plan, number=0):
    return Trainer(plan.study, plan.data.sent(plan.study.split), plan.data.divide_by).train(plan.study.runs()[number])


@pytest.mark.parametrize("data", [PAIR, (X[:90], Y[:90])], ids=["pair", "undivided"])
def test_validation_data_are_the_validation_part(tmp_path, data):
    plan = planned(tmp_path, data, validation_data=VALIDATION)
    parts = plan.data.parts(plan.study.split)
    np.testing.assert_array_equal(parts["validation"].x, VALIDATION[0])
    np.testing.assert_array_equal(parts["validation"].y, VALIDATION[1])
    rest = np.concatenate([parts["train"].x, parts["test"].x])
    np.testing.assert_array_equal(np.sort(rest, axis=0), np.sort(X[:90], axis=0))
    if data is PAIR:
        np.testing.assert_array_equal(parts["train"].x, X[:64])
    assert planned(tmp_path, data).study.runs()[0].key != plan.study.runs()[0].key
    found = result(plan)
    assert found.status == "done"


REFUSED = {
    "a division too": ({"validation_data": VALIDATION, "validation_split": 0.2}, "validation_split is for data without"),
    "another form": ({"validation_data": (X[90:, :5], Y[90:])}, "have the form"),
    "no pair": ({"validation_data": X[90:]}, "must be"),
    "new divisions": ({"data": (X, Y), "validation_data": VALIDATION, "resample_split": True}, "validation data are given"),
    "a file": ({"data": "x.npz", "validation_data": VALIDATION}, "validation_data are for arrays"),
    "callbacks in the compiled engine": ({"callbacks": list, "engine": "compiled"}, "called by Keras's fit"),
    "callbacks and checkpoints": ({"callbacks": list, "checkpoint_every": 1}, "cannot go on from a checkpoint"),
    "callbacks of another kind": ({"callbacks": 3}, "must be a list of Keras callbacks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_go_together_is_refused(tmp_path, case):
    settings, message = REFUSED[case]
    with pytest.raises(BadInput, match=message):
        planned(tmp_path, **settings)


class Noted(keras.callbacks.Callback):
    """Notes what it is told in a file of its run."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def _note(self, text):
        with open(self.path, "a") as file:
            file.write(text + "\n")

    def on_train_begin(self, logs=None):
        self._note(f"begin {self.params['epochs']}")

    def on_epoch_begin(self, epoch, logs=None):
        self._note(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self._note(f"batch {batch}")

    def on_epoch_end(self, epoch, logs=None):
        self._note(f"end of {epoch} {sorted(logs)}")

    def on_train_end(self, logs=None):
        self._note("end")


def test_callbacks_are_told_what_one_fit_tells_them(tmp_path):
    plan = planned(tmp_path, callbacks=lambda seed, variant: [Noted(tmp_path / f"{variant}-{seed}")], epochs=2, batch_size=32)
    assert plan.study.engine == "reference"
    result(plan)
    model().fit(*PAIR[0], validation_data=VALIDATION, epochs=2, verbose=0, callbacks=[Noted(tmp_path / "fit")])
    assert (tmp_path / "none-0").read_text() == (tmp_path / "fit").read_text()


def test_callbacks_keep_their_state_over_the_epochs(tmp_path):
    plateau = [keras.callbacks.ReduceLROnPlateau(monitor="val_loss", min_delta=10, patience=2, factor=0.1)]
    rates = []
    log = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: None)
    plan = planned(tmp_path, callbacks=[*plateau, log], epochs=6)
    trainer = Trainer(plan.study, plan.data.sent("held-out"), 1.0)
    training = trainer._begin((plan.study.runs()[0],))
    for _ in range(6):
        logs = training.epoch([np.arange(len(trainer.parts["train"].y), dtype="int32")])[0]
        training.end_epoch({**logs, "validation_loss": 1.0})
        rates.append(round(float(training.model.optimizer.learning_rate), 6))
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]  # with a state of one epoch it would stay at 0.1


def test_early_stopping_of_keras_stops_and_restores_the_best_weights(tmp_path):
    def stopping():
        return [keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=10, patience=2, restore_best_weights=True)]

    stopped = result(planned(tmp_path, callbacks=stopping, epochs=9))
    assert stopped.epochs == 3
    best = result(planned(tmp_path, epochs=1))
    assert stopped.metrics["test_loss"] == pytest.approx(best.metrics["test_loss"], rel=1e-5)  # the first epoch was the best


def test_the_code_of_callbacks_decides_the_key(tmp_path):
    def one():
        return [keras.callbacks.TerminateOnNaN()]

    def other():
        return [keras.callbacks.ReduceLROnPlateau()]

    keys = {planned(tmp_path, callbacks=each).study.runs()[0].key for each in (None, one, other)}
    assert len(keys) == 3


def test_what_is_no_callback_fails_the_run(tmp_path):
    with pytest.raises(BadInput, match="gave int where a callback"):
        result(planned(tmp_path, callbacks=lambda: [3]))


def test_an_epoch_of_some_steps_goes_on_where_the_last_one_ended(tmp_path):
    plan = planned(tmp_path, steps_per_epoch=3, batch_size=8)
    course = _Course(plan.study.runs()[0], 60, None, 24)
    seen = []
    for _ in range(5):
        course.begin_epoch()
        seen.append(course.order)
    assert {len(order) for order in seen} == {24}
    whole = np.concatenate(seen)
    assert sorted(whole[:60]) == sorted(whole[60:]) == list(range(60))
    assert result(plan).status == "done"
    assert plan.study.runs()[0].key != planned(tmp_path, batch_size=8).study.runs()[0].key


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_steps_per_epoch_are_the_steps_of_the_optimizer(tmp_path, engine):
    plan = planned(tmp_path, steps_per_epoch=3, batch_size=8, engine=engine)
    run = plan.study.runs()[0]
    *_, paused = Trainer(plan.study, plan.data.sent("held-out"), 1.0).follow((run,), until=2)
    assert any(value.ndim == 0 and value.dtype.kind == "i" and value == 6 for value in Checkpoint.from_bytes(paused.state).values)


def test_compare_with_callbacks_of_the_program(tmp_path):
    found = compare(
        model(),
        (X, Y),
        validation_data=VALIDATION,
        callbacks=[keras.callbacks.ReduceLROnPlateau()],
        variants={"half": "h=0.5"},
        epochs=1,
        seeds=1,
        ledger=tmp_path / "l.db",
        quiet=True,
    )
    assert {each.status for each in found.results.values()} == {"done"}
