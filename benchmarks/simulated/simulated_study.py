"""A study on a simulated machine: what measuring costs, and the noise it comes with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.measurement import Measurement
from dlbench.tuner.budget import SCREEN_S, WARMUP_S
from dlbench.tuner.front import Outcome, hypervolume
from dlbench.tuner.point import Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.simulated.landscapes import Landscape
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.plan import Plan
    from dlbench.tuner.step import Step
    from dlbench.tuner.verify.verification import Repeat

# Between equal runs, measured here; of p99 for screening and, over windows shorter than that, repeats.
THROUGHPUT_NOISE = 0.07
P99_NOISE = 0.27
SHORT_P99_NOISE = 0.33
# Seconds; warming a cache is beside the warm-up that every load has.
RESTART_S = 1.4
IN_PLACE_S = 0.01
WARM_CACHE_S = 1.0
SATURATED = 0.97
# What the client could drive: more than any of these machines serves.
DRIVABLE_RPS = 1e6


class SimulatedBench:
    """Takes a plan's steps on a landscape, and charges for them."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        self.landscape = landscape
        self._rng = np.random.default_rng([seed, 1])
        self._served: ServingConfig | None = None

    def measure(self, step: Step) -> Point:
        """The record of one step."""
        cost_s = self._apply(step.config) + WARMUP_S + step.duration_s
        found = self._probe(step) if step.rate is None else self._load(step, step.rate)
        return Point(
            configuration=step.configuration,
            phase=step.phase,
            config=step.config,
            share=step.share,
            repeat=step.repeat,
            measurement=found,
            cost_s=cost_s,
        )

    def truth(self, config: ServingConfig, rate: float) -> Outcome | None:
        """What a load shows without noise; None where it saturates."""
        row = self.landscape.rows[config]
        share = rate / self.landscape.capacity_rps[row]
        return Outcome(rate, self.landscape.p99_ms(row, share)) if share <= SATURATED else None

    def true_outcomes(self, points: Sequence[Point]) -> list[Outcome]:
        """What the points that may be on a front would show without noise."""
        held = [(p.config, p.measurement) for p in points if p.outcome]
        found = (self.truth(config, m.offered_rps or 0.0) for config, m in held if m)
        return [outcome for outcome in found if outcome]

    def latencies_ms(self, point: Point) -> NDArray[np.float64]:
        """The samples of a point: an exponential tail with its p99."""
        measured = point.measurement
        if measured is None or measured.p99_ms is None:
            return np.zeros(0)
        tail = self._rng.exponential(size=measured.requests) / math.log(100)
        return np.asarray(measured.p99_ms * tail)

    def _probe(self, step: Step) -> Measurement:
        truth = self.landscape.capacity_rps[self.landscape.rows[step.config]]
        rate = truth * math.exp(THROUGHPUT_NOISE * self._rng.normal())
        return _measurement(rate, None, "ok", step.duration_s)

    def _load(self, step: Step, rate: float) -> Measurement:
        truth = self.truth(step.config, rate)
        noise = P99_NOISE if step.duration_s >= SCREEN_S else SHORT_P99_NOISE
        row = self.landscape.rows[step.config]
        p99_ms = truth.p99_ms if truth else self.landscape.p99_ms(row, SATURATED)
        # Of mean one. What is reported pools the requests of several runs, and the p99 of those is
        # above the mean of their p99s; which of the two is the truth no noise model can say.
        noisy = p99_ms * math.exp(noise * self._rng.normal() - noise**2 / 2)
        return _measurement(rate, noisy, "ok" if truth else "saturated", step.duration_s)

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

    @property
    def spent_s(self) -> float:
        """Time that has gone by."""
        return self.plan.before_s + sum(p.cost_s for p in self.points)

    def searched(self, until_s: float = math.inf) -> list[Point]:
        """The points of the search that were there at a time."""
        ends = self.plan.before_s + np.cumsum([p.cost_s for p in self.points])
        timed = zip(self.points, ends, strict=True)
        return [p for p, end in timed if p.phase not in ("verify", "drift") and end <= until_s]

    def repeats(self) -> dict[str, list[Repeat]]:
        """What was verified, with samples: the name of each candidate -> its repeats."""
        found: dict[str, list[Repeat]] = {}
        for p in self.points:
            if p.phase == "verify":
                found.setdefault(p.name, []).append((p, self.bench.latencies_ms(p)))
        return found


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


def _measurement(rate: float, p99_ms: float | None, verdict: str, duration_s: float) -> Measurement:
    return Measurement.model_construct(
        verdict=verdict,
        latency_from="scheduled" if p99_ms else "sent",
        offered_rps=rate if p99_ms else None,
        throughput_rps=rate,
        p99_ms=p99_ms,
        error_rate=0.0,
        requests=int(rate * duration_s),
        duration_s=duration_s,
        client_cpu=0.0,
        net_mbps=0.0,
        started_at="",
    )
