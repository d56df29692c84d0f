"""Ledgers of a study that nobody trained: runs in any mixture of states, and any names, for tests of what is read from a ledger.

The study has every part of a report but a search: two variants beside none, one with a schedule, two seeds, three classes, pictures
of test examples, Monte-Carlo metrics, calibration, and the network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_dropout.bench import scoring
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import DataFacts, Result, Study, Variant

STATES = ("done", "failed", "diverged", "diverged at once", "missing")
RUNS = 6
EXAMPLES = 24
NAMES = {name: name for name in ("target", "first", "second", "site", "data", "note", "class", "error", "output")}


def write(path: Path, states: Sequence[str] = ("done",) * RUNS, names: Mapping[str, str] = NAMES) -> Path:
    """Write the ledger; `states` are of the runs in the study's order, `names` what is said in place of the keys of `NAMES`."""
    study = _study(names)
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 3, EXAMPLES).astype("uint8")
    path.unlink(missing_ok=True)
    with Ledger(path) as ledger:
        plan = {"engine_reason": names["note"], "max_seeds": None, "margin": 0.01, "notes": [names["note"]]}
        ledger.put_study(
            study, names["note"], {"keras": "3"}, {"processor": names["note"]} | _MACHINE, {"plan": plan, **_network(names)}
        )
        about = {"kind": "images", "names": [names["class"], "b", "c"], "columns": [], "classes": True}
        pictures = rng.integers(0, 256, (EXAMPLES, 6, 6)).astype("uint8")
        ledger.put_examples(study.data.fingerprint, about, {"answers": answers, "index": np.arange(EXAMPLES), "inputs": pictures})
        for run, state in zip(study.runs(), states, strict=True):
            if state != "missing":
                ledger.put(study, run, _result(state, names, rng, answers), {"keras": "3"}, _MACHINE)
    return path


_MACHINE = {"system": "Linux", "architecture": "x86_64", "cores": 2, "processor": "one"}


def _study(names: Mapping[str, str]) -> Study:
    return Study(
        target=names["target"],
        data=DataFacts(names["data"], "f" * 32, 60, 12, EXAMPLES),
        model={},
        compiled={"optimizer": {"class_name": "Adam", "config": {"learning_rate": 0.001}}},
        split="held-out",
        backend="jax",
        engine="compiled",
        epochs=3,
        batch_size=8,
        seeds=(0, 1),
        samples=4,
        variants=(
            Variant("none", {}),
            Variant.of(names["first"], {names["site"]: 0.2}),
            Variant.of(names["second"], {names["site"]: "linear(0.3, 0.1)"}),
        ),
    )


def _result(state: str, names: Mapping[str, str], rng: np.random.Generator, answers: np.ndarray) -> Result:
    if state == "failed":
        return Result("failed", 0.5, 0, error=names["error"], log=names["error"])
    if state.startswith("diverged"):
        epochs = 0 if state.endswith("at once") else 2
        return Result("diverged", 0.5, epochs, {}, {name: [0.5, float("nan")][:epochs] for name in ("loss", "validation_loss")})
    losses = rng.random(EXAMPLES).astype("float32")
    p = rng.dirichlet(np.ones(3), EXAMPLES)
    loss, output = float(losses.mean()), f"test_{names['output']}"
    metrics = {"test_loss": loss, "train_loss": loss / 2, "validation_loss": loss, "train_accuracy": 0.9, output: loss}
    metrics |= {f"test_{kind}{name}": float(rng.random()) for kind in ("", "mc_") for name in ("accuracy", "nll", "brier", "ece")}
    curves = {name: rng.random(3).tolist() for name in ("loss", "validation_loss", "accuracy", "validation_accuracy")}
    calibration = {kind: scoring.curves(p, answers) for kind in ("plain", "monte_carlo")}
    more = {"test_losses": losses, "predictions": p.argmax(1), "calibration": calibration, "log": names["note"]}
    return Result("done", 1.5, 3, metrics, curves, **more)


def _network(names: Mapping[str, str]) -> dict:
    def node(name: str, kind: str, units: int, *inputs: int) -> dict:
        return {
            "name": name,
            "kind": kind,
            "shape": [units],
            "units": units,
            "parameters": units * len(inputs),
            "inputs": [*inputs],
        }

    site = {"site": names["site"], "kind": "Dropout", "rate": 0.2, "schedule": None, "node": 1, "mask": [8]}
    steps = {
        "seed": 0,
        "epoch_steps": 8,
        "steps": [{"step": 1, "rates": [0.2], "masks": ["f5"]}, {"step": 9, "rates": [0.2], "masks": ["0f"]}],
    }
    return {
        "network": {
            "nodes": [node("x", "Input", 4), node(names["site"], "Dense", 8, 0), node(names["output"], "Dense", 3, 1)],
            "variants": {"none": [], names["first"]: [site], names["second"]: [site]},
            "steps": {names["first"]: steps, names["second"]: steps},
        }
    }
