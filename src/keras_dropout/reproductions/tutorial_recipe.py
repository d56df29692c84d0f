"""The tutorial's own experiment: its two published figures, and the effect of its dropout."""

from keras_dropout.bench.study.recipes import find
from keras_dropout.reproductions.framework import Expectation, Part, Reproduction, minus

_RECIPE = find("fashion-mnist-mlp")
_LOSS, _ACCURACY = _RECIPE.published["test_loss"], _RECIPE.published["test_accuracy"]


def _parts(quick: bool) -> dict[str, Part]:
    # The quick version is also the whole experiment: fewer images or epochs would give other figures.
    settings = {"split": "as-published"}
    return {"recipe": Part(_RECIPE.name, None, ["as-published"], _RECIPE.epochs, _RECIPE.batch_size, settings=settings)}


REPRODUCTION = Reproduction(
    name="tutorial-recipe",
    title="The tutorial's own experiment",
    claim=f"With dropout of 0.2 on the input and behind each hidden layer, the network ends with a test loss of {_LOSS} and a test "
    f"accuracy of {_ACCURACY}.",
    source="The tutorial on dropout in Keras, October 2024: Fashion-MNIST, 784-200-100-60-10, 60 epochs",
    parts=_parts,
    expectations=(
        Expectation(
            "test loss, as published",
            lambda found: found.values("test_loss", "as-published"),
            figure=_LOSS,
            tolerance=0.01,
            published=f"test loss {_LOSS}, one run",
        ),
        Expectation(
            "test accuracy, as published",
            lambda found: found.values("test_accuracy", "as-published"),
            figure=_ACCURACY,
            tolerance=0.005,
            published=f"test accuracy {_ACCURACY}, one run",
        ),
        Expectation(
            "test loss: none minus as published",
            minus("test_loss", "none", "as-published"),
            above=0.0,
            published="dropout reduces overfitting",
        ),
    ),
    differs="In nothing but the random numbers and the backend: all 60,000 images are trained on, those of the validation too.",
    quick_seconds=200,
    quick_seeds=6,
)
