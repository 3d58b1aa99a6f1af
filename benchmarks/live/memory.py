"""A million requests through one proxy: what its processes hold on the way.

    .venv/bin/python -m benchmarks.live.memory [--quick] [--json FILE]

silero_vad_half, two workers, a cache of 1,000 entries. wrk sends, again and again: 5,000 different
inputs in turn over 64 connections (an LRU of 1,000 never has the next one: every answer is computed,
kept and forgotten), requests that each have a connection of their own, 200 inputs that are hits,
requests that the wire refuses, requests that the model refuses, and paths that do not exist. Resident
memory is read between these parts. One run: what would be spread is its own course.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks.harness import models, report
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, proxy, request_for
from benchmarks.peers import wrk

if TYPE_CHECKING:
    from collections.abc import Iterator

SILERO = "silero_vad_half"
CONNECTIONS = 64
CACHE = 1000
SHARES = (0.1, 0.5, 1.0)
AIM = 0.05


@dataclass(frozen=True)
class Part:
    """One kind of requests, for so many seconds of every cycle; `errors`: all are refused."""

    title: str
    requests: list[bytes]
    seconds: float
    errors: bool = False


@dataclass(frozen=True)
class Held:
    """Resident MiB after so many requests."""

    requests: int
    front: float
    workers: tuple[float, ...]

    @property
    def total(self) -> float:
        return self.front + sum(self.workers)


def main() -> None:
    script = report.Report(__doc__)
    most = 200_000 if script.quick else 1_000_000
    counts: dict[str, int] = {}
    with proxy(models.fetch(SILERO), workers=2, cache_size=CACHE) as front:
        course = list(measured(front, most, counts))
        used = front.counters()
    show(course, most, counts)
    report.note(f"hits {used['cache_hits']:,}, computed {used['rows']:,}")
    script.keep({"parts": counts, "course": course})


def parts(path: str) -> list[Part]:
    """A cycle."""
    valid = list(inputs(5000))
    requests = [request_for(path, tensors) for tensors in valid]
    wrong = requests[0].replace(b'"FP32"', b'"FP16"', 1)
    short = [request_for(path, tensors) for tensors in inputs(64, 100)]
    absent = [one.replace(b"/v2/models/", b"/v2/absent/", 1) for one in requests[:64]]
    single = [one.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) for one in requests[:512]]
    return [
        Part("churn", requests, 4),
        Part("a connection each", single, 1),
        Part("hits", requests[:200], 1),
        Part("refused by the wire", [wrong], 1, errors=True),
        Part("refused by the model", short, 1, errors=True),
        Part("no such path", absent, 1, errors=True),
    ]


def inputs(count: int, sequence: int = 576) -> Iterator[dict[str, np.ndarray]]:
    """Distinct seeded inputs; silero takes 256 to 576 samples only."""
    random = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "input": random.standard_normal((1, sequence), np.float32),
            "state": random.standard_normal((2, 1, 128), np.float32),
        }


def measured(front: Watched, most: int, counts: dict[str, int]) -> Iterator[Held]:
    """What is held after every part, until `most` requests were sent."""
    cycle = parts(front.path)
    sent = 0
    while True:
        for part in cycle:
            sent += run(front, part, counts)
            yield held(front, sent)
            if sent >= most:
                return


def run(front: Watched, part: Part, counts: dict[str, int]) -> int:
    """Requests that were answered as they should be."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(part.requests))
        file.flush()
        size = len(part.requests[0])
        text = wrk.call(front.port, CONNECTIONS, part.seconds, file.name, size)
    found = json.loads(text.splitlines()[-1])
    refused = found["requests"] if part.errors else 0
    if found["status_errors"] != refused or found["socket_errors"]:
        raise BenchmarkError(f"{part.title}: {found}")
    counts[part.title] = counts.get(part.title, 0) + found["requests"]
    return found["requests"]


def held(front: Watched, sent: int) -> Held:
    return Held(sent, rss(front.front), tuple(map(rss, front.workers)))


def rss(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


def show(course: list[Held], most: int, counts: dict[str, int]) -> None:
    table = report.table("resident MiB", "requests", "front", "workers", "all", "of that at 10 %")
    points = [next(one for one in course if one.requests >= share * most) for share in SHARES]
    first = points[0]
    for one in points:
        workers = " ".join(f"{each:.1f}" for each in one.workers)
        change = f"{one.total / first.total:.3f}"
        table.add_row(f"{one.requests:,}", f"{one.front:.1f}", workers, f"{one.total:.1f}", change)
    report.console.print(table)
    report.note("; ".join(f"{title} {count:,}" for title, count in counts.items()))
    after = [one for one in course if one.requests >= first.requests]
    for title, values in {
        "front": [one.front / first.front for one in after],
        "all processes": [one.total / first.total for one in after],
    }.items():
        farthest = max(abs(value - 1) for value in values)
        report.aim(f"largest change after 10 %, {title},", [farthest], AIM, ".3f")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
