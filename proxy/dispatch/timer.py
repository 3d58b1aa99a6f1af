"""One deadline at a time, with more than a millisecond's resolution where the system has it.

uvloop's timers tick in milliseconds, too coarse for a queue delay of 0.5 ms. Linux has timerfd;
Python 3.11 does not wrap it, so it is called through ctypes. Elsewhere the loop's own timer serves,
and delays are rounded up to its tick.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from typing import TYPE_CHECKING, Protocol

from dlbench.proxy.clock import now_ns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# From <bits/timerfd.h> and <time.h>; now_ns() reads the same monotonic clock.
CLOCK_MONOTONIC = 1
TFD_NONBLOCK = 0o4000
TFD_CLOEXEC = 0o2000000
TFD_TIMER_ABSTIME = 1
# struct itimerspec: interval and first expiry, seconds and nanoseconds each.
ITIMERSPEC = struct.Struct("@qqqq")
NS_PER_S = 1_000_000_000


class Timer(Protocol):
    """Calls back once, at the earliest moment that it was asked for."""

    def at(self, when_ns: int) -> None:
        """Call back at `when_ns`, or at an earlier moment that is already set."""
        ...

    def close(self) -> None:
        """Never call back again."""
        ...


class TimerFd:
    """A deadline kept by the kernel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop, self._callback = loop, callback
        self._when_ns = 0
        loop.add_reader(self._fd, self._expired)

    def at(self, when_ns: int) -> None:
        if self._when_ns and self._when_ns <= when_ns:
            return
        self._when_ns = when_ns
        spec = ITIMERSPEC.pack(0, 0, when_ns // NS_PER_S, when_ns % NS_PER_S)
        self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, spec, None)

    def close(self) -> None:
        if self._fd < 0:  # the number may be somebody else's by now
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):  # set anew since it expired
            os.read(self._fd, 8)
        self._when_ns = 0
        self._callback()


class LoopTimer:
    """A deadline kept by the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._handle: asyncio.TimerHandle | None = None
        self._when_ns = 0

    def at(self, when_ns: int) -> None:
        if self._when_ns and self._when_ns <= when_ns:
            return
        self.close()
        self._when_ns = when_ns
        delay_s = max(0, when_ns - now_ns()) / NS_PER_S
        self._handle = self._loop.call_later(delay_s, self._expired)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _expired(self) -> None:
        self._when_ns = 0
        self._callback()


def make_timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
    """The finest timer that this system has."""
    kind = TimerFd if sys.platform == "linux" else LoopTimer
    return kind(loop, callback)
