"""Being on time on a machine that the server fills: real-time priority, where it is allowed.

A client on a machine of its own is never kept from its core by the server it measures; one beside
it is, for a scheduler's tick of 3 to 4 ms. Measured with every core busy: lateness p99 3.4 ms as an
ordinary process, the same with a nice value of -10 or a time slice of 0.1 ms, 0.5 ms with SCHED_RR.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOWEST = 1  # of the real-time priorities: above every ordinary process, and nothing else


@contextmanager
def real_time() -> Iterator[bool]:
    """Use round-robin scheduling during a run; yield whether it was granted.

    It needs root or CAP_SYS_NICE. Only for open loops, which sleep between their requests: a
    closed loop may run all the time, and would take a core from everybody else.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(LOWEST))
    except (AttributeError, OSError):  # another system than Linux, or no permission
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def ordinary() -> Iterator[bool]:
    """Stay an ordinary process."""
    yield False


PRIORITIES = {True: real_time, False: ordinary}  # by: is it an open loop?
