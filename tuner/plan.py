"""What to measure next: a pure function of what has been recorded, so a killed study just goes on.

A study goes through baselines, search and verification. Where it stands is never stored: it is
read off the points.
"""

from __future__ import annotations

import operator
import random
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from dlbench.tuner import budget
from dlbench.tuner.budget import LEAST_REPEATS, LEAST_VERIFY_SHARE, PROBE_S, REPEATS, VERIFY_SHARE
from dlbench.tuner.front import in_reach
from dlbench.tuner.search.proposal import Done
from dlbench.tuner.search.proposer import PROPOSERS
from dlbench.tuner.step import Step
from dlbench.tuner.verify.candidates import candidates, contenders
from dlbench.tuner.verify.drift import EVERY_S, reference, since_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.budget import Candidate
    from dlbench.tuner.point import Phase, Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.predictions import Predictions

OUT_OF_BUDGET = Done("the rest of the budget is kept for verification")


@dataclass(frozen=True)
class Plan:
    """The frame that steps are taken in: the space, the request, the twin, what the client can do.

    `before_s` is what the budget has paid for before the first step: the start of the command and
    the calibration. `first_switch_s` is what a change of configuration may cost, until one was seen.
    """

    space: Space
    study: StudyConfig
    drivable_rps: float
    predictions: Predictions | None = None
    before_s: float = 0.0
    calibration: Calibration | None = None
    first_switch_s: float = budget.SWITCH_S
    _searches: list[Search] = field(default_factory=list, repr=False, compare=False)

    def next_step(self, points: Sequence[Point], spent_s: float | None = None) -> Step | None:
        """What to measure now, None when the study is complete or its budget is over.

        `spent_s` is the study's time by now; None: nothing happened since the last point.
        """
        spent_s = self.spent_s(points) if spent_s is None else spent_s
        left_s = self.study.budget_s - budget.REPORT_S - spent_s
        for steps, kept_s in self._stages(points, spent_s):
            step = next(steps, None)
            if step is not None and self.step_s(step, points) + kept_s <= left_s:
                return step
        return None

    def _stages(
        self, points: Sequence[Point], spent_s: float
    ) -> Iterator[tuple[Iterator[Step], float]]:
        """What is still to do, the nearest first, and the time that has to be left after a step."""
        (default, *others), searched = self.baselines.items(), self._searched(points)
        yield self._baseline_steps(*default, points), self._least_verify_s(points)
        # A configuration of the search is worth more than another baseline.
        least_s = self._least_verify_s(points) + (0.0 if searched else self.curve_s(points))
        for name, config in others:
            yield self._baseline_steps(name, config, points), least_s
        reserve_s = self.reserve_s(points)
        yield self._drift_steps(points), reserve_s
        yield self._search_steps(points, spent_s), self._kept_s(points, reserve_s)
        yield self._verify_steps(points), 0.0

    def _baseline_steps(
        self, name: str, config: ServingConfig, points: Sequence[Point]
    ) -> Iterator[Step]:
        """The default's curve first: how many loads the budget can pay for follows from its probe."""
        yield from self._curve(name, config, "baseline", points)

    def spent_s(self, points: Sequence[Point]) -> float:
        """The study's time when the last of these points was recorded."""
        return budget.spent_s(points, self.before_s)

    def step_s(self, step: Step, points: Sequence[Point]) -> float:
        """What a step is expected to take, by what those like it took."""
        # The server began with the default configuration; calibrating leaves it another one.
        same = points[-1].config == step.config if points else self.calibration is None
        beside_s = budget.beside_s(points) if same else self.switch_s(points)
        return step.duration_s + budget.WARMUP_S + beside_s

    def switch_s(self, points: Sequence[Point]) -> float:
        """What a change of configuration is expected to cost beside the measuring."""
        return budget.switch_s(points, self.first_switch_s)

    def _least_verify_s(self, points: Sequence[Point]) -> float:
        """What it takes at least to verify a point of every configuration so far, or of the first."""
        count = len({p.configuration for p in of_search(points)}) or 1
        # One alone is not changed for another.
        beside_s = budget.beside_s(points) if count == 1 else self.switch_s(points)
        return LEAST_REPEATS * count * (budget.REPEAT_S + budget.WARMUP_S + beside_s)

    def _kept_s(self, points: Sequence[Point], reserve_s: float) -> float:
        """What has to be left after a step of the search: the first configuration needs less."""
        first = len(self._searched(points)) <= 1
        return self._least_verify_s(points) if first else reserve_s

    def _window_s(self, wanted_s: float) -> float:
        return budget.window_s(wanted_s, self.study.budget_s)

    def _probe_s(self, config: ServingConfig) -> float:
        """Long enough for the answers to some full batches, where it is known what they take."""
        if self.calibration is None:
            return self._window_s(PROBE_S)
        shape = (config.max_batch_size, config.intra_op_threads, config.workers)
        return self._window_s(budget.probe_s(self.calibration.service_s(*shape)))

    def _drift_steps(self, points: Sequence[Point]) -> Iterator[Step]:
        """The reference again, now and then: its capacity, and its p99 at the rate it first had."""
        since, first = since_reference(points), reference(points)
        if first is None or first.measurement is None or sum(p.cost_s for p in since) < EVERY_S:
            return
        name, config, rate = first.configuration, first.config, first.measurement.offered_rps
        if not any(p.phase == "drift" for p in since):
            yield Step(name, config, "drift", self._probe_s(config))
        yield Step(name, config, "drift", first.measurement.duration_s, first.share, rate)

    def _search_steps(self, points: Sequence[Point], spent_s: float) -> Iterator[Step]:
        searched = self._searched(points)
        for name, config in searched.items():
            yield from self._curve(name, config, "screen", points)
        proposed = self.proposal(points, spent_s)
        if not isinstance(proposed, Done):
            yield from self._curve(f"c{len(searched) + 1:02d}", proposed, "screen", points)

    def _searched(self, points: Sequence[Point]) -> dict[str, ServingConfig]:
        return {p.configuration: p.config for p in points if self._is_searched(p)}

    def _verify_steps(self, points: Sequence[Point]) -> Iterator[Step]:
        """Rounds over all candidates, then over what was spoiled or, in time, is in question."""
        chosen = self.candidates(points)
        for repeat in range(1, self._most_repeats + 1):
            wanted = self._in_question(repeat, chosen, points)
            for c in _interleaved(chosen, self.study.seed + repeat):
                own = [p for p in points if p.phase == "verify" and p.name == c.name]
                meant = (c in wanted or _spoiled(own, repeat)) and not _hopeless(own, repeat)
                if meant and repeat not in {p.repeat for p in own}:
                    load = (c.repeat_s, c.share, c.rate, repeat)
                    yield Step(c.configuration, c.config, "verify", *load)

    @property
    def _most_repeats(self) -> int:
        bounds = self.study.constraints.objectives
        return budget.DECIDING_REPEATS if bounds else budget.MOST_REPEATS

    def _in_question(
        self, repeat: int, chosen: list[Candidate], points: Sequence[Point]
    ) -> list[Candidate]:
        """Whom a round measures: all at first, then those that matter, if there is time for them."""
        if repeat <= LEAST_REPEATS:
            return chosen
        judged = [p for p in points if p.phase == "verify" and p.repeat < repeat]
        demands = self.study.constraints
        bounded = bool(demands.objectives) and repeat > REPEATS
        matter = contenders(chosen, judged, demands) if bounded else chosen
        return matter if self._affordable(repeat, matter, points) else []

    def _affordable(
        self, repeat: int, chosen: Sequence[Candidate], points: Sequence[Point]
    ) -> bool:
        """Whether there was time for a whole round when it began."""
        earlier = takewhile(lambda p: p.phase != "verify" or p.repeat < repeat, points)
        needed_s = budget.round_s(chosen, self.switch_s(points)) + budget.REPORT_S
        return self.spent_s(list(earlier)) + needed_s <= self.study.budget_s

    def _curve(
        self, name: str, config: ServingConfig, phase: Phase, points: Sequence[Point]
    ) -> Iterator[Step]:
        """A probe of the capacity, then open loop at fixed shares of it, until one saturates.

        Where a tight budget skipped a load below that one, it may be the most that can be served.
        """
        recorded = {p.share: p for p in of_search(points) if p.configuration == name}
        if None not in recorded:
            yield Step(name, config, "probe", self._probe_s(config))
            return
        capacity = self.capacity(recorded[None])
        loads = self.loads(points) if capacity else ()
        for lower, share in pairwise((0.0, *loads)):
            gone = share in recorded and not worth_going_on(recorded[share])
            for load in (share, *(budget.skipped(lower, share) if gone else ())):
                if load not in recorded:
                    rate = load * capacity
                    yield Step(
                        name, config, phase, self._window_s(budget.screen_s(rate)), load, rate
                    )
            if gone:
                return

    def proposal(
        self, points: Sequence[Point], spent_s: float | None = None
    ) -> ServingConfig | Done:
        """The configuration to measure after those that are complete, or why there is none."""
        spent_s = self.spent_s(points) if spent_s is None else spent_s
        tried = self._searched(points)
        if self.study.configurations and len(tried) >= self.study.configurations:
            return Done(f"{len(tried)} configurations were asked for")
        kept_s = self.reserve_s(points) if tried else self._least_verify_s(points)
        if spent_s + self.curve_s(points) + kept_s > self.study.budget_s:
            return OUT_OF_BUDGET
        return self._search(points).proposal

    def candidates(self, points: Sequence[Point]) -> list[Candidate]:
        """What to verify; nothing that verification finds changes it."""
        return self._search(points).candidates

    def _search(self, points: Sequence[Point]) -> Search:
        """What the search says. The last one is kept: it is asked again at every later step."""
        found = of_search(points)
        if not self._searches or not _same(self._searches[0].points, found):
            self._searches[:] = [Search(self, found)]
        return self._searches[0]

    @cached_property
    def baselines(self) -> dict[str, ServingConfig]:
        """Name -> configuration of what tuning is compared with; one where the two are the same."""
        plain, default = self.space.naive, self.space.default
        return {"default": default} if plain == default else {"default": default, "naive": plain}

    def _is_searched(self, point: Point) -> bool:
        return point.configuration not in self.baselines

    def capacity(self, probe: Point) -> float:
        """Requests per second that a probe showed, within what the client can drive; 0: failed."""
        if probe.measurement is None:
            return 0.0
        return min(probe.measurement.throughput_rps, self.drivable_rps)

    def loads(self, points: Sequence[Point]) -> tuple[float, ...]:
        """The shares of capacity that this budget can pay for, decided once, by the default's probe."""
        within_s = (1 - VERIFY_SHARE) * self.study.budget_s - self.before_s
        count = budget.LEAST_CONFIGURATIONS + len(self.baselines)
        return budget.affordable_loads(self.known_capacity(points), count, within_s)

    def curve_s(self, points: Sequence[Point]) -> float:
        """What one more configuration costs."""
        figures = (self.known_capacity(points), self.loads(points), self.switch_s(points))
        return budget.curve_s(*figures, self.study.budget_s)

    def reserve_s(self, points: Sequence[Point]) -> float:
        """Time kept for verification: what it would cost now, and to decide, within its shares."""
        shares = (LEAST_VERIFY_SHARE, VERIFY_SHARE, budget.DECIDING_SHARE)
        least, most, deciding = (share * self.study.budget_s for share in shares)
        needed_s = budget.verify_s(self.candidates(points), self.switch_s(points))
        more_s = deciding if self.study.constraints.objectives else 0.0
        return min(max(least, needed_s) + more_s, most)

    def remarks(self, points: Sequence[Point]) -> list[str]:
        """What the budget buys, said before the search begins."""
        count, whole = len(self.loads(points)), len(budget.LOADS)
        if count == whole:
            return []
        return [
            f"to stay within the budget, each configuration is measured at {count} loads, not "
            f"{whole}"
        ]

    def known_capacity(self, points: Sequence[Point]) -> float:
        """The default's, or where that failed the other baseline's."""
        probes = {p.configuration: self.capacity(p) for p in points if p.phase == "probe"}
        known = (probes[name] for name in self.baselines if probes.get(name))
        return next(known, self.drivable_rps)


@dataclass(frozen=True)
class Search:
    """What the points of the search alone say, found out when it is asked for, once."""

    plan: Plan
    points: list[Point]

    @cached_property
    def proposal(self) -> ServingConfig | Done:
        """What the proposer names next."""
        plan, study = self.plan, self.plan.study
        propose = PROPOSERS[study.proposer]
        return propose(self.points, plan.space, study.seed, plan.predictions, self._reference_ms)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """What would be verified if the search ended here."""
        plan, reference_ms = self.plan, self._reference_ms
        left_s = plan.study.budget_s - budget.REPORT_S - plan.spent_s(self.points)
        return candidates(
            self.points, plan.baselines, plan.study, plan.predictions, reference_ms, left_s
        )

    @property
    def _reference_ms(self) -> float:
        """The study's, unless neither the twin nor a measurement comes near it."""
        twin = self.plan.predictions
        expected_ms = [] if twin is None else [float(twin.p99_ms[twin.searched].min())]
        measured_ms = [p.outcome.p99_ms for p in self.points if p.outcome]
        return in_reach([*expected_ms, *measured_ms], self.plan.study.reference_ms)


def of_search(points: Sequence[Point]) -> list[Point]:
    """The points that searching made; what came later judges them and must not move them."""
    return [p for p in points if p.phase not in ("verify", "drift")]


def _same(kept: Sequence[Point], found: Sequence[Point]) -> bool:
    """Whether these are the very same points, which is told at once."""
    return len(kept) == len(found) and all(map(operator.is_, kept, found))


def worth_going_on(point: Point) -> bool:
    """Whether a higher load can still be served: not after one that failed or saturated."""
    return point.measurement is not None and point.measurement.verdict != "saturated"


def _spoiled(own: Sequence[Point], repeat: int) -> bool:
    """Whether this repeat makes up for one of its half that the client spoiled."""
    if repeat > REPEATS + budget.SPARE_REPEATS:
        return False
    earlier = [p for p in own if p.repeat < repeat and p.repeat % 2 == repeat % 2]
    good = [p for p in earlier if p.measurement is None or p.measurement.verdict != "invalid"]
    return len(good) < len(range(2 - repeat % 2, REPEATS + 1, 2))


def _hopeless(own: Sequence[Point], repeat: int) -> bool:
    """Whether all repeats before this one were judged, and none of them held."""
    earlier = [p for p in own if p.repeat < repeat]
    gone = [p for p in earlier if not worth_going_on(p)]
    return len(gone) == len(earlier) >= budget.HOPELESS_REPEATS


def _interleaved(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """A new order for each repeat, points of one configuration together to spare restarts."""
    names = sorted({c.configuration for c in candidates})
    random.Random(seed).shuffle(names)
    return sorted(candidates, key=lambda c: names.index(c.configuration))
