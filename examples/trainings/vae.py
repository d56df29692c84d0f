"""A variational autoencoder of digits of 8x8 pixels, on any backend: does its decoder want dropout?

Run: keras-dropout compare examples/trainings/vae.py:train --variant decoder="decoder.hidden=0.1"
         --variant encoder="encoder.hidden=0.1"
"""

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits

CODE = 8


class VAE(keras.Model):
    """An encoder to mean and log-variance of a normal distribution of codes, and a decoder from a code drawn from it."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.noise = keras.random.SeedGenerator(0)

    def call(self, x, training=False):
        mean, log_variance = ops.split(self.encoder(x, training=training), 2, axis=-1)
        code = mean
        if training:
            code = mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.noise)
        return ops.concatenate([self.decoder(code, training=training), mean, log_variance], axis=-1)


def losses(x, answer):
    """Return the negative evidence lower bound of each example, with pixels as probabilities."""
    pixels, mean, log_variance = ops.split(answer, [64, 64 + CODE], axis=-1)
    pixels = ops.clip(pixels, 1e-6, 1 - 1e-6)
    likelihood = -ops.sum(x * ops.log(pixels) + (1 - x) * ops.log(1 - pixels), axis=-1)
    return likelihood + 0.5 * ops.sum(ops.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1)


def train(run):
    """Train on 1,000 digits; return the bound on the others, at the mean of their codes, and that of each."""
    x = load_digits().data.astype("float32") / 16
    encoder = keras.Sequential([layers.Input((64,)), layers.Dense(128, "relu"), layers.Dense(2 * CODE)])
    decoder = keras.Sequential([layers.Input((CODE,)), layers.Dense(128, "relu"), layers.Dense(64, "sigmoid")])
    model = VAE(run.place(encoder, "encoder"), run.place(decoder, "decoder"))
    model.compile("adam", loss=losses)
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: run.log(logs, epoch + 1))
    model.fit(x[:1000], x[:1000], batch_size=32, epochs=run.epochs or 30, verbose=0, callbacks=[told])
    of_each = np.asarray(ops.convert_to_numpy(losses(ops.convert_to_tensor(x[1000:]), model.predict(x[1000:], verbose=0))))
    return {"test_loss": of_each.mean()}, of_each
