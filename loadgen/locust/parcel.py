"""What a process hands over at the end of its run, as bytes of a message: exact to the request."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dlbench.loadgen.analysis.samples import Samples


def packed(samples: Samples) -> bytes:
    """The versioned file's content; raises OSError."""
    with tempfile.NamedTemporaryFile(prefix="dlbench-samples-") as file:
        samples.save(Path(file.name))
        return Path(file.name).read_bytes()


def unpacked(content: bytes) -> Samples:
    """Raises DataError for what `packed` did not make."""
    with tempfile.NamedTemporaryFile(prefix="dlbench-samples-") as file:
        Path(file.name).write_bytes(content)
        return Samples.load(Path(file.name))
