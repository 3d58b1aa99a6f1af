"""Points made by hand for the tests of pure code."""

from dlbench.loadgen.measurement import Measurement
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.point import Point

DEFAULT = ServingConfig().resolved("cpu").model_copy(update={"workers": 2})


def measurement(throughput=100.0, p99=10.0, verdict="ok", **changes):
    values = {
        "verdict": verdict,
        "latency_from": "scheduled",
        "offered_rps": throughput,
        "throughput_rps": throughput,
        "p99_ms": p99,
        "error_rate": 0.0,
        "requests": 1000,
        "duration_s": 2.5,
        "client_cpu": 0.1,
        "net_mbps": 1.0,
        "started_at": "2026-01-01T00:00:00Z",
    }
    return Measurement(**{**values, **changes})


def point(configuration="c01", phase="screen", share=0.5, repeat=0, config=DEFAULT, **changes):
    known = {"measurement", "failure", "log_tail", "cost_s", "resources"}
    own = {name: changes.pop(name) for name in list(changes) if name in known}
    own.setdefault("measurement", measurement(**changes))
    return Point(
        configuration=configuration, phase=phase, share=share, repeat=repeat, config=config, **own
    )
