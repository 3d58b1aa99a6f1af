"""One client with large requests: spread over two workers, or left to one.

    .venv/bin/python -m benchmarks.live.split [--quick] [--json FILE]

Requests of 64 rows, one at a time (wrk, one connection), two workers, batches of 8. The same proxy is
asked in turns with split_batch_over 1 and 2, its other knobs untouched.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import made, models, report
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, proxy, request_for
from benchmarks.peers import wrk
from dlbench.proxy.models.demo import demo_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 64
WORKERS, BATCH = 2, 8
OVER = (1, 2)
PRODUCTS = 6  # of matrices: some 1 ms a row
random = np.random.default_rng(0)


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 5
    seconds: float = 3


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=1, seconds=1) if script.quick else Plan()
    with ExitStack() as stack:
        found = {name: measured(path, tensors, plan) for name, path, tensors in cases(stack)}
    show(found)
    script.keep(found)


def cases(stack: ExitStack) -> Iterator[tuple[str, Path, dict[str, np.ndarray]]]:
    """Title, model, and a request."""
    yield (
        "costly, 64 rows of 1 ms",
        stack.enter_context(made.costly(PRODUCTS)),
        {"x": floats(ROWS, made.WIDTH)},
    )
    yield (
        "silero_vad_half",
        models.fetch("silero_vad_half"),
        {
            "input": floats(ROWS, 576),
            "state": floats(2, ROWS, 128),
        },
    )
    yield "demo:mlp", demo_path("mlp"), {"input": floats(ROWS, 256)}
    yield "demo:cnn", demo_path("cnn"), {"input": floats(ROWS, 1, 28, 28)}


def floats(*shape: int) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


def measured(path: Path, tensors: dict[str, np.ndarray], plan: Plan) -> dict[int, list[wrk.Run]]:
    """Both settings, in turns on one proxy."""
    runs: dict[int, list[wrk.Run]] = {over: [] for over in OVER}
    with proxy(path, workers=WORKERS, max_batch_size=BATCH) as front:
        request = request_for(front.path, tensors)
        for order in report.rounds(OVER, plan.repeats):
            for over in order:
                front.configure(split_batch_over=over)
                wrk.run(front.port, [request], 1, 1)
                runs[over].append(run(front, request, over, plan))
    return runs


def run(front: Watched, request: bytes, over: int, plan: Plan) -> wrk.Run:
    before = front.counters()
    found = wrk.run(front.port, [request], 1, plan.seconds)
    after = front.counters()
    batches = after["batches"] - before["batches"]
    if not over * found.requests <= batches <= over * (found.requests + 1):
        raise BenchmarkError(f"{found.requests} requests took {batches} batches")
    return found


def show(found: dict[str, dict[int, list[wrk.Run]]]) -> None:
    headings = ("p50 ms, 1 worker", "over 2", "p99 ms, 1 worker", "over 2", "p50, times")
    table = report.table(f"requests of {ROWS} rows, one at a time", "model", *headings)
    for name, runs in found.items():
        one, two = (runs[over] for over in OVER)
        ratios = [a.p50_ms / b.p50_ms for a, b in zip(one, two, strict=True)]
        table.add_row(
            name,
            report.spread([each.p50_ms for each in one]),
            report.spread([each.p50_ms for each in two]),
            report.spread([each.p99_ms for each in one], ".1f"),
            report.spread([each.p99_ms for each in two], ".1f"),
            report.spread(ratios),
        )
    report.console.print(table)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
