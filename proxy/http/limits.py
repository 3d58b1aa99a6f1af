"""What a client may not exceed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds; `connections` open at once."""

    head_bytes: int
    body_bytes: int
    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    connections: int = 4096
