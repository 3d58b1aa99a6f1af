"""Where the next window of load tells most about R(B), and how long it lasts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlbench.loadgen.rates.rate_at_bound import rate_quantiles
from dlbench.loadgen.rates.window import OpenWindow

if TYPE_CHECKING:
    from dlbench.loadgen.rates.posterior import Posterior

# Of R(B)'s posterior, in turn: below, at and above the answer, where the curve is steep. Others
# (all at the median, 0.15 to 0.85, all on one side) were no better in simulations.
QUANTILES = (0.3, 0.5, 0.7)
# Of what the server can take, where no rate seems to keep to the bound: perhaps a low one does.
LOW_SHARE = 0.1
# So many requests make a p99; what else differs between windows hardly shrinks with their length,
# so that two short ones tell more than one of twice the length.
REQUESTS = 1000
SHORTEST_S, LONGEST_S = 2.0, 20.0
# Of the requests of a whole window, beyond the bound: five times what its p99 may have.
HOPELESS_SHARE = 0.05


@dataclass(frozen=True)
class NextWindow:
    """An open window to make."""

    rate_rps: float
    duration_s: float


def next_window(posterior: Posterior, p99_ms: float) -> NextWindow:
    """The next of the windows for R(B); which quantile it is at follows from how many there were."""
    made = sum(isinstance(window, OpenWindow) for window in posterior.windows)
    [rate] = rate_quantiles(posterior, p99_ms, (QUANTILES[made % len(QUANTILES)],))
    return window_at(rate or LOW_SHARE * capacity(posterior))


def capacity(posterior: Posterior) -> float:
    """What the server can take at all, whatever the p99: the median, in requests per second."""
    [rate] = rate_quantiles(posterior, float("inf"), (0.5,))
    return rate


def window_at(rate_rps: float) -> NextWindow:
    """As short as a p99 allows."""
    return NextWindow(rate_rps, min(LONGEST_S, max(SHORTEST_S, REQUESTS / rate_rps)))


def is_hopeless(over: int, planned: int) -> bool:
    """Whether a window may end now: far too many of its requests are beyond the bound already.

    `over`: those answered later than the bound, failed, or waiting for longer than it; `planned`:
    all that the window was to have. What it told is `OpenWindow(p99_ms=bound, at_least=True)`.
    """
    return over > HOPELESS_SHARE * planned
