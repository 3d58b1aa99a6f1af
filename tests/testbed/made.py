"""Values made by hand: measurements, points, results, studies, predictions."""

import numpy as np

from dlbench.loadgen.analysis.machine import MachineFacts
from dlbench.loadgen.control.result import LoadResult
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.results.compare.two_studies import Finished
from dlbench.tuner.bounds.decision import BoundRow
from dlbench.tuner.point import Point
from dlbench.tuner.space import build_space
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.twin.predictions import Predictions
from dlbench.tuner.verify.verification import Verified

SHARES = (0.3, 0.5, 0.7, 0.9)
DEFAULT = ServingConfig().resolved("cpu").model_copy(update={"workers": 2})
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


def figures(rate=100.0, p99=10.0, sure=None, **changes):
    """A measurement's fields; each interval reaches so far, as a share, to either side."""
    values = {"throughput_rps": rate, "p99_ms": p99} | ({"p50_ms": p99 / 4} if sure else {})
    for name, value in dict(values).items() if sure else ():
        stem, _, unit = name.rpartition("_")
        values |= {f"{stem}_low_{unit}": value / (1 + sure)}
        values |= {f"{stem}_high_{unit}": value * (1 + sure)}
    known = {
        "verdict": "ok",
        "latency_from": "scheduled",
        "offered_rps": rate,
        "error_rate": 0.0,
        "requests": 30_000 if sure else 1000,
        "duration_s": 30.0 if sure else 2.5,
        "client_cpu": 0.1,
        "net_mbps": 1.0,
        "started_at": "2026-01-01T00:00:00Z",
    }
    return known | values | changes


def measurement(**changes):
    return Measurement(**figures(**changes))


def point(configuration="c01", phase="screen", share=0.5, repeat=0, config=DEFAULT, **changes):
    """A point; what is no field of one is its measurement's."""
    own = {name: changes.pop(name) for name in list(changes) if name in Point.model_fields}
    own.setdefault("measurement", measurement(**changes))
    return Point(
        configuration=configuration, phase=phase, share=share, repeat=repeat, config=config, **own
    )


def verified(name="c01", share=0.5, recommended=False, config=None, sure=0.05, **changes):
    """A point of the front, with intervals."""
    config = config or ServingConfig(max_batch_size=len(name))
    marks = {"on_front": True, "recommended": recommended, "sure": sure}
    return point(name, "verify", share, config=config, **{**marks, **changes})


def bound_row(configuration="c01", rate=4100.0, p99_ms=20.0, ratio=1.08, config=DEFAULT, **changes):
    """A row of the table of bounds with intervals of 5 %."""
    values = {
        "p99_ms": p99_ms,
        "configuration": configuration,
        "config": config,
        "rate_rps": rate,
        "low_rps": rate * 0.95,
        "high_rps": rate * 1.05,
        "default_rps": rate / ratio,
        "default_low_rps": rate / ratio * 0.95,
        "default_high_rps": rate / ratio * 1.05,
        "ratio": ratio,
        "ratio_low": ratio * 0.96,
        "ratio_high": ratio * 1.04,
        "decided": ratio > 1.04,
        "measured": True,
    }
    return BoundRow(**{**values, **changes})


def load(machine=MACHINE, profile=None, model="mlp", sure=0.05, **changes):
    return LoadResult(
        url="http://127.0.0.1:8000",
        protocol="v2",
        model=model,
        schedule="poisson, 100/s",
        load=profile or LoadProfile(rate=100),
        machine=machine,
        **figures(sure=sure, **changes),
    )


def finished(*points, versions=None, **identity):
    """What a study's file says in the end."""
    about = {"model": "demo:mlp", "machine": "AMD EPYC, 2 cores", "seed": 0}
    about |= {"load": LoadProfile().model_dump(mode="json"), "max_batch_size": [1, 8]}
    return Finished(Verified(points, "none"), about | identity, versions or {"numpy": "2.4.6"})


def study(path, *points, **identity):
    """A study's file with these verified points, if any, and this identity."""
    load = LoadProfile().model_dump(mode="json", exclude={"seed"})
    about = {"model": "demo:mlp", "device": "cpu", "load": load}
    made = Study.create_or_resume(path, Identity(about | identity))
    if points:
        made.verified = Verified(points, "none").document
    return made


def space(repeats_inputs=False, **how):
    return build_space(DEFAULT, 2, **{"batchable": True, "repeats_inputs": repeats_inputs, **how})


def predictions(space):
    """More batch, more throughput and more latency, which grows as 1 / (1 - share)."""
    configs = tuple(space.configurations())
    root = np.sqrt([c.max_batch_size for c in configs])
    p99 = 2 * root[:, None] / (1 - np.array(SHARES))
    return Predictions.of(space, configs, SHARES, 100 * root, p99)


def curve(twin, row, capacity=1.0, tail=1.0, phase="screen", repeat=0):
    """A configuration that is off its prediction by these factors, at the rates predicted for."""
    config, name, known = twin.configs[row], f"c{row}", float(twin.capacity_rps[row])
    loads = zip(twin.shares, twin.p99_ms[row].tolist(), strict=True)
    return [
        point(name, "probe", None, config=config, rate=known * capacity),
        *(point(name, phase, s, repeat, config, rate=s * known, p99=p * tail) for s, p in loads),
    ]
