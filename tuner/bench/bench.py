"""The bench: one generator and one proxy, and a step of the plan carried out on them."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import psutil

from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.engine.sockets import check_descriptors, limits
from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.protocols.discovery import discover
from dlbench.proxy.config import physical_cores
from dlbench.tuner.bench.agreement import ReferenceAnswers
from dlbench.tuner.bench.calibrate import Subject, calibrate, client_rps
from dlbench.tuner.bench.disturbance import disturbances, is_calm, now
from dlbench.tuner.budget import SERVICES_S, SWITCH_S, WARMUP_S
from dlbench.tuner.errors import OutOfTime, ServerFailed
from dlbench.tuner.point import Point
from dlbench.tuner.targets.littles_law import flow, violation
from dlbench.tuner.targets.own_proxy import Meter, OwnProxy
from dlbench.tuner.targets.pin import ANYWHERE, on_cores
from dlbench.tuner.twin.calibration_parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dlbench.loadgen.control.generator import Progress, Run
    from dlbench.loadgen.measurement import Measurement
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.step import Step
    from dlbench.tuner.targets.littles_law import Held
    from dlbench.tuner.targets.pin import Pinning
    from dlbench.tuner.targets.server_under_test import ServerUnderTest
    from dlbench.tuner.twin.calibration import Calibration

# A probe keeps every worker's queue full: two batches each, and some for the front itself.
PROBE_USERS = 16
PROBE_SPARE_S = 0.5
MOST_PROBE_USERS = 512
# Open loops have a pool of connections, as a gateway has. It gives the proxy more at once than the
# probe does, so it is not what limits it; but a pile does not cost it a new connection for every
# request. On two cores that client and server share, that alone made loads collapse which with a
# pool complete without an error.
POOL = 256
# Warming a cache: windows of load until the hit ratio moves by less than this, or patience ends.
WARM_WINDOW_S = 0.4
CACHE_STEADY = 0.02
CACHE_WINDOWS = 12
LATE = "the budget ran out during this measurement"


class Bench:
    """Context manager around the running pieces; `measure` turns a step into a point."""

    def __init__(
        self,
        settings: ServerSettings,
        profile: LoadProfile,
        log_path: Path,
        pinning: Pinning = ANYWHERE,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._pinning = pinning
        self._server: ServerUnderTest = OwnProxy(settings, log_path, pinning.server)
        self._generator = Generator()
        self._stack = ExitStack()
        self._deadline_s = math.inf
        # What a change of configuration may cost: a start, the answers, the replies to two probes.
        self.start_s = self.first_switch_s = SWITCH_S
        self._target: Target | None = None
        self._warm: ServingConfig | None = None

    def __enter__(self) -> Self:
        with on_cores(self._pinning.client):
            self._stack.enter_context(self._generator)
        self._stack.enter_context(self._server)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(None, None, None)

    def start(self, config: ServingConfig) -> dict[str, Any]:
        """Serve with a first configuration; returns what the proxy says of the model.

        Raises:
            ServerFailed: it does not come up.
            BudgetError: there are too few file descriptors for the connections of a study.
        """
        check_descriptors(POOL, limits())
        began = time.perf_counter()
        ready = self._server.start(config)
        self._target = discover(ready["url"], self._profile)
        started = time.perf_counter()
        self._answers = ReferenceAnswers.of(self._target, self._profile)
        request_s = self._answers.request_s
        waits_s = 2 * min(self._profile.timeout_s, _users(config, request_s) * request_s)
        self.start_s = started - began
        self.first_switch_s = self.start_s + self._answers.again_s + waits_s
        return ready

    def calibrate(
        self,
        note: Callable[[str], None],
        services_s: float = SERVICES_S,
        parts: Parts | None = None,
    ) -> Calibration:
        """What this machine takes for the parts of a request, measured in some 10 s and `services_s`.

        Raises:
            OutOfTime: `parts` leaves no time for any.
            TuneError, ProxyError, LoadError: a part does not work, in one line.
        """
        assert self._target is not None, "start() comes first"
        self._warm = None  # it leaves other knobs behind
        told = (self._settings, self._profile, self._server, self._generator, self._target)
        apart = self._pinning.client is not None
        spent = (self.start_s, self._answers.request_s)
        subject = Subject(*told, apart, *spent, parts or Parts())
        with on_cores(self._pinning.server):
            return calibrate(subject, note, services_s)

    def client_rps(self) -> float:
        """What the client alone can do with this model's requests, in requests per second."""
        assert self._target is not None, "start() comes first"
        with on_cores(self._pinning.server):  # where the null server stands in for it
            return client_rps(self._generator, self._target, self._profile)

    @property
    def cores(self) -> int:
        """Physical cores that the server has."""
        with on_cores(self._pinning.server):
            return physical_cores()

    @property
    def guessed(self) -> dict[str, tuple[int, ...]]:
        """Guessed shapes of inputs, one row each."""
        return self._target.guessed if self._target else {}

    @property
    def gpu_figures(self) -> bool:
        """Whether points will say what the server's GPUs did."""
        watch = self._server.gpu_watch()
        watch.look()
        return watch.most_mb is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be guessed about the model's inputs, and what is not checked."""
        return (*self._target.notes, *self._answers.notes) if self._target else ()

    def measure(
        self,
        step: Step,
        seed: int,
        on_progress: Callable[[Progress], None],
        samples_path: Path,
        left_s: float = math.inf,
    ) -> Point:
        """Carry out one step; a failing configuration becomes a point with its failure.

        Raises:
            OutOfTime: it is not done within `left_s` and its own length.
        """
        began = time.perf_counter()
        self._deadline_s = began + left_s + step.duration_s
        point = Point(
            configuration=step.configuration,
            phase=step.phase,
            config=step.config,
            share=step.share,
            repeat=step.repeat,
        )
        try:
            found = self._run(step, seed, on_progress, samples_path)
        except (ServerFailed, psutil.Error) as error:
            self._forget_server()
            found = {"failure": str(error), "log_tail": getattr(error, "log_tail", "")}
        return point.model_copy(update={**found, "cost_s": time.perf_counter() - began})

    def _run(
        self, step: Step, seed: int, on_progress: Callable[[Progress], None], samples_path: Path
    ) -> dict[str, Any]:
        target = self._serve(step.config)
        self._warm_up(step.config, target)
        load = _load(step, self._profile, self._answers.request_s)
        profile = self._profile.model_copy(update={**load, "seed": seed})
        around, meter = now(), Meter(self._server)

        def look(progress: Progress) -> None:
            meter.look()
            on_progress(progress)

        result = self._offer(target, profile, look, samples_path)
        used, after = meter.read(), now()
        if used.lost and step.config.autoscaler == "none":
            raise self._server.failure("a worker died during the measurement")
        return {
            "measurement": _lawful(result, profile, used.held, calm=is_calm(around, after)),
            "resources": used.resources,
            "disturbances": disturbances(around, after),
        }

    def _offer(
        self,
        target: Target,
        profile: LoadProfile,
        on_progress: Callable[[Progress], None] = lambda _: None,
        samples_path: Path | None = None,
    ) -> Run:
        """A load to its end. Raises OutOfTime, and KeyboardInterrupt for a Ctrl-C meanwhile."""

        def look(progress: Progress) -> None:
            on_progress(progress)
            if self._is_late:
                self._generator.stop()

        if self._is_late:
            raise OutOfTime(LATE)
        run = self._generator.measure(target, profile, on_progress=look, samples_path=samples_path)
        if not run.measurement.complete:
            raise OutOfTime(LATE) if self._is_late else KeyboardInterrupt
        return run

    @property
    def _is_late(self) -> bool:
        return time.perf_counter() > self._deadline_s

    def _serve(self, config: ServingConfig) -> Target:
        ready = self._server.apply(config) if config != self._warm else None
        if ready is not None:
            self._warm = None
            assert self._target is not None, "start() comes first"
            self._target = self._target.at(ready["url"])
            self._check_answers(self._target)
        assert self._target is not None
        return self._target

    def _check_answers(self, target: Target) -> None:
        try:
            why = self._answers.differs(target, self._profile)
        except TargetError as error:
            why = str(error)
        if why:
            raise self._server.failure(why)

    def _warm_up(self, config: ServingConfig, target: Target) -> None:
        """Load until the hit ratio is steady; every configuration starts with an empty cache."""
        if config == self._warm:
            return
        profile = self._profile.model_copy(
            update={
                "users": _users(config, self._answers.request_s),
                "rate": None,
                "duration_s": WARM_WINDOW_S,
            }
        )
        ratio = -1.0
        for window in range(CACHE_WINDOWS if config.cache_size else 1):
            meter = Meter(self._server)
            self._offer(target, profile.model_copy(update={"warmup_s": 0.0, "seed": window}))
            before, ratio = ratio, meter.read().resources.cache_hit_ratio or 0.0
            if abs(ratio - before) < CACHE_STEADY:
                break
        self._warm = config

    def _forget_server(self) -> None:
        self._server.stop()
        self._warm = None


def _users(config: ServingConfig, request_s: float) -> int:
    """Number of users: fewer for a slow model, since each must be waited for."""
    spare = min(PROBE_USERS, max(2, round(PROBE_SPARE_S / max(request_s, 1e-9))))
    return min(MOST_PROBE_USERS, spare + 2 * config.workers * config.max_batch_size)


def _connections(config: ServingConfig) -> int:
    return max(POOL, 2 * _users(config, 0.0))


def _lawful(run: Run, profile: LoadProfile, held: Held, *, calm: bool) -> Measurement:
    """The measurement, invalid if Little's law says so."""
    found = run.measurement
    if found.verdict == "invalid":
        return found
    users = 0 if profile.think_s else profile.users or 0
    calm = calm and found.verdict == "ok"
    why = violation(flow(run.samples, users, held, calm=calm))
    return found.model_copy(update={"verdict": "invalid", "reason": why}) if why else found


def _load(step: Step, asked: LoadProfile, request_s: float) -> dict[str, Any]:
    """The step as a load profile: a probe is a closed loop, the rest follows a schedule."""
    return {
        "users": _users(step.config, request_s) if step.rate is None else None,
        "rate": step.rate,
        "connections": asked.connections or _connections(step.config),
        "duration_s": step.duration_s,
        "warmup_s": WARMUP_S,
    }
