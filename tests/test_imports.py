"""Imports go down from folder to folder, no files import each other in a circle, and frameworks are imported in few places."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "keras_dropout"
# From the bottom: what stands in a line may import the lines above it here, and its own.
FLOORS = """
. examples characters errors cores writing frameworks display masks schedules notation metrics calibration
backends noise
layers companions catalogue testing
models callbacks
sampling moments thinning uncertainty ensemble
bench.log_places
bench.settings bench.own_training bench.records bench.metric_names bench.statistics bench.racing bench.looking bench.variance
bench.power bench.disagreement bench.scoring
bench.data
bench.ledger
bench.study
bench.training
bench.execution
bench.comparison
bench.report
bench bench.robustness bench.compare bench.assessment bench.retrieval bench.forecast bench.own_scores
bench.tuning
reproductions
commands
cli
__main__
"""
FLOOR = {room: number for number, line in enumerate(FLOORS.split("\n")) for room in line.split()}
OLD_PLACES = {"survey", "bench.lookup", "bench.spaces"}  # documented paths of 0.1.0, which lead on
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".") or ".": p
    for p in ROOT.rglob("*.py")
    if ".".join(p.relative_to(ROOT).with_suffix("").parts) not in OLD_PLACES
}
FRAMEWORKS = {
    "jax": {"backends.jax", "bench.training.compiled", "bench.training.stacked", "testing.backend"},
    "tensorflow": {"backends.tensorflow", "testing.backend"},
    "torch": {"backends.torch", "testing.backend"},
}


def imports(path: Path):
    """(line, full name) for each import in the file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write the full module name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def file_of(name: str) -> str:
    """The file that an imported name is, or is in."""
    short = name.removeprefix("keras_dropout.")
    return short if short in FILES else short.rpartition(".")[0] or "."


def room(file: str) -> str:
    """The part of a file's name that has a floor."""
    while file not in FLOOR:
        assert "." in file, f"{file} has no floor"
        file = file.rpartition(".")[0]
    return file


def ours(file: str):
    """(line, file) for each import of a file of the package."""
    return [(line, file_of(name)) for line, name in imports(FILES[file]) if name.startswith("keras_dropout.")]


def test_no_import_goes_up():
    up = [
        f"{file}:{line} imports {other}" for file in FILES for line, other in ours(file) if FLOOR[room(other)] > FLOOR[room(file)]
    ]
    assert not up, "\n".join(up)


def test_there_is_no_circle():
    graphlib.TopologicalSorter({file: {other for _, other in ours(file)} - {file} for file in FILES}).prepare()


def test_frameworks_stay_in_their_modules():
    for file in FILES:
        for line, other in imports(FILES[file]):
            top = other.partition(".")[0]
            assert file in FRAMEWORKS.get(top, {file}), f"{file}:{line} imports {top}"
