"""The formats that a study's points are exported in: one table, from a format's name to its writer."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import to_json

from dlbench.results.findings import answer
from dlbench.results.markdown import markdown
from dlbench.results.parquet import parquet
from dlbench.results.picture import front_svg, png
from dlbench.results.records import document, rows, study_points, write_csv
from dlbench.tuner.verify.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dlbench.tuner.point import Point
    from dlbench.tuner.storage.study import Study


@dataclass(frozen=True)
class Content:
    """The content of an export: the records, the result, its findings and its subject."""

    recorded: list[Point]
    result: Verified
    findings: Mapping[str, str]
    about: Mapping[str, Any]
    wall_s: float = 0.0

    @classmethod
    def of(cls, study: Study) -> Self:
        """All that a study file holds."""
        result = Verified.of(study.verified)
        return cls(study.points(), result, answer(study, result), study.identity, study.spent_s)

    @cached_property
    def points(self) -> list[Point]:
        """One for every row: the repeats of a verified point are the one that they make."""
        return study_points(self.recorded, self.result)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The points under the CSV's names."""
        return rows(self.points, self.result.estimates)

    @property
    def svg(self) -> str:
        """The front as a picture."""
        return front_svg(self.recorded, self.result)


def _csv(content: Content) -> bytes:
    stream = io.StringIO()
    write_csv(content.points, stream, content.result.estimates)
    return stream.getvalue().encode()


def _json(content: Content) -> bytes:
    """The document of `dlbench tune --json`, but with every point and not the verified ones alone."""
    whole = {**document(content.result, content.findings, content.wall_s), "points": content.rows}
    return to_json(whole, indent=2, inf_nan_mode="strings") + b"\n"


def _markdown(content: Content) -> bytes:
    return markdown(content.recorded, content.result, content.findings, content.about).encode()


# A format is also the suffix of its files.
FORMATS: dict[str, Callable[[Content], bytes]] = {
    "csv": _csv,
    "json": _json,
    "parquet": lambda content: parquet(content.rows),
    "md": _markdown,
    "svg": lambda content: content.svg.encode(),
    "png": lambda content: png(content.svg),
}
