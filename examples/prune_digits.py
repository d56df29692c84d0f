"""Train a net whose weights learn their own noise, leave out those that are nothing else, and save a plain model.

Run: python examples/prune_digits.py        (needs scikit-learn for the digits; about a minute)
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported; or "tensorflow", "torch"

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_dropout import SparseVariationalDropout

images, labels = load_digits(return_X_y=True)
x, x_test, y, y_test = train_test_split((images / 16).astype("float32"), labels, random_state=0)

model = keras.Sequential(
    [
        keras.Input((64,)),
        SparseVariationalDropout(keras.layers.Dense(300, activation="relu"), kl_weight=0),
        SparseVariationalDropout(keras.layers.Dense(100, activation="relu"), kl_weight=0),
        SparseVariationalDropout(keras.layers.Dense(10, activation="softmax"), kl_weight=0),
    ]
)
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])


def warm_up(epoch, logs=None):
    """Fit first, prune later: a tenth of the divergence, from epoch 5 to 20. Nothing is compiled again."""
    for layer in model.layers:
        layer.kl_weight = 0.1 / len(x) * min(max((epoch - 5) / 15, 0), 1)


model.fit(x, y, batch_size=64, epochs=200, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=warm_up)], verbose=0)
for layer in model.layers:
    print(f"{layer.layer.name}: {layer.sparsity:.1%} of the weights left out")

plain = keras.models.clone_model(model, clone_function=lambda layer: layer.pruned())
plain.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
left = sum(np.count_nonzero(layer.get_weights()[0]) for layer in plain.layers)
print(f"{left} weights left, test accuracy {plain.evaluate(x_test, y_test, verbose=0)[1]:.4f}")
plain.save("digits-pruned.keras")
