"""A Linux timer as a file descriptor: an event loop wakes on it with microsecond accuracy.

libev and uvloop round their own timers to about a millisecond. Python 3.11 has no
`os.timerfd_create`, hence ctypes.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLOCK_MONOTONIC = 1  # the clock of time.monotonic_ns()
TFD_TIMER_ABSTIME = 1
NS = 1_000_000_000

SUPPORTED = sys.platform == "linux"


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class TimerFd:
    """One alarm at a time; `fd` becomes readable when it is due."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no timerfd."""
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _Itimerspec()
        self._value = self._spec.value
        self._pointer = ctypes.byref(self._spec)
        self._settime = libc.timerfd_settime

    def arm(self, at_ns: int) -> None:
        """Make `fd` readable at this `time.monotonic_ns()`; at once when that is past.

        Arming also clears a readiness that was not read, so nobody needs to read the descriptor.
        """
        self._value.seconds, self._value.nanoseconds = divmod(max(at_ns, 1), NS)
        self._settime(self.fd, TFD_TIMER_ABSTIME, self._pointer, None)

    def close(self) -> None:
        os.close(self.fd)
