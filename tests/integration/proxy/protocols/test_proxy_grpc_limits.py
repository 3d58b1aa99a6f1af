"""What a client of the gRPC service may not do: come in without a token, or take too much."""

import queue
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

import grpc

from dlbench.proxy.protocols.grpc.codec import pb

MIB = 1 << 20
SLACK = 24 * MIB
PATIENCE_S = 60
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture
def start(start_proxy, models):
    return lambda **settings: start_proxy(models.echo(), {"grpc_port": 0, **settings})


@pytest.fixture(scope="module")
def usual(module_proxy, models):
    return module_proxy(models.echo(), {"grpc_port": 0})


class Caller:
    """A connection of its own, and calls of raw bytes."""

    def __init__(self, proxy):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(proxy.first["grpc"], options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def ask(self, message, call="ModelInfer", **more):
        text = message if isinstance(message, bytes) else message.SerializeToString()
        return self.channel.unary_unary(SERVICE + call)(text, timeout=PATIENCE_S, **more)

    def infer(self, message):
        return pb.ModelInferResponse.FromString(self.ask(message))

    def code(self, *arguments, **more):
        with pytest.raises(grpc.RpcError) as error:
            self.ask(*arguments, **more)
        return error.value.code().name, error.value.details()


def request(shape, raw=None, **more):
    given = {"name": "x", "datatype": "FP32", "shape": shape, **more}
    contents = [] if raw is None else [raw]
    return pb.ModelInferRequest(model_name="echo", inputs=[given], raw_input_contents=contents)


def zeros(count):
    return request([1, count], bytes(4 * count))


def proc(proxy):
    return Path("/proc") / str(proxy.first["pids"]["front"])


def peak(proxy):
    """The most that the front has held since `forget_peak`, in bytes."""
    (line,) = [x for x in (proc(proxy) / "status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) * 1024


def forget_peak(proxy):
    (proc(proxy) / "clear_refs").write_text("5")
    return peak(proxy)


def test_without_a_token_the_message_is_not_read(start, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    proxy = start(token_file=str(tokens))
    with Caller(proxy) as caller:
        assert caller.code(zeros(8))[0] == "UNAUTHENTICATED"
        before = forget_peak(proxy)
        assert caller.code(zeros(15 * MIB))[0] == "UNAUTHENTICATED"
        assert peak(proxy) - before < SLACK
        right = [("authorization", "Bearer secret")]
        reply = pb.ModelInferResponse.FromString(caller.ask(zeros(15 * MIB), metadata=right))
        assert reply.raw_output_contents[0] == bytes(60 * MIB)


def test_a_message_that_does_not_come_is_not_waited_for(start):
    proxy = start(body_timeout_s=0.3)
    never = threading.Event()

    def nothing():
        never.wait(PATIENCE_S)
        yield b""

    with Caller(proxy) as caller:
        call = caller.channel.stream_unary(SERVICE + "ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(nothing(), timeout=PATIENCE_S)
        never.set()
        assert error.value.code().name == "DEADLINE_EXCEEDED"
        assert "did not arrive in time" in error.value.details()
        with pytest.raises(grpc.RpcError) as error:
            call(iter(()), timeout=PATIENCE_S)
        assert error.value.details() == "the call has no message"


def test_messages_of_strangers_that_do_not_come_keep_nobody_out(start, tmp_path):
    """Health needs no token; all that may be received at once is theirs who have one."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    proxy = start(token_file=str(tokens), max_memory_mb=64, body_timeout_s=3600)
    never = threading.Event()

    def nothing():
        never.wait(PATIENCE_S)
        yield b""

    with Caller(proxy) as caller:
        health = caller.channel.stream_unary("/grpc.health.v1.Health/Check")
        strangers = [health.future(nothing()) for _ in range(4)]
        right = [("authorization", "Bearer secret")]
        assert caller.ask(b"", "ServerMetadata", metadata=right)
        assert not any(stranger.done() for stranger in strangers)
        never.set()


def test_connections_with_calls_under_way_are_bounded(start):
    proxy = start(max_connections=1)
    (pid,) = proxy.workers()
    worker = psutil.Process(pid)
    with Caller(proxy) as first, Caller(proxy) as second:
        assert first.infer(zeros(8)).raw_output_contents
        worker.suspend()
        try:
            text = zeros(8).SerializeToString()
            waiting = first.channel.unary_unary(SERVICE + "ModelInfer").future(text)
            while not proxy.ask("counters")["in_flight"]:
                pass
            assert second.code(zeros(8)) == ("UNAVAILABLE", "too many connections are open")
        finally:
            worker.resume()
        assert waiting.result(PATIENCE_S)
        assert second.infer(zeros(8)).raw_output_contents


@pytest.mark.parametrize("shape", [[2**31 - 1, 0], [1_000_000, 0], [0, 2**31 - 1], [1] * 200_000])
def test_a_shape_without_elements_cannot_ask_for_much(usual, shape):
    with Caller(usual) as caller:
        code, text = caller.code(request(shape, b""))
        assert code == "INVALID_ARGUMENT"
        assert len(text) < 1100


def repeated(field, message, count):
    """A field of a message many times, as anybody can write it."""
    text = message.SerializeToString()
    return (bytes([field << 3 | 2, len(text)]) + text) * count


@pytest.mark.parametrize(
    "text",
    [
        repeated(5, pb.ModelInferRequest.InferInputTensor(), 4_000_000),
        repeated(6, pb.ModelInferRequest.InferRequestedOutputTensor(), 4_000_000),
        repeated(7, pb.ModelInferRequest(), 4_000_000),
        b"\x0a\x80\x80\x80\x08" + b"a" * (1 << 24),
        b"\xff" * 100,
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" + b"a" * 100_000,
        b"\x08" * 100_000,
        zeros(100_000).SerializeToString()[:-1],
    ],
    ids=["inputs", "outputs", "raw", "a name", "no message", "no number", "no field", "cut"],
)
def test_many_fields_are_refused_before_they_are_made(usual, text):
    with Caller(usual) as caller:
        assert caller.infer(zeros(8)).raw_output_contents
        before = forget_peak(usual)
        code, details = caller.code(text)
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND")
        assert len(details) < 1100
        assert peak(usual) - before < 4 * len(text) + SLACK
        assert caller.infer(zeros(8)).raw_output_contents


def test_many_values_are_read_beside_the_front(usual):
    values = np.random.default_rng(0).random(500_000, np.float32)
    with Caller(usual) as caller:
        reply = caller.infer(request([1, 500_000], contents={"fp32_contents": values}))
        assert reply.raw_output_contents[0] == values.tobytes()
        code, text = caller.code(request([1, 499_999], contents={"fp32_contents": values}))
        assert (code, "takes 1999996 bytes" in text) == ("INVALID_ARGUMENT", True)


def test_large_messages_of_other_calls_are_refused(usual):
    with Caller(usual) as caller:
        message = pb.ModelReadyRequest(name="a" * 100_000)
        assert caller.code(message, "ModelReady")[0] == "RESOURCE_EXHAUSTED"


def test_messages_share_the_bound_with_http(start):
    proxy = start(max_memory_mb=16, max_body_mb=12)
    with Caller(proxy) as caller, proxy.client() as client:
        client.send(
            b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 11534336\r\n\r\n" + bytes(10 * MIB)
        )
        outcome = ""
        for _ in range(1000):  # until all of the above has arrived
            try:
                caller.infer(zeros(2 * MIB))
            except grpc.RpcError as error:
                outcome = error.code().name, "--max-memory-mb" in error.details()
                break
        assert outcome == ("UNAVAILABLE", True)
        assert caller.infer(zeros(8)).raw_output_contents


def test_streams_are_bounded_and_each_of_their_messages_counted(start):
    proxy = start(max_memory_mb=16, max_body_mb=12)
    with Caller(proxy) as caller:
        requests: queue.SimpleQueue = queue.SimpleQueue()
        stream = caller.channel.stream_stream(SERVICE + "ModelStreamInfer")
        replies = stream(iter(requests.get, None), timeout=PATIENCE_S)
        requests.put(zeros(8).SerializeToString())
        assert len(next(replies)) > 32
        with pytest.raises(grpc.RpcError) as error:
            next(stream(iter(()), timeout=PATIENCE_S))
        assert error.value.code().name == "UNAVAILABLE"
        requests.put(zeros(2 * MIB).SerializeToString())
        answer = pb.ModelStreamInferResponse.FromString(next(replies))
        assert answer.infer_response.raw_output_contents[0] == bytes(8 * MIB)
        requests.put(b"\xff")
        assert "malformed" in pb.ModelStreamInferResponse.FromString(next(replies)).error_message
        requests.put(None)
        assert list(replies) == []
