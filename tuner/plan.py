"""What to measure next: a pure function of what has been recorded, so a killed study just goes on.

A study goes through baselines, search and verification. Where it stands is never stored: it is
read off the points. All times are seconds of measuring, waiting for servers included.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlbench.tuner.front import greedy_by_hypervolume, knee
from dlbench.tuner.point import Point, with_outcome
from dlbench.tuner.proposer import propose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.config import StudyConfig
    from dlbench.tuner.point import Phase
    from dlbench.tuner.space import Space

# With 7 % noise in capacity, 0.95 would be overload one time in four (DESIGN.md).
LOADS = (0.3, 0.5, 0.7, 0.9)
FEWER_LOADS = (LOADS, (0.5, 0.7, 0.9), (0.5, 0.9), (0.9,))
# MLPerf early stopping at p99 with no over-latency query needs 459 (PEERS.md).
SCREEN_REQUESTS = 459
SCREEN_S = 2.5
PROBE_S = 1.5
# A reported p99 pools at least three repeats with 2,000 requests together; the same again chooses.
REPEATS = 6
POOLED_REQUESTS = 2000
REPEAT_S = 1.5
WARMUP_S = 0.3
# What a change of configuration costs beside the measuring: mostly the start of a worker.
SWITCH_S = 1.4
# A budget that cannot pay for so many whole curves measures fewer loads of each; the answer that is
# called trustworthy has searched more.
LEAST_CONFIGURATIONS = 3
WORTHWHILE_CONFIGURATIONS = 8
# A closed-loop probe may not ask more than this share of what the client can do (DESIGN.md).
CLIENT_SHARE = 0.8
MOST_CANDIDATES = 6
FEWEST_CANDIDATES = 4
# Verification never takes more of the budget than this.
VERIFY_SHARE = 0.5


@dataclass(frozen=True)
class Step:
    """One measurement to make. `rate` is None for a probe, which is a closed loop."""

    configuration: str
    config: ServingConfig
    phase: Phase
    duration_s: float
    share: float | None = None
    rate: float | None = None
    repeat: int = 0


@dataclass(frozen=True)
class Candidate:
    """An operating point about to be verified."""

    configuration: str
    config: ServingConfig
    share: float
    rate: float

    @property
    def repeat_s(self) -> float:
        """Length of one repeat, so that half of them pool enough requests."""
        return max(REPEAT_S, POOLED_REQUESTS / (REPEATS / 2) / self.rate)


@dataclass(frozen=True)
class Plan:
    """The frame that steps are taken in: the space, the request, what the client can do."""

    space: Space
    study: StudyConfig
    client_rps: float

    def next_step(self, points: Sequence[Point]) -> Step | None:
        """What to measure now, None when the study is complete."""
        return next(self._steps(points), None)

    def _steps(self, points: Sequence[Point]) -> Iterator[Step]:
        """Every step still to make, the nearest first; the later ones are only an outline."""
        yield from self._baseline_steps(points)
        yield from self._search_steps(points)
        yield from self._verify_steps(points)

    def _baseline_steps(self, points: Sequence[Point]) -> Iterator[Step]:
        """Both probes first: how many loads the budget can pay for follows from them."""
        probed = {p.configuration for p in points if p.phase == "probe"}
        for name, config in self.baselines().items():
            if name not in probed:
                yield Step(name, config, "probe", PROBE_S)
        for name, config in reversed(self.baselines().items()):
            yield from self._curve(name, config, "baseline", points)

    def _search_steps(self, points: Sequence[Point]) -> Iterator[Step]:
        searched = [p for p in points if p.configuration not in self.baselines()]
        for name, config in {p.configuration: p.config for p in searched}.items():
            yield from self._curve(name, config, "screen", points)
        proposed = self._propose(points) if self._may_search(points) else None
        if proposed is not None:
            name = f"c{len({p.configuration for p in searched}) + 1:02d}"
            yield from self._curve(name, proposed, "screen", points)

    def _verify_steps(self, points: Sequence[Point]) -> Iterator[Step]:
        candidates = self.candidates(points)
        done = {(p.name, p.repeat) for p in points if p.phase == "verify"}
        for repeat in range(1, REPEATS + 1):
            for c in _interleaved(candidates, self.study.seed + repeat):
                step = Step(
                    c.configuration, c.config, "verify", c.repeat_s, c.share, c.rate, repeat
                )
                if (f"{c.configuration}@{c.share:g}", repeat) not in done:
                    yield step

    def _curve(
        self, name: str, config: ServingConfig, phase: Phase, points: Sequence[Point]
    ) -> Iterator[Step]:
        """A probe of the capacity, then open loop at fixed shares of it, until one saturates."""
        recorded = {p.share: p for p in points if p.config == config and p.phase != "verify"}
        if None not in recorded:
            yield Step(name, config, "probe", PROBE_S)
            return
        capacity = self.capacity(recorded[None])
        for share in self.loads(points) if capacity else ():
            if share not in recorded:
                rate = share * capacity
                yield Step(name, config, phase, screen_s(rate), share, rate)
            elif not worth_going_on(recorded[share]):
                return

    def _propose(self, points: Sequence[Point]) -> ServingConfig | None:
        return propose(points, self.space, self.study.seed, self.study.reference_ms)

    def _may_search(self, points: Sequence[Point]) -> bool:
        tried = {p.configuration for p in points} - set(self.baselines())
        if self.study.configurations and len(tried) >= self.study.configurations:
            return False
        if not tried:
            return True  # whatever the budget: a study that tries nothing answers nothing
        after_one_more = searching_s(points) + self.curve_s(points)
        return after_one_more <= self.study.budget_s - self.reserve_s(points)

    def baselines(self) -> dict[str, ServingConfig]:
        """Name -> configuration of what tuning is compared with; one where the two are the same."""
        plain, default = self.space.naive, self.space.default
        return {"default": default} if plain == default else {"naive": plain, "default": default}

    def capacity(self, probe: Point) -> float:
        """Requests per second that a probe showed, within what the client can drive; 0: failed."""
        if probe.measurement is None:
            return 0.0
        return min(probe.measurement.throughput_rps, CLIENT_SHARE * self.client_rps)

    def loads(self, points: Sequence[Point]) -> tuple[float, ...]:
        """The shares of capacity that this budget can pay for, decided once, by the baselines' probes."""
        capacity = self._known_capacity(points)
        budget = (1 - VERIFY_SHARE) * self.study.budget_s
        for loads in FEWER_LOADS:
            if (LEAST_CONFIGURATIONS + len(self.baselines())) * _curve_s(capacity, loads) <= budget:
                return loads
        return FEWER_LOADS[-2]

    def curve_s(self, points: Sequence[Point]) -> float:
        """What one more configuration costs."""
        return _curve_s(self._known_capacity(points), self.loads(points))

    def trustworthy_s(self, points: Sequence[Point]) -> float:
        """How long a trustworthy answer takes: all loads, enough configurations, verified."""
        capacity = self._known_capacity(points)
        curves = (WORTHWHILE_CONFIGURATIONS + 2) * _curve_s(capacity, LOADS)
        typical = Candidate("", self.space.default, 0.7, 0.7 * capacity)
        return curves + (FEWEST_CANDIDATES + 2) * verify_s([typical])

    def remarks(self, points: Sequence[Point]) -> list[str]:
        """What the budget buys, said before the search begins."""
        needed, budget, loads = self.trustworthy_s(points), self.study.budget_s, self.loads(points)
        found = [
            f"a trustworthy answer takes about {needed / 60:.1f} min for this model; "
            f"the budget is {budget / 60:.1f} min"
        ]
        if len(loads) < len(LOADS):
            found.append(
                f"to keep within it each configuration is measured at {len(loads)} loads, "
                f"not {len(LOADS)}"
            )
        return found

    def reserve_s(self, points: Sequence[Point]) -> float:
        """Time kept for verification: what it would cost now, within its share of the budget."""
        return min(verify_s(self.candidates(points)), VERIFY_SHARE * self.study.budget_s)

    def candidates(self, points: Sequence[Point]) -> list[Candidate]:
        """What to verify: the baselines at their knees and the points that the front gains most by.

        Screening only proposes candidates. Its numbers, minima of noisy values, are never reported.
        """
        screened = [p for p in points if p.phase in ("baseline", "screen")]
        must = len(self.baselines()) + FEWEST_CANDIDATES
        chosen: list[Candidate] = []
        for candidate in self._ranked(screened):
            affordable = verify_s([*chosen, candidate]) <= VERIFY_SHARE * self.study.budget_s
            if affordable or len(chosen) < must:
                chosen.append(candidate)
        return chosen

    def _ranked(self, screened: Sequence[Point]) -> list[Candidate]:
        known = with_outcome(list(screened))
        reference = self.study.reference_ms
        picks: list[Point] = []
        for name in self.baselines():
            picks += _baseline_pick([p for p in screened if p.configuration == name], reference)
        gains = greedy_by_hypervolume([o for _, o in known], MOST_CANDIDATES, reference)
        picks += [known[i][0] for i in gains]
        return list(dict.fromkeys(_candidate(point) for point in picks))

    def _known_capacity(self, points: Sequence[Point]) -> float:
        probes = [p for p in points if p.phase == "probe" and p.configuration in self.baselines()]
        return max((self.capacity(p) for p in probes), default=0.0) or self.client_rps


def _baseline_pick(own: list[Point], reference_ms: float) -> list[Point]:
    """A baseline's knee; where nothing held in screening, its lightest load gets another chance."""
    known = with_outcome(own)
    if known:
        return [known[knee([outcome for _, outcome in known], reference_ms)][0]]
    return [p for p in own if p.measurement is not None][:1]


def worth_going_on(point: Point) -> bool:
    """Whether a higher load can still be served: not after one that failed or saturated."""
    return point.measurement is not None and point.measurement.verdict != "saturated"


def screen_s(rate: float) -> float:
    """Length of a screening measurement: enough requests, and long enough to settle."""
    return max(SCREEN_S, math.ceil(SCREEN_REQUESTS / rate * 10) / 10)


def verify_s(candidates: Sequence[Candidate]) -> float:
    """What verifying these takes: every repeat of each, and a switch per configuration and round."""
    switches = len({c.configuration for c in candidates}) * SWITCH_S
    return REPEATS * (switches + sum(c.repeat_s + WARMUP_S for c in candidates))


def searching_s(points: Sequence[Point]) -> float:
    """Time spent before verification began."""
    return sum(p.cost_s for p in points if p.phase != "verify")


def _curve_s(capacity: float, loads: Sequence[float]) -> float:
    measured = sum(screen_s(share * capacity) + WARMUP_S for share in loads)
    return SWITCH_S + PROBE_S + WARMUP_S + measured


def _candidate(point: Point) -> Candidate:
    assert point.share is not None
    assert point.measurement is not None
    rate = point.measurement.offered_rps or point.measurement.throughput_rps
    return Candidate(point.configuration, point.config, point.share, rate)


def _interleaved(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """A new order for each repeat, points of one configuration together to spare restarts."""
    names = sorted({c.configuration for c in candidates})
    random.Random(seed).shuffle(names)
    return sorted(candidates, key=lambda c: names.index(c.configuration))
