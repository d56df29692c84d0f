"""Gal and Ghahramani 2016, table 1, on the regression data that ship with scikit-learn: plain against Monte-Carlo dropout.

Diabetes (442 patients, 10 inputs). As published (arXiv:1506.02142): random splits 90/10, inputs and target standardised on the
training part, one hidden layer of 50 relu units, one rate for input and hidden layer, mean squared error, Adam, batch 128, weight
decay from the rate and the precision, 10,000 passes; the rate is chosen on 20 % of the training part by validation
log-likelihood, then all of it is trained on. Other than published: the precision is the likeliest one on that validation part
(theirs: the best of three), and plain predictions get a Gaussian of the validation error's variance. Log-likelihoods are in the
units of the target.
Run: python benchmarks/gal_regression.py [--splits 20] [--json FILE]
"""

import argparse

import keras
import numpy as np
from report import write
from sklearn.datasets import load_diabetes

from keras_dropout import Dropout, metrics, uncertainty
from keras_dropout.bench.statistics import compare_paired, mean_interval

RATES = (0.005, 0.01, 0.05, 0.1)
EPOCHS, BATCH, UNITS, LENGTH_SCALE, PASSES = 400, 128, 50, 0.01, 10_000


def train(x: np.ndarray, y: np.ndarray, rate: float, seed: int) -> keras.Model:
    """The published network on standardised data; its outputs are in the units of the target."""
    keras.utils.set_random_seed(seed)
    mean, sd = y.mean(), y.std()
    precision = 2 / y.var()  # a first guess, as weight decay needs one: half of the variance is noise
    decay = keras.regularizers.L2(LENGTH_SCALE**2 * (1 - rate) / (2 * len(x) * precision))
    inputs = keras.Input((x.shape[1],))
    hidden = keras.layers.Dense(UNITS, "relu", kernel_regularizer=decay)(Dropout(rate, seed=2 * seed)(inputs))
    outputs = keras.layers.Dense(1, kernel_regularizer=decay)(Dropout(rate, seed=2 * seed + 1)(hidden))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    model.fit(x, (y - mean) / sd, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return keras.Model(inputs, keras.layers.Rescaling(sd, mean)(model.output))


def standardise(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (x - like.mean(0)) / like.std(0)


def split(x: np.ndarray, y: np.ndarray, number: int) -> dict[str, float]:
    """The figures of one split."""
    order = np.random.default_rng(number).permutation(len(x))
    test, train_rows = order[: len(x) // 10], order[len(x) // 10 :]
    held_out, rest = train_rows[: len(train_rows) // 5], train_rows[len(train_rows) // 5 :]
    found = []
    for rate in RATES:
        model = train(standardise(x[rest], x[rest]), y[rest], rate, number)
        seen, answers = standardise(x[held_out], x[rest]), y[held_out, None]
        precision = uncertainty.fit_precision(model, seen, answers, 1000)
        u = uncertainty.predict(model, seen, 1000, y=answers, precision=precision)
        errors = model.predict(seen, verbose=0) - answers
        found.append((u.log_likelihood.mean(), rate, precision, float(np.square(errors).mean())))
    _, rate, precision, variance = max(found)
    model = train(standardise(x[train_rows], x[train_rows]), y[train_rows], rate, number)
    seen, answers = standardise(x[test], x[train_rows]), y[test, None]
    u = uncertainty.predict(model, seen, PASSES, y=answers, precision=precision)
    plain = model.predict(seen, verbose=0)
    return {
        "rate": rate,
        "precision": precision,
        "rmse plain": metrics.rmse(plain, answers),
        "rmse Monte-Carlo": metrics.rmse(u.mean, answers),
        "log-likelihood plain": -metrics.gaussian_nll(plain, np.full(plain.shape, variance), answers),
        "log-likelihood Monte-Carlo": float(u.log_likelihood.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--json")
    splits = parser.parse_args().splits
    data = load_diabetes(scaled=False)
    rows = [split(data.data, data.target, number) for number in range(splits)]
    print(f"diabetes, {splits} splits, {PASSES:,} passes; rates chosen: {[row['rate'] for row in rows]}")
    for name in list(rows[0])[2:]:
        values = np.array([row[name] for row in rows])
        print(f"{name:28} {values.mean():8.4f}  (95 % {' to '.join(f'{v:.4f}' for v in mean_interval(values) or ())})")
    for metric, higher in (("rmse", False), ("log-likelihood", True)):
        pairs = np.array([row[f"{metric} Monte-Carlo"] - row[f"{metric} plain"] for row in rows])
        found = compare_paired({"Monte-Carlo": pairs}, higher)["Monte-Carlo"]
        low, high = found.interval
        print(
            f"{metric}, Monte-Carlo - plain: {found.mean:+.4f} (95 % {low:+.4f} to {high:+.4f}, p {found.p:.3g}): {found.verdict}"
        )
    write("gal_regression", rows)


if __name__ == "__main__":
    main()
