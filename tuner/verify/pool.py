"""Several repeats of one operating point made into one point. Pure."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.analysis.statistics import mean_interval, pooled_quantile_interval, quantile
from dlbench.loadgen.analysis.summary import QUANTILES
from dlbench.tuner.point import Point, Resources

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.analysis.statistics import Interval
    from dlbench.loadgen.measurement import Measurement

    # Milliseconds, of all requests of one repeat: infinite for those that failed.
    Latencies = NDArray[np.float64]
    Repeat = tuple[Point, Latencies]

# A pooled p99 rests on at least this many repeats and requests; with fewer it is indicative.
TRUSTED_REPEATS = 3
TRUSTED_REQUESTS = 2000
LOG_NS_PER_MS = math.log(1e6)
# Means over requests. What the server did not publish in every repeat stays unmeasured.
MEANS = ("lateness_mean_ms", "connect_mean_ms", "server_queue_ms", "server_compute_ms", "network_ms")  # fmt: skip


def pool(repeats: Sequence[Repeat]) -> Point:
    """One point from several repeats: quantiles of the pooled samples, throughput averaged.

    Samples are pooled because a mean of p99s is biased; repeats that the client spoiled are left
    out unless there is nothing else.
    """
    valid = [r for r in repeats if _verdict(r) != "invalid"] or list(repeats)
    points = [point for point, _ in valid]
    return points[0].model_copy(
        update={
            "measurement": _measurement(valid),
            "resources": _resources([p.resources for p in points]),
            "cost_s": sum(p.cost_s for p in points),
            "repeat": 0,
        }
    )


def is_indicative(point: Point) -> bool:
    """Whether too few requests stand behind a reported p99 for it to be called more than a hint."""
    return point.measurement is None or point.measurement.requests < TRUSTED_REQUESTS


def _verdict(repeat: Repeat) -> str:
    measured = repeat[0].measurement
    return measured.verdict if measured else "invalid"


def _measurement(repeats: Sequence[Repeat]) -> Measurement:
    parts = [m for point, _ in repeats if (m := point.measurement) is not None]
    requests = sum(m.requests for m in parts)
    low, high = mean_interval([m.throughput_rps for m in parts])
    return parts[0].model_copy(
        update={
            **_quantiles([latencies_ms for _, latencies_ms in repeats]),
            **_verdict_of(parts),
            **{name: _mean(parts, name) for name in MEANS},
            "throughput_rps": float(np.mean([m.throughput_rps for m in parts])),
            "throughput_low_rps": low,
            "throughput_high_rps": high,
            "requests": requests,
            "duration_s": sum(m.duration_s for m in parts),
            "errors": dict(sum((Counter(m.errors) for m in parts), Counter[str]())),
            "error_rate": sum(m.error_rate * m.requests for m in parts) / max(requests, 1),
            "lateness_p99_ms": max((m.lateness_p99_ms or 0.0 for m in parts), default=None),
            "client_cpu": float(np.mean([m.client_cpu for m in parts])),
            "net_mbps": float(np.mean([m.net_mbps for m in parts])),
            "longest_ms": max((m.longest_ms for m in parts if m.longest_ms), default=None),
        }
    )


def _mean(parts: Sequence[Measurement], name: str) -> float | None:
    values = [getattr(m, name) for m in parts]
    if None in values:
        return None
    return float(np.average(values, weights=[max(m.requests, 1) for m in parts]))


def _quantiles(repeats_ms: list[NDArray[np.float64]]) -> dict[str, float | None]:
    """Every quantile of the pooled samples with its own interval."""
    ordered_ms = np.sort(np.concatenate(repeats_ms))
    if not len(ordered_ms):
        return {"p99_ms": None}
    answered_ms = ordered_ms[np.isfinite(ordered_ms)]
    found: dict[str, float | None] = {
        "mean_ms": float(answered_ms.mean()) if len(answered_ms) else None
    }
    for name, share in QUANTILES.items():
        value = quantile(ordered_ms, share) or 0.0
        low, high = _interval(repeats_ms, share, value)
        found |= {f"{name}_ms": value, f"{name}_low_ms": low, f"{name}_high_ms": high}
    return found


def _interval(repeats_ms: list[NDArray[np.float64]], share: float, pooled_ms: float) -> Interval:
    """A 95 % interval of a pooled quantile.

    Where requests are so correlated that the pooled samples cannot say (short queues come and go
    together), the repeats still can: they lie minutes apart and are independent of each other, so
    Student's t on the logarithm of their own quantiles holds, wide as three repeats make it.
    """
    low, high = pooled_quantile_interval(repeats_ms, share)
    if low is not None and high is not None:
        return low, high
    if len(repeats_ms) < TRUSTED_REPEATS or not all(len(r) for r in repeats_ms):
        return None, None
    own_ms = [quantile(np.sort(r), share) or 0.0 for r in repeats_ms]
    if math.inf in own_ms:
        return None, None
    # In nanoseconds logarithms are over 0, where mean_interval cuts off.
    low, high = (
        math.exp(end or 0.0) / 1e6 for end in mean_interval(np.log(own_ms) + LOG_NS_PER_MS)
    )
    return min(pooled_ms, low), max(pooled_ms, high)


def _verdict_of(parts: list[Measurement]) -> dict[str, str]:
    """What most repeats say. A minority that saturated leaves the point unsteady, not gone.

    Its latencies are pooled with the rest, so what a disturbance cost stands in the p99.
    """
    counts = Counter(m.verdict for m in parts)
    usual = max(counts, key=lambda verdict: (counts[verdict], verdict != "ok"))
    if counts[usual] == len(parts) or usual in ("saturated", "invalid"):
        reason = next(m.reason for m in parts if m.verdict == usual)
        return {"verdict": usual, "reason": reason}
    odd = next(m for m in parts if m.verdict != "ok")
    share = f"{len(parts) - counts['ok']} of {len(parts)} repeats"
    return {"verdict": "unsteady", "reason": f"in {share} {odd.reason}"}


def _resources(parts: Iterable[Resources]) -> Resources:
    columns: dict[str, list[float]] = {name: [] for name in Resources.model_fields}
    for part in parts:
        for name, own in columns.items():
            if (value := getattr(part, name)) is not None:
                own.append(value)
    return Resources(**{n: float(np.mean(values)) for n, values in columns.items() if values})
