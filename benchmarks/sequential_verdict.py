"""How often verdicts of added seeds are false, and how many runs adding seeds saves: `sequential_verdict`, simulated.

false      Studies in which nothing differs, looked at after every pair: the share that ever gets a verdict, by distribution of the
           differences and by the most pairs. `upper` is the 97.5 % limit of that share (Clopper and Pearson).
saving     Normal differences with a mean that a fixed number of pairs finds with 80, 90 or 95 % power: the share found, the mean
           number of pairs used, and the fewest pairs that, fixed before, find as many (`pairs_needed`).
looking    Normal differences of mean zero, and p of a fixed number looked at after each of 6 to 30 pairs: the share that ever comes
           to 0.05.
spending   The saving above for other exponents of the spending function: why it is 1.5.

Run: python benchmarks/sequential_verdict.py [--quick] [--json FILE]
The figures in docs/statistics.md are those of benchmarks/results/sequential_verdict.json.
"""

import sys

import numpy as np
from report import write
from scipy import stats

from keras_dropout.bench import statistics
from keras_dropout.bench.power import detectable_effect, pairs_needed
from keras_dropout.bench.statistics import first_look, sequential_verdict, sign_flip_p

STUDIES = 500 if "--quick" in sys.argv else 2000
MOST = (6, 10, 20, 30, 50)
NULLS = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "Laplace": lambda generator, shape: generator.laplace(size=shape),
    "Student's t, 3 degrees": lambda generator, shape: generator.standard_t(3, shape),
    "uniform": lambda generator, shape: generator.uniform(-1, 1, shape),
    "normal, one in ten 10 x as wide": lambda generator, shape: (
        generator.normal(size=shape) * np.where(generator.random(shape) < 0.1, 10, 1)
    ),
}


def false_verdicts() -> list[dict]:
    rows = []
    for most in MOST:
        for name, draw in NULLS.items():
            studies = draw(np.random.default_rng(most), (STUDIES, most))
            wrong = sum(sequential_verdict(differences, max_pairs=most) is not None for differences in studies)
            upper = float(stats.beta.ppf(0.975, wrong + 1, STUDIES - wrong))
            row = {"max_pairs": most, "differences": name, "studies": STUDIES, "false": wrong / STUDIES, "upper": round(upper, 4)}
            print(row, flush=True)
            rows.append(row)
    return rows


def looking(most: int, studies: int) -> list[dict]:
    draws = np.random.default_rng(most).normal(size=(studies, most))
    wrong = sum(any(sign_flip_p([each[:pairs]])[0] <= 0.05 for pairs in range(6, most + 1)) for each in draws)
    row = {"max_pairs": most, "studies": studies, "false": wrong / studies}
    print(row, flush=True)
    return [row]


def saving(most: int, fixed: int, wanted: float, studies: int) -> dict:
    size = detectable_effect(fixed, wanted=wanted)
    draws = np.random.default_rng(most).normal(size, 1, (studies, most))
    ends = [pairs_until_a_verdict(differences, most) for differences in draws]
    found = float(np.mean([words == "better" for _, words in ends]))
    used = float(np.mean([pairs for pairs, _ in ends]))
    needed = pairs_needed(1, size, wanted=found)
    row = {
        "max_pairs": most,
        "effect_size": round(size, 3),
        "found": found,
        "wrong_side": float(np.mean([words == "worse" for _, words in ends])),
        "pairs_used": round(used, 2),
        "pairs_fixed": needed,
        "saved": round(1 - used / needed, 3),
        "studies": studies,
    }
    print(row, flush=True)
    return row


def pairs_until_a_verdict(differences: np.ndarray, most: int) -> tuple[int, str | None]:
    """By bisection: a verdict is never taken back."""
    words = sequential_verdict(differences, max_pairs=most)
    low, high = first_look(most) - 1, most
    while words and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sequential_verdict(differences[:middle], max_pairs=most) else (middle, high)
    return high, words


def main() -> None:
    rows = {"false": false_verdicts()}
    # A mean that so many pairs, fixed before, find with so much power.
    designs = [(most, round(0.75 * most), wanted) for most in MOST[2:] for wanted in (0.8, 0.9, 0.95)]
    rows["saving"] = [saving(most, fixed, wanted, STUDIES) for most, fixed, wanted in designs]
    rows["looking"] = looking(30, STUDIES // 4)
    rows["spending"] = []
    for exponent in (0.8, 1.0, 1.5, 2.0, 3.0):
        statistics._SPENDING = exponent
        rows["spending"].append({"exponent": exponent} | saving(30, 22, 0.9, STUDIES))
    write("sequential_verdict", rows)


if __name__ == "__main__":
    main()
