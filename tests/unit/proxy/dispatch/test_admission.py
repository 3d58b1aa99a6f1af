"""The bound on the queue, and when to come again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.dispatch.admission import MOST_RETRY_AFTER_S, Admission, retry_after_s
from dlbench.proxy.errors import Overloaded

RATES = st.floats(0, math.inf)


def test_the_queue_is_bounded():
    admission = Admission(2)
    admission.check(1)
    with pytest.raises(Overloaded, match="2 requests wait") as refused:
        admission.check(2)
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)


def test_who_is_refused_hears_when_the_queue_is_worked_off():
    with pytest.raises(Overloaded) as refused:
        Admission(4096).check(4096, 300.0)
    assert refused.value.retry_after_s == 14
    assert Overloaded("the proxy is stopping").retry_after_s == 1


@given(st.integers(0, 10**6), RATES)
def test_it_is_the_first_whole_second_at_which_nothing_waits(waiting, rate):
    seconds = retry_after_s(waiting, rate)
    assert 1 <= seconds <= MOST_RETRY_AFTER_S
    if seconds < MOST_RETRY_AFTER_S:
        assert seconds * rate >= waiting * (1 - 1e-9)
    if seconds > 1:
        assert (seconds - 1) * rate < waiting


@pytest.mark.parametrize(
    ("waiting", "rate", "seconds"),
    [(0, 0.0, 1), (1, 0.0, 60), (10, math.inf, 1), (10, 10.0, 1), (11, 10.0, 2), (600, 10.0, 60)],
)
def test_at_the_edges(waiting, rate, seconds):
    assert retry_after_s(waiting, rate) == seconds
