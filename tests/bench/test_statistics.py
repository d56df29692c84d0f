"""Intervals and p-values against scipy, the adjustment against its definition, and the false verdicts by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_dropout.bench.statistics import compare_paired, mean_interval, sign_flip_p, smallest_p, verdict

numbers = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@settings(deadline=None)
@given(numbers)
def test_interval_is_that_of_a_paired_t_test(values):
    values = np.array(values)
    if np.ptp(values) == 0:
        assert mean_interval(values) == (values[0], values[0])
        return
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose(mean_interval(values), (values.mean() - half, values.mean() + half), rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(numbers)
def test_p_is_that_of_scipys_exact_permutation_test(values):
    """Given whole thousandths, of which sums are exact: rounding would break ties in scipy's."""
    values = np.array(values)
    expected = stats.permutation_test(
        (np.round(values * 1000),),
        lambda x, axis: np.abs(x.sum(axis=axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
    ).pvalue
    assert sign_flip_p([values])[0] == pytest.approx(expected)


def test_rounding_breaks_no_tie():
    """No sum of these with signs is nearer to 0 than 0.001, their own: each flip is at least as far."""
    assert sign_flip_p([[1.812, 1.688, 1.781, 1.219, 0.25, -1.125, -1.812, -3.812]])[0] == 1


def test_six_pairs_are_the_fewest_that_can_reach_the_level():
    for pairs in range(1, 9):
        same_sign = np.linspace(1, 2, pairs)
        assert sign_flip_p([same_sign])[0] == pytest.approx(smallest_p(pairs))
    assert smallest_p(5) > 0.05 > smallest_p(6)


def test_adjustment_is_the_step_down_maximum_by_brute_force():
    rows = np.random.default_rng(0).normal(0.3, 1, (4, 6))

    def t(x):
        return np.abs(stats.ttest_1samp(x, 0, axis=-1).statistic)

    seen, patterns = t(rows), [np.array(signs) for signs in itertools.product((1, -1), repeat=6)]
    order = np.argsort(-seen)
    expected, floor = np.empty(4), 0
    for step, row in enumerate(order):
        rest = order[step:]
        floor = max(floor, np.mean([t(rows[rest] * signs).max() >= seen[row] * (1 - 1e-9) for signs in patterns]))
        expected[row] = floor
    np.testing.assert_allclose(sign_flip_p(list(rows)), expected)


def test_three_clear_variants_are_all_found_with_six_seeds():
    """Holm on these p-values could not: 3 * 2 / 2**6 is above 0.05."""
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 6))
    found = compare_paired({"a": 1 + noise[0], "b": -1 + noise[1], "c": 2 + noise[2]}, higher_is_better=True)
    assert [difference.verdict for difference in found.values()] == ["better", "worse", "better"]
    found = compare_paired({"a": 1 + noise[0], "b": -1 + noise[1]}, higher_is_better=False)
    assert [difference.verdict for difference in found.values()] == ["worse", "better"]


@pytest.mark.parametrize("pairs", [6, 8])
def test_false_verdicts_are_rare_when_nothing_differs(pairs):
    """Three variants share a baseline, as in a study; at most 5 % of studies may hold any verdict."""
    generator = np.random.default_rng(pairs)
    studies, wrong = 1500, 0
    for _ in range(studies):
        table = generator.standard_t(4, (3, pairs)) - generator.standard_t(4, pairs)
        found = compare_paired(dict(zip("abc", table)), higher_is_better=True)
        wrong += any(difference.verdict != "no difference shown" for difference in found.values())
    assert wrong / studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_false_verdicts_stay_rare_when_one_variant_is_real():
    """Strong control: the others keep their guarantee beside a variant that does differ."""
    generator = np.random.default_rng(3)
    studies, wrong = 1500, 0
    for _ in range(studies):
        table = generator.normal(0, 1, (3, 6)) - generator.normal(0, 1, 6)
        table[0] += 10
        found = compare_paired(dict(zip("abc", table)), higher_is_better=True)
        wrong += any(found[name].verdict != "no difference shown" for name in "bc")
    assert wrong / studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_missing_runs_are_left_out_by_pair():
    found = compare_paired({"a": np.array([1.0, np.nan, 1.2, 0.9, 1.1, 1.0, 1.3])}, higher_is_better=True)["a"]
    assert (found.pairs, found.verdict) == (6, "better")


@pytest.mark.parametrize("values", [[], [np.nan], [0.5]])
def test_too_few_pairs_give_no_interval_and_no_verdict(values):
    found = compare_paired({"a": np.array(values, float)}, higher_is_better=True)["a"]
    assert found.interval is None
    assert found.verdict == "no difference shown"


def test_no_variants_is_no_difference():
    assert compare_paired({}, higher_is_better=True) == {}


def test_all_equal_is_no_difference():
    assert compare_paired({"a": np.zeros(6)}, higher_is_better=True)["a"].verdict == "no difference shown"


def test_a_verdict_needs_interval_and_p():
    assert verdict(1.0, (-0.1, 2.1), 0.03, True) == "no difference shown"
    assert verdict(1.0, (0.1, 1.9), 0.06, True) == "no difference shown"
    assert verdict(1.0, (0.1, 1.9), 0.05, True) == "better"


def test_many_pairs_are_drawn_and_agree_with_the_t_test():
    values = np.random.default_rng(0).normal(0.25, 1, 60)
    assert sign_flip_p([values])[0] == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
