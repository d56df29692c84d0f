"""Carry out reproductions and store what came out, one file each in benchmarks/results/reproductions: `make docs` shows them.

The same command goes on after an interruption: the ledger keeps every run. --rejudge trains nothing: it judges the numbers that are
stored by the expectations and rules of today.
Run: python benchmarks/reproductions.py [NAME …] [--quick] [--seeds N] [--ledger FILE] [--data-dir DIR] [--rejudge]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
from report import made

from keras_dropout import reproductions
from keras_dropout.reproductions.framework import judge, sentence_of, verdict_of

RESULTS = Path(__file__).with_name("results") / "reproductions"


def main() -> None:
    """Each of the names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--ledger", default="reproductions.db")
    parser.add_argument("--data-dir")
    parser.add_argument("--rejudge", action="store_true")
    given = parser.parse_args()
    for name in given.names or reproductions.names():
        if given.rejudge:
            path = RESULTS / f"{name}.json"
            stored = json.loads(path.read_text())
            stored["outcome"] |= rejudged(name, stored["outcome"])
            path.write_text(_text(stored))
            print(f"{name}: {stored['outcome']['sentence']}")
            continue
        found = reproductions.reproduce(
            name, quick=given.quick, seeds=given.seeds, ledger=given.ledger, data_dir=given.data_dir, quiet=True
        )
        words = ["keras-dropout reproduce", name, *(["--quick"] if given.quick else [])]
        words += ["--seeds", str(given.seeds)] if given.seeds else []
        RESULTS.mkdir(parents=True, exist_ok=True)
        stored = made(" ".join(words)) | {"outcome": found.summary()}
        (RESULTS / f"{name}.json").write_text(_text(stored))
        print(f"{name}: {found.sentence} ({found.wall_seconds:.0f} s)", flush=True)


def rejudged(name: str, outcome: dict) -> dict:
    """The parts of an outcome that follow from its numbers and from the expectations and rules of today."""
    found = reproductions.find(name)
    rows = {row["says"]: row for row in outcome["expectations"]}
    # None becomes nan. What was computed from all digits of the runs stays: of those stored, six may break a tie.
    tried = [judge(each, np.array(rows[each.says]["runs"], dtype=float)) for each in found.expectations]
    exact = [{key: rows[each.expectation.says][key] for key in ("measured", "interval", "p")} for each in tried]
    return {
        "changed": found.changed,
        "verdict": verdict_of(tried),
        "sentence": sentence_of(found, tried, len(outcome["seeds"])),
        "expectations": [each.document() | numbers for each, numbers in zip(tried, exact)],
    }


def _text(stored: dict) -> str:
    return json.dumps(_short(stored), indent=1, allow_nan=False) + "\n"


def _short(value: object) -> object:
    """Numbers to six digits: the rest is noise, and the files are kept in git."""
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
