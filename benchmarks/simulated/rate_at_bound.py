"""How near the estimate of R(B) comes to the truth, and how often its interval holds it.

    .venv/bin/python -m benchmarks.simulated.rate_at_bound [--quick] [--json FILE]

R(B) is the highest offered rate with p99 <= B. The true curves are the compiled twin's, for servers
drawn all over the place (batches, delays, workers, policies, service times that vary), so that no
curve is of the family that is fitted; bounds are 2 to 10 times the p99 of a server with little to
do. What the estimator is told beforehand is wrong: a capacity by 15 %, a p99 by 30 %.

Windows are as noisy as those that were measured here: capacities by 7 %, half of it by the moment;
p99s by 33 to 17 % over 2 to 20 s, with heavier tails than a normal distribution (Student, 4 degrees
of freedom). Bursts: one window in ten at half the speed, and only every other one is noticed; one
undisturbed window in fifty is called disturbed. Each estimate begins with two closed windows.
These servers are made fast enough for 20,000 requests in a window of 5 s. In the last rows every
window is simulated request by request instead, as few as there are and from an empty queue. Seeded: every run prints the same but for the times.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from benchmarks.harness.report import Report, console, note, table
from dlbench.loadgen.rates.curve import log_load, log_rise
from dlbench.loadgen.rates.next_window import next_window
from dlbench.loadgen.rates.noise import DURATIONS_S, P99_SHARES
from dlbench.loadgen.rates.posterior import infer
from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.rate_at_bound import RateAtBound, rate_at_bound
from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow, Window
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin import twin
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.scenario import Load

CASES, QUICK_CASES = 300, 12
COUNTS = (8, 16)
PROCESSES = 2
SHARES = (
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.93,
    0.96,
    0.98,
    1.0,
)
REQUESTS = 60_000
TWIN_SHARES = (0.3, 0.5, 0.7, 0.9)
WRONG_CAPACITY, WRONG_P99 = 0.15, 0.3
MOMENT, WINDOW, CLOSED = 0.05, 0.05, 0.03
STUDENT = 4
DISTURBED, SLOWER, NOTICED, ALARMS = 0.1, 2.0, 0.5, 0.02
BOUNDS = (2.0, 10.0)  # times the p99 at the share 0.05
NEAREST = 0.98
# A window of a fast server would take long to simulate: it is as short as so many requests.
MOST_REQUESTS = 20_000
FAST_RPS = 8_000.0
KEPT_UP = 0.95


@dataclass(frozen=True)
class Kind:
    """How the windows of a row are made."""

    name: str
    bursts: bool = False
    together: int = 1  # windows that share a moment
    duration_s: float | None = 5.0  # None: as `next_window` says
    in_family: bool = False
    requests: bool = False


KINDS = (
    Kind("true curve of the family", in_family=True),
    Kind("5 s"),
    Kind("5 s, bursts", bursts=True),
    Kind("5 s, two in a moment, bursts", bursts=True, together=2),
    Kind("as short as advised, bursts", bursts=True, duration_s=None),
    Kind("request by request, 5 s", requests=True),
    Kind("request by request, 5 s, bursts", bursts=True, requests=True),
)


def server(number: int) -> tuple[ServingConfig, Calibration]:
    """A configuration, and what the machine takes for its parts."""
    rng = np.random.default_rng((11, number))
    one_s, fixed = math.exp(rng.uniform(math.log(2e-4), math.log(2e-2))), rng.uniform(0, 0.9)
    services = tuple(
        ServiceTime(batch=batch, busy=busy, seconds=seconds * (1 + 0.05 * (busy - 1)))
        for batch in (1, 2, 4, 8, 16, 32, 64)
        for seconds in [one_s * (fixed + (1 - fixed) * batch)]
        for busy in (1, 2, 4)
    )
    calibration = Calibration(
        services=services,
        service_cv=float(rng.choice([0, 0.1, 0.3, 0.6, 1.0])),
        front_s=float(rng.choice([1e-5, 3e-5, 1e-4])),
        cores=int(rng.choice([2, 4, 8])),
        wake_s=1e-5,
        way_s=2e-5,
        turn_s=2e-5,
    )
    policies = ("shared_queue", "shared_queue", "least_outstanding", "round_robin", "random")
    config = ServingConfig(
        workers=int(rng.choice([1, 2, 3, 4])),
        max_batch_size=int(rng.choice([1, 2, 4, 8, 16, 32, 64])),
        max_queue_delay_ms=float(rng.choice([0, 0, 0, 1, 5])),
        scheduling_policy=str(rng.choice(policies)),
        max_queue_size=1_000_000,
        cache_size=0,
    )
    return config, calibration


@dataclass(frozen=True)
class TrueCurve:
    """A server's capacity, and ln p99 in ms at the logarithms of `SHARES`: it only rises."""

    capacity_rps: float
    log_p99: np.ndarray

    def faster(self, times: float) -> TrueCurve:
        return TrueCurve(self.capacity_rps * times, self.log_p99 - math.log(times))

    def p99_ms(self, share: float) -> float:
        return math.exp(np.interp(math.log(share), np.log(SHARES), self.log_p99))

    def rate_rps(self, p99_ms: float) -> float:
        share = np.interp(math.log(p99_ms), self.log_p99, np.log(SHARES))
        return self.capacity_rps * math.exp(share)

    def slope(self, rate_rps: float) -> float:
        """Of ln p99 over ln rate."""
        low, high = (
            rate_rps / self.capacity_rps / 1.05,
            min(1.0, 1.05 * rate_rps / self.capacity_rps),
        )
        return math.log(self.p99_ms(high) / self.p99_ms(low)) / math.log(high / low)


@cache
def true_curve(number: int) -> TrueCurve:
    config, calibration = server(number)
    load = Load(rate_rps=1.0, requests=REQUESTS, seed=number)
    [found] = twin.sweep([config], calibration, SHARES, load, threads=1)
    p99s = np.maximum.accumulate([p.p99_ms for p in found.predictions])
    # Where it is flat it rises by a hair, so that it has an inverse.
    return TrueCurve(found.capacity_rps, np.log(p99s) + 1e-9 * np.arange(len(SHARES)))


class Machine:
    """A server with the noise of its machine."""

    def __init__(self, number: int, kind: Kind) -> None:
        self.number, self.kind = number, kind
        self.rng = np.random.default_rng((5, number))
        self.curve = true_curve(number)
        if not kind.requests:
            self.curve = self.curve.faster(max(1.0, FAST_RPS / self.curve.capacity_rps))
        if kind.in_family:
            growth = self.rng.normal(0.2, 0.8)
            rises = log_rise(np.log(SHARES), growth)
            self.curve = TrueCurve(self.curve.capacity_rps, self.curve.log_p99[0] + rises)
        self._moments: dict[int, float] = {}

    def bound_ms(self) -> float:
        idle_ms, most_ms = self.curve.p99_ms(0.05), self.curve.p99_ms(NEAREST)
        most = max(1.2, min(BOUNDS[1], most_ms / idle_ms))
        least = min(BOUNDS[0], most)
        return idle_ms * math.exp(self.rng.uniform(math.log(least), math.log(most)))

    def prior(self) -> Prior:
        capacity = self.curve.capacity_rps * math.exp(self.rng.normal(0, WRONG_CAPACITY))
        slower = math.exp(self.rng.normal(0, WRONG_P99))
        p99s = [slower * self.curve.p99_ms(share) for share in TWIN_SHARES]
        return Prior.of_curve(capacity, [share * capacity for share in TWIN_SHARES], p99s)

    def closed(self, moment: int) -> ClosedWindow:
        speed, disturbed = self._speed(moment)
        rate = self.curve.capacity_rps * speed * math.exp(self.rng.normal(0, CLOSED))
        return ClosedWindow(rate, 3.0, disturbed, moment)

    def open(self, rate_rps: float, duration_s: float, moment: int) -> OpenWindow:
        speed, disturbed = self._speed(moment)
        make = self._by_request if self.kind.requests else self._by_curve
        p99_ms, completed_rps = make(rate_rps, duration_s, speed)
        saturated = p99_ms is None
        return OpenWindow(
            rate_rps,
            duration_s,
            p99_ms,
            saturated=saturated,
            completed_rps=completed_rps if saturated else None,
            disturbed=disturbed,
            moment=moment,
        )

    def _by_curve(
        self, rate_rps: float, duration_s: float, speed: float
    ) -> tuple[float | None, float]:
        share = rate_rps / self.curve.capacity_rps / speed
        if share > 1:
            return None, rate_rps / share
        spread = np.interp(math.log(duration_s), np.log(DURATIONS_S), P99_SHARES)
        student = self.rng.standard_t(STUDENT) / math.sqrt(STUDENT / (STUDENT - 2))
        return self.curve.p99_ms(share) * math.exp(spread * student), rate_rps

    def _by_request(
        self, rate_rps: float, duration_s: float, speed: float
    ) -> tuple[float | None, float]:
        config, calibration = server(self.number)
        load = Load(
            rate_rps=rate_rps / speed,
            requests=int(np.clip(rate_rps * duration_s, 200, MOST_REQUESTS)),
            seed=int(self.rng.integers(2**31)),
        )
        seen = twin.predict(config, load, calibration)
        kept_up = seen.throughput_rps >= KEPT_UP * load.rate_rps
        return seen.p99_ms / speed if kept_up else None, seen.throughput_rps * speed

    def _speed(self, moment: int) -> tuple[float, bool]:
        """How fast the machine is during a window, and whether it is called disturbed."""
        if moment not in self._moments:
            self._moments[moment] = self.rng.normal(0, MOMENT)
        slow = self.kind.bursts and self.rng.random() < DISTURBED
        called = self.rng.random() < (NOTICED if slow else ALARMS)
        noise = self._moments[moment] + self.rng.normal(0, WINDOW)
        return math.exp(noise) / (SLOWER if slow else 1), called


@dataclass(frozen=True)
class Estimate:
    """An answer beside the truth."""

    found: RateAtBound
    truth_rps: float
    slope: float
    infer_s: float

    @property
    def error(self) -> float:
        return math.log(max(self.found.rate_rps, 1e-9) / self.truth_rps)

    @property
    def held(self) -> bool:
        return self.found.low_rps <= self.truth_rps <= self.found.high_rps


def estimates(number: int, kind: Kind) -> list[Estimate]:
    """After so many windows as `COUNTS` says."""
    machine = Machine(number, kind)
    bound_ms, prior = machine.bound_ms(), machine.prior()
    truth_rps = machine.curve.rate_rps(bound_ms)
    windows: list[Window] = [machine.closed(-1), machine.closed(-2)]
    found = []
    posterior = infer(prior, windows)
    for made in range(max(COUNTS)):
        step = next_window(posterior, bound_ms)
        duration_s = kind.duration_s or step.duration_s
        windows.append(machine.open(step.rate_rps, duration_s, made // kind.together))
        began_s = time.perf_counter()
        posterior = infer(prior, windows)
        answer = rate_at_bound(posterior, bound_ms)
        took_s = time.perf_counter() - began_s
        if made + 1 in COUNTS:
            found.append(Estimate(answer, truth_rps, machine.curve.slope(truth_rps), took_s))
    return found


def misfit(number: int) -> tuple[float, float]:
    """Of the nearest curve of the family: rms of ln p99, and of ln R(B) where the curve is steep."""
    curve = true_curve(number)
    used = np.array(SHARES[3:-1])
    log_p99 = curve.log_p99[3:-1]
    slopes = np.gradient(log_p99, np.log(used))
    weights = (slopes + 1) ** -2
    growths = np.log(np.geomspace(0.02, 30.0, 120))
    offsets = np.linspace(-0.03, 0.3, 67)
    loads = np.minimum(np.log(used) - offsets[:, None, None], math.log(0.9995))
    off = log_p99 - log_rise(loads, growths[:, None])
    lows = np.average(off, axis=2, weights=weights)
    cost = np.average((off - lows[:, :, None]) ** 2, axis=2, weights=weights)
    place = np.unravel_index(cost.argmin(), cost.shape)
    rates = log_load(log_p99 - lows[place], growths[place[1]]) + offsets[place[0]]
    steep = (slopes > 0.5) & np.isfinite(rates)
    wrong = (rates - np.log(used))[steep]
    return float(np.sqrt(np.mean((off[place] - lows[place]) ** 2))), float(
        np.sqrt(np.mean(wrong**2))
    )


def main() -> None:
    report = Report(__doc__ or "")
    cases = range(QUICK_CASES if report.quick else CASES)
    with ProcessPoolExecutor(PROCESSES) as pool:
        misfits = np.array(list(pool.map(misfit, cases, chunksize=4)))
        show_misfit(misfits)
        kept: dict[str, object] = {"misfit": misfits.tolist()}
        made = table(
            f"R(B) after 2 closed windows and so many open ones, {len(cases)} servers each",
            *(
                "windows",
                "open",
                "|error|",
                "90 %",
                "bias",
                "95 % interval +-",
                "holds",
                "too high",
            ),
            *("flat", "medium", "steep", "ms"),
        )
        for kind in KINDS:
            found = list(pool.map(partial(estimates, kind=kind), cases, chunksize=4))
            for place, count in enumerate(COUNTS):
                made.add_row(kind.name, str(count), *row([case[place] for case in found]))
            kept[kind.name] = found
            note(f"{kind.name} done")
    console.print(made)
    console.print(
        "|error|: median of |ln(found / true)|, and 90th percentile. too high: the whole interval is "
        "above the truth. flat, medium, steep: how often the interval holds where ln p99 rises by less "
        "than 1.5, up to 4, and more per unit of ln rate. ms: one update, median."
    )
    report.keep(kept)


def show_misfit(misfits: np.ndarray) -> None:
    shown = table("The nearest curve of the family", "rms of", "median", "90 %")
    for name, values in zip(("ln p99", "ln R(B)"), misfits.T, strict=True):
        shown.add_row(name, *(f"{np.nanquantile(values, share):.3f}" for share in (0.5, 0.9)))
    console.print(shown)


def row(found: list[Estimate]) -> list[str]:
    errors = np.array([one.error for one in found])
    held = np.array([one.held for one in found])
    slopes = np.array([one.slope for one in found])
    kinds = (slopes < 1.5, (slopes >= 1.5) & (slopes < 4), slopes >= 4)
    return [
        f"{np.median(np.abs(errors)):.1%}",
        f"{np.quantile(np.abs(errors), 0.9):.1%}",
        f"{np.median(errors):+.1%}",
        f"{np.median([one.found.width for one in found]):.1%}",
        f"{held.mean():.1%}",
        f"{np.mean([one.found.low_rps > one.truth_rps for one in found]):.1%}",
        *(f"{held[kind].mean():.0%} of {kind.sum()}" if kind.any() else "" for kind in kinds),
        f"{1000 * np.median([one.infer_s for one in found]):.0f}",
    ]


if __name__ == "__main__":
    main()
