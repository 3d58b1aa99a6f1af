"""What is believed before anything is measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.rates.prior import Prior

SHARES = (0.3, 0.5, 0.7, 0.9)


def test_a_predicted_curve_of_the_family_is_found_again(server):
    rates = [share * server.capacity_rps for share in SHARES]
    found = Prior.of_curve(server.capacity_rps, rates, [server.p99_ms(rate) for rate in rates])
    assert found.capacity_rps == pytest.approx(server.capacity_rps, rel=0.02)
    assert found.low_ms == pytest.approx(server.low_ms, rel=0.1)
    assert found.growth == pytest.approx(server.growth, rel=0.15)


@given(st.lists(st.floats(0.1, 1e4), min_size=4, max_size=4), st.floats(1.0, 1e6))
def test_any_predicted_curve_gives_one(p99s_ms, capacity_rps):
    rates = [share * capacity_rps for share in SHARES]
    found = Prior.of_curve(capacity_rps, rates, p99s_ms)
    assert min(found.capacity_rps, found.low_ms, found.growth) > 0
    assert found.capacity_rps == pytest.approx(capacity_rps, rel=0.4)
