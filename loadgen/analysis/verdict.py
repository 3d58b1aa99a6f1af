"""May this measurement be believed? A table of rules; the first one that finds something decides.

`invalid`: the client was the limit, or there is nothing to measure. `saturated`: the server did
not keep up. `unsteady`: it did not settle. Every reason is one plain sentence with its numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.analysis.evidence import LATENESS_FLOOR_MS, Evidence
from dlbench.loadgen.analysis.statistics import WINDOWS
from dlbench.loadgen.quantity import digits, duration

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
# Rising: every later part tends to have more (Mann-Kendall; of ten parts 2.5 standard deviations are
# p = 0.0046). (H. B. Mann, Nonparametric tests against trend, Econometrica 13, 1945.)
RISING_Z = 2.5
# And half as much again in the end, or fast enough that over 5 % of what is offered is left undone.
RISING_FACTOR = 1.5
# Of so many requests a third too much is told from chance: 0.23 n against 2.5 sqrt(2 n).
ENOUGH = 200
# Of fewer, this tau is no chance: nearly every request takes longer than all before it.
NEARLY_ALL = 0.85
# A closed loop's window holds so many replies of each user, or its throughput is off by a tenth.
LITTLE_SHARE = 0.1
ROUNDS = 20


def _kinds(errors: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(errors.items()))


def nothing_measured(e: Evidence) -> str:
    """Stopped during the warm-up, or a rate so low that nothing fell into the window."""
    return "" if e.requests else "no request began inside the measured window"


def all_failed(e: Evidence) -> str:
    """There is no latency to report."""
    if e.successes:
        return ""
    return f"all {e.requests:,} requests failed ({_kinds(e.errors)})"


def out_of_connections(e: Evidence) -> str:
    """Only the system's limit; that a server piles up all descriptors there are is saturation."""
    if not (e.exhausted and e.late) or e.connections_asked or e.missing_share > 1 - KEPT_UP:
        return ""
    return (
        f"all {e.connections:,} connections were busy, and requests waited for one "
        f"({duration(e.lateness_p99_ms / 1000)} at p99); raise the limit with ulimit -n"
    )


def sent_late(e: Evidence) -> str:
    """The client could not keep to its schedule, and not because a server held every connection."""
    if not (e.is_open and e.late) or (e.exhausted and not e.connections_asked):
        return ""
    return (
        f"the client sent late: lateness p99 {duration(e.lateness_p99_ms / 1000)} against a "
        "latency "
        f"p99 of {duration(e.p99_ms / 1000)}, with {e.client_cpu:.0%} of its core used"
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
    completed, offered = map(digits, e.rates)
    pool = f"; raise --connections to see whether {e.connections:,} are the limit"
    return (
        f"the server completed {completed}/s of the {offered}/s offered "
        f"({e.in_flight_end:,} in flight at the "
        f"end{failed}){pool if e.exhausted and e.connections_asked else ''}"
    )


def kept_rising(e: Evidence) -> str:
    """A pile that grows too slowly for `fell_behind`: requests in flight and latency both show it.

    Latency alone does where it grows by seconds in seconds.
    """
    slowly = all(
        _rises(parts) and _half_as_much_again(parts) for parts in (e.medians_ms, e.in_flight)
    )
    sure = e.surely_piled or e.requests >= ENOUGH or _tau(e.medians_ms) >= NEARLY_ALL
    if not (e.is_open and (slowly or (sure and _falls_behind(e)))):
        return ""
    completed, offered = map(digits, e.rates)
    first, last = (duration(ms / 1000) for ms in (e.medians_ms[0], e.medians_ms[-1]))
    return (
        f"the server does not keep up: it completed {completed}/s of the {offered}/s offered, and "
        f"latency kept rising, from a median of {first} to {last}, with "
        f"{digits(e.in_flight[0])} requests in flight at first and {digits(e.in_flight[-1])} at "
        "the end"
    )


def _half_as_much_again(parts: tuple[float, ...]) -> bool:
    return bool(parts) and parts[-1] >= RISING_FACTOR * parts[0]


def _falls_behind(e: Evidence) -> bool:
    return e.falling_behind > 1 - KEPT_UP and _rises(e.medians_ms)


def _rises(parts: tuple[float, ...]) -> bool:
    n = len(parts)
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return n > 1 and _tau(parts) * n * (n - 1) / 2 - 1 >= RISING_Z * deviation


def _tau(parts: tuple[float, ...]) -> float:
    """Kendall's tau against time: 1 when each is more than all before it, -1 when less."""
    signs = np.sign(np.subtract.outer(parts, parts))[np.tril_indices(len(parts), -1)]
    return float(signs.mean()) if len(signs) else 0.0


def too_few(e: Evidence) -> str:
    """Too few to tell a pile from chance: perhaps the server keeps up, perhaps not."""
    if not e.is_open or e.requests >= ENOUGH or not (e.rose or _falls_behind(e)):
        return ""
    needed_s = math.ceil(ENOUGH * e.window_s / e.requests)
    return (
        f"too few requests to tell whether the server keeps up: {e.requests:,} in "
        f"{duration(e.window_s)}, and latency or the number in flight rose; "
        f"{duration(needed_s)} would be enough (dlbench load --duration)"
    )


def began_empty(e: Evidence) -> str:
    """The run was over before as many replies came as requests went out."""
    if not (e.is_open and e.fills):
        return ""
    return (
        f"the first replies came when the measurement of {duration(e.window_s)} was "
        "nearly over, so its throughput is too low; use a warm-up (dlbench load --warmup) longer "
        f"than most replies, p99 {duration(e.p99_ms / 1000)}"
    )


def too_short(e: Evidence) -> str:
    """A closed loop has few replies of each user in its window, and counts one too many or too few."""
    if e.little is None or abs(e.little[0] - e.little[1]) <= LITTLE_SHARE * e.little[1]:
        return ""
    took_s = e.p50_ms / 1000
    return (
        f"throughput times latency gives {digits(e.little[0])} requests in flight, but there were "
        f"{digits(e.little[1])} (Little's law): {duration(e.window_s)} is too short for replies of "
        f"{duration(took_s)}; measure for {math.ceil(ROUNDS * took_s)} s (dlbench load --duration)"
    )


def failed_often(e: Evidence) -> str:
    """A closed loop has no load to fall behind, but errors make its figures doubtful."""
    share = sum(e.errors.values()) / max(1, e.requests)
    if e.is_open or share <= 1 - KEPT_UP:
        return ""
    return f"{share:.1%} of the requests failed ({_kinds(e.errors)})"


def stalled(e: Evidence) -> str:
    """A silence that neither the rate nor the latency explains."""
    mean_gap_s = e.replies_s / max(1, e.completed)
    usual_s = max(STALL_S, STALL_GAPS * mean_gap_s, STALL_LATENCIES * e.p50_ms / 1000)
    if e.silence_s <= usual_s:
        return ""
    return f"no reply came for {duration(e.silence_s)}, {e.silence_at_s:.1f} s into the measurement"


def warmed_up_late(e: Evidence) -> str:
    """MSER-5 alone cuts off any chance peak; a warm-up is slower than all that comes after it."""
    if e.warmup_ms <= (1 + DRIFT_SHARE) * e.settled_ms:
        return ""
    return (
        f"the server was still warming up for {e.warmup_s:.1f} s of the measurement (median "
        f"{duration(e.warmup_ms / 1000)}, later at most {duration(e.settled_ms / 1000)}); "
        f"it needs {math.ceil(e.warmup_s)} s more warm-up (dlbench load --warmup)"
    )


def drifted(e: Evidence) -> str:
    """The server had not settled: caches, clocks and heat take their time."""
    if len(e.medians_ms) < WINDOWS or min(e.medians_ms) <= 0:
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
    ("unsteady", STEADY_RATE, too_few),
    ("unsteady", ANY_LOAD, failed_often),
    ("unsteady", ANY_LOAD, began_empty),
    ("unsteady", ANY_LOAD, too_short),
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
