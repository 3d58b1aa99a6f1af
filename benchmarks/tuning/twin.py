"""The twin against measurement, on configurations that were no part of its calibration.

    .venv/bin/python -m benchmarks.tuning.twin [--quick] [--only MODEL] [--json FILE]

For each model a calibration, then for each configuration what `tune` would do: a closed-loop probe
of its capacity, then open loop at shares of the measured one. The twin is asked for the capacity and
for the p99 at the very rates that were offered. Batch sizes lie between the calibrated ones or
beyond them, and delays, policies and a cache are nowhere in a calibration. A ratio is the twin's
figure over the measured one; an error is its distance from 1, the same for twice and for half.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import machine, models, report
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench.bench import Bench
from dlbench.tuner.bench.calibrate import calibrated
from dlbench.tuner.step import Step
from dlbench.tuner.twin.twin import Load, predict, sweep

if TYPE_CHECKING:
    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.twin.calibration import Calibration

MODELS = ("silero_vad_half", "magika", "demo:mlp")
PROFILE = LoadProfile(distinct=5000, zipf=1.0)
HELD_OUT = {
    "1 x 3": {"workers": 1, "max_batch_size": 3},
    "1 x 24": {"workers": 1, "max_batch_size": 24},
    "2 x 6": {"workers": 2, "max_batch_size": 6},
    "2 x 48": {"workers": 2, "max_batch_size": 48},
    "3 x 12": {"workers": 3, "max_batch_size": 12},
    "1 x 12, 2 threads": {"workers": 1, "max_batch_size": 12, "intra_op_threads": 2},
    "2 x 24, 2 ms": {"workers": 2, "max_batch_size": 24, "max_queue_delay_ms": 2.0},
    "2 x 12, round robin": {
        "workers": 2,
        "max_batch_size": 12,
        "scheduling_policy": "round_robin",
    },
    "1 x 12, cache": {"workers": 1, "max_batch_size": 12, "cache_size": 500},
}
SHARES = (0.3, 0.6, 0.85)
PROBE_S, OPEN_S = 1.5, 2.5
# A p99 of fewer is left out.
LEAST_REQUESTS = 459
THROUGHPUT_AIM, P99_AIM = 0.10, 0.25
# A measurement that says of itself that the client was the limit is no evidence.
GOOD = ("ok", "unsteady")


@dataclass(frozen=True)
class Compared:
    """One figure, measured and expected; `share` 0 is the capacity.

    A p99 is expected at the rate that was offered, and, which is what a search goes by, at the same
    share of the capacity that is expected.
    """

    configuration: str
    share: float
    measured: float
    expected: float
    at_own_share: float
    verdict: str

    @property
    def ratio(self) -> float:
        return self.expected / self.measured

    @property
    def own_ratio(self) -> float:
        return self.at_own_share / self.measured


def error(ratio: float) -> float:
    """How far off, the same for half and double."""
    return exp(abs(log(ratio))) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run, no figures")
    parser.add_argument("--only", choices=MODELS, help="one of the models")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    options = parser.parse_args()
    facts = machine.facts("onnxruntime-gpu", "uvloop", "numpy", "numba")
    report.console.print(machine.show(facts))
    found = {name: compare(name, options.quick) for name in MODELS if options.only in (None, name)}
    if options.json:
        document = {
            name: {"calibration": calibration.model_dump(), "compared": [asdict(c) for c in rows]}
            for name, (calibration, rows) in found.items()
        }
        options.json.write_text(json.dumps({"facts": facts, "result": document}, indent=1))


def compare(name: str, quick: bool) -> tuple[Calibration, list[Compared]]:
    """Calibrate a model and measure it with every configuration."""
    path = str(models.fetch(name)) if name in models.SOURCES else name
    settings = ServerSettings(model=path, device="cpu")
    calibration = calibrated(settings, PROFILE, report.note)
    wanted = dict(list(HELD_OUT.items())[:1]) if quick else HELD_OUT
    with tempfile.TemporaryDirectory() as folder:
        found = measured(settings, calibration, wanted, Path(folder))
    show(name, found)
    return calibration, found


def measured(
    settings: ServerSettings,
    calibration: Calibration,
    wanted: dict[str, dict[str, object]],
    folder: Path,
) -> list[Compared]:
    found = []
    with Bench(settings, PROFILE, folder / "server.log") as bench:
        bench.start(ServingConfig(workers=1))
        for name, knobs in wanted.items():
            config = ServingConfig.model_validate(knobs)
            found += curve(bench, name, config, calibration, folder / "samples.npz")
            report.note(f"{name}: done")
    return found


def curve(
    bench: Bench, name: str, config: ServingConfig, calibration: Calibration, samples: Path
) -> list[Compared]:
    """Capacity, then the p99 at shares of what was measured."""
    load = Load(rate_rps=1.0, distinct=PROFILE.distinct, zipf=PROFILE.zipf)
    probe = run(bench, Step(name, config, "probe", PROBE_S), samples)
    capacity, (own,) = probe.throughput_rps, sweep([config], calibration, SHARES, load)
    rows = [Compared(name, 0.0, capacity, own.capacity_rps, own.capacity_rps, probe.verdict)]
    for share, there in zip(SHARES, own.predictions, strict=True):
        rate = share * capacity
        duration_s = max(OPEN_S, LEAST_REQUESTS / rate)
        seen = run(bench, Step(name, config, "screen", duration_s, share, rate), samples)
        expected = predict(config, load.model_copy(update={"rate_rps": rate}), calibration)
        if seen.p99_ms is not None:
            both = expected.p99_ms, there.p99_ms
            rows.append(Compared(name, share, seen.p99_ms, *both, seen.verdict))
    return rows


def run(bench: Bench, step: Step, samples: Path) -> Measurement:
    point = bench.measure(step, 1, lambda _: None, samples)
    if point.measurement is None:
        raise SystemExit(f"{step.configuration}: {point.failure}\n{point.log_tail}")
    return point.measurement


def show(name: str, found: list[Compared]) -> None:
    table = report.table(
        f"{name}: the twin over the measured",
        "workers x batch",
        "capacity/s",
        "twin",
        *(f"p99 ms at {share:.0%}" for share in SHARES),
    )
    for configuration in dict.fromkeys(row.configuration for row in found):
        rows = {row.share: row for row in found if row.configuration == configuration}
        cells = [shown(rows.get(share), ".3g") for share in SHARES]
        table.add_row(configuration, f"{rows[0.0].measured:,.0f}", f"{rows[0.0].ratio:.2f}", *cells)
    report.console.print(table)
    good = [row for row in found if row.verdict in GOOD]
    capacities = [error(row.ratio) for row in good if not row.share]
    report.aim(f"{name}, error of the capacity", capacities, THROUGHPUT_AIM)
    tails = [row for row in good if row.share]
    report.aim(f"{name}, error of the p99 at a rate", [error(r.ratio) for r in tails], P99_AIM)
    own = [error(row.own_ratio) for row in tails]
    report.aim(f"{name}, error of the p99 at a share of the capacity", own, P99_AIM)
    for share in SHARES:
        at = [row for row in tails if row.share == share]
        report.note(
            f"p99 at {share:.0%}: the twin is {median(r.ratio for r in at):.2f} times the measured at "
            f"that rate, {median(r.own_ratio for r in at):.2f} times at that share of its own capacity"
        )


def shown(row: Compared | None, form: str) -> str:
    """The measured value, the ratio, and a mark if the measurement is no good one."""
    if row is None:
        return ""
    mark = "" if row.verdict == "ok" else f" {row.verdict[0]}"
    return f"{row.measured:{form}} x {row.ratio:.2f}{mark}"


if __name__ == "__main__":
    main()
