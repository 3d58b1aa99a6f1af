"""What the twin foresees of a space: everything that can run, the same every time."""

import numpy as np
import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.tuner.twin import foresight
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.foresight import foresee, load_of
from dlbench.tuner.twin.scenario import Load
from testbed import made

SMALL = {
    "max_batch_size": (1, 8),
    "max_queue_delay_ms": (0.0,),
    "scheduling_policy": ("shared_queue",),
    "cache_size": (0, 1024),
}


@pytest.fixture
def space():
    return made.space(repeats_inputs=True, restriction=SMALL)


def calibration(**changes):
    services = tuple(
        ServiceTime(batch=batch, busy=busy, seconds=(2e-3 + 1e-4 * batch) * busy**0.5)
        for batch in (1, 8, 64)
        for busy in (1, 2)
    )
    return Calibration(services=services, cores=2, front_s=2e-5, **changes)


def test_where_a_prediction_is_slow_only_a_few_are_made(space):
    load = Load(rate_rps=1, distinct=1000, zipf=1.1)
    few = foresee(space, calibration(), load, left_s=lambda: 0.0)
    assert few.configurations == foresight.FIRST_GROUP
    again = foresee(space, calibration(), load, most=few.configurations)
    assert again.predictions.configs == few.predictions.configs


def test_the_whole_space_and_the_baselines_are_foreseen(space):
    found = foresee(space, calibration(), Load(rate_rps=1, distinct=1000, zipf=1.1))
    assert found.notes == ()
    assert set(found.predictions.configs) == {
        space.naive,
        space.default,
        *space.configurations(),
    }
    assert {found.predictions.configs[row] for row in found.predictions.searched} == set(
        space.configurations()
    )
    assert np.all(found.predictions.p99_ms[:, -1] > found.predictions.p99_ms[:, 0])


def test_it_is_the_same_on_resuming(space):
    load = Load(rate_rps=1, distinct=1000, zipf=1.1)
    kept = Calibration.model_validate(calibration().model_dump(mode="json"))
    first, second = (foresee(space, c, load).predictions for c in (calibration(), kept))
    assert first.configs == second.configs
    assert np.array_equal(first.capacity_rps, second.capacity_rps)
    assert np.array_equal(first.p99_ms, second.p99_ms)


def test_what_cannot_run_is_left_out_with_one_line(space):
    tight = calibration(worker_rss_mb=300.0, memory_mb=700.0)
    found = foresee(space, tight, Load(rate_rps=1))
    assert {c.workers for c in found.predictions.configs} == {1, 2}
    (line,) = found.notes
    assert "cannot run here" in line
    assert "MB" in line


def test_where_nothing_can_run_nothing_is_foreseen(space):
    found = foresee(space, calibration(worker_rss_mb=900.0, memory_mb=700.0), Load(rate_rps=1))
    assert found.predictions is None
    assert len(found.notes) == 1


def test_of_a_large_space_a_part_is_looked_at(space, monkeypatch):
    monkeypatch.setattr(foresight, "MOST_CONFIGURATIONS", 5)
    first, second = (foresee(space, calibration(), Load(rate_rps=1)) for _ in range(2))
    assert first.predictions.configs == second.predictions.configs
    assert len(first.predictions.searched) <= 7
    assert {space.naive, space.default} <= set(first.predictions.configs)
    assert "5, drawn at random" in first.notes[0]


def test_a_load_keeps_what_repeats(tmp_path):
    profile = LoadProfile(rate=100, distinct=500, zipf=1.2, seed=3, arrivals="constant")
    load = load_of(profile)
    assert (load.distinct, load.zipf, load.seed, load.arrivals) == (500, 1.2, 3, "constant")
    data = tmp_path / "rows.npy"
    np.save(data, np.zeros((40, 3), np.float32))
    assert load_of(LoadProfile(rate=100, data=str(data))).distinct == 40
    assert load_of(LoadProfile(rate=100, data=str(data))).cyclic
    some = load_of(LoadProfile(rate=100, data=str(data), distinct=10, churn=0.1))
    assert (some.distinct, some.churn, some.cyclic) == (10, 0.1, False)
    assert not load_of(LoadProfile(rate=100, data=str(data), zipf=1.0)).cyclic


def test_who_brings_data_is_told_that_its_rows_come_again(space):
    load = Load(rate_rps=1, distinct=2000, cyclic=True)
    (line,) = foresee(space, calibration(), load).notes
    assert "the 2,000 rows of the data repeat" in line
    without = {**SMALL, "cache_size": (0,)}
    plain = made.space(repeats_inputs=True, restriction=without)
    assert foresee(plain, calibration(), load).notes == ()
