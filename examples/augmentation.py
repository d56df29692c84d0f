"""Dropout with and without augmentation: an image study on live streams of tf.data.

Each run asks `plain` or `augmented` for its streams with its own seed, and Keras's `fit` iterates them: crops and flips are drawn
anew in each epoch, and are the same for all variants of a seed. The images are those of `keras_dropout.bench.data.cifar`: with
KERAS_DROPOUT_DATA they come from that folder, maybe as a JPEG copy.

Run: keras-dropout compare examples/augmentation.py:model --data examples/augmentation.py:augmented \
         --variant dropout="last_hidden=0.5" --backend tensorflow --epochs 10
"""

import functools

import keras
from keras import layers

TRAIN, VALIDATION, TEST, BATCH = 5000, 500, 5000, 64


@functools.cache  # once in each process
def images():
    """Return the images of the three parts as (x, y), x from 0 to 1."""
    from keras_dropout.bench.data.cifar import cifar10

    data = cifar10(train=TRAIN + VALIDATION, test=TEST)
    x, y = data.train.x.astype("float32") / 255, data.train.y
    return (x[VALIDATION:], y[VALIDATION:]), (x[:VALIDATION], y[:VALIDATION]), (data.test.x.astype("float32") / 255, data.test.y)


def plain(seed):
    """Return streams without augmentation; the order of the training images is drawn from the seed."""
    import tensorflow as tf

    train, validation, test = images()
    stream = tf.data.Dataset.from_tensor_slices(train).shuffle(TRAIN, seed=seed)
    return stream.batch(BATCH), validation, test


def augmented(seed):
    """Return streams whose training images are cropped and flipped at random."""
    import tensorflow as tf

    def change(image, label):
        padded = tf.pad(image, [[4, 4], [4, 4], [0, 0]], "REFLECT")
        return tf.image.random_flip_left_right(tf.image.random_crop(padded, (32, 32, 3), seed=seed), seed=seed), label

    train, validation, test = images()
    stream = tf.data.Dataset.from_tensor_slices(train).shuffle(TRAIN, seed=seed).map(change)
    return stream.batch(BATCH), validation, test


def model():
    """Return a small convolutional network."""
    made = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="last_hidden"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made
