"""Which metrics `--samples` gives, and which way a metric is better; a new one takes its formula and its row."""

import json

import keras
import numpy as np
import pytest

from keras_dropout import metrics, place
from keras_dropout.bench import metric_names, scoring
from keras_dropout.bench.metric_names import higher_is_better
from keras_dropout.bench.records import DataFacts, Result, Study, Variant
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.errors import BadInput

HIGHER = [
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
    "auc",
    "precision",
    "precision_at_recall",
    "recall",
    "recall_at_precision",
    "sensitivity_at_specificity",
    "specificity_at_sensitivity",
    "true_negatives",
    "true_positives",
    "concordance_correlation",
    "pearson_correlation",
    "f1_score",
    "fbeta_score",
    "binary_io_u",
    "io_u",
    "mean_io_u",
    "one_hot_io_u",
    "one_hot_mean_io_u",
    "cosine_similarity",
    "r2_score",
]
LOWER = [
    "false_negatives",
    "false_positives",
    "categorical_hinge",
    "hinge",
    "squared_hinge",
    "binary_crossentropy",
    "categorical_crossentropy",
    "kl_divergence",
    "poisson",
    "sparse_categorical_crossentropy",
    "logcosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "root_mean_squared_error",
]
NEITHER = {"Metric", "Mean", "MeanMetricWrapper", "Sum"}  # of any values
ARGUMENTS = {
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "MeanIoU": {"num_classes": 2},
    "OneHotMeanIoU": {"num_classes": 2},
    "IoU": {"num_classes": 2, "target_class_ids": [0]},
    "OneHotIoU": {"num_classes": 2, "target_class_ids": [0]},
}


def test_the_better_direction_of_every_metric_of_keras():
    classes = {c.__name__: c for c in vars(keras.metrics).values() if isinstance(c, type) and issubclass(c, keras.Metric)}
    names = [c(**ARGUMENTS.get(name, {})).name for name, c in classes.items() if name not in NEITHER]
    assert sorted(names) == sorted(HIGHER + LOWER)  # a new Keras has new ones: say which way they go
    for name in names:
        for metric in (name, f"test_{name}", f"test_an_output_{name}", f"{name}_1"):
            assert higher_is_better(metric) == (name in HIGHER), metric


@pytest.mark.parametrize("metric", ["account_loss", "accident_loss", "previous_loss", "layer2_loss", "acc_loss", "accuracy_error"])
def test_a_loss_is_the_better_the_lower_whatever_its_output_is_called(metric):
    assert not higher_is_better(f"test_{metric}")


@pytest.mark.parametrize("metric", ["previous_mae", "account_mse", "layer2_mae", "mc_nll", "mc_brier", "mc_ece", "mc_rmse"])
def test_parts_of_words_say_nothing(metric):
    assert not higher_is_better(f"test_{metric}")


@pytest.mark.parametrize("metric", ["acc", "mc_accuracy", "my-AUC", "F1", "miou", "mean_iou", "R2", "cosine_similarity"])
def test_short_names_and_those_of_readers(metric):
    assert higher_is_better(f"test_{metric}")


def confidence(p, y):
    """A toy metric: the mean probability of the true class."""
    return float(np.take_along_axis(p, np.asarray(y)[..., None], -1).mean())


@pytest.fixture
def toy(monkeypatch):
    """The two places where a metric is added: its formula, and its row."""
    monkeypatch.setattr(metrics, "confidence", confidence, raising=False)
    monkeypatch.setitem(metric_names.SAMPLED, "confidence", metric_names.Row(("classes",), higher_is_better=True))


@pytest.mark.usefixtures("toy")
def test_a_new_metric_is_measured_of_a_model():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model = place(model, {"hidden": 0.5})
    numbers, _ = scoring.monte_carlo(model, x, y, samples=5, seed=0)
    assert numbers["confidence"] == pytest.approx(confidence(scoring.plain(model, x), y))
    assert 0 < numbers["mc_confidence"] < 1
    assert numbers["mc_confidence"] != numbers["confidence"]
    with pytest.raises(BadInput):
        scoring.check_monte_carlo(model, x, y + 9)  # classes that the model lacks
    assert metric_names.monte_carlo_names("labels") == ["accuracy", "nll", "brier", "ece"]  # it is of classes alone


@pytest.mark.usefixtures("toy")
def test_a_new_metric_is_compared_shown_and_put_on_the_page(tmp_path):
    variants = (Variant("none", {}), Variant("half", {"hidden": {"kind": "Dropout", "rate": 0.5}}))
    study = Study(
        "t",
        DataFacts("d", "f", 9, 1, 2),
        {"class_name": "S"},
        {"loss": "mse", "optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.1}}},
        "held-out",
        "jax",
        "compiled",
        2,
        32,
        tuple(range(8)),
        variants,
        samples=5,
    )
    results = {}
    for run in study.runs():
        gain = (0.1 + 0.001 * run.seed) * (run.variant.name == "half")
        values = {"test_loss": 1 - gain, "test_confidence": 0.6 + gain, "test_mc_confidence": 0.6 + 1.5 * gain, "train_loss": 1.0}
        results[run.key] = Result("done", 1.0, 2, values, {"loss": [1.2, 1.0], "validation_loss": [1.2, 1.1]})
    found = ShownComparison(study, results)
    assert found.sampled_metrics == ["test_confidence", "test_mc_confidence"]
    assert found.own_metrics == ["test_loss"]
    assert found.verdicts["half"] == dict.fromkeys(found.metrics, "better")
    (row,) = found.monte_carlo()
    assert (row["variant"], row["metric"]) == ("half", "test_confidence")
    assert row["difference"] == pytest.approx(0.05175)
    assert "but for accuracy and confidence" in " ".join(str(found).split())
    assert "confidence" in found.save_report(tmp_path / "r.html").read_text()
    assert json.dumps(found.report_document(), allow_nan=False)


@pytest.mark.parametrize(
    ("metric", "sampled", "monte_carlo"),
    [
        ("test_nll", True, False),
        ("test_mc_nll", True, True),
        ("test_scaled_nll", True, False),
        ("test_mc_accuracy", True, True),
        ("test_accuracy", False, False),  # a compiled model has it without samples
        ("test_mc_mae", False, False),
        ("nll", False, False),
        ("train_nll", False, False),
    ],
)
def test_the_metrics_that_samples_give(metric, sampled, monte_carlo):
    assert (metric_names.is_sampled(metric), metric_names.is_monte_carlo(metric)) == (sampled, monte_carlo)


def test_metrics_of_each_kind_of_outputs():
    kinds = ("classes", "labels", "values")
    assert [metric_names.plain_names(kind) for kind in kinds] == [["nll", "brier", "ece"]] * 2 + [["rmse"]]
    assert [metric_names.monte_carlo_names(kind) for kind in kinds] == [["accuracy", "nll", "brier", "ece"]] * 2 + [["rmse"]]


@pytest.mark.parametrize(
    ("direction", "metrics"),
    [
        (True, ("accuracy", "val_accuracy", "AUC", "test_mc_accuracy", "f1", "top_5_accuracy", "IoU")),
        (
            False,
            ("loss", "test_loss", "nll", "ece", "RMSE", "mean_absolute_error", "brier_score", "binary_crossentropy", "perplexity"),
        ),
        (None, ("latency", "bleu", "score", "reward", "lossy", "epochs")),
    ],
)
def test_which_side_of_a_metric_is_better_is_known_or_not(direction, metrics):
    assert {name: metric_names.known_direction(name) for name in metrics} == dict.fromkeys(metrics, direction)
