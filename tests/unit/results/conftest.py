"""Results and studies made by hand; importlib mode has no package to import them from."""

from types import SimpleNamespace

import pytest

from dlbench.loadgen.machine import MachineFacts
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.result import LoadResult
from dlbench.proxy.config import ServingConfig
from dlbench.results.two_studies import Finished
from dlbench.tuner.point import Point
from dlbench.tuner.verify import Verified

MACHINE = MachineFacts(
    cpu="AMD EPYC",
    governor=None,
    physical_cores=2,
    logical_cores=2,
    usable_cores=2,
    cpu_limit=None,
    memory_mb=4096,
    memory_limit_mb=None,
    load_average=(0.1, 0.2, 0.3),
    gpus=(),
    kernel="Linux 6",
    real_time=True,
    versions={"numpy": "2.4.6", "dlbench": "0.1.0"},
)


def figures(rate=100.0, p99=10.0, sure=0.05, **changes):
    """A measurement's fields; each interval reaches so far, as a share, to either side."""
    values = {"throughput_rps": rate, "p50_ms": p99 / 4, "p99_ms": p99}
    for name, value in dict(values).items():
        stem, _, unit = name.rpartition("_")
        values |= {f"{stem}_low_{unit}": value / (1 + sure)}
        values |= {f"{stem}_high_{unit}": value * (1 + sure)}
    known = {
        "verdict": "ok",
        "latency_from": "scheduled",
        "offered_rps": rate,
        "error_rate": 0.0,
        "requests": 30_000,
        "duration_s": 30.0,
        "client_cpu": 0.1,
        "net_mbps": 1.0,
        "started_at": "2026-01-01T00:00:00Z",
    }
    return known | values | changes


def measurement(**changes):
    return Measurement(**figures(**changes))


def load(machine=MACHINE, profile=None, model="mlp", **changes):
    return LoadResult(
        url="http://127.0.0.1:8000",
        protocol="v2",
        model=model,
        schedule="poisson, 100/s",
        load=profile or LoadProfile(rate=100),
        machine=machine,
        **figures(**changes),
    )


def point(name="c01", share=0.5, recommended=False, config=None, **changes):
    return Point(
        configuration=name,
        phase="verify",
        share=share,
        config=config or ServingConfig(max_batch_size=len(name)),
        measurement=measurement(**changes),
        on_front=True,
        recommended=recommended,
    )


def study(*points, versions=None, **identity):
    about = {"model": "demo:mlp", "machine": "AMD EPYC, 2 cores", "seed": 0}
    about |= {"load": LoadProfile().model_dump(mode="json"), "max_batch_size": [1, 8]}
    return Finished(Verified(points, "none"), about | identity, versions or {"numpy": "2.4.6"})


@pytest.fixture(scope="session")
def made():
    """The functions above."""
    return SimpleNamespace(
        machine=MACHINE, measurement=measurement, load=load, point=point, study=study
    )
