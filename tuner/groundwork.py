"""What a study knows before its first step: measured once and kept with it, so it resumes the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dlbench.loadgen.machine import versions
from dlbench.loadgen.quantity import digits
from dlbench.tuner.budget import services_s
from dlbench.tuner.calibration import CLIENT_SHARE, Calibration
from dlbench.tuner.constraint import BYTES_PER_MB
from dlbench.tuner.errors import StudyMismatch
from dlbench.tuner.foresight import foresee, load_of
from dlbench.tuner.plan import Plan

if TYPE_CHECKING:
    from dlbench.tuner.bench import Bench
    from dlbench.tuner.run import Observer, Request
    from dlbench.tuner.space import Space
    from dlbench.tuner.study import Study


def drawn_up(
    space: Space, study: Study, bench: Bench, request: Request, observer: Observer
) -> Plan:
    """The plan, with the twin's predictions where it is the one that proposes.

    Raises:
        TuneError, ProxyError, LoadError: something of it cannot be found out, in one line.
    """
    if request.study.proposer != "twin":
        return Plan(space, request.study, CLIENT_SHARE * _client_rps(study, bench))
    calibration = _calibration(study, bench, services_s(request.study.budget_s), observer)
    observer.note("predicting what every configuration would do")
    began = time.perf_counter()
    most_mb = request.study.constraints.most_server_mb * BYTES_PER_MB / 2**20
    seen = foresee(space, calibration.within(most_mb), load_of(request.profile))
    for text in seen.notes:
        observer.note(text)
    if seen.predictions is not None:
        observer.foreseen(seen.predictions)
    # As long as it took the first time: a resumed study has the same budget left.
    kept = {"foresight_s": time.perf_counter() - began, **study.calibration}
    study.calibration = kept
    before_s = float(kept["calibration_s"] + kept["foresight_s"])
    frame = (space, request.study, calibration.drivable_rps)
    return Plan(*frame, seen.predictions, before_s, calibration)


def _calibration(study: Study, bench: Bench, services_s: float, observer: Observer) -> Calibration:
    """Measured once per study and kept with it, so that a resumed one foresees the same."""
    if "calibration" not in study.calibration:
        observer.note("calibrating the twin, the simulation that says what to try")
        began = time.perf_counter()
        found = bench.calibrate(observer.note, services_s)
        study.calibration = {
            "calibration": found.model_dump(mode="json"),
            "calibration_s": time.perf_counter() - began,
            "versions": versions(),
        }
        observer.note(_told(found))
    try:
        return Calibration.model_validate(study.calibration["calibration"])
    except ValidationError:
        raise StudyMismatch(
            "the calibration in this study is another version's; --fresh starts the study over"
        ) from None


def _told(found: Calibration) -> str:
    batch = max(service.batch for service in found.services)
    one, full = found.service_s(1), found.service_s(batch)
    client = "unknown" if found.client_rps is None else f"{found.client_rps:,.0f}/s"
    return (
        f"a worker takes {digits(one * 1e3)} ms for one row and {digits(full * 1e3)} ms for {batch}; "
        f"the client can drive {client}"
    )


def _client_rps(study: Study, bench: Bench) -> float:
    """The client's limit: as calibrated, or found out now."""
    known = study.calibration.get("calibration", study.calibration)
    if not known.get("client_rps"):
        known = {"client_rps": bench.client_rps(), "versions": versions()}
        study.calibration = {**study.calibration, **known}
    return float(known["client_rps"])
