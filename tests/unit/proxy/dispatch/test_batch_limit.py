"""Whether the adaptive limit finds the largest batch that holds the objective: in simulated time."""

from __future__ import annotations

import random
from collections import deque
from heapq import heappop, heappush
from itertools import accumulate
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.batch_limit import BATCH_LIMITS, AdaptiveLimit, FixedLimit
from dlbench.proxy.dispatch.batcher import Batcher


class Done(NamedTuple):
    """A batch that was served, with the limit that its observation led to."""

    end: int
    limit: int
    latency: int


class Model:
    """Takes `fixed + rows * each`, `slower` times that between two moments."""

    def __init__(self, fixed, each, slower=1, since=0, until=0):
        self.fixed, self.each = fixed, each
        self.slower, self.since, self.until = slower, since, until

    def time(self, rows, now):
        factor = self.slower if self.since <= now < self.until else 1
        return factor * (self.fixed + rows * self.each)

    def largest(self, slo, factor=1):
        """Most rows where a request that just misses a batch, and runs in the next, is in time."""
        return max(0, (slo // 2 // factor - self.fixed) // self.each)


def serve(limit, arrivals, model, workers=1):
    """Serve requests of one row, first come first served, as the dispatcher does."""
    queue, running, done = Batcher(limit.limit, 0), [], []
    arrivals = deque(arrivals)
    while arrivals or running:
        if arrivals and (not running or arrivals[0] <= running[0][0]):
            now = arrivals.popleft()
            queue.add("k", 1, now, now)
        else:
            now, start, batch = heappop(running)
            limit.observe(len(batch), start - batch[0], now - start)
            done.append(Done(now, limit.limit, now - batch[0]))
        queue.max_batch_size = limit.limit
        while len(running) < workers and (batch := queue.cut(now)):
            heappush(running, (now + model.time(len(batch), now), now, batch))
    return done


def poisson(gap, count, seed=1):
    rng = random.Random(seed)
    return [int(when) for when in accumulate(rng.expovariate(1 / gap) for _ in range(count))]


def late_share(done, slo):
    return sum(batch.latency > slo for batch in done) / len(done)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 500), st.integers(1, 50), st.integers(10, 5000), st.integers(1, 64),
    st.integers(1, 8),
)  # fmt: skip
def test_under_overload_it_settles_at_the_largest_batch_that_holds_the_objective(
    fixed, each, slo, most, workers
):
    model = Model(fixed, each)
    done = serve(AdaptiveLimit(most, slo), [0] * 8000, model, workers)
    best = model.largest(slo)
    low, high = max(1, min(most, (best + 1) * 90 // 100)), max(1, min(most, best + workers))
    # It grows by one a batch, at first it doubles a round; the last batches are leftovers.
    settled = done[most + 7 * workers : -workers - 1]
    assert len(settled) > 10
    assert all(low <= batch.limit <= high for batch in settled)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.floats(0.2, 0.7), st.integers(1, 4))
def test_below_capacity_requests_are_in_time(seed, load, workers):
    model, slo = Model(400, 20), 2000
    best = model.largest(slo)
    gap = model.time(best, 0) / best / workers / load
    done = serve(AdaptiveLimit(64, slo), poisson(gap, 6000, seed), model, workers)
    assert late_share(done[len(done) // 3 :], slo) < 0.02


def test_it_shrinks_while_the_machine_is_slow_and_comes_back():
    slo, most = 2000, 64
    model = Model(100, 20, slower=3, since=200_000, until=400_000)
    done = serve(AdaptiveLimit(most, slo), [0] * 25_000, model)
    for start, stop, factor in ((50_000, 200_000, 1), (250_000, 400_000, 3), (450_000, 600_000, 1)):
        limits = {batch.limit for batch in done if start <= batch.end < stop}
        best = model.largest(slo, factor)
        assert (best + 1) * 90 // 100 <= min(limits) <= best < max(limits) == best + 1


def test_a_burst_does_not_hold_it_down():
    """Counting the whole wait would: at a limit of 1 the model takes less than what comes."""
    model, slo = Model(400, 20), 2000
    burst_at = 300_000
    steady = poisson(60, 20_000)
    done = serve(AdaptiveLimit(64, slo), sorted([*steady, *[burst_at] * 2000]), model)
    during = [batch for batch in done if burst_at < batch.end < burst_at + 20 * slo]
    assert late_share(during, slo) > 0.5
    assert max(batch.limit for batch in during) > 20
    assert late_share([batch for batch in done if batch.end > steady[-1] / 2], slo) < 0.02


def test_what_nobody_tried_proves_nothing():
    limit = AdaptiveLimit(64, 1000)
    for _ in range(100):
        limit.observe(1, 0, 1)
    assert limit.limit == 2


@pytest.mark.parametrize("rows", [3, 8])
def test_it_grows_with_requests_that_never_add_up_to_it(rows):
    limit = AdaptiveLimit(32, 1000)
    queue = Batcher(1, 0)
    for _ in range(200):
        queue.max_batch_size = limit.limit
        for _ in range(12):
            queue.add("k", rows, rows, 0)
        limit.observe(sum(queue.cut(0)), 10**9, 1)
    assert limit.limit == 32


def test_one_breach_that_several_workers_report_counts_once():
    limit = AdaptiveLimit(64, 1000)
    for _ in range(39):
        limit.observe(limit.limit, 0, 1)
    for _ in range(4):
        limit.observe(40, 0, 2000)
    assert limit.limit == 36


def test_an_objective_that_cannot_be_held_leaves_single_rows():
    limit = AdaptiveLimit(64, 10)
    for _ in range(50):
        limit.observe(1, 0, 11)
    assert limit.limit == 1


def test_every_kind_of_batching_has_a_limit():
    offered = ServingConfig.model_json_schema()["properties"]["batching"]["enum"]
    assert set(offered) == set(BATCH_LIMITS)
    limits = {name: make(8, 1000) for name, make in BATCH_LIMITS.items()}
    for limit in limits.values():
        limit.observe(1, 0, 10**9)
    assert isinstance(limits["greedy"], FixedLimit)
    assert {name: limit.limit for name, limit in limits.items()} == {"greedy": 8, "adaptive": 1}
