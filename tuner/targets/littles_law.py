"""Little's law on every measurement: do the client's latencies agree with what was in flight?

The mean number in flight L is the rate λ times the mean time W that each stays. (J. D. C. Little,
A proof for the queuing formula L = λW, Operations Research 9, 1961.) In its operational form it
holds of any stretch that begins and ends empty, whatever the arrivals: both sides are the summed
times over the length (Lazowska, Zahorjan, Graham, Sevcik, Quantitative System Performance, 1984,
chapter 3). So the stretch here is the whole run, its warm-up included. Pure.

Three things follow, and each is a rule:
- What the proxy holds, the client has in flight: the server's L is never above the client's.
- A closed loop without pauses has all its users in flight, all the time.
- What the client has in flight beyond that is in the network, or waits at the front's door. No
  gauge sees it there. Measured on two cores it is 0.2-0.8 ms a request while the front gets a core
  when it wants one. Where it does not, or where it is the limit itself, as with cache hits, it is
  nearly everything: 32 of 104 ms beside other programs. So this rule is for open loops on calm
  machines, and it sees errors of milliseconds alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.quantity import digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.analysis.samples import Samples

NS = 1e9
# The server's interval lies within the client's; clocks and the moment of reading forgive this.
ROUNDING = 1.05
# A user whose reply has come is in nobody's hands until it sends again: 7 % of a 30 µs loop.
USERS_SHARE = 1.25
# What may be outside the server: this share, and this time for each request.
OUTSIDE_SHARE, OUTSIDE_S = 0.25, 0.002
# Above this use of its core the front lets requests wait at its door.
IDLE_FRONT = 0.5
# More failures than this, and the two sides speak of different requests.
COMPARABLE = 0.001


@dataclass(frozen=True)
class Held:
    """What the server says of a stretch: seconds that requests spent in it, and its front's work."""

    request_s: float
    front_cpu_s: float
    hits: int


@dataclass(frozen=True)
class Flow:
    """A run's mean numbers in flight, L, over one stretch; of requests that succeeded.

    `users_in_flight` is the client's L within the measured window, of all requests; `users` is 0
    where nobody knows how many there ought to be. `idle_front`: nobody waits at its door.
    """

    client: float
    server: float
    users_in_flight: float
    users: int
    completed_rps: float
    error_rate: float
    idle_front: bool


def flow(samples: Samples, users: int, held: Held, *, calm: bool) -> Flow:
    """Of a whole run. `calm`: it kept up, and every process had a core when it wanted one."""
    succeeded = samples.outcome == 0
    waited_ns = samples.sent_ns + samples.connect_ns
    spent_s = float((samples.done_ns - waited_ns)[succeeded].sum()) / NS
    length_s = max(1.0, float(samples.done_ns.max() - samples.sent_ns.min())) / NS
    return Flow(
        client=spent_s / length_s,
        server=held.request_s / length_s,
        users_in_flight=in_window(samples),
        users=users,
        completed_rps=int(succeeded.sum()) / length_s,
        error_rate=1 - float(succeeded.mean()),
        idle_front=calm and not held.hits and held.front_cpu_s < IDLE_FRONT * length_s,
    )


def in_window(samples: Samples) -> float:
    """Mean number in flight within the window: requests that began before it or end after it too."""
    start, end = samples.window_ns
    inside = np.clip(samples.done_ns, start, end) - np.clip(samples.sent_ns, start, end)
    return float(inside.sum()) / max(1, end - start)


def violation(seen: Flow) -> str:
    """What contradicts the law, in one line; empty where nothing does, or nothing can be said."""
    if seen.error_rate > COMPARABLE:
        return ""
    return next((why for rule in RULES if (why := rule(seen))), "")


def _less_than_the_server(seen: Flow) -> str:
    if seen.server <= ROUNDING * seen.client:
        return ""
    return (
        f"the client's latencies are too short: its rate times its latency is {digits(seen.client)} "
        f"requests in flight, and the server alone held {digits(seen.server)} (Little's law)"
    )


def _not_its_users(seen: Flow) -> str:
    if not seen.users or 1 / USERS_SHARE < seen.users_in_flight / seen.users < USERS_SHARE:
        return ""
    return (
        f"the client's latencies are wrong: its rate times its latency is "
        f"{digits(seen.users_in_flight)} requests in flight, of {seen.users} users (Little's law)"
    )


def _unexplained(seen: Flow) -> str:
    explained = OUTSIDE_SHARE * seen.client + OUTSIDE_S * seen.completed_rps
    if seen.users or not seen.idle_front or seen.client - seen.server <= explained:
        return ""
    return (
        f"the client's latencies are too long: its rate times its latency is {digits(seen.client)} "
        f"requests in flight, the server held {digits(seen.server)}, and its front had time "
        "(Little's law)"
    )


RULES: tuple[Callable[[Flow], str], ...] = (_less_than_the_server, _not_its_users, _unexplained)
