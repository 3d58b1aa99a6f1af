"""What can go wrong in a study.

TuneError
├── StudyMismatch      the study file belongs to another model, load or seed
├── StudyUnreadable    the file is no study of ours
├── ShapeMissing       a model's inputs have open dimensions, and nobody stated their sizes
├── NothingMeasured    not a single configuration could be measured
├── StudyBusy          another process works on the study
├── NotKept            what was measured cannot be written down
├── OutOfTime          the budget ended under a measurement, which does not count
└── ServerFailed       the proxy did not start, or died; carries the tail of its log
"""

from __future__ import annotations

from typing import Any


class TuneError(Exception):
    """Base of every error of this package; its text is one line for a person."""


class StudyMismatch(TuneError):
    """The study file holds measurements of something else."""


class StudyUnreadable(TuneError):
    """The file cannot be read as a study."""


class ShapeMissing(TuneError):
    """Minutes would be spent on sizes that may not be those of anybody's requests."""


class NothingMeasured(TuneError):
    """No baseline could be measured, so there is nothing to compare with."""


class StudyBusy(TuneError):
    """Another process works on the study; the text says which."""


class NotKept(TuneError):
    """A disk that is full or a folder that may not be written to: the text says which file.

    `known` is what there was to keep, a study and its result; None where nothing was measured yet.
    """

    def __init__(self, text: str, known: tuple[Any, Any] | None = None) -> None:
        super().__init__(text)
        self.known = known


class OutOfTime(TuneError):
    """The budget ran out during a measurement, which is not recorded."""


class ServerFailed(TuneError):
    """A proxy did not start or died; `log_tail` holds the last lines it wrote."""

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(reason)
        self.log_tail = log_tail
