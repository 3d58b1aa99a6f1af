from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.schedule.schedule import Share
from dlbench.loadgen.schedule.think import BLOCK, THINK, think_times_ns

every_distribution = pytest.mark.parametrize("think", sorted(THINK))


def pauses(count=3 * BLOCK, share=None, **options):
    profile = LoadProfile(users=1, **options)
    return list(islice(think_times_ns(profile, *([share] if share else [])), count))


@every_distribution
@given(st.floats(1e-6, 100), st.integers(0, 2**32))
def test_pauses_have_the_mean_asked_for(think, think_s, seed):
    drawn = pauses(think_s=think_s, think_times=think, seed=seed)
    assert min(drawn) >= 0
    # Six standard errors, and half a nanosecond of rounding.
    assert abs(np.mean(drawn) - think_s * 1e9) < 6 * think_s * 1e9 / np.sqrt(len(drawn)) + 1


@every_distribution
def test_the_same_seed_gives_the_same_pauses(think):
    assert pauses(think_s=1, think_times=think, seed=3) == pauses(
        think_s=1, think_times=think, seed=3
    )


@every_distribution
def test_no_think_time_is_no_pause(think):
    assert set(pauses(think_times=think)) == {0}


def test_constant_pauses_are_all_alike():
    assert set(pauses(think_s=0.25, think_times="constant")) == {250_000_000}


def test_exponential_pauses_are_exponential():
    drawn = np.sort(pauses(think_s=0.5, think_times="exponential", seed=5)) / 0.5e9
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    distance = np.abs(1 - np.exp(-drawn) - steps).max()
    assert distance < 1.95 / np.sqrt(len(drawn))  # Kolmogorov-Smirnov, 0.1 %


def test_workers_do_not_think_in_step():
    first, second = (pauses(think_s=1, share=Share(index, 2)) for index in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(len(first))


def test_other_seeds_give_other_pauses():
    assert pauses(think_s=1, seed=1) != pauses(think_s=1, seed=2)
