"""A file's hash, computed again only when the file may have changed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

# What changes with every write, and cannot be set back like the modification time can.
Stamp = tuple[int, int, int, int, int]
# File systems count time in steps, some of two seconds: of a file that was written so lately another
# write may not show.
SETTLED_NS = 3_000_000_000

_known: dict[Path, tuple[Stamp, bytes]] = {}


def digest(path: Path) -> bytes:
    """The BLAKE2b hash of a file's bytes, read as a stream.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        began, before = time.time_ns(), _stamp(stream.fileno())
        stamp, known = _known.get(path, (None, b""))
        if stamp == before:
            return known
        found = hashlib.file_digest(stream, "blake2b").digest()
        if before == _stamp(stream.fileno()) and before[-1] + SETTLED_NS < began:
            _known[path] = before, found
    return found


def _stamp(file: int) -> Stamp:
    of = os.fstat(file)
    return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns
