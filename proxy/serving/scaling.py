"""The autoscaler's eyes and hands: looks at a model's workers, and asks its supervisor for more or fewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.proxy.serving.autoscaler import AUTOSCALERS, Observed

if TYPE_CHECKING:
    from dlbench.proxy.dispatch.core import Core
    from dlbench.proxy.serving.supervisor import Supervisor
    from dlbench.proxy.telemetry.stats import ModelStats

NS_PER_S = 1e9


class Scaling:
    """Turns counters into observations, one per look."""

    def __init__(self, core: Core, stats: ModelStats, supervisor: Supervisor, now: int) -> None:
        self._autoscaler = AUTOSCALERS[core.config.autoscaler](core.config)
        self._core, self._stats, self._supervisor = core, stats, supervisor
        self._remember(now)

    def look(self, now: int) -> None:
        """Decide again, for what has happened since the last look."""
        observed = self._observed(now)
        if observed.service_s:  # else nothing new is known
            self._core.served_per_s = observed.workers / observed.service_s
        self._remember(now)
        wanted = self._autoscaler.decide(observed)
        if wanted != self._supervisor.size:
            self._supervisor.scale(wanted)

    def _observed(self, now: int) -> Observed:
        stats, workers = self._stats, self._supervisor.size
        passed_ns = max(1, now - self._then)
        busy_ns = stats.service.total_ns - self._busy_ns
        computed = stats.computed - self._computed
        return Observed(
            now_s=now / NS_PER_S,
            workers=workers,
            utilisation=min(1.0, busy_ns / (passed_ns * max(1, workers))),
            waiting=self._core.waiting,
            arrivals_per_s=(stats.requests - self._requests) / (passed_ns / NS_PER_S),
            service_s=busy_ns / computed / NS_PER_S if computed else 0.0,
            latency_p99_s=(stats.latency_quantile(0.99, self._latency) or 0.0) / NS_PER_S,
        )

    def _remember(self, now: int) -> None:
        self._then = now
        self._busy_ns, self._computed = self._stats.service.total_ns, self._stats.computed
        self._requests = self._stats.requests
        self._latency = self._stats.latency.snapshot()
