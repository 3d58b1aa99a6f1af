import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.errors import BudgetError
from dlbench.loadgen.schedule import offsets_ns

rates = st.floats(0.5, 5000)
durations = st.floats(0.05, 5)
seeds = st.integers(0, 2**32)


@given(rates, durations)
def test_constant_has_the_count_and_spacing_asked_for(rate, duration_s):
    offsets = offsets_ns("constant", rate, duration_s, 0)
    assert len(offsets) == max(1, round(rate * duration_s))
    assert np.all(np.abs(np.diff(offsets) - 1e9 / rate) <= 2)


@given(seeds)
def test_poisson_has_the_mean_and_the_variance_of_poisson(seed):
    rate, duration_s = 1000.0, 20.0
    offsets = offsets_ns("poisson", rate, duration_s, seed)
    counts = np.histogram(offsets, bins=400, range=(0, duration_s * 1e9))[0]
    # Six standard errors: fails once in a billion.
    assert abs(len(offsets) - rate * duration_s) < 6 * np.sqrt(rate * duration_s)
    assert abs(counts.var() / counts.mean() - 1) < 6 * np.sqrt(2 / 400)


def test_poisson_gaps_are_exponential():
    gaps = np.sort(np.diff(offsets_ns("poisson", 2000, 10, 7))) / 1e9
    expected = 1 - np.exp(-2000 * gaps)
    distance = np.abs(expected - np.arange(1, len(gaps) + 1) / len(gaps)).max()
    assert distance < 1.95 / np.sqrt(len(gaps))  # Kolmogorov-Smirnov, 0.1 %


def test_different_seeds_differ():
    assert not np.array_equal(offsets_ns("poisson", 100, 5, 0), offsets_ns("poisson", 100, 5, 1))


def test_a_run_that_does_not_fit_is_refused_by_name():
    with pytest.raises(BudgetError, match="lower --rate or --duration"):
        offsets_ns("constant", 1e6, 86_400, 0)
