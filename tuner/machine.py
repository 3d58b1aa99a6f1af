"""What a study was measured on: the processor and the versions that matter."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VERSIONED = ("dlbench", "onnxruntime-gpu", "onnxruntime", "locust", "optuna", "numpy", "uvloop")


def processor() -> str:
    """The processor's own name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a measurement depends on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # of the two onnxruntimes only one is there
    return found
