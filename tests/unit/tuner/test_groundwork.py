"""What a study knows before its first step, and goes on with."""

import time
from types import SimpleNamespace

import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.tuner.errors import OutOfTime
from dlbench.tuner.groundwork import drawn_up
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.storage.wall_clock import Clock
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.study_request import Observer
from testbed import made


class SlowBench:
    """Measures one part of a calibration, and there is never time for what follows."""

    first_switch_s = 1.0

    def __init__(self):
        self.measured = 0

    def calibrate(self, note, services_s, parts):
        def measure():
            self.measured += 1
            return {"times": []}

        parts.get("1 thread", 0.0, measure)
        raise OutOfTime("there was no time to calibrate the twin")


@pytest.fixture
def study(tmp_path):
    return Study.create_or_resume(tmp_path / "s.db", Identity({"model": "a", "device": "cpu"}))


def test_a_calibration_without_enough_time_goes_on_under_a_larger_budget(study):
    """The advice that a study ends with, a larger --budget, has to hold."""
    space = made.space()
    bench = SlowBench()
    for budget_s in (60.0, 600.0):
        request = SimpleNamespace(study=StudyConfig(budget_s=budget_s), profile=LoadProfile(rate=1))
        clock = Clock(budget_s, study.spent_s, time.perf_counter())
        plan = drawn_up(space, study, bench, request, Observer(), clock)
        assert plan.predictions is None
        assert "calibration" not in study.calibration
        assert study.calibration["parts"] == {"1 thread": {"times": []}}
        assert study.calibration["versions"]
    assert bench.measured == 1
