import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.warmup import BATCH, mser5


def by_hand(values, most=0.5):
    """The definition, point by point."""
    batches = len(values) // BATCH
    means = [np.mean(values[i * BATCH : (i + 1) * BATCH]) for i in range(batches)]
    errors = [np.var(means[d:]) / (batches - d) for d in range(int(batches * most) + 1)]
    return int(np.argmin(errors)) * BATCH


@given(st.integers(0, 2**32), st.integers(10, 400), st.sampled_from([0.25, 0.5]))
def test_it_is_the_point_with_the_smallest_error(seed, n, most):
    values = np.random.default_rng(seed).exponential(size=n)
    assert mser5(values, most) == by_hand(values, most)


@given(st.integers(0, 2**32), st.integers(0, 80))
def test_a_warmup_is_found_where_it_ends(seed, batches):
    rng = np.random.default_rng(seed)
    values = 10 + rng.uniform(size=1000)
    values[: batches * BATCH] += 100
    assert batches * BATCH <= mser5(values) <= 500
    assert mser5(values) < 500


@given(st.floats(-1e6, 1e6), st.floats(0.1, 100))
def test_neither_scale_nor_origin_matters(shift, scale):
    values = np.random.default_rng(0).exponential(size=300)
    values[:50] += 5
    assert mser5(scale * (values + shift)) == mser5(values) == 50


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_short_a_series_has_no_warmup(n):
    assert mser5(np.ones(n)) == 0
