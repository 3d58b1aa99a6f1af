"""Which share of requests each cache policy answers: on Zipf's law, with scans among it, on a loop.

    .venv/bin/python -m benchmarks.simulated.cache_policies

The proxy's own caches, with seeded keys and no proxy around them: every run prints the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import report
from dlbench.proxy.cache.cache import CACHES, Bounds
from dlbench.proxy.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

REQUESTS, DISTINCT = 100_000, 10_000
SIZES = (100, 1000)
ANSWER = (Tensor((1,), b"x"),)
POLICIES = tuple(policy for policy in CACHES if policy != "none")


def zipf(exponent: float) -> NDArray[np.int64]:
    """Input numbers by popularity: the k-th is asked for as 1/k**exponent."""
    weights = 1 / np.arange(1, DISTINCT + 1) ** exponent
    return np.random.default_rng(1).choice(DISTINCT, REQUESTS, p=weights / weights.sum())


def scanned() -> NDArray[np.int64]:
    """Zipf's law, and after every 2,000 requests 2,000 inputs that nobody asks for again."""
    pieces = np.split(zipf(1.0), REQUESTS // 2000)
    new = np.arange(DISTINCT, DISTINCT + REQUESTS).reshape(-1, 2000)
    return np.concatenate([part for pair in zip(pieces, new, strict=True) for part in pair])


def looped() -> NDArray[np.int64]:
    """1,200 inputs, one after the other, again and again: more than any of the caches holds."""
    return np.arange(REQUESTS) % 1200


LOADS: dict[str, Callable[[], NDArray[np.int64]]] = {
    "Zipf 0.8": lambda: zipf(0.8),
    "Zipf 1.0": lambda: zipf(1.0),
    "Zipf 1.2": lambda: zipf(1.2),
    "Zipf 1.0, half of it scans": scanned,
    "a loop of 1,200": looped,
}


def hit_ratio(policy: str, entries: int, keys: list[bytes]) -> float:
    """The share of the second half's requests that the cache answers."""
    cache = CACHES[policy](Bounds(entries, 2**40))
    hits = 0
    for number, key in enumerate(keys):
        if cache.get(key, 0) is None:
            cache.put(key, ANSWER, 0)
        else:
            hits += number >= len(keys) // 2
    return hits / (len(keys) - len(keys) // 2)


def main() -> None:
    script = report.Report(__doc__)
    table = report.table("hit ratio in the second half", "load", "entries", *POLICIES)
    found: dict[str, dict[str, float]] = {}
    for load, draw in LOADS.items():
        keys = [number.to_bytes(8, "little") for number in draw().tolist()]
        for entries in SIZES:
            ratios = {policy: hit_ratio(policy, entries, keys) for policy in POLICIES}
            found[f"{load}, {entries}"] = ratios
            table.add_row(load, str(entries), *(f"{ratios[policy]:.3f}" for policy in POLICIES))
    report.console.print(table)
    script.keep(found)


if __name__ == "__main__":
    main()
