"""Runs one job on gevent's event loop: the schedule's alarm, the time-outs, the ends, the GC.

The requests themselves go through the loops and `connection`, as callbacks; no greenlet switches
under load, the one that calls `run` sleeps until the run is over.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
import numpy as np

from dlbench.loadgen.analysis.priority import PRIORITIES
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.engine import timerfd
from dlbench.loadgen.engine.alarm import ALARMS
from dlbench.loadgen.engine.closed_loop import ClosedLoop
from dlbench.loadgen.engine.open_loop import OpenLoop
from dlbench.loadgen.engine.progress import EndedRequests, Watch
from dlbench.loadgen.engine.recorder import PENDING, Recorder
from dlbench.loadgen.engine.request_loop import FAR_NS
from dlbench.loadgen.engine.sockets import descriptors
from dlbench.loadgen.messages import Progress, RunFacts
from dlbench.loadgen.schedule.schedule import WHOLE, Share, offsets_ns
from dlbench.loadgen.schedule.think import think_times_ns

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from dlbench.loadgen.engine.request_loop import Connect
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.judge import Judge
    from dlbench.loadgen.protocols.payloads import Requests

NS = 1_000_000_000
# Between two looks at time-outs and ends. It costs 20 us, and delays a request by no more.
TICK_S = 0.05
PROGRESS_S = 0.5
# Time between "go" and the first request: what comes before it must not make it late.
LEAD_NS = 5_000_000
# A stopped run waits this long for replies: a person is waiting as well.
STOP_GRACE_NS = NS // 2


@contextmanager
def without_gc() -> Iterator[None]:
    """No collection pauses while requests are due; a run makes next to no cycles."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Engine:
    """One run. `run` returns when every request that was begun has ended."""

    def __init__(
        self,
        profile: LoadProfile,
        connect: Connect,
        requests: Requests,
        judge: Judge,
        on_progress: Callable[[Progress], None] = lambda _: None,
        share: Share = WHOLE,
    ) -> None:
        """Raises BudgetError for more requests than this process can hold."""
        self.profile = profile
        self._share = share
        self._loop = gevent.get_hub().loop
        self._over = gevent.event.Event()
        self._stopped_ns: int | None = None
        offsets = offsets_ns(profile, share) if profile.is_open_loop else np.empty(0, np.int64)
        self._offsets = offsets
        self._catalogue = requests
        self.recorder = Recorder(len(offsets))
        self._common = (self._loop, connect, self.recorder, requests, judge)
        self._on_progress = on_progress
        self.on_batch: Callable[[EndedRequests], None] = lambda _: None
        self._watch = Watch(self.recorder, offsets if profile.is_open_loop else None)
        self._next_look_ns = 0
        self.requests: OpenLoop | ClosedLoop
        self._marks: list[tuple[int, float, int]] = []

    def run(self, start_ns: int | None = None) -> tuple[Samples, RunFacts]:
        """Offer the load, and wait for the last reply or its time-out.

        `start_ns` (of `time.monotonic_ns`) lets the processes of one machine begin together.
        """
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.start_ns = start_ns or monotonic_ns() + LEAD_NS
        self._end_ns = self.start_ns + int((self.profile.warmup_s + self.profile.duration_s) * NS)
        with without_gc(), PRIORITIES[self.profile.is_open_loop]() as is_real_time:
            self._drive()
        ended_ns = monotonic_ns()
        self._look(ended_ns, last=True)
        samples = self._samples()
        cpu, mbps = self._usage()
        facts = RunFacts(
            complete=self._stopped_ns is None,
            started_at=started_at,
            client_cpu=cpu,
            net_mbps=mbps,
            real_time=is_real_time,
            connections=self.requests.peak_connections,
            exhausted=self.requests.exhausted,
            drain_s=max(0.0, (ended_ns - min(self._end_ns, self._stopped_ns or FAR_NS)) / NS),
            examples=self.recorder.outcomes.examples,
        )
        return samples, facts

    def stop(self) -> None:
        """Soon begin no more requests; `run` returns shortly after. Harmless at any time."""
        if self._stopped_ns is None:
            self._stopped_ns = monotonic_ns()

    def _drive(self) -> None:
        ticker = self._loop.timer(TICK_S, TICK_S)
        close = self._start_open() if self.profile.is_open_loop else self._start_closed()
        ticker.start(self._tick)
        try:
            self._over.wait()
        finally:
            ticker.stop()
            ticker.close()
            close()
            self.requests.close()

    def _start_open(self) -> Callable[[], None]:
        asked = -(-self.profile.connections // self._share.of)
        limit = min(asked, descriptors()) if asked else descriptors()
        due = [*(self._offsets + self.start_ns).tolist(), FAR_NS]
        fresh = not self.profile.keep_alive
        self.requests = requests = OpenLoop(
            *self._common,
            limit,
            self._share,
            due_ns=due,
            fresh=fresh,
            pooled=bool(self.profile.connections),
        )

        alarm = ALARMS[timerfd.SUPPORTED](
            self._loop, lambda: alarm.arm(requests.wake(monotonic_ns()))
        )
        requests.open_ahead()
        alarm.arm(requests.next_due_ns)
        requests.on_call = lambda: alarm.arm(1)
        return alarm.close

    def _start_closed(self) -> Callable[[], None]:
        profile = self.profile
        self.requests = requests = ClosedLoop(
            *self._common,
            descriptors(),
            self._share,
            users=len(range(self._share.index, profile.users or 1, self._share.of)),
            think=think_times_ns(profile, self._share) if profile.think_s else None,
            fresh=not profile.keep_alive,
        )
        requests.start()
        return lambda: None

    def _tick(self) -> None:
        """The slow clock of a run: time-outs, the window's marks, the end."""
        now_ns = monotonic_ns()
        self.requests.sweep(now_ns, int(self.profile.timeout_s * NS))
        self._look(now_ns)
        window = (self.start_ns + int(self.profile.warmup_s * NS), self._end_ns)
        if len(self._marks) < 2 and now_ns >= window[len(self._marks)]:
            self._marks.append(self._mark(now_ns))
        if self._stopped_ns is not None:
            self.requests.cancel()
            if self.requests.drained or now_ns > self._stopped_ns + STOP_GRACE_NS:
                self._over.set()
        elif now_ns >= self._end_ns:
            self.requests.cancel()
            if self.requests.drained:
                self._over.set()

    def _look(self, now_ns: int, last: bool = False) -> None:
        if now_ns < self._next_look_ns and not last:
            return
        self._next_look_ns = now_ns + int(PROGRESS_S * NS)
        batch = self._watch.take(self.requests.begun, self.start_ns)
        self.on_batch(batch)
        requests, warm_ns = self.requests, int(self.profile.warmup_s * NS)
        elapsed_ns = now_ns - self.start_ns
        if elapsed_ns > 0 and not last:
            self._on_progress(
                self._watch.look(batch, elapsed_ns, requests.ended, requests.in_flight, warm_ns)
            )

    def _mark(self, now_ns: int) -> tuple[int, float, int]:
        return now_ns, time.process_time(), sum(self.recorder.traffic)

    def _usage(self) -> tuple[float, float]:
        """(share of a core, Mbit/s) between the marks at the window's start and end."""
        marks = self._marks if len(self._marks) > 1 else [*self._marks, self._mark(monotonic_ns())]
        (start_ns, start_cpu, start_bytes), (end_ns, end_cpu, end_bytes) = marks[0], marks[-1]
        wall_s = (end_ns - start_ns) / NS
        if wall_s <= 0:
            return 0.0, 0.0
        return (end_cpu - start_cpu) / wall_s, (end_bytes - start_bytes) * 8 / wall_s / 1e6

    def _samples(self) -> Samples:
        begun, recorder = self.requests.begun, self.recorder
        sent, done, outcome, connect = (
            _column(values, begun)
            for values in (recorder.sent, recorder.done, recorder.outcome, recorder.connect_ns)
        )
        sent -= self.start_ns
        scheduled = self._offsets[:begun] if self.profile.is_open_loop else sent
        # Only a stopped run leaves requests without an end, and nothing is known about those.
        ended = outcome != PENDING
        warm_ns = int(self.profile.warmup_s * NS)
        end_ns = min(self._end_ns, self._stopped_ns or FAR_NS) - self.start_ns
        return Samples(
            "scheduled" if self.profile.is_open_loop else "sent",
            scheduled[ended],
            sent[ended],
            done[ended] - self.start_ns,
            outcome[ended],
            connect[ended],
            self._catalogue.classes(self._numbers(begun))[ended],
            recorder.outcomes.names,
            (warm_ns, max(warm_ns, end_ns)),
        )

    def _numbers(self, begun: int) -> NDArray[np.int64]:
        """Which requests of the whole load these were."""
        if self.profile.is_open_loop:
            return self._share.numbers(begun)
        numbers: NDArray[np.int64] = _column(self.recorder.number, begun)
        return numbers


def _column(values: array[int], count: int) -> Any:  # noqa: ANN401 - int64 or int16
    return np.array(values[:count], dtype=np.dtype(values.typecode))
