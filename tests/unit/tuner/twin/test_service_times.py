"""Which service times are measured within a budget, and what comes of them."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import THREADS_PER_CORE
from dlbench.tuner.twin.calibration import crowding
from dlbench.tuner.twin.service_times import (
    FEW_VISITS,
    FEWEST_BATCHES,
    MOST_VISITS,
    MOST_WORKERS,
    Cell,
    Visit,
    Visits,
    busy_levels,
    cells,
)

BATCHES = (1, 2, 4, 8, 16, 32, 64)
CORES = st.integers(1, 128)
# A row and a batch without its rows, in seconds.
ROW_S = st.floats(1e-6, 3.0)
FIXED_S = st.floats(1e-5, 0.1)


def slower(cell, cores, others=0.0):
    return crowding(np.array([cell.busy]), cell.threads, cores, others)[0]


def calibrated(row_s, fixed_s, budget_s, cores=2, noise=lambda cell, visit: 1.0):
    """The visits of a machine whose batches take `fixed_s` and `row_s` for each row."""
    visits, spent_s = Visits(cells(BATCHES, 1, cores), cores), 0.0
    costs = []
    while cell := visits.next_cell(budget_s - spent_s):
        seconds = (fixed_s + row_s * cell.batch) * slower(cell, cores)
        count = len(visits.seen.get(cell, ()))
        costs.append(max(visits.visit_s(cell), FEWEST_BATCHES * seconds))
        spent_s += costs[-1]
        visits.add(cell, Visit(seconds * noise(cell, count), 0.1))
    return visits, costs


@given(CORES, st.sampled_from((1, 2, 4, 8)))
def test_levels_rise_from_one_worker_to_as_many_as_anybody_would_run(cores, threads):
    levels = busy_levels(threads, cores)
    assert levels == sorted(set(levels))
    assert levels[0] == 1
    assert levels[-1] == min(MOST_WORKERS, max(1, THREADS_PER_CORE * cores // threads))


@given(CORES, st.sampled_from((1, 2, 4)))
def test_every_batch_size_is_seen_alone_and_some_with_every_number_of_workers(cores, threads):
    found = cells(BATCHES, threads, cores)
    assert len(set(found)) == len(found)
    assert [cell.batch for cell in found if cell.busy == 1] == list(BATCHES)
    levels = busy_levels(threads, cores)
    assert {cell.busy for cell in found if cell.batch == BATCHES[-1]} == set(levels)


@given(ROW_S, FIXED_S, st.floats(0.0, 20.0))
def test_the_budget_is_kept_but_for_the_very_first_visit(row_s, fixed_s, budget_s):
    """Only of that nobody knows how long it will take."""
    _, costs = calibrated(row_s, fixed_s, budget_s)
    assert sum(costs) - costs[0] <= budget_s
    assert costs[0] <= max(0.08, FEWEST_BATCHES * (row_s + fixed_s)) * 1.001


@given(ROW_S, FIXED_S, st.floats(0.0, 20.0))
def test_what_was_seen_is_what_it_takes(row_s, fixed_s, budget_s):
    visits, _ = calibrated(row_s, fixed_s, budget_s)
    for service in visits.service_times():
        cell = Cell(service.batch, service.threads, service.busy)
        wanted = (fixed_s + row_s * cell.batch) * slower(cell, 2)
        assert service.seconds == pytest.approx(wanted)
    assert visits.cv() == pytest.approx(0.1)


@given(ROW_S, FIXED_S, st.floats(0.0, 20.0))
def test_what_was_left_out_is_said(row_s, fixed_s, budget_s):
    visits, _ = calibrated(row_s, fixed_s, budget_s)
    left_out = {cell.batch for cell in visits.wanted} - {cell.batch for cell in visits.seen}
    said = " ".join(visits.remarks())
    assert all(f"batches of {batch} on" in said for batch in left_out)
    assert not re.search(r"on 1 workers", said)
    assert bool(said) == (len(visits.seen) < len(visits.wanted))


def test_a_quick_model_is_measured_whole_and_a_slow_one_in_part():
    quick, _ = calibrated(1e-5, 1e-4, 6.0)
    slow, _ = calibrated(0.1, 0.1, 6.0)
    assert set(quick.seen) == set(quick.wanted)
    assert 0 < len(slow.seen) < len(slow.wanted)
    assert max(cell.batch for cell in slow.seen) < BATCHES[-1]


def test_visits_that_agree_are_few_and_those_that_differ_are_many():
    same, _ = calibrated(1e-5, 1e-4, math.inf)
    noisy, _ = calibrated(1e-5, 1e-4, math.inf, noise=lambda _, visit: 1 + 0.3 * (visit % 3))
    assert {len(visits) for visits in same.seen.values()} == {FEW_VISITS}
    assert {len(visits) for visits in noisy.seen.values()} == {MOST_VISITS}
    assert "differ by" in " ".join(noisy.remarks())
    assert not re.search(r"\b1 (threads|workers)|[^1] (thread|worker)\b", " ".join(noisy.remarks()))


@given(st.floats(1.0, 100.0))
def test_one_bad_visit_does_not_count(times):
    visits, _ = calibrated(1e-5, 1e-4, math.inf, noise=lambda _, visit: times if not visit else 1)
    assert visits.seconds(Cell(1, 1, 1)) == pytest.approx(1.1e-4)


@given(CORES, st.integers(1, 8), st.floats(0.0, 1.0))
def test_what_the_feeding_took_is_given_back(cores, busy, share):
    cell = Cell(1, 1, busy)
    visits = Visits([cell], cores)
    visits.add(cell, Visit(slower(cell, cores, share), 0.0, share))
    assert visits.seconds(cell) == pytest.approx(slower(cell, cores))


@given(st.lists(st.sampled_from(cells(BATCHES, 1, 2)), min_size=1, unique=True))
def test_nothing_is_expected_to_be_quicker_than_a_smaller_one(seen):
    visits = Visits(cells(BATCHES, 1, 2), 2)
    for cell in seen:
        visits.add(cell, Visit(0.001 * (1 + cell.batch) * slower(cell, 2), 0.0))
    for cell in visits.wanted:
        expected = visits.expected_s(cell)
        below = [c for c in seen if c.batch <= cell.batch]
        assert bool(expected) == bool(below)
        assert all(expected >= visits.seconds(c) * 0.999 for c in below if c.busy <= cell.busy)
