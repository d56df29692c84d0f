"""Published experiments, one per file: `NAME.py` has the `REPRODUCTION` that `keras-dropout reproduce NAME` carries out."""

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from keras_dropout.bench.settings import DEFAULT_LEDGER
from keras_dropout.errors import refuse
from keras_dropout.frameworks import needing

if TYPE_CHECKING:  # shell completion needs the names and must not wait for a framework
    from keras_dropout.reproductions.framework import Outcome, Reproduction

_COMMON = ("framework", "networks")  # shared modules, not reproductions


def names() -> list[str]:
    """Return the names of all reproductions in alphabetical order."""
    stems = (path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return sorted(stem.replace("_", "-") for stem in stems if stem not in _COMMON)


def check_name(name: str) -> None:
    """Refuse the name of an unknown reproduction."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or [each for each in known if name in each]
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        refuse(f"unknown reproduction {name!r}.", f"{hint}keras-dropout reproduce --list shows all {len(known)}.")


def find(name: str) -> "Reproduction":
    """Return the reproduction with this name; refuse an unknown name and suggest the nearest ones."""
    check_name(name)
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").REPRODUCTION


def reproduce(
    name: str,
    *,
    quick: bool = False,
    seeds: int | None = None,
    ledger: str | Path = DEFAULT_LEDGER,
    data_dir: str | None = None,
    report: str | Path | None = None,
    quiet: bool = False,
    workers: int | None = None,
    on: str = "here",
    checkpoint_every: int | None = None,
) -> "Outcome":
    """Carry out a published experiment and test its claim; see `keras-dropout reproduce --help`.

    The outcome has `verdict` ("reproduced", "compatible", "not reproduced", "undecided"), `sentence`, `tried` (each expectation
    with its result), `figures()`, `document()` and `save_report(path)`. With `quick` the studies are smaller; `seeds` is the number
    of runs per variant; `data_dir` is the folder with the data files; `workers`, `on` and `checkpoint_every` are as in `compare`.
    Runs in the ledger are not trained again. Raises `BadInput`, before anything is trained, for invalid input.
    """
    with needing("keras_dropout.reproduce"):
        from keras_dropout.reproductions.framework import carry_out_reproduction, plan_reproduction

    planned = plan_reproduction(
        find(name),
        quick=quick,
        seeds=seeds,
        ledger=ledger,
        data_dir=data_dir,
        report=report,
        workers=workers,
        on=on,
        checkpoint_every=checkpoint_every,
    )
    outcome = carry_out_reproduction(planned, quiet=quiet, command="keras_dropout.reproduce(…) in Python")
    if report is not None:
        outcome.save_report(report)
    return outcome
