"""Ready studies on public data: model, data, optimiser, epochs, published figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_dropout.bench.data import public_sets, reviews
from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.records import BASELINE, Variant
from keras_dropout.bench.study import pretrained
from keras_dropout.layers import Dropout
from keras_dropout.models.targets import check_recipe


@dataclass(frozen=True)
class Recipe:
    """A ready study. `model` builds and compiles the model with the published dropout; `data` takes the value of --data-dir.

    `drawn` says whether the test part was drawn at random by class, as new divisions are, or published.
    """

    name: str
    title: str
    model: Callable[[], keras.Model]
    data: Callable[[Any], Data]
    epochs: int
    batch_size: int
    variants: tuple[Variant, ...]
    published: Mapping[str, float]
    source: str
    drawn: bool = False


@keras.saving.register_keras_serializable("keras_dropout")
class CustomModel(keras.Model):
    """The tutorial's model as published: a subclass of `keras.Model` with one dropout layer, called four times."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten(name="flatten")
        self.dropout = Dropout(0.2, name="dropout")
        self.hidden_1 = keras.layers.Dense(200, activation="relu", name="hidden_1")
        self.hidden_2 = keras.layers.Dense(100, activation="relu", name="hidden_2")
        self.hidden_3 = keras.layers.Dense(60, activation="relu", name="hidden_3")
        self.classes = keras.layers.Dense(10, activation="softmax", name="classes")

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.dropout(self.flatten(inputs), training=training)
        for hidden in (self.hidden_1, self.hidden_2, self.hidden_3):
            x = self.dropout(hidden(x), training=training)
        return self.classes(x)


def compile_as_published(model: keras.Model, learning_rate: float = 0.01) -> keras.Model:
    """Compile the model as in the tutorial: SGD, sparse categorical cross-entropy, accuracy."""
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _perceptron(shape: tuple[int, ...], hidden: tuple[int, ...], learning_rate: float) -> keras.Model:
    """Build the functional twin of `CustomModel` for any size: it trains to the same weights, and its sites can be changed."""
    dropout = Dropout(0.2, name="dropout")
    inputs = keras.Input(shape, name="pixels")
    x = dropout(keras.layers.Flatten(name="flatten")(inputs))
    for number, units in enumerate(hidden, 1):
        x = dropout(keras.layers.Dense(units, activation="relu", name=f"hidden_{number}")(x))
    outputs = keras.layers.Dense(10, activation="softmax", name="classes")(x)
    return compile_as_published(keras.Model(inputs, outputs), learning_rate)


_PLACEMENTS = (
    Variant.of(BASELINE, {}),
    Variant.of("as-published", None),
    Variant.of("hidden", {"hidden": 0.2}),
    Variant.of("last", {"last": 0.2}),
)


def _lora_dropout(rate: float) -> Variant:
    return Variant.of(f"lora-{rate:g}", dict.fromkeys(("embedding", "features"), f"LoRADropout({rate:g})"))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="fashion-mnist-mlp",
            title="Fashion-MNIST, 784-200-100-60-10, SGD 0.01: the tutorial's own experiment",
            model=lambda: _perceptron((28, 28), (200, 100, 60), 0.01),
            data=public_sets.fashion_mnist,
            epochs=60,
            batch_size=32,
            variants=_PLACEMENTS,
            published={"test_loss": 0.3264, "test_accuracy": 0.8822},
            source="the tutorial: one shared Dropout(0.2) on the input and after every hidden layer",
        ),
        Recipe(
            name="digits-mlp",
            title="scikit-learn's digits, 64-64-32-10, SGD 0.1: small, to try the command in seconds",
            model=lambda: _perceptron((8, 8), (64, 32), 0.1),
            data=lambda data_dir: public_sets.digits(),
            epochs=30,
            batch_size=32,
            variants=_PLACEMENTS,
            published={},
            source="ours",
            drawn=True,
        ),
        Recipe(
            name="lora-reviews",
            title="400 lines of film reviews, LoRA of rank 8 on two layers that were pretrained on other lines, Adam 0.003",
            model=pretrained.adapted_classifier,
            data=lambda data_dir: reviews.film_reviews(),
            epochs=10,
            batch_size=32,
            variants=(Variant.of(BASELINE, {}), *map(_lora_dropout, (0.1, 0.3, 0.5))),
            published={},
            source="ours",
        ),
    )
}


def find(name: str) -> Recipe:
    """Return the recipe with this name, or refuse an unknown name."""
    check_recipe(name)
    return RECIPES[name]
