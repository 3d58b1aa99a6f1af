"""How many workers a load needs: the M/M/c queue, pure.

Poisson arrivals, exponential service times, `workers` servers and one queue. Formulas: L. Kleinrock,
Queueing Systems I (1975), 3.5-3.6; D. Gross et al., Fundamentals of Queueing Theory (4th ed., 2008),
2.3-2.4. Models serve more evenly than exponentially, so what is found here errs on the safe side.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import exp, expm1, inf, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def erlang_b(workers: int, offered: float) -> float:
    """Share of arrivals that find every worker busy, if those are lost (M/M/c/c).

    `offered` is in erlangs: arrivals per second times seconds of service. The recursion over the
    number of workers (Gross et al., problem 2.6) neither overflows nor cancels.
    """
    blocked = 1.0
    for worker in range(1, workers + 1):
        blocked = offered * blocked / (worker + offered * blocked)
    return blocked


def erlang_c(workers: int, offered: float) -> float:
    """Share of arrivals that must wait, from Erlang B; 1 if the queue grows without bound."""
    if offered >= workers:
        return 1.0
    blocked = erlang_b(workers, offered)
    return blocked / (1 - offered / workers * (1 - blocked))


@dataclass(frozen=True)
class MMc:
    """A queue in its steady state; without one (too few workers) every wait is endless."""

    workers: int
    arrivals_per_s: float
    service_s: float

    @property
    def offered(self) -> float:
        """Erlangs: the workers that are busy on average."""
        return self.arrivals_per_s * self.service_s

    @property
    def spare_per_s(self) -> float:
        """Requests per second that the workers could serve beyond those that arrive."""
        return (self.workers - self.offered) / self.service_s

    def mean_wait_s(self) -> float:
        """Mean seconds in the queue: C / (c mu - lambda)."""
        waiting = erlang_c(self.workers, self.offered)
        return waiting / self.spare_per_s if self.spare_per_s > 0 else inf

    def sojourn_tail(self, seconds: float) -> float:
        """P(W + S > seconds), W the wait and S the service.

        S is exponential and W is so with probability C, so their sum is the convolution: with
        u = mu t and v = (c mu - lambda) t it is exp(-u) + C u (exp(-u) - exp(-v)) / (v - u).
        """
        if self.spare_per_s <= 0:
            return 1.0
        served, waited = seconds / self.service_s, seconds * self.spare_per_s
        return exp(-served) + erlang_c(self.workers, self.offered) * served * _decline(
            served, waited
        )


def service_quantile_s(share: float, service_s: float) -> float:
    """Seconds within which `share` of the services end: no number of workers is quicker."""
    return -service_s * log(1 - share)


def workers_needed(
    arrivals_per_s: float, service_s: float, most: int, holds: Callable[[MMc], bool]
) -> int:
    """Fewest workers, up to `most`, for which `holds` is true; 0 if nothing arrives.

    `holds` must be monotone: true for more workers wherever it is true for fewer.
    """
    if not arrivals_per_s:
        return 0
    counts = range(1, most)  # if none of these, then `most`, whether it holds or not
    return 1 + bisect_left(
        counts, True, key=lambda workers: holds(MMc(workers, arrivals_per_s, service_s))
    )


def _decline(u: float, v: float) -> float:
    """(exp(-u) - exp(-v)) / (v - u), also where u and v meet, and without overflow."""
    apart = abs(v - u)
    return exp(-min(u, v)) * (-expm1(-apart) / apart if apart else 1.0)
