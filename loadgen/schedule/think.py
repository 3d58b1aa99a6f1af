"""How long the users of a closed loop pause between reply and next request: pure and seeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.schedule.schedule import NS, WHOLE, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from dlbench.loadgen.profile import LoadProfile

# Drawn at once: numpy's price of a call is that of a hundred numbers.
BLOCK = 4096
# What else is drawn from the profile's seed must not follow the pauses.
STREAM = 2

# Pauses of mean 1.
THINK: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "constant": lambda _rng: np.ones(BLOCK),
    "exponential": lambda rng: rng.standard_exponential(BLOCK),
}


def think_times_ns(profile: LoadProfile, share: Share = WHOLE) -> Iterator[int]:
    """Pauses without end, taken by whichever user got its reply; of mean `think_s`.

    Each share of a load has pauses of its own, or the workers' users would think in step.
    """
    rng = np.random.default_rng((profile.seed, STREAM, share.index))
    draw, mean_ns = THINK[profile.think_times], profile.think_s * NS
    while True:
        yield from np.rint(draw(rng) * mean_ns).astype(np.int64).tolist()
