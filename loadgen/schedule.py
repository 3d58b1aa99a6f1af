"""When requests are due: pure, seeded, exact. Offsets in nanoseconds from the start of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NS = 1e9
# Three times and an outcome per request: beyond this a run does not fit into memory at ease.
REQUESTS_LIMIT = 20_000_000


def constant(rate: float, duration_s: float, _rng: np.random.Generator) -> NDArray[np.float64]:
    """Offsets (s) at equal distances, the first one at 0."""
    # Half a request of slack: 0.1 * 30 must be 3 requests and not 4.
    return np.arange(max(1, round(rate * duration_s))) / rate


def poisson(rate: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Offsets (s) of a Poisson process: given their number, arrivals are uniform order statistics.

    (S. Ross, Introduction to Probability Models, "conditional distribution of the arrival times".)
    """
    return np.sort(rng.uniform(0.0, duration_s, rng.poisson(rate * duration_s)))


ARRIVALS: dict[str, Callable[[float, float, np.random.Generator], NDArray[np.float64]]] = {
    "constant": constant,
    "poisson": poisson,
}


def offsets_ns(arrivals: str, rate: float, duration_s: float, seed: int) -> NDArray[np.int64]:
    """The schedule of a run. Raises BudgetError when it is too long to hold."""
    if rate * duration_s > REQUESTS_LIMIT:
        raise BudgetError(
            f"{rate:g} requests/s for {duration_s:g} s are more than {REQUESTS_LIMIT:,} requests; "
            "lower --rate or --duration"
        )
    rng = np.random.default_rng(seed)
    return (ARRIVALS[arrivals](rate, duration_s, rng) * NS).astype(np.int64)
