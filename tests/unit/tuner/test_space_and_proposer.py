"""The search space and what is proposed from it."""

import pytest

from dlbench.tuner.proposer import propose
from dlbench.tuner.sampled_proposer import scores
from dlbench.tuner.space import build_space, naive


@pytest.fixture
def space(build):
    return build_space(build.DEFAULT, 2, repeats_inputs=True, batchable=True)


def test_workers_and_threads_fit_the_cores(space):
    assert all(c.workers * c.intra_op_threads <= 4 for c in space.configurations())


def test_knobs_that_cannot_matter_are_not_varied(space):
    for config in space.configurations():
        assert config.max_batch_size > 1 or config.max_queue_delay_ms == 0
        assert config.workers > 1 or config.scheduling_policy == "shared_queue"


def test_configurations_are_all_different(space):
    found = list(space.configurations())
    assert len(found) == len(set(found)) > 100


def test_distinct_inputs_leave_the_cache_out_and_say_so(build):
    space = build_space(build.DEFAULT, 2, repeats_inputs=False, batchable=True)
    assert "cache_size" not in space.values
    assert any("--distinct" in note for note in space.notes)


def test_a_model_of_one_row_leaves_batching_out(build):
    space = build_space(build.DEFAULT, 2, repeats_inputs=True, batchable=False)
    assert "max_batch_size" not in space.values
    assert any("batching" in note for note in space.notes)


def test_naive_is_one_worker_one_row_no_cache(build):
    config = naive(build.DEFAULT)
    assert (config.workers, config.max_batch_size, config.cache_size) == (1, 1, 0)


def curve(build, name, config, worth):
    shares = (0.3, 0.5, 0.7, 0.9)
    return [
        build.point(name, share=s, config=config, throughput=worth * s, p99=10 * s) for s in shares
    ]


def play(build, space, count, seed=0):
    """Propose and 'measure' on a landscape where larger batches and a cache are better."""
    points = []
    for number in range(count):
        config = propose(points, space, seed)
        worth = config.max_batch_size * (1 + config.cache_size / 4096) / config.workers
        points += curve(build, f"c{number:02d}", config, worth)
    return points


def test_proposals_are_new_sensible_and_the_same_again(build, space):
    points = play(build, space, 15)
    configs = [p.config for p in points[::4]]
    assert len(set(configs)) == 15
    assert all(space.sensible(c) for c in configs)
    assert [p.config for p in play(build, space, 15)] == [p.config for p in points]


def test_a_resumed_study_gets_the_proposal_it_would_have_made(build, space):
    points = play(build, space, 10)
    assert propose(points[:32], space, 0) == points[32].config


def test_a_failed_configuration_is_worth_nothing_and_not_tried_again(build, space):
    first = propose([], space, 0)
    failed = build.point("c01", config=first, measurement=None, failure="out of memory")
    assert scores([failed], 1000.0) == {first: 0.0}
    assert propose([failed], space, 0) != first


def test_an_exhausted_space_says_so(build):
    space = build_space(build.DEFAULT, 1, repeats_inputs=False, batchable=False)
    points, seen = [], 0
    while (config := propose(points, space, 0)) is not None:
        points += curve(build, f"c{seen}", config, 1.0)
        seen += 1
        assert seen < 50
    assert {p.config for p in points} == set(space.configurations())


def test_saturated_and_failing_points_do_not_count(build):
    points = [
        build.point(throughput=1000, p99=1, verdict="saturated"),
        build.point(throughput=1000, p99=1, error_rate=0.5),
        build.point(throughput=100, p99=100),
    ]
    good = scores(points[2:], 1000.0)
    assert scores(points, 1000.0) == good
