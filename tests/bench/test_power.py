"""The power that is said is that of the rule itself: by simulation, and by the old formula as a planted fault."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from keras_dropout.bench.power import detectable_difference, detectable_effect, detectable_floor, pairs_needed, power, sd_interval
from keras_dropout.bench.statistics import Row, compare_family, mean_interval, sign_flip_p, verdict


def seen(effect, pairs, rows, studies=300):
    """The share of studies in which the comparison calls the first row better, beside rows without an effect."""
    draws, found = np.random.default_rng([pairs, rows]), 0
    for _ in range(studies):
        table = draws.normal(size=(rows, pairs))
        table[0] += effect
        found += verdict(table[0].mean(), mean_interval(table[0]), sign_flip_p(list(table))[0], True) == "better"
    return found / studies


def without_adjustment(pairs):
    """The effect that a two-sided t test of one row finds with 80 % power."""
    bound = stats.t.isf(0.025, pairs - 1)
    return optimize.brentq(lambda effect: stats.nct.sf(bound, pairs - 1, effect * math.sqrt(pairs)) - 0.8, 0.1, 8)


@pytest.mark.parametrize(("pairs", "rows"), [(6, 1), (6, 10), (8, 3), (10, 6), (12, 3)])
def test_eighty_percent_power_is_eighty_percent(pairs, rows):
    noise = 3.5 * math.sqrt(0.8 * 0.2 / 300)
    assert seen(detectable_effect(pairs, rows), pairs, rows) == pytest.approx(0.8, abs=noise)
    if pairs < 10:  # the planted fault: what a t test without adjustment would promise
        assert seen(without_adjustment(pairs), pairs, rows) < 0.8 - noise


def test_six_pairs_must_all_agree():
    """One row of six pairs needs six signs alike and an interval without zero."""
    draws = np.random.default_rng(0).normal(1.5, 1, (200_000, 6))
    alike = (draws > 0).all(axis=1)
    t = draws.mean(axis=1) / draws.std(axis=1, ddof=1) * math.sqrt(6)
    assert power(1.5, 6) == pytest.approx(np.mean(alike & (t > stats.t.isf(0.025, 5))), abs=0.01)
    assert power(1.5, 6) <= stats.norm.cdf(1.5) ** 6


def test_many_pairs_of_one_row_have_the_power_of_a_t_test():
    """34 and 15 pairs for d = 0.5 and 0.8 are the known answers."""
    assert [pairs_needed(1, size) for size in (0.5, 0.8)] == [34, 15]
    assert pairs_needed(3, -1.5) == 34
    assert detectable_effect(40) == pytest.approx(without_adjustment(40))


def test_power_falls_with_rows_and_rises_with_pairs_and_effect():
    effects = np.array([[detectable_effect(pairs, rows) for rows in (1, 2, 5, 12, 40, 150)] for pairs in range(6, 30)])
    assert (np.diff(effects, axis=1) > 0).all()
    assert (np.diff(effects, axis=0) < 0).all()
    assert np.all(np.diff([power(effect, 7, 4) for effect in np.linspace(0, 4, 30)]) > 0)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("sd", "pairs"), [(0.01, 6), (3.0, 9), (1.0, 14), (2.0, 130)])
def test_detectable_difference_and_pairs_needed_are_inverse(sd, pairs, rows):
    found = detectable_difference(sd, pairs, rows, 0.9)
    assert power(found / sd, pairs, rows) == pytest.approx(0.9, abs=1e-3)
    assert pairs_needed(sd, found * 1.001, rows, 0.9) <= pairs
    assert pairs_needed(sd, found * 0.97, rows, 0.9) > pairs


def test_what_no_number_of_pairs_shows():
    assert pairs_needed(1, 0) is None
    assert pairs_needed(1, 1e-4) is None
    assert pairs_needed(0, 1) == pairs_needed(1, 100) == 6
    assert {pairs_needed(1, 10.0**size) for size in range(2, 300)} == {6}  # also where SciPy's distribution gives nothing
    assert detectable_difference(1, 5) is None
    assert detectable_difference(0, 6) == 0
    assert power(9, 5) == 0


def test_the_interval_of_the_spread_holds_it():
    draws = np.random.default_rng(0).normal(0, 2, (4000, 6)).std(axis=1, ddof=1)
    low, high = sd_interval(1.0, 6)
    assert np.mean((low * draws <= 2) & (high * draws >= 2)) == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / 4000))
    assert pairs_needed(low, 1.0) < pairs_needed(1.0, 1.0) < pairs_needed(high, 1.0)


@pytest.mark.parametrize(("pairs", "rows"), [(6, 1), (6, 4), (8, 2), (12, 1), (25, 3)])
def test_the_power_with_overlap_is_that_of_its_rule(pairs, rows):
    generator, studies, shown, overlap = np.random.default_rng([pairs, rows]), 800, 0, 0.28
    effect = detectable_effect(pairs, rows, overlap=overlap)
    assert effect > detectable_effect(pairs, rows)
    for _ in range(studies):
        table = generator.normal(size=(rows, pairs)) + np.sqrt(overlap) * generator.normal(size=(rows, 1))
        table[0] += effect
        shown += compare_family({n: Row(each, True, overlap=overlap) for n, each in enumerate(table)})[0].verdict == "better"
    assert shown / studies == pytest.approx(0.8, abs=0.05)


def test_with_overlap_no_number_of_pairs_shows_less_than_the_floor():
    floor = detectable_floor(1.0, 0.25, rows=3)
    effects = [detectable_effect(pairs, 3, overlap=0.25) for pairs in (10, 100, 1000, 10_000)]
    assert np.all(np.diff(effects) < 0)
    assert min(effects) > floor == pytest.approx(effects[-1], rel=0.01)
    assert pairs_needed(1.0, 0.99 * floor, 3, overlap=0.25) is None
    needed = pairs_needed(1.0, 1.1 * floor, 3, overlap=0.25)
    assert detectable_effect(needed, 3, overlap=0.25) <= 1.1 * floor < detectable_effect(needed - 1, 3, overlap=0.25)
    assert detectable_floor(1.0, 0.0) == 0.0
