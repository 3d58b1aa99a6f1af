"""Clients that go before they are answered: what has not begun is not computed."""

import os
import re
import signal
import socket
import struct
import time
from urllib.request import urlopen

import numpy as np
import pytest

from testbed.messages import post, tensor
from testbed.patience import eventually

RESET = struct.pack("ii", 1, 0)


def metric(proxy, name):
    with urlopen(f"{proxy.url}/metrics") as reply:
        return float(re.search(rf"^{name}{{.*}} (\S+)$", reply.read().decode(), re.MULTILINE)[1])


def waiting(proxy):
    return metric(proxy, "dlbench_queue_length")


def request(value=1, headers=""):
    return post({"inputs": [tensor(value, 2, 3)]}, headers=headers)


class Stopped:
    """A proxy whose only worker is held with one request begun: whatever comes now waits."""

    def __init__(self, proxy):
        self.proxy = proxy
        self._worker = proxy.workers()[0]
        os.kill(self._worker, signal.SIGSTOP)
        self._first = proxy.client()
        self._first.send(request(100))
        eventually(lambda: proxy.ask("counters")["batches"] == 1)

    def go_on(self):
        os.kill(self._worker, signal.SIGCONT)
        assert self._first.answer()[0] == 200

    def close(self):
        os.kill(self._worker, signal.SIGCONT)
        self._first.__exit__()


@pytest.fixture
def stopped(models, start_proxy):
    made = []

    def start(settings=None, **config):
        config = {"max_batch_size": 1, "worker_timeout_s": 3600, **config}
        made.append(Stopped(start_proxy(models.affine(), settings, **config)))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"], ids=["kept", "closing"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_what_closed_connections_asked_for_is_not_computed(stopped, reset, headers):
    held = stopped()
    proxy = held.proxy
    clients = [proxy.connect() for _ in range(10)]
    for number, client in enumerate(clients):
        client.sendall(request(number, headers))
    eventually(lambda: waiting(proxy) == 10)
    for client in clients:
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
    eventually(lambda: waiting(proxy) == 0)
    held.go_on()
    with proxy.client() as client:
        client.send(request())
        assert client.answer()[0] == 200
    counters = proxy.ask("counters")
    assert (counters["batches"], counters["in_flight"]) == (2, 0)


def test_of_pipelined_requests_none_is_left(stopped):
    held = stopped()
    with held.proxy.connect() as client:
        client.sendall(b"".join(request(number) for number in range(5)))
        eventually(lambda: waiting(held.proxy) == 5)
    eventually(lambda: waiting(held.proxy) == 0)


def test_a_client_that_only_sends_no_more_still_gets_its_answer(stopped):
    """However long it takes; meanwhile it may be asked whether it is there."""
    held = stopped()
    with held.proxy.client() as client, held.proxy.client() as other:
        client.send(request(4))
        eventually(lambda: waiting(held.proxy) == 1)
        client.socket.shutdown(socket.SHUT_WR)
        status, headers, _ = client.reply()
        assert (status, headers) == (102, {})
        other.send(request())
        held.go_on()
        status, answer = client.answer()
        assert (status, answer["outputs"][0]["data"]) == (200, [9, 5, 7])
        assert client.ended()
        assert other.answer()[0] == 200


def test_a_client_of_http_1_0_is_not_asked(stopped):
    held = stopped()
    with held.proxy.client() as client:
        client.send(request(headers="Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
        eventually(lambda: waiting(held.proxy) == 1)
        client.socket.shutdown(socket.SHUT_WR)
        time.sleep(0.3)  # there is no event for nothing
        held.go_on()
        assert client.answer()[0] == 200


def test_those_who_asked_the_same_are_answered_though_the_first_has_gone(stopped):
    held = stopped(cache_size=10)
    with held.proxy.connect() as first, held.proxy.client() as second:
        first.sendall(request(7))
        eventually(lambda: waiting(held.proxy) == 1)
        second.send(request(7))
        eventually(lambda: held.proxy.ask("counters")["cache_hits"] == 1)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        first.close()
        held.go_on()
        assert second.answer()[0] == 200


def test_what_was_asked_for_later_is_computed_whoever_goes(stopped):
    held = stopped()
    with held.proxy.client() as client:
        client.send(request(headers="Prefer: respond-async\r\n"))
        status, headers, _ = client.reply()
        assert status == 202
    assert waiting(held.proxy) == 1
    held.go_on()
    with held.proxy.client() as client:
        eventually(lambda: held.proxy.ask("counters")["batches"] == 2)

        def fetched():
            client.send(f"GET {headers['location']} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return client.reply()[0] == 200

        eventually(fetched)


# gRPC


@pytest.fixture
def held_grpc(stopped):
    grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    held = stopped({"grpc_port": 0})
    client = grpcclient.InferenceServerClient(held.proxy.first["grpc"])
    x = grpcclient.InferInput("x", (1, 3), "FP32")
    x.set_data_from_numpy(np.ones((1, 3), np.float32))
    yield held, client, [x]
    client.close()


def check_nothing_more_was_computed(held):
    eventually(lambda: waiting(held.proxy) == 0)
    held.go_on()
    eventually(lambda: held.proxy.ask("counters")["in_flight"] == 0)
    assert held.proxy.ask("counters")["batches"] == 1


def test_a_cancelled_call_is_not_computed(held_grpc):
    held, client, inputs = held_grpc
    calls = [client.async_infer("affine", inputs, lambda *_: None) for _ in range(3)]
    eventually(lambda: waiting(held.proxy) == 3)
    for call in calls:
        call.cancel()
    check_nothing_more_was_computed(held)


def test_a_call_whose_deadline_has_passed_is_not_computed(held_grpc):
    from tritonclient.utils import InferenceServerException

    held, client, inputs = held_grpc
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        client.infer("affine", inputs, client_timeout=0.5)
    check_nothing_more_was_computed(held)


def test_what_a_cancelled_stream_has_sent_ahead_is_not_computed(held_grpc):
    import grpc

    from dlbench.proxy.protocols.grpc.codec import pb

    held, _, _ = held_grpc
    x = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    asked = pb.ModelInferRequest(model_name="affine", inputs=[x], raw_input_contents=[bytes(12)])
    with grpc.insecure_channel(held.proxy.first["grpc"]) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        call = stream(iter([asked] * 5))
        eventually(lambda: waiting(held.proxy) == 5)
        call.cancel()
        check_nothing_more_was_computed(held)
