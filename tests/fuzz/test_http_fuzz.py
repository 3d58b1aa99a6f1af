"""The fuzzer's first rounds, always the same; `make fuzz` goes on."""

import subprocess
import sys
from pathlib import Path


def test_the_first_rounds_find_nothing():
    command = [
        sys.executable,
        Path(__file__).with_name("http_fuzz.py"),
        *("--rounds", "25", "--seconds", "inf"),
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")
    assert "25 rounds of 20 connections" in done.stdout
