"""What verdicts promise: how often they are false, over variants, metrics and looks, with the faults that the simulations must see.

The simulations are those of benchmarks/verdicts.py, with fewer studies.
"""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from keras_dropout.bench import statistics
from keras_dropout.bench.statistics import (
    NO_DIFFERENCE,
    Row,
    compare_family,
    compare_paired,
    counted,
    equivalence,
    opposing,
    qualified,
    resolution,
    sign_flip_p,
    wilcoxon_p,
)

STUDIES = 300
MOST = 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)


@pytest.fixture(scope="module")
def simulated():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        yield importlib.import_module("verdicts")


def studies(simulated, noise="normal", variants=3, seeds=6, number=STUDIES):
    generator = np.random.default_rng([variants, seeds])
    return [simulated.rows(simulated.study(generator, simulated.NOISE[noise], variants, seeds)) for _ in range(number)]


@pytest.mark.parametrize(("variants", "seeds"), [(1, 8), (3, 6)])
@pytest.mark.parametrize("noise", ["normal", "Student's t, 3 degrees", "lattice", "normal, one in ten 10 x as wide"])
def test_any_false_verdict_over_variants_and_metrics_is_rare(simulated, noise, variants, seeds):
    wrong = [simulated.any_verdict(compare_family(each)) for each in studies(simulated, noise, variants, seeds)]
    assert np.mean(wrong) < MOST


def test_a_family_for_each_metric_would_not_keep_the_promise(simulated):
    """The planted fault: six metrics, each tested as if alone."""
    assert np.mean([simulated.by_metric(each) for each in studies(simulated, "Student's t, 3 degrees", 3, 8)]) > MOST


def test_other_verdicts_stay_rare_beside_variants_that_differ(simulated):
    wrong = 0
    for made in studies(simulated):
        for (metric, variant), row in made.items():
            if variant == 0:
                row.differences[:] += 0.1 if metric == "accuracy" else -0.1
        wrong += any(each.verdict != NO_DIFFERENCE for key, each in compare_family(made).items() if key[1])
    assert wrong / STUDIES < MOST


def test_a_row_that_is_there_twice_changes_nothing(simulated):
    for made in studies(simulated, number=5):
        twice = compare_family(made | {("again", number): row for (_, number), row in made.items() if _ == "loss"})
        assert {key: twice[key] for key in made} == compare_family(made)


def test_one_sided_flips_are_the_step_down_maximum_by_brute_force():
    rows = np.random.default_rng(0).normal(0.6, 1, (4, 6))

    def t(x):
        return stats.ttest_1samp(x, 0, axis=-1).statistic

    seen, patterns = t(rows), [np.array(signs) for signs in itertools.product((1, -1), repeat=6)]
    order, expected, floor = np.argsort(-seen), np.empty(4), 0
    for step, row in enumerate(order):
        rest = order[step:]
        floor = max(floor, np.mean([t(rows[rest] * signs).max() >= seen[row] - 1e-9 for signs in patterns]))
        expected[row] = floor
    np.testing.assert_allclose(statistics._sign_flips(list(rows), two_sided=False)[1], expected)


def test_many_rows_are_compared_in_little_memory():
    rows = np.random.default_rng(0).normal(size=(300, 20))
    assert sign_flip_p(rows[:7]) == pytest.approx(statistics._sign_flips(rows[:7])[1])
    assert len(sign_flip_p(rows)) == 300


# Runs that diverged


@pytest.mark.parametrize("seeds", [6, 8])
def test_false_verdicts_stay_rare_where_runs_diverge(seeds):
    generator, wrong = np.random.default_rng(seeds), 0
    for _ in range(STUDIES):
        runs = np.where(generator.random((4, seeds)) < 0.15, np.inf, generator.normal(size=(4, seeds)))
        with np.errstate(invalid="ignore"):
            found = compare_paired(dict(zip("abc", runs[1:] - runs[0])), higher_is_better=False)
        wrong += any(each.verdict != NO_DIFFERENCE for each in found.values())
    assert wrong / STUDIES < MOST


def test_a_diverged_run_counts_as_far_as_the_farthest_pair():
    np.testing.assert_array_equal(counted(np.array([-1.0, -3.0, np.inf, np.nan])), [-1, -3, 3, np.nan])
    np.testing.assert_array_equal(counted(np.array([np.inf, -np.inf, 0.0])), [1, -1, 0])


def test_half_of_the_runs_diverging_is_no_gain_and_all_of_them_a_loss():
    half = np.array([-0.05, -0.06, -0.05, -0.04, -0.05, -0.05] + 6 * [np.inf])
    found = compare_paired({"half": half, "all": np.full(12, np.inf), "few": np.append(half[:6], np.full(6, np.nan))}, False)
    assert [each.verdict for each in found.values()] == [NO_DIFFERENCE, "worse", "better"]
    assert (found["half"].mean, found["half"].pairs) == (pytest.approx(-0.05), 6)
    assert (found["all"].interval, found["all"].pairs) == (None, 0)
    assert compare_paired({"baseline": np.full(6, -np.inf)}, False)["baseline"].verdict == "better"


def test_ranks_of_diverged_runs_are_the_highest():
    finite = np.array([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, 100.0])
    assert wilcoxon_p(np.where(finite == 100, np.inf, finite)) == wilcoxon_p(finite) > 0.05
    assert wilcoxon_p(np.full(6, np.inf)) == pytest.approx(wilcoxon_p(np.full(6, 1.0)))


# Differences that are rounding


def test_the_resolution_is_float32_rounding_or_one_example():
    ulp = float(np.finfo("float32").eps)
    np.testing.assert_allclose(resolution(np.array([0.3, -2.0, np.inf]), np.array([0.1, 1.0, 0.5])), [8 * ulp * 0.3, 16 * ulp, 0])
    np.testing.assert_allclose(resolution(np.array([0.9]), np.array([0.8]), 0.01), [0.01])


def test_six_equal_roundings_show_nothing():
    def verdict(difference, size):
        row = Row(np.full(6, difference), False, resolution(np.full(6, size), np.full(6, size)))
        return compare_family({"": row})[""].verdict

    assert verdict(-1e-8, 0.3) == verdict(-1.2e-7, 1.0) == NO_DIFFERENCE
    assert verdict(-1e-5, 0.3) == verdict(-1e-8, 1e-3) == "better"


def test_less_than_one_example_is_no_difference_and_one_is():
    row = {number: Row(np.array(number * [0.01] + (8 - number) * [0.0]), True, 0.01) for number in (6, 8)}
    assert [each.verdict for each in compare_family(row).values()] == [NO_DIFFERENCE, "better"]
    assert compare_paired({"": row[6].differences}, True)[""].verdict == "better"  # what the resolution prevents


# Within a margin


@pytest.mark.parametrize("noise", ["normal", "Student's t, 3 degrees", "lattice"])
@pytest.mark.parametrize(("variants", "seeds"), [(1, 6), (3, 6), (3, 10)])
def test_false_sameness_is_rare(simulated, noise, variants, seeds):
    """With every mean on the margin."""
    generator, wrong = np.random.default_rng([variants, seeds]), 0
    for _ in range(STUDIES):
        differences = dict(enumerate(1 + simulated.NOISE[noise](generator, (variants, seeds))))
        wrong += any("within" in each.verdict for each in compare_paired(differences, False, margin=1.0).values())
    assert wrong / STUDIES < MOST


def test_two_one_sided_t_tests_alone_would_not_keep_that_promise():
    """The planted faults: two seeds on a lattice, and each of several variants alone."""
    generator = np.random.default_rng(0)
    few = 1 + generator.choice([-0.1, 0.0], size=(STUDIES, 2))
    assert np.mean([equivalence(each, 1.0, False).p <= 0.05 for each in few]) > 0.2
    assert {compare_paired({"": each}, False, margin=1.0)[""].verdict for each in few} == {NO_DIFFERENCE}
    many = 1 + generator.normal(size=(STUDIES // 3, 6, 8))
    assert np.mean([any(equivalence(each, 1.0, False).p <= 0.05 for each in rows) for rows in many]) > 2 * MOST


def test_equal_differences_have_the_spread_of_the_resolution():
    values = np.full(6, 0.9)
    found = equivalence(values, 1.0, False, resolution=0.1)
    half = stats.t.isf(0.05, 5) * 0.1 / 6**0.5
    assert found.interval == pytest.approx((0.9 - half, 0.9 + half))
    assert found.p == pytest.approx(stats.t.cdf(-(6**0.5), 5))
    assert equivalence(values, 1.0, False).p == 0


def test_six_seeds_show_many_variants_within_the_margin_but_none_that_diverged():
    noise = np.random.default_rng(0).normal(0, 0.01, (20, 6))
    differences = dict(enumerate(noise)) | {"diverged": np.append(noise[0, 1:], np.inf)}
    found = compare_paired(differences, False, margin=0.1)
    assert {each.verdict for name, each in found.items() if name != "diverged"} == {"same within the margin"}
    assert (found["diverged"].verdict, found["diverged"].equivalence.p_adjusted) == (NO_DIFFERENCE, 1)


def test_while_pairs_are_added_only_the_last_shows_sameness():
    row = {"": Row(np.random.default_rng(0).normal(0, 0.01, 8), False, margin=0.1)}
    assert compare_family(row, {"": None})[""].verdict == NO_DIFFERENCE
    assert compare_family(row, {"": None}, {""})[""].verdict == "same within the margin"


# Most runs, or the mean


def test_a_verdict_says_of_what_it_is_true():
    others = [-1.0, -1.2, -0.8, -1.0, -1.1, -0.9, -1.0, -1.0, -1.0]
    wide = [-1.0, -3.0, 0.0, -2.0, 1.0, -1.0, -1.0, -2.0, -1.0]
    assert [qualified("better", np.array([*others, last]), False) for last in (0.9, 1.1)] == ["better", "better in most runs"]
    beyond = np.mean(wide) + 4 * np.std(wide, ddof=1)
    assert qualified("better", np.array([*wide, beyond - 0.01]), False) == "better"
    assert qualified("better", np.array([*wide, beyond + 0.01]), False) == "better in most runs"
    most = np.array(9 * [-1.0] + [3.0])
    assert qualified("better", most, False) == "better in most runs"
    assert opposing(-most) == 9
    assert qualified("better", np.array([*(6 * [-2.0, -0.5, -1.0]), 0.9]), False) == "better"
    assert qualified("better", np.array(9 * [-1.0] + [np.inf]), False) == "better in most runs"
    assert qualified("worse", np.array(9 * [-1.0] + [-np.inf]), True) == "worse"
    assert qualified("better", np.array(11 * [0.1] + 9 * [-10.0]), False) == "better on average"
    assert qualified("better", np.array(6 * [0.1] + 6 * [0.0]), True) == "better on average"
    assert qualified(NO_DIFFERENCE, most, False) == NO_DIFFERENCE
    assert opposing(np.full(3, np.nan)) is None
    assert opposing(np.array([-0.1, 1.0])) is None  # too few
    assert opposing(np.array(6 * [0.1] + 6 * [-np.inf])) is None  # half of them is no exception


def test_a_bad_run_that_is_seen_takes_the_flat_word_away():
    """Equal means; one run in twelve goes wrong by ten standard deviations. The planted fault: `better` beside such a run."""
    generator, flat, fault = np.random.default_rng(0), [], []
    for _ in range(STUDIES):
        bad = generator.random(30) < 1 / 12
        differences = generator.normal(0, 1, 30) + 10 * (bad - 1 / 12)
        word = compare_paired({"": differences}, False)[""].verdict
        flat.append(word == "better" and bad.any())
        fault.append(word.startswith("better") and bad.any())
    assert np.mean(flat) <= 0.01 < np.mean(fault)


def test_normal_differences_are_seldom_said_to_be_of_most_runs():
    generator = np.random.default_rng(0)
    words = [compare_paired({"": generator.normal(-1, 1, 10)}, False)[""].verdict for _ in range(STUDIES)]
    assert sum(word == "better in most runs" for word in words) < 0.05 * sum(word.startswith("better") for word in words)
