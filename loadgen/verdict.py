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
# Rising: every later tenth tends to have more (Mann-Kendall, n = 10, p = 0.0046), and half as much
# again in the end. (H. B. Mann, Nonparametric tests against trend, Econometrica 13, 1945.)
RISING_S = 29
RISING_FACTOR = 1.5


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
    """Only the system's limit; that a server piles up all descriptors there are is saturation."""
    if not (e.exhausted and e.late) or e.connections_asked or e.missing_share > 1 - KEPT_UP:
        return ""
    return (
        f"all {e.connections:,} connections were busy, and requests waited for one "
        f"({e.lateness_p99_ms:.3g} ms at p99); raise the limit with ulimit -n"
    )


def sent_late(e: Evidence) -> str:
    """The client could not keep to its schedule, and not because a server held every connection."""
    if not (e.is_open and e.late) or (e.exhausted and not e.connections_asked):
        return ""
    return (
        f"the client sent late: lateness p99 {e.lateness_p99_ms:.3g} ms against a latency p99 of "
        f"{e.p99_ms:.3g} ms, with {e.client_cpu:.0%} of its core used"
        + ("" if e.real_time else "; root or CAP_SYS_NICE would give it real-time priority")
    )


def client_busy(e: Evidence) -> str:
    """A closed loop is as fast as its client; an open one shows it by lateness, even a small one.

    Of a pool that is all busy it cannot be told: perhaps the client does not read its replies.
    """
    shows = e.is_open and not (e.exhausted and e.connections_asked)
    if e.client_cpu < BUSY_CPU or (shows and e.lateness_p99_ms < LATENESS_FLOOR_MS / 2):
        return ""
    return f"the client used {e.client_cpu:.0%} of its core, so the server may be faster than this"


def fell_behind(e: Evidence) -> str:
    """Requests failed, or piled up."""
    if not e.is_open or e.missing_share <= 1 - KEPT_UP:
        return ""
    failed = f", {_kinds(e.errors)}" if e.errors else ""
    pool = f"; raise --connections to see if {e.connections:,} hold it back"
    return (
        f"the server completed {e.completed / e.window_s:,.0f}/s of the {e.requests / e.window_s:,.0f}/s "
        f"offered ({e.in_flight_end:,} in flight at the end{failed}){pool if e.exhausted and e.connections_asked else ''}"
    )


def kept_rising(e: Evidence) -> str:
    """A pile that grows too slowly for `fell_behind`: requests in flight and latency both show it."""
    if not (e.is_open and _rises(e.medians_ms) and _rises(e.in_flight)):
        return ""
    return (
        f"latency kept rising, from {e.medians_ms[0]:.3g} to {e.medians_ms[-1]:.3g} ms in the "
        f"median, with {e.in_flight[0]:.3g} requests in flight at first and "
        f"{e.in_flight[-1]:.3g} in the end"
    )


def _rises(tenths: tuple[float, ...]) -> bool:
    if not tenths or tenths[-1] < RISING_FACTOR * tenths[0]:
        return False
    signs = np.sign(np.subtract.outer(tenths, tenths))
    return int(signs[np.tril_indices(WINDOWS, -1)].sum()) >= RISING_S


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


def warmed_up_late(e: Evidence) -> str:
    """MSER-5 alone cuts off any chance peak; a warm-up is slower than all that comes after it."""
    if e.warmup_ms <= (1 + DRIFT_SHARE) * e.settled_ms:
        return ""
    return (
        f"the server was still warming up for {e.warmup_s:.1f} s of the measurement (median "
        f"{e.warmup_ms:.3g} ms, later at most {e.settled_ms:.3g} ms); "
        f"it needs {math.ceil(e.warmup_s)} s more of warm-up (dlbench load --warmup)"
    )


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


# A load that changes makes latency and silences change too: these rules would blame the server.
ANY_LOAD, STEADY_RATE = False, True

RULES: tuple[tuple[Verdict, bool, Callable[[Evidence], str]], ...] = (
    ("invalid", ANY_LOAD, nothing_measured),
    ("invalid", ANY_LOAD, all_failed),
    ("invalid", ANY_LOAD, out_of_connections),
    ("invalid", ANY_LOAD, sent_late),
    ("invalid", ANY_LOAD, client_busy),
    ("saturated", ANY_LOAD, fell_behind),
    ("saturated", STEADY_RATE, kept_rising),
    ("unsteady", ANY_LOAD, failed_often),
    ("unsteady", STEADY_RATE, stalled),
    ("unsteady", STEADY_RATE, warmed_up_late),
    ("unsteady", STEADY_RATE, drifted),
)


def judge(evidence: Evidence) -> tuple[Verdict, str]:
    """The verdict, and the sentence that says why; ok needs none."""
    for verdict, steady_only, rule in RULES:
        if (evidence.steady_rate or not steady_only) and (reason := rule(evidence)):
            return verdict, reason
    return "ok", ""
