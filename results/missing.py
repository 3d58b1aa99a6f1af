"""What may be missing when a result is shown: an optional package, or anything to show."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlbench.tuner.errors import TuneError

if TYPE_CHECKING:
    from collections.abc import Iterator


class NothingToShow(TuneError):
    """The study has not got what was asked for."""


class ExtraMissing(TuneError):
    """An optional package is not installed; the text says how to install it."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Imports inside belong to an extra of ours.

    Raises:
        ExtraMissing: one of them cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise ExtraMissing(
            f"{error.name} is not installed: pip install 'dlbench[{extra}]'"
        ) from error
