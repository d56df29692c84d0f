"""Say, for terminal and page, what new divisions of the data for each seed mean for a comparison's figures."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_dropout.bench.variance import FEWEST_SEEDS

_OPTION = re.compile(r" --resample-split\b")


def variance_sentences(figures: Mapping[str, Mapping[str, Any]], command: str) -> list[str]:
    """Say which share of the variance of each variant's difference in test loss comes from where, from `Comparison.figures`.

    `command` is the one that made the study.
    """
    parts = {name: each["variance"] for name, each in figures.items() if each.get("variance") and each["variance"]["total"] > 0}
    found = [f"{name}: {_shares(each)}." for name, each in parts.items()]
    if any(each["fixed_seeds"] is None for each in parts.values()):
        found.append("Seed and division cannot be told apart here: divided once, the table has other columns, and so the model.")
    elif any(each["seed"] is None for each in parts.values()):
        found.append(f"To tell seed and division apart, train at least {FEWEST_SEEDS} seeds with one division: {_without(command)}")
    return found


def _shares(parts: Mapping[str, Any]) -> str:
    """Return the shares of the variance of one variant's difference, in words."""
    rest = "seed and division together" if parts["seed"] is None else "the division"
    named = {"the test examples": parts["examples"], "the seed": parts["seed"], rest: parts["division"]}
    shares = {name: f"{value / parts['total']:.0%}".replace("%", " %") for name, value in named.items() if value is not None}
    (first, share), *others = shares.items()
    said = f"of the variance of its test loss difference over seeds, {share} come from {first}"
    said += f"{', ' if len(others) > 1 else ' and '}{' and '.join(f'{share} from {name}' for name, share in others)}"
    said += f" (the seed's from {parts['fixed_seeds']} seeds with one division)" if parts["seed"] is not None else ""
    return said + ("; the others are more than all that was seen, so the last counts as 0" if parts["floored"] else "")


def _without(command: str) -> str:
    """Return how to ask for the same study with the data divided once."""
    return _OPTION.sub("", command) if _OPTION.search(command) else "the same study without resample_split"


def floor_sentence(figures: Mapping[str, Mapping[str, Any]], metric: str) -> list[str]:
    """Say which difference no number of seeds shows."""
    floors = [f"{each['detectable_floor']:.4f} ({name})" for name, each in figures.items() if each.get("detectable_floor")]
    if not floors:
        return []
    return [
        f"As the divisions overlap, no number of seeds shows a {metric.replace('_', ' ')} difference below {', '.join(floors)} "
        "with 80 % power: that takes more data."
    ]


def sentences(figures: Mapping[str, Mapping[str, Mapping[str, Any]]], deciding: str, command: str) -> Sequence[str]:
    """Return all sentences about new divisions, from the figures of each metric; none if the data are divided once."""
    return [*floor_sentence(figures.get(deciding, {}), deciding), *variance_sentences(figures.get("test_loss", {}), command)]
