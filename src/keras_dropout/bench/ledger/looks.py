"""Earlier studies in a ledger that asked the same question, and how many placements a test part has judged. Changes nothing."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_dropout.bench.ledger.lookup import check_readable, decoding, read_asked, read_object, reading
from keras_dropout.bench.ledger.schema import select_keys
from keras_dropout.bench.records import Study

_NOT_ASKED = ("numeric_version", "backend", "engine", "samples")  # entries of a run's config that make no other question of it
_Pair = tuple[str, int]  # placement, seed


@dataclass(frozen=True)
class Look:
    """An earlier study of the same question: the variants and seeds of its pairs, and `max_seeds` if it added seeds.

    `placements` identify the variants across studies, whatever their names.
    """

    number: int
    started: str
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    max_seeds: int | None = None
    placements: tuple[str, ...] = field(default=(), repr=False)

    def document(self) -> dict[str, Any]:
        """Return the look as plain values."""
        said = {"number": self.number, "started": self.started, "seeds": list(self.seeds), "variants": list(self.variants)}
        return said | {"max_seeds": self.max_seeds}


@dataclass(frozen=True)
class Asked:
    """What a ledger knows of a study's question: earlier looks, and how many placements the test part has judged with this study.

    `placements` are those of the study, without the baseline's, as in `Look`. `placements_judged` is None without a ledger.
    """

    looks: tuple[Look, ...] = ()
    placements_judged: int | None = None
    placements: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Question:
    """A study as a question: hashes of its settings and model, and the pairs of runs that it asked for.

    `names` has the variants by placement, without the baseline. `ended` has the time at which each pair ended.
    """

    said: "_Said"
    settings: str
    model: str
    baseline: str
    names: Mapping[str, str]
    asked: frozenset[_Pair]
    ended: Mapping[_Pair, str]

    def judged(self, until: str | None = None) -> set[_Pair]:
        """Return the pairs that have ended until a time."""
        return {pair for pair, when in self.ended.items() if until is None or when <= until}

    def repeats(self, other: "_Question") -> bool:
        """Return whether both asked for the same runs, or add seeds to the same variants by the same rule, which counts looks."""
        mine, theirs = set(self.said.keys.values()), set(other.said.keys.values())
        if self.said.max_seeds is None or mine == theirs:
            return self.said.max_seeds == other.said.max_seeds and mine == theirs
        alike = (self.said.max_seeds, self.said.variants) == (other.said.max_seeds, other.said.variants)
        # Of a study that was interrupted early, not all placements are known.
        return alike and (self.names.keys() == other.names.keys() or mine <= theirs or theirs <= mine)


def asked_before(path: str | Path, study: Study, max_seeds: int | None = None, number: int | None = None) -> Asked:
    """Return what a ledger knows of a study's question: before the stored study with a number, else up to now.

    A look is an earlier study that compared one of the same placements with the same baseline on the same data, under the same
    settings, but on fewer or other seeds. Only runs count that ended before this study began. A command that is repeated is no new
    look, and the looks of a study that adds seeds are not counted apart.
    """
    known: list[_Question] = []
    if check_readable(path):
        with reading(path) as connection:
            known = list(_questions(connection, study.data.fingerprint))
    this = _live(study, max_seeds) if number is None else next((each for each in known if each.said.number == number), None)
    if this is None:  # none of its runs has ended
        return Asked()
    before = known if number is None else known[: known.index(this)]
    until = this.said.started or None
    judged = {(each.model, placement) for each in before for placement, _ in each.judged(until)}
    judged |= {(this.model, placement) for placement in this.names}
    return Asked(tuple(_looks(before, this, until)), len(judged), tuple(this.names))


def _looks(before: Iterable[_Question], this: _Question, until: str | None) -> Iterator[Look]:
    """Yield the looks among earlier studies, one of those that repeat each other: the first of the most pairs."""
    groups: list[list[_Question]] = []
    for each in before:
        shared = {pair for pair in each.judged(until) if pair[0] in this.names}
        asked = {pair for pair in this.asked if pair[0] in each.names}
        if (each.settings, each.baseline) != (this.settings, this.baseline) or each.repeats(this) or shared in (set(), asked):
            continue
        alike = next((group for group in groups if each.repeats(group[0])), None)
        groups.append([each]) if alike is None else alike.append(each)
    for group in groups:
        each = max(group, key=lambda one: len(one.judged(until)))
        judged = each.judged(until)
        placements = tuple(placement for placement in each.names if any(pair[0] == placement for pair in judged))
        said, seeds = each.said, tuple(sorted({seed for _, seed in judged}))
        yield Look(said.number, said.started, seeds, tuple(each.names[p] for p in placements), said.max_seeds, placements)


@dataclass(frozen=True)
class _Said:
    """What the row of a study says: number, start, baseline, `max_seeds`, number of variants, and keys by variant and seed."""

    number: int
    started: str
    baseline: str
    max_seeds: int | None
    variants: int
    keys: Mapping[tuple[str, int], str]


def _questions(connection: sqlite3.Connection, fingerprint: str) -> Iterator[_Question]:
    """Yield the studies of these data that compared something, the oldest first."""
    query = "SELECT id, started, document, runs FROM studies WHERE instr(document, ?) ORDER BY started, id"
    found = []
    for number, started, text, runs in connection.execute(query, (fingerprint,)):
        with decoding(f"study {number} cannot be read"):
            document = read_object("document", text)
            plan = document.get("plan")
            if (
                plan is not None and document["study"]["data"]["fingerprint"] == fingerprint
            ):  # a search has no plan: it judges nothing
                keys = {(run["variant"], run["seed"]): run["key"] for run in read_asked(runs)}
                study = document["study"]
                found.append(_Said(number, started, study["baseline"], plan["max_seeds"], len(study["variants"]), keys))
    asked = {key for each in found for key in each.keys.values()}
    ended = dict(select_keys(connection, "SELECT key, finished FROM runs WHERE status != 'failed' AND key IN", asked))
    samples = [
        {name: key for (name, _), key in reversed(list(each.keys.items())) if key in ended} for each in found
    ]  # the first of each
    identities = {}
    for key, config in select_keys(
        connection, "SELECT key, config FROM details WHERE key IN", (key for each in samples for key in each.values())
    ):
        with decoding(f"run {key}"):
            identities[key] = _identity(read_object("config", config))
    for said, sample in zip(found, samples):
        known = {name: identities[key] for name, key in sample.items()}
        if said.baseline in known and len(known) > 1:
            yield _question(said, known, ended)


def _question(said: _Said, known: Mapping[str, tuple[str, str, str]], ended: Mapping[str, str]) -> _Question:
    settings, model, baseline = known[said.baseline]
    # A variant with training settings of its own is another than one that is placed alike.
    placements = {
        name: placement if own == settings else f"{placement} {own}"
        for name, (own, _, placement) in known.items()
        if name != said.baseline
    }
    names = {placement: name for name, placement in placements.items()}
    pairs = {
        (placements[name], seed): (key, said.keys[said.baseline, seed])
        for (name, seed), key in said.keys.items()
        if name in placements and (said.baseline, seed) in said.keys
    }
    done = {pair: max(ended[key] for key in both) for pair, both in pairs.items() if all(key in ended for key in both)}
    return _Question(said, settings, model, baseline, names, frozenset(pairs), done)


def _live(study: Study, max_seeds: int | None) -> _Question:
    """Return the question of a study that has its model."""
    configs = {each.name: json.loads(json.dumps(study.deciding(each, study.seeds[0]), default=repr)) for each in study.variants}
    keys = {(run.variant.name, run.seed): run.key for run in study.runs()}
    said = _Said(0, "", study.baseline, max_seeds, len(study.variants), keys)
    return _question(said, {name: _identity(each) for name, each in configs.items()}, {})


def _identity(config: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return hashes of the settings and of the model in a run's config, and its placement as text."""
    asked = {name: value for name, value in config.items() if name not in (*_NOT_ASKED, "placement", "seed")}
    return _hash(asked), _hash(config.get("model")), json.dumps(config["placement"], sort_keys=True)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
