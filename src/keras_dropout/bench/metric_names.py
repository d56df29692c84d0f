"""The names of metrics: which ones `--samples` computes, and whether a higher value is better.

To add a metric to `--samples`, add its formula to `metrics.py`, a function of predictions and answers, and a row to `SAMPLED`.
"""

import re
from typing import NamedTuple

MC = "mc_"  # prefix of the metrics of Monte-Carlo predictions
SCALED = "scaled_nll"  # the NLL of plain predictions after temperature scaling


class Row(NamedTuple):
    """The use of a metric of `--samples`. `outputs` lists the kinds of outputs, named as in `uncertainty.find_outputs`.

    `plain` is False if the model's compiled metrics already give the metric for plain predictions.
    """

    outputs: tuple[str, ...]
    higher_is_better: bool = False
    plain: bool = True


SAMPLED = {
    "accuracy": Row(("classes", "labels"), higher_is_better=True, plain=False),
    "nll": Row(("classes", "labels")),
    "brier": Row(("classes", "labels")),
    "ece": Row(("classes", "labels")),
    "rmse": Row(("values",)),
}
TUNED_BY = ("nll", "brier", "ece")  # metrics that can choose a rate on validation data
EDGES = [number / 15 for number in range(16)]  # edges of the confidence bins of calibration curves
COVERAGE = [number / 20 for number in range(1, 21)]  # coverages at which the risk is stored
# Whole words of a metric's name; the name of an output may come before them.
_ACCURACY = re.compile(r"(?<![^\W_])(acc|accuracy)(?![^\W_])")
_HIGHER_IS_BETTER = re.compile(
    r"(?<![^\W_])(acc|accuracy|auc|auroc|precision|recall|sensitivity|specificity|f1(score)?|fbeta|m?iou|io_u|r2(score)?|similarity"
    r"|correlation|true_positives?|true_negatives?)(?![^\W_])"
)
_LOWER_IS_BETTER = re.compile(
    r"(?<![^\W_])(loss(es)?|error|cross_?entropy|deviance|divergence|kld?|nll|perplexity|ppl|brier(_score)?|ece|mse|mae|mape|msle|rmse"
    r"|wer|cer|fid|regret|false_positives?|false_negatives?|hinge)(?![^\W_])"
)


def plain_names(outputs: str) -> list[str]:
    """List the metrics that `--samples` adds for plain predictions of a kind of outputs."""
    return [name for name in monte_carlo_names(outputs) if SAMPLED[name].plain]


def monte_carlo_names(outputs: str) -> list[str]:
    """List the metrics that `--samples` gives for Monte-Carlo predictions of a kind of outputs, without `MC`."""
    return [name for name, row in SAMPLED.items() if outputs in row.outputs]


def is_monte_carlo(metric: str) -> bool:
    """Return whether a metric on test data, such as "test_mc_nll", belongs to Monte-Carlo predictions."""
    return metric.startswith(f"test_{MC}") and metric.removeprefix(f"test_{MC}") in SAMPLED


def is_sampled(metric: str) -> bool:
    """Return whether a study has a metric on test data only because of `--samples`."""
    row = SAMPLED.get(metric.removeprefix("test_")) if metric.startswith("test_") else None
    return is_monte_carlo(metric) or metric == f"test_{SCALED}" or (row is not None and row.plain)


def plain_metric(metric: str) -> str:
    """Return the name of the plain metric that corresponds to a Monte-Carlo metric."""
    return metric.replace(f"test_{MC}", "test_")


def higher_is_better(metric: str) -> bool:
    """Return whether a higher value of a metric is better, by its row in `SAMPLED` or else by the words of its name."""
    name = metric.lower()
    if row := SAMPLED.get(name.removeprefix("test_").removeprefix(MC)):
        return row.higher_is_better
    return not name.endswith(("loss", "error")) and _HIGHER_IS_BETTER.search(name) is not None


def is_accuracy(metric: str) -> bool:
    """Return whether a metric is an accuracy by the words of its name."""
    return _ACCURACY.search(metric.lower()) is not None


def known_direction(metric: str) -> bool | None:
    """Return whether a higher value of a metric is better, or None if its name does not say which is better."""
    return higher_is_better(metric) or (False if _LOWER_IS_BETTER.search(metric.lower()) else None)


def is_compared(metric: str) -> bool:
    """Return whether a metric that a training function returned is compared: not if it is one of training or validation."""
    return not metric.lower().startswith(("train_", "training_", "val_", "valid_", "validation_"))
