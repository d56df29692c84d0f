"""Seeds that are added: the verdicts of all looks are one promise, and seeds go to what is undecided.

The simulations of races are those of benchmarks/racing.py, with fewer studies.
"""

import importlib
import itertools
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import made_up_execution
from scipy import stats

from keras_dropout.bench import racing
from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.ledger.looks import asked_before
from keras_dropout.bench.ledger.lookup import studies as listed
from keras_dropout.bench.racing import (
    DECIDED,
    FUTILE,
    USED,
    first_look,
    hopes,
    race,
    sequential_verdict,
    sequential_verdicts,
    spent,
)
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.statistics import Row, compare_family
from keras_dropout.commands import studies


def spending(pairs, most, alpha):
    """From the definition: nothing before the seventh pair, there one pattern of 64, and the rest by a cube."""
    if pairs < 7:
        return 0.0
    return 1 / 64 + (alpha - 1 / 64) * ((pairs - 7) / (most - 7)) ** 3 if most > 7 else alpha


def test_spending_by_brute_force():
    """With 10 pairs at most: which patterns of signs cross, and when, from the definition."""
    sizes, alpha = np.random.default_rng(0).exponential(size=10) + 0.1, 0.1
    patterns = np.array(list(itertools.product((1, -1), repeat=10)))
    crossed: dict[int, int] = {}
    for pairs in range(1, 11):
        far = np.abs(patterns[:, :pairs] @ sizes[:pairs])
        inside = [row for row in range(1024) if row not in crossed]
        for level in sorted({round(far[row], 9) for row in inside}, reverse=True):
            group = [row for row in inside if round(far[row], 9) == level]
            if len(crossed) + len(group) > 1024 * spending(pairs, 10, alpha) + 1e-9:
                break
            crossed |= dict.fromkeys(group, pairs)
    assert 16 < len(crossed) <= 1024 * alpha
    assert {7, 10} <= set(crossed.values()) <= {7, 8, 9, 10}
    for row, signs in list(enumerate(patterns))[::3]:
        looks = [sequential_verdict((signs * sizes)[:pairs], max_pairs=10, alpha=alpha) for pairs in range(11)]
        assert looks.count(None) == crossed.get(row, 11)
        if row in crossed:
            side = "better" if (signs * sizes)[: crossed[row]].sum() > 0 else "worse"
            assert set(looks[crossed[row] :]) == {side}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5), max_size=25), st.floats(0.01, 100), st.integers(0, 25))
def test_a_sequential_verdict_knows_no_unit_or_side_and_is_never_taken_back(values, unit, cut):
    values, other = np.array(values), {"better": "worse", "worse": "better", None: None}
    found = sequential_verdict(values, max_pairs=20)
    assert sequential_verdict(-values, max_pairs=20) == other[found]
    assert sequential_verdict(values * 2.0 ** round(np.log2(unit)), max_pairs=20) == found
    assert sequential_verdict(values[:20], max_pairs=20) == found
    assert sequential_verdict(np.insert(values, min(cut, len(values)), np.nan), max_pairs=20) == found
    if (early := sequential_verdict(values[:cut], max_pairs=20)) is not None:
        assert found == early


@pytest.mark.parametrize("most", [10, 20])
@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_a_sequential_verdict_that_is_reached_knows_no_unit(most, unit):
    differences = np.random.default_rng(1).normal(1.2, 1, most)
    looks = [sequential_verdict(differences[:pairs], max_pairs=most) for pairs in range(most + 1)]
    assert set(looks) == {None, "better"}
    assert [sequential_verdict(unit * differences[:pairs], max_pairs=most) for pairs in range(most + 1)] == looks


def test_the_side_of_a_sequential_verdict_is_that_of_the_sum():
    """Also where one pair is more than all others."""
    first = first_look(10)
    assert sequential_verdict([1] * (first - 1) + [100], max_pairs=10) == "better"
    assert sequential_verdict([-1] * (first - 1) + [-100], max_pairs=10) == "worse"


def test_the_first_look_is_the_first_that_can_decide():
    assert [first_look(most) for most in (6, 7, 8, 30, 1000)] == [6, 7, 7, 7, 7]
    for most in (6, 7, 8, 10, 20, 30):
        first, same_sign = first_look(most), np.linspace(1, 2, most)
        assert sequential_verdict(same_sign[: first - 1], max_pairs=most) is None
        assert sequential_verdict(same_sign[:first], max_pairs=most) == "better"
        shares = [spent(pairs, most) for pairs in range(most + 1)]
        assert shares == sorted(shares)
        assert shares[-1] == 0.05
        assert not any(shares[:first])
    assert sequential_verdict(np.ones(5), max_pairs=5) is None


NULLS = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "Laplace": lambda generator, shape: generator.laplace(size=shape),
    "t3": lambda generator, shape: generator.standard_t(3, shape),
    "uniform": lambda generator, shape: generator.uniform(-1, 1, shape),
    "outliers": lambda generator, shape: generator.normal(size=shape) * np.where(generator.random(shape) < 0.1, 10, 1),
}
STUDIES = 2000


@pytest.mark.parametrize("most", [6, 10, 20])
@pytest.mark.parametrize("null", NULLS)
def test_false_verdicts_are_rare_however_often_one_looks(null, most):
    studies = NULLS[null](np.random.default_rng(most), (STUDIES, most))
    wrong = sum(sequential_verdict(differences, max_pairs=most) is not None for differences in studies)
    assert 0.01 < wrong / STUDIES < 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)


def test_false_verdicts_are_rare_up_to_fifty_pairs():
    studies = NULLS["t3"](np.random.default_rng(50), (STUDIES, 50))
    wrong = sum(sequential_verdict(differences, max_pairs=50) is not None for differences in studies)
    assert 0.01 < wrong / STUDIES < 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)


def test_rows_of_added_pairs_are_one_family_by_brute_force():
    """With 9 pairs at most: which patterns of signs cross, and when, from the definition."""
    sizes, alpha = np.random.default_rng(1).exponential(size=(3, 9)) + 0.1, 0.1
    sizes *= np.random.default_rng(2).choice([-1, 1], size=sizes.shape)
    patterns = np.array(list(itertools.product((1, -1), repeat=9)))
    crossed: dict[int, int] = {}
    found = {row: [None, None, None] for row in range(512)}
    for pairs in range(1, 10):
        sums = patterns[:, :pairs] @ sizes[:, :pairs].T / np.sqrt((sizes[:, :pairs] ** 2).sum(axis=1))
        far = np.abs(sums).max(axis=1)
        inside, boundary, before = [row for row in range(512) if row not in crossed], np.inf, len(crossed)
        for level in sorted({round(far[row], 9) for row in inside}, reverse=True):
            group = [row for row in inside if round(far[row], 9) == level]
            if len(crossed) + len(group) > 512 * spending(pairs, 9, alpha) + 1e-9:
                boundary = level
                break
            crossed |= dict.fromkeys(group, pairs)
        if int(512 * spending(pairs, 9, alpha) + 1e-9) - before < 1:
            continue
        for row, three in found.items():
            for number in range(3):
                if three[number] is None and abs(sums[row, number]) > boundary + 1e-8:
                    three[number] = "better" if sums[row, number] > 0 else "worse"
    assert 0 < len(crossed) <= 512 * alpha
    assert {tuple(sequential_verdicts(sizes * signs, max_pairs=9, alpha=alpha)) for signs in patterns} == set(
        map(tuple, found.values())
    )
    for row, signs in enumerate(patterns):
        assert sequential_verdicts(sizes * signs, max_pairs=9, alpha=alpha) == found[row]


@pytest.mark.parametrize("noise", ["normal", "normal, one in ten 10 x as wide"])
def test_false_verdicts_of_added_pairs_are_rare_over_all_rows(simulated, noise):
    generator, wrong, apart = np.random.default_rng(0), 0, 0
    for _ in range(400):
        rows = simulated.NOISE[noise](generator, (6, 12)) + 0.5 * generator.normal(size=12)
        wrong += any(sequential_verdicts(rows, max_pairs=12))
        apart += any(sequential_verdict(row, max_pairs=12) for row in rows)
    assert wrong / (400) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / (400))
    assert apart / (400) > 0.1  # the planted fault: each row as if alone


def test_false_verdicts_of_added_pairs_are_rare_beside_a_row_that_differs():
    generator, wrong = np.random.default_rng(1), 0
    for _ in range(400):
        rows = generator.normal(size=(4, 12))
        rows[0] += 3
        found = sequential_verdicts(rows, max_pairs=12)
        wrong += found[0] != "better" or any(found[1:])
    assert wrong / (400) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / (400))


def test_verdicts_of_rows_are_never_taken_back():
    rows = np.random.default_rng(3).normal(0.9, 1, (3, 18))
    rows[0, 4], rows[1, 2] = np.inf, np.nan
    before = [None] * 3
    for pairs in range(19):
        now = sequential_verdicts(rows[:, :pairs], max_pairs=18) if pairs else before
        assert all(then in (None, word) for then, word in zip(before, now))
        before = now
    assert "better" in before


def test_a_diverged_run_counts_among_added_pairs():
    first = first_look(12)
    assert sequential_verdict(np.full(12, -np.inf), max_pairs=12) == "worse"
    assert sequential_verdict([-np.inf] * first, max_pairs=12) == "worse"
    half = np.where(np.arange(12) % 2, -np.inf, 1.0)
    assert sequential_verdict(half, max_pairs=12) is None
    assert sequential_verdict(np.where(np.isinf(half), np.nan, half), max_pairs=6) == "better"  # what is not to be


# Races


@pytest.fixture(scope="module")
def simulated():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        yield importlib.import_module("racing")


def rows_of(values, higher_is_better=True, **more):
    """Rows of one metric, from (variants, seeds) differences."""
    return {("loss", str(number)): Row(each, higher_is_better, **more) for number, each in enumerate(np.asarray(values, float))}


def known_of(rows, seeds=None):
    """All seeds, or the first ones, are known."""
    return {
        name: np.arange(row.differences.size) < (row.differences.size if seeds is None else seeds)
        for (_, name), row in rows.items()
    }


def raced(rows, most, seeds=None, **more):
    return race(rows, "loss", known_of(rows, seeds), most, **more)


def test_a_clear_variant_a_useless_one_and_one_in_between():
    generator = np.random.default_rng(2)
    values = generator.normal(size=(4, 30)) * 0.5 + np.array([[3.0], [-3.0], [0.0], [0.55]])
    found = raced(rows_of(values), 30)
    assert (found.reasons["0"], found.stops["0"], found.words["loss", "0"]) == (DECIDED, 7, "better")
    assert (found.reasons["1"], found.stops["1"], found.words["loss", "1"]) == (DECIDED, 7, "worse")
    assert found.reasons["2"] == FUTILE
    assert 7 <= found.stops["2"] < 30
    assert found.words["loss", "2"] is None
    assert raced(rows_of(-values, higher_is_better=False), 30) == found
    assert raced(rows_of(values * 1e-3), 30) == found


def test_a_race_needs_only_its_own_seeds_and_says_the_same_again():
    """What lies behind a variant's stop changes nothing, and at each number of known seeds the race is as far as it can be."""
    generator = np.random.default_rng(4)
    for _ in range(10):
        rows = rows_of(generator.normal(size=(6, 20)) + generator.uniform(-1, 1.5, (6, 1)))
        found = raced(rows, 20)
        other = {key: replace(row, differences=row.differences.copy()) for key, row in rows.items()}
        for (_, name), row in other.items():
            row.differences[found.stops[name] :] = generator.normal(5, 9, 20 - found.stops[name])
        assert raced(other, 20) == found
        missing = {name: np.arange(20) < stop for name, stop in found.stops.items()}
        assert race(rows, "loss", missing, 20) == found
        for seeds in range(21):
            early = raced(rows, 20, seeds)
            assert early.looked == min(seeds, found.looked)
            assert early.racing == [name for name, stop in found.stops.items() if stop > seeds]
            assert {key: word for key, word in early.words.items() if word}.items() <= found.words.items()


def test_a_seed_that_one_racing_variant_lacks_is_not_judged_yet():
    rows = rows_of(np.full((2, 10), 1.0) + 0.1 * np.random.default_rng(0).normal(size=(2, 10)))
    known = known_of(rows)
    known["1"][6] = False
    found = race(rows, "loss", known, 10)
    assert (found.looked, found.racing, set(found.words.values())) == (6, ["0", "1"], {None})


def words_by_brute_force(sizes):
    """The verdict on the first of two rows under each pattern of nine signs, from the definition."""
    patterns = np.array(list(itertools.product((1, -1), repeat=9)))
    inside, crossed, words = np.ones(512, bool), 0, np.array([None] * 512)
    for pairs in range(7, 10):
        sums = patterns[:, :pairs] @ sizes[:, :pairs].T / np.sqrt((sizes[:, :pairs] ** 2).sum(axis=1))
        may = int(512 * spending(pairs, 9, 0.05) + 1e-9) - crossed
        distance = np.where(inside, np.abs(sums).max(axis=1), 0)
        boundary = np.sort(distance)[-may - 1] + 1e-9
        first = np.equal(words, None) & (np.abs(sums[:, 0]) > boundary)
        words[first] = np.where(sums[first, 0] > 0, "better", "worse")
        crossed += int((distance > boundary).sum())
        inside &= distance <= boundary
    return patterns, words


def test_the_boundary_goes_on_with_the_pairs_of_those_that_stopped_by_brute_force():
    """Two rows of which one has stopped after seven pairs. The planted fault: as if it had no more pairs."""
    faults = 0
    for seed in range(8):
        sizes = np.random.default_rng(seed).exponential(size=(2, 9)) + 0.1
        sizes[1, 7:] = sizes[1, :2]
        patterns, words = words_by_brute_force(sizes)
        _, faulty = words_by_brute_force(np.where(np.arange(9) < [[9], [7]], sizes, 0.0))
        different = np.flatnonzero(words != faulty)
        faults += len(different)
        for row in (*different, *range(0, 512, 37)):
            values = sizes * patterns[row]
            values[1, 7:] = 99.0  # not used
            assert raced(rows_of(values), 9, stops={"0": 9, "1": 7}).words["loss", "0"] == words[row]
    assert faults > 10


@pytest.mark.parametrize(("variants", "most", "studies"), [(1, 30, 300), (3, 20, 300), (20, 30, 40)])
@pytest.mark.parametrize("noise", ["normal", "Student's t, 3 degrees", "lattice", "normal, one in ten 10 x as wide"])
def test_false_verdicts_of_a_race_are_rare(simulated, variants, most, studies, noise):
    generator, wrong = np.random.default_rng([variants, most]), 0
    for _ in range(studies):
        rows = simulated.differences(generator, simulated.NOISE[noise], [0.0] * variants, most)
        wrong += any(simulated.raced(rows, most).words.values())
    assert wrong / studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_a_family_of_those_that_are_left_would_not_keep_the_promise(simulated, monkeypatch):
    """The planted fault: the boundary is for the three of 20 variants that were chosen for being far out."""
    monkeypatch.setattr(simulated, "STUDIES", 1000)
    (row,) = simulated.chosen()
    assert row["false"] > 0.08


def test_false_verdicts_of_a_race_are_rare_beside_a_variant_that_wins(simulated, monkeypatch):
    monkeypatch.setattr(simulated, "STUDIES", 160)
    assert max(row["false"] for row in simulated.beside()) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)


def test_the_best_of_twenty_takes_half_of_the_runs(simulated):
    found = simulated._best_of([1.0] + [0.0] * 19, np.random.default_rng(0), 100)
    assert found["race"] >= 0.9 * found["fixed"] > 0.85
    assert found["runs"] < 0.5


def test_large_differences_are_decided_by_the_seventh_seed(simulated):
    generator = np.random.default_rng(0)
    stops = [raced(rows_of(generator.normal(2.5, 1, (1, 30))), 30).stops["0"] for _ in range(300)]
    assert np.mean(np.array(stops) == 7) > 0.9
    found = [raced(rows_of(generator.normal(0.72, 1, (1, 30))), 30) for _ in range(300)]
    assert np.mean([each.words["loss", "0"] == "better" for each in found]) > 0.87
    assert np.mean([each.stops["0"] for each in found]) < 22


def test_those_that_cannot_win_are_not_better_and_those_that_may_be_worse_go_on(simulated):
    """A gate on `worse` must see them: a race finds a variant that is worse as often as one that is better."""
    generator = np.random.default_rng(1)
    found = [raced(rows_of(generator.normal([[1.0], [-1.0], [0.0]], 1, (3, 30))), 30) for _ in range(200)]
    stopped = [each.words["loss", name] for each in found for name, reason in each.reasons.items() if reason == FUTILE]
    assert len(stopped) > 100
    assert set(stopped) == {None}
    worse = np.mean([each.words["loss", "1"] == "worse" for each in found])
    assert worse == pytest.approx(np.mean([each.words["loss", "0"] == "better" for each in found]), abs=0.08)
    assert worse > 0.9


def test_one_that_is_clearly_beaten_by_another_stops(simulated):
    generator = np.random.default_rng(5)
    alone, beside = [], []
    for _ in range(100):
        values = generator.normal([[0.7], [6.0]], 1, (2, 30))
        alone.append(raced(rows_of(values[:1]), 30).stops["0"])
        both = raced(rows_of(values), 30)
        beside.append(both.stops["0"])
        assert both.words["loss", "1"] == "better"
    assert np.mean(beside) < 9 < 17 < np.mean(alone)


def test_hopes_are_those_of_simulated_ends():
    """The oracle: the mean drawn from its posterior, then the seeds that are left, then Student's t at Sidak's level."""
    values, most, variants, margin, draws = np.array([0.3, -0.1, 0.8, 0.2, 0.5, -0.3, 0.4]), 20, 3, 0.45, 200_000
    generator, n = np.random.default_rng(0), len(values)
    sd = values.std(ddof=1)
    sigma = sd * np.sqrt((n - 1) / generator.chisquare(n - 1, draws))
    mean = values.mean() + sigma / np.sqrt(n) * generator.normal(size=draws)
    ends = (values.sum() + mean * (most - n) + sigma * np.sqrt(most - n) * generator.normal(size=draws)) / most
    bound = stats.t.isf((1 - 0.95 ** (1 / variants)) / 2, most - 1) * sd / np.sqrt(most)
    inside = margin - stats.t.isf(0.05, most - 1) * sd / np.sqrt(most)
    found = hopes(values, most, variants, margin=margin)
    assert found.better == pytest.approx(np.mean(ends > bound), abs=0.005)
    assert found.worse == pytest.approx(np.mean(ends < -bound), abs=0.005)
    assert found.same == pytest.approx(np.mean(np.abs(ends) < inside), abs=0.005)
    assert hopes(values, most, variants).same == 0
    assert hopes(np.zeros(7), most, variants) == racing.Hopes(0, 0, 0)
    sure = hopes(np.full(7, 0.1), most, variants, margin=0.2)
    assert (sure.better, sure.worse, sure.same) == pytest.approx((1, 0, 1))
    assert hopes(np.full(7, np.nan), most, variants) == racing.Hopes(0, 0, 0)


def test_one_that_may_be_the_same_within_the_margin_gets_all_seeds():
    values = np.random.default_rng(1).normal(0, 0.01, (1, 12))
    rows = rows_of(values, margin=0.02)
    found = raced(rows, 12)
    assert (found.reasons["0"], found.stops["0"]) == (USED, 12)
    word = compare_family(rows, found.words, set(rows))["loss", "0"].verdict
    assert word == "same within the margin"
    assert compare_family(rows, found.words, set())["loss", "0"].verdict == "no difference shown"
    assert raced(rows_of(values), 12).reasons["0"] == FUTILE


def test_a_difference_below_the_resolution_decides_nothing():
    rows = rows_of(np.full((1, 12), 1e-9) * np.arange(1, 13), resolution=1.5e-8)
    assert raced(rows, 12).reasons["0"] != DECIDED
    assert raced(rows_of(np.full((1, 12), 1e-9) * np.arange(1, 13), resolution=1e-9), 12).reasons["0"] == DECIDED


def test_missing_pairs_and_diverged_runs_in_a_race():
    values = np.random.default_rng(0).normal(3, 1, (3, 12))
    values[0, 2] = values[1, :] = np.nan  # one run failed; all of a variant failed
    values[2, :] = -np.inf
    found = raced(rows_of(values), 12)
    assert (found.words["loss", "0"], found.reasons["1"], found.stops["1"]) == ("better", FUTILE, 7)
    assert (found.words["loss", "2"], found.stops["2"]) == ("worse", 7)
    everything = rows_of(np.full((2, 12), np.nan))
    assert set(raced(everything, 12).reasons.values()) == {FUTILE}


# Studies


ON_JAX = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the plan is one of JAX")
VARIANTS = {
    "clear": {"hidden": 0.1},
    "idle": {"hidden": 0.2},
    "bad": {"hidden": 0.3},
    "little": {"hidden": 0.4},
    "weak": {"last": 0.1},
}
GAINS = {"clear": 1.2, "idle": 0.0, "bad": -2.0, "little": 0.8, "weak": 0.7}


def figures(run):
    noise = np.random.default_rng([run.seed, 3, *map(ord, run.variant.name)]).normal(0, 0.35)
    loss = 5 + np.sin(run.seed) - GAINS.get(run.variant.name, 0.0) + noise
    return {"test_loss": loss, "test_accuracy": 0.5, "train_loss": loss, "validation_loss": loss}


def planned(folder, workers=1, **settings):
    common = {"seeds": "auto", "max_seeds": 20, "variants": VARIANTS, "epochs": 1, "engine": "compiled", "primary": "test_loss"}
    return make_plan("digits-mlp", ledger=folder / "r.db", workers=workers, **(common | settings))


@ON_JAX
def test_seeds_go_to_what_is_undecided(tmp_path, monkeypatch):
    trained = made_up_execution(monkeypatch, figures)
    found = carry_out(planned(tmp_path), quiet=True)
    raced = found.raced()
    assert (raced["clear"], raced["bad"]) == ({"seeds": 7, "stopped": DECIDED}, {"seeds": 7, "stopped": DECIDED})
    assert {raced[name]["stopped"] for name in ("idle", "little", "weak")} <= {DECIDED, FUTILE, USED}
    assert FUTILE in {each["stopped"] for each in raced.values()}
    most = max(each["seeds"] for each in raced.values())
    assert most > 7
    assert (
        len(trained) == len(set(trained)) == sum(each["seeds"] for each in raced.values()) + most
    )  # with one worker none is in vain
    words = {name: by_metric["test_loss"] for name, by_metric in found.verdicts.items()}
    assert (words["clear"], words["bad"]) == ("better", "worse")
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    runs = {variant["name"]: len(variant["runs"]) for variant in document["variants"]}
    assert runs == {"none": most} | {name: each["seeds"] for name, each in raced.items()}
    assert {variant["name"]: variant["race"] for variant in document["variants"] if variant["name"] != "none"} == raced
    assert found.missing == 0
    text, page = str(found), found.save_report(tmp_path / "r.html").read_text()
    stopped = next(name for name, each in raced.items() if each["stopped"] == FUTILE)
    assert f"{raced[stopped]['seeds']}, stopped: cannot win" in page
    assert "7, decided" in page
    row = next(line for line in text[text.index("Seeds added") :].splitlines() if f" {stopped} " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [stopped, str(raced[stopped]["seeds"]), "stopped: cannot win"]
    # Again, and from the ledger: nothing is trained, and the verdicts are the same, from one study.
    before = list(trained)
    again = carry_out(planned(tmp_path, workers=8), quiet=True)
    assert trained == before
    kept = retrieve(tmp_path / "r.db", number=found.number)
    for other in (again, kept):
        assert other.raced() == raced
        assert other.document()["comparisons"] == found.document()["comparisons"]
        assert other.study.counts == found.study.counts
    assert [each["number"] for each in listed(tmp_path / "r.db")] == [found.number, again.number]


@ON_JAX
@pytest.mark.parametrize("interrupt_at", [3, 40, 50])
def test_a_race_that_was_interrupted_goes_on_to_the_same_end(tmp_path, monkeypatch, interrupt_at):
    made_up_execution(monkeypatch, figures)
    whole = carry_out(planned(tmp_path), quiet=True)
    (tmp_path / "other").mkdir()
    trained = made_up_execution(monkeypatch, figures, interrupt_at=interrupt_at)
    with pytest.raises(KeyboardInterrupt):
        carry_out(planned(tmp_path / "other", workers=6), quiet=True)
    so_far = retrieve(tmp_path / "other" / "r.db")
    assert so_far.race is None or so_far.race.racing
    found = carry_out(planned(tmp_path / "other"), quiet=True)
    assert len(set(trained)) == len(trained)
    assert found.raced() == whole.raced()
    assert found.document()["comparisons"] == whole.document()["comparisons"]


@ON_JAX
def test_runs_that_a_ledger_has_already_are_used_as_far_as_the_race_goes(tmp_path, monkeypatch, capsys):
    trained = made_up_execution(monkeypatch, figures)
    carry_out(planned(tmp_path, seeds=20, max_seeds=None), quiet=True)
    assert len(trained) == 20 * 6
    plan = planned(tmp_path)
    monkeypatch.setattr("keras_dropout.bench.execution.timing.estimate_seconds", lambda plan, todo: 1.0 * len(todo))
    studies._print_plan(plan, asked_before(plan.ledger, plan.study, 20), as_json=True)
    assert json.loads(capsys.readouterr().out)["to_train"] == 0
    found = carry_out(plan, quiet=True)
    assert len(trained) == 20 * 6
    (tmp_path / "other").mkdir()
    fresh = carry_out(planned(tmp_path / "other"), quiet=True)
    assert found.document()["comparisons"] == fresh.document()["comparisons"]
    assert [look.max_seeds for look in found.asked.looks] == [None]
    # As an earlier version left it: all variants with the same seeds, and no word of who stopped.
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute("UPDATE studies SET document = json_set(document, '$.plan.max_seeds', 20) WHERE id = 1")
    old = retrieve(tmp_path / "r.db", number=1)
    assert old.raced() == fresh.raced()
    assert old.study.counts == fresh.study.counts


@ON_JAX
def test_runs_that_fail_in_a_race_are_tried_again_by_the_next_command(tmp_path, monkeypatch):
    made_up_execution(monkeypatch, figures)
    found = carry_out(planned(tmp_path), quiet=True)
    key = found.study.key(next(variant for variant in found.study.variants if variant.name == "clear"), 2)
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute("UPDATE runs SET status = 'failed', error = 'x', metrics = '{}' WHERE key = ?", (key,))
    kept = retrieve(tmp_path / "r.db")
    assert kept.raced()["clear"] == {"seeds": 7, "stopped": ""}  # six pairs and one that failed: not decided yet
    trained = made_up_execution(monkeypatch, figures)
    assert carry_out(planned(tmp_path), quiet=True).raced() == found.raced()
    assert trained == [key]
