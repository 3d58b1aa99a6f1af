"""What a study is asked for, and who is told while it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dlbench.loadgen.control.generator import Progress
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.point import Point
    from dlbench.tuner.step import Step
    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.predictions import Predictions


@dataclass(frozen=True)
class Request:
    """What the user asked for; `command` is how, as a shell takes it.

    `began_s` is when the command began, on the clock of `time.perf_counter`: its budget counts since.
    """

    settings: ServerSettings
    profile: LoadProfile
    study: StudyConfig
    path: Path
    fresh: bool = False
    command: str = ""
    began_s: float = field(default_factory=time.perf_counter)


class Observer:
    """Told what happens while it happens; this one keeps it to itself."""

    def note(self, text: str) -> None:
        """Something the user should know of how the study is made."""

    def foreseen(self, predictions: Predictions) -> None:
        """What the twin expects, before anything is measured."""

    def step(self, step: Step, spent_s: float) -> None:
        """A measurement begins, after `spent_s` of the budget."""

    def progress(self, progress: Progress) -> None:
        """The measurement under way, twice a second."""

    def point(self, point: Point) -> None:
        """A measurement was recorded."""
