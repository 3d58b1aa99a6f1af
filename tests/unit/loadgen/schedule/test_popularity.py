import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.schedule.popularity import churning, ranks, weights


@given(st.integers(1, 5000), st.floats(0, 5))
def test_weights_are_a_falling_distribution(distinct, exponent):
    shares = weights(distinct, exponent)
    assert abs(shares.sum() - 1) < 1e-9
    assert np.all(np.diff(shares) <= 1e-15)


@given(st.integers(1, 200), st.floats(0, 3), st.integers(0, 1000))
def test_draws_stay_in_range_and_repeat_with_the_seed(distinct, exponent, seed):
    order = ranks(distinct, exponent, seed)
    drawn = [order[number] for number in range(5000)]
    assert min(drawn) >= 0
    assert max(drawn) < distinct
    again = ranks(distinct, exponent, seed)
    assert drawn[::-1] == [again[number] for number in reversed(range(5000))]


@given(st.sampled_from([0.0, 0.7, 1.1, 2.0]), st.integers(0, 50))
def test_frequencies_follow_zipf(exponent, seed):
    distinct, draws = 50, 40_000
    order = ranks(distinct, exponent, seed)
    found = np.bincount([order[number] for number in range(draws)], minlength=distinct)
    expected = weights(distinct, exponent) * draws
    # Chi-squared with 49 degrees of freedom: mean 49, deviation 9.9; seven deviations.
    assert ((found - expected) ** 2 / expected).sum() < 49 + 7 * 9.9


@given(st.integers(1, 50), st.floats(0, 2), st.integers(0, 100), st.floats(0, 1))
def test_churn_replaces_what_is_drawn_and_keeps_its_popularity(distinct, exponent, seed, churn):
    order, ranked = churning(distinct, exponent, seed, churn), ranks(distinct, exponent, seed)
    holders = list(range(distinct))
    for number in range(3000):
        drawn, rank = order[number], ranked[number]
        if drawn == distinct + number:
            holders[rank] = drawn
        assert drawn == holders[rank]
    replaced = sum(order[number] == distinct + number for number in range(3000))
    # Binomial; six deviations.
    assert abs(replaced - 3000 * churn) <= 6 * (3000 * churn * (1 - churn)) ** 0.5 + 1


def test_blocks_may_be_asked_for_in_any_order():
    one, other = churning(9, 1.0, 1, 0.2), churning(9, 1.0, 1, 0.2)
    numbers = [70_000, 3, 200_000, 1025, 1023, 70_001]
    found = {number: one[number] for number in numbers}
    assert found == {number: other[number] for number in sorted(numbers)}
