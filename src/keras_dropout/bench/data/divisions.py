"""Divide one data set anew for each seed."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from keras_dropout.bench.data import splits
from keras_dropout.bench.data.dataset import Data, Part, whole_arrays
from keras_dropout.bench.data.files import Description, Source, read_source, returned_source
from keras_dropout.bench.data.readers import Encode, Raw
from keras_dropout.bench.settings import SPLITS
from keras_dropout.errors import refuse

Divided = tuple[Data, Description | None]


class Divisions:
    """Data that any seed can divide. A division is made when it is asked for, and only the latest is kept.

    `facts` are those of the data as divided once, without new divisions; `same_form` says whether these have the columns of the
    divisions, and `how` how the data are divided.
    """

    def __init__(self, plain: Data, how: str, divide: Callable[[int], Divided], same_form: bool = True):
        self.facts, self.how, self.same_form = plain.facts(SPLITS[0]), how, same_form
        self._divide = divide
        self._latest: tuple[int, Divided] | None = None

    def of(self, seed: int) -> Divided:
        """Return the data as this seed divides them, with their description if they have one."""
        if self._latest is None or self._latest[0] != seed:
            self._latest = None  # free its memory first
            self._latest = seed, self._divide(seed)
        return self._latest[1]

    def all(self, seeds: Sequence[int]) -> Iterator[tuple[int, Divided]]:
        """Yield each seed with its division; the first seed comes last, so that its division is kept."""
        for seed in reversed(seeds):
            yield seed, self.of(seed)


def of_arrays(data: Any, **options: Any) -> Divisions:
    """Return the divisions of (x, y); `options` are those of `dataset.whole_arrays`."""
    divide = whole_arrays(data, **options)
    plain = divide(0)
    return Divisions(plain, _how(plain.division, 0), lambda seed: (divide(seed), None))


def of_file(source: Any, **options: Any) -> Divisions:
    """Return the divisions of a file or folder; `options` are those of `files.load`."""
    if options.get("test_data") is not None:
        refuse_divided(f"test_data {options['test_data']} are given", "Leave test_data out, with all examples in one file; or")
    return _of_source(read_source(source, **options))


def of_returned(value: Any, name: str, **options: Any) -> Divisions:
    """Return the divisions of data that a function returned; arguments as for `files.from_returned`."""
    return _of_source(returned_source(value, name, **options))


def _of_source(source: Source) -> Divisions:
    if source.options.time is not None:
        refuse_divided(
            f"by time, {source.options.time}, the test data are always the latest", "Leave time out to divide at random; or"
        )
    if source.options.window is not None:
        refuse_divided("in windows of a series, the test data are always the latest", "Leave window out to divide at random; or")
    if given := [part for part in source.raw.parts if part not in ("all", "train")]:
        refuse_divided(f"{source.name} has {' and '.join(given)} data of its own", "Give all examples together, undivided; or")
    if source.raw.kind == "images":
        source = dataclasses.replace(source, raw=_decoded_once(source.raw))
    features, (plain, about) = source.features(), source.divide()
    same = features in (None, about.features)
    return Divisions(plain, _how(about.split, source.options.seed), lambda seed: source.divide(seed, features), same)


def _decoded_once(raw: Raw) -> Raw:
    """Return the same image files, of which each is decoded once for all divisions whose training images have the same form."""
    (examples,) = raw.parts.values()
    files, decoded = examples.x, dict[tuple[int, ...], np.ndarray]()
    place = {id(file): number for number, file in enumerate(files)}

    def learn(train: np.ndarray) -> tuple[Encode, dict[str, Any]]:
        encode, told = raw.learn(train)
        form = encode(train[:1]).shape[1:]
        if form not in decoded:
            decoded[form] = encode(files)
        return lambda some: decoded[form][[place[id(file)] for file in some]], told

    return dataclasses.replace(raw, learn=learn)


def _how(sentence: str, seed: int) -> str:
    """Return how data are divided, from the sentence about the division by a seed."""
    return sentence.rpartition("divided off ")[2].removesuffix(f", seed {seed}")


def refuse_divided(why: str, fix: str = "Give (x, y) whole; or") -> NoReturn:
    """Refuse to divide data anew that are divided already."""
    refuse(f"resample_split divides the data anew for each seed; {why}.", f"{fix} leave resample_split out.")


def pooled(data: Data, drawn: bool) -> Divisions:
    """Return the divisions of a ready data set: all its examples together, divided by class at random into parts of its sizes.

    If its own test part was `drawn` in this way, its own division is that of seed 0.
    """
    whole = Part(*(np.concatenate(pair) for pair in zip(data.train[:2], data.test[:2])))
    size, test = len(whole.y), len(data.test.y)
    validation = data.validation / (size - test)

    def divide(seed: int) -> Divided:
        if drawn and seed == 0:
            return data, None
        found = splits.divide(size, seed=seed, test=test / size, validation=validation, classes=whole.y)
        parts = [Part(whole.x[rows], whole.y[rows]) for rows in (np.concatenate([found.validation, found.train]), found.test)]
        return dataclasses.replace(data, train=parts[0], test=parts[1], validation=len(found.validation)), None

    return Divisions(data, "all examples together, by class, at random", divide)
