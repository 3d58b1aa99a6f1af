"""What every proposer keeps to: the same again, inside the space, never twice, and an end."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.point import Point
from dlbench.tuner.search.proposal import Done
from dlbench.tuner.search.proposer import PROPOSERS
from dlbench.tuner.space import Space, naive
from dlbench.tuner.twin.predictions import Predictions
from testbed import made

SHARES = (0.3, 0.5, 0.7, 0.9)
DEFAULT = ServingConfig(workers=2)
WIDE = Space(
    {
        "max_batch_size": (1, 2, 4, 8, 16, 32, 64),
        "max_queue_delay_ms": (0.0, 1.0, 5.0),
        "workers": (1, 2, 3, 4),
        "cache_size": (0, 1024, 16384),
        "scheduling_policy": ("shared_queue", "random"),
    },
    DEFAULT,
    2,
)
INSIDE = set(WIDE.configurations())
SMALL = Space(
    {"max_batch_size": (1, 4, 16), "max_queue_delay_ms": (0.0, 2.0), "workers": (1, 2)}, DEFAULT, 2
)


def worth(config):
    """Throughput and p99 of a machine where batches and a cache pay."""
    rate = 100 * math.sqrt(config.max_batch_size) * (1 + config.cache_size / 8192) * config.workers
    return rate, 2 + math.sqrt(config.max_batch_size) + config.max_queue_delay_ms


def predicted(space, mistake=0.0):
    configs = tuple(dict.fromkeys([naive(DEFAULT), DEFAULT, *space.configurations()]))
    rng = np.random.default_rng(7)
    found = np.array([worth(c) for c in configs]) * np.exp(
        mistake * rng.normal(size=(len(configs), 2))
    )
    p99 = found[:, 1:] / (1 - np.array(SHARES))
    return Predictions.of(space, configs, SHARES, found[:, 0], p99)


# How right they are -> the predictions for the wide space and for the small one.
TWINS = {
    "right": (predicted(WIDE), predicted(SMALL)),
    "wrong": (predicted(WIDE, 1.0), predicted(SMALL, 1.0)),
    "none": (None, None),
}


def curve(config, name, rng, fails=0.0):
    """Points of one configuration, with noise; some configurations do not run at all."""
    if rng.random() < fails:
        return [made.point(name, "probe", None, config=config, measurement=None, failure="died")]
    rate, p99 = worth(config)
    rate *= math.exp(0.07 * rng.gauss(0, 1))
    points = [made.point(name, "probe", None, config=config, rate=rate, offered_rps=None)]
    for share in SHARES:
        tail = p99 / (1 - share) * math.exp(0.27 * rng.gauss(0, 1))
        points.append(made.point(name, share=share, config=config, rate=share * rate, p99=tail))
    return points


def play(name, space, twin, seed, most, fails=0.0):
    """A study: what was proposed, and the points it left; ends with the proposer's `Done` or `most`."""
    rng = random.Random(seed)
    baselines = {"naive": naive(DEFAULT), "default": DEFAULT}
    points = [p for own, config in baselines.items() for p in curve(config, own, rng)]
    proposals = []
    for number in range(most):
        proposal = PROPOSERS[name](points, space, seed, twin, BOUNDS)
        proposals.append(proposal)
        if isinstance(proposal, Done):
            break
        points += curve(proposal, f"c{number:02d}", rng, fails)
    return proposals, points


BOUNDS = (20.0, 50.0, 100.0, 200.0)
every_proposer = pytest.mark.parametrize("name", PROPOSERS)
every_twin = pytest.mark.parametrize("twin", TWINS)


@every_proposer
@every_twin
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 1000), fails=st.sampled_from([0.0, 0.3]))
def test_it_stays_inside_and_never_names_a_configuration_twice(name, twin, seed, fails):
    proposals, _ = play(name, WIDE, TWINS[twin][0], seed, 12, fails)
    assert all(proposal in INSIDE for proposal in proposals)
    assert len(set(proposals)) == len(proposals)
    assert DEFAULT not in proposals


@every_proposer
@every_twin
def test_the_same_points_and_seed_give_the_same_proposal(name, twin):
    predictions = TWINS[twin][0]
    proposals, points = play(name, WIDE, predictions, 3, 12)
    until = [5 * (number + 2) for number in range(12)]
    for proposal, count in zip(proposals[::3], until[::3], strict=True):
        read_again = [Point.model_validate_json(p.model_dump_json()) for p in points[:count]]
        assert PROPOSERS[name](read_again, WIDE, 3, predictions, BOUNDS) == proposal


@every_proposer
@every_twin
def test_it_ends_with_a_reason(name, twin):
    proposals, points = play(name, SMALL, TWINS[twin][1], 0, 40)
    assert isinstance(proposals[-1], Done)
    assert proposals[-1].reason
    everything = set(SMALL.configurations())
    settled = name == "twin" and twin != "none"
    assert settled or {p.config for p in points} >= everything
    assert not any(isinstance(p, Done) for p in proposals[:-1])


@every_proposer
def test_proposing_changes_nothing_that_it_was_given(name):
    _, points = play(name, SMALL, TWINS["right"][1], 1, 6)
    before = [p.model_dump_json() for p in points]
    PROPOSERS[name](points, SMALL, 1, TWINS["right"][1])
    assert [p.model_dump_json() for p in points] == before


@every_proposer
def test_points_of_configurations_unknown_to_space_and_twin_do_no_harm(name):
    stranger = DEFAULT.model_copy(update={"max_batch_size": 7})
    points = curve(stranger, "x", random.Random(0))
    assert PROPOSERS[name](points, WIDE, 0, TWINS["right"][0]) in INSIDE


def test_seeds_differ_where_chance_has_a_say():
    for name in ("random", "tpe", "nsga2"):
        played = [tuple(play(name, WIDE, None, seed, 9)[0]) for seed in (0, 1)]
        assert played[0] != played[1], name


def test_the_grid_is_the_space_in_its_order():
    proposals, _ = play("grid", SMALL, None, 0, 40)
    first = [c for c in SMALL.configurations() if c not in (DEFAULT, naive(DEFAULT))]
    assert proposals[:-1] == first


def best_share(proposals, space):
    best = max(worth(c)[0] for c in space.configurations())
    return max(worth(c)[0] for c in itertools.islice(proposals, 8)) / best


def test_a_right_twin_finds_the_best_throughput_within_its_opening():
    assert best_share(play("twin", WIDE, TWINS["right"][0], 0, 8)[0], WIDE) == 1


def test_what_the_twin_left_out_as_infeasible_is_never_proposed():
    whole = TWINS["wrong"][0]
    kept = [row for row, config in enumerate(whole.configs) if config.max_batch_size <= 8]
    left = Predictions.of(
        WIDE, [whole.configs[r] for r in kept], SHARES, whole.capacity_rps[kept], whole.p99_ms[kept]
    )
    proposals, _ = play("twin", WIDE, left, 0, 20)
    assert all(isinstance(p, Done) or p.max_batch_size <= 8 for p in proposals)
