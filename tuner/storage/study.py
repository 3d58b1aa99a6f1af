"""The study file: every point as a trial of a multi-objective Optuna study in SQLite.

Format 1 (dlbench 0.1): one Optuna study named "dlbench", directions maximise `throughput_rps`,
minimise `p99_ms`. A trial is one point: its parameters are the knobs and `load_share`, its user
attribute `point` is the whole record. What may not stand on a front carries a violated constraint,
and every bound that was asked for is one: over 0 by so much of the bound as the value is off.
The study's user attributes are `format`, `identity`, `sittings`, `calibration`, `spent_s` and
`verified`.
Raw samples lie beside the file in `NAME.samples/` and may be thrown away.
"""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import warnings
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy.exc
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial
from pydantic import ValidationError
from sqlalchemy.pool import QueuePool

from dlbench.proxy.knob import KNOBS
from dlbench.tuner.budget import spent_s
from dlbench.tuner.constraint import Constraints
from dlbench.tuner.errors import NotKept, StudyMismatch, StudyUnreadable
from dlbench.tuner.point import Point
from dlbench.tuner.verify.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT = 1
NAME = "dlbench"
FRONT = "may_stand_on_a_front"
# Of a capacity that one short probe showed: a window may be well over it.
MOST_SHARE = 1000.0
# Some of them are there when a study was killed while it was made.
OPTUNA_S = {"studies", "trials", "version_info", "alembic_version", "study_directions"}


@dataclass(frozen=True)
class Identity:
    """What a study is about: its points may not be mixed with another's."""

    facts: Mapping[str, Any]

    def check(self, other: Mapping[str, Any], path: Path) -> None:
        """Raise StudyMismatch, naming the first fact that differs."""
        known = _flat(other)
        for fact, value in _flat(self.facts).items():
            if known.get(fact) != value:
                raise StudyMismatch(
                    f"{path} is a study with {fact} {known.get(fact)!r}, not {value!r}; "
                    "use --study for another file or --fresh to start this one over"
                )


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of what has parts by their own names: an error shall name `load.zipf` alone."""
    parts = {
        f"{fact}.{name}": value
        for fact, whole in facts.items()
        if isinstance(whole, dict)
        for name, value in whole.items()
    }
    return {f: v for f, v in facts.items() if not isinstance(v, dict)} | parts


class Study:
    """One study file, open for reading and appending."""

    def __init__(self, path: Path, optuna_study: optuna.Study) -> None:
        self.path = path
        self._study = optuna_study

    @classmethod
    def create_or_resume(cls, path: Path, identity: Identity, *, fresh: bool = False) -> Study:
        """Open the file for a study of `identity`, made if it is not there.

        Raises:
            StudyMismatch: it belongs to another model, load, space or seed.
            StudyUnreadable: it is not a study file.
            NotKept: nothing can be written there.
        """
        _check_own(path)
        if fresh:
            discard(path)
        made = not path.exists()
        try:
            return cls._made(path, identity)
        except NotKept:
            if made:  # what is half made is of no use to anybody
                path.unlink(missing_ok=True)
            raise

    @classmethod
    def _made(cls, path: Path, identity: Identity) -> Study:
        study = cls(path, _load(path, create=True))
        known = study._study.user_attrs
        if "identity" in known:
            study.check_records()
            identity.check(known["identity"], path)
        else:
            study._set("format", FORMAT)
            study._set("identity", dict(identity.facts))
        return study

    @classmethod
    def open(cls, path: Path) -> Study:
        """Open an existing study file for reading."""
        if path.is_dir():
            raise StudyUnreadable(f"{path} is a folder; name a study file (.db) in it")
        if not path.is_file():
            raise StudyUnreadable(f"{path}: no such study file")
        if not _check_own(path):
            raise StudyUnreadable(f"{path}: this file contains no study")
        study = cls(path, _load(path, create=False))
        study.check_records()
        return study

    @classmethod
    def open_if_made(cls, path: Path) -> Study | None:
        """Like `open`; None where nothing is there yet, or nothing was made of it."""
        return cls.open(path) if _check_own(path) else None

    def check_records(self) -> None:
        """See to it that this version understands all of it. Raises StudyUnreadable."""
        if self._study.user_attrs.get("format") != FORMAT:
            raise StudyUnreadable(f"{self.path}: not a dlbench study of format {FORMAT}")
        try:
            self.points()
            Verified.of(self.verified)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise StudyUnreadable(
                f"{self.path} was made by another version of dlbench ({where}: {first['msg']}); "
                "use that version, or tune --fresh"
            ) from None

    def points(self) -> list[Point]:
        """Every recorded point, in the order of measuring."""
        trials = self._study.get_trials(deepcopy=False)
        return [
            Point.model_validate(t.user_attrs["point"]) for t in trials if "point" in t.user_attrs
        ]

    def record(self, point: Point, demands: Constraints = Constraints()) -> None:  # noqa: B008
        """Append a point, durably, before the next measurement begins.

        Raises:
            ValueError: a demand is on a figure that is not a number, or a knob is out of bounds.
            NotKept: it cannot be written down, as of all that is noted here.
        """
        with _writing(self.path):
            self._study.add_trial(_trial(point, demands))

    def samples_path(self, point: Point) -> Path:
        """Where the raw samples of a point are kept."""
        folder = self.path.with_suffix(".samples")
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        return folder / f"{point.phase}-{point.name}-{point.repeat}.npz"

    def _set(self, name: str, value: Any) -> None:  # noqa: ANN401 - any JSON
        with _writing(self.path):
            self._study.set_user_attr(name, value)

    @property
    def identity(self) -> dict[str, Any]:
        """What the study is about."""
        return dict(self._study.user_attrs["identity"])

    @property
    def sittings(self) -> list[dict[str, Any]]:
        """For each time that `tune` worked on it: when it `began`, its `command`, and its facts.

        One that was carried out to its end has `ended` too.
        """
        return list(self._study.user_attrs.get("sittings", []))

    @property
    def guessed(self) -> dict[str, list[int]]:
        """Shapes of inputs that nobody stated, a row of each."""
        return dict(self.sittings[-1].get("guessed", {})) if self.sittings else {}

    @property
    def command(self) -> str:
        """What goes on with it, as a shell takes it: the last sitting's, that starts nothing over."""
        words = ["dlbench", "tune", self.identity["model"], "--study", str(self.path)]
        if self.sittings and (last := self.sittings[-1].get("command")):
            words = [word for word in shlex.split(last) if word != "--fresh"]
        return shlex.join(words)

    @property
    def settings(self) -> dict[str, Any]:
        """What its server was told beside the knobs: fields of ServerSettings, as far as known."""
        about = self.identity
        known = {"model": about["model"], "device": about["device"]}
        known |= {"shape": about.get("load", {}).get("shape", {})}
        told = self.sittings[-1].get("settings", {}) if self.sittings else {}
        return {**known, **told, "device": about["device"]}

    def sit_down(self, about: Mapping[str, Any]) -> None:
        """Note who begins or goes on with the study, and where."""
        self._set("sittings", [*self.sittings, dict(about)])

    @property
    def has_ended(self) -> bool:
        """Whether the last sitting was carried out to its end."""
        return bool(self.sittings) and "ended" in self.sittings[-1]

    def end_sitting(self, spent_s: float) -> None:
        """Note that nothing is left to do, after so many seconds of all sittings."""
        self.spent_s = spent_s
        *earlier, last = self.sittings
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self._set("sittings", [*earlier, {**last, "ended": ended}])

    @property
    def spent_s(self) -> float:
        """Wall time of all sittings, up to what was written down last."""
        kept, points = float(self._study.user_attrs.get("spent_s", 0.0)), self.points()
        before_s = sum(self.calibration.get(name, 0.0) for name in ("calibration_s", "foresight_s"))
        return max(kept, spent_s(points, before_s))

    @spent_s.setter
    def spent_s(self, seconds: float) -> None:
        self._set("spent_s", seconds)

    @property
    def calibration(self) -> dict[str, Any]:
        """What was measured once, before anything else; empty if it was not yet."""
        return dict(self._study.user_attrs.get("calibration", {}))

    @calibration.setter
    def calibration(self, facts: Mapping[str, Any]) -> None:
        self._set("calibration", dict(facts))

    @property
    def verified(self) -> dict[str, Any]:
        """The reported result (`points`, `slo`); empty while the study is under way."""
        return dict(self._study.user_attrs.get("verified", {}))

    @verified.setter
    def verified(self, result: Mapping[str, Any]) -> None:
        self._set("verified", dict(result))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a full disk or a file that may not be written to leads to into NotKept."""
    try:
        yield
    except OSError as error:
        raise NotKept(f"{path}: cannot be written: {error.strerror}") from error
    except (sqlalchemy.exc.OperationalError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        reason = getattr(cause, "orig", None) or str(cause).splitlines()[0]
        raise NotKept(f"{path}: cannot be written: {reason}") from error


def discard(path: Path) -> None:
    """Remove a study file and its samples."""
    path.unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(".samples"), ignore_errors=True)


def _check_own(path: Path) -> bool:
    """Whether a file holds a study; False: it is not there or empty, so one may be made in it.

    Optuna makes its tables in whatever it opens, so it is not asked. A half-made study, without its
    name yet, may be taken up; what belongs to somebody else may not.

    Raises:
        StudyUnreadable: it is another kind of file.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    try:
        # Not read-only: what a killed writer left half-done has to be rolled back.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as file:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
            names = _names(file) if "studies" in tables else set()
    except sqlite3.Error as error:
        raise StudyUnreadable(f"{path}: not a usable study file ({error})") from error
    if names - {NAME} or (tables and not tables & OPTUNA_S):
        raise StudyUnreadable(
            f"{path}: not a dlbench study: the database belongs to another program"
        )
    return NAME in names


def _names(file: sqlite3.Connection) -> set[str]:
    return {name for (name,) in file.execute("SELECT study_name FROM studies")}


def _load(path: Path, *, create: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # The path is no part of the URL: there # ? % { } and others have a meaning of their own.
        connect: dict[str, Any] = {"poolclass": QueuePool}
        connect |= {"creator": partial(sqlite3.connect, path, check_same_thread=False)}
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=connect)
        if not create:
            return optuna.load_study(study_name=NAME, storage=storage)
        study = optuna.create_study(
            study_name=NAME,
            storage=storage,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
    except sqlalchemy.exc.OperationalError as error:
        raise NotKept(f"{path}: cannot be written: {error.orig}") from error
    except (sqlalchemy.exc.SQLAlchemyError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StudyUnreadable(f"{path}: not a usable study file ({reason})") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["throughput_rps", "p99_ms"])
    return study


def _trial(point: Point, demands: Constraints) -> optuna.trial.FrozenTrial:
    params = {**point.config.model_dump(), "load_share": point.share}
    known = {name: v for name, v in params.items() if v is not None and not isinstance(v, tuple)}
    return create_trial(
        params=known,
        distributions={name: _distribution(name) for name in known},
        user_attrs={"point": point.model_dump(mode="json"), "phase": point.phase},
        **_result(point, demands),
    )


def _result(point: Point, demands: Constraints) -> dict[str, Any]:
    """What came of a trial, as Optuna wants to be told: 0 or less is a constraint that is met."""
    measured = point.measurement
    if measured is None or measured.p99_ms is None:
        return {"state": TrialState.FAIL}
    bounds = zip((o.text for o in demands.objectives), demands.estimated(point), strict=True)
    return {
        "values": [measured.throughput_rps, measured.p99_ms],
        "constraints": {FRONT: 0.0 if point.outcome else 1.0, **dict(bounds)},
    }


def _distribution(name: str) -> BaseDistribution:
    """A knob's declared bounds as Optuna's distribution."""
    if name == "load_share":
        return FloatDistribution(0.0, MOST_SHARE)
    knob = KNOBS[name]
    if knob.choices:
        return CategoricalDistribution(knob.choices)
    kind = IntDistribution if knob.kind is int else FloatDistribution
    return kind(knob.low, knob.high)
