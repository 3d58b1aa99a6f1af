"""Whether there are descriptors enough to serve, said at the start."""

import resource

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.descriptors import check_descriptors
from dlbench.proxy.errors import StartError

GROWING = {"autoscaler": "threshold", "min_workers": 1, "max_workers": 8}


@pytest.mark.parametrize(
    ("knobs", "models", "needed"),
    [({"workers": 2}, 1, 88), ({"workers": 2}, 3, 104), (GROWING, 1, 112)],
)
def test_a_limit_that_leaves_no_room_for_clients_is_refused_with_what_is_needed(
    knobs, models, needed
):
    config = ServingConfig(**knobs)
    check_descriptors(config, models, needed)
    check_descriptors(config, models, resource.RLIM_INFINITY)
    with pytest.raises(
        StartError, match=f"needs {needed} file .* is {needed - 1}: ulimit -n {needed}"
    ):
        check_descriptors(config, models, needed - 1)
