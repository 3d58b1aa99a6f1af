"""Queues whose steady state is known: what a simulation and a measurement are held against. Pure.

Formulas: L. Kleinrock, Queueing Systems I (1975): M/M/1 3.2, M/M/c 3.5, M/G/1 5.7 (Pollaczek, 1930,
and Khinchine, 1932); J. D. C. Little, A Proof for the Queuing Formula L = lambda W, Operations
Research 9 (1961). The quantile of M/M/c inverts the tail of its time in the system: D. Gross et al.,
Fundamentals of Queueing Theory (4th ed., 2008), 2.3. The M/M/c queue is the proxy's own (`erlang.py`); M/M/1 is its case c = 1.

Printed wrongly elsewhere: the throughput of an M/M/1 queue as X = lambda / (1 - rho). A stable queue
loses nobody, so its throughput is lambda, and at most mu; rho / (1 - rho) is the mean number of
requests in the system, 1 / (mu - lambda) their mean time. Also seen: Pollaczek-Khinchine without
the 2, and with the variance of the service time where its second moment belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

from dlbench.proxy.serving.erlang import MMc, service_quantile_s

__all__ = ["LITTLE_TOLERANCE", "MG1", "MMc", "little_holds", "littles_law", "mm1", "mm1_quantile_s", "mmc_quantile_s"]  # fmt: skip

# The gauge of requests in flight is sampled and the latency is the client's, with the network in it.
LITTLE_TOLERANCE = 0.1
BISECTIONS = 53  # the bits of a float


def mm1(arrivals_per_s: float, service_s: float) -> MMc:
    """The M/M/1 queue: one worker, and times between arrivals and of service exponential."""
    return MMc(1, arrivals_per_s, service_s)


def mm1_quantile_s(arrivals_per_s: float, service_s: float, share: float) -> float:
    """Seconds within which `share` of the requests are answered: they are exponential as well."""
    spare = 1 / service_s - arrivals_per_s
    return -log(1 - share) / spare if spare > 0 else inf


def mmc_quantile_s(queue: MMc, share: float) -> float:
    """Seconds within which `share` of the requests, 0 to 1, are answered by an M/M/c queue.

    The tail falls with time and has no inverse in closed form, so the answer is bracketed by that of
    the service alone and by the sum of what half of the others may exceed, in service and in wait.
    """
    if queue.spare_per_s <= 0:
        return inf
    low = service_quantile_s(share, queue.service_s)
    high = service_quantile_s((1 + share) / 2, queue.service_s + 1 / queue.spare_per_s)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if queue.sojourn_tail(middle) > 1 - share else (low, middle)
    return high


@dataclass(frozen=True)
class MG1:
    """One worker, Poisson arrivals, service times of any distribution with this mean and cv."""

    arrivals_per_s: float
    service_s: float
    service_cv: float

    @property
    def utilisation(self) -> float:
        """Share of the time that the worker is busy, if under 1."""
        return self.arrivals_per_s * self.service_s

    def mean_wait_s(self) -> float:
        """Mean seconds in the queue: lambda E[S^2] / (2 (1 - rho)), E[S^2] = s^2 (1 + cv^2)."""
        if self.utilisation >= 1:
            return inf
        second_moment = self.service_s**2 * (1 + self.service_cv**2)
        return self.arrivals_per_s * second_moment / (2 * (1 - self.utilisation))

    def mean_sojourn_s(self) -> float:
        """Mean seconds from arrival to answer."""
        return self.mean_wait_s() + self.service_s


def littles_law(rate_rps: float, latency_s: float, in_flight: float) -> float:
    """What was in flight over what L = lambda W says, all three being means over the same time.

    1 where the three belong together; under 1 where the latency has time in it that the gauge does
    not see. Holds for every order of service and every distribution, but not while a queue grows.
    Raises ValueError where nothing was sent or nothing took any time.
    """
    if rate_rps <= 0 or latency_s <= 0:
        raise ValueError("Little's law needs a rate and a latency over 0")
    return in_flight / (rate_rps * latency_s)


def little_holds(ratio: float, tolerance: float = LITTLE_TOLERANCE) -> bool:
    """Whether a ratio of `littles_law` is 1 but for `tolerance`, up or down alike."""
    return 1 / (1 + tolerance) <= ratio <= 1 + tolerance
