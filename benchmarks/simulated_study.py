"""A study on a simulated machine: what measuring costs, and the noise it comes with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from landscapes import SHARES

from dlbench.loadgen.measurement import Measurement
from dlbench.tuner.front import Outcome, hypervolume
from dlbench.tuner.point import Point

if TYPE_CHECKING:
    from landscapes import Landscape

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Phase

# Between equal runs (DESIGN.md).
THROUGHPUT_NOISE = 0.07
P99_NOISE = 0.27
# Seconds, as in step 2 of the search: apply, warm, probe, then at least 459 requests at each load.
RESTART_S = 1.4
IN_PLACE_S = 0.01
WARM_CACHE_S = 1.0
WARMUP_S = 0.3
PROBE_S = 2.0
LEAST_S, MOST_S = 2.5, 5.0
REQUESTS = 459
SATURATED = 0.97


class SimulatedStudy:
    """Measures configurations of a landscape one after another and keeps the clock."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        self.landscape = landscape
        self.points: list[Point] = []
        self.ended_s: list[float] = []  # of each point
        self.now_s = 0.0
        self._seed = seed
        self._rng = np.random.default_rng([seed, 1])
        self._served: ServingConfig | None = None
        self._probed: dict[ServingConfig, float] = {}

    def baselines(self) -> None:
        """Naive and default, whole curves."""
        for name, config in zip(("naive", "default"), self.landscape.configs[:2], strict=True):
            self.curve(config, name, "baseline")

    def curve(self, config: ServingConfig, name: str = "", phase: Phase = "screen") -> None:
        """A probe, then every load; of slow models the last loads only."""
        name = name or f"c{len({p.configuration for p in self.points}):02d}"
        capacity = self.probe(config, name)
        affordable = [s for s in SHARES if REQUESTS / (s * capacity) <= MOST_S]
        for share in affordable or SHARES[-1:]:
            if self.load(config, share, name, phase).outcome is None:
                return

    def probe(self, config: ServingConfig, name: str) -> float:
        """Measured capacity, known at once if it was probed before."""
        if config not in self._probed:
            self._apply(config)
            truth = self.landscape.capacity_rps[self.landscape.rows[config]]
            self._probed[config] = truth * math.exp(THROUGHPUT_NOISE * self._rng.normal())
            found = _measurement(self._probed[config], None, "ok")
            self._record(Point(configuration=name, phase="probe", config=config, measurement=found))
        return self._probed[config]

    def load(
        self, config: ServingConfig, share: float, name: str, phase: Phase, repeat: int = 0
    ) -> Point:
        """An open loop at a share of the measured capacity."""
        self._apply(config)
        rate = share * self._probed[config]
        true_share, p99 = self.truth(config, rate)
        noisy = p99 * math.exp(P99_NOISE * self._rng.normal())
        saturated = true_share > SATURATED
        found = _measurement(rate, noisy, "saturated" if saturated else "ok")
        self.now_s += WARMUP_S + min(max(LEAST_S, REQUESTS / rate), 4 * MOST_S)
        named = {"configuration": name, "phase": phase, "config": config, "share": share}
        return self._record(Point(**named, repeat=repeat, measurement=found), spent_s=0.0)

    def truth(self, config: ServingConfig, rate: float) -> tuple[float, float]:
        """True share of the true capacity, and the true p99, at a rate."""
        row = self.landscape.rows[config]
        share = rate / self.landscape.capacity_rps[row]
        return share, self.landscape.p99_ms(row, min(share, SATURATED))

    def true_outcome(self, point: Point) -> Outcome | None:
        """What a point would show without noise; None where it saturates."""
        rate = point.measurement.offered_rps
        share, p99 = self.truth(point.config, rate)
        return None if share > SATURATED else Outcome(rate, p99)

    def until(self, end_s: float) -> list[Point]:
        """The points that were there at a time."""
        return [p for p, at in zip(self.points, self.ended_s, strict=True) if at <= end_s]

    def fork(self, end_s: float) -> SimulatedStudy:
        """Another study with the points that were there at a time, which goes its own way."""
        other = SimulatedStudy(self.landscape, self._seed + 1_000_000)
        other.points = self.until(end_s)
        other.ended_s = self.ended_s[: len(other.points)]
        other.now_s, other._probed = end_s, dict(self._probed)
        return other

    def _apply(self, config: ServingConfig) -> None:
        before, self._served = self._served, config
        if before == config:
            return
        kept = before is not None and _processes(before) == _processes(config)
        self.now_s += IN_PLACE_S if kept else RESTART_S
        self.now_s += WARM_CACHE_S if config.cache_size else 0.0

    def _record(self, point: Point, spent_s: float = WARMUP_S + PROBE_S) -> Point:
        self.now_s += spent_s
        self.points.append(point)
        self.ended_s.append(self.now_s)
        return point


class Truth:
    """The true front of a landscape, and what part of it some outcomes reach."""

    def __init__(self, landscape: Landscape) -> None:
        throughput, p99 = landscape.curves()
        self.best_rps = float(throughput.max())
        self.outcomes = list(map(Outcome, throughput.ravel().tolist(), p99.ravel().tolist()))
        self._whole: dict[float, float] = {}

    def share(self, outcomes: list[Outcome], reference_ms: float = 1000.0) -> float:
        """Hypervolume over that of all configurations at all loads."""
        if reference_ms not in self._whole:
            self._whole[reference_ms] = hypervolume(self.outcomes, self.best_rps, reference_ms)
        return hypervolume(outcomes, self.best_rps, reference_ms) / self._whole[reference_ms]


def _processes(config: ServingConfig) -> tuple[int, int]:
    return config.workers, config.intra_op_threads


def _measurement(rate: float, p99_ms: float | None, verdict: str) -> Measurement:
    return Measurement.model_construct(
        verdict=verdict,
        latency_from="scheduled" if p99_ms else "sent",
        offered_rps=rate if p99_ms else None,
        throughput_rps=rate,
        p99_ms=p99_ms,
        error_rate=0.0,
        requests=REQUESTS,
        duration_s=LEAST_S,
        client_cpu=0.0,
        net_mbps=0.0,
        started_at="",
    )
