"""A small network learns digits from a large one, on any backend: does the pupil want dropout?

Run: keras-dropout compare examples/trainings/distillation.py:train --variant pupil="hidden=0.2"

The loss mixes the labels with what the teacher says at a high temperature (Hinton, Vinyals and Dean 2015, arXiv:1503.02531).
"""

import keras
from keras import layers, ops
from sklearn.datasets import load_digits

TEMPERATURE = 4.0


class Distiller(keras.Model):
    """A pupil that learns from labels and from a teacher, which stays as it is."""

    def __init__(self, pupil, teacher):
        super().__init__()
        self.pupil, self.teacher = pupil, teacher
        self.teacher.trainable = False

    def call(self, x, training=False):
        return self.pupil(x, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        labels = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        told = ops.softmax(self.teacher(x, training=False) / TEMPERATURE)
        said = keras.losses.categorical_crossentropy(told, y_pred / TEMPERATURE, from_logits=True)
        return ops.mean(0.3 * labels + 0.7 * TEMPERATURE**2 * said)


def network(units):
    return keras.Sequential([layers.Input((64,)), *(layers.Dense(n, "relu") for n in units), layers.Dense(10)])


def train(run):
    """Train the teacher and then the pupil on 1,000 digits; return the pupil's loss and accuracy on the others."""
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    teacher = network([256, 256])
    teacher.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(x[:1000], y[:1000], batch_size=32, epochs=run.epochs or 20, verbose=0)
    model = Distiller(run.place(network([32])), teacher)
    model.compile("adam")
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: run.log(logs, epoch + 1))
    model.fit(x[:1000], y[:1000], batch_size=32, epochs=run.epochs or 20, verbose=0, callbacks=[told])
    answers = model.pupil.predict(x[1000:], verbose=0)
    of_each = ops.convert_to_numpy(keras.losses.sparse_categorical_crossentropy(y[1000:], answers, from_logits=True))
    return {"test_loss": of_each.mean(), "test_accuracy": (answers.argmax(1) == y[1000:]).mean()}, of_each
