"""What this machine takes for the parts of a request, measured on the real ones: the twin's input.

Service times come from the proxy's own worker processes, fed over its own links (`drive.py`). What
a request costs the front and the client is processor time in a closed loop on a real proxy; what
the client can do at most is seen against a null server.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from dlbench.loadgen import headroom
from dlbench.loadgen.container import memory_left_mb
from dlbench.loadgen.discovery import discover
from dlbench.loadgen.generator import Generator
from dlbench.loadgen.inputs import random_row, read_inputs
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.samples import Samples
from dlbench.proxy.config import ServingConfig, physical_cores, search_values
from dlbench.proxy.model import resolve_model
from dlbench.tuner.budget import SERVICES_S
from dlbench.tuner.calibration import Calibration
from dlbench.tuner.drive import Driven
from dlbench.tuner.errors import TuneError
from dlbench.tuner.fit import Seen, beside_ms, fitted
from dlbench.tuner.server import Server
from dlbench.tuner.service_times import Cell, Visits, busy_levels, cells

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from dlbench.loadgen.target import Target
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.calibration import ServiceTime
    from dlbench.tuner.drive import Row

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
    """A model on a running proxy, with the generator that loads it, `apart` on cores of its own."""

    settings: ServerSettings
    profile: LoadProfile
    server: Server
    generator: Generator
    target: Target
    apart: bool = False


class Services(NamedTuple):
    """What was learned from the workers alone."""

    times: list[ServiceTime]
    cv: float
    way_s: float
    rss_mb: float
    result_bytes: int


def calibrate(
    subject: Subject,
    note: Callable[[str], None] = lambda _: None,
    services_s: float = SERVICES_S,
) -> Calibration:
    """Measure everything, in some 10 s (slow models: more) and `services_s` for the service times.

    `note` hears what a person should know of it. The proxy has other knobs afterwards.

    Raises:
        TuneError, ProxyError, LoadError: a part does not work, in one line.
    """
    found = services(subject, services_s, note)
    client = headroom.calibrate(subject.generator, subject.target, subject.profile)
    if client.missing:
        note(client.missing)
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
    return with_costs(subject, known)


def with_costs(subject: Subject, known: Calibration) -> Calibration:
    """With what front and client cost, seen on the real proxy in closed and in open loop."""
    full = observed(subject, PLAIN, subject.profile, users=USERS, duration_s=closed_s(known))
    closed = Seen(full.rate_rps, full.front_s / full.requests, full.client_s)
    rate = LIGHT_SHARE * full.rate_rps
    light = observed(subject, PLAIN, subject.profile, rate=rate, duration_s=open_s(rate))
    opened = Seen(light.rate_rps, light.front_s / light.requests, light.client_s)
    found = fitted(known, PLAIN, USERS, closed, opened)
    beside = beside_ms(found, PLAIN, opened.rate_rps, light.latencies_ms)
    hit_s = cache_hit_s(subject, closed.front_s, RUN_S + known.service_s(1))
    return found.model_copy(update={"hit_s": hit_s, "beside_ms": beside})


def closed_s(known: Calibration) -> float:
    """Length of the closed loop, so that it sees enough full batches.

    Raises TuneError for a model that is too slow to be seen in the time there is.
    """
    batch_s = known.service_s(PLAIN.max_batch_size, PLAIN.intra_op_threads, PLAIN.workers)
    most_s = LONGEST_S / FEWEST_BATCHES
    if batch_s > most_s:
        raise TuneError(
            f"no calibration: {PLAIN.max_batch_size} rows take {batch_s:.1f} s, and a model that "
            f"takes over {most_s:g} s for them is too slow for it"
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
        server = stack.enter_context(Server(settings, folder / "server.log"))
        target = discover(server.apply(PLAIN)["url"], profile)
        return calibrate(Subject(settings, profile, server, generator, target), note)


def services(subject: Subject, budget_s: float, note: Callable[[str], None]) -> Services:
    """Service times of every number of threads, each with workers of its own."""
    threads = [n for n in search_values()["intra_op_threads"] if n <= physical_cores()]
    found = [_services(subject, n, budget_s / len(threads), note) for n in threads]
    return found[0]._replace(times=[time for one in found for time in one.times])


def _services(
    subject: Subject, threads: int, budget_s: float, note: Callable[[str], None]
) -> Services:
    cores = physical_cores()
    count = min(busy_levels(threads, cores)[-1], _workers_that_fit(subject.server))
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


class Observed(NamedTuple):
    """A run: the front's processor seconds over it all, what the client took of them per request."""

    front_s: float
    client_s: float
    requests: int
    hits: int
    rate_rps: float
    latencies_ms: NDArray[np.float64]


def observed(
    subject: Subject, config: ServingConfig, profile: LoadProfile, **load: float
) -> Observed:
    """What a load (`users` or `rate`, `duration_s`) takes of a proxy with this configuration.

    Raises TuneError where there is nothing to see, KeyboardInterrupt for a Ctrl-C meanwhile.
    """
    url = subject.server.apply(config)["url"]
    target = subject.target.at(url).model_copy(update={"statistics": False})
    before = subject.server.counters()
    began_s = processor_s(before["pids"]["front"])
    with tempfile.TemporaryDirectory(prefix="dlbench-tune-") as folder:
        path = Path(folder) / "samples.npz"
        measured = subject.generator.measure(
            target, _plain(profile).model_copy(update=load), samples_path=path
        ).measurement
        latencies_ns = Samples.load(path).latencies_ns
    if not measured.complete:
        raise KeyboardInterrupt  # who stops a calibration does not want what comes after it
    front_s = processor_s(before["pids"]["front"]) - began_s
    after = subject.server.counters()
    if not measured.requests or measured.error_rate:
        raise TuneError(f"no calibration: the proxy answers with {measured.errors or 'nothing'}")
    client_cpu = 0.0 if subject.apart else measured.client_cpu
    client_s = client_cpu * measured.duration_s / measured.requests
    requests, hits = (after[name] - before[name] for name in ("requests", "cache_hits"))
    return Observed(
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


def _workers_that_fit(server: Server) -> int:
    """By the memory of the one that runs; at least one."""
    rss_mb = psutil.Process(server.counters()["pids"]["workers"][0]).memory_info().rss / 2**20
    return max(1, int(free_memory_mb() / rss_mb))


def _plain(profile: LoadProfile) -> LoadProfile:
    """The same requests, without a schedule; nobody gives up on a batch that may be measured."""
    defaults = {name: LoadProfile.model_fields[name].default for name in headroom.UNDONE}
    patience_s = max(profile.timeout_s, 2 * LONGEST_S)
    plain = {"request_class": {}, "warmup_s": WARMUP_S, "timeout_s": patience_s}
    return profile.model_copy(update={**defaults, **plain})
