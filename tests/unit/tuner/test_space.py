"""The space to search: what makes sense here, and what was said of the knobs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.errors import StudyMismatch, TuneError
from dlbench.tuner.restriction import restriction
from dlbench.tuner.search.proposer import PROPOSERS
from dlbench.tuner.space import build_space, naive
from dlbench.tuner.storage.study import Identity, Study
from testbed import made


def space_of(ranges=None, fixes=None, cores=2, **facts):
    said = restriction({}, ranges or {}, fixes or {})
    known = {"repeats_inputs": True, "batchable": True, **facts}
    return build_space(made.DEFAULT, cores, restriction=said, **known)


@pytest.fixture
def space():
    return space_of()


def test_workers_and_threads_fit_the_cores(space):
    assert all(c.workers * c.intra_op_threads <= 4 for c in space.configurations())


def test_knobs_that_cannot_matter_are_not_varied(space):
    for config in space.configurations():
        assert config.max_batch_size > 1 or config.max_queue_delay_ms == 0
        assert config.workers > 1 or config.scheduling_policy == "shared_queue"


def test_configurations_are_all_different(space):
    found = list(space.configurations())
    assert len(found) == len(set(found)) > 100


def test_distinct_inputs_leave_the_cache_out_and_say_so():
    space = space_of({"cache_policy": ".."}, repeats_inputs=False)
    assert not {"cache_size", "cache_policy"} & set(space.values)
    assert any("--distinct" in note for note in space.notes)


def test_a_model_of_one_row_leaves_batching_out():
    one_row = made.DEFAULT.model_copy(update={"max_batch_size": 1})
    space = build_space(one_row, 2, repeats_inputs=True, batchable=False)
    assert not {"max_batch_size", "max_queue_delay_ms"} & set(space.values)
    assert any("batching" in note for note in space.notes)


def test_naive_is_one_worker_one_row_no_cache():
    config = naive(made.DEFAULT)
    assert (config.workers, config.max_batch_size, config.cache_size) == (1, 1, 0)


def test_unrestricted_the_baselines_are_what_they_are():
    space = space_of()
    assert space.default == made.DEFAULT
    assert space.naive == naive(made.DEFAULT)
    assert space.default in space


def test_a_default_that_is_not_declared_is_searched_too():
    five = made.DEFAULT.model_copy(update={"workers": 5})
    space = build_space(five, 5, repeats_inputs=True, batchable=True)
    assert space.values["workers"] == (1, 2, 3, 4, 5, 6, 8)


def test_what_is_in_a_space_is_what_it_names(space):
    for update in (
        {"workers": 9},
        {"slo_ms": 5.0},
        {"max_batch_size": 1, "max_queue_delay_ms": 2.0},
    ):
        assert made.DEFAULT.model_copy(update=update) not in space
    assert all(config in space for config in space.configurations())


def test_a_fixed_knob_has_one_value_everywhere_and_says_so():
    space = space_of(fixes={"workers": "1", "memory_arena": "off"})
    for config in (*space.configurations(), space.default, space.naive):
        assert (config.workers, config.memory_arena) == (1, False)
    assert "workers is fixed at 1" in space.notes
    assert any("baselines" in note for note in space.notes)
    assert "scheduling_policy" not in space.values
    assert any(note.startswith("scheduling_policy is left out") for note in space.notes)


def test_a_freed_knob_is_searched():
    space = space_of({"cache_policy": "..", "max_batch_size": "8..16"})
    found = {(c.cache_policy, c.max_batch_size) for c in space.configurations() if c.cache_size}
    assert len(found) == 10
    assert {c.cache_policy for c in space.configurations() if not c.cache_size} == {"lru"}
    assert "max_batch_size is searched over 8, 16" in space.notes


CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "max_batch_size": st.sampled_from(["1..2", "1", "4..64", "32"]),
        "max_queue_delay_ms": st.sampled_from(["1..5", "0", "2"]),
        "workers": st.sampled_from(["1..2", "2", "2..16", "1"]),
        "intra_op_threads": st.sampled_from(["1..2", "2", "1..8"]),
        "cache_size": st.sampled_from(["0", "256..1024", "0..256"]),
        "cache_policy": st.sampled_from(["..", "fifo"]),
        "scheduling_policy": st.sampled_from(["random", "random,power_of_two_choices"]),
    },
)


@settings(max_examples=25, deadline=None)  # thousands of configurations each
@given(CHOICES, st.booleans())
def test_all_of_a_space_is_inside_it_the_baselines_first(ranges, repeats_inputs):
    space = space_of(ranges, repeats_inputs=repeats_inputs)
    configs = list(space.configurations())
    assert len(set(configs)) == len(configs)
    for config in (space.default, space.naive, *configs[:50], *configs[-50:]):
        assert config in space
    assert {space.default, space.naive} <= set(configs)


@pytest.mark.parametrize("name", PROPOSERS)
def test_proposers_stay_inside(name):
    space = space_of({"max_batch_size": "2..8", "batching": ".."}, {"workers": "2"})
    points = [made.point("default", config=space.default)]
    for number in range(3):
        config = PROPOSERS[name](points, space, 1)
        assert config in space
        points.append(made.point(f"c{number}", config=config, rate=100 + number))


def test_what_the_machine_makes_senseless_is_left_out_with_a_line():
    space = space_of({"workers": "1..16", "intra_op_threads": "1..8"})
    assert space.values["workers"] == (1, 2, 3, 4)
    assert space.values["intra_op_threads"] == (1, 2, 4)
    assert any("25 of 32 pairs of workers and intra_op_threads" in note for note in space.notes)


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(TuneError, match="at least 32, and more than 4 threads in total"):
        space_of(fixes={"workers": "8", "intra_op_threads": "4"})
    with pytest.raises(TuneError, match=r"max_batch_size cannot be 8.*one row at a time"):
        space_of(fixes={"max_batch_size": "8"}, batchable=False)
    with pytest.raises(TuneError, match=r"more than the 100,000.*--fix"):
        space_of({"max_queue_size": "1..", "cache_max_mb": "1..1000", "slo_ms": ".."})


def test_a_cache_that_was_fixed_stays_where_it_cannot_help():
    space = space_of(fixes={"cache_size": "256"}, repeats_inputs=False)
    assert {c.cache_size for c in space.configurations()} == {256}


def test_a_study_of_another_space_is_refused_with_the_knob_and_both_values(tmp_path):
    path = tmp_path / "a.db"
    first = space_of(fixes={"preferred_batch_sizes": "4,8", "workers": "1"})
    Study.create_or_resume(path, Identity(first.facts))
    Study.create_or_resume(path, Identity(first.facts))
    for other in (space_of(), space_of(fixes={"workers": "1"})):
        with pytest.raises(StudyMismatch, match=r"is a study with (workers|preferred_b\w+) \["):
            Study.create_or_resume(path, Identity(other.facts))


def test_facts_name_every_knob_and_survive_a_file():
    facts = space_of(fixes={"worker_weights": "2,1"}).facts
    assert set(facts) == set(ServingConfig.model_fields)
    assert json.loads(json.dumps(facts)) == facts
