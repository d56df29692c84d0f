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
SLOW = {line for line in Path(__file__).with_name("slow.txt").read_text().splitlines() if not line.startswith("#")}


def pytest_collection_modifyitems(items):
    """Fast tests first: those that start processes of their own come last. What is listed as slow is marked so."""
    assert not [name for name in SLOW if name.startswith(LAWS)]
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: STARTS_PROCESSES.index(item.path.name) if item.path.name in STARTS_PROCESSES else -1)
