"""The rules of recommendation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.recommend import (
    RULES,
    Option,
    Wish,
    cost_per_million,
    standing,
    weighted_ms,
)


@st.composite
def an_option(draw):
    p99 = draw(st.floats(0.1, 2000))
    low, high = p99 / draw(st.floats(1, 3)), p99 * draw(st.floats(1, 3))
    service, waiting = draw(st.floats(0.01, 100)), draw(st.floats(0, 100))
    return Option(draw(st.floats(1, 1e5)), p99, low, high, service, waiting)


OPTIONS = st.lists(an_option(), min_size=1, max_size=12)


@pytest.mark.parametrize("rule", RULES)
@given(OPTIONS, st.floats(1, 1000))
def test_every_rule_names_one_of_the_options(rule, options, slo):
    chosen = RULES[rule](options, Wish(slo_p99_ms=slo))
    assert chosen in range(len(options))


@pytest.mark.parametrize("rule", RULES)
def test_of_nothing_nothing_is_recommended(rule):
    assert RULES[rule]([], Wish(slo_p99_ms=10)) is None


@given(OPTIONS, st.floats(1, 1000))
def test_an_slo_is_held_by_the_upper_end_wherever_one_option_can(options, slo):
    wish = Wish(slo_p99_ms=slo)
    chosen = options[RULES["slo"](options, wish)]
    holding = [o for o in options if o.p99_high_ms <= slo]
    if holding:
        assert chosen.p99_high_ms <= slo
        assert chosen.throughput_rps == max(o.throughput_rps for o in holding)
    else:
        assert standing(chosen, wish) != "met"


@given(OPTIONS)
def test_extremes_are_extreme(options):
    fast, quick = (options[RULES[r](options, Wish())] for r in ("max-throughput", "min-p99"))
    assert fast.throughput_rps == max(o.throughput_rps for o in options)
    assert quick.p99_ms == min(o.p99_ms for o in options)


def test_what_straddles_the_bound_is_undecided():
    wish = Wish(slo_p99_ms=20)
    assert standing(Option(1, 15, 12, 19), wish) == "met"
    assert standing(Option(1, 15, 12, 21), wish) == "undecided"
    assert standing(Option(1, 30, 21, 40), wish) == "missed"
    assert standing(Option(1, 15), wish) == "undecided"
    with pytest.raises(ValueError, match="SLO"):
        standing(Option(1, 15), Wish())


def test_a_million_requests_at_a_thousand_a_second_take_a_thousand_seconds():
    assert cost_per_million(Option(1000, 1), 3.6) == pytest.approx(1.0)


def test_cheapest_is_fastest_but_within_the_slo():
    options = [Option(100, 50, 45, 55), Option(80, 10, 9, 11)]
    assert RULES["cost"](options, Wish(price_per_hour=1)) == 0
    assert RULES["cost"](options, Wish(price_per_hour=1, slo_p99_ms=20)) == 1


def test_priority_divides_the_service_and_not_the_wait():
    option = Option(1, 1, service_ms=8, waiting_ms=3)
    assert weighted_ms(option, Wish()) == 11
    assert weighted_ms(option, Wish(priorities={1: 0.5, 4: 0.5})) == 8 * 0.625 + 3
    batched, prompt = (
        Option(1, 1, service_ms=8, waiting_ms=3),
        Option(1, 1, service_ms=1, waiting_ms=9),
    )
    assert RULES["weighted"]([batched, prompt], Wish()) == 1
    assert RULES["weighted"]([batched, prompt], Wish(priorities={8: 1.0})) == 0
    assert RULES["weighted"]([Option(1, 1)], Wish()) is None


def test_the_knee_goes_by_values_where_every_upper_end_falls_among_failed_requests():
    options = [Option(100, 5, 4, math.inf), Option(105, 400, 9, math.inf), Option(90, 500, 9, 600)]
    assert RULES["knee"](options[:2], Wish()) == 0
    assert RULES["knee"](options, Wish()) == 2
