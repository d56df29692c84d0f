"""Compiled models for the data that data.py writes, each built to fit the data it is given.

Run: python examples/data.py diabetes FOLDER
     keras-dropout compare examples/models.py:regression --data FOLDER/diabetes.csv --target target
     python examples/data.py penguins FOLDER
     keras-dropout compare examples/models.py:classifier --data FOLDER/penguins.csv --target species
     python examples/data.py digits FOLDER
     keras-dropout compare examples/models.py:classifier --data FOLDER/digits.npz --divide-by 16
     python examples/data.py reviews FOLDER
     keras-dropout compare examples/models.py:text --data FOLDER/reviews.csv --target category --text text
     keras-dropout compare examples/models.py:convnet --data FOLDER/cifar-10-jpeg.tar.gz --divide-by 255

regression   two hidden layers, one number out; Adam 0.01, for targets in their own units
classifier   two hidden layers, a softmax; tables, and small images as they are
convnet      three convolutions of stride 2 behind random flips; folders or archives of images
text         embedding, mean over the words, a dense layer; texts as numbers of words
"""

import keras
from keras import layers


def regression(input_shape):
    """One number from a row of a table."""
    model = keras.Sequential(
        [
            layers.Input(input_shape),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    return model


def classifier(input_shape, outputs):
    """A class from a row of a table or a small image."""
    model = keras.Sequential(
        [
            layers.Input(input_shape),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(outputs, activation="softmax"),
        ]
    )
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def convnet(input_shape, outputs):
    """A class from a colour image; the flips are made in training only."""
    model = keras.Sequential(
        [
            layers.Input(input_shape),
            layers.RandomFlip("horizontal"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(outputs, activation="softmax"),
        ]
    )
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def text(input_shape, outputs, vocabulary):
    """A class from the numbers of the words, where 0 is no word."""
    words = layers.Input(input_shape, dtype="int32")
    x = layers.Embedding(vocabulary, 32, mask_zero=True)(words)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(32, activation="relu")(x)
    model = keras.Model(words, layers.Dense(outputs, activation="softmax")(x))
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
