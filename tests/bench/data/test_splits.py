"""Every split, for all sizes and shares: whole, disjoint, the same for the same seed, and as its rule says."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_dropout.bench.data.splits import divide
from keras_dropout.errors import BadInput

sizes = st.integers(10, 300)
shares = st.floats(0.01, 0.8)
seeds = st.integers(0, 2**32)


def check_whole(split, size):
    """Each example is in exactly one part, and each part is in increasing order."""
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(size))
    for part in split:
        assert (np.diff(part) > 0).all()
    assert len(split.train)


def split_or_skip(*arguments, **options):
    try:
        return divide(*arguments, **options)
    except BadInput:
        assume(False)


@given(sizes, shares, shares, seeds)
def test_a_random_split_has_the_sizes_asked_for(size, test, validation, seed):
    split = split_or_skip(size, test=test, validation=validation, seed=seed)
    check_whole(split, size)
    assert len(split.test) == max(1, round(size * test))
    assert len(split.validation) == max(1, round((size - len(split.test)) * validation))
    for part, again in zip(split, divide(size, test=test, validation=validation, seed=seed)):
        np.testing.assert_array_equal(part, again)


def test_another_seed_gives_another_split():
    drawn = {tuple(divide(100, seed=seed).test) for seed in range(20)}
    assert len(drawn) == 20


def test_each_example_is_held_out_as_often():
    """Over 2,000 seeds each of 20 examples is in the test part with probability 0.2: within 5 standard deviations."""
    times = sum(np.bincount(divide(20, test=0.2, seed=seed).test, minlength=20) for seed in range(2000))
    assert (np.abs(times - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8)).all()


@given(sizes, st.integers(2, 12), shares, seeds, st.data())
def test_classes_keep_their_shares_to_within_one_example(size, kinds, test, seed, data):
    classes = np.array(data.draw(st.lists(st.integers(0, kinds - 1), min_size=size, max_size=size)))
    split = split_or_skip(size, test=test, seed=seed, classes=classes)
    check_whole(split, size)
    pools = ((np.arange(size), split.test, test), (np.sort([*split.train, *split.validation]), split.validation, 0.1))
    for pool, held, share in pools:
        wanted = max(1, round(len(pool) * share)) / len(pool)
        for kind in np.unique(classes[pool]):
            n = (classes[pool] == kind).sum()
            assert abs((classes[held] == kind).sum() - wanted * n) < 1 + 1e-9
            assert (classes[split.train] == kind).any()  # no class is without training examples, the rare ones least of all


def test_a_stratified_split_is_of_the_size_asked_for():
    classes = np.repeat([0, 1, 2], [333, 77, 41])
    split = divide(451, test=0.2, validation=0.1, classes=classes)
    assert [len(part) for part in split] == [325, 36, 90]
    assert np.bincount(classes[split.test]).tolist() == [67, 15, 8]


@given(sizes, st.integers(3, 40), shares, seeds, st.data())
def test_no_group_is_in_two_parts(size, kinds, test, seed, data):
    groups = np.array(data.draw(st.lists(st.integers(0, kinds - 1), min_size=size, max_size=size)))
    split = split_or_skip(size, test=test, seed=seed, groups=groups)
    check_whole(split, size)
    train, validation, held = (set(groups[part]) for part in split)
    assert train
    assert validation
    assert held
    assert len(train) + len(validation) + len(held) == len(train | validation | held)


def test_small_groups_come_near_to_the_share():
    split = divide(1000, test=0.2, validation=0.1, groups=np.arange(1000) // 5)
    assert [len(part) for part in split] == [720, 80, 200]


def test_one_large_group_does_not_become_the_test_part():
    groups = np.where(np.arange(100) < 90, 0, np.arange(100))
    for seed in range(30):
        assert set(groups[divide(100, test=0.05, seed=seed, groups=groups).test]).isdisjoint({0})


@given(sizes, st.integers(3, 400), shares, st.data())
def test_what_is_held_out_is_later(size, latest, test, data):
    times = np.array(data.draw(st.lists(st.integers(0, latest), min_size=size, max_size=size)))
    split = split_or_skip(size, test=test, times=times)
    check_whole(split, size)
    assert times[split.train].max() < times[split.validation].min() <= times[split.validation].max() < times[split.test].min()


def test_distinct_times_give_the_sizes_asked_for():
    times = np.random.default_rng(0).permutation(200)
    split = divide(200, test=0.2, validation=0.1, times=times)
    assert [len(part) for part in split] == [144, 16, 40]
    assert times[split.test].min() == 160


@pytest.mark.parametrize("rule", ["random", "classes", "groups", "times"])
def test_parts_can_be_left_out(rule):
    values = {} if rule == "random" else {rule: np.arange(60) % 6}
    for share in ("test", "validation"):
        split = divide(60, **{share: 0}, **values)
        check_whole(split, 60)
        assert {"test": split.test, "validation": split.validation}[share].size == 0
    assert len(divide(60, test=0, validation=0, **values).train) == 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 9}, "at least 10; got 9"),
        ({"size": 20, "test": 1.0}, "test_split must be in [0, 1); got 1.0"),
        ({"size": 20, "validation": -0.1}, "validation_split must be in [0, 1)"),
        ({"size": 20, "test": float("nan")}, "test_split must be"),
        ({"size": 20, "seed": -1}, "seed must be a whole number"),
        ({"size": 20, "test": 0.99}, "leaves no example of 20 for training"),
        ({"size": 20, "groups": np.zeros(20)}, "3 parts need at least 3 groups; got 1"),
        ({"size": 20, "times": np.zeros(20)}, "3 parts need at least 3 moments; got 1"),
        ({"size": 20, "times": np.arange(20), "groups": np.arange(20)}, "by group or by time; got both"),
        ({"size": 20, "classes": np.arange(20)}, "no class has an example to spare for the test part"),
    ],
)
def test_what_cannot_be_divided_is_refused(arguments, said):
    with pytest.raises(BadInput) as caught:
        divide(**arguments)
    assert said in str(caught.value).splitlines()[0]
    assert len(str(caught.value).splitlines()) == 2
