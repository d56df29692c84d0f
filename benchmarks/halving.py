"""What stopping trials early costs and saves in `tune`: placements of `digits-mlp` trained to the end, and trials drawn from them.

85 random placements of the default space are trained with one seed. Trials are drawn from them 20,000 times: all trained to the
end, or nine of which the best three of an early epoch go on. The choice is the one with the smallest validation loss at the end;
`kept` is how often the best of all drawn goes on. There is one run of each placement, and its luck is part of all figures.

Run: python benchmarks/halving.py [--ledger FILE] [--json FILE]
The figures in docs/tuning.md are those of benchmarks/results/halving.json.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
from report import write

from keras_dropout.bench.compare import compare
from keras_dropout.bench.study import recipes
from keras_dropout.bench.tuning import spaces

RECIPE, SEED, PLACEMENTS, DRAWS = "digits-mlp", 1000, 85, 20_000
RULES = (
    (1, None),
    (6, None),
    (9, None),
    (9, 1 / 2),
    (9, 1 / 3),
    (9, 1 / 10),
)  # trials, and the share of epochs after which three go on


class AtRandom:
    """Suggests as an Optuna trial does, at random."""

    def __init__(self):
        self.random = np.random.default_rng(0)

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        return choices[self.random.integers(len(choices))]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))


def trained(ledger: str) -> tuple[np.ndarray, np.ndarray]:
    """The validation loss of each placement at each epoch, (placements, epochs), and its test loss."""
    space, random = spaces.default(recipes.find(RECIPE).model()), AtRandom()
    variants = {f"p{number}": space.ask(random) for number in range(PLACEMENTS)}
    found = compare(RECIPE, variants=variants, seeds=[SEED], ledger=ledger, engine="compiled")
    runs = [found.results[found.study.key(variant, SEED)] for variant in found.study.variants if variant.name in variants]
    return np.array([run.curves["validation_loss"] for run in runs]), np.array([run.metrics["test_loss"] for run in runs])


def row(trials: int, share: float | None, curves: np.ndarray, tests: np.ndarray) -> dict:
    random, epochs = np.random.default_rng(trials), curves.shape[1]
    drawn = np.array([random.choice(len(curves), trials, replace=False) for _ in range(DRAWS)])
    going, rung = drawn, epochs
    if share is not None:
        rung = round(share * epochs)
        early = curves[drawn, rung - 1].argsort(axis=1)[:, :3]
        going = np.take_along_axis(drawn, early, axis=1)
    best = going[np.arange(DRAWS), curves[going, -1].argmin(axis=1)]
    found = {
        "trials": trials,
        "three_from_epoch": None if share is None else rung,
        "models": trials if share is None else (trials * rung + 3 * (epochs - rung)) / epochs,
        "kept": float(np.mean(curves[drawn, -1].min(axis=1) == curves[best, -1])),
        "validation_loss": float(curves[best, -1].mean()),
        "test_loss": float(tests[best].mean()),
    }
    print(found)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledger", default="halving.db")
    parser.add_argument("--json")
    results = trained(parser.parse_args().ledger)
    write("halving", [row(*rule, *results) for rule in RULES])
