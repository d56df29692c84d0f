"""The backend of a test process is KERAS_BACKEND, jax by default; it is fixed before Keras is first imported."""

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

STARTS_PROCESSES = ("test_docs.py", "test_tuning.py", "test_comparison.py", "test_ray.py", "test_failures.py", "test_cli.py")


# For benchmarks/mutants.py and empty.py: the first example that fails will do, however large.
hypothesis.settings.register_profile(
    "first-failure", phases=set(hypothesis.Phase) - {hypothesis.Phase.shrink, hypothesis.Phase.explain}
)

SLOW = {line for line in Path(__file__).with_name("slow.txt").read_text().splitlines() if not line.startswith("#")}


def pytest_collection_modifyitems(items):
    """Fast tests first: those that start processes of their own come last. What was measured to be slow is marked so."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: STARTS_PROCESSES.index(item.path.name) if item.path.name in STARTS_PROCESSES else -1)
