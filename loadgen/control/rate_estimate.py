"""R(B) from the runs of a search: what they say together, where each alone only held or failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.loadgen.analysis.statistics import quantile
from dlbench.loadgen.control.objective import ANY_REPLY_MS
from dlbench.loadgen.rates.next_window import next_window
from dlbench.loadgen.rates.posterior import infer
from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.rate_at_bound import rate_at_bound
from dlbench.loadgen.rates.window import OpenWindow

if TYPE_CHECKING:
    from dlbench.loadgen.analysis.statistics import Floats
    from dlbench.loadgen.control.generator import Run
    from dlbench.loadgen.control.objective import Bound, Objective
    from dlbench.loadgen.rates.next_window import NextWindow
    from dlbench.loadgen.rates.posterior import Posterior

# A quantile with fewer requests beyond it says nothing.
FEWEST_BEYOND = 5


class RateEstimate(NamedTuple):
    """The highest rate within an objective, and a 95 % interval; requests per second."""

    rate_rps: float
    low_rps: float
    high_rps: float
    # Half of the interval, as a share of the rate.
    width: float
    # False: the rate lies beyond those that were tried.
    measured: bool


class RateEstimator:
    """The runs, as windows for each bound on a latency; the lowest of their rates is the answer."""

    def __init__(self, objective: Objective) -> None:
        bounds = [bound for bound in objective.bounds if bound.most_ms < ANY_REPLY_MS]
        self._windows: dict[Bound, list[OpenWindow]] = {bound: [] for bound in bounds}

    def add(self, rate_rps: float, run: Run) -> None:
        """Another run, unless the client was the limit."""
        if run.measurement.verdict == "invalid":
            return
        ordered_ms = np.sort(run.samples.latencies_ms)
        for bound, windows in self._windows.items():
            windows.append(_window(rate_rps, run, bound, ordered_ms, len(windows)))

    def estimate(self) -> RateEstimate | None:
        """None where no run had a latency, or no rate seems to do."""
        found = [rate_at_bound(posterior, most_ms) for most_ms, posterior in self._posteriors()]
        lowest = min(found, key=lambda one: one.rate_rps, default=None)
        if lowest is None or not lowest.reachable:
            return None
        return RateEstimate(
            lowest.rate_rps, lowest.low_rps, lowest.high_rps, lowest.width, lowest.measured
        )

    def next_window(self) -> NextWindow | None:
        """Where another run would tell most; None where nothing is known."""
        steps = (next_window(posterior, most_ms) for most_ms, posterior in self._posteriors())
        return min(steps, key=lambda step: step.rate_rps, default=None)

    def _posteriors(self) -> list[tuple[float, Posterior]]:
        known = [(bound, windows, _prior(windows)) for bound, windows in self._windows.items()]
        return [(b.most_ms, infer(prior, windows)) for b, windows, prior in known if prior]


def _prior(windows: list[OpenWindow]) -> Prior | None:
    """Of the lowest rate that has a latency."""
    seen = [w for w in windows if w.p99_ms and not w.failed]
    lowest = min(seen, key=lambda window: window.rate_rps, default=None)
    return Prior.of_window(lowest.rate_rps, lowest.p99_ms) if lowest and lowest.p99_ms else None


def _window(rate_rps: float, run: Run, bound: Bound, ordered_ms: Floats, moment: int) -> OpenWindow:
    """The bound's quantile has the place of the p99: a curve of the same family."""
    measured = run.measurement
    enough = len(ordered_ms) * (1 - bound.q) >= FEWEST_BEYOND
    value = quantile(ordered_ms, bound.q) if enough else None
    return OpenWindow(
        rate_rps,
        measured.duration_s,
        value,
        saturated=measured.verdict == "saturated",
        completed_rps=measured.throughput_rps or None,
        disturbed=measured.verdict == "unsteady",
        moment=moment,
    )
