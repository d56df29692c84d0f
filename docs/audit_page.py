"""The page docs/audit.md: what `check --run` measures, and what it found in published models (benchmarks/audit.py)."""

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """# Does your dropout drop?

`check` looks at how a model is built. With `run` it runs the model, on your data or on made-up inputs, in training and at
prediction, and measures each dropout layer at any depth: Keras's, this library's, and other people's.

```
keras-dropout check model.keras --run
keras-dropout check train.py:build --run --data x.npy,y.npy --json
```

```python
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported; or "tensorflow", "torch"

import keras
import keras_dropout

model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
found = keras_dropout.check(model, run=True)
print(found)  # a table with a row for each dropout layer, notes, and the mistakes
found.layers[0]  # layer, kind, rate, calls, share, low, high, factor, draws, verdict
```

The exit status is 1 if there are mistakes. The model stays as it is, with its weights, its seeds and the state of the
generators; on TensorFlow the generator behind `tf.random` without a seed moves on.

## What is measured

| rule | what is found |
|---|---|
| `dropout-fails` | a dropout layer that fails in training |
| `dropout-never-called` | a layer with a rate above 0 that a training step does not call |
| `dropout-without-training` | one that is called with training off only |
| `dropout-never-drops` | one that drops nothing: its output is its input, or its input times noise |
| `dropout-share` | one whose share of drops is not its rate |
| `dropout-mean` | one whose mean output in training is not its output at prediction: not scaled, or scaled twice |
| `dropout-at-prediction` | one that acts at prediction, or whose rate changes predictions |
| `dropout-output-unused` | one whose output reaches no output of the model |
| `dropout-option-unused` | a dropout option above 0 that reaches nothing that drops |
| `mask-lost` | a causal or padding mask that holds at rate 0, and not with dropout on |

Each layer's own call is repeated, on values of the shape that it got in the model, none of which is 0: each 0 that comes out is
the layer's own. If the outputs at prediction are a multiple of the inputs, or of one of two inputs of which the other is added,
the factors in training are counted: how many are 0, how large the others are, and what all rows, or all of a row, have in
common. The mean factor in training must be the factor at prediction: 1, or what a layer of the old kind multiplies by there. A
mask that the whole batch shares is named in the verdict, and is no mistake. Of a recurrent cell the masks are drawn and
measured, since the cell itself is called in a loop.

An option is tried by making its layer again with half of it: some dropout inside must change. If nothing does, and the layer's
output does not vary either when all known dropout in it is off, the option reaches nothing. Whether masks hold is measured by
changing later positions, or positions that a mask input marks as padding, under the same draws: what must not change at rate 0
must not change with dropout on. Batch normalisations use their moving statistics for that, since those of a batch mix its rows.

## How sure it is

The shares of different rows are independent, whatever the mask looks like (those of different calls where all rows share one),
and lie between 0 and 1. `low` and `high` are the least and the greatest expectation that is compatible with the measured share
by Hoeffding's bound ([JASA 58:13-30](https://doi.org/10.1080/01621459.1963.10500830), theorem 1), which supposes nothing else;
for dropout of single units by Keras or this library each unit counts. The errors of all these intervals in an audit are
together at most 10⁻⁶. There are enough draws to tell a rate from its half and from its double, down to a rate of about 0.01,
and from none down to about 0.001; for smaller ones the verdict says that there were too few. The mean is judged by the interval
of the share and by the factor of what was kept, which must be equal to a thousandth.

What is not measured, it says: a layer whose output is no multiple of its input (attention, weights that are dropped, layers
that do more) is only seen to act at random, and its share is "not measured". `alpha` dropout has its share measured, not its
mean; Gaussian dropout its mean and deviation, within six standard errors and 10 %. An output that reaches only a loss added by
the model itself counts as used. What a `train_step` of your own does beside calling the model is not run. A model is called
with one batch: what happens later, such as a rate that a schedule raises, is not seen. Where an option cannot be tried, a layer
inside with that rate counts as reached.

## Eight published faults

Rebuilt small in `tests/dropout_faults.py`, each is found, and none of their mended twins is accused (`tests/test_audit.py`):
"""

GITHUB = "https://github.com/"
FAULTS = (
    ("KerasHub", "", "the drop path of DINOv2 and DINOv3 lacks the floor: it multiplies by noise", "dropout-never-drops"),
    ("torchtune#996", "meta-pytorch/torchtune/issues/996", "LoRA dropout is not passed on to any layer", "dropout-option-unused"),
    (
        "transformers#29140",
        "huggingface/transformers/issues/29140",
        "DINOv2 makes drop paths and calls none",
        "dropout-never-called",
    ),
    ("tirex#19", "NX-AI/tirex/issues/19", "a residual block makes a Dropout and does not call it", "dropout-never-called"),
    ("rf-detr#762", "roboflow/rf-detr/pull/762", "the rate is not passed on to the backbone", "dropout-option-unused"),
    ("DALLE2-pytorch#235", "lucidrains/DALLE2-pytorch/issues/235", "a mask is drawn and not used", "dropout-never-drops"),
    ("tpu#381", "tensorflow/tpu/issues/381", "EfficientNet calls its blocks without the rate", "dropout-option-unused"),
    ("keras#23038", "keras-team/keras/issues/23038", "attention with dropout loses its causal mask", "mask-lost"),
)


def page(stored: Mapping[str, Any]) -> str:
    """What is measured, and a table of models for each library."""
    rows = stored["rows"]
    lines = [HEAD, "| where | what | rule |", "|---|---|---|"]
    lines += [f"| {f'[{name}]({GITHUB}{at})' if at else name} | {what} | `{rule}` |" for name, at, what, rule in FAULTS]
    lines += ["", "## Published models", "", _summary(rows)]
    for library in dict.fromkeys(row["library"] for row in rows):
        lines += ["", f"### {library}", "", *_table([row for row in rows if row["library"] == library])]
    machine = f"Keras {stored['versions']['keras']} on JAX, {stored['machine']['cores']} cores that did other work beside, no GPU"
    made = f"Made by `{stored['command']}`, {stored['date']}, commit {stored['commit']}, {machine}."
    return "\n".join([*lines, "", made]) + "\n"


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    audited = [row for row in rows if "mistakes" in row]
    found = [row for row in audited if row["mistakes"]]
    called = [each for row in audited for each in row["mistakes"] if each["rule"] == "dropout-never-called"]
    layers, measured = (sum(row[name] for row in audited) for name in ("layers", "measured"))
    healthy, uncalled = len(audited) - len(found), sum(len(each["layers"]) for each in called)
    return (
        f"{len(audited)} models, small and with random weights, with dropout on wherever a constructor takes a rate: {layers} "
        f"dropout layers with a rate above 0; {measured} of them were measured, {uncalled} are never called. {len(found)} models "
        f"have mistakes, {healthy} have none. `layers` are those that are on; `measured` those of which the share or the noise was "
        "counted."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| model | layers | measured | found | seconds |", "|---|---:|---:|---|---:|"]
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['model']} | - | - | not audited: {row['refused']} | - |")
            continue
        told = [f"`{each['rule']}`: {each['what']}{_more(each['layers'])}" for each in row["mistakes"]]
        told += [f"not measured: {each}" for each in row["not_measured"]]
        found = "<br>".join(each.replace("|", "\\|") for each in told) or "no mistake"
        lines.append(f"| {row['model']} | {row['layers']} | {row['measured']} | {found} | {row['seconds']:g} |")
    return lines


def _more(layers: Sequence[str]) -> str:
    return f" ({len(layers)} layers)" if len(layers) > 1 else ""
