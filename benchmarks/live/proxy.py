"""Our proxy against mosec, FastAPI, LitServe and MLServer on one machine, in one run.

    .venv/bin/python -m benchmarks.live.proxy [--only silero|latency|magika] [--quick] [--json FILE]

- silero: requests per second of a model so short that the server is what is measured;
- latency: the same model at a moderate rate, open loop, with our own generator;
- magika: a longer model, beside processes that only compute.
Every side has the best settings of a small search in the same run, and its answers are compared with
onnxruntime's before it is timed. The sides take turns on fresh servers; ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from benchmarks.harness import machine, venvs
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.report import PACKAGES, console, note, plain
from benchmarks.harness.turns import QUICK, Plan
from benchmarks.live import latency, magika, silero
from benchmarks.peers import wrk

PARTS = {"silero": silero.measure, "latency": latency.measure, "magika": magika.measure}


def main() -> None:
    options = arguments()
    plan = QUICK if options.quick else Plan()
    facts = {**machine.facts(*PACKAGES), "wrk": wrk.version(), **venvs.versions()}
    console.print(machine.show(facts))
    result = {"facts": facts, "plan": asdict(plan)}
    for name in [options.only] if options.only else PARTS:
        begin = monotonic()
        result[name] = PARTS[name](plan)
        note(f"{name} took {monotonic() - begin:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, default=plain))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="run one part")
    parser.add_argument("--quick", action="store_true", help="a smoke run: numbers mean nothing")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
