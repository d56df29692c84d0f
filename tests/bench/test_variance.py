"""The parts of a variance over new divisions of the data, against examples and seeds whose parts are known."""

import numpy as np
import pytest

from keras_dropout.bench.variance import variance_parts


def studies(generator, number, seed_sd, examples=300, test=60, seeds=12):
    """Differences of models that no training changes: those of 300 examples, of which each division tests 60, and of the seed.

    Nothing comes from the division but the choice of the test examples.
    """
    for _ in range(number):
        each = generator.normal(0, 1, examples)
        losses = [generator.permutation(each)[:test] + seed_sd * generator.normal() for _ in range(seeds)]
        yield np.array([one.mean() for one in losses]), losses, seed_sd * generator.normal(size=seeds)


@pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.3])
def test_parts_are_without_bias(seed_sd):
    found = [
        variance_parts(differences, losses, [300] * len(losses), fixed)
        for differences, losses, fixed in studies(np.random.default_rng(int(10 * seed_sd)), 400, seed_sd)
    ]
    of_examples = 0.8 / 60  # (1 - n / N) v / n
    total, examples, seed = (np.mean([getattr(each, name) for each in found]) for name in ("total", "examples", "seed"))
    assert examples == pytest.approx(of_examples, rel=0.02)
    assert seed == pytest.approx(seed_sd**2, rel=0.1)
    assert total == pytest.approx(of_examples + seed_sd**2, rel=0.06)
    floored = [each for each in found if each.floored]
    assert 0.3 < len(floored) / len(found) < 0.7  # the rest is 0 on average
    assert all(each.division == 0 for each in floored)
    for each in found:
        if not each.floored:
            assert each.division == pytest.approx(each.total - each.examples - each.seed)


def test_what_the_division_does_is_in_the_rest():
    generator = np.random.default_rng(1)
    found = []
    for differences, losses, fixed in studies(generator, 200, 0.1):
        trained = generator.normal(0, 0.5, len(differences))  # other training data make another model
        found.append(variance_parts(differences + trained, losses, [300] * len(losses), fixed))
    assert np.mean([each.division for each in found]) == pytest.approx(0.25, rel=0.06)
    assert not any(each.floored for each in found)


def test_seeds_are_known_from_three_with_one_division():
    (differences, losses, fixed), *_ = studies(np.random.default_rng(2), 1, 0.3)
    fixed[3:] = np.nan
    assert variance_parts(differences, losses, [300] * 12, fixed).seed == pytest.approx(fixed[:3].var(ddof=1))
    fixed[2] = np.nan
    few = variance_parts(differences, losses, [300] * 12, fixed)
    assert (few.seed, few.fixed_seeds) == (None, 2)
    assert few.examples + few.division == pytest.approx(few.total)
    assert variance_parts(differences[:1], losses[:1], [300], fixed) is None
    assert variance_parts(differences, [], [], fixed) is None
