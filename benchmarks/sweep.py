"""How often the rates of a sweep that are not shown to be worse hold the best rate, and how many they are: simulated.

The rates are those that `compare_with_best` leaves, by shape of the true loss over 13 rates, kind of noise and number of seeds.
Beside them stands the rule of 0.1.0: all rates between those where the spline through the runs does not differ from its lowest
point by a paired t test. `upper` is the 97.5 % limit of the share that misses the best rate (Clopper and Pearson).

Run: python benchmarks/sweep.py [--quick] [--json FILE]
The figures in docs/tuning.md are those of benchmarks/results/sweep.json.
"""

import sys

import numpy as np
from report import write
from scipy import stats
from scipy.interpolate import CubicSpline

from keras_dropout.bench.statistics import LEVEL, compare_with_best, smooth_curve

STUDIES = {6: 200, 12: 50} if "--quick" in sys.argv else {6: 2000, 12: 400}  # by number of seeds
BEFORE = 200  # studies of which the rule of 0.1.0 is asked
X = np.linspace(0, 0.6, 13)
SHAPES = {
    "parabola": 0.8 * (X - 0.25) ** 2,
    "flat to one side": 0.05 * np.maximum(0.2 - X, 0) + 0.3 * np.maximum(X - 0.3, 0) ** 2,
    "level": 0 * X,
    "falling": -0.1 * X,
    "step": np.where(X < 0.38, -0.1 * X, 0.05),
    "kink": 0.3 * np.abs(X - 0.25),
    "narrow dip": np.where(np.isclose(X, 0.15), -0.03, 0.0),
}
SD = 0.01  # of the difference of two runs of a seed: 0.014
NOISES = {
    "normal": lambda generator, shape: generator.normal(0, SD, shape),
    "wider with the rate": lambda generator, shape: generator.normal(0, SD, shape) * (0.5 + 2.5 * X),
    "Student's t, 3 degrees": lambda generator, shape: generator.standard_t(3, shape) * SD / 3**0.5,
    "lognormal": lambda generator, shape: generator.lognormal(0, 0.8, shape) * SD,
}


def by_curve(values: np.ndarray) -> np.ndarray:
    """Which rates the rule of 0.1.0 left."""
    grid, knots = np.linspace(X[0], X[-1], 121), smooth_curve(X, values).knots
    basis = CubicSpline(np.linspace(X[0], X[-1], knots), np.eye(knots), bc_type="natural")
    rows = values - values.mean(axis=1, keepdims=True)
    curves = (basis(grid) @ np.linalg.lstsq(basis(X), rows.T, rcond=None)[0]).T
    differences = curves - curves[:, [curves.mean(axis=0).argmin()]]
    half = stats.t.isf(LEVEL / 2, len(values) - 1) * differences.std(axis=0, ddof=1) / len(values) ** 0.5
    left = grid[differences.mean(axis=0) <= half]
    return (left[0] - 1e-9 <= X) & (left[-1] + 1e-9 >= X)


def row(shape: str, noise: str, seeds: int) -> dict:
    truth = SHAPES[shape]
    best = np.isclose(truth, truth.min())
    studies = STUDIES[seeds]
    draws = truth + NOISES[noise](np.random.default_rng(seeds), (studies, seeds, len(X)))
    left = np.array([compare_with_best(values) for values in draws]) > LEVEL
    before = np.array([by_curve(values) for values in draws[:BEFORE]])
    holds, held = (each[:, best].mean() for each in (left, before))  # where several rates are the best, of one of them on average
    missed = round((1 - holds) * studies)
    upper = float(stats.beta.ppf(0.975, missed + 1, studies - missed))
    found = {
        "shape": shape,
        "noise": noise,
        "seeds": seeds,
        "studies": studies,
        "holds": float(holds),
        "upper": round(upper, 4),
        "rates_left": round(float(left.sum(axis=1).mean()), 2),
        "by_curve_holds": float(held),
        "by_curve_rates_left": round(float(before.sum(axis=1).mean()), 2),
    }
    print(found, flush=True)
    return found


if __name__ == "__main__":
    write("sweep", [row(shape, noise, seeds) for seeds in STUDIES for noise in NOISES for shape in SHAPES])
