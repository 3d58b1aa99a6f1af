"""What a person is told of a study's way: each remark once, at its moment."""

import pytest

from dlbench.tuner.errors import NothingMeasured
from dlbench.tuner.plan import Plan
from dlbench.tuner.run import Told
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.study_request import Observer
from testbed import made


class Notes(Observer):
    """Keeps what it is told."""

    def __init__(self):
        self.notes, self.spent_s = [], []

    def note(self, text):
        self.notes.append(text)

    def step(self, step, spent_s):
        self.spent_s.append(spent_s)


@pytest.fixture
def plan():
    config = StudyConfig(budget_s=2000, configurations=1, proposer="random")
    return Plan(made.space(), config, drivable_rps=10_000, before_s=20.0)


def carry_out(plan, **measured):
    """All steps with made measurements; returns the notes."""
    points, seen = [], Notes()
    told = Told(plan, seen)
    while (step := plan.next_step(points)) is not None:
        told.before(step, points, plan.spent_s(points))
        own = measured or {"rate": step.rate or 1000, "duration_s": step.duration_s}
        where = (step.configuration, step.phase, step.share, step.repeat, step.config)
        points.append(made.point(*where, cost_s=40.0, **own))
        told.after(points)
    return seen


def test_every_remark_comes_once(plan):
    notes = carry_out(plan).notes
    ends = [text for text in notes if text.startswith("the search ends")]
    assert ends == ["the search ends: 1 configurations were asked for"]
    assert len([text for text in notes if "the default again" in text]) >= 1


def test_what_came_before_the_first_step_counts(plan):
    assert carry_out(plan).spent_s[:2] == [20.0, 60.0]


def test_a_study_whose_baselines_all_fail_ends_with_their_reason(plan):
    with pytest.raises(NothingMeasured, match="no such library"):
        carry_out(plan, measurement=None, failure="no such library")
