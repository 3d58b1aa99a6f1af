"""A calibration in a file: good for the model and the machine that it was made with, no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dlbench.loadgen.machine import processor
from dlbench.proxy.config import physical_cores
from dlbench.proxy.model import resolve_model
from dlbench.tuner.calibration import Calibration
from dlbench.tuner.errors import TuneError

if TYPE_CHECKING:
    from pathlib import Path

# History of the document:
#   1  {"version", "model", "machine", "calibration"}
VERSION = 1


class KeptCalibration(BaseModel):
    """`model` is the fingerprint of the file and its weights, `machine` processor and cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    model: str
    machine: str
    calibration: Calibration

    @classmethod
    def of(cls, model: str, calibration: Calibration) -> Self:
        """Of a model as the user calls it, on this machine. Raises ModelError."""
        fingerprint = resolve_model(model).fingerprint().hex()
        machine = f"{processor()}, {physical_cores()} cores"
        return cls(model=fingerprint, machine=machine, calibration=calibration)

    def write(self, path: Path) -> None:
        """Raises TuneError."""
        try:
            path.write_text(self.model_dump_json(indent=1))
        except OSError as error:
            raise TuneError(f"cannot write {path}: {error.strerror}") from None


def read_calibration(path: Path, model: str) -> Calibration:
    """What the file holds, if it is of this model and machine.

    Raises TuneError for any other file, ModelError for a model that is not there.
    """
    try:
        kept = KeptCalibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TuneError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise TuneError(f"{path} is no calibration ({where}: {first['msg']})") from None
    wanted = KeptCalibration.of(model, kept.calibration)
    for name in ("version", "model", "machine"):
        if getattr(kept, name) != getattr(wanted, name):
            raise TuneError(f"{path} was calibrated with another {name}; name another file")
    return kept.calibration
