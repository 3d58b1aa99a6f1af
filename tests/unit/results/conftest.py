"""Deployments made by hand, and the tools that judge what is written of them."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tensors import TensorSpec
from dlbench.results.deploy.deployment import Deployment
from dlbench.results.deploy.systemd import PROGRAM
from dlbench.tuner.point import Resources
from testbed import made

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
    here = made.verified(config=config or ServingConfig(workers=2), rate=900.0, p99=12.0)
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
