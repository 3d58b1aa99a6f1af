"""Quantiles and their intervals from raw samples; pure, and each formula with its source.

Requests of one run are not independent: a queue that is long now is long in a millisecond too.
Order statistics alone would promise too much, so they are read at the *effective* number of samples.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# (low, high), or a pair of None: these data cannot tell.
Interval = tuple[float, float] | tuple[None, None]
UNDETERMINED: tuple[None, None] = (None, None)
CONFIDENCE = 0.95
Z_95 = NormalDist().inv_cdf(0.975)
# Blocks must be long against the time a queue remembers and many enough to vary; 30 of them make a
# third of a second each in a run of ten.
BLOCKS = 30
WINDOWS = 10
# 95 % points of the chi-squared distribution with 1, 2, ... degrees of freedom (any table).
CHI2_95 = (3.841, 5.991, 7.815, 9.488, 11.070, 12.592, 14.067, 15.507, 16.919, 18.307)


def quantile(ordered: Floats, q: float) -> float | None:
    """The smallest sample that at least a share `q` do not exceed (nearest rank)."""
    return float(ordered[max(0, math.ceil(q * len(ordered)) - 1)]) if len(ordered) else None


def binomial_cdf(n: int, p: float) -> tuple[int, Floats]:
    """(first, P[B <= first], P[B <= first + 1], ...) over all k that matter, for B ~ Bin(n, p).

    The mass ratio (n-k)/(k+1) * p/(1-p) gives the shape, its sum the scale; what lies beyond 12
    standard deviations is below 1e-16 unless n*p is tiny, where everything is kept.
    """
    reach = 12 * math.sqrt(n * p * (1 - p)) + 40
    first, last = max(0, int(n * p - reach)), min(n, int(n * p + reach))
    k = np.arange(first, last)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - k) / (k + 1)) + math.log(p / (1 - p)))])
    masses = np.exp(logs - logs.max())
    return first, np.cumsum(masses / masses.sum())


def quantile_ranks(n: int, q: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks (from 1) of the samples that enclose the quantile: P[low <= B < high] >= confidence.

    Distribution-free, for independent samples; n = 2,000 at p99 gives 1,971 and 1,989. None: too
    few samples. (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1.)
    """
    if n < 2:
        return None
    tail = (1 - confidence) / 2
    first, cdf = binomial_cdf(n, q)
    low = first + int(np.searchsorted(cdf, tail, side="right"))
    high = first + int(np.searchsorted(cdf, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= n else None


def minimum_samples(q: float = 0.99, over: int = 0, confidence: float = 0.99) -> int:
    """Samples needed to claim the quantile when `over` of them lie above the bound.

    MLPerf LoadGen's early stopping (`loadgen/early_stopping.cc`, d = 0): the smallest n with
    P[Bin(n, 1-q) <= over] <= 1 - confidence. 459, 662, 1,307 and 2,010 for 0, 1, 5 and 10 at p99.
    """
    n, step = over + 1, 1 << 20
    while step:
        if _at_most(n + step - 1, 1 - q, over) > 1 - confidence:
            n += step
        step //= 2
    return n


def _at_most(n: int, p: float, k: int) -> float:
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
        + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(min(k, n) + 1)
    ]  # fmt: skip
    return math.fsum(math.exp(log) for log in logs)


def design_effect(runs: Sequence[Floats], bound: float) -> float:
    """How many samples of these runs carry the information of one independent sample; about >= 1.

    The variance of the number of samples above `bound` per block, against that of independent
    samples, which is its mean: both a queue's memory and a stall put many into few blocks. (Kish's
    design effect, L. Kish, Survey Sampling, section 5.4; blocks as in P. Heidelberger, P. A. W.
    Lewis, Quantile Estimation in Dependent Sequences, Operations Research 32, 1984.)
    """
    per_run = max(2, round(BLOCKS / len(runs)))
    counts = [
        np.bincount(np.arange(len(run)) * per_run // len(run), run > bound, per_run) for run in runs
    ]
    blocks = np.concatenate(counts)
    mean = float(blocks.mean())
    return float(blocks.var(ddof=1)) / mean if mean else 1.0


def effective_samples(runs: Sequence[Floats], ordered: Floats, q: float) -> int:
    """How many independent samples say as much about this quantile.

    The design effect at the quantile itself is noisy, as few samples lie above it; five times
    further in it is steadier and usually larger. On autoregressive series (memory 0 to 0.97, 600
    to 20,000 samples) their geometric mean covers the truth in 94 to 99 %, where a block bootstrap
    of the quantile covered it in 78 to 92 %, its upper end being too low.
    """
    near, far = (design_effect(runs, quantile(ordered, at) or 0.0) for at in (q, 1 - 5 * (1 - q)))
    return int(len(ordered) / max(1.0, near, math.sqrt(near * far)))


def quantile_interval(values: Floats, q: float) -> Interval:
    """95 % interval of a quantile (of 0.8 or more) from one run in its order of time."""
    return pooled_quantile_interval([values], q)


def pooled_quantile_interval(runs: Sequence[Floats], q: float) -> Interval:
    """95 % interval of a quantile of the pooled samples of repeats, each in its order of time.

    Order statistics at the ranks of the effective number of samples, and, where the repeats differ
    by more than their insides explain, no narrower than a t interval over the repeats on the log
    scale. Undetermined where that number is too small: one stall, say, has seen nothing twice.
    """
    runs = [run for run in runs if len(run) > 1]
    if not runs:
        return UNDETERMINED
    ordered = np.sort(np.concatenate(runs))
    independent = effective_samples(runs, ordered, q)
    ranks = quantile_ranks(independent, q)
    if ranks is None:
        return UNDETERMINED
    scale = len(ordered) / independent
    low = float(ordered[max(0, math.floor(ranks[0] * scale) - 1)])
    high = float(ordered[min(len(ordered), math.ceil(ranks[1] * scale)) - 1])
    value, factor = quantile(ordered, q) or 0.0, _between_runs(runs, q, low, high)
    return min(low, value / factor), max(high, value * factor)


def _between_runs(runs: Sequence[Floats], q: float, low: float, high: float) -> float:
    """Half width, as a factor, that the spread between repeats asks for; 1: none of its own."""
    freedom = len(runs) - 1
    own = np.array([quantile(np.sort(run), q) for run in runs], float)
    if not 1 <= freedom <= len(CHI2_95) or own.min() <= 0 or low <= 0:
        return 1.0
    spread = float(np.log(own).var(ddof=1))
    # The interval is that of the pool; one run's variance is as many times larger.
    within = (math.log(high / low) / (2 * Z_95)) ** 2 * len(runs)
    if spread * freedom <= CHI2_95[freedom - 1] * within:
        return 1.0
    return math.exp(t_quantile(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(spread / len(runs)))


def t_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t for p > 0.5, to 4 digits (G. W. Hill, CACM Algorithm 396, 1970)."""
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    two_sided = 2 * (1 - p)
    a = 1 / (freedom - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * two_sided) ** (2 / freedom)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(two_sided / 2)
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        inner = 1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3)
        y = ((inner + 0.5 / (freedom + 4)) * y - 1) * (freedom + 1) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)


def mean_interval(values: Sequence[float] | Floats) -> Interval:
    """95 % t interval of a mean, cut off at 0; undetermined with fewer than two values."""
    if len(values) < 2:
        return UNDETERMINED
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = t_quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    return max(0.0, mean - half), mean + half


def window_rates(times_ns: NDArray[np.int64], window_ns: tuple[int, int]) -> Floats:
    """Events per second in each of ten equal parts of the window; empty if they would be empty."""
    span_s = (window_ns[1] - window_ns[0]) / 1e9
    if len(times_ns) < WINDOWS or span_s <= 0:
        return np.empty(0)
    counts, _ = np.histogram(times_ns, bins=WINDOWS, range=window_ns)
    return counts * WINDOWS / span_s
