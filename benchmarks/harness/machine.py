"""What a figure was measured on: kept with every result."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def facts(*packages: str) -> dict[str, str]:
    """Date, machine, and the versions of `packages` in this venv."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        **{package: version(package) for package in packages},
    }


def cpu_model() -> str:
    """The processor's own name for itself, its family where that name is vague."""
    pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    found = {key.strip(): value.strip() for key, _, value in pairs}
    family = f"family {found.get('cpu family', '?')} model {found.get('model', '?')}"
    return f"{found.get('model name', platform.machine())} ({family})"


def package_versions(python: Path, *packages: str) -> dict[str, str]:
    """The versions of `packages` in another venv."""
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    answer = subprocess.run(
        [python, "-c", code, *packages], capture_output=True, text=True, check=True, timeout=60
    )
    return dict(zip(packages, answer.stdout.split(), strict=True))


def show(known: dict[str, str]) -> str:
    """The facts, one a line."""
    width = max(map(len, known))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in known.items())
