"""Errors on their way through gRPC: a code and a text for each, and nothing told of our own faults."""

import asyncio
import logging

import numpy as np
import pytest

from dlbench.proxy import errors
from dlbench.proxy.http.access import NoTokens
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.settings import ServerSettings

pytest.importorskip("grpc", reason="the extra grpc is not installed")

import grpc

from dlbench.proxy.protocols.grpc.codec import pb
from dlbench.proxy.protocols.grpc.server import GrpcFront

CALL = "/inference.GRPCInferenceService/ModelInfer"
REQUEST = pb.ModelInferRequest(
    model_name="m",
    inputs=[{"name": "x", "datatype": "FP32", "shape": [1]}],
    raw_input_contents=[np.ones(1, np.float32).tobytes()],
)


async def code_and_text(models):
    """What a client sees of a call."""
    settings = ServerSettings(model="m.onnx", grpc_port=0)
    front = GrpcFront(models, NoTokens(), settings, Memory())
    port = await front.startup()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.unary_unary(CALL)(REQUEST.SerializeToString())
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details()
    finally:
        await front.shutdown(lambda: False)
    return "OK", ""


@pytest.fixture
def failing(numpy_model, numpy_models):
    """Models of which the only one raises an error when it is run."""

    def make(error):
        def fail(_):
            raise error

        spec = ("FP32", ("n",), 0)
        return numpy_models(numpy_model([("x", *spec)], [("y", *spec)], fail))

    return make


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadRequest, "INVALID_ARGUMENT"),
        (errors.Unauthorized, "UNAUTHENTICATED"),
        (errors.NotFound, "NOT_FOUND"),
        (errors.TooMany, "RESOURCE_EXHAUSTED"),
        (errors.WorkerFailed, "INTERNAL"),
        (errors.Overloaded, "UNAVAILABLE"),
        (errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
    ],
)
def test_each_error_has_its_code(failing, error, code):
    assert asyncio.run(code_and_text(failing(error("says why")))) == (code, "says why")


def test_a_fault_of_our_own_is_for_the_log(failing, caplog):
    with caplog.at_level(logging.ERROR):
        code, text = asyncio.run(code_and_text(failing(ZeroDivisionError("secret"))))
    assert (code, text) == ("INTERNAL", "internal error; see the proxy log")
    assert "secret" in caplog.text
