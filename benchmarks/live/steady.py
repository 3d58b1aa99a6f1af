"""Our generator's engine with ready-made requests: any HTTP server at a fixed rate, open loop.

    python steady.py PORT FILE SIZE RATE WARM_S SECONDS

Run in a process of its own by `proxy.py`, because the engine lives on gevent's loop. Latency counts
from the scheduled time. Prints one line of JSON.
"""

from __future__ import annotations

import json
import socket
import sys
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dlbench.loadgen.engine.engine import Engine
from dlbench.loadgen.profile import LoadProfile


def main(port: str, file: str, size: str, rate: str, warm_s: str, seconds: str) -> None:
    text, step = Path(file).read_bytes(), int(size)
    requests = cycle([text[start : start + step] for start in range(0, len(text), step)])
    address = SimpleNamespace(family=socket.AF_INET, sockaddr=("127.0.0.1", int(port)))
    profile = LoadProfile(rate=float(rate), warmup_s=float(warm_s), duration_s=float(seconds))
    samples, facts = Engine(profile, address, lambda: next(requests)).run()
    latencies, lateness = samples.latencies_ns / 1e6, samples.lateness_ns / 1e6
    found = {
        "requests": samples.requests,
        "errors": sum(samples.errors.values()),
        "p50_ms": np.percentile(latencies, 50),
        "p99_ms": np.percentile(latencies, 99),
        "lateness_p99_ms": np.percentile(lateness, 99),
        "client_cpu": facts.client_cpu,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
