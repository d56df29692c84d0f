"""A GAN that draws digits of 8x8 pixels, with a train_step of its own on TensorFlow: does its discriminator want dropout?

Run: keras-dropout compare examples/trainings/gan.py:train --backend tensorflow --lower-is-better test_frechet_distance
         --variant discriminator="discriminator.hidden=0.3" --variant both="discriminator.hidden=0.3, generator.hidden=0.3"

The figure is the Fréchet distance between normal distributions fitted to the pixels of real digits, which were not trained on, and
of drawn ones. Its better side is not known by its name, so the command says it.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

NOISE = 16


class GAN(keras.Model):
    """Two networks that train against each other."""

    def __init__(self, discriminator, generator):
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.optimizers = [keras.optimizers.Adam(3e-4, beta_1=0.5) for _ in range(2)]
        self.loss_of = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real):
        noise = tf.random.normal((tf.shape(real)[0], NOISE))
        with tf.GradientTape() as tape:
            scores = self.discriminator(tf.concat([real, self.generator(noise, training=True)], 0), training=True)
            of_real, of_drawn = tf.split(scores, 2)
            loss = self.loss_of(tf.ones_like(of_real), of_real) + self.loss_of(tf.zeros_like(of_drawn), of_drawn)
        self.step(tape, loss, self.discriminator, self.optimizers[0])
        with tf.GradientTape() as tape:
            scores = self.discriminator(self.generator(noise, training=True), training=True)
            wanted = self.loss_of(tf.ones_like(scores), scores)
        self.step(tape, wanted, self.generator, self.optimizers[1])
        return {"discriminator_loss": loss, "generator_loss": wanted}

    def step(self, tape, loss, model, optimizer):
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))


def frechet_distance(one, other):
    """Return the squared Fréchet distance between normal distributions fitted to the rows of two arrays."""
    (a, b), (s, t) = ([f(rows) for rows in (one, other)] for f in (lambda x: x.mean(0), lambda x: np.cov(x, rowvar=False)))
    values, vectors = np.linalg.eigh(s)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ t @ root), 0)).sum()
    return float(((a - b) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * cross)


def train(run):
    """Train on 1,000 digits and return how far 797 drawn ones are from the 797 others."""
    x = load_digits().data.astype("float32") / 8 - 1
    real, others = x[:1000], x[1000:]
    discriminator = keras.Sequential(
        [layers.Input((64,)), layers.Dense(128, "leaky_relu"), layers.Dense(64, "leaky_relu"), layers.Dense(1)]
    )
    generator = keras.Sequential(
        [layers.Input((NOISE,)), layers.Dense(128, "relu"), layers.Dense(128, "relu"), layers.Dense(64, "tanh")]
    )
    model = GAN(run.place(discriminator, "discriminator"), run.place(generator, "generator"))
    model.compile()
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: run.log(logs, epoch + 1))
    model.fit(real, batch_size=50, epochs=run.epochs or 100, verbose=0, callbacks=[told])
    drawn = model.generator.predict(np.random.default_rng(run.seed).normal(size=(len(others), NOISE)).astype("float32"), verbose=0)
    return {"test_frechet_distance": frechet_distance(others, drawn)}
