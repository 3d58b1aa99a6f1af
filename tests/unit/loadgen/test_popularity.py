from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.popularity import ranks, weights


@given(st.integers(1, 5000), st.floats(0, 5))
def test_weights_are_a_falling_distribution(distinct, exponent):
    shares = weights(distinct, exponent)
    assert abs(shares.sum() - 1) < 1e-9
    assert np.all(np.diff(shares) <= 1e-15)


@given(st.integers(1, 200), st.floats(0, 3), st.integers(0, 1000))
def test_draws_stay_in_range_and_repeat_with_the_seed(distinct, exponent, seed):
    drawn = list(islice(ranks(distinct, exponent, seed), 5000))
    assert min(drawn) >= 0
    assert max(drawn) < distinct
    assert drawn == list(islice(ranks(distinct, exponent, seed), 5000))


@given(st.sampled_from([0.0, 0.7, 1.1, 2.0]), st.integers(0, 50))
def test_frequencies_follow_zipf(exponent, seed):
    distinct, draws = 50, 40_000
    found = np.bincount(list(islice(ranks(distinct, exponent, seed), draws)), minlength=distinct)
    expected = weights(distinct, exponent) * draws
    # Chi-squared with 49 degrees of freedom: mean 49, deviation 9.9; seven deviations.
    assert ((found - expected) ** 2 / expected).sum() < 49 + 7 * 9.9
