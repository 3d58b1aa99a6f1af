"""The findings of a study as `dlbench tune` ends with them, from the study file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.results.findings import findings
from dlbench.tuner.study_config import StudyConfig

if TYPE_CHECKING:
    from dlbench.tuner.storage.study import Study
    from dlbench.tuner.verify.verification import Verified


def answer(study: Study, result: Verified) -> dict[str, str]:
    """Heading -> sentence; empty while the study is under way, which has no answer yet."""
    if not result.points:
        return {}
    return findings(result, asked(study))


def asked(study: Study) -> StudyConfig:
    """What the study was asked for when it was last worked on, as far as it keeps that.

    Not validated again: its cores may be ones that the reader's machine does not have.
    """
    sittings = study.sittings
    return StudyConfig.model_construct(**sittings[-1]["study"] if sittings else {})
