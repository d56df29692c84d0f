"""Where variants disagree on test examples, and which classes they take for others, against slow counts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from keras_dropout.bench import disagreement

ANSWERS = np.array([0, 1, 2, 2, 1, 0])
NONE = [np.array([0, 1, 2, 2, 0, 1]), np.array([0, 1, 2, 1, 0, 1])]
HALF = [np.array([0, 1, 2, 2, 1, 1]), np.array([0, 2, 2, 2, 1, 1])]
LOSSES = {"none": [np.zeros(6)] * 2, "half": [np.array([0, 0.1, 0, 0.2, 0, 9.0])] * 2}


def test_the_most_disputed_come_first_and_unanimous_ones_not_at_all():
    found = disagreement.disputed(ANSWERS, np.arange(6), {"none": NONE, "half": HALF}, LOSSES)
    assert found == [
        4,
        3,
        1,
    ]  # right in 0 and 2 of 2; 1 and 2, with the larger difference in loss; 2 and 1; the last is wrong in all


def test_only_candidates_and_seeds_that_there_are_count():
    assert disagreement.disputed(ANSWERS, np.array([1, 3]), {"none": [NONE[0], None], "half": HALF}, LOSSES) == [1]
    assert disagreement.disputed(ANSWERS, np.arange(6), {"none": [None, None], "half": HALF}, LOSSES) == []


def test_values_are_disputed_by_their_losses():
    losses = {"none": [np.array([1.0, 1, 5])], "half": [np.array([1.0, 2, 1])]}
    predictions = {name: [np.zeros(3, "float32")] for name in losses}
    assert disagreement.disputed(np.zeros(3, "float32"), np.arange(3), predictions, losses) == [2, 1]
    assert disagreement.confusion(np.zeros(3, "float32"), predictions, "none") is None
    assert disagreement.disputed(np.array([7, 1, 100], "uint8"), np.arange(3), predictions, losses) == [
        2,
        1,
    ]  # whole, but quantities


labels = st.lists(st.integers(0, 4), min_size=8, max_size=8).map(np.array)
seeds = st.lists(st.none() | labels, min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(answers=labels, none=seeds, half=seeds)
def test_confusion_is_that_of_scikit_learn(answers, none, half):
    found = disagreement.confusion(answers, {"none": none, "half": half}, "none")
    there = [each for each in (*none, *half) if each is not None]
    if not there:
        assert found is None
        return
    names = range(1 + max(each.max() for each in (answers, *there)))
    for name, predicted in (("none", none), ("half", half)):
        slow = [confusion_matrix(answers, each, labels=names) for each in predicted if each is not None]
        assert (found["mean"][name] is None) if not slow else np.allclose(found["mean"][name], np.mean(slow, axis=0))
    slow = [
        confusion_matrix(answers, b, labels=names) - confusion_matrix(answers, a, labels=names)
        for a, b in zip(none, half)
        if a is not None and b is not None
    ]
    assert list(found["difference"]) == ["half"]
    assert (found["difference"]["half"] is None) if not slow else np.allclose(found["difference"]["half"], np.mean(slow, axis=0))


def test_many_classes_have_no_matrix():
    many = np.arange(21)
    assert disagreement.confusion(many, {"none": [many]}, "none") is None
    assert disagreement.confusion(many[:20], {"none": [many[:20]]}, "none")["number"] == 20
