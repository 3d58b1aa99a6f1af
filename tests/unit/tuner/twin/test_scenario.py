"""Which inputs the twin's requests carry: what a cache of them is worth is known beforehand."""

import numpy as np
import pytest

from dlbench.loadgen.schedule.popularity import churning
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.scenario import Load, scenario
from dlbench.tuner.twin.twin import predict

CALIBRATION = Calibration(services=[ServiceTime(batch=1, seconds=1e-4)], cores=2)
COUNT = 20_000


def hit_ratio(cache_size, **load):
    config = ServingConfig(workers=1, cache_size=cache_size, cache_policy="lru")
    load = Load(rate_rps=10.0, requests=COUNT, **load)
    return predict(config, load, CALIBRATION).hit_ratio


def test_of_rows_that_come_in_turn_an_lru_cache_holds_all_or_nothing():
    assert hit_ratio(100, distinct=150, cyclic=True) == 0
    assert hit_ratio(150, distinct=150, cyclic=True) == 1
    assert hit_ratio(100, distinct=150) == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("churn", [0.05, 0.5])
def test_an_input_that_replaces_another_is_in_no_cache(churn):
    """As many different ones as the load generator draws."""
    load = {"distinct": 50, "zipf": 1.0, "churn": churn}
    assert hit_ratio(1000, distinct=50, zipf=1.0) == 1
    assert hit_ratio(1000, **load) == pytest.approx(1 - churn, abs=0.02)
    draws = churning(50, 1.0, 3, churn)
    keys = scenario(ServingConfig(), Load(rate_rps=1, requests=COUNT, **load), CALIBRATION).inputs.keys  # fmt: skip
    seen = [len(np.unique([draws[n] for n in range(COUNT)])), len(np.unique(keys))]
    assert seen[1] == pytest.approx(seen[0], rel=0.1)


def test_everybody_is_replaced_where_all_requests_replace():
    keys = scenario(ServingConfig(), Load(rate_rps=1, distinct=5, churn=1.0), CALIBRATION).inputs.keys  # fmt: skip
    assert len(np.unique(keys)) == len(keys)
