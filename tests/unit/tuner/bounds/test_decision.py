"""From windows to the table of bounds and the recommendation."""

import numpy as np
import pytest

from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.window import OpenWindow
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.bounds.decision import (
    balanced,
    best_within,
    bound_rows,
    no_worse,
    quoted,
    row_of,
)
from dlbench.tuner.bounds.paired import ratio, speeds
from dlbench.tuner.bounds.rating import Rating, posterior

LOW_MS = 5.0


def p99_ms(rate, capacity, low=LOW_MS):
    return low / max(0.02, 1 - rate / capacity)


def rating(name, capacity, *, rounds=8, seed=0, noise=0.1, low=LOW_MS, moments=None):
    """A configuration measured in rounds at 0.6 and 0.8 of its capacity."""
    rng = np.random.default_rng([seed, *name.encode()])
    windows = []
    for number in range(rounds):
        speed = 1.0 if moments is None else float(np.exp(moments[number]))
        for share in (0.6, 0.8):
            rate = share * capacity
            p99 = p99_ms(rate, capacity * speed, low) * float(np.exp(noise * rng.normal()))
            windows.append(OpenWindow(rate, 2.5, p99, moment=number))
    prior = Prior(1.1 * capacity, 0.8 * low)
    config = ServingConfig(workers=2, max_batch_size=8 if name == "default" else 16)
    return Rating(name, config, posterior(prior, tuple(windows)))


def of(*ratings):
    return {r.name: r for r in ratings}


def test_the_rate_within_a_bound_is_found():
    found = rating("default", 1000.0).rate(20.0)
    assert found.rate_rps == pytest.approx(750, rel=0.04)
    assert found.low_rps < 750 < found.high_rps


def test_the_ratio_is_free_of_the_moment():
    """The machine's speed swings by 15 %, for both alike."""
    swings = 0.15 * np.random.default_rng(1).normal(size=8)
    default, other = (
        rating("default", 1000.0, moments=swings),
        rating("c01", 1300.0, moments=swings),
    )
    found = ratio(other, default, 20.0)
    assert found.value == pytest.approx(1.3, rel=0.06)
    assert found.low < 1.3 < found.high
    apart = np.array(
        [speeds(other.posterior)[n].log - speeds(default.posterior)[n].log for n in range(8)]
    )
    assert apart.std() < 0.5 * np.std([speeds(default.posterior)[n].log for n in range(8)])


def test_against_itself_it_is_one_and_without_a_common_round_unknown():
    default = rating("default", 1000.0)
    assert ratio(default, default, 20.0) == (1.0, 1.0, 1.0)
    other = rating("c01", 1000.0, rounds=2)
    later = Rating("c02", other.config, posterior(Prior(1000.0, 4.0), tuple(OpenWindow(w.rate_rps, 2.5, w.p99_ms, moment=99) for w in other.posterior.windows)))  # fmt: skip
    assert ratio(later, default, 20.0) is None


def test_the_better_one_is_recommended():
    rated = of(rating("default", 1000.0), rating("c01", 1400.0))
    (row,) = bound_rows(rated, (20.0,))
    assert (row.configuration, row.decided, row.proved) == ("c01", True, True)
    assert row.rate_rps == pytest.approx(1050, rel=0.05)
    assert row.default_rps == pytest.approx(750, rel=0.05)
    assert row.ratio == pytest.approx(row.rate_rps / row.default_rps)


@pytest.mark.parametrize("capacity", [700.0, 990.0])
def test_what_may_well_be_worse_than_the_default_is_not(capacity):
    rated = of(rating("default", 1000.0), rating("c01", capacity, noise=0.3))
    assert best_within(rated, 20.0).name == "default"


def test_a_default_that_nothing_beats_is_said_so_when_that_is_sure():
    rated = of(rating("default", 1000.0), rating("c01", 700.0))
    (row,) = bound_rows(rated, (20.0,))
    assert row.is_default
    assert row.decided


def test_what_was_not_compared_is_never_put_before_the_default():
    other = rating("c01", 2000.0)
    alone = Rating("c01", other.config, posterior(Prior(2000.0, 4.0), tuple(OpenWindow(w.rate_rps, 2.5, w.p99_ms, moment=50 + w.moment) for w in other.posterior.windows)))  # fmt: skip
    rated = of(rating("default", 1000.0), alone)
    assert not no_worse(alone, rated, (20.0,))
    assert best_within(rated, 20.0).name == "default"


def test_balanced_takes_the_least_worst_shortfall():
    """One is quicker when there is little to do, the other takes twice as much."""
    rated = of(rating("default", 1000.0, low=3.0), rating("c01", 2000.0, low=6.0))
    bounds = (10.0, 20.0, 50.0, 100.0)
    assert balanced(rated, bounds).name == "c01"
    assert [r.configuration for r in bound_rows(rated, (4.0, 100.0))] == ["default", "c01"]


def test_it_is_quoted_where_it_takes_most_of_what_it_can():
    default = rating("default", 1000.0)
    assert quoted(default, (6.0, 10.0, 20.0, 50.0, 1000.0)) in (20.0, 50.0)


def test_a_bound_that_nobody_keeps_to_has_no_row():
    assert bound_rows(of(rating("default", 1000.0)), (0.5, 20.0))[0].p99_ms == 20.0


def test_every_row_is_consistent():
    rated = of(rating("default", 1000.0), rating("c01", 1200.0))
    for name in rated:
        row = row_of(rated, rated[name], 50.0)
        assert row.low_rps <= row.rate_rps <= row.high_rps
        assert row.ratio_low <= row.ratio <= row.ratio_high
