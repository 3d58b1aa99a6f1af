"""A tuning run, told in order: open, calibrate, take the plan's steps, pool, report."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.machine import processor, versions
from dlbench.loadgen.samples import Samples
from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.proxy.model import resolve_model
from dlbench.tuner.bench import Bench
from dlbench.tuner.errors import NothingMeasured
from dlbench.tuner.plan import Plan
from dlbench.tuner.point import Point
from dlbench.tuner.space import Space, build_space
from dlbench.tuner.study import Identity, Study
from dlbench.tuner.verify import Verified, verified

if TYPE_CHECKING:
    from dlbench.loadgen.generator import Progress
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.config import StudyConfig
    from dlbench.tuner.plan import Step
    from dlbench.tuner.verify import Repeat


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    settings: ServerSettings
    profile: LoadProfile
    study: StudyConfig
    path: Path
    fresh: bool = False


class Observer:
    """Told what happens while it happens; this one keeps it to itself."""

    def note(self, text: str) -> None:
        """Something the user should know of how the study is made."""

    def step(self, step: Step, spent_s: float) -> None:
        """A measurement begins, after `spent_s` of the budget."""

    def progress(self, progress: Progress) -> None:
        """The measurement under way, twice a second."""

    def point(self, point: Point) -> None:
        """A measurement was recorded."""


def tune(request: Request, observer: Observer) -> tuple[Study, Verified]:
    """Run or resume a study until its plan is complete.

    Raises:
        TuneError: see `dlbench.tuner.errors`; what was recorded before stays in the study.
    """
    log_path = request.path.with_suffix(".log")
    with Bench(request.settings, request.profile, log_path) as bench:
        ready = bench.start(ServingConfig().resolved("cpu"))
        space = _space(request, ready)
        study = Study.create_or_resume(
            request.path, _identity(request, ready, space), fresh=request.fresh
        )
        plan = Plan(space, request.study, _client_rps(study, bench))
        for text in (*space.notes, *bench.notes):
            observer.note(text)
        _take_steps(plan, study, bench, request, observer)
    return study, _report(plan, study, request.study)


def _take_steps(
    plan: Plan, study: Study, bench: Bench, request: Request, observer: Observer
) -> None:
    points = _usable(study)
    told = False
    while (step := plan.next_step(points)) is not None:
        observer.step(step, sum(p.cost_s for p in points))
        path = study.samples_path(_stub(step))
        point = bench.measure(step, _seed(request.study.seed, step), observer.progress, path)
        study.record(point)
        points.append(point)
        observer.point(point)
        told = told or _tell_budget(plan, points, observer)


def _tell_budget(plan: Plan, points: list[Point], observer: Observer) -> bool:
    """Once the baselines' probes are in: what a trustworthy answer takes, and what this one skips."""
    if len([p for p in points if p.phase == "probe"]) < len(plan.baselines()):
        return False
    if not any(p.measurement for p in points):
        raise NothingMeasured(f"no baseline could be measured: {points[-1].failure}")
    for text in plan.remarks(points):
        observer.note(text)
    return True


def _report(plan: Plan, study: Study, config: StudyConfig) -> Verified:
    points = _usable(study)
    repeats: dict[str, list[Repeat]] = {}
    wanted = {f"{c.configuration}@{c.share:g}" for c in plan.candidates(points)}
    for point in points:
        if point.phase == "verify" and point.measurement is not None and point.name in wanted:
            samples = Samples.load(study.samples_path(point))
            repeats.setdefault(point.name, []).append((point, samples.latencies_ns))
    result = verified(repeats, config)
    study.verified = {
        "points": [p.model_dump(mode="json") for p in result.points],
        "slo": result.slo,
    }
    return result


def read_verified(study: Study) -> Verified:
    """The result that a finished study keeps; empty for one that is under way."""
    kept = study.verified
    points = tuple(Point.model_validate(p) for p in kept.get("points", []))
    return Verified(points, kept.get("slo", "none"))


def _usable(study: Study) -> list[Point]:
    """The recorded points; a repeat whose samples were thrown away has to be measured again."""
    return [
        p
        for p in study.points()
        if p.phase != "verify" or p.measurement is None or study.samples_path(p).exists()
    ]


def _space(request: Request, ready: dict[str, Any]) -> Space:
    default = ServingConfig().resolved(ready["device"])
    if not ready["batchable"]:
        default = default.model_copy(update={"max_batch_size": 1})
    repeats = bool(request.profile.distinct or request.profile.data)
    return build_space(
        default,
        physical_cores(),
        repeats_inputs=repeats,
        batchable=ready["batchable"],
        restriction=request.study.restriction,
    )


def _client_rps(study: Study, bench: Bench) -> float:
    if not study.calibration:
        study.calibration = {"client_rps": bench.calibrate(), "versions": versions()}
    return float(study.calibration["client_rps"])


def _identity(request: Request, ready: dict[str, Any], space: Space) -> Identity:
    model = resolve_model(request.settings.model)
    digest = hashlib.blake2b(Path(model.path).read_bytes(), digest_size=16).hexdigest()
    return Identity(
        {
            "model": request.settings.model,
            "model_hash": digest,
            "device": ready["device"],
            "load": request.profile.model_dump(mode="json", exclude={"seed"}),
            "seed": request.study.seed,
            "machine": f"{processor()}, {space.cores} cores",
            **space.facts,
        }
    )


def _seed(study_seed: int, step: Step) -> int:
    """Another arrival order for every measurement, the same one for the same step of a study."""
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
