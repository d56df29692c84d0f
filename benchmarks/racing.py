"""How often the verdicts of a race are false, and what a race saves: `--seeds auto`, simulated.

false      Studies in which nothing differs: the share with any verdict on a loss or an accuracy, by the most seeds, the number of
           variants and the distribution of the runs. `runs` is the share of the runs of all variants with all seeds.
beside     The same beside one variant that is better by three standard deviations of the differences: any verdict on the others.
chosen     The planted fault: after seven seeds, the three variants that are farthest from the baseline are a family of three.
best       One of 20 variants is better by an effect size, and the others are as the baseline: the share of studies that show it,
           with all 30 seeds for all variants (`fixed`) and by a race, and the runs of the race.
atlas      The 20 placements of each study in benchmarks/results/atlas.json, with the effect sizes seen there (times Hedges'
           factor): the share of studies that show the best placement, and the runs.
single     One variant, better by an effect size: the share that shows it, those decided by the sixth, seventh and eighth seed,
           the mean number of seeds, and the fewest that, fixed before, show as many.
looking    Normal differences of mean zero, and p of a fixed number looked at after each of 6 to 30 pairs: the share that ever
           comes to 0.05.
spending   One variant, and the best of 20, for other ways to spend the 5 %: why nothing is spent before the seventh seed, and
           what is left grows with a cube.

`upper` is the 97.5 % limit of a share (Clopper and Pearson). Run: python benchmarks/racing.py [--quick] [--json FILE]
The figures in docs/statistics.md are those of benchmarks/results/racing.json.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from report import write
from scipy import stats
from verdicts import NOISE, rows, share, study

from keras_dropout.bench import racing
from keras_dropout.bench.power import pairs_needed
from keras_dropout.bench.statistics import LEVEL, compare_family, sign_flip_p

STUDIES = 100 if "--quick" in sys.argv else 1000
MOST = 30
ATLAS = Path(__file__).parent / "results" / "atlas.json"
SPENDING: dict[str, Callable[[int, int], float]] = {
    "(k / 30)^1.5": lambda k, most: LEVEL * (k / most) ** 1.5,
    "(k / 30)^0.29": lambda k, most: LEVEL * (k / most) ** 0.29,
    "at six, and at the end": lambda k, most: 0.0 if k < 6 else 2**-5 if k < most else LEVEL,
    "from six, cube": lambda k, most: _from(6, 3, k, most),
    "from seven, linear": lambda k, most: _from(7, 1, k, most),
    "from seven, square": lambda k, most: _from(7, 2, k, most),
    "from seven, cube": lambda k, most: _from(7, 3, k, most),
    "from eight, cube": lambda k, most: _from(8, 3, k, most),
}


def _from(first: int, growth: float, pairs: int, most: int) -> float:
    begun = 2.0 ** (1 - first)
    return 0.0 if pairs < first else begun + (LEVEL - begun) * ((pairs - first) / (most - first)) ** growth


def differences(generator: np.random.Generator, noise: Callable, effects: Sequence[float], most: int) -> dict:
    """Return the rows of a study's loss and accuracy; the effects are in standard deviations of the differences in loss."""
    values = study(generator, noise, len(effects), most, ("loss", "accuracy"))
    gain = np.sqrt(2) * 0.01 * np.asarray(effects)[:, None]
    values["loss"][1:] -= gain
    values["accuracy"][1:] += gain / 2
    return {(metric, str(number)): row for (metric, number), row in rows(values).items()}


def raced(made: dict, most: int) -> racing.Race:
    known = {name: np.ones(most, dtype=bool) for _, name in made}
    return racing.race(made, "loss", known, most)


def runs(found: racing.Race, most: int) -> float:
    """The share of the runs of all variants and the baseline with all seeds."""
    stops = found.stops.values()
    return (sum(stops) + max(stops)) / ((len(stops) + 1) * most)


def false_verdicts() -> list[dict]:
    found = []
    for most in (10, 20, 30):
        for variants in (1, 3, 20):
            for name, noise in NOISE.items():
                generator, studies = np.random.default_rng([most, variants]), STUDIES
                races = [raced(differences(generator, noise, [0.0] * variants, most), most) for _ in range(studies)]
                wrong, used = sum(any(each.words.values()) for each in races), float(np.mean([runs(each, most) for each in races]))
                found.append(share(wrong, studies, max_seeds=most, variants=variants, distribution=name, runs=round(used, 3)))
    return found


def beside() -> list[dict]:
    found = []
    for variants in (3, 20):
        generator, wrong, studies = np.random.default_rng(variants), 0, STUDIES // 2
        for _ in range(studies):
            words = raced(differences(generator, NOISE["normal"], [3.0] + [0.0] * (variants - 1), MOST), MOST).words
            wrong += any(word for (_, name), word in words.items() if name != "0")
        found.append(share(wrong, studies, max_seeds=MOST, variants=variants))
    return found


def chosen() -> list[dict]:
    generator, wrong, studies = np.random.default_rng(0), 0, STUDIES // 4
    for _ in range(studies):
        made = differences(generator, NOISE["normal"], [0.0] * 20, MOST)
        begun = {name: row.differences[:7] for (metric, name), row in made.items() if metric == "loss"}
        far = sorted(begun, key=lambda name: -abs(begun[name].mean()) / begun[name].std())[:3]
        wrong += any(raced({key: row for key, row in made.items() if key[1] in far}, MOST).words.values())
    return [share(wrong, studies, max_seeds=MOST, variants=20)]


def _best_of(effects: Sequence[float], generator: np.random.Generator, studies: int, fixed: bool = True) -> dict:
    """How often the variant with the largest effect is shown, by all seeds and by a race; and the runs of the race."""
    name = str(int(np.argmax(effects)))
    by_all, by_race, used = [], [], []
    for _ in range(studies):
        made = differences(generator, NOISE["normal"], effects, MOST)
        if fixed:
            by_all.append(compare_family(made)["loss", name].verdict.startswith("better"))
        found = raced(made, MOST)
        by_race.append(found.words["loss", name] == "better")
        used.append(runs(found, MOST))
    return ({"fixed": float(np.mean(by_all))} if fixed else {}) | {
        "race": float(np.mean(by_race)),
        "runs": round(float(np.mean(used)), 3),
    }


def best() -> list[dict]:
    found = []
    for effect in (0.72, 0.9, 1.0, 1.2, 2.0):
        studies = STUDIES // 4
        row = _best_of([effect] + [0.0] * 19, np.random.default_rng(int(100 * effect)), studies)
        found.append({"variants": 20, "effect_size": effect, "studies": studies} | row)
        print(found[-1], flush=True)
    return found


def atlas() -> list[dict]:
    found, studies = [], STUDIES // 20
    for number, table in enumerate(json.loads(ATLAS.read_text())["rows"]):
        seeds, effects = table["seeds"], []
        for row in table["rows"]:
            mean, low, high, _ = row["test_loss"]
            sd = (high - low) / 2 / stats.t.ppf(0.975, seeds - 1) * np.sqrt(seeds)
            effects.append(-mean / sd * (1 - 3 / (4 * (seeds - 1) - 1)))
        said = {"data": table["data"], "train": table["train"], "best": round(float(max(effects)), 2), "studies": studies}
        found.append(said | _best_of(effects, np.random.default_rng(number), studies))
        print(found[-1], flush=True)
    return found


def single() -> list[dict]:
    found = []
    for effect in (0.5, 0.72, 1.0, 1.5, 2.0, 3.0):
        generator, studies = np.random.default_rng(int(100 * effect)), STUDIES
        races = [raced(differences(generator, NOISE["normal"], [effect], MOST), MOST) for _ in range(studies)]
        found.append({"effect_size": effect, "studies": studies} | _of_one(races))
        needed = pairs_needed(1, effect, rows=2, wanted=min(found[-1]["found"], 0.99))
        found[-1] |= {"fixed": needed, "saved": needed and round(1 - found[-1]["seeds"] / needed, 3)}
        print(found[-1], flush=True)
    return found


def _of_one(races: Sequence[racing.Race]) -> dict:
    shown, seeds = [each.words["loss", "0"] == "better" for each in races], np.array([each.stops["0"] for each in races])
    by = {f"by_{count}": float(np.mean(shown & (seeds <= count))) for count in (6, 7, 8)}
    return {"found": float(np.mean(shown)), **by, "seeds": round(float(seeds.mean()), 2)}


def looking() -> list[dict]:
    studies = STUDIES // 4
    draws = np.random.default_rng(MOST).normal(size=(studies, MOST))
    wrong = sum(any(sign_flip_p([each[:pairs]])[0] <= 0.05 for pairs in range(6, MOST + 1)) for each in draws)
    return [share(wrong, studies, max_seeds=MOST)]


def spending() -> list[dict]:
    found, kept, first = [], racing.spent, racing.FIRST
    for name, rule in SPENDING.items():
        racing.spent = lambda pairs, most, alpha=LEVEL, rule=rule: rule(pairs, most)
        racing.FIRST = next(k for k in range(1, MOST) if rule(k, MOST) >= 2.0 ** (1 - k))
        row: dict = {"spending": name, "first_look": racing.FIRST}
        for effect in (0.72, 1.0, 2.0):
            generator, studies = np.random.default_rng(int(100 * effect)), STUDIES // 4
            row[f"one, {effect:g}"] = _of_one(
                [raced(differences(generator, NOISE["normal"], [effect], MOST), MOST) for _ in range(studies)]
            )
        row["best of 20, 0.9"] = _best_of([0.9] + [0.0] * 19, np.random.default_rng(90), STUDIES // 8, fixed=False)
        found.append(row)
        print(row, flush=True)
    racing.spent, racing.FIRST = kept, first
    return found


def main() -> None:
    parts = (false_verdicts, beside, chosen, best, atlas, single, looking, spending)
    write("racing", {part.__name__.removesuffix("_verdicts"): part() for part in parts})


if __name__ == "__main__":
    main()
