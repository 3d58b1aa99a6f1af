"""Workers of a chosen speed: each is stopped and continued, so that it runs a share of the time.

On one machine all workers are equally fast, and together no faster than its cores. Stopped for most
of the time, four of them are four slow machines; with different shares they are unequal ones.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import beside
from dlbench.loadgen.analysis.priority import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from benchmarks.harness.proxies import Watched

PERIOD_S = 0.005
LOOK_EVERY_S = 0.1


class Signal(NamedTuple):
    """Sent so many seconds after the begin of each period."""

    at_s: float
    pid: int
    number: signal.Signals


class Seen(NamedTuple):
    """How many workers there were."""

    at_s: float
    workers: int


class Throttle:
    """Runs worker N for `shares[N]` of the time, those beyond the last like the last.

    Whoever comes later is throttled from its first request on; its start is not. `seen` holds how
    many there were, ten times a second.
    """

    def __init__(self, front: Watched, shares: Sequence[float]) -> None:
        self.seen: list[Seen] = []
        self._front, self._shares = front, shares
        self._pids: list[int] = []
        self._signals: list[Signal] = []
        self._over = threading.Event()

    def at_work(self) -> AbstractContextManager[None]:
        return beside(self._main_loop, self._over)

    def _main_loop(self) -> None:
        with PRIORITIES[True]():
            try:
                self._until_over()
            finally:
                self._continue(self._pids)

    def _until_over(self) -> None:
        look_at_s = 0.0
        while not self._over.is_set():
            begin_s = time.monotonic()
            if begin_s >= look_at_s:
                look_at_s = begin_s + LOOK_EVERY_S
                self._look(begin_s)
            for one in self._signals:
                time.sleep(max(0.0, begin_s + one.at_s - time.monotonic()))
                with suppress(ProcessLookupError):
                    os.kill(one.pid, one.number)
            time.sleep(max(0.0, begin_s + PERIOD_S - time.monotonic()))

    def _look(self, now_s: float) -> None:
        try:
            pids = self._front.workers
        except (BenchmarkError, OSError):
            self._over.set()
            return
        self.seen.append(Seen(now_s, len(pids)))
        if pids != self._pids:
            self._continue(set(self._pids) - set(pids))
            self._pids, self._signals = pids, signals(pids, self._shares)

    def _continue(self, pids) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def signals(pids: Sequence[int], shares: Sequence[float]) -> list[Signal]:
    """One period: each begins where the one before it ends, so that few run at the same time."""
    found, begin = [], 0.0
    for number, pid in enumerate(pids):
        end = begin + shares[min(number, len(shares) - 1)]
        found.append(Signal(begin % 1.0 * PERIOD_S, pid, signal.SIGCONT))
        found.append(Signal(end % 1.0 * PERIOD_S, pid, signal.SIGSTOP))
        begin = end
    return sorted(found)
