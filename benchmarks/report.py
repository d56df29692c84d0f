"""Where a benchmark's figures go when `--json FILE` is given: with command, versions and kind of machine."""

import json
import sys
from pathlib import Path
from typing import Any

from keras_dropout.bench.execution import machine, versions


def write(name: str, rows: Any) -> None:
    """Write `rows` to the file named after --json, if any."""
    if "--json" in sys.argv:
        made = {"command": f"python benchmarks/{name}.py", "versions": versions(), "machine": machine()}
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(made | {"rows": rows}, indent=1))
