"""What a study knows before its first step: measured once and kept with it, so it resumes the same."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dlbench.loadgen.analysis.machine import versions
from dlbench.loadgen.quantity import digits
from dlbench.tuner.budget import CALIBRATION_SHARE, FORESIGHT_SHARE, services_s
from dlbench.tuner.constraint import BYTES_PER_MB
from dlbench.tuner.errors import OutOfTime, StudyMismatch
from dlbench.tuner.plan import Plan
from dlbench.tuner.twin.calibration import CLIENT_SHARE, Calibration
from dlbench.tuner.twin.calibration_parts import Parts
from dlbench.tuner.twin.foresight import foresee, load_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dlbench.tuner.bench.bench import Bench
    from dlbench.tuner.space import Space
    from dlbench.tuner.storage.study import Study
    from dlbench.tuner.storage.wall_clock import Clock
    from dlbench.tuner.study_request import Observer, Request
    from dlbench.tuner.twin.predictions import Predictions

# When the model was served first, in seconds of the study.
STARTED = "started_s"


def drawn_up(
    space: Space,
    study: Study,
    bench: Bench,
    request: Request,
    observer: Observer,
    clock: Clock,
) -> Plan:
    """Build the plan, with the twin's predictions if it proposes and there is time.

    Raises:
        TuneError, ProxyError, LoadError: something of it cannot be found out, in one line.
    """
    switch_s = _kept(study, "switch_s", lambda: bench.first_switch_s)
    _kept(study, STARTED, lambda: clock.spent_s)
    if request.study.proposer != "twin":
        drivable_rps = CLIENT_SHARE * _client_rps(study, bench)
        before_s = _kept(study, "calibration_s", lambda: clock.spent_s)
        return Plan(space, request.study, drivable_rps, None, before_s, None, switch_s)
    calibration = _calibration(study, bench, observer, clock)
    seen = (
        None if calibration is None else _seen(space, study, calibration, request, observer, clock)
    )
    calibrated_s = _kept(study, "calibration_s", lambda: clock.spent_s)
    before_s = calibrated_s + _kept(study, "foresight_s", lambda: clock.spent_s - calibrated_s)
    drivable_rps = math.inf if calibration is None else calibration.drivable_rps
    return Plan(space, request.study, drivable_rps, seen, before_s, calibration, switch_s)


def _until(share: float, study: Study, clock: Clock) -> Callable[[], float]:
    """Of what the start of the first sitting left: a slow start takes nothing from the calibration."""
    return partial(clock.until_share, share, float(study.calibration[STARTED]))


def _kept(study: Study, name: str, find: Callable[[], float]) -> float:
    """A figure as it was the first time: a resumed study reckons with the same."""
    if name not in study.calibration:
        study.calibration = {**study.calibration, name: find()}
    return float(study.calibration[name])


def _seen(
    space: Space,
    study: Study,
    calibration: Calibration,
    request: Request,
    observer: Observer,
    clock: Clock,
) -> Predictions | None:
    """What the twin expects of as many configurations as there was time for, the first time."""
    observer.note("predicting every configuration")
    most_mb = request.study.constraints.most_server_mb * BYTES_PER_MB / 2**20
    about = (space, calibration.within(most_mb), load_of(request.profile))
    if "foreseen" in study.calibration:
        seen = foresee(*about, most=study.calibration["foreseen"])
    else:
        seen = foresee(*about, left_s=_until(FORESIGHT_SHARE, study, clock))
        study.calibration = {**study.calibration, "foreseen": seen.configurations}
    for text in seen.notes:
        observer.note(text)
    if seen.predictions is not None:
        observer.foreseen(seen.predictions)
    return seen.predictions


def _calibration(
    study: Study, bench: Bench, observer: Observer, clock: Clock
) -> Calibration | None:
    """Measured once per study, its parts kept as they come; None: there was no time for it."""
    if "calibration" not in study.calibration:
        observer.note("calibrating the twin, the simulation that proposes what to try")

        def keep(parts: Mapping[str, Any]) -> None:
            study.calibration = {**study.calibration, "parts": dict(parts)}
            study.spent_s = clock.spent_s

        left_s = _until(CALIBRATION_SHARE, study, clock)
        parts = Parts(left_s, study.calibration.get("parts"), keep)
        found = _calibrated(bench, observer, services_s(clock.budget_s), parts)
        if found is None:  # a larger budget goes on with its parts
            study.calibration = {**study.calibration, "versions": versions()}
            return None
        kept = {k: v for k, v in study.calibration.items() if k != "parts"}
        study.calibration = {
            "calibration_s": clock.spent_s,
            **kept,
            "calibration": found.model_dump(mode="json"),
            "versions": versions(),
        }
    try:
        return Calibration.model_validate(study.calibration["calibration"])
    except ValidationError:
        raise StudyMismatch(
            "the calibration in this study is from another version; use --fresh to start the study "
            "over"
        ) from None


def _calibrated(
    bench: Bench, observer: Observer, services_s: float, parts: Parts
) -> Calibration | None:
    try:
        found = bench.calibrate(observer.note, services_s, parts)
    except OutOfTime as over:
        observer.note(f"{over}; configurations are proposed without it")
        return None
    observer.note(_told(found))
    return found


def _told(found: Calibration) -> str:
    batch = max(service.batch for service in found.services)
    told = f"a worker takes {digits(found.service_s(1) * 1e3)} ms for one row"
    if batch > 1:
        told += f" and {digits(found.service_s(batch) * 1e3)} ms for {batch}"
    if found.client_rps is not None:
        told += f"; the client can drive {found.client_rps:,.0f}/s"
    return told


def _client_rps(study: Study, bench: Bench) -> float:
    """The client's limit: from the calibration, or measured now."""
    known = study.calibration.get("calibration", study.calibration)
    if not known.get("client_rps"):
        known = {"client_rps": bench.client_rps(), "versions": versions()}
        study.calibration = {**study.calibration, **known}
    return float(known["client_rps"])
