"""No server at all: `session.run` in a loop, what a process of this machine can compute at most.

    python ceiling.py MODEL KIND BATCH SECONDS

Says `ready`, begins at the first line on standard input, and prints its rows per second.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from model import Model, decode, place


def main(path: str, kind: str, batch: str, seconds: str) -> None:
    model, count, duration_s = Model(path, kind), int(batch), float(seconds)
    bodies = np.zeros((count, model.tensors[-1].stop), np.uint8)
    feed = {tensor.name: place(decode(bodies, tensor), tensor) for tensor in model.tensors}
    model.session.run(None, feed)
    print("ready", flush=True)
    sys.stdin.readline()
    print(rate(model, feed, count, duration_s), flush=True)


def rate(model: Model, feed: dict[str, np.ndarray], count: int, duration_s: float) -> float:
    """Rows per second over `duration_s`."""
    rows, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < duration_s:
        model.session.run(None, feed)
        rows += count
    return rows / elapsed


if __name__ == "__main__":
    main(*sys.argv[1:])
