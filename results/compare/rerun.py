"""A study's recommendation served and measured again, as the study did it: the edge to processes."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from dlbench.loadgen.analysis.machine import processor, versions
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.inputs.sizes import guess_notes
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.proxy.models.model import resolve_model
from dlbench.results.compare.comparison import difference
from dlbench.tuner.bench.bench import Bench
from dlbench.tuner.budget import WARMUP_S
from dlbench.tuner.errors import NothingMeasured
from dlbench.tuner.step import Step
from dlbench.tuner.targets.pin import on_cores, pinned
from dlbench.tuner.verify.disturbed import tally
from dlbench.tuner.verify.drift import REFERENCE
from dlbench.tuner.verify.pool import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.point import Point
    from dlbench.tuner.storage.study import Study
    from dlbench.tuner.verify.pool import Repeat
    from dlbench.tuner.verify.verification import Verified

# Away from the seeds of a study, which are random in 31 bits.
FIRST_SEED = 1 << 32


# Length of a repeat, so that three of them pool enough requests for a p99.
REPEAT_S, POOLED_REQUESTS, REPORTED_REPEATS = 1.5, 2000, 3


class Candidate(NamedTuple):
    """An operating point to be measured again."""

    configuration: str
    config: ServingConfig
    share: float
    rate: float

    @property
    def name(self) -> str:
        """The name of its points."""
        return f"{self.configuration}@{self.share:g}"

    @property
    def repeat_s(self) -> float:
        """Length of one repeat."""
        return max(REPEAT_S, POOLED_REQUESTS / REPORTED_REPEATS / self.rate)


@dataclass(frozen=True)
class Rerun:
    """What to measure again: candidates, each in every round, within `budget_s` of measuring."""

    settings: ServerSettings
    profile: LoadProfile
    candidates: tuple[Candidate, ...]
    pin: str
    rounds: int
    budget_s: float | None = None

    @classmethod
    def of(
        cls,
        study: Study,
        result: Verified,
        settings: ServerSettings,
        rounds: int,
        budget_s: float | None = None,
    ) -> Self:
        """Of what a study recommends, under its own load. Raises NothingMeasured: nothing is."""
        known = study.identity
        profile = LoadProfile.model_validate({**known["load"], "seed": 0})
        pin = known.get("pin", "auto")
        return cls(settings, profile, candidates(study, result), pin, rounds, budget_s)

    @property
    def round_s(self) -> float:
        """What one round takes, changes of configuration not included."""
        return sum(c.repeat_s + WARMUP_S for c in self.candidates)


def candidates(study: Study, result: Verified) -> tuple[Candidate, ...]:
    """The recommendation, and beside it the default configuration where that held.

    Raises:
        NothingMeasured: the study recommends nothing, or is not finished.
    """
    pick = result.recommended
    if pick is None:
        if not result.points:
            raise NothingMeasured(f"{study.path} is unfinished; resume it with {study.command}")
        raise NothingMeasured(f"{study.path} recommends nothing; there is nothing to verify")
    # Beside the recommendation: if it changed as much, it is the machine that did.
    wanted, beside = [pick], result.baseline(REFERENCE)
    if beside is not None and beside.outcome is not None and beside.config != pick.config:
        wanted.append(beside)
    recorded = study.points()
    return tuple(_candidate(point, recorded) for point in wanted)


def _candidate(point: Point, recorded: Sequence[Point]) -> Candidate:
    """At the rate that its repeats had on average: what was offered is not kept itself."""
    repeats = [p for p in recorded if p.phase == "verify" and p.name == point.name]
    measured = [p.measurement for p in repeats or [point] if p.measurement is not None]
    rates = [m.offered_rps for m in measured if m.offered_rps is not None]
    share = point.share or 0.0
    return Candidate(point.configuration, point.config, share, float(np.mean(rates)))


def notes(study: Study, settings: ServerSettings, pin: str) -> list[str]:
    """What is not as it was when the study was made. Raises ModelError: the model is gone."""
    known, digest = study.identity, resolve_model(settings.model).fingerprint().hex()
    with on_cores(pinned(pin).server):
        machine = f"{processor()}, {physical_cores()} cores"
    found = list(guess_notes(study.guessed))
    if known.get("model_hash", digest) != digest:
        found.append("the model file has changed")
    if known.get("machine", machine) != machine:
        found.append(f"another machine: {machine}, not {known['machine']}")
    return found + difference("versions", study.calibration.get("versions", versions()), versions())


class Again(NamedTuple):
    """Pooled points by name, and what else ran while they were measured, "" if nothing did."""

    points: Mapping[str, Point]
    disturbed: str


def measure_again(rerun: Rerun, say: Callable[[str], object]) -> Again:
    """The candidates, their repeats interleaved and pooled as a study pools them.

    At least one round is measured, and then as many as fit; `say` is told of each measurement.
    Nothing is left running or lying about.

    Raises:
        TuneError, ProxyError, LoadError: the server or the generator does not come up.
    """
    found: dict[str, list[Repeat]] = {c.name: [] for c in rerun.candidates}
    with tempfile.TemporaryDirectory(prefix="dlbench-verify-") as folder:
        log = Path(folder) / "server.log"
        with Bench(rerun.settings, rerun.profile, log, pinned(rerun.pin)) as bench:
            bench.start(ServingConfig().resolved("cpu"))
            for number in rounds_within(rerun):
                for candidate in _order(rerun.candidates, number):
                    say(_said(candidate, number, rerun.rounds))
                    repeat = _measure(bench, candidate, number, Path(folder))
                    found[candidate.name].append(repeat)
    disturbed = tally([point for own in found.values() for point, _ in own])
    return Again({name: _pooled(repeats) for name, repeats in found.items()}, disturbed)


def rounds_within(rerun: Rerun, now: Callable[[], float] = time.perf_counter) -> Iterator[int]:
    """The numbers of the rounds, from 1, as long as one as long as the longest still fits."""
    began, longest_s = now(), rerun.round_s
    budget_s = math.inf if rerun.budget_s is None else rerun.budget_s
    for number in range(1, rerun.rounds + 1):
        started = now()
        if number > 1 and started - began + longest_s > budget_s:
            return
        yield number
        longest_s = max(longest_s, now() - started)


def _order(candidates: Sequence[Candidate], number: int) -> Sequence[Candidate]:
    """Backwards in every second round: none is always the first, and configurations change less."""
    return candidates if number % 2 else candidates[::-1]


def _said(candidate: Candidate, number: int, rounds: int) -> str:
    return f"{candidate.name} at {candidate.rate:,.0f}/s, round {number} of {rounds}"


def _measure(bench: Bench, candidate: Candidate, number: int, folder: Path) -> Repeat:
    name, config, share, rate = candidate
    step = Step(name, config, "verify", candidate.repeat_s, share, rate, number)
    path = folder / "samples.npz"
    point = bench.measure(step, FIRST_SEED + number, lambda _: None, path)
    if point.measurement is None:
        return point, np.empty(0)
    return point, Samples.load(path).latencies_ms


def _pooled(repeats: Sequence[Repeat]) -> Point:
    """One point; a configuration that failed in any round is a failed one."""
    failed = next((point for point, _ in repeats if point.measurement is None), None)
    return failed or pool(repeats)
