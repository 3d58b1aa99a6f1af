"""gRPC: our generator, and a Locust user that calls a stub of grpcio under gevent."""

from __future__ import annotations

from pathlib import Path

from benchmarks.generator.loadgen_clients import Run, measured, peer, serving
from benchmarks.generator.loadgen_closed import Contest
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec

SERVER = Path(__file__).with_name("null_grpc.py")
PATH = "/inference.GRPCInferenceService/ModelInfer"


def dlbench(port: int, users: int, warm_s: float, seconds: float) -> Run:
    """The null server says nothing about its model, so the target is given."""
    target = Target(
        url=f"grpc://127.0.0.1:{port}",
        protocol="grpc",
        model="null",
        path=PATH,
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(1, 16), batch_axis=None),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(1, 1), batch_axis=None),),
        supports_binary=True,
    )
    return measured(target, LoadProfile(users=users, warmup_s=warm_s, duration_s=seconds))


def grpcio(port: int, users: int, warm_s: float, seconds: float) -> Run:
    return peer("locust_grpc_user.py", port, users, warm_s, seconds)


CONTEST = Contest(
    "gRPC, closed loop, against a server that computes nothing",
    {"dlbench": dlbench, "grpcio in Locust": grpcio},
    lambda core: serving(SERVER, core=core),
    {"grpcio in Locust": 3},
)
