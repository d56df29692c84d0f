"""The backend of a test process is KERAS_BACKEND, jax by default; it is fixed before Keras is first imported."""

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one process has compiled serves the others, and the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / "build" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Each core has a test process; more threads in them only wait for each other.
for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(threads, "1")
# A test's programs run once and for milliseconds: to optimise one takes longer than to run it. `make test-all` has them optimised.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

STARTS_PROCESSES = ("test_docs.py", "test_tuning.py", "test_comparison.py", "test_ray.py", "test_failures.py", "test_cli.py")


# For benchmarks/mutants.py and empty.py: the first example that fails will do, however large.
hypothesis.settings.register_profile(
    "first-failure", phases=set(hypothesis.Phase) - {hypothesis.Phase.shrink, hypothesis.Phase.explain}
)

# What the product rests on always runs.
LAWS = (
    "tests/layers/test_contract.py",
    "tests/testing/test_faults.py::test_a_fault_breaks_its_property_and_no_other",
    "tests/bench/test_training.py::test_compiled_is_keras_fit",
    "tests/bench/test_checkpoints.py::test_a_resumed_run_ends_in_the_same_bytes",
    "tests/bench/test_acting.py",
    "tests/bench/test_golden_keys.py",
)
# Test, or one case of it -> the cases that are not slow. A line that names no such cases is all of its test, or of its case.
SLOW = {
    name: kept.split(" | ") if kept else []
    for name, _, kept in (line.partition(" but ") for line in Path(__file__).with_name("slow.txt").read_text().splitlines())
    if name and not name.startswith("#")
}


def is_slow(nodeid: str) -> bool:
    test, _, case = nodeid.removesuffix("]").partition("[")
    return nodeid in SLOW or (test in SLOW and case not in SLOW[test])


def pytest_collection_modifyitems(config, items):
    """Fast tests first: those that start processes of their own come last. What is listed as slow is marked so."""
    assert not [name for name in SLOW if name.startswith(LAWS)]
    if config.args == config.getini("testpaths"):  # all of them, in which what is listed must be
        found = {name for item in items for name in (item.nodeid, item.nodeid.partition("[")[0])}
        listed = {name for test, kept in SLOW.items() for name in [test, *(f"{test}[{case}]" for case in kept)]}
        if listed - found:
            raise pytest.UsageError("tests/slow.txt names what is no test: " + ", ".join(sorted(listed - found)))
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: STARTS_PROCESSES.index(item.path.name) if item.path.name in STARTS_PROCESSES else -1)
