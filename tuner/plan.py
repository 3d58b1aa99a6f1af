"""What to measure next: a pure function of what has been recorded, so a killed study just goes on.

A study goes through baselines, search and comparison. Where it stands is never stored: it is read
off the points.
"""

from __future__ import annotations

import operator
import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dlbench.tuner import budget
from dlbench.tuner.bounds.decision import DEFAULT, bound_rows
from dlbench.tuner.bounds.finalists import finalists, round_rates
from dlbench.tuner.bounds.ladder import ladder
from dlbench.tuner.bounds.placement import next_rate, surely_loses
from dlbench.tuner.bounds.rating import leaders, ratings
from dlbench.tuner.search.proposal import Done
from dlbench.tuner.search.proposer import PROPOSERS
from dlbench.tuner.step import Step
from dlbench.tuner.verify.drift import EVERY_S, reference, since_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.bounds.rating import Rating
    from dlbench.tuner.point import Phase, Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.predictions import Predictions

OUT_OF_BUDGET = Done("the rest of the budget is kept for the comparison")
# What a server with hardly any load has, of what it has at the lowest predicted load.
EMPTY_SHARE = 0.8


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
        """The steps still to do, the nearest first, and the time to reserve after each."""
        (default, *others), searched = self.baselines.items(), self._searched(points)
        yield self._curve(*default, "baseline", points), self._least_compare_s(points)
        # A configuration of the search is worth more than another baseline.
        least_s = self._least_compare_s(points) + (0.0 if searched else self.curve_s(points))
        for name, config in others:
            yield self._curve(name, config, "baseline", points), least_s
        reserve_s = self.reserve_s(points)
        yield self._drift_steps(points), reserve_s
        yield self._search_steps(points, spent_s), self._kept_s(points, reserve_s)
        yield self._compare_steps(points), 0.0

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

    def _least_compare_s(self, points: Sequence[Point]) -> float:
        """What it takes to compare two configurations at all, or to measure the only one again."""
        count = min(2, len({p.configuration for p in of_search(points)}) or 1)
        return budget.LEAST_ROUNDS * self._round_s(count, points, 1)

    def _round_s(self, configurations: int, points: Sequence[Point], windows: int) -> float:
        window_s = self._window_s(budget.open_s(self.known_capacity(points), budget.COMPARE_S))
        return budget.round_s(configurations, windows, window_s, self.switch_s(points))

    def _kept_s(self, points: Sequence[Point], reserve_s: float) -> float:
        """Time to reserve after a step of the search: less for the first configuration."""
        first = len(self._searched(points)) <= 1
        return self._least_compare_s(points) if first else reserve_s

    def _window_s(self, wanted_s: float) -> float:
        return budget.window_s(wanted_s, self.study.budget_s)

    def _probe_s(self, config: ServingConfig) -> float:
        """Long enough for the answers to some full batches, where it is known what they take."""
        if self.calibration is None:
            return self._window_s(budget.PROBE_S)
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

    def _curve(
        self, name: str, config: ServingConfig, phase: Phase, points: Sequence[Point]
    ) -> Iterator[Step]:
        """A probe of the capacity, then windows where they tell most of R(B), until enough is known."""
        own = [p for p in of_search(points) if p.configuration == name]
        probe = next((p for p in own if p.share is None), None)
        if probe is None:
            yield Step(name, config, "probe", self._probe_s(config))
            return
        capacity, opened = self.capacity(probe), [p for p in own if p.share is not None]
        if not capacity or len(opened) >= self.windows(points) or any(p.failure for p in opened):
            return
        rated = self._search(points).rated
        if phase == "screen" and surely_loses(
            rated[name], self._best(points), self.bounds_ms(points)
        ):
            return
        taken = [m.offered_rps for p in opened if (m := p.measurement) and m.offered_rps]
        rate = min(next_rate(rated[name], self.bounds_ms(points), taken), self.drivable_rps)
        yield self._open(name, config, phase, rate, capacity)

    def _open(
        self,
        name: str,
        config: ServingConfig,
        phase: Phase,
        rate: float,
        capacity: float,
        repeat: int = 0,
    ) -> Step:
        least_s = budget.COMPARE_S if phase == "verify" else budget.SCREEN_S
        window_s = self._window_s(budget.open_s(rate, least_s))
        return Step(
            name, config, phase, window_s, round(min(rate / capacity, 999.0), 2), rate, repeat
        )

    def _best(self, points: Sequence[Point]) -> Mapping[float, Rating]:
        return leaders(self._search(points).rated, self.bounds_ms(points))

    def bounds_ms(self, points: Sequence[Point]) -> tuple[float, ...]:
        """The bound that was asked for, else a ladder from what a server with hardly any load has."""
        if self.study.slo_p99_ms is not None:
            return (self.study.slo_p99_ms,)
        if self.predictions is not None:
            rows = self.predictions.rows
            known = self.predictions.p99_ms[[rows[c] for c in self.baselines.values() if c in rows]]
            if known.size:
                return ladder(EMPTY_SHARE * float(known.min()))
        seen = [p.outcome.p99_ms for p in of_search(points) if p.outcome]
        return ladder(min(seen, default=1.0) / 2)

    def _compare_steps(self, points: Sequence[Point]) -> Iterator[Step]:
        """Rounds in which finalists and default take turns, until there is no time for another."""
        chosen = self.candidates(points)
        count, capacities = self._windows(chosen, points), self.capacities(points)
        for repeat in range(1, budget.MOST_ROUNDS + 1):
            earlier = [p for p in points if p.phase != "verify" or p.repeat < repeat]
            own = [p.configuration for p in points if p.phase == "verify" and p.repeat == repeat]
            if not chosen or not (own or self._worth_it(repeat, chosen, earlier, points)):
                return
            if len(own) >= count * len(chosen):  # the usual case of a study that is asked again
                continue
            rated = ratings(earlier, self.predictions)
            for name in _shuffled(chosen, self.study.seed + repeat):
                rates = round_rates(rated[name], self.bounds_ms(points), repeat, count)
                for rate in rates[own.count(name) :]:
                    able = min(rate, self.drivable_rps)
                    yield self._open(
                        name, rated[name].config, "verify", able, capacities[name], repeat
                    )

    def _worth_it(
        self, repeat: int, chosen: Sequence[str], earlier: Sequence[Point], points: Sequence[Point]
    ) -> bool:
        """Whether there was time for a round when it began, and something left to find out."""
        count = self._windows(chosen, points)
        needed_s = self._round_s(len(chosen), points, count) + budget.REPORT_S
        if self.spent_s(earlier) + needed_s > self.study.budget_s:
            return False
        return repeat <= budget.ENOUGH_ROUNDS or not self._is_decided(earlier)

    def _is_decided(self, points: Sequence[Point]) -> bool:
        """Whether the comparison tells at every bound which configuration is better."""
        compared = [p for p in points if p.phase == "verify"]
        rows = bound_rows(ratings(points, self.predictions, compared), self.bounds_ms(points))
        return bool(rows) and all(row.decided for row in rows)

    def capacities(self, points: Sequence[Point]) -> dict[str, float]:
        """Configuration -> what its first probe showed, in requests/s."""
        probes = [p for p in reversed(points) if p.phase == "probe"]
        return {p.configuration: self.capacity(p) for p in probes}

    def proposal(
        self, points: Sequence[Point], spent_s: float | None = None
    ) -> ServingConfig | Done:
        """The configuration to measure after those that are complete, or why there is none."""
        spent_s = self.spent_s(points) if spent_s is None else spent_s
        tried = self._searched(points)
        if self.study.configurations and len(tried) >= self.study.configurations:
            return Done(f"{len(tried)} configurations were asked for")
        kept_s = self.reserve_s(points) if tried else self._least_compare_s(points)
        if spent_s + self.curve_s(points) + kept_s > self.study.budget_s:
            return OUT_OF_BUDGET
        return self._search(points).proposal

    def candidates(self, points: Sequence[Point]) -> list[str]:
        """Whom to compare, the default first; nothing that the comparison finds changes it."""
        search = self._search(points)
        turns_s = [self._round_s(2, points, n) / 2 for n in (budget.ROUND_WINDOWS, 1)]
        most = budget.affordable_finalists(self._left_s(points), *turns_s)
        able = {n: r for n, r in search.rated.items() if self.capacities(points).get(n)}
        return finalists(able, self.bounds_ms(search.points), most)

    def _left_s(self, points: Sequence[Point]) -> float:
        """What the search left for the comparison."""
        spent_s = self.spent_s(self._search(points).points)
        return self.study.budget_s - budget.REPORT_S - spent_s

    def _windows(self, chosen: Sequence[str], points: Sequence[Point]) -> int:
        """Of each in a round: one where there is no time for enough rounds of more."""
        whole_s = self._round_s(len(chosen), points, budget.ROUND_WINDOWS)
        return budget.ROUND_WINDOWS if budget.LEAST_ROUNDS * whole_s <= self._left_s(points) else 1

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
        return {DEFAULT: default} if plain == default else {DEFAULT: default, "naive": plain}

    def _is_searched(self, point: Point) -> bool:
        return point.configuration not in self.baselines

    def capacity(self, probe: Point) -> float:
        """Requests per second that a probe showed, within what the client can drive; 0: failed."""
        if probe.measurement is None:
            return 0.0
        return min(probe.measurement.throughput_rps, self.drivable_rps)

    def windows(self, points: Sequence[Point]) -> int:
        """Of each configuration, beside the probe: what the budget can pay for."""
        within_s = (1 - budget.COMPARE_SHARE) * self.study.budget_s - self.before_s
        count = budget.LEAST_CONFIGURATIONS + len(self.baselines)
        return budget.affordable_windows(self.known_capacity(points), count, within_s)

    def curve_s(self, points: Sequence[Point]) -> float:
        """What one more configuration costs."""
        figures = (self.known_capacity(points), self.windows(points), self.switch_s(points))
        return budget.curve_s(*figures, self.study.budget_s)

    def reserve_s(self, points: Sequence[Point]) -> float:
        """Time kept for the comparison."""
        return max(budget.COMPARE_SHARE * self.study.budget_s, self._least_compare_s(points))

    def known_capacity(self, points: Sequence[Point]) -> float:
        """The default's, or where that failed the other baseline's."""
        probes = self.capacities(points)
        known = (probes[name] for name in self.baselines if probes.get(name))
        return next(known, self.drivable_rps)


@dataclass(frozen=True)
class Search:
    """Conclusions from the search's points alone, computed once on demand."""

    plan: Plan
    points: list[Point]

    @cached_property
    def rated(self) -> dict[str, Rating]:
        """Configuration -> what it takes, as far as the search knows."""
        return ratings(self.points, self.plan.predictions)

    @cached_property
    def proposal(self) -> ServingConfig | Done:
        """What the proposer names next."""
        plan, study = self.plan, self.plan.study
        propose, bounds_ms = PROPOSERS[study.proposer], plan.bounds_ms(self.points)
        return propose(self.points, plan.space, study.seed, plan.predictions, bounds_ms)


def of_search(points: Sequence[Point]) -> list[Point]:
    """The points of the search; later ones judge them and must not change them."""
    return [p for p in points if p.phase not in ("verify", "drift")]


def _same(kept: Sequence[Point], found: Sequence[Point]) -> bool:
    """Whether these are the very same points: a quick check."""
    return len(kept) == len(found) and all(map(operator.is_, kept, found))


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    """A new order for each round."""
    found = sorted(names)
    random.Random(seed).shuffle(found)
    return found
