"""A calibration in a file: good for what it was made with, model, machine and options; no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dlbench.loadgen.analysis.machine import processor
from dlbench.proxy.config import physical_cores
from dlbench.proxy.models.model import resolve_model
from dlbench.tuner.errors import TuneError
from dlbench.tuner.twin.calibration import Calibration

if TYPE_CHECKING:
    from pathlib import Path

    from dlbench.loadgen.profile import LoadProfile
    from dlbench.proxy.settings import ServerSettings

# History of the document:
#   1  {"version", "model", "machine", "calibration"}
#   2  and "setting"
#   3  and which shapes were guessed
VERSION = 3
# What of the server and of its requests a calibration depends on.
SERVER = {"device", "device_ids", "provider_option", "io_binding", "batch_axis"}
SERVER |= {"rows_independent"}
REQUESTS = {"encoding", "shape"}


class KeptCalibration(BaseModel):
    """What was found of a subject.

    `model` is the fingerprint of the file and its weights, `machine` processor and cores, `setting`
    the fields of server and load that requests and their computing depend on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    model: str
    machine: str
    setting: dict[str, Any]
    calibration: Calibration

    @classmethod
    def of(cls, settings: ServerSettings, load: LoadProfile, calibration: Calibration) -> Self:
        """Of a server and its load, on this machine. Raises ModelError."""
        server = settings.model_dump(mode="json", include=SERVER)
        return cls(
            model=resolve_model(settings.model).fingerprint().hex(),
            machine=f"{processor()}, {physical_cores()} cores",
            setting=server | load.model_dump(mode="json", include=REQUESTS),
            calibration=calibration,
        )

    def write(self, path: Path) -> None:
        """Raises TuneError."""
        try:
            path.write_text(self.model_dump_json(indent=1))
        except OSError as error:
            raise TuneError(f"cannot write {path}: {error.strerror}") from None


def read_calibration(path: Path, settings: ServerSettings, load: LoadProfile) -> Calibration:
    """What the file holds, if it is of this model, machine and setting.

    Raises TuneError for any other file, ModelError for a model that is not there.
    """
    try:
        kept = KeptCalibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TuneError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise TuneError(f"{path} is not a calibration ({where}: {first['msg']})") from None
    if other := _differs(kept, KeptCalibration.of(settings, load, kept.calibration)):
        raise TuneError(f"{path} was calibrated with another {other}; name another file")
    return kept.calibration


def _differs(kept: KeptCalibration, wanted: KeptCalibration) -> str:
    """What first does not fit, an option by its name; "" where all does."""
    names = [
        name
        for name in ("version", "model", "machine")
        if getattr(kept, name) != getattr(wanted, name)
    ]
    options = [
        f"--{name.replace('_', '-')}"
        for name in wanted.setting
        if kept.setting.get(name) != wanted.setting[name]
    ]
    return next(iter([*names, *options]), "")
