"""From the repeats of verification to the numbers that are reported. Pure.

Half of the repeats chooses what stands on the front and what is recommended, the other half is
what gets reported, so nobody is shown the luck that won the choice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.statistics import mean_interval, pooled_quantile_interval
from dlbench.tuner.front import Outcome, dominates, front_indices
from dlbench.tuner.point import Point, Resources
from dlbench.tuner.recommend import RULES, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.config import StudyConfig

    Latencies = NDArray[np.int64]  # nanoseconds, of the successful requests of one repeat
    Repeat = tuple[Point, Latencies]

# A pooled p99 rests on at least this many repeats and requests; with fewer it is indicative.
TRUSTED_REPEATS = 3
TRUSTED_REQUESTS = 2000


@dataclass(frozen=True)
class Verified:
    """The result of a study: pooled points, the recommended one, and what may be said of the SLO."""

    points: tuple[Point, ...]
    slo: str  # "none", "met", "undecided", "missed"

    @property
    def front(self) -> list[Point]:
        """The reported front, by rising throughput."""
        kept = [(p, p.outcome) for p in self.points if p.on_front and p.outcome]
        return [p for p, o in sorted(kept, key=lambda pair: pair[1].throughput_rps)]

    @property
    def recommended(self) -> Point | None:
        """The point to serve with, None if nothing held."""
        return next((p for p in self.points if p.recommended), None)

    def baseline(self, name: str) -> Point | None:
        """What a baseline did, measured in the same rounds as everything else."""
        return next((p for p in self.points if p.configuration == name), None)


def verified(repeats: Mapping[str, Sequence[Repeat]], config: StudyConfig) -> Verified:
    """Pool each candidate's repeats (name -> repeats in order), choose and report."""
    choosing = _pool_each(repeats, lambda number: number % 2 == 0)
    reported = _pool_each(repeats, lambda number: number % 2 == 1)
    both = [
        name for name in choosing if name in reported and _holds(choosing[name], reported[name])
    ]
    front = _front(both, choosing, reported)
    pick = _pick(front, choosing, config)
    points = tuple(
        point.model_copy(update={"on_front": name in front, "recommended": name == pick})
        for name, point in reported.items()
    )
    return Verified(points, _slo(reported.get(pick or ""), config.slo_p99_ms))


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


def _verdict(repeat: Repeat) -> str:
    measured = repeat[0].measurement
    return measured.verdict if measured else "invalid"


def _pool_each(
    repeats: Mapping[str, Sequence[Repeat]], half: Callable[[int], bool]
) -> dict[str, Point]:
    halves = {
        name: [r for r in own if half(r[0].repeat) and r[0].measurement is not None]
        for name, own in repeats.items()
    }
    return {name: pool(own) for name, own in halves.items() if own}


def _holds(choosing: Point, reported: Point) -> bool:
    return choosing.outcome is not None and reported.outcome is not None


def _front(names: list[str], choosing: dict[str, Point], reported: dict[str, Point]) -> list[str]:
    """Chosen by one half; dropped if the other half shows it beaten, so the table makes sense."""
    chosen = [names[i] for i in front_indices([_outcome(choosing[n]) for n in names])]
    final = {name: _outcome(reported[name]) for name in chosen}
    return [n for n in chosen if not any(dominates(o, final[n]) for o in final.values())]


def _pick(front: list[str], choosing: dict[str, Point], config: StudyConfig) -> str | None:
    """By the rule asked for, among those that surely meet every bound, else those that seem to."""
    demands = config.constraints
    sure = [n for n in front if demands.standing(choosing[n]) == "met"]
    eligible = sure or [n for n in front if max(demands.estimated(choosing[n]), default=0.0) <= 0]
    held = RULES[config.rule]([_option(choosing[name]) for name in eligible], config.wish)
    return None if held is None else eligible[held]


def _option(point: Point) -> Option:
    m = point.measurement
    assert m is not None
    assert m.p99_ms is not None
    times = (m.server_compute_ms, m.server_queue_ms)
    return Option(m.throughput_rps, m.p99_ms, m.p99_low_ms, m.p99_high_ms, *times)


def _slo(pick: Point | None, slo_p99_ms: float | None) -> str:
    """Met only if the upper end of the interval is: anything else is undecided or missed."""
    if slo_p99_ms is None:
        return "none"
    if pick is None:
        return "missed"
    return "met" if _upper(pick) <= slo_p99_ms else "undecided"


def _outcome(point: Point) -> Outcome:
    assert point.outcome is not None
    return point.outcome


def _upper(point: Point) -> float:
    measured = point.measurement
    assert measured is not None
    return float("inf") if measured.p99_high_ms is None else measured.p99_high_ms


def _measurement(repeats: Sequence[Repeat]) -> Measurement:
    parts = [m for point, _ in repeats if (m := point.measurement) is not None]
    requests = sum(m.requests for m in parts)
    low, high = mean_interval([m.throughput_rps for m in parts])
    return parts[0].model_copy(
        update={
            **_quantiles([latencies for _, latencies in repeats]),
            **_verdict_of(parts),
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
        }
    )


def _quantiles(repeats: list[Latencies]) -> dict[str, float | None]:
    pooled_ms = np.concatenate(repeats) / 1e6
    if not len(pooled_ms):
        return {"p99_ms": None}
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
    found = {
        name: float(np.quantile(pooled_ms, share, method="inverted_cdf"))
        for name, share in shares.items()
    }
    low, high = _p99_interval([r / 1e6 for r in repeats], found["p99_ms"])
    return {**found, "mean_ms": float(pooled_ms.mean()), "p99_low_ms": low, "p99_high_ms": high}


def _p99_interval(
    repeats_ms: list[NDArray[np.float64]], pooled_ms: float
) -> tuple[float | None, float | None]:
    """A 95 % interval of the pooled p99.

    Where requests are so correlated that the pooled samples cannot say (short queues come and go
    together), the repeats still can: they lie minutes apart and are independent of each other, so
    Student's t on the logarithm of their p99s holds, wide as three repeats make it.
    """
    low, high = pooled_quantile_interval(repeats_ms, 0.99)
    if low is None and len(repeats_ms) >= TRUSTED_REPEATS and all(len(r) for r in repeats_ms):
        own = [np.quantile(r, 0.99, method="inverted_cdf") for r in repeats_ms]
        low, high = mean_interval(np.log(own))
        if low is not None and high is not None:
            low, high = min(pooled_ms, float(np.exp(low))), max(pooled_ms, float(np.exp(high)))
    return low, high


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


def _resources(parts: Sequence[Resources]) -> Resources:
    names = Resources.model_fields
    columns = {name: [v for r in parts if (v := getattr(r, name)) is not None] for name in names}
    return Resources(**{n: float(np.mean(values)) for n, values in columns.items() if values})


def is_indicative(point: Point) -> bool:
    """Whether too few requests stand behind a reported p99 for it to be called more than a hint."""
    return point.measurement is None or point.measurement.requests < TRUSTED_REQUESTS
