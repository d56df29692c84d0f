"""Where a benchmark's figures go when `--json FILE` is given: with command, commit, date, versions and kind of machine."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from keras_dropout.bench.execution.machine import machine, versions


def write(name: str, rows: Any, before: Mapping[str, Any] | None = None) -> None:
    """Write `rows` to the file named after --json, if any; `before` made a part of them (see `stored`)."""
    if "--json" in sys.argv:
        said = made(" ".join(["python", f"benchmarks/{name}.py", *_what(sys.argv[1:])]))
        if before:
            said["before"] = {each: before[each] for each in said}
        _path().write_text(json.dumps(said | {"rows": rows}, indent=1) + "\n")


def stored() -> dict[str, Any] | None:
    """What the file named after --json has, for a benchmark that makes a part of it anew."""
    return json.loads(_path().read_text()) if "--json" in sys.argv and _path().exists() else None


def _path() -> Path:
    return Path(sys.argv[sys.argv.index("--json") + 1])


def _what(arguments: Sequence[str]) -> list[str]:
    """The arguments that decide the figures: not those that say where things are."""
    after = ["", *arguments]
    return [each for each, before in zip(arguments, after) if not {each, before} & {"--json", "--ledger", "--data-dir"}]


def made(command: str) -> dict[str, Any]:
    """By which command figures were made, when, at which commit, by which versions and on what machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "command": command,
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip() or None,
        "versions": versions(),
        "machine": machine(),
    }
