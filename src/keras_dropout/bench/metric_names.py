"""The names of metrics: which of them `--samples` gives, and whether a higher value is better.

To add a metric to `--samples`, write its formula in `metrics.py`, a function of predictions and answers, and its row in `SAMPLED`.
"""

import re
from typing import NamedTuple

MC = "mc_"  # begins the name of a metric of Monte-Carlo predictions


class Row(NamedTuple):
    """What a metric of `--samples` is for: kinds of `outputs` as `uncertainty.find_outputs` names them.

    `plain` is False where plain predictions already have it, from the metrics the model is compiled with.
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
TUNED_BY = ("nll", "brier", "ece")  # by which a rate can be chosen on validation data
EDGES = [number / 15 for number in range(16)]  # of the bins of confidence in curves of calibration
COVERAGE = [number / 20 for number in range(1, 21)]  # at which the risk is kept
# Whole words of a name; before them may be an output's.
_HIGHER_IS_BETTER = re.compile(
    r"(?<![^\W_])(acc|accuracy|auc|auroc|precision|recall|sensitivity|specificity|f1(score)?|fbeta|m?iou|io_u|r2(score)?|similarity"
    r"|correlation|true_positives?|true_negatives?)(?![^\W_])"
)


def plain_names(outputs: str) -> list[str]:
    """List the metrics that `--samples` adds for plain predictions of a kind of outputs."""
    return [name for name in monte_carlo_names(outputs) if SAMPLED[name].plain]


def monte_carlo_names(outputs: str) -> list[str]:
    """List the metrics that `--samples` gives for Monte-Carlo predictions of a kind of outputs, without `MC`."""
    return [name for name, row in SAMPLED.items() if outputs in row.outputs]


def is_monte_carlo(metric: str) -> bool:
    """Whether a metric on test data, such as "test_mc_nll", is of Monte-Carlo predictions."""
    return metric.startswith(f"test_{MC}") and metric.removeprefix(f"test_{MC}") in SAMPLED


def is_sampled(metric: str) -> bool:
    """Whether a study has a metric on test data only because of `--samples`."""
    row = SAMPLED.get(metric.removeprefix("test_")) if metric.startswith("test_") else None
    return is_monte_carlo(metric) or (row is not None and row.plain)


def plain_metric(metric: str) -> str:
    """Name the metric of plain predictions that goes with a Monte-Carlo one."""
    return metric.replace(f"test_{MC}", "test_")


def higher_is_better(metric: str) -> bool:
    """Whether a higher value of a metric is better: as its row in `SAMPLED` says, else by the words of its name."""
    name = metric.lower()
    if row := SAMPLED.get(name.removeprefix("test_").removeprefix(MC)):
        return row.higher_is_better
    return not name.endswith(("loss", "error")) and _HIGHER_IS_BETTER.search(name) is not None
