"""Which images should be labelled next? Four answers, compared over seeds, on real images.

A net is trained on a few labelled images, asks for the labels of some more, is trained anew with them, and so on. It asks for

random               any
entropy              those whose prediction has the highest entropy, with dropout off
Monte-Carlo entropy  the same of the mean prediction of many samples with dropout on
BALD                 those on which the samples disagree most: mutual information (Houlsby et al. 2011, arXiv:1112.5745)

out of some candidates, drawn anew from the pool each time: the method of Gal, Islam and Ghahramani 2017, arXiv:1703.02910. Each
image is scored by itself, so that a batch may hold one kind many times (Kirsch et al. 2019, arXiv:1906.08158).

Everything is paired by seed: the same first images, initial weights and candidates for all four, and as many steps of training
whatever the number of labels. Accuracy is that on the test data, with dropout off. Steps matter: images that a net is unsure of
take longer to learn, and a training that is cut short (--steps 500 on Fashion-MNIST) makes them look worse than random ones.

Run: python examples/active_learning.py                      Fashion-MNIST, about a quarter of an hour on two cores
     python examples/active_learning.py --quick              digits (needs scikit-learn), about a minute
     python examples/active_learning.py --data digits --seeds 6
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")  # many small steps and passes: several times as fast there

import keras
import numpy as np

from keras_dropout import uncertainty
from keras_dropout.bench.data.public_sets import digits, fashion_mnist
from keras_dropout.bench.statistics import compare_paired, mean_interval

BATCH = 20


class Images(NamedTuple):
    """Images as the net sees them, and their classes: the pool, of which labels are asked for, and the test data."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Settings:
    """`first` labels, and `more` in each of `rounds`; `candidates` are scored, by `samples` passes; `steps` a training."""

    first: int
    more: int
    rounds: int
    units: int
    candidates: int = 2000
    samples: int = 50
    steps: int = 500


SETTINGS = {
    "digits": Settings(first=20, more=20, rounds=8, units=128),
    "fashion-mnist": Settings(first=100, more=100, rounds=8, units=256, steps=2500),
}


def load(name: str, data_dir: str | None = None) -> Images:
    data = digits() if name == "digits" else fashion_mnist(data_dir)
    x, x_test = (part.x.astype("float32") / data.divide_by for part in (data.train, data.test))
    return Images(x, data.train.y, x_test, data.test.y)


class Learner:
    """A net that can be trained anew from the same initial weights, without being compiled again."""

    def __init__(self, shape: tuple[int, ...], units: int, seed: int):
        keras.utils.set_random_seed(seed)
        layers, steps = keras.layers, []
        for _ in range(2):
            steps += [layers.Dense(units, activation="relu"), layers.Dropout(0.5)]
        self.model = keras.Sequential([keras.Input(shape), layers.Flatten(), *steps, layers.Dense(10, activation="softmax")])
        self.model.compile("adam", "sparse_categorical_crossentropy")
        self.model.optimizer.build(self.model.trainable_variables)
        self._start = [np.array(variable.value) for variable in self._variables()]
        self._seed = seed
        # The first fit draws from numpy once more than others do: not one that counts.
        self.model.fit(np.zeros((BATCH, *shape)), np.zeros(BATCH), batch_size=BATCH, verbose=0)

    def _variables(self) -> list:
        return [*self.model.variables, *self.model.optimizer.variables]

    def train(self, x: np.ndarray, y: np.ndarray, steps: int) -> None:
        for variable, value in zip(self._variables(), self._start, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(self._seed)  # the order of the images
        self.model.fit(x, y, batch_size=BATCH, epochs=max(1, steps * BATCH // len(x)), verbose=0)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x, batch_size=1000, verbose=0)


# What is asked for: a score of each candidate; the highest are labelled.
Score = Callable[[Learner, np.ndarray, int, np.random.Generator], np.ndarray]
SCORES: dict[str, Score] = {
    "random": lambda learner, x, samples, generator: generator.random(len(x)),
    "entropy": lambda learner, x, samples, generator: uncertainty.entropy(learner.predict(x)),
    "Monte-Carlo entropy": lambda learner, x, samples, generator: uncertainty.predict(learner.model, x, samples).entropy,
    "BALD": lambda learner, x, samples, generator: uncertainty.predict(learner.model, x, samples).mutual_information,
}


def curves(images: Images, settings: Settings, seed: int) -> Iterator[tuple[str, list[float]]]:
    """Yield (acquisition, test accuracy with the first labels and after each round)."""
    learner = Learner(images.x.shape[1:], settings.units, seed)
    start = np.random.default_rng(seed).choice(len(images.x), settings.first, replace=False)
    for name, score in SCORES.items():
        labelled, found = start, []
        for number in range(settings.rounds + 1):
            learner.train(images.x[labelled], images.y[labelled], settings.steps)
            found.append(float(np.mean(learner.predict(images.x_test).argmax(-1) == images.y_test)))
            if number < settings.rounds:
                generator = np.random.default_rng((seed, number))
                pool = generator.permutation(len(images.x))
                candidates = pool[~np.isin(pool, labelled)][: settings.candidates]
                order = np.argsort(-score(learner, images.x[candidates], settings.samples, generator), kind="stable")
                labelled = np.concatenate([labelled, candidates[order[: settings.more]]])
        yield name, found


def report(accuracies: dict[str, np.ndarray], settings: Settings) -> str:
    """The table of accuracies (seeds, rounds + 1) by labels and acquisition, and the differences to random at the end."""

    def cell(values: np.ndarray) -> str:
        interval = mean_interval(values)
        return f"{values.mean():.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")

    lines = [["labels", *accuracies]]
    for number in range(settings.rounds + 1):
        labels = settings.first + number * settings.more
        lines.append([str(labels), *(cell(values[:, number]) for values in accuracies.values())])
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
    last = {name: values[:, -1] for name, values in accuracies.items()}
    rest = {name: values - last["random"] for name, values in last.items() if name != "random"}
    rows += ["", f"Against random, with {labels} labels:"]
    for name, found in compare_paired(rest, higher_is_better=True).items():
        interval = f" (95 % {found.interval[0]:+.4f} to {found.interval[1]:+.4f})" if found.interval else ""
        rows.append(f"{name}: {found.mean:+.4f}{interval}, adjusted p {found.p_adjusted:.3f}: {found.verdict}")
    return "\n".join(rows)


def study(images: Images, settings: Settings, seeds: int) -> dict[str, np.ndarray]:
    """Test accuracies (seeds, rounds + 1) by acquisition."""
    accuracies: dict[str, list[list[float]]] = {name: [] for name in SCORES}
    for seed in range(seeds):
        for name, found in curves(images, settings, seed):
            accuracies[name].append(found)
            print(f"seed {seed}, {name}: {found[0]:.3f} to {found[-1]:.3f}", flush=True)
    return {name: np.array(found) for name, found in accuracies.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(SETTINGS), default=None)
    parser.add_argument("--data-dir", help="folder with the files of Fashion-MNIST; also: KERAS_DROPOUT_DATA")
    parser.add_argument("--seeds", type=int, help="six are the fewest that can show a difference")
    for name in ("first", "more", "rounds", "units", "candidates", "samples", "steps"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--quick", action="store_true", help="digits, two seeds, four rounds: too few to show anything")
    given = vars(parser.parse_args(arguments))
    quick, folder = given.pop("quick"), given.pop("data_dir")
    data = given.pop("data") or ("digits" if quick else "fashion-mnist")
    seeds = given.pop("seeds")
    seeds = (2 if quick else 6) if seeds is None else seeds
    settings = replace(SETTINGS[data], **{"rounds": 4} if quick else {})
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    for name, value in {"seeds": seeds, **vars(settings)}.items():
        if value < 1:
            parser.error(f"--{name} must be at least 1; got {value}")
    images = load(data, folder)
    wanted = settings.first + settings.rounds * settings.more
    if wanted > len(images.x) or settings.more > settings.candidates:
        parser.error(f"{wanted} labels of {len(images.x)} images, {settings.more} of {settings.candidates} candidates at a time")
    print(f"\n{report(study(images, settings, seeds), settings)}")


if __name__ == "__main__":
    main()
