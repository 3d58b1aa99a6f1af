"""The findings of a study as `dlbench tune` ends with them, from the study file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from dlbench.loadgen.errors import LoadError
from dlbench.loadgen.profile import LoadProfile
from dlbench.tuner.calibration import Calibration
from dlbench.tuner.config import StudyConfig
from dlbench.tuner.foresight import load_of
from dlbench.tuner.limit import limit
from dlbench.tuner.report import findings

if TYPE_CHECKING:
    from dlbench.tuner.study import Study
    from dlbench.tuner.verify import Verified


def answer(study: Study, result: Verified) -> dict[str, str]:
    """Heading -> sentence; empty while the study is under way, which has no answer yet."""
    if not result.points:
        return {}
    return findings(result, asked(study), _limit(study, result))


def asked(study: Study) -> StudyConfig:
    """What the study was asked for when it was last worked on, as far as it keeps that.

    Not validated again: its cores may be ones that the reader's machine does not have.
    """
    sittings = study.sittings
    return StudyConfig.model_construct(**sittings[-1]["study"] if sittings else {})


def _limit(study: Study, result: Verified) -> str:
    """What keeps the recommendation from taking more, "" where that cannot be told any more."""
    kept = study.calibration.get("calibration")
    if result.recommended is None or kept is None:
        return ""
    try:
        calibration = Calibration.model_validate(kept)
        load = load_of(LoadProfile.model_validate(study.identity["load"]))
    except (ValidationError, LoadError, OSError, KeyError):
        return ""
    return limit(result.recommended.config, study.points(), calibration, load)
