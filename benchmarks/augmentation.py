"""Dropout with and without augmentation on CIFAR-10: the studies of examples/augmentation.py, six seeds each.

Without the published files, KERAS_DROPOUT_DATA names the folder of a JPEG copy; the stored result says which of them it was.

Run: python benchmarks/augmentation.py [--ledger FILE] [--json FILE]
"""

import sys
from pathlib import Path

from report import write

import keras_dropout
from keras_dropout.bench.data.cifar import cifar10

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "augmentation.py"
LEDGER = sys.argv[sys.argv.index("--ledger") + 1] if "--ledger" in sys.argv else "augmentation.db"

if __name__ == "__main__":
    name = cifar10(train=10, test=10).name.replace("cifar", "CIFAR")
    rows = []
    for data in ("plain", "augmented"):
        found = keras_dropout.compare(
            f"{EXAMPLE}:model",
            f"{EXAMPLE}:{data}",
            variants={"dropout": {"last_hidden": 0.5}},
            seeds=6,
            epochs=10,
            backend="tensorflow",
            ledger=LEDGER,
            quiet=True,
        ).document()
        means = {each["name"]: each["mean"] for each in found["variants"]}
        for each in found["comparisons"]:
            row = {
                "data": name,
                "streams": data,
                **{key: each[key] for key in ("variant", "metric", "difference", "interval", "p")},
            }
            row |= {key: each[key] for key in ("p_adjusted", "verdict")}
            rows.append(row | {"none": means["none"][each["metric"]], "dropout": means["dropout"][each["metric"]]})
            print(row, flush=True)
    write("augmentation", rows)
