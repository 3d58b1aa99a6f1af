"""The clock that queues, deadlines and time-outs are measured with."""

from __future__ import annotations

from time import monotonic_ns as now_ns

__all__ = ["now_ns"]
