"""The example in examples/ runs, and what it says is computed."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "order_pipeline.py"


def test_the_order_pipeline_survives_its_database():
    command = [sys.executable, str(EXAMPLE)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "FALSE" not in run.stdout
    assert run.stdout.endswith("8 of 8 true.\n")
