"""What this machine takes for the parts of a request, measured on the real ones: the twin's input.

Service times come from the proxy's own worker processes, fed over its own links (`drive.py`). What
a request costs the front and the client is processor time in a closed loop on a real proxy; the
client's limit is measured against a null server.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from dlbench.loadgen.analysis.container import memory_left_mb
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.control import headroom
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.inputs.inputs import random_row, read_inputs
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.proxy.knob import search_values
from dlbench.proxy.models.model import resolve_model
from dlbench.tuner.bench.drive import Driven
from dlbench.tuner.budget import SERVICES_S, SWITCH_S
from dlbench.tuner.errors import OutOfTime, TuneError
from dlbench.tuner.targets.own_proxy import OwnProxy
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.calibration_parts import Parts
from dlbench.tuner.twin.fit import ObservedLoad, beside_ms, fitted
from dlbench.tuner.twin.service_times import FEWEST_BATCHES as VISITED
from dlbench.tuner.twin.service_times import MOST_WORKERS, Cell, Visits, busy_levels, cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dlbench.loadgen.control.generator import Progress
    from dlbench.loadgen.target import Target
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.bench.drive import Row
    from dlbench.tuner.targets.server_under_test import ServerUnderTest

NS, MS = 1e9, 1e3
FIRST_VISIT_S = 0.2
# A closed loop whose users keep one worker's batches full.
USERS, RUN_S, WARMUP_S = 32, 1.0, 0.2
# Of a slow model it sees so many batches, or at least the fewest.
FULL_BATCHES, FEWEST_BATCHES = 4, 2
# An open loop that leaves everybody idle most of the time, for so many requests at least.
LIGHT_SHARE, LIGHT_REQUESTS = 0.25, 20
# No loop lasts longer.
LONGEST_S = 30.0
# What the client alone can do is known after some 4 s, its null server's start included.
CLIENT_S = 4.0
ROWS = 16
# What costs are measured with: a lone worker, so that there is a core for front and client.
PLAIN = ServingConfig(workers=1)


def client_rps(generator: Generator, target: Target, profile: LoadProfile) -> float:
    """Requests per second that the generator reaches when the server has nothing to do.

    Raises TuneError where that cannot be found out: every share of a capacity would be a guess.
    """
    found = headroom.calibrate(generator, target, profile)
    if found.max_rps is None:
        raise TuneError(found.missing)
    return found.max_rps


@dataclass(frozen=True)
class Subject:
    """A model on a running proxy, with the generator that loads it, `apart` on cores of its own.

    Its server took `start_s` to start and takes some `request_s` for a request alone; `parts` says
    what is known already and what time is left.
    """

    settings: ServerSettings
    profile: LoadProfile
    server: ServerUnderTest
    generator: Generator
    target: Target
    apart: bool = False
    start_s: float = SWITCH_S
    request_s: float = 0.0
    parts: Parts = field(default_factory=Parts)


class Services(NamedTuple):
    """What was learned from the workers alone, with JSON for times where it was kept."""

    times: list[ServiceTime]
    cv: float
    way_s: float
    rss_mb: float
    result_bytes: int

    @classmethod
    def of(cls, part: dict[str, Any]) -> Services:
        """What `part` once gave."""
        return cls(**{**part, "times": [ServiceTime(**time) for time in part["times"]]})

    @property
    def part(self) -> dict[str, Any]:
        """As a study keeps it."""
        return {**self._asdict(), "times": [time.model_dump() for time in self.times]}


def calibrate(
    subject: Subject,
    note: Callable[[str], None] = lambda _: None,
    services_s: float = SERVICES_S,
) -> Calibration:
    """Measure everything, in some 10 s (slow models: more) and `services_s` for the service times.

    `note` hears what a person should know of it. The proxy has other knobs afterwards. What there
    is no time for takes none in the twin, or as long as what is like it.

    Raises:
        OutOfTime: there is no time even for a first service time.
        TuneError, ProxyError, LoadError: a part does not work, in one line.
    """
    found = services(subject, services_s, note)
    client = _client(subject, note)
    known = Calibration(
        services=tuple(found.times),
        service_cv=found.cv,
        way_s=found.way_s,
        turn_s=(client.overhead_p50_ms or 0.0) / MS,
        client_rps=client.max_rps,
        cores=physical_cores(),
        worker_rss_mb=found.rss_mb,
        memory_mb=free_memory_mb(),
        result_bytes=found.result_bytes,
        guessed=subject.target.guessed,
    )
    known = with_costs(subject, known)
    if subject.parts.left_out:
        note(f"no time to calibrate {', '.join(subject.parts.left_out)}")
    return known


def _client(subject: Subject, note: Callable[[str], None]) -> headroom.Headroom:
    def measure() -> dict[str, Any]:
        return headroom.calibrate(subject.generator, subject.target, subject.profile).model_dump()

    part = subject.parts.get("what the client can do", CLIENT_S, measure)
    client = headroom.Headroom(**part or {})
    if client.missing:
        note(client.missing)
    return client


def with_costs(subject: Subject, known: Calibration) -> Calibration:
    """With what front and client cost, seen on the real proxy in closed and in open loop."""
    full = _closed_loop(subject, known)
    if full is None:
        return known
    costs = {"front_s": full.front_s, "client_s": full.client_s, "client_open_s": full.client_s}
    found = known.model_copy(update={**costs, "hit_s": full.front_s})
    light = _light_loop(subject, full.rate_rps)
    if light is not None:
        opened, latencies_ms = light
        found = fitted(known, PLAIN, USERS, full, opened)
        beside = beside_ms(found, PLAIN, opened.rate_rps, latencies_ms)
        found = found.model_copy(update={"hit_s": found.front_s, "beside_ms": beside})
    return found.model_copy(update=_hits(subject, known, full.front_s))


def _closed_loop(subject: Subject, known: Calibration) -> ObservedLoad | None:
    drain_s = USERS * known.service_s(PLAIN.max_batch_size) / PLAIN.max_batch_size

    def measure() -> dict[str, Any]:
        run = observed(subject, PLAIN, subject.profile, users=USERS, duration_s=closed_s(known))
        return run.seen._asdict()

    wanted_s = _expected_s(subject, closed_s(known, strict=False) + drain_s)
    part = subject.parts.get("what a request costs the front", wanted_s, measure)
    return None if part is None else ObservedLoad(**part)


def _light_loop(
    subject: Subject, full_rps: float
) -> tuple[ObservedLoad, NDArray[np.float64]] | None:
    rate = LIGHT_SHARE * full_rps

    def measure() -> dict[str, Any]:
        run = observed(subject, PLAIN, subject.profile, rate=rate, duration_s=open_s(rate))
        return {"seen": run.seen._asdict(), "latencies_ms": run.latencies_ms.tolist()}

    wanted_s = _expected_s(subject, open_s(rate))
    part = subject.parts.get("what a wake-up costs it", wanted_s, measure)
    return None if part is None else (ObservedLoad(**part["seen"]), np.array(part["latencies_ms"]))


def _hits(subject: Subject, known: Calibration, front_s: float) -> dict[str, Any]:
    duration_s = RUN_S + known.service_s(1)

    def measure() -> dict[str, Any]:
        return {"hit_s": cache_hit_s(subject, front_s, duration_s)}

    wanted_s = _expected_s(subject, duration_s)
    return subject.parts.get("what a hit of the cache costs", wanted_s, measure) or {}


def _expected_s(subject: Subject, duration_s: float) -> float:
    """Expected time of a loop, including its preparation."""
    return subject.start_s + subject.request_s + WARMUP_S + duration_s


def closed_s(known: Calibration, *, strict: bool = True) -> float:
    """Length of the closed loop, so that it sees enough full batches.

    Raises TuneError (`strict`) for a model that is too slow to be seen in the time there is.
    """
    batch_s = known.service_s(PLAIN.max_batch_size, PLAIN.intra_op_threads, PLAIN.workers)
    most_s = LONGEST_S / FEWEST_BATCHES
    if strict and batch_s > most_s:
        raise TuneError(
            f"no calibration: {PLAIN.max_batch_size} rows take {batch_s:.1f} s, longer than the "
            f"{most_s:g} s that calibration can wait"
        )
    return min(LONGEST_S, max(RUN_S, FULL_BATCHES * batch_s))


def open_s(rate_rps: float) -> float:
    """Length of the light open loop, so that it sees enough requests."""
    return min(LONGEST_S, max(RUN_S, LIGHT_REQUESTS / rate_rps))


def calibrated(
    settings: ServerSettings, profile: LoadProfile, note: Callable[[str], None] = lambda _: None
) -> Calibration:
    """Like `calibrate`, with a proxy and a generator of its own, which are gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlbench-tune-")))
        generator = stack.enter_context(Generator())
        server = stack.enter_context(OwnProxy(settings, folder / "server.log"))
        target = discover(server.apply(PLAIN)["url"], profile)
        return calibrate(Subject(settings, profile, server, generator, target), note)


def services(subject: Subject, budget_s: float, note: Callable[[str], None]) -> Services:
    """Service times of every number of threads, each with workers of its own.

    Raises OutOfTime where there is no time for the first.
    """
    threads = [n for n in search_values()["intra_op_threads"] if n <= physical_cores()]
    each_s = budget_s / len(threads)
    found = [known for n in threads if (known := _kept_services(subject, n, each_s, note))]
    if not found:
        raise OutOfTime("there was no time to calibrate the twin")
    return found[0]._replace(times=[time for one in found for time in one.times])


def _kept_services(
    subject: Subject, threads: int, budget_s: float, note: Callable[[str], None]
) -> Services | None:
    """The least that is asked for is one visit of the smallest batch, and the way to a worker."""
    least_s = subject.start_s + 2 * (VISITED + 1) * subject.request_s

    def measure() -> dict[str, Any]:
        within_s = max(0.0, min(budget_s, subject.parts.left_s() - least_s))
        return _services(subject, threads, within_s, note).part

    part = subject.parts.get(f"workers with {threads} threads", least_s, measure)
    return None if part is None else Services.of(part)


def _services(
    subject: Subject, threads: int, budget_s: float, note: Callable[[str], None]
) -> Services:
    cores = physical_cores()
    fit = min(_workers_that_fit(subject.server), _workers_that_start(subject))
    count = min(busy_levels(threads, cores)[-1], fit)
    batches = search_values()["max_batch_size"]
    config = PLAIN.model_copy(update={"intra_op_threads": threads})
    path = str(resolve_model(subject.settings.model).path)
    with Driven(path, subject.settings, config, count, rows_of(subject)) as driven:
        wanted = cells(batches if driven.signature.batchable else (1,), threads, cores)
        visits = Visits([cell for cell in wanted if cell.busy <= count], cores)
        until = time.perf_counter() + budget_s
        while cell := visits.next_cell(until - time.perf_counter()):
            seconds = visits.visit_s(cell)
            visits.add(cell, driven.visit(cell, seconds, visits.expected_s(cell)))
        alone = Cell(1, threads, 1)
        way_s = driven.way_s(alone, FIRST_VISIT_S, visits.seconds(alone))
        for text in visits.remarks():
            note(text)
        return Services(
            visits.service_times(), visits.cv(), way_s, driven.rss_mb, driven.result_bytes
        )


def cache_hit_s(subject: Subject, front_s: float, duration_s: float) -> float:
    """Processor time of the front per request that the cache answers."""
    config = PLAIN.model_copy(update={"cache_size": 1024})
    same = {"distinct": 1, "zipf": 0.0, "churn": 0.0}
    profile = subject.profile.model_copy(update=same)
    run = observed(subject, config, profile, users=USERS, duration_s=duration_s)
    missed = run.requests - run.hits
    return max(0.0, run.front_s - missed * front_s) / max(1, run.hits)


class ObservedRun(NamedTuple):
    """A run: the front's processor seconds over it all, what the client took of them per request."""

    front_s: float
    client_s: float
    requests: int
    hits: int
    rate_rps: float
    latencies_ms: NDArray[np.float64]

    @property
    def seen(self) -> ObservedLoad:
        """Per request."""
        return ObservedLoad(self.rate_rps, self.front_s / self.requests, self.client_s)


def observed(
    subject: Subject, config: ServingConfig, profile: LoadProfile, **load: float
) -> ObservedRun:
    """What a load (`users` or `rate`, `duration_s`) takes of a proxy with this configuration.

    Raises TuneError where there is nothing to see, OutOfTime where it takes far too long,
    KeyboardInterrupt for a Ctrl-C meanwhile.
    """

    def look(_: Progress) -> None:
        if subject.parts.is_late:
            subject.generator.stop()

    url = subject.server.apply(config)["url"]
    target = subject.target.at(url).model_copy(update={"statistics": False})
    before = subject.server.counters()
    began_s = processor_s(before["pids"]["front"])
    with tempfile.TemporaryDirectory(prefix="dlbench-tune-") as folder:
        path = Path(folder) / "samples.npz"
        measured = subject.generator.measure(
            target, _plain(profile).model_copy(update=load), on_progress=look, samples_path=path
        ).measurement
        latencies_ns = Samples.load(path).latencies_ns
    if not measured.complete:
        # Who stops a calibration does not want what comes after it.
        raise OutOfTime("a part of the calibration") if subject.parts.is_late else KeyboardInterrupt
    front_s = processor_s(before["pids"]["front"]) - began_s
    after = subject.server.counters()
    if not measured.requests or measured.error_rate:
        raise TuneError(f"no calibration: the proxy answers with {measured.errors or 'nothing'}")
    client_cpu = 0.0 if subject.apart else measured.client_cpu
    client_s = client_cpu * measured.duration_s / measured.requests
    requests, hits = (after[name] - before[name] for name in ("requests", "cache_hits"))
    return ObservedRun(
        front_s, client_s, requests, hits, measured.throughput_rps, latencies_ns / NS * MS
    )


def rows_of(subject: Subject) -> list[Row]:
    """Requests as the load has them: from its data, or made."""
    inputs, data = subject.target.inputs, subject.profile.data
    given = read_inputs(Path(data), inputs)[:ROWS] if data else ()
    found = [row for row in given if isinstance(row, dict)]
    return found or [random_row(inputs, [subject.profile.seed, n]) for n in range(ROWS)]


def free_memory_mb() -> float:
    """MiB that processes may still take, of the machine and within the container's limit."""
    left_mb = memory_left_mb()
    available_mb = float(psutil.virtual_memory().available / 2**20)
    return available_mb if left_mb is None else min(available_mb, left_mb)


def processor_s(pid: int) -> float:
    """Seconds of processor time of a process: to the nanosecond on Linux, elsewhere to 10 ms."""
    if psutil.LINUX:
        # clock_getcpuclockid(3): the kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
        return time.clock_gettime_ns(~pid << 3 | 2) / NS
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _workers_that_fit(server: ServerUnderTest) -> int:
    """By the memory of the one that runs; at least one."""
    rss_mb = psutil.Process(server.counters()["pids"]["workers"][0]).memory_info().rss / 2**20
    return max(1, int(free_memory_mb() / rss_mb))


def _workers_that_start(subject: Subject) -> int:
    """In half of the time that is left, if they start one after the other; at least one."""
    left_s = subject.parts.left_s()
    return max(1, int(min(left_s / 2 / subject.start_s, MOST_WORKERS)))


def _plain(profile: LoadProfile) -> LoadProfile:
    """The same requests without a schedule; the timeout outlasts any batch measured."""
    defaults = {name: LoadProfile.model_fields[name].default for name in headroom.UNDONE}
    patience_s = max(profile.timeout_s, 2 * LONGEST_S)
    plain = {"request_class": {}, "warmup_s": WARMUP_S, "timeout_s": patience_s}
    return profile.model_copy(update={**defaults, **plain})
