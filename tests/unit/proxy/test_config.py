"""The declaration of the knobs, from which everything else is derived."""

import pytest
from pydantic import ValidationError

from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.proxy.dispatch.policy import POLICIES
from dlbench.proxy.knob import KNOBS, restart_knobs, search_values
from dlbench.proxy.settings import ServerSettings


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_has_help_and_bounds(name):
    schema = ServingConfig.model_json_schema()["properties"][name]
    assert schema["description"]
    bounded = "enum" in schema or {"minimum", "maximum"} <= schema.keys()
    assert bounded or schema["type"] in ("boolean", "array")


@pytest.mark.parametrize("name", ServerSettings.model_fields)
def test_every_setting_has_help(name):
    assert ServerSettings.model_fields[name].description


def test_values_to_search_are_within_bounds_and_without_repetition():
    for name, values in search_values().items():
        assert len(set(values)) == len(values) > 1
        for value in values:
            assert getattr(ServingConfig(**{name: value}), name) == value


def test_what_needs_new_workers():
    inside_a_worker = {"intra_op_threads", "graph_optimization", "memory_arena", "allow_spinning"}
    how_many = {"workers", "worker_weights", "autoscaler", "min_workers", "max_workers"}
    assert restart_knobs() == inside_a_worker | how_many


def test_every_policy_can_be_chosen():
    schema = ServingConfig.model_json_schema()["properties"]["scheduling_policy"]
    assert schema["enum"] == list(POLICIES)


@pytest.mark.parametrize(("device", "workers"), [("cpu", physical_cores()), ("cuda", 2)])
def test_workers_are_spelled_out_for_the_device(device, workers):
    assert ServingConfig().resolved(device).workers == workers
    assert ServingConfig(workers=5).resolved(device).workers == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"max_queue_delay_ms": -1},
        {"wokers": 1},
        {"workers": 257},
        {"worker_weights": [1, 0]},
    ],
)
def test_out_of_bounds_or_unknown_is_refused(wrong):
    with pytest.raises(ValidationError):
        ServingConfig(**wrong)


def test_a_knob_means_nothing_only_by_a_value_that_another_can_have():
    for knob in KNOBS.values():
        if knob.moot:
            other, value = knob.moot
            assert not KNOBS[other].moot
            assert getattr(ServingConfig(**{other: value}), other) == value
