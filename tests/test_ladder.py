"""Imports go down the ladder, every file stands on it, and frameworks are imported in few places."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "keras_dropout"
LADDER = """
.
characters
errors evidence atlas
frameworks display
masks schedules targets metrics bench bench.report
notation calibration backends.jax backends.tensorflow backends.torch
backends
noise
layers.base
layers.units layers.regions layers.paths layers.learned layers.steps layers.weights layers.tokens layers.attention
layers
companions
catalogue testing.backend
testing.contract
testing.faults
testing
graph
survey
inspection placement sampling callbacks
mistakes moments thinning uncertainty first_placement
ensemble
bench.machine bench.checkpoints bench.own_classes bench.records bench.statistics bench.report.words bench.schema
bench.data.splits bench.data.columns bench.data.opening bench.data.arrays bench.data.shifts bench.report.verdict
bench.data.tables bench.data.folders
bench.data.streams
bench.data bench.decisions bench.data.readers bench.lookup bench.progress
bench.report.charts bench.report.network bench.report.terminal
bench.data.cifar bench.data.scenes bench.data.text
bench.ledger bench.selection bench.spaces bench.scoring bench.data.files bench.study_file bench.recipes bench.acceptance
bench.export
bench.report.page
bench.data.shown bench.upkeep bench.training.acting bench.training.measures
bench.training.archives bench.training.reference
bench.training.compiled
bench.training.stacked
bench.training
bench.execution.worker
bench.execution.processes bench.execution.actors
bench.execution
bench.engines
bench.planning bench.assessment bench.comparison bench.portrait
bench.retrieval bench.conduct
bench.reproduction
bench.search
bench.sweep
bench.tuning
reproductions
reproductions.networks
reproductions.*
commands commands.output
commands.options
commands.runs commands.report commands.reproductions commands.studies commands.models commands.ensemble commands.uncertainty
cli
"""
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".") or ".": p for p in ROOT.rglob("*.py")
}
RUNG = {name: n for n, line in enumerate(LADDER.splitlines()) for name in line.split()}
_ANY = RUNG.pop("reproductions.*")
RUNG |= {name: _ANY for name in FILES if name.startswith("reproductions.") and name not in RUNG}
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


def ours(name: str) -> str:
    short = name.removeprefix("keras_dropout.")
    return short if short in FILES else short.rpartition(".")[0] or "."


def test_every_file_has_a_rung():
    assert set(FILES) == set(RUNG)


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_go_down(name):
    for line, other in imports(FILES[name]):
        if other.startswith("keras_dropout."):
            assert RUNG[ours(other)] < RUNG[name], f"{name}:{line} imports {other}, which does not stand below it"


@pytest.mark.parametrize("name", sorted(FILES))
def test_frameworks_stay_in_their_modules(name):
    for line, other in imports(FILES[name]):
        top = other.partition(".")[0]
        assert name in FRAMEWORKS.get(top, {name}), f"{name}:{line} imports {top}"
