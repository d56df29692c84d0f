"""The command is killed at random moments; the campaign itself is a script, so that anyone can run a longer one."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[1] / "benchmarks" / "kill_campaign.py"


@pytest.mark.slow
def test_kill_9_at_50_random_moments_loses_nothing():
    done = subprocess.run([sys.executable, str(CAMPAIGN), "--kills", "50"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
