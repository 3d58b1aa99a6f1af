"""From what the user calls MODEL to a file on disk and a name to serve it under."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlbench.proxy.demo import DEMOS, demo_path
from dlbench.proxy.errors import ModelError

DEMO_PREFIX = "demo:"


@dataclass(frozen=True)
class ModelFile:
    """A model to serve."""

    path: Path
    name: str


def resolve_model(model: str) -> ModelFile:
    """The file behind `model`; a demo model is made on first use.

    Raises:
        ModelError: no such file or demo.
    """
    if model.startswith(DEMO_PREFIX):
        return _demo(model.removeprefix(DEMO_PREFIX))
    path = Path(model).expanduser()
    if not path.exists():
        raise ModelError(f"{model}: no such file; name an .onnx file or one of {_demos()}")
    if not path.is_file():
        raise ModelError(f"{model} is not a file; name an .onnx file")
    return ModelFile(path, path.stem)


def _demo(name: str) -> ModelFile:
    if name not in DEMOS:
        raise ModelError(f"there is no demo:{name}; there are {_demos()}")
    return ModelFile(demo_path(name), name)


def _demos() -> str:
    return ", ".join(DEMO_PREFIX + name for name in DEMOS)
