"""What is proposed, and why: TPE on curves, and the twin's predictions as they are corrected."""

import math

import numpy as np
import pytest

from dlbench.tuner.search.correction import JUDGED_AFTER, Correction
from dlbench.tuner.search.proposal import Done, tried
from dlbench.tuner.search.sampled_proposer import scores, tpe
from dlbench.tuner.search.twin_proposer import OPENING, opening, promised, twin_guided
from dlbench.tuner.space import Space, build_space
from dlbench.tuner.twin.predictions import Predictions, inside
from testbed import made

BOUNDS = (10.0, 20.0, 50.0, 100.0)

SHARES = made.SHARES


def propose(points, space, seed=0):
    """What a study without predictions measures next, None when there is nothing left."""
    found = twin_guided(points, space, seed, None)
    return None if isinstance(found, Done) else found


@pytest.fixture
def space():
    return made.space(repeats_inputs=True)


def curve(name, config, worth):
    shares = (0.3, 0.5, 0.7, 0.9)
    return [made.point(name, share=s, config=config, rate=worth * s, p99=10 * s) for s in shares]


def play(space, count, seed=0):
    """Propose and 'measure' on a landscape where larger batches and a cache are better."""
    points = []
    for number in range(count):
        config = propose(points, space, seed)
        worth = config.max_batch_size * (1 + config.cache_size / 4096) / config.workers
        points += curve(f"c{number:02d}", config, worth)
    return points


def test_proposals_are_new_sensible_and_the_same_again(space):
    points = play(space, 15)
    configs = [p.config for p in points[::4]]
    assert len(set(configs)) == 15
    assert all(space.sensible(c) for c in configs)
    assert [p.config for p in play(space, 15)] == [p.config for p in points]


def test_a_resumed_study_gets_the_proposal_it_would_have_made(space):
    points = play(space, 10)
    assert propose(points[:32], space, 0) == points[32].config


def test_a_failed_configuration_is_worth_nothing_and_not_tried_again(space):
    first = propose([], space, 0)
    failed = made.point("c01", config=first, measurement=None, failure="out of memory")
    assert scores([failed], (50.0,)) == {first: 0.0}
    assert propose([failed], space, 0) != first


def test_an_exhausted_space_says_so():
    space = build_space(made.DEFAULT, 1, repeats_inputs=False, batchable=False)
    points, seen = [], 0
    while (config := propose(points, space, 0)) is not None:
        points += curve(f"c{seen}", config, 1.0)
        seen += 1
        assert seen < 50
    assert {p.config for p in points} == set(space.configurations())


def test_saturated_and_failing_points_do_not_count():
    """All that they say of a rate is that it is too high."""
    points = [
        made.point(rate=1000, p99=1, verdict="saturated"),
        made.point(rate=1000, p99=1, error_rate=0.5),
        made.point(rate=100, p99=20),
    ]
    (bad,), (good,) = (scores(own, (50.0,)).values() for own in (points, points[2:]))
    assert 0 < bad < 1.1 * good  # a grid is not exact


@pytest.fixture
def twin(space):
    return predicted(space)


def predicted(space):
    """Batches and workers: more throughput, more latency. What does not help costs a little."""
    configs = tuple(space.configurations())
    batch = np.array([c.max_batch_size for c in configs], float)
    workers = np.array([c.workers for c in configs], float)
    waits = np.array([c.max_queue_delay_ms for c in configs])
    shared = np.array([c.scheduling_policy == "shared_queue" for c in configs])
    capacity = 100 * batch**0.5 * workers**0.7
    p99 = (2 * batch**0.6 * workers**0.3 + waits) * np.where(shared, 1.0, 1.5)
    p99 = p99[:, None] / (1 - np.array(SHARES))
    return Predictions.of(space, configs, SHARES, capacity, p99)


def measured(twin, config, name, capacity=1.0, tail=1.0):
    """The curve of a configuration that is off its prediction by these factors."""
    row = twin.rows[config]
    probed = twin.capacity_rps[row] * capacity
    points = [made.point(name, "probe", None, config=config, rate=probed)]
    return points + [
        made.point(name, share=s, config=config, rate=s * probed, p99=p99 * tail)
        for s, p99 in zip(SHARES, twin.p99_ms[row], strict=True)
    ]


def search(space, twin, count, off=lambda config: 1.0):
    """What a study proposes, one after another, on a machine that is off by `off`."""
    points, proposals = [], []
    for number in range(count):
        proposal = twin_guided(points, space, 0, twin, BOUNDS)
        proposals.append(proposal)
        if isinstance(proposal, Done):
            break
        points += measured(twin, proposal, f"c{number:02d}", off(proposal))
    return proposals, points


def test_without_predictions_the_twin_is_tpe(space):
    assert twin_guided([], space, 0) == tpe([], space, 0) == propose([], space, 0)


def test_it_opens_with_the_curves_that_promise_most_together(space, twin):
    proposals, _ = search(space, twin, 4)
    first = [twin.configs[row] for row in opening(twin, BOUNDS)]
    assert len(first) <= OPENING
    assert proposals == first[:4]


def test_what_measures_better_than_predicted_draws_the_search_to_its_neighbours(space, twin):
    """The cache does nothing for the twin, and a lot for the machine."""
    cached = lambda config: 1.8 if config.cache_size >= 4096 else 1.0  # noqa: E731
    proposals, _ = search(space, twin, 30, cached)
    later = [p for p in proposals[20:] if not isinstance(p, Done)]
    assert np.mean([p.cache_size >= 4096 for p in later]) > 0.6


def test_a_wrong_twin_is_asked_less(space, twin):
    rng = np.random.default_rng(0)
    factors = {config: math.exp(0.6 * rng.normal()) for config in twin.configs}
    proposals, points = search(space, twin, 16, factors.__getitem__)
    assert Correction.of(points, twin).wrong
    history = tried(points)
    for number, (config, proposal) in enumerate(zip(history, proposals, strict=True)):
        before = [p for p in points if p.config in list(history)[:number]]
        if number > JUDGED_AFTER and number % 3 == 0:
            assert config == proposal == tpe(before, space, 0, None, BOUNDS)


def test_it_ends_when_nothing_is_promised_any_more(space):
    narrow = Space(
        {**space.values, "cache_size": (0,), "intra_op_threads": (1,)}, space.default, space.cores
    )
    proposals, _ = search(narrow, predicted(narrow), 50)
    assert isinstance(proposals[-1], Done)
    assert "requests/s" in proposals[-1].reason
    assert 16 <= len(proposals) < 50


def test_what_resembles_failures_is_promised_less(space, twin):
    _, points = search(space, twin, 9)
    correction = Correction.of(points, twin)
    free = promised(points, correction, 0, BOUNDS)
    most = sorted(free, key=lambda row: -free[row])[:40]
    crashed = [
        made.point(
            f"f{row}", "probe", None, config=twin.configs[row], measurement=None, failure="x"
        )
        for row in most[::2]
    ]
    wary = promised([*points, *crashed], correction, 0, BOUNDS)
    assert not wary.keys() & set(most[::2])
    assert all(wary[row] <= free[row] for row in free.keys() & wary.keys())
    assert max(wary[row] / free[row] for row in wary.keys() & set(most[1::2])) < 0.7


def test_inside_knows_the_space(space):
    assert all(inside(space, config) for config in list(space.configurations())[:50])
    for change in ({"max_batch_size": 7}, {"workers": 4, "intra_op_threads": 2}, {"slo_ms": 1.0}):
        assert not inside(space, made.DEFAULT.model_copy(update=change))


def test_tpe_lists_the_whole_space_only_when_its_own_proposals_are_used_up(space):
    class Unlisted(Space):
        def configurations(self):
            raise AssertionError("thousands of configurations, for nothing")

    unlisted = Unlisted(space.values, space.default, space.cores)
    assert tpe([], unlisted, 0) == tpe([], space, 0)
