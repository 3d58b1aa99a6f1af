"""Wakes an event loop at a given time: the clock of the open loop's schedule.

The loop is handed in (gevent's), so nothing here imports gevent.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.engine.timerfd import TimerFd

if TYPE_CHECKING:
    from collections.abc import Callable

NS = 1_000_000_000
READ = 1  # libev's event bit


class FdAlarm:
    """Wakes the loop through a timerfd."""

    def __init__(self, loop: Any, callback: Callable[[], None]) -> None:  # noqa: ANN401 - untyped
        self._timer = TimerFd()
        self.arm = self._timer.arm
        self._watcher = loop.io(self._timer.fd, READ)
        self._watcher.start(callback)

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        self._timer.close()


class LoopAlarm:
    """Wake through the loop's own, coarse timer, on systems without timerfd."""

    def __init__(self, loop: Any, callback: Callable[[], None]) -> None:  # noqa: ANN401 - untyped
        self._loop, self._callback = loop, callback
        self._timer: Any = None

    def arm(self, at_ns: int) -> None:
        self.close()
        self._timer = self._loop.timer(max(0, at_ns - monotonic_ns()) / NS)
        self._timer.start(self._callback, update=True)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


ALARMS: dict[bool, type[FdAlarm | LoopAlarm]] = {True: FdAlarm, False: LoopAlarm}
