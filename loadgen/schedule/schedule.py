"""When requests are due: pure, seeded, exact. Offsets in nanoseconds from the start of a run.

How requests are spaced and how their rate changes are two choices. Arrivals of a renewal process
of unit rate, mapped through the inverse of the cumulative rate, have that rate exactly and keep
the spacing's character: Poisson stays Poisson (E. Çinlar, Introduction to Stochastic Processes,
1975, ch. 4.7), and the others their variability (I. Gerhardt and B. L. Nelson, Transforming
Renewal Processes for Simulation of Nonstationary Arrival Processes, INFORMS J. Computing 21, 2009).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.loadgen.errors import BudgetError
from dlbench.loadgen.schedule import pattern, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from dlbench.loadgen.profile import LoadProfile

NS = 1e9
# Three times and an outcome per request: beyond this a run does not fit into memory at ease.
REQUESTS_LIMIT = 20_000_000
# Arrivals drawn at once. Part of what a seed means: gaps of another block size are other gaps.
BLOCK = 65_536
# What else is drawn from the profile's seed must not follow the arrivals.
STREAM = 1


class Share(NamedTuple):
    """Every `of`-th request of a load, from request `index` on: what one of several workers sends.

    All workers draw the same schedule, so that their union is the load asked for, however many
    they are: a Poisson load split in turns is not Poisson in each worker, but it is in their sum.
    """

    index: int = 0  # type: ignore[assignment] # hides tuple.index, which nobody asks a share for
    of: int = 1

    def numbers(self, count: int) -> NDArray[np.int64]:
        """The numbers in the whole load of the first `count` requests of this share."""
        return self.index + self.of * np.arange(count, dtype=np.int64)

    def pick(self, blocks: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
        """This share of a schedule that comes in blocks."""
        picked, seen = [np.empty(0, np.int64)], 0
        for block in blocks:
            # A copy: a view would keep the whole schedule in memory.
            picked.append(block[(self.index - seen) % self.of :: self.of].copy())
            seen += len(block)
        return np.concatenate(picked)


WHOLE = Share()


class Renewal(NamedTuple):
    """A stationary renewal process of unit rate, for a coefficient of variation (cv).

    The first arrival comes after the residual life of the gap under way, which is a uniform share
    of a length-biased gap (D. R. Cox, Renewal Theory, 1962, ch. 5); after a whole gap, bursts of
    cv would send (cv² - 1)/2 requests more than the rate says.
    """

    words: str
    first: Callable[[np.random.Generator, float], float]
    gaps: Callable[[np.random.Generator, float, int], NDArray[np.float64]]


ARRIVALS = {
    # The exception: it begins at 0, so that every run has the same, and at least one request.
    "constant": Renewal("Constant", lambda _rng, _cv: 0.0, lambda _rng, _cv, count: np.ones(count)),
    "poisson": Renewal(
        "Poisson",
        lambda rng, _cv: rng.standard_exponential(),
        lambda rng, _cv, count: rng.standard_exponential(count),
    ),
    "gamma": Renewal(
        "Gamma (cv {0.gamma_cv:g})",
        lambda rng, cv: rng.uniform() * rng.gamma(1 + cv**-2, cv**2),
        lambda rng, cv, count: rng.gamma(cv**-2, cv**2, count),
    ),
}


def offsets_ns(profile: LoadProfile, share: Share = WHOLE) -> NDArray[np.int64]:
    """An open loop's schedule, sorted, from the start of the run and with its warm-up.

    The warm-up lasts until `warmup_s`, the pattern until `warmup_s + duration_s`; a trace begins
    with the run and is all there is: its first `warmup_s` are the warm-up. May be empty.
    Raises BudgetError for a load that is too long to hold, DataError for a bad trace.
    """
    trace_file = profile.trace
    return share.pick(
        _recorded(trace_file, profile, share) if trace_file else _drawn(profile, share)
    )


def describe(profile: LoadProfile) -> str:
    """What was meant, in one line: "Poisson, ramp from 100/s to 2,000/s over 30 s"."""
    warmup = f", after {profile.warmup_s:g} s of warm-up" if profile.warmup_s else ""
    return f"{_kind(profile)} over {profile.duration_s:g} s{warmup}"


def _kind(profile: LoadProfile) -> str:
    if profile.trace:
        stretched = "" if profile.trace_scale == 1 else f", times scaled by {profile.trace_scale:g}"
        return f"Trace {profile.trace}{stretched}"
    if profile.users:
        pauses = (
            f", {profile.think_times} think time of {profile.think_s:g} s"
            if profile.think_s
            else ""
        )
        return f"Closed loop, {profile.users:,} {'user' if profile.users == 1 else 'users'}{pauses}"
    return f"{ARRIVALS[profile.arrivals].words.format(profile)}, {pattern.words(profile)}"


def _recorded(path: str, profile: LoadProfile, share: Share) -> Iterator[NDArray[np.int64]]:
    times = trace.scheduled_s(path, profile.trace_scale, _span_s(profile))
    _refuse_too_many(len(times) / share.of, "--duration")
    yield _whole_ns(times, profile)


def _drawn(profile: LoadProfile, share: Share) -> Iterator[NDArray[np.int64]]:
    rate = pattern.CumulativeRate(profile)
    _refuse_too_many(rate.total / share.of, "--rate or --duration")
    latest = 0
    for counts in _unit_arrivals(profile, rate.total):
        offsets = _whole_ns(rate.inverse(counts), profile)
        # Arrivals a rounding error apart may leave the inverse in the wrong order.
        np.maximum.accumulate(np.maximum(offsets, latest, out=offsets), out=offsets)
        yield offsets
        latest = offsets[-1] if len(offsets) else latest


def _unit_arrivals(profile: LoadProfile, until: float) -> Iterator[NDArray[np.float64]]:
    renewal, cv = ARRIVALS[profile.arrivals], profile.gamma_cv
    rng = np.random.default_rng((profile.seed, STREAM))
    start = renewal.first(rng, cv)
    while start < until:
        times = np.cumsum(np.concatenate(([start], renewal.gaps(rng, cv, BLOCK))))
        yield times[: np.searchsorted(times[:-1], until)]
        start = times[-1]


def _whole_ns(times_s: NDArray[np.float64], profile: LoadProfile) -> NDArray[np.int64]:
    offsets = np.rint(times_s * NS).astype(np.int64)
    # Cut in whole nanoseconds: what is due at 30 s, computed as 29.999…, is not in 30 s.
    return offsets[offsets < round(_span_s(profile) * NS)]


def _span_s(profile: LoadProfile) -> float:
    return profile.warmup_s + profile.duration_s


def _refuse_too_many(requests: float, options: str) -> None:
    if requests > REQUESTS_LIMIT:
        raise BudgetError(
            f"{requests:,.0f} requests are more than the {REQUESTS_LIMIT:,} that one process can "
            f"hold; lower {options}, or spread them over more --processes"
        )
