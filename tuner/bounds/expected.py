"""The rates within bounds that whole curves let expect, many configurations at once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Curves = NDArray[np.float64]


def rates_within(
    throughput_rps: Curves, p99_ms: Curves, bounds_ms: Sequence[float]
) -> NDArray[np.float64]:
    """R(B) (n, b) of curves (n, s) at rising rates; below the lowest load down to nothing.

    Straight lines of ln p99 over the rate, as close as the loads lie; the last one goes on as it was.
    """
    log_p99 = np.maximum.accumulate(np.log(p99_ms), axis=1)
    first = throughput_rps[:, :1] * np.exp(-1.0)
    rate = np.concatenate([first, throughput_rps], axis=1)
    slope = (log_p99[:, 1] - log_p99[:, 0]) / (throughput_rps[:, 1] - throughput_rps[:, 0])
    lowest = log_p99[:, 0] - slope * (throughput_rps[:, 0] - first[:, 0])
    known = np.concatenate([lowest[:, None], log_p99], axis=1)
    found = [_at(known, rate, np.log(b)) for b in bounds_ms]
    return np.stack(found, axis=1)


def _at(log_p99: Curves, rate: Curves, log_bound: float) -> NDArray[np.float64]:
    """The rate at which each curve reaches the bound."""
    over = log_p99 > log_bound
    right = np.clip(np.where(over.any(axis=1), over.argmax(axis=1), rate.shape[1] - 1), 1, None)
    rows = np.arange(len(rate))
    x0, x1 = rate[rows, right - 1], rate[rows, right]
    y0, y1 = log_p99[rows, right - 1], log_p99[rows, right]
    step = np.maximum(y1 - y0, 1e-6)
    found = x0 + (x1 - x0) * np.minimum((log_bound - y0) / step, _reach(x0, x1))
    unreachable = log_p99[:, 0] > log_bound
    return np.where(unreachable, 0.0, np.maximum(found, 0.0))


def _reach(x0: NDArray[np.float64], x1: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far beyond its end a straight line is followed: a tenth of the rate there."""
    return 1.0 + 0.1 * x1 / np.maximum(x1 - x0, 1e-9)


def mean_gain(taken_rps: NDArray[np.float64], best_rps: NDArray[np.float64]) -> NDArray[np.float64]:
    """By what share rates (n, b) would raise the best ones (b,), in the mean over the bounds."""
    over = np.maximum(taken_rps - best_rps, 0.0)
    return np.asarray(
        (over / np.maximum(best_rps, taken_rps.max(axis=0, initial=0.0) * 1e-3 + 1e-9)).mean(axis=1)
    )


def greedy(taken_rps: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` rows, each the one that raises the best rates most; fewer if none does."""
    scale = np.maximum(taken_rps.max(axis=0, initial=0.0), 1e-9)
    best = np.zeros(taken_rps.shape[1])
    chosen: list[int] = []
    while len(chosen) < count:
        gains = (np.maximum(taken_rps - best, 0.0) / scale).sum(axis=1)
        pick = int(gains.argmax())
        if gains[pick] <= 0:
            break
        chosen.append(pick)
        best = np.maximum(best, taken_rps[pick])
    return chosen
