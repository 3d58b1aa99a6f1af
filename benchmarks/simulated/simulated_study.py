"""A study on a simulated machine: what measuring costs, and the noise it comes with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.rates.noise import Noise
from dlbench.tuner.budget import WARMUP_S
from dlbench.tuner.point import Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.simulated.landscapes import Landscape
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.plan import Plan
    from dlbench.tuner.step import Step
    from dlbench.tuner.verify.verification import Repeat

# Between equal windows, measured here: the throughput differs by 7 %, half of that by the moment;
# the p99 by a third over two seconds, with heavier tails than a normal distribution has.
MOMENT_NOISE = WINDOW_NOISE = 0.05
P99_NOISE = Noise()
TAIL_FREEDOM = 4
MOMENT_S = 15.0
# Bursts: one window in so many is served at a part of the speed, and nobody notices.
BURST_SHARE, BURST_SLOWER = 0.05, (0.1, 0.7)
# Seconds; warming a cache is beside the warm-up that every load has.
RESTART_S = 1.4
IN_PLACE_S = 0.01
WARM_CACHE_S = 1.0
SATURATED = 0.97
BISECTIONS = 30
# What the client could drive: more than any of these machines serves.
DRIVABLE_RPS = 1e6


class SimulatedBench:
    """Takes a plan's steps on a landscape, and charges for them."""

    def __init__(self, landscape: Landscape, seed: int, *, bursts: bool = False) -> None:
        self.landscape = landscape
        self._rng = np.random.default_rng([seed, 1])
        self._served: ServingConfig | None = None
        self._bursts = bursts
        self._now_s = 0.0
        self._moments: dict[int, float] = {}

    def measure(self, step: Step) -> Point:
        """The record of one step."""
        cost_s = self._apply(step.config) + WARMUP_S + step.duration_s
        found = self._probe(step) if step.rate is None else self._load(step, step.rate)
        self._now_s += cost_s
        return Point(
            configuration=step.configuration,
            phase=step.phase,
            config=step.config,
            share=step.share,
            repeat=step.repeat,
            measurement=found,
            cost_s=cost_s,
        )

    def true_rate(self, config: ServingConfig, bound_ms: float) -> float:
        """R(B) without noise, in requests per second."""
        row = self.landscape.rows[config]
        low, high = 0.0, SATURATED
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            within = self.landscape.p99_ms(row, middle) <= bound_ms
            low, high = (middle, high) if within else (low, middle)
        return float(low * self.landscape.capacity_rps[row])

    def _speed(self) -> float:
        """Ln of how fast the machine is now."""
        moment = int(self._now_s / MOMENT_S)
        if moment not in self._moments:
            self._moments[moment] = MOMENT_NOISE * self._rng.normal()
        speed = self._moments[moment] + WINDOW_NOISE * self._rng.normal()
        if self._bursts and self._rng.random() < BURST_SHARE:
            speed -= self._rng.uniform(*BURST_SLOWER)
        return float(speed)

    def latencies_ms(self, point: Point) -> NDArray[np.float64]:
        """The samples of a point: an exponential tail with its p99."""
        measured = point.measurement
        if measured is None or measured.p99_ms is None:
            return np.zeros(0)
        tail = self._rng.exponential(size=measured.requests) / math.log(100)
        return np.asarray(measured.p99_ms * tail)

    def _capacity(self, config: ServingConfig) -> float:
        row = self.landscape.rows[config]
        return float(self.landscape.capacity_rps[row]) * math.exp(self._speed())

    def _probe(self, step: Step) -> Measurement:
        return _measurement(self._capacity(step.config), None, "ok", step.duration_s)

    def _load(self, step: Step, rate: float) -> Measurement:
        row, capacity = self.landscape.rows[step.config], self._capacity(step.config)
        share = rate / capacity
        if share > SATURATED:
            p99_ms = self.landscape.p99_ms(row, SATURATED)
            served = min(capacity, 0.999 * rate)
            return _measurement(rate, p99_ms, "saturated", step.duration_s, served)
        spread = P99_NOISE.p99_scale(step.duration_s) / math.sqrt(TAIL_FREEDOM / (TAIL_FREEDOM - 2))
        noise = spread * float(self._rng.standard_t(TAIL_FREEDOM))
        p99_ms = self.landscape.p99_ms(row, share) * math.exp(noise)
        return _measurement(rate, p99_ms, "ok", step.duration_s)

    def _apply(self, config: ServingConfig) -> float:
        """Seconds that it takes until a configuration serves."""
        before, self._served = self._served, config
        if before == config:
            return 0.0
        kept = before is not None and _processes(before) == _processes(config)
        return (IN_PLACE_S if kept else RESTART_S) + (WARM_CACHE_S if config.cache_size else 0.0)


@dataclass(frozen=True)
class SimulatedStudy:
    """A plan carried out on a simulated bench: every point, in order."""

    plan: Plan
    bench: SimulatedBench
    points: list[Point] = field(default_factory=list)

    def take(self, step: Step) -> Point:
        """One step more."""
        self.points.append(self.bench.measure(step))
        return self.points[-1]

    def run(self) -> None:
        """Everything that is left of the plan."""
        while step := self.plan.next_step(self.points):
            self.take(step)

    def repeats(self) -> dict[str, list[Repeat]]:
        """What was verified, with samples: the name of each candidate -> its repeats."""
        found: dict[str, list[Repeat]] = {}
        for p in self.points:
            if p.phase == "verify":
                found.setdefault(p.name, []).append((p, self.bench.latencies_ms(p)))
        return found


def _processes(config: ServingConfig) -> tuple[int, int]:
    return config.workers, config.intra_op_threads


def _measurement(
    rate: float, p99_ms: float | None, verdict: str, duration_s: float, served: float | None = None
) -> Measurement:
    return Measurement.model_construct(
        verdict=verdict,
        latency_from="scheduled" if p99_ms else "sent",
        offered_rps=rate if p99_ms else None,
        throughput_rps=served or rate,
        p99_ms=p99_ms,
        error_rate=0.0,
        requests=int(rate * duration_s),
        duration_s=duration_s,
        client_cpu=0.0,
        net_mbps=0.0,
        started_at="",
    )
