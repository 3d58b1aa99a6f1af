"""The record of one run at one operating point: what the CSV, the JSON and the study keep."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["ok", "invalid", "saturated", "unsteady"]


class Measurement(BaseModel):
    """One measured run. Fields are named as the CSV's columns; None means: was not measured.

    `latency_from` says what latencies count from: the "scheduled" send time (open loop) or the
    "sent" one (closed loop, which has no schedule).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    reason: str = ""
    # False: stopped early, and holds what was measured until then.
    complete: bool = True
    latency_from: Literal["scheduled", "sent"]
    offered_rps: float | None = None
    throughput_rps: float
    throughput_low_rps: float | None = None
    throughput_high_rps: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p99_low_ms: float | None = None
    p99_high_ms: float | None = None
    p999_ms: float | None = None
    mean_ms: float | None = None
    error_rate: float
    errors: dict[str, int] = Field(default_factory=dict)
    requests: int
    duration_s: float
    lateness_p99_ms: float | None = None
    client_cpu: float
    net_mbps: float
    started_at: str
