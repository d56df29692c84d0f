"""Do the tests bite? Small faults put into the heart of the package, one at a time, by mutmut: how many do its tests find?

Masks, schedules, statistics, placement and the ledger, each against the fast tests of its own. A copy of the files that git has is
made in build/mutation/NAME; the survivors' changes are in survivors.txt there, and a run that was interrupted goes on.

Run: python benchmarks/mutants.py [NAME …] [--processes 2] [--json FILE]; pip install mutmut==3.8.1 before
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from report import write

ROOT = Path(__file__).resolve().parents[1]
# What is changed, below src/keras_dropout, and the tests that are to find it, below tests.
MODULES = {
    "masks": (["masks.py"], ["test_masks.py", "test_noise.py"]),
    "schedules": (["schedules.py"], ["test_schedules.py", "test_callbacks.py"]),
    "statistics": (["bench/statistics.py"], ["bench/test_statistics.py"]),
    "placement": (["models/placement.py"], ["test_placement.py"]),
    "ledger": (["bench/ledger/store.py", "bench/ledger/schema.py", "bench/ledger/lookup.py"], ["bench/test_ledger.py"]),
}
# A process that has imported these, and nothing of ours, is copied for each mutant.
PRELOADED = ("jax", "keras", "scipy.stats", "scipy.optimize", "hypothesis", "pandas", "rich", "typer", "pytest")
SQL = re.compile(
    r"\b(SELECT|FROM|WHERE|AND|IN|INTO|SET|VALUES|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|BEGIN|COMMIT|ROLLBACK|VACUUM)\b"
)


def prepare(name: str) -> Path:
    """The folder in which the mutants of a module live, with a fresh copy of our files."""
    folder = ROOT / "build" / "mutation" / name
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for file in files:
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    changed, tests = MODULES[name]
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/keras_dropout/{each}" for each in changed],
        "also_copy": ["docs", "benchmarks", "examples", "README.md"],
        "pytest_add_cli_args_test_selection": [f"tests/{each}" for each in tests],
        "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile", "first-failure"],
        "process_isolation": "forkserver",
        "forkserver_warmup": "import",
        "preload_modules_file": "preloaded.txt",
    }
    with (folder / "pyproject.toml").open("a") as file:
        print("\n[tool.mutmut]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items()), sep="\n", file=file)
    (folder / "preloaded.txt").write_text("\n".join(PRELOADED) + "\n")
    return folder


def mutmut(folder: Path, *words: str, log: Path | None = None) -> str:
    """What `mutmut WORDS` prints, or an end with it where it fails."""
    command = [Path(sys.executable).with_name("mutmut"), *words]
    ended = subprocess.run(command, cwd=folder, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    if log is not None:
        log.write_text(ended.stdout + ended.stderr)
    if ended.returncode:
        sys.exit(f"mutmut {' '.join(words)} failed:\n{(ended.stdout + ended.stderr)[-2000:]}")
    return ended.stdout


def same_sql(change: str) -> bool:
    """Whether a change only writes an SQL statement in another case: the same statement, which no test can tell apart."""
    lines = [line for line in change.splitlines() if line[:1] in "-+" and line[:3] not in ("---", "+++")]
    before, after = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    return bool(SQL.search("\n".join(before))) and [line.lower() for line in before] == [line.lower() for line in after]


def test(name: str, processes: int) -> dict[str, float]:
    """Try all mutants of a module: how many there are and what became of them."""
    begun, folder = time.perf_counter(), prepare(name)
    mutmut(folder, "run", "--max-children", str(processes), log=folder / "log.txt")
    mutmut(folder, "export-cicd-stats")
    found = json.loads((folder / "mutants" / "mutmut-cicd-stats.json").read_text())
    lines = (line.split(":") for line in mutmut(folder, "results").splitlines())
    alive = [line[0].strip() for line in lines if line[-1].strip() in ("survived", "no tests", "suspicious")]
    changes = [mutmut(folder, "show", mutant) for mutant in alive]
    (folder / "survivors.txt").write_text("\n".join(changes))
    killed = found["killed"] + found["timeout"] + found["segfault"]
    kinds = ("total", "survived", "no_tests", "timeout", "suspicious", "segfault")
    seconds = round(time.perf_counter() - begun)
    return {
        "killed": killed,
        "share": round(killed / found["total"], 3),
        "same_sql": sum(map(same_sql, changes)),
        **{kind: found[kind] for kind in kinds},
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*MODULES, []], metavar="NAME")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows = {}
    for name in options.names or MODULES:
        rows[name] = test(name, options.processes)
        print(
            f"{name:12} {rows[name]['killed']} of {rows[name]['total']} found, {rows[name]['share']:.1%}: {rows[name]}", flush=True
        )
    write("mutants", rows)


if __name__ == "__main__":
    main()
