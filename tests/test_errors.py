"""The first line of an error of other code, as our messages quote it."""

import keras
import pytest

from keras_dropout.errors import described, first_line


class Mute(keras.layers.Layer):
    def __init__(self, width):
        super().__init__()

    def get_config(self):
        return {"size": 3}


class Raising(keras.layers.Layer):
    def call(self, x):
        raise ValueError("the batch is odd")


def test_of_a_layer_that_raises_it_is_what_the_layer_says():
    with pytest.raises(ValueError, match="the batch is odd") as caught:
        Raising()(keras.ops.ones((1, 2)))
    assert first_line(caught.value) == "the batch is odd"
    assert described(caught.value) == "ValueError: the batch is odd"


def test_of_a_configuration_it_is_what_is_wrong_with_it():
    with pytest.raises(TypeError, match="deserializ") as caught:
        keras.layers.deserialize({"class_name": "Mute", "config": {"size": 3}, "module": None}, {"Mute": Mute})
    assert described(caught.value) == "TypeError: Mute.__init__() got an unexpected keyword argument 'size'"


@pytest.mark.parametrize(
    ("text", "line"), [("", "no message"), (" \n\n", "no message"), ("\n one \ntwo", "one"), ("\x1b[1mred\x1b[0m", "red")]
)
def test_the_first_line_that_says_something(text, line):
    assert first_line(RuntimeError(text)) == line


def test_a_long_line_is_cut():
    assert described(KeyError("x" * 999)) == "KeyError: '" + "x" * 299
