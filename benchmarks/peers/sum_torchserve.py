"""The sum of a row behind TorchServe: a handler, in a model archive of its own."""

from __future__ import annotations

from typing import Any


def handle(data: list[dict[str, Any]] | None, _context: object) -> list[dict[str, float]] | None:
    """A batch of requests, each with KServe V1's `instances`; None is TorchServe's first call."""
    if data is None:
        return None
    return [{"y": total(part["body"]["instances"][0])} for part in data]


def total(row: Any) -> float:
    return float(sum(row["x"] if isinstance(row, dict) else row))
