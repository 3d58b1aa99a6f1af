"""How often the 95 % intervals hold the truth, and how often equal servers are told apart.

    .venv/bin/python -m benchmarks.simulated.intervals [--quick] [--only WORD] [--json FILE]

Simulated sample paths of known distribution, so nothing here is measured on a machine: M/M/1 and
M/M/4 response times, log-normal series with a memory, bimodal, heavy-tailed, and stalls. A run that
says `undetermined` neither hits nor misses; its share stands behind the coverage. A/A compares two
paths of the same server; `wrong` is how often `holds` claims a side with a confidence of 99 %, when
the bound is the quantile itself.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from dlbench.loadgen.analysis.differences import QUANTILES, Figure, Runs, compare_figures
from dlbench.loadgen.analysis.statistics import binomial_cdf, holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Paths = NDArray[np.float64]  # one row per path, in the order of time
    Simulate = Callable[[np.random.Generator, int, int], Paths]
    Tail = Callable[[float], float]  # P[latency > t]

RATE = 1000.0  # requests per second where a scenario has a clock
NORMAL = NormalDist()
# A cell with more runs than this that cannot tell is too short to be judged by those that could.
USUAL = 0.2
console = Console(width=170, highlight=False)


def queue(load: float, rng: np.random.Generator, paths: int, n: int) -> Paths:
    """M/M/1 response times from the stationary state on (Lindley's recursion)."""
    service, gaps = rng.exponential(size=(paths, n)), rng.exponential(1 / load, size=(paths, n))
    first = rng.exponential(1 / (1 - load), size=paths) * (rng.random(paths) < load)
    steps = np.concatenate([first[:, None], service[:, :-1] - gaps[:, 1:]], axis=1)
    walk = steps.cumsum(axis=1)
    return walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0) + service


def servers(load: float, rng: np.random.Generator, paths: int, n: int, of: int = 4) -> Paths:
    """M/M/4 in order of arrival (Kiefer and Wolfowitz), after 3,000 requests of warm-up."""
    free, out = np.zeros((paths, of)), np.empty((paths, n))
    for i in range(-3000, n):
        taken = np.maximum(free[:, 0], 0) + rng.exponential(size=paths)
        if i >= 0:
            out[:, i] = taken
        free[:, 0] = taken
        free -= rng.exponential(1 / (of * load), size=paths)[:, None]
        free.sort(axis=1)
    return out


def servers_tail(load: float, t: float, of: int = 4) -> float:
    """Erlang C's waiting time and an exponential service."""
    blocked = 1.0
    for k in range(1, of + 1):
        blocked = of * load * blocked / (k + of * load * blocked)
    waits, spare = blocked / (1 - load * (1 - blocked)), of - 1 - of * load
    served = math.exp(-t)
    late = t * served if abs(spare) < 1e-9 else (served - math.exp(-(1 + spare) * t)) / spare
    return served + waits * late


def autoregressive(memory: float, rng: np.random.Generator, paths: int, n: int) -> Paths:
    """Log-normal; the logarithms are a stationary AR(1)."""
    out, state = np.empty((n, paths)), rng.normal(size=paths)
    noise = math.sqrt(1 - memory**2)
    for i in range(n):
        out[i] = state
        state = memory * state + noise * rng.normal(size=paths)
    return np.exp(out.T)


def two_modes(stay: float, rng: np.random.Generator, paths: int, n: int) -> Paths:
    """3 % of the requests take 20 times as long, `stay` of them in a row on average."""
    slow, state = np.empty((n, paths), bool), rng.random(paths) < 0.03
    for i in range(n):
        slow[i] = state
        chance = rng.random(paths)
        leave, come = (1 / stay, 0.03 / 0.97 / stay) if stay > 1 else (0.97, 0.03)
        state = np.where(state, chance >= leave, chance < come)
    return np.exp(0.3 * rng.normal(size=(paths, n))) * np.where(slow.T, 20.0, 1.0)


def two_modes_tail(t: float) -> float:
    fast, slow = (NORMAL.cdf(math.log(max(t, 1e-300) / at) / 0.3) for at in (1, 20))
    return 0.97 * (1 - fast) + 0.03 * (1 - slow)


def stalls(
    every_s: float, long_s: float, random: bool, rng: np.random.Generator, paths: int, n: int
) -> Paths:
    """Replies take 5 ms, or until the stall is over, at 1,000/s."""
    out = np.empty((paths, n))
    for path in out:
        at = rng.exponential(1 / RATE, size=n).cumsum()
        number = int(at[-1] / every_s * 1.5) + 100
        gaps = rng.exponential(every_s - long_s, size=number) + long_s
        begins = gaps.cumsum() - 20 * every_s if random else np.arange(number) * every_s
        begins -= 0 if random else every_s * (1 + rng.random())
        last = begins[np.searchsorted(begins, at, side="right") - 1]
        path[:] = rng.exponential(5, size=n) + 1000 * np.maximum(0, last + long_s - at)
    return out


def stalls_tail(every_s: float, long_s: float, t: float, mean: float = 5.0) -> float:
    share, most = long_s / every_s, 1000 * long_s
    rest = max(0.0, t - most)
    within = (math.exp(-rest / mean) - math.exp(-t / mean)) * mean / most
    return (1 - share) * math.exp(-t / mean) + share * (within + max(0.0, 1 - t / most))


@dataclass(frozen=True)
class Scenario:
    """A server: how to simulate it, and the tail of its latency."""

    name: str
    simulate: Simulate
    tail: Tail
    # Mean number of requests between two of its rare events.
    event: int = 0

    def truth(self, q: float) -> float:
        """By bisection."""
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(middle) > 1 - q else (low, middle)
        return low


def lognormal_tail(t: float) -> float:
    return 1 - NORMAL.cdf(math.log(t)) if t > 0 else 1.0


def scenarios() -> Iterator[Scenario]:
    yield Scenario(
        "exponential", lambda rng, p, n: rng.exponential(size=(p, n)), lambda t: math.exp(-t)
    )
    yield Scenario(
        "heavy tail",
        lambda rng, p, n: rng.random((p, n)) ** -0.4,
        lambda t: max(t, 1.0) ** -2.5,
    )
    for load in (0.5, 0.7, 0.8, 0.9):
        tail = lambda t, load=load: math.exp(-(1 - load) * t)  # noqa: E731
        yield Scenario(f"M/M/1 at {load}", partial(queue, load), tail)
    for load in (0.5, 0.7, 0.9):
        yield Scenario(f"M/M/4 at {load}", partial(servers, load), partial(servers_tail, load))
    for memory in (0.0, 0.5, 0.8, 0.9, 0.97):
        yield Scenario(f"AR(1) {memory}", partial(autoregressive, memory), lognormal_tail)
    for stay in (1, 20):
        yield Scenario(
            f"bimodal, {stay} in a row",
            partial(two_modes, stay),
            two_modes_tail,
            round(stay / 0.03),
        )
    for every_s, long_s in ((1.0, 0.05), (10.0, 0.5)):
        for random in (True, False):
            name = f"stall {long_s:g}s {'about ' if random else ''}every {every_s:g}s"
            tail = partial(stalls_tail, every_s, long_s)
            simulate = partial(stalls, every_s, long_s, random)
            yield Scenario(name, simulate, tail, round(every_s * RATE))


@dataclass(frozen=True)
class Cell:
    """One quantile of one scenario at one length."""

    scenario: str
    n: int
    q: float
    paths: int
    told: int
    hit: int
    wrong: int
    # Too short to have seen the scenario's rare events ten times: no statistic can know them.
    blind: bool

    @property
    def undetermined(self) -> float:
        return 1 - self.told / self.paths

    @property
    def exact(self) -> tuple[float, float]:
        return binomial_interval(self.hit, self.told)

    def __str__(self) -> str:
        if not self.told:
            return "undetermined"
        low, high = (f"{100 * end:.1f}" for end in self.exact)
        return f"{100 * self.hit / self.told:.1f} ({low}-{high}) {self.undetermined:.0%}"


def binomial_interval(hits: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson), by bisection."""

    def below(p: float, k: int) -> float:
        first, cdf = binomial_cdf(of, p)
        return 0.0 if k < first else float(cdf[min(k - first, len(cdf) - 1)])

    def solve(k: int, tail: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if below(middle, k) > tail else (low, middle)
        return low

    return solve(hits - 1, 0.975) if hits else 0.0, solve(hits, 0.025) if hits < of else 1.0


def covered(
    figures: list[dict[str, Figure]], paths: Paths, name: str, truth: float
) -> tuple[int, int, int]:
    """(how many told, how many of these hold the truth, how often `holds` takes a side)."""
    found = [figure[name].interval for figure in figures]
    told = [(low, high) for low, high in found if low is not None and high is not None]
    hit = sum(low <= truth <= high for low, high in told)
    sided = sum(holds(path, truth, QUANTILES[name]) is not None for path in paths)
    return len(told), hit, sided


def measure(
    scenario: Scenario, lengths: tuple[int, ...], number: int
) -> tuple[list[Cell], list[int]]:
    """All cells of a scenario, and the A/A comparisons of each length that call a difference."""
    truths = {name: scenario.truth(q) for name, q in QUANTILES.items()}
    sums = {(n, name): np.zeros(3, int) for n in lengths for name in truths}
    called = [0] * len(lengths)
    chunk = min(100, number)
    for seed in range(number // chunk):
        whole = scenario.simulate(np.random.default_rng(seed), chunk, max(lengths))
        for at, n in enumerate(lengths):
            paths = whole[:, :n]
            figures = [Runs([path]).figures() for path in paths]
            for name, truth in truths.items():
                sums[n, name] += covered(figures, paths, name, truth)
            pairs = zip(figures[::2], figures[1::2], strict=True)
            called[at] += sum(compare_figures(a, b).tells for a, b in pairs)
    cells = [
        Cell(scenario.name, n, QUANTILES[name], number, *map(int, s), n < 10 * scenario.event)
        for (n, name), s in sums.items()
    ]
    return cells, called


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run, no figures")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--paths", type=int, default=2000, help="sample paths of each scenario")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    options = parser.parse_args()
    number = 100 if options.quick else options.paths
    lengths = (600, 2000) if options.quick else (600, 2000, 6000, 20_000)
    headings = [f"p{100 * q:g}" for q in QUANTILES.values()]
    table = Table("scenario", "requests", *headings, "A/A called", "wrong", box=None)
    everything: list[Cell] = []
    for scenario in scenarios():
        if options.only not in scenario.name:
            continue
        cells, called = measure(scenario, lengths, number)
        everything += cells
        for at, n in enumerate(lengths):
            row = [cell for cell in cells if cell.n == n]
            table.add_row(
                scenario.name, f"{n:,}", *map(str, row), f"{called[at] / (number // 2):.1%}",
                f"{max(cell.wrong for cell in row) / number:.1%}",
            )  # fmt: skip
        console.print(f"[dim]{scenario.name}[/dim]")
    console.print(table)
    console.print("coverage in % (its exact 95 % interval), share of undetermined runs")
    console.print(verdict(everything))
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in everything], indent=1))


def verdict(cells: list[Cell]) -> str:
    """How many of the cells that usually tell are in the band, and which miss it for sure."""
    seeing = [cell for cell in cells if not cell.blind]
    usual = [cell for cell in seeing if cell.undetermined <= USUAL]
    low, high = ([c for c in usual if c.exact[1] < 0.93], [c for c in usual if c.exact[0] > 0.97])
    inside = sum(0.93 <= cell.hit / cell.told <= 0.97 for cell in usual)
    names = ["; ".join(f"{c.scenario} p{100 * c.q:g} n={c.n:,}" for c in cs) for cs in (low, high)]
    return (
        f"{len(cells) - len(seeing)} of {len(cells)} cells are shorter than ten of the rare events "
        f"that they are about; {len(usual)} of the others tell in {1 - USUAL:.0%} of the runs, and "
        f"of these {inside} hold the truth in 93 to 97 %\n"
        f"fewer for sure: {names[0] or 'none'}\nmore for sure: {names[1] or 'none'}"
    )


if __name__ == "__main__":
    main()
