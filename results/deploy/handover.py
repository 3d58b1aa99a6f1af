"""From a study file to a deployment: which point, which model, and what is known of the machine."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.proxy.config import GPU_WORKERS_PER_DEVICE
from dlbench.proxy.errors import ModelError
from dlbench.proxy.models.model import ModelFile, resolve_model
from dlbench.proxy.quota import whole_cores
from dlbench.proxy.settings import ServerSettings
from dlbench.results.deploy.deployment import Deployment
from dlbench.results.deploy.onnx_tensors import declared
from dlbench.results.missing import NothingToShow
from dlbench.results.records import study_points
from dlbench.tuner.errors import StudyMismatch
from dlbench.tuner.verify.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.point import Point
    from dlbench.tuner.storage.study import Study

DEFAULT_PORT = ServerSettings.model_fields["port"].default


def deployment(
    study: Study, settings: ServerSettings, name: str = "", options: Sequence[str] = ()
) -> Deployment:
    """The named point, or the recommended one, with the model of `settings`, or the study's own.

    `options` are those of the command line that `settings` came from.

    Raises:
        NothingToShow: there is no such point, or none is recommended.
        ModelError: the model is not there, or no model.
        StudyMismatch: it is another model than the one that was measured.
    """
    result, about = Verified.of(study.verified), study.identity
    point = chosen(study_points(study.points(), result), name)
    model = _model(settings.model)
    _check(model, about["model_hash"], study.path)
    inputs, outputs = declared(model.path, settings.batch_axis)
    device = about["device"] if settings.device == "auto" else settings.device
    served = {
        "model": settings.model,
        "device": device,
        "port": settings.port or DEFAULT_PORT,
    }
    facts = study.calibration
    cores = _cores(study)
    return Deployment(
        name=settings.name or model.name,
        path=model.path,
        model_hash=about["model_hash"],
        inputs=inputs,
        outputs=outputs,
        point=spelled_out(point, cores or 1, device, len(settings.device_ids)),
        settings=settings.model_copy(update=served),
        study=study.path.name,
        device=device,
        machine=about["machine"],
        cores=cores,
        load=about["load"],
        versions={"dlbench": version("dlbench"), **facts.get("versions", {})},
        options=tuple(options),
        guessed=study.guessed,
    )


def chosen(points: Sequence[Point], name: str) -> Point:
    """The point of that name, verified rather than screened; without a name the recommended one.

    Raises:
        NothingToShow: there is none; the text names those that there are.
    """
    known = [p for p in points if p.outcome]
    found = [p for p in known if (p.name == name if name else p.recommended)]
    if not found:
        names = ", ".join(dict.fromkeys(p.name for p in known)) or "no point that held"
        missing = f"there is no point {name!r} that held" if name else "nothing is recommended"
        raise NothingToShow(f"{missing}; choose one with --point: {names}")
    return found[-1]


def spelled_out(point: Point, cores: int, device: str, devices: int) -> Point:
    """The point with the workers that were started where it was measured.

    0 means "as many as there are cores", and in a container that is another number.
    """
    config, update = point.config, dict[str, int]()
    if not config.workers:
        update["workers"] = cores if device == "cpu" else GPU_WORKERS_PER_DEVICE * devices
    if config.autoscaler != "none" and not config.max_workers:
        update["max_workers"] = max(config.min_workers, cores)
    return point.model_copy(update={"config": config.model_copy(update=update)})


def _cores(study: Study) -> int | None:
    """Those that the server was measured on, or at least those that this machine had."""
    if found := study.calibration.get("calibration", {}).get("cores"):
        return int(found)
    machine = study.sittings[-1].get("machine", {}) if study.sittings else {}
    usable, limit = machine.get("usable_cores"), machine.get("cpu_limit")
    return min(usable, whole_cores(limit or usable)) if usable else None


def _model(name: str) -> ModelFile:
    try:
        return resolve_model(name)
    except ModelError as error:
        raise ModelError(f"--model {error}") from error


def _check(model: ModelFile, expected: str, study: Path) -> None:
    if model.fingerprint().hex() != expected:
        raise StudyMismatch(
            f"{model.path} is not the model of {study}; give the right one with --model"
        )
