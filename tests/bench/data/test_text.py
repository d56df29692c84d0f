"""Windows of characters: they follow one another in the text, and the test text is new."""

import platform
from pydoc_data.topics import topics

import numpy as np
import pytest

from keras_dropout.bench.data.text import OTHER, characters
from keras_dropout.errors import BadInput


@pytest.fixture(scope="module")
def found():
    return characters(50_000, window=50)


def text(found, part):
    """What the windows say; # for characters outside the vocabulary."""
    names = np.array(["#", *found.classes[1:]])
    return "".join(names[part.x.reshape(-1)]) + names[part.y[-1, -1]]


def test_the_next_characters_are_the_answers(found):
    for part, windows in ((found.train, 899), (found.test, 99)):
        assert part.x.shape == part.y.shape == (windows, 50)
        assert part.x.dtype == part.y.dtype == np.int32
        x, y = part.x.reshape(-1), part.y.reshape(-1)
        np.testing.assert_array_equal(x[1:], y[:-1])


def test_it_is_the_reference_of_this_python(found):
    assert found.name == f"language reference of Python {platform.python_version()}"
    assert (found.divide_by, found.validation) == (1, 90)
    first = topics[min(topics)][:400]
    assert all(a in (b, "#") for a, b in zip(text(found, found.train), first))


def test_the_vocabulary_is_of_the_most_frequent_training_characters():
    few = characters(50_000, window=50, vocabulary=10)
    assert few.classes[:3] == (OTHER, " ", "e")
    assert (len(few.classes), few.train.x.max(), few.train.x.min()) == (11, 10, 0)
    counts = np.bincount(few.train.x.reshape(-1))
    assert list(counts[1:]) == sorted(counts[1:], reverse=True)
    many = characters(50_000, window=50, vocabulary=1000)
    assert len(many.classes) < 200
    assert (many.train.x > 0).all()
    assert (few.train.x == 0).sum() == (many.train.x > 10).sum()


def test_the_test_text_is_not_known_from_training():
    whole = characters(None)
    train, test = text(whole, whole.train), text(whole, whole.test)
    known = set(train.split("\n\n"))
    repeated = [paragraph for paragraph in test.split("\n\n")[1:-1] if paragraph in known]
    assert len(test) > 20_000
    assert not repeated
    raw = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    assert len(set(raw)) < 0.9 * len(raw)  # which without care would be


def test_it_is_always_the_same(found):
    assert characters(50_000, window=50).fingerprint() == found.fingerprint()


@pytest.mark.parametrize(
    "wrong", [{"length": 100}, {"length": 10**9}, {"window": 0}, {"window": 2.5}, {"vocabulary": 0}, {"length": "all"}]
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(BadInput) as caught:
        characters(**wrong)
    assert next(iter(wrong)) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
