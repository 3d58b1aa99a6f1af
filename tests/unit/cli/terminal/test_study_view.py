"""What is seen of a study while it runs."""

import io

import numpy as np
import pytest
from rich.console import Console

from dlbench.cli.terminal.live import study_view
from dlbench.tuner.step import Step
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.twin.predictions import Predictions
from testbed import made

SHARES = made.SHARES


@pytest.fixture
def twin():
    space = made.space()
    configs = tuple(space.configurations())
    p99 = np.full((len(configs), len(SHARES)), 7.0)
    return Predictions.of(space, configs, SHARES, np.full(len(configs), 300.0), p99)


def seen(console, say):
    with study_view(console, StudyConfig(budget_s=120)) as view:
        say(view)
    return console.file.getvalue()


def told(twin, view):
    config = made.DEFAULT.model_copy(update={"max_batch_size": 32})
    view.note("calibrating the twin")
    view.foreseen(twin)
    view.step(Step("default", made.DEFAULT, "probe", 2.0), 20.0)
    view.point(made.point("default", "probe", None, rate=310))
    view.step(Step("c01", config, "screen", 2.5, 0.5, 150.0), 30.0)
    view.point(made.point("c01", config=config, rate=150, p99=6.5))
    view.step(Step("c01", config, "screen", 2.5, 0.7, 210.0), 60.0)
    view.point(made.point("c01", share=0.7, config=config, measurement=None, failure="it died"))
    for repeat in (1, 1, 2):
        view.point(made.point("c01", "verify", repeat=repeat, config=config))


def test_in_a_pipe_every_point_is_a_line_with_what_was_expected_of_it(twin):
    text = seen(Console(file=io.StringIO()), lambda view: told(twin, view))
    lines = text.splitlines()
    assert "note: calibrating the twin" in lines
    assert any(line.startswith("probe    default") and "twin 300/s" in line for line in lines)
    assert any(line.split() == ["c01", "max_batch_size", "32"] for line in lines)
    (screened,) = (line for line in lines if line.startswith("screen   c01@0.5"))
    assert "p99    6.5 ms" in screened
    assert screened.endswith("twin 7 ms")
    assert "it died" in text
    assert text.count("everything again in a new order") == 2
    assert "\x1b" not in text


def test_on_a_terminal_the_bar_says_what_goes_on_what_is_best_and_how_long_it_takes(twin):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, no_color=True)

    def say(view):
        told(twin, view)
        view.step(Step("c02", made.DEFAULT, "probe", 2.0), 90.0)
        view._bar.refresh()

    text = seen(console, say)
    assert "probe c02 capacity; best 150/s at 6.5 ms" in text
    assert "30 s left" in text


def test_without_predictions_nothing_is_expected():
    text = seen(
        Console(file=io.StringIO()),
        lambda view: view.point(made.point("c01", rate=150)),
    )
    assert "150/s" in text
    assert "twin" not in text
