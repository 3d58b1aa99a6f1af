"""From what the user calls MODEL to a file on disk and a name to serve it under."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dlbench.proxy.errors import ModelError
from dlbench.proxy.models.demo import DEMOS, demo_path
from dlbench.proxy.models.external_data import locations
from dlbench.proxy.models.file_digest import digest
from dlbench.proxy.spelling import meant

DEMO_PREFIX = "demo:"
FIRST_VERSION = "1"


@dataclass(frozen=True)
class ModelFile:
    """A model to serve."""

    path: Path
    name: str
    version: str = FIRST_VERSION

    def fingerprint(self) -> bytes:
        """A hash of the file, and of all files that it says it keeps tensors in.

        Raises:
            ModelError: one of them is missing, or cannot be read.
        """
        found = hashlib.blake2b()
        try:
            found.update(digest(self.path))
            weights = [self.path.parent / location for location in locations(self.path)]
        except OSError as error:
            raise ModelError(f"{self.path}: {error.strerror}") from None
        for path in weights:
            try:
                found.update(digest(path))
            except OSError as error:
                raise ModelError(f"{self.path}: its weights in {path}: {error.strerror}") from None
        return found.digest()


def resolve_model(model: str) -> ModelFile:
    """The file behind PATH or NAME=PATH; a demo model is made on first use.

    Raises:
        ModelError: no such file or demo.
    """
    name, equals, rest = model.partition("=")
    if equals and name and "/" not in name and not Path(model).exists():
        return ModelFile(resolve_model(rest).path, name)
    if model.startswith(DEMO_PREFIX):
        return _demo(model.removeprefix(DEMO_PREFIX))
    path = Path(model).expanduser()
    if not path.exists():
        raise ModelError(f"{model}: no such file; use an .onnx file or one of {_demos()}")
    if not path.is_file():
        raise ModelError(
            f"{model} is not a file; use an .onnx file (or serve --repository for a folder)"
        )
    return ModelFile(path, path.stem)


def find_models(folder: str) -> dict[str, ModelFile]:
    """Name -> model of a repository: NAME.onnx, or NAME/VERSION/model.onnx of the highest version.

    Raises:
        ModelError: there is no such folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ModelError(f"--repository {folder}: no such folder")
    found = {path.stem: ModelFile(path, path.stem) for path in sorted(root.glob("*.onnx"))}
    for path in sorted(root.glob("*/*/model.onnx"), key=_version):
        if _version(path):
            name = path.parent.parent.name
            found[name] = ModelFile(path, name, path.parent.name)
    return found


def _version(path: Path) -> int:
    """The number of a version's folder; 0 for any other folder."""
    name = path.parent.name
    return int(name) if name.isascii() and name.isdigit() else 0


def _demo(name: str) -> ModelFile:
    if name not in DEMOS:
        close = meant(name, DEMOS)
        rather = f"did you mean {DEMO_PREFIX}{close}?" if close else f"there are {_demos()}"
        raise ModelError(f"unknown model demo:{name}; {rather}")
    return ModelFile(demo_path(name), name)


def _demos() -> str:
    return ", ".join(DEMO_PREFIX + name for name in DEMOS)
