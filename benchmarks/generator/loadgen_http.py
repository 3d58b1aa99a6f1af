"""Plain HTTP: our generator, stock Locust, and wrk as the measure of what a core can do."""

from __future__ import annotations

from benchmarks.generator.loadgen_clients import dlbench, locust, null_server, wrk_client
from benchmarks.generator.loadgen_closed import Contest

CONTEST = Contest(
    "HTTP, closed loop, against a server that computes nothing",
    {"dlbench": dlbench, "FastHttpUser": locust, "wrk": wrk_client},
    lambda core: null_server(core=core),
    {"FastHttpUser": 8, "wrk": 0.9},
)
