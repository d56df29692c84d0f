"""Training settings that a variant or a world has in place of the study's own, as plain values. Loads no framework.

They are a mapping with some of these: "learning_rate" (a number, or the serialised schedule that replaces the model's),
"weight_decay" (that of Keras's optimizers: each step takes weight_decay x learning rate of a weight away; None or 0 for none) and
"early_stopping" (the patience in epochs; None for none). A run is known by the settings that act on it, wherever they come from.
"""

from collections.abc import Mapping
from typing import Any

RATES = ("initial_learning_rate", "end_learning_rate", "warmup_target", "values")  # of the schedules in Keras
_INNER = "inner_optimizer"  # of a wrapper, such as LossScaleOptimizer
_OF_OPTIMIZER = ("learning_rate", "weight_decay")


def optimizer_config(compiled: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of the optimizer in compile settings; of a wrapper, that of the optimizer inside."""
    config = (compiled.get("optimizer") or {}).get("config", {})
    while isinstance(inner := config.get(_INNER), Mapping):
        config = inner["config"]
    return config


def compiled_with(compiled: Mapping[str, Any], training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return compile settings whose optimizer has the settings in `training`; the study's own if it changes none."""
    changed = {name: training[name] for name in _OF_OPTIMIZER if name in training}
    return {**compiled, "optimizer": _changed(compiled["optimizer"], changed)} if changed else compiled


def _changed(optimizer: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    config = optimizer["config"]
    if isinstance(config.get(_INNER), Mapping):
        return {**optimizer, "config": {**config, _INNER: _changed(config[_INNER], changed)}}
    if missing := changed.keys() - config.keys():
        raise ValueError(f"the optimizer {optimizer['class_name']} has no {', '.join(sorted(missing))}")
    if (
        "weight_decay" in changed and "adam_weight_decay" in config
    ):  # Muon decays the weights that it gives to Adam by another number
        changed = {**changed, "adam_weight_decay": changed["weight_decay"]}
    return {**optimizer, "config": {**config, **changed}}


def training_text(training: Mapping[str, Any]) -> str:
    """Say training settings: "learning rate 0.002, no weight decay, early stopping 5"."""
    said = []
    for name, value in training.items():
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            rates = {key: each for key, each in value["config"].items() if key in RATES and each is not None}
            said.append(f"{words} {value['class_name']}({', '.join(f'{key}={_number(each)}' for key, each in rates.items())})")
        else:
            said.append(f"no {words}" if not value else f"{words} {_number(value)}")
    return ", ".join(said)


def _number(value: Any) -> str:
    return f"[{', '.join(map(_number, value))}]" if isinstance(value, list | tuple) else f"{value:.4g}"
