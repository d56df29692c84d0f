"""The atlas: kinds x sites x rates of dropout, by size of the net and of the data, on three data sets.

A study for each data set (scikit-learn's digits, Fashion-MNIST, CIFAR-10 at 16 x 16 or its JPEG copy), number of training images
and perceptron with two hidden layers: none, Dropout at four places with several rates, GaussianDropout and DropConnect (one mask a
batch) behind the hidden layers with two, and about as many updates in all studies. Eight paired seeds: six can hardly give a
verdict where twenty placements are compared.

Ctrl-C is fine: the ledger has what is finished, and the same command goes on.
Run: python benchmarks/atlas.py [--data-dir FOLDER] [--only digits] [--ledger FILE] [--json FILE [--package]] [--quick]
With --only, FILE keeps its studies of the other data sets.
--package also writes from FILE what `keras-dropout check` and `init` read, models/atlas.json of the package. --quick: one small
study with few seeds: whether it runs.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceptrons import NAMES, epochs_for, load, perceptron
from report import stored, write

from keras_dropout.bench.compare import compare
from keras_dropout.bench.records import BASELINE
from keras_dropout.bench.statistics import finite_mean
from keras_dropout.models import atlas

SIZES = {"digits": (200, 600, 1437), "fashion-mnist": (200, 1000, 5000), "cifar-10": (200, 1000, 5000)}
NETS = ((64, 64), (256, 256))
UPDATES, BATCH, SEEDS = 1200, 32, 8
SITES = {"input": ("input",), "hidden": ("hidden",), "last": ("last",), "input and hidden": ("input", "hidden")}
RATES = {
    "input": (0.05, 0.1, 0.2, 0.35),
    "hidden": (0.1, 0.2, 0.35, 0.5, 0.7),
    "last": (0.1, 0.2, 0.35, 0.5),
    "input and hidden": (0.1, 0.2, 0.35),
}
FEWER = (0.2, 0.5)
OTHERS = {"GaussianDropout": "GaussianDropout({rate})", "DropConnect": "DropConnect({rate}, per='batch')"}
METRICS = ("test_loss", "test_accuracy")


def variants(quick: bool) -> dict[tuple[str, str, float], dict[str, Any]]:
    """The placements by kind, site and rate."""
    found = {("Dropout", site, rate): dict.fromkeys(sites, rate) for site, sites in SITES.items() for rate in RATES[site]}
    found |= {(kind, "hidden", rate): {"hidden": text.format(rate=rate)} for kind, text in OTHERS.items() for rate in FEWER}
    return dict(list(found.items())[3:6]) if quick else found


def study(name: str, size: int, hidden: Sequence[int], given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one study."""
    data = load(name, given.data_dir, size)
    facts = data.facts("held-out")
    model = perceptron(data.train.x.shape[1:], hidden)
    placements = variants(given.quick)
    named = {f"{kind} {site} {rate}": placement for (kind, site, rate), placement in placements.items()}
    found = compare(
        model,
        data,
        variants=named,
        seeds=given.seeds,
        epochs=epochs_for(100 if given.quick else UPDATES, facts.train, BATCH),
        batch_size=BATCH,
        engine="compiled",
        ledger=given.ledger,
    )
    if found.failed:
        sys.exit(f"{found.failed[0][0].variant.name} failed: {found.failed[0][1]}")
    differences = {metric: found.differences(metric) for metric in METRICS}
    rows = []
    for (kind, site, rate), label in zip(placements, named):
        row: dict[str, Any] = {"kind": kind, "site": site, "rate": rate}
        for metric in METRICS:
            each = differences[metric][label]
            row[metric] = [each.mean, *(each.interval or (None, None)), each.verdict]
        rows.append(row)
    none = {metric: finite_mean(found.values(BASELINE, metric)) for metric in (*METRICS, "train_loss")}
    return {
        "data": facts.name,
        "kind": "images",
        "inputs": int(data.train.x[0].size),
        "train": facts.train,
        "test": facts.test,
        "hidden": list(hidden),
        "parameters": model.count_params(),
        "epochs": found.study.epochs,
        "seeds": given.seeds,
        "none": none,
        "gap": none["test_loss"] - none["train_loss"],
        "rows": rows,
    }


def show(found: Mapping[str, Any]) -> None:
    print(f"{atlas.title(found)}: test loss of none {found['none']['test_loss']:.4f}, gap {found['gap']:.4f}", flush=True)
    for row in found["rows"]:
        mean, low, high, verdict = row["test_loss"]
        print(f"  {row['kind']:16} {row['site']:17} {row['rate']:4}  {mean:+.4f} ({low:+.4f} to {high:+.4f})  {verdict}")


def _in_order(studies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By data set, as in a run of all."""
    return sorted(studies, key=lambda each: NAMES.index(each["data"].partition(",")[0]))


def package(path: Path) -> None:
    """Write the copy that the package has: the same, in few characters."""
    rounded = json.loads(path.read_text(), parse_float=lambda text: float(f"{float(text):.4g}"))
    atlas.PATH.write_text(json.dumps(rounded, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the folder of Fashion-MNIST and CIFAR-10")
    parser.add_argument("--only", choices=NAMES, action="append", help="one data set; repeatable")
    parser.add_argument("--ledger", default="atlas.db")
    parser.add_argument("--seeds", type=int, help="8 by default")
    parser.add_argument("--json")
    parser.add_argument("--package", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.package and not given.json:
        parser.error("--package copies what --json FILE gets")
    given.seeds = given.seeds or (2 if given.quick else SEEDS)
    before = stored() if given.only else None
    others = [row for row in (before or {"rows": []})["rows"] if row["data"].partition(",")[0] not in given.only]
    started, found = time.perf_counter(), []
    for name in ("digits",) if given.quick else given.only or NAMES:
        for size in SIZES[name][: 1 if given.quick else None]:
            for hidden in NETS[: 1 if given.quick else None]:
                found.append(study(name, size, hidden, given))
                show(found[-1])
                write("atlas", _in_order([*found, *others]), before)
                if given.package:
                    package(Path(given.json))
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. What is finished is in the ledger; the same command goes on.")
