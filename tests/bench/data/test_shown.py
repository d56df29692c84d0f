"""What is kept of test examples for reports."""

import numpy as np
import pytest

from keras_dropout.bench.data.dataset import Data, Part, from_arrays
from keras_dropout.bench.data.example_store import MOST_IMAGES, MOST_ROWS, shown
from keras_dropout.bench.data.files import load


def data(x, y, **names):
    return Data("d", Part(x, y), Part(x, y), validation=1, **names)


def test_images_are_small_pictures_with_their_answers():
    x = np.arange(5 * 100 * 30, dtype="float64").reshape(5, 100, 30, 1)
    about, arrays = shown(data(x, np.array([3, 0, 300, 1, 1]), classes=("a", "b")))
    assert about == {"kind": "images", "names": ["a", "b"], "columns": [], "classes": True}
    assert arrays["answers"].tolist() == [3, 0, 300, 1, 1]
    assert (arrays["inputs"].shape, arrays["inputs"].dtype) == ((5, 50, 15), "uint8")
    assert (arrays["inputs"][0, 0, 0], arrays["inputs"].max() >= 254) == (0, True)


def test_of_many_examples_some_are_kept_evenly_and_all_answers():
    number = 5 * MOST_IMAGES
    x = np.zeros((number, 8, 8), "uint8")
    x[:, 0, 0] = np.arange(number) % 200
    _, arrays = shown(data(x, np.arange(number) % 10))
    index = arrays["index"]
    assert (len(index), index[0], index[-1]) == (MOST_IMAGES, 0, number - 1)
    assert np.ptp(np.diff(index)) <= 1
    assert len(arrays["answers"]) == number
    assert arrays["inputs"][:, 0, 0].tolist() == [round(value % 200 / 199 * 255) for value in index]


def test_rows_of_a_table_have_the_names_of_their_columns(tmp_path):
    lines = "".join(f"{n},{n * 2},{'ab'[n % 2]},{n / 3}\n" for n in range(40))
    (tmp_path / "t.csv").write_text(f"one,two,letter,price\n{lines}")
    loaded, about = load(tmp_path / "t.csv", target="price")
    kept, arrays = shown(loaded)
    assert kept == {"kind": "rows", "names": [], "columns": list(about.features), "classes": False}
    assert arrays["inputs"].shape == (len(loaded.test.y), len(about.features))
    assert np.allclose(arrays["answers"], np.ravel(loaded.test.y))
    assert len(shown(data(np.zeros((9000, 2)), np.zeros(9000)))[1]["index"]) == MOST_ROWS


@pytest.mark.parametrize(
    ("x", "kind"),
    [(np.zeros((4, 7, 40), "int32"), "images"), (np.zeros((4, 200), "int32"), "none"), (np.zeros((4, 30, 2)), "none")],
)
def test_what_cannot_be_drawn_has_its_answers(x, kind):
    about, arrays = shown(data(x, np.arange(4)))
    assert about["kind"] == kind
    assert arrays["answers"].tolist() == [0, 1, 2, 3]


def test_negative_answers_are_quantities():
    about, arrays = shown(data(np.zeros((6, 2)), np.array([-5, 3, 100, 7, -2, 1])))
    assert about["classes"] is False
    assert arrays["answers"].tolist() == [-5, 3, 100, 7, -2, 1]


def test_one_hot_answers_are_classes_and_several_answers_are_nothing():
    x = np.zeros((3, 2))
    assert shown(data(x, np.eye(3)))[1]["answers"].tolist() == [0, 1, 2]
    assert shown(data(x, np.ones((3, 2)))) is None
    several = from_arrays(((x, {"a": np.zeros(3), "b": np.zeros(3)}),) * 2)
    assert shown(several) is None
