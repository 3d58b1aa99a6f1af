"""Every bomb once, small; `make fuzz` goes on with others."""

import subprocess
import sys
from pathlib import Path


def test_no_bomb_hurts_the_front():
    script = Path(__file__).with_name("bombs.py")
    command = [sys.executable, script, "--rounds", "1", "--seconds", "600", "--largest-mb", "1.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing found" in done.stdout
