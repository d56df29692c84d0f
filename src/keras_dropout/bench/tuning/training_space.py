"""The search space of a baseline's training: learning rate, weight decay and early stopping, near those of the study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_dropout.bench.own_training import training_text
from keras_dropout.bench.records import Study, Variant
from keras_dropout.bench.study import other_training

RATES = [2 ** (power / 3) for power in range(-6, 7)]  # times the study's learning rate: a quarter to four times
DECAYS = [2.0**power for power in range(-3, 4)]  # times `other_training.usual_decay`
_Choices = Mapping[str, Sequence[tuple[Any, Mapping[str, Any]]]]


@dataclass(frozen=True)
class TrainingSpace:
    """The choices of each training setting, in order: what is shown of it, and the setting, empty where it is the study's own."""

    choices: _Choices

    def __str__(self) -> str:
        return ", ".join(f"{name}={'|'.join(text for text, _ in each)}" for name, each in self.choices.items())

    @property
    def size(self) -> int:
        """Number of points in the space."""
        return math.prod(map(len, self.choices.values()))

    @property
    def first(self) -> list[dict[str, int]]:
        """The point to try first: the training of the study as it is."""
        return [{name: [not training for _, training in each].index(True) for name, each in self.choices.items()}]

    def suggest(self, trial: Any, model: Any, name: str) -> Variant:
        """Return the suggestion of an Optuna trial, as a variant without dropout."""
        training: dict[str, Any] = {}
        for setting, each in self.choices.items():
            training |= each[trial.suggest_int(setting, 0, len(each) - 1)][1]
        return Variant(name, {}, training)


def of_study(study: Study) -> TrainingSpace:
    """Return the space near a study's own training. What its optimizer would not obey is left out."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    rates = [other_training.scaled_rate(study, factor) for factor in RATES]
    if all(rates):
        found["learning_rate"] = [{} if factor == 1 else rate for factor, rate in zip(RATES, rates) if rate]
    own, usual = other_training.decay_of(study), other_training.usual_decay(study)
    if usual is not None and other_training.other_decay(study, usual) is not None:
        decays = sorted({*(float(f"{factor * usual:.2g}") for factor in DECAYS), *([own] if own else [])})
        found["weight_decay"] = [
            {} if decay == own else other_training.other_decay(study, decay) or {} for decay in (None, *decays)
        ]
    own_patience, epochs = study.early_stopping, study.epochs
    patience = {math.ceil(epochs / 4), other_training.usual_patience(epochs), *([own_patience] if own_patience else [])}
    found["early_stopping"] = [
        {} if each == own_patience else {"early_stopping": each} for each in (None, *sorted(patience, reverse=True))
    ]
    return TrainingSpace({name: [(_shown(name, each), each) for each in choices] for name, choices in found.items()})


def _shown(name: str, training: Mapping[str, Any]) -> str:
    """Return the value of a setting in short."""
    return training_text(training).replace(name.replace("_", " "), "").strip() if training else "as it is"
