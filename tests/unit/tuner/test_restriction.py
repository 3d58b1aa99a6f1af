"""What `--fix`, `--range` and a space file say of the knobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.knob import search_values
from dlbench.tuner.restriction import fixed, ranged, restriction


@pytest.mark.parametrize(
    ("knob", "text", "values"),
    [
        ("max_batch_size", "1..64", (1, 2, 4, 8, 16, 32, 64)),
        ("max_batch_size", "3..48", (3, 4, 8, 16, 32, 48)),
        ("max_batch_size", "16..256", (16, 32, 64, 128, 256)),
        ("max_batch_size", "16..", (16, 32, 64)),
        ("workers", "..4", (1, 2, 3, 4)),
        ("max_queue_delay_ms", "0..1.5", (0.0, 0.5, 1.0, 1.5)),
        ("max_queue_size", "1000..5000", (1000, 1024, 2048, 4096, 5000)),
        ("cache_policy", "..", ("none", "lru", "lfu", "fifo", "two_level")),
        ("cache_policy", "fifo, lru", ("lru", "fifo")),
        ("memory_arena", "..", (False, True)),
        ("memory_arena", "on,off", (False, True)),
        ("max_batch_size", "8,2,8", (2, 8)),
        ("max_batch_size", [8, 2], (2, 8)),
        ("max_batch_size", 8, (8,)),
    ],
)
def test_a_range_is_the_values_to_try(knob, text, values):
    found = ranged({knob: text})[knob]
    assert found == values
    assert {type(v) for v in found} == {type(v) for v in values}


@pytest.mark.parametrize("knob", ServingConfig.model_fields)
def test_every_knob_can_be_fixed_at_its_default_and_freed_unless_it_is_a_list(knob):
    default = getattr(ServingConfig(workers=2), knob)
    if not isinstance(default, tuple):
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        assert fixed({knob: text}) == {knob: (default,)}
        values = ranged({knob: ".."})[knob]
        assert len(values) == len(set(values)) > 1
        for value in values:
            ServingConfig.model_validate({knob: value})


def test_a_list_can_be_fixed_but_not_searched():
    assert fixed({"preferred_batch_sizes": "4,8"}) == {"preferred_batch_sizes": ((4, 8),)}
    with pytest.raises(ValueError, match="can only be fixed, with --fix preferred_batch_sizes"):
        ranged({"preferred_batch_sizes": "4,8"})


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_a_range_holds_its_ends_and_rises(one, other):
    low, high = sorted((one, other))
    values = ranged({"max_batch_size": f"{low}..{high}"})["max_batch_size"]
    assert (values[0], values[-1]) == (low, high)
    assert list(values) == sorted(set(values))
    assert {v for v in search_values()["max_batch_size"] if low <= v <= high} <= set(values)


@pytest.mark.parametrize(
    ("read", "given", "complaint"),
    [
        (fixed, {"workers": "1000"}, r"--fix workers=1000: .* whole number from 1 to 256"),
        (fixed, {"workers": "0"}, r"--fix workers=0: .* from 1 to 256"),
        (fixed, {"workers": "many"}, r"--fix workers=many: .* from 1 to 256"),
        (fixed, {"cache_policy": "arc"}, r"--fix cache_policy=arc: .*one of none, lru"),
        (fixed, {"memory_arena": "2"}, r"--fix memory_arena=2: must be on or off"),
        (fixed, {"max_queue_delay_ms": "nan"}, r"from 0 to 1000"),
        (fixed, {"worker_weights": "2,0"}, r"numbers over 0"),
        (fixed, {"batch": "2"}, r"--fix batch: no such knob; did you mean batching"),
        (fixed, {"xyz": "2"}, r"--fix xyz: no such knob; choose one of max_batch_size, "),
        (ranged, {"batch": "2"}, r"--range batch: no such knob"),
        (ranged, {"max_batch_size": "64..1"}, r"lower bound comes first \(.*from 1 to 4096\)"),
        (ranged, {"max_batch_size": "0..8"}, r"--range max_batch_size=0: .*from 1 to 4096"),
        (ranged, {"max_batch_size": ""}, r"--range max_batch_size=: .*from 1 to 4096"),
        (ranged, {"max_batch_size": []}, "no value is left"),
        (ranged, {"cache_policy": "lru..fifo"}, r"must be \.\. or one of none, lru"),
    ],
)
def test_errors_name_the_option_and_the_bounds(read, given, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(given)


def test_options_win_over_the_file_and_exclude_each_other():
    file = {"workers": 1, "max_batch_size": [1, 2], "memory_arena": False, "worker_weights": [1, 2]}
    found = restriction(file, {"max_batch_size": "4..8"}, {"workers": 2})
    assert found == {
        "workers": (2,),
        "max_batch_size": (4, 8),
        "memory_arena": (False,),
        "worker_weights": ((1.0, 2.0),),
    }
    with pytest.raises(ValueError, match="--fix workers and --range workers cannot be combined"):
        restriction({}, {"workers": "1..2"}, {"workers": 1})
    with pytest.raises(ValueError, match="--space workers=0"):
        restriction({"workers": 0}, {}, {})
