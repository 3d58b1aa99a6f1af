"""The peers' virtual environments: made once in the user's cache folder, then used again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING

from benchmarks.harness import machine
from benchmarks.harness.models import CACHE
from benchmarks.harness.report import note

if TYPE_CHECKING:
    from pathlib import Path

# The onnxruntime of dlbench itself, so that every side computes with the same one.
ONNXRUNTIME = packages_distributions()["onnxruntime"][0]  # with or without -gpu
RUNTIME = (f"{ONNXRUNTIME}=={version(ONNXRUNTIME)}", f"numpy=={version('numpy')}")
REQUIREMENTS = {
    "mosec": ("mosec==0.9.8", *RUNTIME),
    "fastapi": ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *RUNTIME),
    "litserve": ("litserve==0.2.19", *RUNTIME),
    # uvicorn's fast parser, which MLServer does not ask for; its workers end at once under uvloop
    # 0.22 and newer, which no longer makes a loop for whoever asks for one.
    "mlserver": ("mlserver==1.7.1", "httptools==0.9.0", "uvloop==0.21.0", *RUNTIME),
}


def python_of(peer: str) -> Path:
    """The interpreter of `peer`'s venv, which is made if it is not there or holds other versions."""
    wanted = REQUIREMENTS[peer]
    stamp = hashlib.sha256(repr((sys.version, wanted)).encode()).hexdigest()[:12]
    folder = CACHE / "venvs" / f"{peer}-{stamp}"
    python, done = folder / "bin" / "python", folder / "done.stamp"
    if not done.exists():
        make(folder, wanted)
        done.touch()
    return python


def versions() -> dict[str, str]:
    """What each peer's venv holds of the packages that are named for it."""
    found = {}
    for peer, wanted in REQUIREMENTS.items():
        names = [one.partition("==")[0].partition("[")[0] for one in wanted[: -len(RUNTIME)]]
        known = machine.package_versions(python_of(peer), *names)
        found[f"{peer}'s venv"] = ", ".join(f"{name} {known[name]}" for name in names)
    return found


def make(folder: Path, wanted: tuple[str, ...]) -> None:
    steps = (
        (sys.executable, "-m", "venv", "--clear", folder),
        (folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted),
    )
    note(f"makes the venv {folder.name}")
    for step in steps:
        subprocess.run(step, check=True, timeout=900, capture_output=True)
