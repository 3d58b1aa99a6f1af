"""NVIDIA's driver and libraries: what this onnxruntime was built for, and what is here."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PACKAGE = "onnxruntime-gpu"
DEVICES = ("dev/nvidiactl", "dev/dxg")
# As its metadata lists NVIDIA's wheels: `nvidia-cudnn-cu13~=9.0; extra == "cudnn"`.
REQUIREMENT = re.compile(r"(nvidia-([a-z-]+?)(?:-cu\d+)?)\s*~=\s*([\d.]+)")
# Wheel -> the library in it, whose major version is in its file's name.
LIBRARIES = {
    "cuda-runtime": "libcudart",
    "cuda-nvrtc": "libnvrtc",
    "cufft": "libcufft",
    "curand": "libcurand",
    "cudnn": "libcudnn",
}


class Library(BaseModel):
    """A library that CUDA sessions need; versions as "13.0". `found` is None if it is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    needed: str
    found: str | None


class Cuda(BaseModel):
    """The CUDA installation; `driver` is the version of NVIDIA's kernel module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    has_gpu: bool
    driver: str | None
    libraries: tuple[Library, ...]


def cuda(root: Path) -> Cuda:
    """As it is now."""
    return Cuda(
        has_gpu=any((root / device).exists() for device in DEVICES),
        driver=driver(root),
        libraries=tuple(libraries(_requirements(), root)),
    )


def driver(root: Path) -> str | None:
    """The version in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …`."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return found[1] if found else None


def libraries(requirements: Iterable[str], root: Path) -> Iterator[Library]:
    """What a package's requirements name of NVIDIA's, and whether a wheel or the system has it."""
    for requirement in requirements:
        if (match := REQUIREMENT.match(requirement)) and match[2] in LIBRARIES:
            wheel, name, needed = match.groups()
            file = f"{LIBRARIES[name]}.so.{needed.partition('.')[0]}"
            yield Library(name=name, needed=needed, found=_wheel(wheel) or linked(file, root))


def linked(file: str, root: Path) -> str | None:
    """The version in a library's name, if the loader would find it: "13" of libcudart.so.13."""
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    if any(os.path.exists(os.path.join(folder, file)) for folder in folders):
        return file.rpartition(".")[2]
    try:
        cached = (root / "etc/ld.so.cache").read_bytes()
    except OSError:
        return None
    return file.rpartition(".")[2] if file.encode() + b"\0" in cached else None


def _requirements() -> list[str]:
    try:
        return requires(PACKAGE) or []
    except PackageNotFoundError:
        return []


def _wheel(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
