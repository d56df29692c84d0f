"""What asking the same question again costs, and a p-value that allows for it: `bench.looking`, simulated.

chance     Looks at 6, 8 and 10 seeds of one variant and of three: the chance of any false verdict that a study is told, and the
           share of simulated studies in which `compare_paired` gives one.
anytime    Studies in which nothing differs: the share in which `anytime_p` comes to 0.05 by 30 seeds and by 200, by distribution.
shown      Normal differences: the share in which it comes to 0.05 by 30 seeds, by effect size.

`upper` is the 97.5 % limit of a share (Clopper and Pearson). Run: python benchmarks/looks.py [--quick] [--json FILE]
The figures in docs/statistics.md are those of benchmarks/results/looks.json.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from report import write
from verdicts import NOISE, share

from keras_dropout.bench.looking import anytime_p, chance_of_a_false_verdict
from keras_dropout.bench.statistics import NO_DIFFERENCE, compare_paired

STUDIES = 400 if "--quick" in sys.argv else 4000
COUNTS = (6, 8, 10)


def chance() -> list[dict]:
    found = []
    for variants in (1, 3):
        names, generator, wrong = tuple(map(str, range(variants))), np.random.default_rng(variants), 0
        told = chance_of_a_false_verdict(tuple((tuple(range(count)), names, None) for count in COUNTS))
        for _ in range(STUDIES):
            runs = generator.normal(size=(variants + 1, max(COUNTS)))
            pairs = {name: each - runs[0] for name, each in zip(names, runs[1:])}
            looks = [compare_paired({name: each[:count] for name, each in pairs.items()}, True) for count in COUNTS]
            wrong += any(each.verdict != NO_DIFFERENCE for by_name in looks for each in by_name.values())
        found.append(share(wrong, STUDIES, seeds=list(COUNTS), variants=variants, told=told))
    return found


def anytime() -> list[dict]:
    found = []
    for name, noise in NOISE.items():
        studies = noise(np.random.default_rng(0), (STUDIES, 200))
        for seeds in (30, 200):
            wrong = sum(anytime_p(each[:seeds]) <= 0.05 for each in studies)
            found.append(share(wrong, STUDIES, differences=name, seeds=seeds))
    return found


def shown() -> list[dict]:
    found = []
    for effect in (0.5, 0.72, 1.0):
        studies = np.random.default_rng(1).normal(effect, 1, (STUDIES, 30))
        found.append(
            {"effect_size": effect, "studies": STUDIES, "shown": float(np.mean([anytime_p(each) <= 0.05 for each in studies]))}
        )
        print(found[-1], flush=True)
    return found


def main() -> None:
    write("looks", {part.__name__: part() for part in (chance, anytime, shown)})


if __name__ == "__main__":
    main()
