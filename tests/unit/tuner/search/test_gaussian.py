"""The Gaussian process: against closed forms, its own definition and functions it should learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.tuner.search.gaussian import Coordinates, ErrorKernel, Prior, alike, fit

ONE = Prior(0.5, (0.2,), (0.1,), (1.0,))


def inputs(rng, configs, loads=(0.3, 0.5, 0.7, 0.9), knobs=3):
    group = np.repeat(np.arange(configs), len(loads))
    return Coordinates(rng.random((configs, knobs))[group], np.tile(loads, configs), group)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.floats(0.05, 1))
def test_posterior_is_the_textbook_formula(seed, configs, noise):
    rng = np.random.default_rng(seed)
    seen, new = inputs(rng, configs), inputs(rng, 3)
    values = rng.normal(size=len(seen.group))
    process = fit(ONE, seen, values, noise)
    kernel = process.kernel
    inverse = np.linalg.inv(kernel.between(seen, seen) + noise**2 * np.eye(len(values)))
    cross = kernel.between(seen, new)
    mean, sd = process.posterior(new)
    assert mean == pytest.approx(cross.T @ inverse @ values, abs=1e-7)
    variance = np.diag(kernel.between(new, new) - cross.T @ inverse @ cross)
    assert sd**2 == pytest.approx(variance, abs=1e-7)


def test_one_observation_in_closed_form():
    at = Coordinates(np.zeros((1, 2)), np.zeros(1), np.zeros(1, int))
    mean, sd = fit(ONE, at, np.array([1.0]), 0.3).posterior(at)
    prior = 0.5**2 + 0.2**2 + 0.1**2
    assert mean[0] == pytest.approx(prior / (prior + 0.09))
    assert sd[0] == pytest.approx(math.sqrt(prior * 0.09 / (prior + 0.09)))


def test_without_observations_it_is_its_prior():
    none = Coordinates(np.zeros((0, 2)), np.zeros(0), np.zeros(0, int))
    process = fit(ONE, none, np.zeros(0), 0.1)
    mean, sd = process.posterior(Coordinates(np.zeros((1, 2)), np.zeros(1), np.zeros(1, int)))
    assert (mean[0], sd[0]) == (0.0, pytest.approx(math.sqrt(process.kernel.variance)))
    assert (process.means(np.zeros((5, 2)), np.array([0.3, 0.9])) == 0).all()


@given(st.integers(0, 100))
def test_curves_of_unmeasured_configurations_are_the_posterior_there(seed):
    rng = np.random.default_rng(seed)
    seen = inputs(rng, 6)
    process = fit(ONE, seen, rng.normal(size=len(seen.group)), 0.2)
    shares, knobs = np.array([0.3, 0.6]), rng.random((4, 3))
    new = Coordinates(
        np.repeat(knobs, 2, axis=0), np.tile(shares, 4), np.repeat(np.arange(100, 104), 2)
    )
    assert process.means(knobs, shares).ravel() == pytest.approx(process.posterior(new)[0])


def test_the_likeliest_length_is_found():
    rng = np.random.default_rng(1)
    truth = ErrorKernel(0.5, 1.0, 0.05, 0.5)
    prior = Prior(0.5, (0.1, 1.0), (0.05, 1.0), (0.5, 2.0))
    for _ in range(5):
        seen = inputs(rng, 60, loads=(0.5,), knobs=1)
        values = rng.multivariate_normal(
            np.zeros(60), truth.between(seen, seen) + 1e-4 * np.eye(60)
        )
        assert fit(prior, seen, values, 0.01).kernel == truth


def test_a_smooth_error_is_learnt_elsewhere_too():
    rng = np.random.default_rng(2)
    prior = Prior(0.5, (0.1, 0.3), (0.02, 0.1))
    seen, new = inputs(rng, 40, knobs=1), inputs(rng, 40, knobs=1)
    new = Coordinates(new.knobs, new.share, new.group + 100)
    error = lambda at: 0.3 * np.sin(3 * at.knobs[:, 0]) + 0.2 * at.share  # noqa: E731
    noisy = error(seen) + 0.1 * rng.normal(size=len(seen.group))
    mean, sd = fit(prior, seen, noisy, 0.1).posterior(new)
    assert np.sqrt(np.mean((mean - error(new)) ** 2)) < 0.05
    assert (np.abs(mean - error(new)) < 3 * sd + 0.05).all()


def test_a_configurations_own_error_stays_its_own():
    knobs, group = np.zeros((8, 1)), np.repeat([0, 1], 4)
    seen = Coordinates(knobs, np.tile([0.3, 0.5, 0.7, 0.9], 2), group)
    own = Prior(0.1, (0.01,), (0.5,), (1.0,))
    mean, _ = fit(own, seen, np.where(group, -0.5, 0.5), 0.05).posterior(seen)
    assert (mean[:4] > 0.4).all()
    assert (mean[4:] < -0.4).all()


def test_loads_that_are_near_tell_more():
    near, far = alike(np.array([0.9]), np.array([0.7, 0.3]))[0]
    assert 1 > near > far > 0.4
