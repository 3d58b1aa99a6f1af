"""From samples to a measurement: every figure of the record, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.evidence import Evidence
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.statistics import mean_interval, quantile, quantile_interval, window_rates
from dlbench.loadgen.verdict import judge

if TYPE_CHECKING:
    from dlbench.loadgen.messages import Facts
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.samples import Samples

NS_PER_MS = 1e6
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


def summarise(samples: Samples, facts: Facts, profile: LoadProfile) -> Measurement:
    """Pure. A quantile is left out (None) where nothing succeeded."""
    latencies = np.sort(samples.latencies_ns) / NS_PER_MS
    rate_low, rate_high = mean_interval(window_rates(samples.completed_ns, samples.window_ns))
    p99_low, p99_high = quantile_interval(samples.latencies_ns / NS_PER_MS, 0.99)
    errors = samples.errors
    requests = samples.requests
    verdict, reason = judge(Evidence.of(samples, facts, profile))
    is_open = samples.latency_from == "scheduled"
    return Measurement(
        verdict=verdict,
        reason=reason,
        complete=facts.complete,
        latency_from=samples.latency_from,
        offered_rps=requests / samples.window_s if is_open else None,
        throughput_rps=len(samples.completed_ns) / samples.window_s,
        throughput_low_rps=rate_low,
        throughput_high_rps=rate_high,
        p99_low_ms=p99_low,
        p99_high_ms=p99_high,
        mean_ms=float(latencies.mean()) if len(latencies) else None,
        error_rate=sum(errors.values()) / requests if requests else 0.0,
        errors=errors,
        requests=requests,
        duration_s=samples.window_s,
        lateness_p99_ms=quantile(np.sort(samples.lateness_ns) / NS_PER_MS, 0.99)
        if is_open
        else None,
        client_cpu=facts.client_cpu,
        net_mbps=facts.net_mbps,
        started_at=facts.started_at,
        **{name: quantile(latencies, q) for name, q in QUANTILES.items()},
    )
