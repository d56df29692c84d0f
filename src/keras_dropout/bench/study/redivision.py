"""Plan new divisions of the data for each seed: what each division holds, and whether all of them fit one model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.data.divisions import Divisions
from keras_dropout.bench.records import DataFacts
from keras_dropout.bench.settings import SPLITS
from keras_dropout.bench.study.loading import facts_for_model
from keras_dropout.errors import refuse


def check_settings(asked: Mapping[str, Any], seeds: Any) -> None:
    """Refuse settings that have no meaning with new divisions of the data."""
    if asked["split"] != SPLITS[0]:
        refuse(
            f"resample_split divides the data anew for each seed; got the published split, {asked['split']}.",
            f"Use the split {SPLITS[0]}, or leave resample_split out.",
        )
    if seeds == "auto":
        refuse(
            "resample_split needs a number of seeds; got auto, whose verdicts would not allow for divisions that overlap.",
            "Give a number, for example --seeds 10; in Python seeds=10.",
        )


def facts_of(
    divisions: Divisions, seeds: Sequence[int], check: Callable[[Data], tuple[str, ...]], weigh: Callable[[Data], Any]
) -> tuple[dict[int, DataFacts], tuple[str, ...]]:
    """Return the facts of each seed's division, and notes; refuse divisions that do not fit one model.

    `check` refuses data that do not fit the model and returns notes; `weigh` returns the class weights for a division. The division
    of the first seed is kept.
    """
    facts, shapes, weights, notes = {}, {}, {}, dict[str, list[int]]()
    for seed, (data, about) in divisions.all(seeds):
        facts[seed], weights[seed] = data.facts(SPLITS[0]), weigh(data)
        shapes[seed] = facts_for_model(data, about)
        for note in (*(about.notes if about is not None else ()), *check(data)):
            notes.setdefault(note, []).append(seed)
    _check_same(shapes)
    if any(each != weights[seeds[0]] for each in weights.values()):
        refuse(
            "balanced class weights differ from one division of the data to the next.",
            'Give the weights yourself: --class-weight "0=1, 1=5", in Python class_weight={0: 1, 1: 5}.',
        )
    if (different := len({each.fingerprint for each in facts.values()})) < len(seeds):
        notes[f"{len(seeds)} seeds, and only {different} different divisions"] = list(seeds)
    said = [note if len(its) == len(seeds) else f"{note} (seed {', '.join(map(str, sorted(its)))})" for note, its in notes.items()]
    return {seed: facts[seed] for seed in seeds}, (sentence(list(facts.values()), divisions.how), *said)


def sentence(facts: Sequence[DataFacts], how: str) -> str:
    """Say how the data are divided for each seed."""
    parts = []
    for part in ("training", "validation", "test"):
        sizes = sorted({getattr(each, part.removesuffix("ing")) for each in facts})
        parts.append(f"{sizes[0]:,}{f' to {sizes[-1]:,}' if len(sizes) > 1 else ''} {part}")
    return f"{parts[0]}, {parts[1]} and {parts[2]} examples: divided anew for each seed, {how}"


def _check_same(shapes: Mapping[int, Mapping[str, Any]]) -> None:
    """Refuse divisions from which a model would be made with other inputs or outputs."""
    (first, told), *others = shapes.items()
    for seed, each in others:
        for name, value in each.items():
            if value == told[name]:
                continue
            if name == "vocabulary":
                least = min(shape[name] for shape in shapes.values())
                least = int(f"{str(least)[:2]}{'0' * (len(str(least)) - 2)}") if least > 99 else least  # room for other seeds
                fix = f'Give one that all have: --vocabulary {least}; in Python data_options={{"vocabulary": {least}}}.'
                refuse(f"the divisions have vocabularies of {told[name]:,} and {value:,} words: no model fits both.", fix)
            refuse(
                f"the divisions by the seeds {first} and {seed} have other {name.replace('_', ' ')}: {told[name]} and {value}.",
                "Give all examples one form, for example all images in grey; or leave resample_split out.",
            )
