"""From samples to a measurement: every figure of the record, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.analysis.evidence import Evidence
from dlbench.loadgen.analysis.statistics import (
    mean_interval,
    quantile,
    quantile_interval,
    window_rates,
)
from dlbench.loadgen.analysis.verdict import judge
from dlbench.loadgen.measurement import ClassFigures, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.messages import RunFacts
    from dlbench.loadgen.profile import LoadProfile, RequestClass
    from dlbench.loadgen.protocols.server_times import ServerTimes

NS_PER_MS = 1e6
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def summarise(
    samples: Samples, facts: RunFacts, profile: LoadProfile, server: ServerTimes | None = None
) -> Measurement:
    """Pure. A quantile is infinite where it falls among requests that failed, None without any."""
    rate_low, rate_high = mean_interval(window_rates(samples.completed_ns, samples.reply_window_ns))
    verdict, reason = judge(Evidence.of(samples, facts, profile))
    is_open = samples.latency_from == "scheduled"
    return Measurement(
        verdict=verdict,
        reason=reason,
        complete=facts.complete,
        latency_from=samples.latency_from,
        offered_rps=samples.requests / samples.window_s if is_open else None,
        throughput_rps=samples.throughput_rps,
        throughput_low_rps=rate_low,
        throughput_high_rps=rate_high,
        error_rate=_share(sum(samples.errors.values()), samples.requests),
        errors=samples.errors,
        error_examples={kind: facts.examples.get(kind, "") for kind in samples.errors},
        classes=_classes(samples, profile),
        requests=samples.requests,
        duration_s=samples.window_s,
        lateness_p99_ms=quantile(_ms(np.sort(samples.lateness_ns)), 0.99) if is_open else None,
        client_cpu=facts.client_cpu,
        client_processes=facts.processes,
        net_mbps=facts.net_mbps,
        started_at=facts.started_at,
        longest_ms=samples.longest_ms,
        **_quantiles(samples),
        **_breakdown(samples, server),
    )


def _ms(times_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    return times_ns / NS_PER_MS


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _quantiles(samples: Samples) -> dict[str, float | None]:
    """Every quantile with its interval."""
    latencies = samples.latencies_ms
    ordered = np.sort(latencies)
    found: dict[str, float | None] = {}
    for name, q in QUANTILES.items():
        low, high = quantile_interval(latencies, q)
        found |= {
            f"{name}_ms": quantile(ordered, q),
            f"{name}_low_ms": low,
            f"{name}_high_ms": high,
        }
    return found


def _breakdown(samples: Samples, server: ServerTimes | None) -> dict[str, float | None]:
    """Where the mean latency of those that were answered went; its parts add up to it."""
    if not len(samples.latencies_ns):
        return {}
    mean = float(_ms(samples.latencies_ns).mean())
    late, connect = (
        float(_ms(values[samples.succeeded]).mean())
        for values in (samples.sent_ns - samples.scheduled_ns, samples.connect_ns)
    )
    found: dict[str, float | None] = {
        "mean_ms": mean,
        "lateness_mean_ms": late if samples.latency_from == "scheduled" else None,
        "connect_mean_ms": connect,
    }
    if server is None:
        return found
    rest = mean - late - connect - server.queue_ms - server.compute_ms
    return found | {
        "server_queue_ms": server.queue_ms,
        "server_compute_ms": server.compute_ms,
        "network_ms": max(0.0, rest),
    }


def _classes(samples: Samples, profile: LoadProfile) -> dict[str, ClassFigures]:
    return {
        name: _figures(samples.of_class(index), kind)
        for index, (name, kind) in enumerate(profile.request_class.items())
    }


def _figures(samples: Samples, kind: RequestClass) -> ClassFigures:
    latencies = samples.latencies_ms
    ordered = np.sort(latencies)
    low, high = quantile_interval(latencies, 0.99)
    missed = None
    if kind.deadline_ms is not None:
        in_time = int(np.searchsorted(ordered, kind.deadline_ms, side="right"))
        missed = _share(samples.requests - in_time, samples.requests)
    return ClassFigures(
        requests=samples.requests,
        throughput_rps=samples.throughput_rps,
        p50_ms=quantile(ordered, 0.5),
        p99_ms=quantile(ordered, 0.99),
        p99_low_ms=low,
        p99_high_ms=high,
        error_rate=_share(sum(samples.errors.values()), samples.requests),
        missed_rate=missed,
        longest_ms=samples.longest_ms,
    )
