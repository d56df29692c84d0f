"""The example for KerasHub, which is no dependency: what it says where that is not installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "examples" / "bert.py"


@pytest.mark.skipif(importlib.util.find_spec("keras_hub") is not None, reason="KerasHub is installed")
def test_the_classifier_says_what_it_lacks():
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["examples/bert.py needs KerasHub, which is not installed.", "pip install keras-hub"]
