"""May this measurement be believed? A table of rules; the first one that finds something decides.

`invalid`: the client was the limit, or there is nothing to measure. `saturated`: the server did
not keep up. `unsteady`: it did not settle. Every reason is one plain sentence with its numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.evidence import LATENESS_FLOOR_MS, Evidence
from dlbench.loadgen.statistics import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.measurement import Verdict

# Above this a process has nothing left to be on time with.
BUSY_CPU = 0.95
KEPT_UP = 0.95
# A gap in the replies is a stall when it is this many mean gaps long (e^-20 for random arrivals),
# this many median latencies, and long enough for a person to notice.
STALL_GAPS = 20
STALL_LATENCIES = 5
STALL_S = 0.1
# Drift: the halves' medians differ by this share, and by more than chance does (t, 8 df, 99 %).
DRIFT_SHARE = 0.25
DRIFT_T = 3.355
# Rising: every later tenth tends to be slower (Mann-Kendall, n = 10, p = 0.0005), and it doubled.
RISING_S = 33
RISING_FACTOR = 2.0


def _kinds(errors: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(errors.items()))


def nothing_measured(e: Evidence) -> str:
    """Stopped during the warm-up, or a rate so low that nothing fell into the window."""
    return "" if e.requests else "no request began inside the measured window"


def all_failed(e: Evidence) -> str:
    """There is no latency to report."""
    if e.successes:
        return ""
    return f"every one of the {e.requests:,} requests failed ({_kinds(e.errors)})"


def out_of_connections(e: Evidence) -> str:
    """Only a limit of ours; that a server piles up all descriptors there are is saturation."""
    if not (e.exhausted and e.late) or (not e.connections_asked and e.missing_share > 1 - KEPT_UP):
        return ""
    remedy = "raise --connections" if e.connections_asked else "raise the limit with ulimit -n"
    return (
        f"all {e.connections:,} connections were busy, and requests waited for one "
        f"({e.lateness_p99_ms:.3g} ms at p99); {remedy}"
    )


def sent_late(e: Evidence) -> str:
    """The client could not keep to its schedule, and not because a server held every connection."""
    if not (e.is_open and e.late) or e.exhausted:
        return ""
    return (
        f"the client sent late: lateness p99 {e.lateness_p99_ms:.3g} ms against a latency p99 of "
        f"{e.p99_ms:.3g} ms, with {e.client_cpu:.0%} of its core used"
        + ("" if e.real_time else "; root or CAP_SYS_NICE would give it real-time priority")
    )


def client_busy(e: Evidence) -> str:
    """A closed loop is as fast as its client; an open one shows it by lateness, even a small one."""
    if e.client_cpu < BUSY_CPU or (e.is_open and e.lateness_p99_ms < LATENESS_FLOOR_MS / 2):
        return ""
    return f"the client used {e.client_cpu:.0%} of its core, so the server may be faster than this"


def fell_behind(e: Evidence) -> str:
    """Requests failed, or piled up."""
    if not e.is_open or e.missing_share <= 1 - KEPT_UP:
        return ""
    failed = f", {_kinds(e.errors)}" if e.errors else ""
    return (
        f"the server completed {e.completed / e.window_s:,.0f}/s of the {e.requests / e.window_s:,.0f}/s "
        f"offered ({e.in_flight_end:,} in flight at the end{failed})"
    )


def kept_rising(e: Evidence) -> str:
    """A pile that grows too slowly for `fell_behind` still shows in the latency."""
    if not e.is_open or not e.medians_ms or e.medians_ms[-1] < RISING_FACTOR * e.medians_ms[0]:
        return ""
    medians = np.array(e.medians_ms)
    if (
        int(np.sign(np.subtract.outer(medians, medians))[np.tril_indices(WINDOWS, -1)].sum())
        < RISING_S
    ):
        return ""
    return f"latency kept rising, from {medians[0]:.3g} to {medians[-1]:.3g} ms in the median"


def failed_often(e: Evidence) -> str:
    """A closed loop has no load to fall behind, but errors make its figures doubtful."""
    share = sum(e.errors.values()) / max(1, e.requests)
    if e.is_open or share <= 1 - KEPT_UP:
        return ""
    return f"{share:.1%} of the requests failed ({_kinds(e.errors)})"


def stalled(e: Evidence) -> str:
    """A silence that neither the rate nor the latency explains."""
    mean_gap_s = e.window_s / max(1, e.completed)
    usual_s = max(STALL_S, STALL_GAPS * mean_gap_s, STALL_LATENCIES * e.p50_ms / 1000)
    if e.silence_s <= usual_s:
        return ""
    return f"no reply came for {e.silence_s:.3g} s, {e.silence_at_s:.1f} s into the measurement"


def drifted(e: Evidence) -> str:
    """The server had not settled: caches, clocks and heat take their time."""
    if not e.medians_ms or min(e.medians_ms) <= 0:
        return ""
    first, second = np.array_split(np.log(np.array(e.medians_ms)), 2)
    difference = float(second.mean() - first.mean())
    error = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / len(first))
    if abs(difference) < math.log1p(DRIFT_SHARE) or abs(difference) < DRIFT_T * error:
        return ""
    return f"latency drifted by {math.expm1(difference):+.0%} between the halves of the measurement"


RULES: tuple[tuple[Verdict, Callable[[Evidence], str]], ...] = (
    ("invalid", nothing_measured),
    ("invalid", all_failed),
    ("invalid", out_of_connections),
    ("invalid", sent_late),
    ("invalid", client_busy),
    ("saturated", fell_behind),
    ("saturated", kept_rising),
    ("unsteady", failed_often),
    ("unsteady", stalled),
    ("unsteady", drifted),
)


def judge(evidence: Evidence) -> tuple[Verdict, str]:
    """The verdict, and the sentence that says why; ok needs none."""
    for verdict, rule in RULES:
        if reason := rule(evidence):
            return verdict, reason
    return "ok", ""
