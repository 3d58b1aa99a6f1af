"""What `dlbench load` leaves behind: the measurement, and all that it takes to judge or repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, ValidationError

from dlbench.loadgen.analysis.machine import MachineFacts
from dlbench.loadgen.errors import DataError
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.profile import LoadProfile

if TYPE_CHECKING:
    from pathlib import Path

# History of the document:
#   1  a measurement's fields, then version, url, protocol, model, schedule, load, machine, samples
VERSION = 1


class LoadResult(Measurement):
    """One JSON document; the measurement's fields are at the top level, named as in the CSV."""

    version: int = VERSION
    url: str
    protocol: str
    model: str
    # The load in words.
    schedule: str
    load: LoadProfile
    machine: MachineFacts
    # Shapes of inputs with open dimensions that nobody stated, a row of each.
    guessed: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    # The file with the raw samples, if they were kept.
    samples: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError for a file that is not a result, or has another version."""
        try:
            found = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "JSON"
            raise DataError(
                f"{path} is not a result of `dlbench load --json` ({where}: {first['msg']})"
            ) from None
        if found.version != VERSION:
            raise DataError(f"{path} is a result of version {found.version}, not {VERSION}")
        return found
