"""Results and studies made by hand; importlib mode has no package to import them from."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlbench.loadgen.analysis.machine import MachineFacts
from dlbench.loadgen.control.result import LoadResult
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tensors import TensorSpec
from dlbench.results.compare.two_studies import Finished
from dlbench.results.deploy.deployment import Deployment
from dlbench.results.deploy.systemd import PROGRAM
from dlbench.tuner.point import Point, Resources
from dlbench.tuner.verify.verification import Verified

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


EVERY_KNOB = ServingConfig(
    max_batch_size=16,
    max_queue_delay_ms=1.5,
    preferred_batch_sizes=(4, 8),
    batching="adaptive",
    slo_ms=20,
    split_batch_over=2,
    workers=3,
    worker_weights=(2, 1, 1),
    autoscaler="threshold",
    min_workers=2,
    max_workers=6,
    intra_op_threads=2,
    graph_optimization="basic",
    memory_arena=False,
    allow_spinning=True,
    cache_policy="lfu",
    cache_size=1000,
    cache_max_mb=64,
    cache_ttl_s=60,
    cache_scope="worker",
    cache_write="write_back",
    scheduling_policy="round_robin",
    queue_order="edf",
    priority_ageing_ms=500,
    default_timeout_ms=200,
    max_queue_size=100,
    worker_timeout_s=10,
)
ROWS = TensorSpec("x", "FP32", ("batch", 3), 0)


def deployed(config=None, resources=None, settings=None, **changes):
    """A deployment of an affine model, on two cores."""
    used = {"server_cpu": 0.5, "server_rss_mb": 200.0} if resources is None else resources
    settings = ServerSettings(model="models/a.onnx", **(settings or {}))
    here = point(config=config or ServingConfig(workers=2), rate=900.0, p99=12.0)
    values = {
        "name": "affine",
        "path": Path("/models/a.onnx"),
        "model_hash": "0123",
        "inputs": (ROWS,),
        "outputs": (replace(ROWS, name="y"),),
        "point": here.model_copy(update={"resources": Resources(**used)}),
        "settings": settings,
        "study": "affine.db",
        "device": "cpu",
        "machine": "AMD EPYC, 2 cores",
        "cores": 2,
        "load": LoadProfile(distinct=500, zipf=1.1).model_dump(mode="json"),
        "versions": {"python": "3.12.1", "dlbench": "0.1.0", "onnxruntime-gpu": "1.22.0"},
    }
    return Deployment(**{**values, **changes})


DEPLOYMENTS = {
    "plain": deployed(),
    "every knob": deployed(EVERY_KNOB),
    "gpus": deployed(device="cuda", settings={"device": "cuda", "device_ids": (0, 1)}),
    "nothing measured": deployed(resources={}, cores=None, load={}, versions={"dlbench": "0.1.0"}),
    "other settings": deployed(
        settings={
            "grpc_port": 8001,
            "tls_cert": "c.pem",
            "tls_key": "k.pem",
            "token_file": "t.txt",
            "port": 9000,
            "batch_axis": {"state": 1},
        }
    ),
    "odd names": deployed(name='Ünï "x" $HOME 100% #1', path=Path("/m/Ünï $x 100%.onnx")),
}


@pytest.fixture(params=list(DEPLOYMENTS))
def any_deployment(request):
    """Each of some that are as different as they come."""
    return DEPLOYMENTS[request.param]


@pytest.fixture(scope="session")
def deploy():
    """`deployed`."""
    return deployed


@pytest.fixture(scope="session")
def verify(tmp_path_factory):
    """What `systemd-analyze verify` says of a unit, with a program in it that is here."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    path = tmp_path_factory.mktemp("units") / "dlbench-test.service"

    def said(text):
        path.write_text(text.replace(PROGRAM, sys.executable))
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
        return done.returncode, done.stderr

    return said


@pytest.fixture(scope="session")
def hadolint():
    """What the linter says of a Dockerfile."""
    beside = Path(sys.executable).with_name("hadolint")
    program = beside if beside.exists() else shutil.which("hadolint")
    if not program:
        pytest.skip("no hadolint")
    command = [program, "--no-color", "-"]
    return lambda text: subprocess.run(command, input=text, capture_output=True, text=True).stdout
