"""Questions that are asked again: what a ledger knows of earlier looks, and what several looks are worth together."""

import itertools
import json

import keras
import numpy as np
import pytest
from made_up import made_up_execution

from keras_dropout.bench.compare import carry_out, make_plan
from keras_dropout.bench.ledger.looks import asked_before
from keras_dropout.bench.looking import anytime_p, chance_of_a_false_verdict, ordinal
from keras_dropout.bench.report.verdict import asked_sentences, verdict
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.statistics import NO_DIFFERENCE, compare_paired
from keras_dropout.commands import studies

ON_JAX = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the plan is one of JAX")


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Carry out a study of digits-mlp with made-up figures; returns the comparison."""

    def metrics(run):
        loss = np.random.default_rng([run.seed, *map(ord, run.variant.name)]).normal(1, 0.1)
        return {"test_loss": loss, "test_accuracy": 1 - loss / 4, "train_loss": loss, "validation_loss": loss}

    made_up_execution(monkeypatch, metrics)

    def asked(**settings):
        return carry_out(planned(tmp_path, **settings), quiet=True)

    return asked


def planned(folder, **settings):
    return make_plan("digits-mlp", ledger=folder / "r.db", engine="compiled", **({"epochs": 1} | settings))


def numbers(found):
    return [look.number for look in found.asked.looks]


# What the ledger knows


@ON_JAX
def test_a_question_asked_with_more_seeds_or_other_variants_is_a_second_look(ask, tmp_path):
    first = ask(seeds=6, variants=["hidden"])
    assert (numbers(first), first.asked.placements_judged, first.warnings()) == ([], 1, [])
    assert "look" not in verdict(first.report_document()).headline
    more = ask(seeds=8, variants=["hidden", "last"])
    assert more.document()["looks"] == [
        {
            "number": first.number,
            "started": more.document()["looks"][0]["started"],
            "seeds": list(range(6)),
            "variants": ["hidden"],
            "max_seeds": None,
        }
    ]
    assert more.asked.placements_judged == 2
    third = ask(seeds=[20, 21, 22, 23, 24, 25], variants={"of another name": {"hidden": 0.2}})
    assert numbers(third) == [first.number, more.number]
    document = third.report_document()
    assert verdict(document).headline.endswith("This is the third look at this question, after looks with 6 and 8 seeds.")
    assert document["chance_of_looks"] == third.chance_of_looks() > 0.07
    page = third.save_report(tmp_path / "r.html").read_text()
    text = " ".join(str(third).split())
    for words in (
        "the third look at this question, after study 1 (6 seeds), study 2 (8 seeds)",
        f"{100 * third.chance_of_looks():.1f} % of",
    ):
        assert words in text
        assert words in page
    p = [row["anytime_p"] for row in document["comparisons"] if row["metric"] == "test_loss"]
    values = third.values("of another name", "test_loss") - third.values("none", "test_loss")
    assert p == [anytime_p(values)]
    assert {row["anytime_p"] for row in document["comparisons"] if row["metric"] != "test_loss"} == {None}


@ON_JAX
def test_what_is_no_look(ask, tmp_path):
    """The same command again, a report, another placement, other settings, and another baseline."""
    first = ask(seeds=6, variants=["hidden"])
    again = ask(seeds=6, variants=["hidden"])
    renamed = ask(seeds=6, variants={"other name": {"hidden": 0.2}})
    assert numbers(again) == numbers(renamed) == []
    for _ in range(2):
        retrieve(tmp_path / "r.db").save_report(tmp_path / "r.html")
    assert numbers(ask(seeds=8, variants=["hidden"])) == [first.number]  # the three are one
    assert numbers(ask(seeds=8, variants=["last"])) == []
    assert numbers(ask(seeds=8, variants=["hidden"], epochs=2)) == []
    assert numbers(ask(seeds=8, variants=["hidden", "last"], baseline="last", epochs=2)) == []
    among = ask(seeds=6, variants=["hidden", "last"])
    assert numbers(among) == [4, 5]  # of eight seeds each; the six of hidden were judged before, but are the same runs


@ON_JAX
def test_looks_are_those_before_also_when_reported_later(ask, tmp_path):
    ask(seeds=6, variants=["hidden"])
    ask(seeds=8, variants=["hidden"])
    ask(seeds=10, variants=["hidden", "last"])
    found = [retrieve(tmp_path / "r.db", number=number) for number in (1, 2, 3)]
    assert [numbers(each) for each in found] == [[], [1], [1, 2]]
    assert [each.asked.placements_judged for each in found] == [1, 1, 2]
    looks = [each.document()["looks"] for each in found]
    assert [[len(look["seeds"]) for look in each] for each in looks] == [[], [6], [6, 8]]


@ON_JAX
def test_placements_are_counted_whatever_the_training_settings(ask):
    ask(seeds=6, variants=["hidden"])
    ask(seeds=6, variants=["hidden"], epochs=2)
    ask(seeds=6, variants=["last"], epochs=2)
    found = ask(seeds=6, variants={"more": {"hidden": 0.5}}, learning_rate=0.01)
    assert numbers(found) == []
    assert found.asked.placements_judged == found.document()["placements_judged"] == 3
    assert any("3 placements have been judged on this test part" in warning for warning in found.warnings())


@ON_JAX
def test_seeds_that_are_too_few_for_a_verdict_are_listed_and_spend_nothing(ask):
    ask(seeds=2, variants=["hidden"])
    found = ask(seeds=8, variants=["hidden"])
    assert (numbers(found), found.looks, found.chance_of_looks()) == ([1], [], None)
    assert "look" not in verdict(found.report_document()).headline
    assert found.warnings() == []


@ON_JAX
def test_an_interrupted_study_that_goes_on_is_no_look(monkeypatch, tmp_path):
    figures = {"test_loss": 1.0, "test_accuracy": 0.5}
    made_up_execution(monkeypatch, lambda run: figures | {"test_loss": 1.0 + run.seed}, interrupt_at=7)
    with pytest.raises(KeyboardInterrupt):
        carry_out(planned(tmp_path, seeds=8, variants=["hidden", "last"]), quiet=True)
    again = planned(tmp_path, seeds=8, variants=["hidden", "last"])
    assert asked_before(again.ledger, again.study).looks == ()
    assert numbers(carry_out(again, quiet=True)) == []


@ON_JAX
def test_only_runs_that_had_ended_before_are_a_look(monkeypatch, tmp_path):
    """Three pairs had ended when the second study began; it trained the others that the first one had asked for."""
    figures = {"test_loss": 1.0, "test_accuracy": 0.5}
    made_up_execution(monkeypatch, lambda run: figures | {"test_loss": 1.0 + run.seed}, interrupt_at=7)
    with pytest.raises(KeyboardInterrupt):
        carry_out(planned(tmp_path, seeds=8, variants=["hidden"]), quiet=True)
    found = carry_out(planned(tmp_path, seeds=10, variants=["hidden"]), quiet=True)
    for each in (found, retrieve(tmp_path / "r.db")):
        assert [look.seeds for look in each.asked.looks] == [(0, 1, 2)]


@ON_JAX
def test_seeds_that_are_added_are_one_look(ask):
    auto = {"seeds": "auto", "max_seeds": 10, "variants": ["hidden"]}
    first, again = ask(**auto), ask(**auto)
    assert numbers(first) == numbers(again) == []
    more = ask(**auto | {"max_seeds": 12})
    assert numbers(more) == [first.number]
    assert more.asked.looks[0].max_seeds == 10
    assert numbers(ask(seeds=6, variants=["hidden"]))[-2:] == [first.number, more.number]


@ON_JAX
def test_a_plan_says_which_look_it_will_be(ask, tmp_path, monkeypatch, capsys):
    ask(seeds=6, variants=["hidden"])
    plan = planned(tmp_path, seeds=8, variants=["hidden", "last"])
    asked = asked_before(plan.ledger, plan.study)
    assert [look.number for look in asked.looks] == [1]
    monkeypatch.setattr("keras_dropout.bench.execution.timing.estimate_seconds", lambda plan, todo: 1.0)
    studies._print_notes(plan, asked)
    assert "this will be the second look at this question, after one with 6 seeds" in capsys.readouterr().err
    studies._print_plan(plan, asked, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["looks"][0]["number"], shown["placements_judged"]) == (1, 2)
    assert asked_sentences((), 3, 2) == [
        "with this study, the test part will have judged 3 placements; its verdicts allow for its own 2"
    ]
    assert asked_sentences((), 2, 2) == []
    fresh = planned(tmp_path / "..", seeds=6, variants=["hidden"])
    assert asked_before(tmp_path / "no.db", fresh.study).placements_judged == 1


# What several looks are worth


def test_the_chance_of_one_look_is_that_of_the_exact_test():
    def one(pairs):
        return ((tuple(range(pairs)), ("a",), None),)

    wrong = 4 * np.sqrt(0.05 * 0.95 / 8000)
    for pairs in (5, 6, 8, 10):
        half = 2 ** (pairs - 1)
        assert chance_of_a_false_verdict(one(pairs)) == pytest.approx(np.floor(0.05 * half) / half, abs=wrong)


@pytest.mark.parametrize("variants", [1, 3])
def test_the_chance_of_several_looks_by_the_rule_itself(variants):
    """The oracle: `compare_paired` on simulated studies, at each look."""
    looks, wrong, counts = 1500, 0, (6, 8, 10)
    generator = np.random.default_rng(5)
    for _ in range(looks):
        runs = generator.normal(size=(variants + 1, 10))
        pairs = {str(number): runs[number] - runs[0] for number in range(1, variants + 1)}
        found = [compare_paired({name: each[:count] for name, each in pairs.items()}, True) for count in counts]
        wrong += any(each.verdict != NO_DIFFERENCE for by_name in found for each in by_name.values())
    names = tuple(map(str, range(variants)))
    chance = chance_of_a_false_verdict(tuple((tuple(range(count)), names, None) for count in counts))
    assert chance == pytest.approx(wrong / looks, abs=4 * np.sqrt(0.08 / looks))
    assert chance > 0.06  # the planted fault: as if looks cost nothing


def test_looks_at_other_seeds_are_independent():
    looks = tuple((tuple(range(start, start + 8)), ("a",), None) for start in (0, 8, 16))
    each = chance_of_a_false_verdict(looks[:1])
    assert chance_of_a_false_verdict(looks) == pytest.approx(1 - (1 - each) ** 3, abs=0.02)


def test_the_product_by_brute_force():
    """Over all patterns of signs its mean is 1 at each pair: the mean of 1 / p is at most as large as with the bets known."""
    sizes = np.random.default_rng(0).exponential(size=8) + 0.1
    patterns = np.array(list(itertools.product((1, -1), repeat=8)))
    bets = np.geomspace(0.3, 4, 10)
    units = sizes / np.sqrt(np.cumsum(sizes**2) / np.arange(1, 9))
    for pairs in (1, 4, 8):
        flipped = patterns[:, :pairs] * units[:pairs]
        one = [[np.prod(np.exp(bet * row) / np.cosh(bet * row)) for bet in (*bets, *-bets)] for row in flipped]
        assert np.mean(one) == pytest.approx(1)
        largest = [
            max(
                np.mean([np.prod(np.exp(b * row[:k]) / np.cosh(b * row[:k])) for b in (*bets, *-bets)]) for k in range(1, pairs + 1)
            )
            for row in flipped[::17]
        ]
        assert [anytime_p(row * sizes[:pairs]) for row in patterns[::17, :pairs]] == pytest.approx(
            [min(1, 1 / value) for value in largest]
        )


NULLS = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "t3": lambda generator, shape: generator.standard_t(3, shape),
    "outliers": lambda generator, shape: generator.normal(size=shape) * np.where(generator.random(shape) < 0.1, 10, 1),
    "lattice": lambda generator, shape: generator.integers(-2, 3, shape).astype(float),
}


@pytest.mark.parametrize("null", NULLS)
def test_p_of_any_number_of_looks_is_seldom_small_however_long_one_goes_on(null):
    studies_of_200 = NULLS[null](np.random.default_rng(1), (2000, 200))
    assert np.mean([anytime_p(each) <= 0.05 for each in studies_of_200]) <= 0.05
    assert np.mean([anytime_p(each[:30]) <= 0.05 for each in studies_of_200]) <= 0.04


def test_p_of_any_number_of_looks_finds_differences():
    found = [anytime_p(each) <= 0.05 for each in np.random.default_rng(0).normal(0.72, 1, (2000, 30))]
    assert np.mean(found) == pytest.approx(0.78, abs=0.04)


def test_p_of_any_number_of_looks_knows_no_unit_never_rises_and_counts_diverged_runs():
    values = np.random.default_rng(3).normal(1, 1, 12)
    each = [anytime_p(values[:pairs]) for pairs in range(13)]
    assert each[0] == 1
    assert each == sorted(each, reverse=True)
    assert [anytime_p(values * 1e-9), anytime_p(-values)] == pytest.approx([each[-1]] * 2)
    assert anytime_p(np.insert(values, 4, np.nan)) == each[-1]
    assert anytime_p(np.full(12, -np.inf)) == pytest.approx(anytime_p(np.ones(12)))
    assert anytime_p(np.ones(12)) < 0.01
    assert anytime_p(np.append(values, -np.inf)) == pytest.approx(anytime_p(np.append(values, -np.abs(values).max())))
    assert anytime_p(np.zeros(5)) == anytime_p(np.full(3, np.nan)) == 1


def test_words_for_the_number_of_a_look():
    assert [ordinal(number) for number in (1, 2, 3, 10, 11)] == ["first", "second", "third", "tenth", "11th"]
