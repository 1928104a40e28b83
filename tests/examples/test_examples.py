"""The examples run, and what they say is computed."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_order_pipeline_survives_its_database():
    command = [sys.executable, str(EXAMPLES / "order_pipeline.py")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "FALSE" not in run.stdout
    assert run.stdout.endswith("8 of 8 true.\n")


def test_three_regions_are_equal_in_the_end():
    command = [sys.executable, str(EXAMPLES / "multi_region.py")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-2] == "after healing all are equal: 10 flights"
    assert run.stderr == ""
