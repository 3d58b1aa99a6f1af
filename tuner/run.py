"""A tuning run, told in order: open, calibrate, take the plan's steps, pool, report."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.analysis.machine import facts, processor
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs.sizes import shape_option
from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.proxy.dispatch.order import DEFAULT_PRIORITY
from dlbench.proxy.models.model import resolve_model
from dlbench.tuner.bench.bench import Bench
from dlbench.tuner.budget import REPORT_S
from dlbench.tuner.errors import NothingMeasured, NotKept, OutOfTime, ShapeMissing, TuneError
from dlbench.tuner.gaps import unknown
from dlbench.tuner.groundwork import drawn_up
from dlbench.tuner.plan import of_search
from dlbench.tuner.point import Point
from dlbench.tuner.recommend import ALIKE
from dlbench.tuner.search.proposal import Done
from dlbench.tuner.space import Space, build_space
from dlbench.tuner.storage.lock import locked
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.storage.wall_clock import Clock
from dlbench.tuner.targets.pin import on_cores, pinned
from dlbench.tuner.twin.calibration import Calibration
from dlbench.tuner.twin.foresight import load_of
from dlbench.tuner.verify.drift import drift
from dlbench.tuner.verify.limiting_factor import limit
from dlbench.tuner.verify.verification import Verified, verified

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.loadgen.profile import LoadProfile
    from dlbench.tuner.plan import Plan
    from dlbench.tuner.step import Step
    from dlbench.tuner.study_request import Observer, Request
    from dlbench.tuner.verify.pool import Repeat


NO_GPU_FIGURES = (
    "--max-gpu-memory: this server has no GPU figures, since it runs on the CPU or "
    "nvidia-ml-py is missing; drop it"
)
# Server settings that change what is measured.
DECIDING = {
    *("provider_option", "io_binding", "batch_axis", "device_ids", "remote_workers"),
    *("cache_backend", "max_connections", "rows_independent"),
}


def tune(request: Request, observer: Observer) -> tuple[Study, Verified]:
    """Run or resume a study until its plan is complete or its budget over.

    One that was finished by the same request is only read.

    Raises:
        TuneError: see `dlbench.tuner.errors`; what was recorded before stays in the study.
    """
    with locked(request.path, request.command):
        if not request.fresh and (known := _finished(request)) is not None:
            observer.note("already finished: nothing is measured again; use --fresh to start over")
            return known, Verified.of(known.verified)
        return _worked_on(request, observer)


def _worked_on(request: Request, observer: Observer) -> tuple[Study, Verified]:
    log_path, pinning = request.path.with_suffix(".log"), pinned(request.study.pin)
    with Bench(request.settings, request.profile, log_path, pinning) as bench:
        ready = bench.start(ServingConfig().resolved("cpu"))
        if not request.study.guess_shapes:
            check_stated(bench.guessed)
        if request.study.max_gpu_memory and not bench.gpu_figures:
            raise TuneError(NO_GPU_FIGURES)
        space = _space(request, ready, bench.cores)
        study = Study.create_or_resume(
            request.path, _identity(request, ready, space), fresh=request.fresh
        )
        study.sit_down(_sitting(request, bench))
        clock = Clock(request.study.budget_s, study.spent_s, request.began_s)
        for text in filter(None, (*space.notes, *bench.notes, pinning.note)):
            observer.note(text)
        plan = drawn_up(space, study, bench, request, observer, clock)
        points = _usable(study)
        try:
            carry_out(plan, points, study, bench, request, observer, clock)
        except NotKept as error:
            raise NotKept(str(error), (study, _report(plan, points, study, request))) from None
    result = _report(plan, points, study, request)
    try:
        study.verified = result.document
        study.end_sitting(clock.spent_s)
    except NotKept as error:
        raise NotKept(str(error), (study, result)) from None
    return study, result


def check_stated(guessed: Mapping[str, tuple[int, ...]]) -> None:
    """See to it that no shape is a guess. Raises ShapeMissing for the first that is."""
    for name, shape in guessed.items():
        raise ShapeMissing(
            f"input {name!r} has symbolic dimensions, and {list(shape)} would be a guess; set your "
            f"requests' shape with {shape_option(name, shape)}, or add --guess-shapes"
        )


def carry_out(
    plan: Plan,
    points: list[Point],
    study: Study,
    bench: Bench,
    request: Request,
    observer: Observer,
    clock: Clock,
) -> None:
    """Take the plan's steps, each recorded before the next, until none is left or the time is over.

    What is measured is appended to `points`. Raises NotKept, and what `Told` raises.
    """
    told = Told(plan, observer)
    while (step := plan.next_step(points, clock.spent_s)) is not None:
        told.before(step, points, clock.spent_s)
        path, seed = study.samples_path(_stub(step)), _seed(request.study.seed, step)
        try:
            point = bench.measure(step, seed, observer.progress, path, clock.left_s - REPORT_S)
        except OutOfTime as over:
            observer.note(str(over))
            return
        except DataError as error:  # its samples cannot be written
            raise NotKept(str(error)) from None
        points.append(point.model_copy(update={"spent_s": clock.spent_s}))
        try:
            study.record(points[-1], request.study.constraints)
        finally:  # what is shown is kept, whenever the study is killed; a full disk hides nothing
            told.after(points)


def _finished(request: Request) -> Study | None:
    """The study, if the same request was carried out to its end."""
    study = Study.open_if_made(request.path)
    if study is None or not study.sittings or not study.verified:
        return None
    last, about = study.sittings[-1], study.identity
    asked = {**about, **_asked(request)}
    same = all(last.get(name) == value for name, value in _wanted(request).items())
    return study if study.has_ended and same and asked == about else None


class Told:
    """Remarks to the observer about the study's progress, each made once."""

    def __init__(self, plan: Plan, observer: Observer) -> None:
        self._plan, self._observer = plan, observer
        self._probed = self._ending = False

    def before(self, step: Step, points: list[Point], spent_s: float) -> None:
        """A step is about to be taken; with the first of verification the search is over."""
        if step.phase == "verify" and not self._ending:
            self._ending = True
            end = self._plan.proposal(points, spent_s)
            if isinstance(end, Done):
                self._observer.note(f"the search ends: {end.reason}")
        self._observer.step(step, spent_s)

    def after(self, points: list[Point]) -> None:
        """A point was recorded."""
        self._observer.point(points[-1])
        if points[-1].phase == "drift" and (found := drift(points)):
            self._observer.note(str(found))
        if not self._probed:
            self._probed = self._has_capacity(points)

    def _has_capacity(self, points: list[Point]) -> bool:
        """Whether a baseline's capacity is known."""
        if any(p.measurement for p in points):
            return True
        if len([p for p in points if p.phase == "probe"]) >= len(self._plan.baselines):
            raise NothingMeasured(f"no baseline could be measured: {points[-1].failure}")
        return False


def _report(plan: Plan, points: list[Point], study: Study, request: Request) -> Verified:
    if not points:
        raise NothingMeasured(
            f"the budget of {request.study.budget_s:g} s leaves no time to measure anything: "
            "starting, "
            f"calibrating and predicting took {plan.before_s:.0f} s here; run the same command "
            "with a "
            "larger --budget to continue"
        )
    repeats: dict[str, list[Repeat]] = {}
    for point in points:
        if point.phase == "verify" and point.measurement is not None:
            samples = Samples.load(study.samples_path(point))
            repeats.setdefault(point.name, []).append((point, samples.latencies_ms))
    bounds_ms = plan.bounds_ms(of_search(points))
    about = (request.study, bounds_ms, plan.predictions, points, _mix(request.profile))
    result = verified(repeats, *about)
    limited = _limit(result, points, study, request.profile)
    return replace(result, limit=limited, unknown=unknown(plan, points, result.answer))


def _mix(profile: LoadProfile) -> Mapping[int, float]:
    """The share of requests of each priority, as the proxy understands those that tell none."""
    return profile.priorities(DEFAULT_PRIORITY) if profile.request_class else ALIKE


def _limit(result: Verified, points: Sequence[Point], study: Study, profile: LoadProfile) -> str:
    """What keeps the recommendation from taking more; "" in a study that was not calibrated."""
    kept = study.calibration.get("calibration")
    if result.answer is None or kept is None:
        return ""
    calibration = Calibration.model_validate(kept)
    return limit(result.answer.config, points, calibration, load_of(profile))


def _usable(study: Study) -> list[Point]:
    """The recorded points; a repeat whose samples were thrown away has to be measured again.

    Of one that was measured again the latest counts: the samples are that one's.
    """
    points = [
        p
        for p in study.points()
        if p.phase != "verify" or p.measurement is None or study.samples_path(p).exists()
    ]
    latest = {(p.name, p.repeat): p for p in points if p.phase == "verify"}
    return [p for p in points if p.phase != "verify" or latest[p.name, p.repeat] is p]


def _space(request: Request, ready: dict[str, Any], cores: int) -> Space:
    default = ServingConfig().resolved(ready["device"])
    if not ready["batchable"]:
        default = default.model_copy(update={"max_batch_size": 1})
    repeats = bool(request.profile.distinct or request.profile.data)
    return build_space(
        default,
        cores,
        repeats_inputs=repeats,
        batchable=ready["batchable"],
        restriction=request.study.restriction,
    )


def _identity(request: Request, ready: dict[str, Any], space: Space) -> Identity:
    return Identity({**_asked(request), "device": ready["device"], **space.facts})


def _asked(request: Request) -> dict[str, Any]:
    """What of a study's identity is known before its model is served."""
    with on_cores(pinned(request.study.pin).server):
        machine = f"{processor()}, {physical_cores()} cores"
    return {
        "model": request.settings.model,
        "model_hash": resolve_model(request.settings.model).fingerprint().hex(),
        "load": request.profile.model_dump(mode="json", exclude={"seed"}),
        "seed": request.study.seed,
        "pin": request.study.pin,
        "server": request.settings.model_dump(mode="json", include=DECIDING),
        "machine": machine,
    }


def _wanted(request: Request) -> dict[str, Any]:
    """What a sitting is to do."""
    return {
        "study": request.study.model_dump(mode="json"),
        "settings": request.settings.model_dump(mode="json", exclude_defaults=True),
    }


def _sitting(request: Request, bench: Bench) -> dict[str, Any]:
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": request.command,
        **_wanted(request),
        "machine": facts().model_dump(mode="json"),
        "guessed": bench.guessed,
    }


def _seed(study_seed: int, step: Step) -> int:
    """Another arrival order for every measurement, the same one for the same step of a study.

    In the comparison configurations meet the same arrivals at the same rate.
    """
    if step.phase == "verify":
        words = f"{study_seed}/{step.rate}/{step.repeat}"
    else:
        words = f"{study_seed}/{step.configuration}/{step.phase}/{step.share}/{step.repeat}"
    return random.Random(words).getrandbits(31)


def _stub(step: Step) -> Point:
    return Point(
        configuration=step.configuration,
        phase=step.phase,
        config=step.config,
        share=step.share,
        repeat=step.repeat,
    )
