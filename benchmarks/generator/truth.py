"""Does the generator tell the truth? Against a server whose latency is known (`known_server.py`).

    .venv/bin/python -m benchmarks.generator.truth [--quick] [--json FILE]

1. The measured p99 against the true one, for each distribution.
2. Many short runs: how often does the 95 % interval hold the truth?
3. Lateness at 500 to 16,000/s, and whether every scheduled request was sent when it was meant.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.generator.known_server import KNOWN, Known, Timing
from benchmarks.harness.process import BenchmarkError, running
from benchmarks.harness.report import Report, aim, console, note, spread, table
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dlbench.loadgen.control.generator import Run
    from dlbench.loadgen.measurement import Measurement

SCRIPT = Path(__file__).with_name("known_server.py")
SHAPES = ("lognormal", "bimodal", "pareto", "stalls")
RATE = 1000
# Whole periods of the stall: every run sees the same share of it.
SHORT_S = 2.0
COVERED = (0.93, 0.97)
LATE_MS = 0.3
COUNTS = ("sent_even", "sent_random")
LATE_UP_TO = 8000


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 5
    seconds: float = 10
    short_runs: int = 200
    rates: tuple[int, ...] = (500, 1000, 2000, 4000, 8000, 16000)
    lateness_s: float = 5


QUICK = Plan(repeats=1, seconds=2, short_runs=8, rates=(1000, 8000), lateness_s=1)


@dataclass
class Served:
    """A running server of known latency; `timing` is there once it has ended."""

    url: str
    timing: Timing | None = None


def main() -> None:
    report = Report(__doc__ or "")
    plan = QUICK if report.quick else Plan()
    with Generator() as generator:
        report.keep(
            {
                "plan": plan,
                "quantiles": quantiles(generator, plan),
                "coverage": coverage(generator, plan),
                "schedule": schedule(generator, plan),
            }
        )


@contextmanager
def serving(name: str, seed: int) -> Iterator[Served]:
    """A fresh server of the distribution `name`."""
    command = [sys.executable, SCRIPT, name, str(seed)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(command, **pipes) as process:
        assert process.stdin
        assert process.stdout
        served = Served(**json.loads(process.stdout.readline()))
        yield served
        process.stdin.close()
        served.timing = Timing(**json.loads(process.stdout.readline()))


def measure(generator: Generator, url: str, **load: Any) -> Run:
    """One run that has to be without errors."""
    profile = LoadProfile(**load)
    run = generator.measure(discover(url, profile), profile)
    if run.measurement.errors:
        raise BenchmarkError(f"the generator met errors: {run.measurement.errors}")
    return run


# --- 1. the p99 ------------------------------------------------------------------------------------


def quantiles(generator: Generator, plan: Plan) -> dict[str, Any]:
    """`repeats` runs of each distribution, always on a fresh server with other draws."""
    found: dict[str, list[Measurement]] = {name: [] for name in SHAPES}
    timings: dict[str, list[Timing]] = {name: [] for name in SHAPES}
    for repeat in range(plan.repeats):
        for name in SHAPES:
            with serving(name, repeat) as served:
                load = {"rate": RATE, "duration_s": plan.seconds, "seed": repeat}
                found[name].append(measure(generator, served.url, **load).measurement)
            timings[name].append(served.timing)
        note(f"p99: round {repeat + 1} of {plan.repeats}")
    show_quantiles(found, timings)
    measured = {name: [run.model_dump() for run in runs] for name, runs in found.items()}
    return {"measured": measured, "timings": timings}


def show_quantiles(found: dict[str, list[Measurement]], timings: dict[str, list[Timing]]) -> None:
    made = table(
        f"What the generator says of a known latency, {RATE:,}/s, Poisson",
        *("latency", "true p50", "measured", "true p99", "measured (min-max)", "error of median"),
        *("server late p50/p99 ms", "verdicts"),
    )
    errors = {}
    for name, runs in found.items():
        true_p50, true_p99 = KNOWN[name].quantile(0.5), KNOWN[name].quantile(0.99)
        tails = [run.p99_ms for run in believed(runs)]
        errors[name] = median(tails) / true_p99 - 1
        late = (
            median(t.late_p50_ms for t in timings[name]),
            max(t.late_p99_ms for t in timings[name]),
        )
        made.add_row(
            *(name, f"{true_p50:.2f}", f"{median(run.p50_ms for run in runs):.2f}"),
            *(f"{true_p99:.2f}", spread(tails), f"{errors[name]:+.1%}"),
            *(f"{late[0]:.3f}/{late[1]:.3f}", counted(run.verdict for run in runs)),
        )
    console.print(made)
    for name, error in errors.items():
        aim(f"{name}: error of the median p99, %,", [abs(error) * 100], 5)


def counted(verdicts: Iterable[str]) -> str:
    """Each word, and how often it fell."""
    return " ".join(f"{count} {word}" for word, count in Counter(verdicts).most_common())


def believed(runs: list[Measurement]) -> list[Measurement]:
    """Without those that say of themselves that they are invalid, unless there are no others."""
    return [run for run in runs if run.verdict != "invalid"] or runs


# --- 2. the interval -------------------------------------------------------------------------------


def coverage(generator: Generator, plan: Plan) -> dict[str, list[str]]:
    """Short runs, the distributions taking turns; each is judged."""
    found: dict[str, list[str]] = {name: [] for name in SHAPES}
    for name in SHAPES:
        with serving(name, seed=1000) as served:
            for seed in range(plan.short_runs // len(SHAPES)):
                load = {"rate": RATE, "duration_s": SHORT_S, "warmup_s": 0.2, "seed": seed}
                run = measure(generator, served.url, **load).measurement
                found[name].append(judged(run, KNOWN[name]))
        note(f"intervals: {name} done")
    show_coverage(found)
    return found


def judged(run: Measurement, known: Known) -> str:
    """Where the interval lies, seen from the truth; `untold`: it is undetermined."""
    if run.verdict == "invalid":
        return "invalid"
    if run.p99_low_ms is None or run.p99_high_ms is None:
        return "untold"
    truth = known.quantile(0.99)
    if truth < run.p99_low_ms:
        return "high"
    return "low" if truth > run.p99_high_ms else "holds"


def show_coverage(found: dict[str, list[str]]) -> None:
    made = table(
        f"95 % interval of the p99, runs of {SHORT_S:g} s at {RATE:,}/s",
        *(
            "latency",
            "runs",
            "holds the truth",
            "too low",
            "too high",
            "undetermined",
            "p of 93-97 %",
        ),
    )
    for name, words in [*found.items(), ("together", [*chain(*found.values())])]:
        held = words.count("holds")
        told = held + words.count("low") + words.count("high")
        made.add_row(
            *(name, str(len(words)), f"{held / max(1, told):.1%}"),
            *(str(words.count(word)) for word in ("low", "high", "untold", "invalid")),
            f"{plausibility(held, told):.3f}",
        )
    console.print(made)
    console.print(
        "p: the exact binomial chance of so few (or many) holding intervals if 93 % (97 %) were right;\n"
        "under 0.025 the coverage is outside of 93-97 %."
    )


def plausibility(held: int, runs: int) -> float:
    """The smaller one of P[X <= held] at 93 % and P[X >= held] at 97 %, X binomial: one-sided each.

    The hypothesis is a range, so each side is tested at its own end (C. J. Clopper, E. S. Pearson,
    Biometrika 26, 1934).
    """

    def chance(of: range, p: float) -> float:
        return math.fsum(math.comb(runs, k) * p**k * (1 - p) ** (runs - k) for k in of)

    least, most = COVERED
    return min(chance(range(held + 1), least), chance(range(held, runs + 1), most))


# --- 3. the schedule -------------------------------------------------------------------------------


def schedule(generator: Generator, plan: Plan) -> dict[int, list[dict[str, float]]]:
    """Constant arrivals, whose number is known beforehand, and Poisson ones, for the lateness."""
    found: dict[int, list[dict[str, float]]] = {rate: [] for rate in plan.rates}
    for repeat in range(plan.repeats):
        for rate, runs in found.items():
            with serving("none", repeat) as served:
                load = {"rate": rate, "duration_s": plan.lateness_s, "seed": repeat}
                even = measure(generator, served.url, arrivals="constant", **load)
                random = measure(generator, served.url, arrivals="poisson", **load)
            runs.append(
                {
                    "sent_even": sent(even) / (rate * plan.lateness_s),
                    "sent_random": sent(random) / random.measurement.requests,
                    "lateness_p50_ms": float(np.median(random.samples.lateness_ns)) / 1e6,
                    "lateness_p99_ms": random.measurement.lateness_p99_ms or 0.0,
                    "client_cpu": random.measurement.client_cpu,
                }
            )
        note(f"schedule: round {repeat + 1} of {plan.repeats}")
    show_schedule(found)
    return found


def sent(run: Run) -> int:
    """Requests that really left inside the window."""
    start, end = run.samples.window_ns
    times = run.samples.sent_ns
    return int(np.count_nonzero((times >= start) & (times < end)))


def show_schedule(found: dict[int, list[dict[str, float]]]) -> None:
    made = table(
        "Sent inside the window, of what the schedule has there; actual minus scheduled send time",
        *("rate", "constant", "Poisson", "late p50 ms", "late p99 ms (min-max)", "client CPU"),
    )
    for rate, runs in found.items():
        counts = [max((run[key] - 1 for run in runs), key=abs) for key in COUNTS]
        made.add_row(
            *(f"{rate:,}", *(f"{count:+.2%}" for count in counts)),
            f"{median(run['lateness_p50_ms'] for run in runs):.3f}",
            spread([run["lateness_p99_ms"] for run in runs], ".3f"),
            f"{median(run['client_cpu'] for run in runs):.0%}",
        )
    console.print(made)
    console.print("counts: the worst of all runs; lateness: of all runs, invalid ones too.")
    for rate in (rate for rate in found if rate <= LATE_UP_TO):
        aim(
            f"lateness p99 at {rate:,}/s, ms,", [r["lateness_p99_ms"] for r in found[rate]], LATE_MS
        )
    off = [abs(run[key] - 1) * 100 for runs in found.values() for run in runs for key in COUNTS]
    aim("worst difference of the arrival count, %,", [max(off)], 0.5)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
