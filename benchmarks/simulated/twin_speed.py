"""How many requests a second each twin simulates on one core, and how long a whole space takes.

    .venv/bin/python -m benchmarks.simulated.twin_speed [--quick]

The compiled twin is called once before it is timed: what that took is printed too. It is compiling,
or reading what an earlier run compiled; --cold throws the latter away first (in a folder of its
own, NUMBA_CACHE_DIR).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.space import build_space
from dlbench.tuner.twin import fast_twin, reference_twin
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.scenario import Load, cache_entries, scenario
from dlbench.tuner.twin.twin import SHARES, sweep

CALIBRATION = Calibration(
    services=[
        ServiceTime(batch=batch, threads=threads, busy=busy, seconds=seconds)
        for batch in (1, 8, 64)
        for threads in (1, 2)
        for busy in (1, 2)
        for seconds in [(1e-3 + 2e-4 * batch) * (1 + 0.2 * (busy - 1)) / threads**0.5]
    ],
    cores=2,
    service_cv=0.2,
    front_s=3e-5,
    hit_s=1e-5,
    way_s=5e-5,
)
CASES = {
    "one at a time": {"workers": 1, "max_batch_size": 1},
    "shared queue, 2 workers, batches of 8": {"workers": 2},
    "the same with a delay of 2 ms": {"workers": 2, "max_queue_delay_ms": 2.0},
    "least outstanding, 4 workers": {"workers": 4, "scheduling_policy": "least_outstanding"},
    "random, 4 workers": {"workers": 4, "scheduling_policy": "random"},
    "LRU of 1,024, inputs of Zipf 1.0": {"workers": 2, "cache_size": 1024},
    "LFU of 1,024, inputs of Zipf 1.0": {
        "workers": 2,
        "cache_size": 1024,
        "cache_policy": "lfu",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run, no figures")
    parser.add_argument("--cold", action="store_true", help="compile anew")
    options = parser.parse_args()
    if options.cold:
        with tempfile.TemporaryDirectory() as folder:
            command = [word for word in sys.orig_argv if word != "--cold"]
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
            sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    print(f"first call of the compiled twin: {first_call_s():.2f} s")
    speeds(20_000 if options.quick else 1_000_000, 1 if options.quick else 5)
    whole_space(200 if options.quick else 10_000)


def first_call_s() -> float:
    began = time.perf_counter()
    fast_rps(ServingConfig(workers=1), 100)
    return time.perf_counter() - began


def speeds(count: int, repeats: int) -> None:
    print(f"\nmillions of simulated requests/s on one core, median of {repeats}")
    print(f"{'':42}{'compiled':>10}{'reference':>11}")
    for label, knobs in CASES.items():
        config = ServingConfig(**knobs)
        fast = median(fast_rps(config, count) for _ in range(repeats))
        slow = median(reference_rps(config, count // 50) for _ in range(repeats))
        print(f"{label:42}{fast / 1e6:10.1f}{slow / 1e6:11.3f}")


def fast_rps(config: ServingConfig, count: int) -> float:
    entries = cache_entries(config, CALIBRATION)
    drawn = drawn_for(config, count)
    if entries:  # warmed once for all configurations of a sweep with such a cache
        fast_twin.warm_cache(fast_twin.CACHES[config.cache_policy], entries, drawn.inputs)
    began = time.perf_counter()
    fast_twin.simulate(config, drawn, entries)
    return count / (time.perf_counter() - began)


def reference_rps(config: ServingConfig, count: int) -> float:
    """Its warming of the cache is taken off by running a scenario of the fewest requests as well."""
    drawn, least = drawn_for(config, count + 100), drawn_for(config, 100)
    times = []
    for each in (least, drawn):
        began = time.perf_counter()
        reference_twin.simulate(config, each)
        times.append(time.perf_counter() - began)
    return count / (times[1] - times[0])


def drawn_for(config: ServingConfig, count: int):
    rate = 0.7 * config.workers * config.max_batch_size
    rate /= CALIBRATION.service_s(config.max_batch_size, 1, min(2, config.workers))
    load = Load(rate_rps=min(rate, 20_000), requests=count, distinct=10_000, zipf=1.0)
    return scenario(config, load, CALIBRATION)


def whole_space(count: int) -> None:
    default = ServingConfig(workers=2)
    space = build_space(default, CALIBRATION.cores, repeats_inputs=True, batchable=True)
    configs = list(space.configurations())
    load = Load(rate_rps=1.0, requests=count, distinct=10_000, zipf=1.0)
    for threads in (1, CALIBRATION.cores):
        began = time.perf_counter()
        sweep(configs, CALIBRATION, load=load, threads=threads)
        took = time.perf_counter() - began
        runs = len(configs) * (len(SHARES) + 3)
        print(
            f"\n{len(configs)} configurations, capacity and {len(SHARES)} loads each, {count} requests "
            f"a run, {threads} threads: {took:.1f} s ({runs / took:,.0f} runs/s)"
        )


if __name__ == "__main__":
    main()
