"""Carry out reproductions and store what came out, one file each in benchmarks/results/reproductions: `make docs` shows them.

The same command goes on after an interruption: the ledger keeps every run.
Run: python benchmarks/reproductions.py [NAME …] [--quick] [--seeds N] [--ledger FILE] [--data-dir DIR]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

from report import made

from keras_dropout import reproductions

RESULTS = Path(__file__).with_name("results") / "reproductions"


def main() -> None:
    """Each of the names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--ledger", default="reproductions.db")
    parser.add_argument("--data-dir")
    given = parser.parse_args()
    for name in given.names or reproductions.names():
        found = reproductions.reproduce(
            name, quick=given.quick, seeds=given.seeds, ledger=given.ledger, data_dir=given.data_dir, quiet=True
        )
        words = ["keras-dropout reproduce", name, *(["--quick"] if given.quick else [])]
        words += ["--seeds", str(given.seeds)] if given.seeds else []
        RESULTS.mkdir(parents=True, exist_ok=True)
        stored = made(" ".join(words)) | {"outcome": found.summary()}
        (RESULTS / f"{name}.json").write_text(json.dumps(_short(stored), indent=1, allow_nan=False) + "\n")
        print(f"{name}: {found.sentence} ({found.wall_seconds:.0f} s)", flush=True)


def _short(value: object) -> object:
    """Numbers to six digits: the rest is noise, and the files are kept in git."""
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
