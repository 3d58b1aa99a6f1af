"""What a pool of connections does for an open loop on cores that client and server share.

    .venv/bin/python -m benchmarks.generator.connections [--quick] [--json FILE]

Silero on one worker with batches of 64: the closed loop that finds a capacity, then open loops at
shares of it, in turns, with the pool that `tune` uses and with as many connections as the load
needs. In the median, with the range: what was completed of what was offered, the p99 from the
scheduled times, and what failed.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.harness import models, report
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench.bench import Bench
from dlbench.tuner.step import Step

if TYPE_CHECKING:
    from dlbench.loadgen.measurement import Measurement

CONFIG = ServingConfig(workers=1, max_batch_size=64).resolved("cpu")
SHARES = (0.5, 0.7, 0.9)
PROBE_S, OPEN_S = 2.0, 2.5
ROUNDS = 5
# More than a load here ever opens.
SIDES = {"a pool": 0, "as many as it needs": 20_000}


class Taken(NamedTuple):
    """One open loop."""

    side: str
    share: float
    completed: float  # of what was offered
    p99_ms: float
    failed: float
    verdict: str


def main() -> None:
    run = report.Report(__doc__)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        benches = {
            side: stack.enter_context(started(connections, folder / f"{connections}.log"))
            for side, connections in SIDES.items()
        }
        found = measured(benches, 1 if run.quick else ROUNDS, folder / "samples.npz")
    run.keep(found)
    show(found)


def started(connections: int, log_path: Path) -> Bench:
    path = str(models.fetch("silero_vad_half"))
    settings = ServerSettings(model=path, device="cpu")
    return Bench(settings, LoadProfile(connections=connections), log_path)


def measured(benches: dict[str, Bench], rounds: int, samples: Path) -> list[Taken]:
    first, found = benches["a pool"], []
    for bench in benches.values():
        bench.start(CONFIG)
    capacity_rps = taken(first, None, 0, samples).throughput_rps
    report.note(f"a closed loop completes {capacity_rps:,.0f}/s")
    for seed, order in enumerate(report.rounds(benches, rounds)):
        for share in SHARES:
            for side in order:
                m = taken(benches[side], share * capacity_rps, seed, samples)
                assert m.offered_rps
                ratios = m.throughput_rps / m.offered_rps, m.p99_ms or float("inf"), m.error_rate
                found.append(Taken(side, share, *ratios, m.verdict))
    return found


def taken(bench: Bench, rate_rps: float | None, seed: int, samples: Path) -> Measurement:
    if rate_rps:
        step = Step("c01", CONFIG, "screen", OPEN_S, rate=rate_rps)
    else:
        step = Step("c01", CONFIG, "probe", PROBE_S)
    point = bench.measure(step, seed, lambda _: None, samples)
    assert point.measurement is not None, point.failure
    return point.measurement


def show(found: list[Taken]) -> None:
    columns = ("completed of offered", "p99 ms", "failed", "verdicts")
    table = report.table("open loops on shared cores", "load, connections", *columns)
    for share in SHARES:
        for side in SIDES:
            mine = [t for t in found if (t.share, t.side) == (share, side)]
            figures = [report.spread([t.completed for t in mine])]
            figures += [report.spread([t.p99_ms for t in mine], ",.0f")]
            figures += [report.spread([t.failed for t in mine])]
            said = sorted({t.verdict for t in mine})
            table.add_row(f"{share:.0%}, {side}", *figures, ", ".join(said))
    report.console.print(table)


if __name__ == "__main__":
    main()
