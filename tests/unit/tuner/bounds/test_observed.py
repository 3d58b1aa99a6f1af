"""Points read as windows of load."""

import math

from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow
from dlbench.tuner.bounds.observed import observed, window_of
from testbed import made


def test_a_probe_is_a_closed_window_and_a_load_an_open_one():
    assert isinstance(window_of(made.point(share=None), 0), ClosedWindow)
    found = window_of(made.point(rate=100, p99=20.0), 3)
    assert found == OpenWindow(100, 2.5, 20.0, moment=3)


def test_where_more_fail_than_may_the_rate_is_too_high_for_any_bound():
    quick = window_of(made.point(rate=1000, p99=1.0, error_rate=0.002), 0)
    assert quick.failed
    lost = window_of(made.point(rate=1000, p99=math.inf, longest_ms=50.0), 0)
    assert lost.failed
    assert not window_of(made.point(rate=1000, p99=1.0, error_rate=0.0005), 0).failed


def test_a_saturated_one_says_what_the_server_completed():
    point = made.point(verdict="saturated", offered_rps=1000, rate=700)
    found = window_of(point.model_copy(), 0)
    assert found.saturated
    assert (found.rate_rps, found.completed_rps) == (1000, 700)


def test_a_client_that_was_the_limit_says_nothing_of_the_server():
    assert window_of(made.point(verdict="invalid"), 0) is None
    assert window_of(made.point(measurement=None, failure="died"), 0) is None


def test_a_visit_is_a_moment_and_so_is_a_round():
    search = [made.point("c01", share=s) for s in (0.5, 0.7)] + [made.point("c02")]
    rounds = [made.point(n, "verify", repeat=r) for r in (1, 2) for n in ("c01", "c02", "c01")]
    found = observed([*search, *rounds])
    first, second, *later = (w.moment for w in found["c01"])
    assert first == second
    assert found["c02"][0].moment != first
    assert later == [later[0], later[0], later[2], later[2]]
    assert [w.moment for w in found["c02"][1:]] == [later[0], later[2]]
