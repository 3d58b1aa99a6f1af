"""`--budget` is wall time: whole studies on machines of every speed, against a clock of their own."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bounds.decision import bound_rows
from dlbench.tuner.bounds.rating import ratings
from dlbench.tuner.budget import CALIBRATION_SHARE, REPORT_S, WARMUP_S, window_s
from dlbench.tuner.errors import NotKept, OutOfTime
from dlbench.tuner.gaps import unknown
from dlbench.tuner.plan import Plan
from dlbench.tuner.run import carry_out
from dlbench.tuner.storage.wall_clock import Clock
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.study_request import Observer, Request
from dlbench.tuner.twin.calibration_parts import Parts
from testbed import made

TIMEOUT_S = 10.0


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s

    def passes(self, seconds):
        self.now_s += seconds


class Machine:
    """A bench on which everything takes time: starts, answers, windows, and the replies after them.

    `rps` is what the default serves, `start_s` what a server takes to start. All that is not a
    window's own length is off by a factor that is drawn anew each time.
    """

    def __init__(self, time, rps, start_s=1.5, noise=0.3, seed=0):
        self.time, self._rps, self._start_s = time, rps, start_s
        self._rng, self._noise, self._served = np.random.default_rng(seed), noise, None
        self.windows = []

    def some(self, seconds):
        return seconds * math.exp(self._noise * self._rng.normal())

    def capacity(self, config):
        return self._rps * (0.5 if config.workers == 1 else 1.0) * config.max_batch_size**0.1

    def measure(self, step, seed, on_progress, path, left_s):
        began = self.time()
        deadline = began + left_s + step.duration_s
        capacity = self.some(self.capacity(step.config))
        waiting = min(TIMEOUT_S, (2 + 2 * step.config.max_batch_size) / capacity)
        if step.config != self._served:
            self.time.passes(self.some(self._start_s) + self.some(0.4 + waiting + 2 / capacity))
            self._served = step.config
        saturated = (step.share or 0) > self._rng.uniform(0.85, 1.2)
        drain = waiting if step.rate is None else TIMEOUT_S if saturated else 1 / capacity
        if self.time() > deadline:
            raise OutOfTime("late")
        length = WARMUP_S + step.duration_s + self.some(drain)
        self.time.passes(min(length, max(0.0, deadline - self.time()) + 0.5))
        if self.time() > deadline:
            raise OutOfTime("late")
        self.windows.append(step.duration_s)
        return made.point(
            *(step.configuration, step.phase, step.share, step.repeat, step.config),
            rate=step.rate or capacity,
            p99=2000 / capacity / max(0.05, 1.05 - (step.share or 0.9)),
            verdict="saturated" if saturated else "ok",
            duration_s=step.duration_s,
            requests=round((step.rate or capacity) * step.duration_s),
            cost_s=self.time() - began,
        )


class Kept:
    """What a study keeps, in memory."""

    def __init__(self, points=()):
        self.recorded = list(points)

    def points(self):
        return list(self.recorded)

    def record(self, point, _):
        self.recorded.append(point)

    def samples_path(self, _):
        return Path("/")


@pytest.fixture(scope="module")
def space():
    few = {"max_queue_delay_ms": (0.0, 2.0), "scheduling_policy": ("shared_queue",)}
    return made.space(restriction=few)


def study(
    space,
    rps,
    budget_s,
    *,
    started_s=3.0,
    earlier=(0.0, ()),
    kept=None,
    observer=None,
    **machine,
):
    """A whole study; returns its plan, points and clock, and the machine."""
    # A long search is slow to simulate, and its end is like any other's.
    most = 0 if budget_s <= 60 else 3
    config = StudyConfig(budget_s=budget_s, configurations=most, proposer="random")
    time = Time()
    clock = Clock(budget_s, earlier[0], time(), time)
    bench = Machine(time, rps, **machine)
    time.passes(started_s)
    before_s = clock.spent_s
    switch_s = started_s + 2 * min(TIMEOUT_S, 18 / rps)
    plan = Plan(space, config, 1e6, None, before_s, None, switch_s)
    kept = kept or Kept(earlier[1])
    request = Request(ServerSettings(model="demo:mlp"), LoadProfile(), config, Path("s.db"))
    carry_out(plan, kept.points(), kept, bench, request, observer or Observer(), clock)
    time.passes(REPORT_S)
    return plan, kept.points(), clock, bench


class Killed(Observer):
    """Whoever watches kills the study as soon as a measurement is shown."""

    def point(self, point):
        self.shown = point
        raise KeyboardInterrupt


def test_what_is_shown_is_kept(space):
    kept, observer = Kept(), Killed()
    with pytest.raises(KeyboardInterrupt):
        study(space, 1000, 60, kept=kept, observer=observer)
    assert kept.points() == [observer.shown]


class Full(Kept):
    """A study on a disk that is full."""

    def record(self, point, _):
        raise NotKept("no space left")


def test_what_cannot_be_kept_is_shown(space):
    observer = Killed()
    with pytest.raises(KeyboardInterrupt):
        study(space, 1000, 60, kept=Full(), observer=observer)
    assert observer.shown.phase == "probe"


SPEEDS = st.floats(math.log(0.5), math.log(20_000)).map(math.exp)
BUDGETS = st.floats(math.log(20), math.log(1800)).map(math.exp)


@settings(deadline=None, max_examples=10)
@given(
    rps=SPEEDS,
    budget_s=BUDGETS,
    start_s=st.floats(0.5, 20.0),
    noise=st.floats(0.0, 0.7),
    seed=st.integers(0, 99),
)
def test_no_study_takes_more_than_its_budget_and_a_window(
    space, rps, budget_s, start_s, noise, seed
):
    try:
        _, points, clock, bench = study(
            *(space, rps, budget_s),
            started_s=start_s,
            start_s=start_s,
            noise=noise,
            seed=seed,
        )
    except OutOfTime:
        pytest.fail("it is for the study to end")
    window = max([*bench.windows, window_s(math.inf, budget_s)])
    # Half a second goes by between two looks at a measurement under way.
    assert clock.spent_s <= budget_s + window + 0.5 + start_s * math.exp(3 * noise)
    spent = [p.spent_s for p in points]
    assert spent == sorted(spent)
    assert max(bench.windows, default=0.0) <= max(1.5, budget_s / 20) * (1 + 1e-9)


@settings(deadline=None, max_examples=6)
@given(rps=SPEEDS, budget_s=BUDGETS, seed=st.integers(0, 99), at=st.floats(0, 1))
def test_a_killed_study_goes_on_with_what_is_left(space, rps, budget_s, seed, at):
    _, points, _, _ = study(space, rps, budget_s, seed=seed)
    kept = points[: int(at * len(points))]
    earlier_s = kept[-1].spent_s if kept else 0.0
    _, again, clock, bench = study(space, rps, budget_s, seed=seed + 1, earlier=(earlier_s, kept))
    assert again[: len(kept)] == kept
    assert clock.spent_s <= budget_s + max([*bench.windows, window_s(math.inf, budget_s)]) + 3.0 + 5


@settings(deadline=None, max_examples=6)
@given(rps=SPEEDS, budget_s=BUDGETS, start_s=st.floats(0.5, 5.0), seed=st.integers(0, 99))
def test_a_budget_that_was_advised_leaves_nothing_out(space, rps, budget_s, start_s, seed):
    options = {"start_s": start_s, "started_s": start_s, "noise": 0.1}
    plan, points, _, _ = study(space, rps, budget_s, seed=seed, **options)
    advised_s = advice_s(said_of(plan, points))
    if advised_s is None:
        return
    assert advised_s > budget_s
    plan, points, _, _ = study(space, rps, advised_s, seed=seed + 1, **options)
    assert advice_s(said_of(plan, points)) is None


def said_of(plan, points):
    """What is said of the budget, of the best within the highest bound."""
    compared = [p for p in points if p.phase == "verify"]
    rows = bound_rows(ratings(points, None, compared), plan.bounds_ms(points))
    return unknown(plan, points, rows[-1] if rows else None)


def advice_s(text):
    """The seconds that are advised, None where none are."""
    found = re.search(r"--budget (\d+)m", text)
    return 60.0 * float(found[1]) if found else None


def test_what_a_slow_model_gets_for_a_minute(space):
    """Eight requests a second: not everything can be measured, and the answer says what was not."""
    plan, points, clock, _ = study(space, 8.0, 60.0)
    assert clock.spent_s <= 64.0
    assert {p.phase for p in points} >= {"probe", "baseline", "verify"}
    assert {1, 2} <= {p.repeat for p in points if p.configuration == "default"}
    text = said_of(plan, points)
    assert text.startswith("the budget left no time to compare anything with the default; ")
    assert text.count("--budget") == 1


def test_with_an_ample_budget_nothing_more_is_advised(space):
    plan, points, clock, _ = study(space, 2000.0, 1800.0)
    assert advice_s(said_of(plan, points)) is None
    assert clock.spent_s <= 1800.0


def test_a_budget_that_the_start_took_measures_nothing(space):
    _, points, _, bench = study(space, 100.0, 20.0, started_s=19.5)
    assert points == []
    assert bench.windows == []


def test_the_calibration_stops_when_its_share_is_over():
    """Parts of 4 s each, of a budget of 60 s, after a start of 3 s: three of them fit in."""
    time = Time()
    clock = Clock(60.0, 0.0, time(), time)
    time.passes(3.0)
    parts = Parts(lambda: clock.until_share(CALIBRATION_SHARE))

    def measure():
        time.passes(4.0)
        return {"seconds": 4.0}

    found = [parts.get(name, 4.0, measure) for name in "abcde"]
    assert [part is not None for part in found] == [True, True, True, False, False]
    assert parts.left_out == ["d", "e"]
    assert clock.spent_s == 15.0


def test_a_part_that_was_kept_is_not_measured_again():
    kept = []
    first = Parts(keep=lambda parts: kept.append(dict(parts)))
    first.get("a", 1.0, lambda: {"n": 1})
    again = Parts(lambda: 0.0, kept[-1])
    assert again.get("a", 1.0, lambda: pytest.fail("it is known")) == {"n": 1}
    assert again.get("b", 1.0, lambda: pytest.fail("there is no time")) is None
