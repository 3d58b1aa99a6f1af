"""The record of one run at one operating point: what the CSV, the JSON and the study keep.

A failed request counts as infinitely slow. A quantile that falls among the failed is `math.inf`
here, `inf` in a CSV and `"Infinity"` in JSON, which has no such number (`null` would pass for 0);
all that is known of it is that it is longer than `longest_ms`. The same holds for an interval's end.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["ok", "invalid", "saturated", "unsteady"]


class ClassFigures(BaseModel):
    """What the requests of one class met with. None: was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    requests: int
    throughput_rps: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_low_ms: float | None = None
    p99_high_ms: float | None = None
    error_rate: float
    # Share of the requests whose reply came after the class' deadline, or not at all.
    missed_rate: float | None = None
    longest_ms: float | None = None


class Measurement(BaseModel):
    """One measured run. Fields are named as the CSV's columns; None means: was not measured.

    `latency_from` says what latencies count from: the "scheduled" send time (open loop) or the
    "sent" one (closed loop, which has no schedule). `_low_` and `_high_` enclose a 95 % interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

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
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    p90_ms: float | None = None
    p90_low_ms: float | None = None
    p90_high_ms: float | None = None
    p95_ms: float | None = None
    p95_low_ms: float | None = None
    p95_high_ms: float | None = None
    p99_ms: float | None = None
    p99_low_ms: float | None = None
    p99_high_ms: float | None = None
    p999_ms: float | None = None
    p999_low_ms: float | None = None
    p999_high_ms: float | None = None
    # Of the requests that were answered.
    mean_ms: float | None = None
    # Where the mean went. The server's own share is known where it publishes V2 statistics; what
    # is left is the network, and the server's own reading and writing.
    lateness_mean_ms: float | None = None
    connect_mean_ms: float | None = None
    server_queue_ms: float | None = None
    server_compute_ms: float | None = None
    network_ms: float | None = None
    error_rate: float
    errors: dict[str, int] = Field(default_factory=dict)
    # What the first request of each kind met with: the reply's text, or the system's reason.
    error_examples: dict[str, str] = Field(default_factory=dict)
    classes: dict[str, ClassFigures] = Field(default_factory=dict)
    requests: int
    duration_s: float
    lateness_p99_ms: float | None = None
    client_cpu: float
    client_processes: int = 1
    # The client's own doing against a server that computes nothing, on this machine.
    overhead_p50_ms: float | None = None
    overhead_p99_ms: float | None = None
    # How many times this rate the client could have offered.
    headroom: float | None = None
    net_mbps: float
    started_at: str
    # The longest that any request took, to its reply or to its failure.
    longest_ms: float | None = None
