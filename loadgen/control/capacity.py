"""The highest rate that a server can take within an objective: the search, carried out."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field

from dlbench.loadgen.control.rate_estimate import RateEstimate, RateEstimator
from dlbench.loadgen.control.rate_search import (
    NextRate,
    Outcome,
    RateTrial,
    next_step,
    what_is_known,
)
from dlbench.loadgen.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.analysis.statistics import Floats
    from dlbench.loadgen.control.generator import Run
    from dlbench.loadgen.control.objective import Objective
    from dlbench.loadgen.control.rate_search import SearchSettings
    from dlbench.loadgen.measurement import Measurement

OUTCOMES: dict[bool | None, Outcome] = {True: "held", False: "failed", None: "undetermined"}


class Measure(Protocol):
    """`Generator.measure` with target and profile bound, except for these three."""

    def __call__(self, rate_rps: float, duration_s: float, seed: int) -> Run:
        """One run in open loop; raises LoadError, BudgetError where the client cannot do it."""


class Capacity(BaseModel):
    """The capacity, and every run that led to it. Rates in requests per second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: str
    # Of each single run.
    confidence: float
    # None: no rate held.
    rate_rps: float | None
    # The lowest rate above it that failed; None: none did.
    failed_rps: float | None
    undetermined_rps: tuple[float, ...]
    client_limit_rps: float | None
    # Lower rates that failed: nothing says that every rate below `rate_rps` holds.
    failed_below_rps: tuple[float, ...]
    # Both ends were seen again with fresh seeds.
    confirmed: bool
    # False: stopped early, and holds what was known by then.
    complete: bool
    took_s: float
    trials: tuple[RateTrial, ...]
    # R(B): what all runs say together of the rate at which the objective just holds.
    estimate: RateEstimate | None = None

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to put one into the JSON
    @property
    def non_monotonic(self) -> bool:
        return bool(self.failed_below_rps)


def find_capacity(
    measure: Measure,
    objective: Objective,
    settings: SearchSettings,
    on_step: Callable[[NextRate], None] = lambda _: None,
    *,
    on_trial: Callable[[RateTrial], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Capacity:
    """Try rates until the answer is known or the budget spent; Ctrl-C returns what is known.

    `on_step` hears of each run before it begins, `on_trial` of what came of it. Raises what
    `measure` raises, apart from a BudgetError: then the client is the limit.
    """
    search = _Search(measure, objective, settings, clock)
    complete = True
    try:
        while complete and (step := search.next_step()):
            on_step(step)
            complete = search.run(step)
            if complete:
                on_trial(search.tried[-1])
    except KeyboardInterrupt:
        complete = False
    return search.capacity(complete)


class _Search:
    """The runs so far, and the latencies of those rates whose runs could not tell yet."""

    def __init__(
        self,
        measure: Measure,
        objective: Objective,
        settings: SearchSettings,
        clock: Callable[[], float],
    ) -> None:
        self.tried: list[RateTrial] = []
        self._measure, self._objective, self._settings = measure, objective, settings
        self._clock = clock
        self._pools: defaultdict[float, list[Floats]] = defaultdict(list)
        self._estimator = RateEstimator(objective)
        # Runs that belong to the search; those after it only make the estimate narrower.
        self._searched: int | None = None

    def next_step(self) -> NextRate | None:
        """The search's next run, and after it those that make the estimate narrow enough."""
        if self._searched is None:
            step = next_step(self.tried, self._settings)
            if isinstance(step, NextRate):
                return step
            self._searched = len(self.tried)
        return self._refining()

    def _refining(self) -> NextRate | None:
        settings, known = self._settings, self._estimator.estimate()
        made = len(self.tried) - (self._searched or 0)
        if known is None or known.width <= settings.width or made >= settings.most_refining:
            return None
        step = self._estimator.next_window()
        left_s = settings.budget_s - math.fsum(t.took_s for t in self.tried) - settings.pause_s
        if step is None or step.duration_s > left_s or step.rate_rps > settings.highest_rps:
            return None
        return NextRate(step.rate_rps, step.duration_s, "refine")

    def capacity(self, complete: bool) -> Capacity:
        found = what_is_known(self.tried[: self._searched], self._settings)
        return Capacity(
            objective=self._objective.text,
            confidence=self._settings.confidence,
            rate_rps=found.held_rps,
            failed_rps=found.failed_rps,
            undetermined_rps=found.undetermined_rps,
            client_limit_rps=found.client_limit_rps,
            failed_below_rps=found.failed_below_rps,
            confirmed=found.confirmed,
            complete=complete,
            took_s=math.fsum(trial.took_s for trial in self.tried),
            trials=tuple(self.tried),
            estimate=self._estimator.estimate(),
        )

    def run(self, step: NextRate) -> bool:
        """Make one run; False if it was stopped early and so proves nothing."""
        began_s = self._clock()
        found: tuple[Outcome, str] | None
        try:
            run = self._measure(step.rate_rps, step.duration_s, self._seed)
            found = self._judge(step.rate_rps, run) if run.measurement.complete else None
        except BudgetError as error:
            found = "invalid", str(error)
        if found is None:
            return False
        outcome, seen = found
        took_s = self._clock() - began_s
        self.tried.append(RateTrial(step.rate_rps, step.duration_s, outcome, took_s, seen))
        return True

    @property
    def _seed(self) -> int:
        return self._settings.seed + len(self.tried)

    def _judge(self, rate_rps: float, run: Run) -> tuple[Outcome, str]:
        latencies_ms = run.samples.latencies_ms
        seen = self._objective.seen(latencies_ms, run.samples.longest_ms)
        self._estimator.add(rate_rps, run)
        if told := told_by_verdict(run.measurement):
            return told, f"{seen}; {run.measurement.reason}"
        pool = self._pools[rate_rps]
        pool.append(latencies_ms)
        held = self._objective.holds(np.concatenate(pool), self._settings.confidence)
        if held is not None:
            pool.clear()
        return OUTCOMES[held], seen


def told_by_verdict(measurement: Measurement) -> Outcome | None:
    """What needs no quantile. A server that fails every request is not our client's limit."""
    if measurement.verdict == "invalid" and measurement.requests and measurement.error_rate < 1:
        return "invalid"
    return "saturated" if measurement.verdict == "saturated" else None


def plan(objective: Objective, settings: SearchSettings) -> str:
    """How long it takes, for the line before the first run."""
    return (
        f"searching for the highest rate that meets {objective}: runs of {settings.widen_s:g} to "
        f"{settings.longest_s:g} s, {settings.budget_s:g} s at the most"
    )


def describe(capacity: Capacity) -> list[str]:
    """The answer in plain lines."""
    return [line for line in (part(capacity) for part in LINES) if line]


def _answer(c: Capacity) -> str:
    if c.rate_rps is None:
        return f"no rate was found that meets {c.objective}"
    held = sum(t.outcome == "held" for t in c.trials if t.rate_rps == c.rate_rps)
    runs = "run" if held == 1 else "runs"
    sure = f"{held} {runs}, each with {c.confidence:.0%} confidence"
    return f"{_rates(c.rate_rps)}/s is the highest rate that met {c.objective} ({sure})"


def _estimate(c: Capacity) -> str:
    if c.estimate is None:
        return ""
    found = c.estimate
    beyond = "" if found.measured else "; it lies beyond the rates that were tried"
    return (
        f"estimated limit: {_rates(found.rate_rps)}/s "
        f"[{_rates(found.low_rps)}-{_rates(found.high_rps)}], a 95 % interval{beyond}"
    )


def _failure(c: Capacity) -> str:
    return f"{_rates(c.failed_rps)}/s failed" if c.failed_rps else ""


def _unclear(c: Capacity) -> str:
    rates = _rates(*c.undetermined_rps)
    return f"at {rates}/s the runs were inconclusive, or conclusive only once" if rates else ""


def _client(c: Capacity) -> str:
    if c.client_limit_rps is None:
        return ""
    return f"the client is the limit from {_rates(c.client_limit_rps)}/s on"


def _dips(c: Capacity) -> str:
    if not c.failed_below_rps:
        return ""
    return (
        f"the server is not monotonic: it failed at {_rates(*c.failed_below_rps)}/s, twice, and "
        "held at a higher rate; lower rates may fail too"
    )


def _doubt(c: Capacity) -> str:
    if not c.complete:
        return "stopped early; this is the result so far"
    if c.confirmed or c.rate_rps is None:
        return ""
    return "not confirmed: too little time to repeat it, or its runs disagreed"


def _cost(c: Capacity) -> str:
    return f"{len(c.trials)} runs, {c.took_s:.0f} s"


def _rates(*rates_rps: float | None) -> str:
    return ", ".join(f"{rate:,.4g}" if rate < 100 else f"{rate:,.0f}" for rate in rates_rps if rate)


LINES: tuple[Callable[[Capacity], str], ...] = (
    _answer,
    _estimate,
    _failure,
    _unclear,
    _client,
    _dips,
    _doubt,
    _cost,
)
