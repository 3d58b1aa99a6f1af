"""Which rate to try next, in search of the highest that meets an objective. Pure.

Widen: double until a rate fails. Settle: run longer where a short run could not tell. Narrow:
halve the bracket on the log scale. Confirm both of its ends with fresh seeds, and question every
lower rate that failed. All of it follows from what was tried alone, and one run is never believed:
a rate stands where the majority of its runs put it, so a single stall costs a repeat and no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

# saturated: failed, and the server did not even keep up. invalid: the client was the limit.
Outcome = Literal["held", "failed", "saturated", "undetermined", "invalid"]
# open: not known yet. unclear: not known, and the longest run was no help.
Standing = Literal["held", "failed", "unclear", "invalid", "open"]
# A rate's runs are pooled until they tell; another one makes them this much longer together.
GROWTH = 3
# Failures in a row that end the doubling of a server that keeps up. Where nothing held yet, only
# saturation ends it: one that waits for full batches fails at every low rate.
FAILING = 2
# A failure and an invalid run have to be seen twice.
TWICE = 2


@dataclass(frozen=True)
class RateTrial:
    """One run that was made; `took_s` with warm-up and drain, `seen` in words."""

    rate_rps: float
    duration_s: float
    outcome: Outcome
    took_s: float
    seen: str = ""


@dataclass(frozen=True)
class NextRate:
    """One run to make next, and why."""

    rate_rps: float
    duration_s: float
    why: str


@dataclass(frozen=True)
class Found:
    """What the runs say; None: no such rate."""

    held_rps: float | None
    # The lowest above it that failed, and those that could not be told apart from failing.
    failed_rps: float | None
    undetermined_rps: tuple[float, ...]
    # The lowest rate at which the client was the limit.
    client_limit_rps: float | None
    # Failed twice although a higher rate held twice.
    failed_below_rps: tuple[float, ...]
    # Both ends of the bracket were seen again, however wide it is.
    confirmed: bool


@dataclass(frozen=True)
class SearchSettings:
    """How hard to look. Times in seconds; `budget_s` bounds all runs together.

    `confidence` is that of one run. A rate beyond the truth is the answer only if it holds by
    chance in two runs with different seeds: with six such rates tried, 6 * 0.05^2 = 1.5 % at most.
    `least_requests` is the number below which a run cannot show anything
    (`Objective.least_requests`): a run at a low rate lasts as long as these take.
    """

    start_rps: float = 10.0
    lowest_rps: float = 0.5
    highest_rps: float = 1e6
    precision: float = 0.05
    confidence: float = 0.95
    least_requests: int = 662
    confirmations: int = 1
    widen_s: float = 2.0
    step_s: float = 5.0
    confirm_s: float = 10.0
    longest_s: float = 40.0
    # What a run takes beside its duration, warm-up first of all.
    pause_s: float = 1.0
    budget_s: float = 300.0
    most_steps: int = 80
    most_runs_per_rate: int = 7
    # After the search: short runs about the estimated limit, until half of its interval is as narrow
    # as this share of it, or so many were made.
    width: float = 0.08
    most_refining: int = 8
    seed: int = 0

    def usual_s(self, rate_rps: float) -> float:
        return max(self.step_s, self.least_requests / rate_rps)

    def most_s(self, rate_rps: float) -> float:
        return max(self.longest_s, 2 * self.usual_s(rate_rps))


@dataclass(frozen=True)
class Rate:
    """All runs at one rate."""

    rate_rps: float
    runs: tuple[RateTrial, ...]
    most_s: float

    def count(self, *outcomes: Outcome) -> int:
        return sum(run.outcome in outcomes for run in self.runs)

    @property
    def held(self) -> int:
        return self.count("held")

    @property
    def failed(self) -> int:
        return self.count("failed", "saturated")

    @property
    def pooled_s(self) -> float:
        """Total length of the runs since the last conclusive one, which are judged together."""
        since = takewhile(lambda run: run.outcome in ("undetermined", "invalid"), self.runs[::-1])
        return math.fsum(run.duration_s for run in since if run.outcome == "undetermined")

    @property
    def unclear(self) -> bool:
        """All the time that a rate is given was not enough."""
        return self.pooled_s >= self.most_s

    @property
    def took_s(self) -> float:
        return math.fsum(run.took_s for run in self.runs)

    @property
    def margin(self) -> int:
        return self.held - self.failed

    @cached_property
    def standing(self) -> Standing:
        if (invalid := self.count("invalid")) >= TWICE and invalid > self.held + self.failed:
            return "invalid"
        if self.margin > 0:
            return "held"
        return "failed" if self.failed else "unclear" if self.unclear else "open"

    @property
    def blocked(self) -> bool:
        return self.standing not in ("held", "open")

    @property
    def failing_s(self) -> float:
        """What was enough to see it fail."""
        return min(run.duration_s for run in self.runs if run.outcome in ("failed", "saturated"))

    @property
    def longer_s(self) -> float:
        """What is missing to a much longer pool, as far as that may go."""
        return min(self.most_s, GROWTH * self.pooled_s) - self.pooled_s


class Ledger:
    """What was tried, by rate."""

    def __init__(self, tried: Sequence[RateTrial], settings: SearchSettings) -> None:
        self.settings = settings
        self.rates = [
            Rate(rate, tuple(t for t in tried if t.rate_rps == rate), settings.most_s(rate))
            for rate in sorted({trial.rate_rps for trial in tried})
        ]
        self.held = max((r for r in self.rates if r.standing == "held"), key=_rps, default=None)
        floor = self.held.rate_rps if self.held else 0.0
        self.above = [rate for rate in self.rates if rate.rate_rps > floor]
        self.below = [rate for rate in self.rates if rate.rate_rps < floor]
        # Lowest rate above the held one that is no candidate any more.
        self.ceiling = next((rate for rate in self.above if rate.blocked), None)

    @property
    def is_narrow(self) -> bool:
        if self.held is None or self.ceiling is None:
            return self.held is not None
        return self.ceiling.rate_rps <= self.held.rate_rps * (1 + self.settings.precision)

    def is_sure(self, rate: Rate) -> bool:
        """Whether it held again with fresh seeds."""
        return rate.standing == "held" and rate.margin > self.settings.confirmations

    @property
    def ceiling_is_sure(self) -> bool:
        ceiling = self.ceiling
        return ceiling is None or ceiling.standing != "failed" or ceiling.margin <= -TWICE

    @property
    def doubtful(self) -> list[Rate]:
        """Failed once, below a rate that held."""
        return [r for r in self.below if r.standing == "failed" and r.failed < TWICE]

    @property
    def reserve_s(self) -> float:
        """What confirming takes: the held rate as long as before, the failed ones once more."""
        if self.held is None:
            return 0.0
        settings = self.settings
        held_s = max(settings.confirm_s, settings.usual_s(self.held.rate_rps), self.held.took_s)
        failed_s = [settings.step_s, *(rate.failing_s for rate in self.doubtful)]
        runs = settings.confirmations + len(failed_s)
        return settings.confirmations * held_s + sum(failed_s) + runs * settings.pause_s

    def again(self, rate: Rate, least_s: float, why: str) -> NextRate | None:
        """Another run of a rate, unless it had its share."""
        if rate.unclear or len(rate.runs) >= self.settings.most_runs_per_rate:
            return None
        return NextRate(rate.rate_rps, max(least_s, rate.longer_s), why)


Phase = Callable[[Ledger], NextRate | None]


def _rps(rate: Rate) -> float:
    return rate.rate_rps


def widen(ledger: Ledger) -> NextRate | None:
    """Double from the start until the server fails, past it while it keeps up, or the client is."""
    settings = ledger.settings
    if not ledger.rates:
        return NextRate(settings.start_rps, settings.widen_s, "start")
    top = ledger.rates[-1]
    if top.standing == "open" and top.count("invalid"):
        return ledger.again(top, settings.widen_s, "was it the client?")
    failing = sum(1 for _ in takewhile(lambda rate: rate.blocked, reversed(ledger.rates)))
    ends = top.standing == "invalid" or (top.blocked and top.count("saturated"))
    enough = FAILING <= failing < len(ledger.rates)
    if ends or enough or 2 * top.rate_rps > settings.highest_rps:
        return None
    return NextRate(2 * top.rate_rps, settings.widen_s, "look beyond" if failing else "widen")


def settle(ledger: Ledger) -> NextRate | None:
    """Where a run could not tell, a longer one."""
    candidates = [rate for rate in ledger.above if rate.standing == "open"]
    return ledger.again(candidates[-1], ledger.settings.widen_s, "longer") if candidates else None


def descend(ledger: Ledger) -> NextRate | None:
    """Not even the first rate held."""
    half = ledger.rates[0].rate_rps / 2
    if ledger.held or half < ledger.settings.lowest_rps:
        return None
    return NextRate(half, ledger.settings.widen_s, "lower")


def narrow(ledger: Ledger) -> NextRate | None:
    """The middle of the bracket on the log scale."""
    if ledger.held is None or ledger.ceiling is None or ledger.is_narrow:
        return None
    middle = math.sqrt(ledger.held.rate_rps * ledger.ceiling.rate_rps)
    return NextRate(middle, ledger.settings.usual_s(middle), "narrow")


def unsure_ceiling(ledger: Ledger) -> NextRate | None:
    """A failure that is seen once may have been a hiccup."""
    if ledger.ceiling is None or ledger.ceiling_is_sure:
        return None
    return ledger.again(ledger.ceiling, ledger.ceiling.failing_s, "does it fail again?")


def unsure_held(ledger: Ledger) -> NextRate | None:
    """The highest of several that held held by luck more often than others do.

    Where it cannot be seen again, the next lower one is asked.
    """
    holding = [rate for rate in reversed(ledger.rates) if rate.standing == "held"]
    settings = ledger.settings
    steps = (
        ledger.again(rate, max(settings.confirm_s, settings.usual_s(rate.rate_rps)), "confirm")
        for rate in takewhile(lambda rate: not ledger.is_sure(rate), holding)
    )
    return next(filter(None, steps), None)


def question(ledger: Ledger) -> NextRate | None:
    """A rate that failed below one that held: a hiccup, or a server that is not monotonic."""
    steps = (ledger.again(rate, rate.failing_s, "a higher rate held") for rate in ledger.doubtful)
    return next(filter(None, steps), None)


# The bracket is not narrowed with the time that its confirmation needs.
EXPLORE = (widen, settle, descend, narrow)
CONFIRM = (unsure_ceiling, question, unsure_held)


def next_step(tried: Sequence[RateTrial], settings: SearchSettings) -> NextRate | Found:
    """The next run, or the answer when nothing is left to ask or to spend."""
    ledger = Ledger(tried, settings)
    left_s = settings.budget_s - math.fsum(trial.took_s for trial in tried) - settings.pause_s
    exploring = affordable(EXPLORE, ledger, left_s - ledger.reserve_s)
    step = exploring or affordable(CONFIRM, ledger, left_s)
    return step if step and len(tried) < settings.most_steps else what_is_known(tried, settings)


def affordable(phases: Sequence[Phase], ledger: Ledger, left_s: float) -> NextRate | None:
    """The first step of these phases, if there is time for it."""
    step = next(filter(None, (phase(ledger) for phase in phases)), None)
    return step if step and step.duration_s <= left_s else None


def what_is_known(tried: Sequence[RateTrial], settings: SearchSettings) -> Found:
    """The answer so far, at any time: the highest rate that held again, else that held at all."""
    ledger = Ledger(tried, settings)
    sure = max(filter(ledger.is_sure, ledger.rates), key=_rps, default=None)
    answer = sure or ledger.held
    held_rps = answer.rate_rps if answer else 0.0

    def above(*standings: Standing) -> tuple[float, ...]:
        rates = (rate for rate in ledger.rates if rate.rate_rps > held_rps)
        return tuple(rate.rate_rps for rate in rates if rate.standing in standings)

    return Found(
        held_rps=answer.rate_rps if answer else None,
        failed_rps=next(iter(above("failed")), None),
        undetermined_rps=above("unclear", "open", "held"),
        client_limit_rps=next(iter(above("invalid")), None),
        failed_below_rps=tuple(
            rate.rate_rps
            for rate in ledger.rates
            if rate.rate_rps < held_rps and rate.standing == "failed" and rate.failed >= TWICE
        ),
        confirmed=sure is not None and ledger.ceiling_is_sure,
    )
