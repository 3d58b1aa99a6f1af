"""Quantiles and their intervals from raw samples; pure, and each formula with its source.

A failed request has no latency but a lower bound of one, and is infinite here: `math.inf` stands
among the samples, and is what a quantile, or the end of an interval, is where it falls among them.

Requests of one run are not independent: a queue that is long now is long in a millisecond too.
Order statistics alone would promise too much, so they are read at the *effective* number of samples,
and where a run is too short to know that number, nothing is promised. `benchmarks/simulated/intervals.py`
measures how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# (low, high), or a pair of None: these data cannot tell.
Interval = tuple[float, float] | tuple[None, None]
UNDETERMINED: tuple[None, None] = (None, None)
CONFIDENCE = 0.95
Z_95 = NormalDist().inv_cdf(0.975)
# Blocks must be long against the time a queue remembers, and enough of them to vary.
BLOCKS = 20
# Bursts of slow requests differ in length, so that their variance among the blocks is usually seen
# too small: the design effect's part above 1 is raised by this much. Chosen by simulation, where
# 1.0 covered 90 to 92 % on M/M/1; with 1.35 most runs that can tell cover 93 to 97.6 %, but queues
# whose tail remembers longer than their middle (M/M/4 at a load of 0.7) only 86 to 93 % in the tail.
CALIBRATION = 1.35
# Below this the spread of 20 blocks is chance even for independent requests.
LEAST_DESIGN_EFFECT = 0.6
# Once requests depend on each other (design effect above 2), fewer bursts than this beyond the
# quantile say too little about the next one.
DEPENDENT, FEWEST_BURSTS = 2.0, 5
# A correlation between neighbouring blocks above two standard errors: the run's memory is longer
# than its blocks, and no number that is derived from them would be right.
LONGEST_MEMORY = 2 / math.sqrt(BLOCKS)
WINDOWS = 10
# 95 % points of the chi-squared distribution with 1, 2, ... degrees of freedom (any table).
CHI2_95 = (3.841, 5.991, 7.815, 9.488, 11.070, 12.592, 14.067, 15.507, 16.919, 18.307)


def quantile(ordered: Floats, q: float) -> float | None:
    """The smallest sample that at least a share `q` do not exceed (nearest rank); None: no samples."""
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


def quantile_ranks(n: int, q: float, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Ranks (from 1) between which the quantile lies with this confidence; None: too few samples.

    Distribution-free, for independent samples. Rank r is exceeded by the quantile with P[B < r],
    B ~ Bin(n, q); between whole ranks that probability is interpolated, as whole ones hold more
    than was asked for: for n = 2,000 at p99 they are 1,971 and 1,989, rounded outwards.
    (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1.)
    """
    if n < 2:
        return None
    first, cdf = binomial_cdf(n, q)
    ranks = first + 1 + np.arange(len(cdf))
    low, high = np.interp([(1 - confidence) / 2, (1 + confidence) / 2], cdf, ranks, left=0)
    return (float(low), float(high)) if low >= 1 and high <= n else None


def minimum_samples(q: float = 0.99, over: int = 0, confidence: float = 0.99) -> int:
    """Samples needed to claim the quantile when `over` of them are above the bound.

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
    """P[Bin(n, p) <= k]."""
    first, cdf = binomial_cdf(n, p)
    return 0.0 if k < first else float(cdf[min(k - first, len(cdf) - 1)])


def block_shares(runs: Sequence[Floats], bound: float) -> NDArray[np.float64]:
    """Share of requests above `bound` in each block, one row per run: 20 blocks over all runs."""
    return _block_means([run > bound for run in runs])


def _block_means(runs: Sequence[NDArray[Any]]) -> Floats:
    per_run = max(2, round(BLOCKS / len(runs)))
    edges = [np.arange(per_run + 1) * len(run) // per_run for run in runs]
    return np.array(
        [
            np.add.reduceat(run, edge[:-1], dtype=np.float64) / np.diff(edge)
            for run, edge in zip(runs, edges, strict=True)
        ]
    )


def design_effect(shares: Floats, samples: int) -> float:
    """How many of the samples carry the information of one independent sample.

    The variance of the blocks' shares against that of independent samples: both a queue's memory
    and a stall put many slow requests into few blocks. (L. Kish, Survey Sampling, section 5.4;
    blocks as in P. Heidelberger, P. A. W. Lewis, Quantile Estimation in Dependent Sequences,
    Operations Research 32, 1984.)
    """
    share = float(shares.mean())
    independent = share * (1 - share) * shares.size / samples
    variance = float((_within(shares) ** 2).sum()) / (shares.size - len(shares))
    return variance / independent if independent else 1.0


def memory(shares: Floats) -> float:
    """Correlation of neighbouring blocks of the same run, -1 to 1."""
    off = _within(shares)
    return float((off[:, 1:] * off[:, :-1]).sum() / max((off**2).sum(), 1e-300))


def _within(shares: Floats) -> Floats:
    """What repeats differ by is looked at on its own (`_between_runs`)."""
    off: Floats = shares - shares.mean(axis=1, keepdims=True)
    return off


def effective_samples(runs: Sequence[Floats], ordered: Floats, q: float) -> float:
    """How many independent samples say as much about this quantile; 0: the run cannot tell.

    What the median and the quantile five times further in remember is looked at as well: the few
    samples above the quantile may lie apart by luck. The number is lowered as far as a t interval
    over as many blocks is wider than a normal one. (E. L. Korn, B. I. Graubard, Confidence
    intervals for proportions with small expected number of positive counts, Survey Methodology 24,
    1998; inverted as in R. S. Woodruff, JASA 47, 1952.)
    """
    samples = len(ordered)
    levels = (q, 1 - 5 * (1 - q) if q >= 0.9 else 0.5, 0.5)
    # Among failures it is they that are above the rest.
    slowest = float(ordered[np.isfinite(ordered)].max(initial=0.0))
    shares = [block_shares(runs, min(quantile(ordered, level) or 0.0, slowest)) for level in levels]
    own, *others = (max(LEAST_DESIGN_EFFECT, design_effect(at, samples)) for at in shares)
    worst = max(own, math.sqrt(own * max(others)))
    bursts = samples * min(q, 1 - q) / worst
    if worst > DEPENDENT and bursts < FEWEST_BURSTS:
        return 0.0
    if max(memory(shares[0]), memory(shares[-1])) > LONGEST_MEMORY:
        return 0.0
    student = t_quantile(0.5 + CONFIDENCE / 2, shares[0].size - len(runs))
    return min(samples, samples / _calibrated(own) * (Z_95 / student) ** 2)


def _calibrated(effect: float) -> float:
    return max(effect, 1 + CALIBRATION * (effect - 1))


def quantile_interval(values: Floats, q: float) -> Interval:
    """95 % interval of a quantile from one run in its order of time."""
    return pooled_quantile_interval([values], q)


def pooled_quantile_interval(runs: Sequence[Floats], q: float) -> Interval:
    """95 % interval of a quantile of the pooled samples of repeats, each in its order of time.

    Order statistics at the ranks of the effective number of samples, and, where the repeats differ
    by more than their insides explain, no narrower than a t interval over the repeats on the log
    scale. Undetermined where that number is too small: one stall, say, has seen nothing twice.
    """
    runs = [run for run in runs if len(run) >= BLOCKS]
    if not runs:
        return UNDETERMINED
    ordered = np.sort(np.concatenate(runs))
    independent = int(effective_samples(runs, ordered, q))
    ranks = quantile_ranks(independent, q)
    if ranks is None:
        return UNDETERMINED
    places = [rank * len(ordered) / independent for rank in ranks]
    low, high = _at_rank(ordered, places[0], math.floor), _at_rank(ordered, places[1], math.ceil)
    value = quantile(ordered, q) or 0.0
    own = [quantile(np.sort(run), q) or 0.0 for run in runs]
    if math.inf in (value, high, *own):
        return min(low, value), math.inf
    factor = _between_runs(own, low, high)
    return min(low, value / factor), max(high, value * factor)


def _at_rank(ordered: Floats, rank: float, outwards: Callable[[float], int]) -> float:
    """The sample at a rank (from 1), interpolated; `outwards` where one neighbour is infinite."""
    at = min(max(rank, 1.0), len(ordered)) - 1
    low, high = float(ordered[math.floor(at)]), float(ordered[math.ceil(at)])
    if math.isinf(high):
        return float(ordered[outwards(at)])
    return low + (at - math.floor(at)) * (high - low)


def pooled_mean_interval(runs: Sequence[Floats]) -> Interval:
    """95 % interval of the mean of repeats, each in its order of time, by batch means.

    (A. M. Law, Simulation Modeling and Analysis, 5th ed., section 9.5.3.) Undetermined where
    neighbouring batches still resemble each other.
    """
    runs = [run for run in runs if len(run) >= BLOCKS]
    if not runs:
        return UNDETERMINED
    means = _block_means(runs)
    low, high = mean_interval(means.ravel())
    if low is None or high is None or memory(means) > LONGEST_MEMORY:
        return UNDETERMINED
    factor = _between_runs([float(run.mean()) for run in runs], low, high)
    return min(low, float(means.mean()) / factor), max(high, float(means.mean()) * factor)


def holds(values: Floats, bound: float, q: float, confidence: float = 0.99) -> bool | None:
    """Whether the quantile lies below (True) or above (False) the bound; None: too few to tell.

    `values` in their order of time. MLPerf's early stopping (`minimum_samples`) in both directions,
    at the effective instead of the whole number of samples; that nothing is slow is believed only
    of a run that could tell, that much is slow has been seen.
    """
    if len(values) < BLOCKS:
        return None
    seen = 1 / max(1.0, _calibrated(design_effect(block_shares([values], bound), len(values))))
    sure = effective_samples([values], np.sort(values), q) / len(values)
    over = int(np.count_nonzero(values > bound))
    if _at_most_of(len(values), min(seen, sure), over, q) <= 1 - confidence:
        return True
    if _at_most_of(len(values), seen, over - 1 / seen, q) >= confidence:
        return False
    return None


def _at_most_of(samples: int, share: float, over: float, q: float) -> float:
    """P[so few above the bound], when a share of the samples is independent."""
    independent = int(samples * share)
    return _at_most(independent, 1 - q, math.ceil(over * share)) if independent else 1.0


def _between_runs(own: Sequence[float], low: float, high: float) -> float:
    """Half width, as a factor, that the spread between repeats asks for; 1: none of its own."""
    freedom = len(own) - 1
    if not 1 <= freedom <= len(CHI2_95) or min(own) <= 0 or low <= 0:
        return 1.0
    spread = float(np.log(own).var(ddof=1))
    # The interval is that of the pool; one run's variance is as many times larger.
    within = (math.log(high / low) / (2 * Z_95)) ** 2 * len(own)
    if spread * freedom <= CHI2_95[freedom - 1] * within:
        return 1.0
    return math.exp(t_quantile(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(spread / len(own)))


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
