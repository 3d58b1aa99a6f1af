"""All that a report shows of a study, as one JSON document: what `page.js` draws from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.proxy.settings import ServerSettings
from dlbench.results.findings import answer, asked, changes
from dlbench.results.page.convergence import best_throughput, progress, stages
from dlbench.results.page.point_rows import configurations, page_rows, uncounted
from dlbench.results.page.provenance import page_facts, searched
from dlbench.results.records import bound_record
from dlbench.tuner.front import hypervolume
from dlbench.tuner.verify.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.point import Point
    from dlbench.tuner.storage.study import Study


def page_document(study: Study) -> dict[str, Any]:
    """Everything, read from the study file alone: finished or under way, samples or not."""
    points, result, about = study.points(), Verified.of(study.verified), study.identity
    learnt = result.insight
    return {
        "study": study.path.name,
        "model": Path(about["model"]).name,
        "device": about["device"],
        "finished": bool(result.points),
        "slo_p99_ms": asked(study).slo_p99_ms,
        "answer": answer(study, result),
        "bounds": [
            {**bound_record(row), "changes": changes(row.config, result)} for row in result.bounds
        ],
        "configurations": configurations(points, result, _settings(study)),
        "searched": searched(about),
        "points": page_rows(points, result),
        "progress": _progress(study, points, result),
        "importances": learnt.importances._asdict() if learnt else None,
        "uncounted": uncounted(points),
        "facts": page_facts(about, study.calibration, study.sittings, points, study.spent_s),
    }


def _settings(study: Study) -> ServerSettings:
    """What a server needs to know beside the knobs, as far as the study keeps it."""
    return ServerSettings.model_validate(study.settings)


def _progress(study: Study, points: Sequence[Point], result: Verified) -> dict[str, Any]:
    known = study.calibration
    before_s = known.get("calibration_s", 0.0) + known.get("foresight_s", 0.0)
    best_rps = best_throughput([*points, *result.points])
    reference_ms = asked(study).reference_ms
    front = [p.outcome for p in result.points if p.on_front and p.outcome]
    default = [p.outcome for p in result.points if p.configuration == "default" and p.outcome]
    return {
        "reference_ms": reference_ms,
        "reached": [list(r) for r in progress(points, best_rps, before_s, reference_ms)],
        "stages": [list(stage) for stage in stages(points, before_s)],
        "spent_s": study.spent_s,
        "verified": hypervolume(front, best_rps, reference_ms) if front else None,
        "default": hypervolume(default, best_rps, reference_ms) if default else None,
    }
