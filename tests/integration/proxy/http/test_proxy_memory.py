"""One bound on what requests and replies hold in the front, whoever sends them and how."""

import contextlib
import gzip
import json
import time

import numpy as np
import psutil
import pytest

MIB = 1 << 20
# What a front may take beside what is counted: buffers of sockets, allocators, a busy machine.
SLACK = 24 * MIB
PATIENCE_S = 60


@pytest.fixture
def narrow(models, start_proxy):
    """A proxy whose requests and replies may take 16 MiB."""
    return start_proxy(models.echo(), {"max_memory_mb": 16, "max_body_mb": 12})


def head(length, path="/v2/models/echo/infer", **more):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{lines}\r\n".encode()


def binary(count, back=True, path="/v2/models/echo/infer", **more):
    """A request of so many zeros."""
    given = {"name": "x", "datatype": "FP32", "shape": [1, count]}
    given["parameters"] = {"binary_data_size": 4 * count}
    document = {"inputs": [given], "parameters": {"binary_data_output": back}}
    text = json.dumps(document).encode()
    length = {"Inference_Header_Content_Length": len(text), **more}
    return head(len(text) + 4 * count, path, **length) + text + bytes(4 * count)


def rss(proxy):
    return psutil.Process(proxy.first["pids"]["front"]).memory_info().rss


def eventually_200(proxy, request):
    """The answer's body once there is room: connections that end are noticed a moment later."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with proxy.client() as client:
            client.send(request)
            status, headers, body = client.reply()
        if status == 200 or time.monotonic() > deadline:
            assert status == 200, body
            return body
        assert (status, headers["retry-after"]) == (503, "1")


def test_unfinished_bodies_share_one_bound(narrow):
    """Twelve of ten MiB: one fits, the others are told so as soon as they go over."""
    before, clients, refused = rss(narrow), [], 0
    try:
        for _ in range(12):
            clients.append(narrow.client())
            clients[-1].send(head(11 * MIB))
            with contextlib.suppress(OSError):  # it has said no already
                clients[-1].send(bytes(10 * MIB))
        for client in clients[1:]:
            status, headers, body = client.reply()
            refused += status == 503
            assert (status, headers["retry-after"]) == (503, "1")
            assert "--max-memory-mb" in json.loads(body)["error"]
        assert refused == 11
        assert rss(narrow) - before < 16 * MIB + SLACK
        with narrow.client() as small:  # what is small is served all the same
            small.send(binary(8))
            assert small.reply()[0] == 200
    finally:
        for client in clients:
            client.__exit__()
    assert len(eventually_200(narrow, binary(MIB))) > 4 * MIB


def test_pieces_without_a_length_are_counted_too(narrow):
    with narrow.client() as first, narrow.client() as second:
        chunk = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
        start = (
            b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        first.send(start + 10 * chunk)
        second.send(start + 10 * chunk)
        assert second.reply()[0] == 503
    eventually_200(narrow, binary(MIB))


def test_what_waits_for_a_worker_is_counted_until_it_is_answered(narrow):
    (pid,) = narrow.workers()
    worker = psutil.Process(pid)
    worker.suspend()
    clients = []
    try:
        for _ in range(6):
            clients.append(narrow.client())
            clients[-1].send(binary(MIB, back=False))
        # Three fit; the others are answered while the worker stands still.
        assert [client.reply()[0] for client in clients[3:]] == [503] * 3
    finally:
        worker.resume()
    try:
        for client in clients[:3]:
            assert client.reply(body=False)[0] in (200, 503)  # replies need room as well
    finally:
        for client in clients:
            client.__exit__()
    eventually_200(narrow, binary(MIB))


def test_what_is_unpacked_is_counted_before_it_is(narrow):
    packed = gzip.compress(bytes(40 * MIB))
    before = rss(narrow)
    for _ in range(3):
        with narrow.client() as client:
            client.send(head(len(packed), Content_Encoding="gzip") + packed)
            assert client.reply()[0] == 413
    assert rss(narrow) - before < 16 * MIB + SLACK
    eventually_200(narrow, binary(MIB))


def test_results_that_are_kept_make_room_and_are_never_more_than_the_bound(narrow):
    before = rss(narrow)
    with narrow.client() as client:
        for _ in range(12):
            client.send(binary(MIB, Prefer="respond-async"))
            status, headers, _ = client.reply()
            assert status in (202, 503)
            if status == 202:
                where = headers["location"]
                done = 202
                while done == 202:
                    client.send(f"GET {where} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                    done = client.reply()[0]
        assert rss(narrow) - before < 16 * MIB + SLACK


def test_an_output_larger_than_everything_may_be_stays_in_its_worker(models, start_proxy):
    """Rows of one number become rows of a million; the front never makes room for them."""
    constants = [("wide", np.ones((1, 1 << 20), np.float32))]
    model = models._save(
        "wide",
        [("Mul", ["x", "wide"], ["y"], {})],
        [("x", ("n", 1))],
        [("y", ("n", 1 << 20))],
        constants,
    )
    proxy = start_proxy(model, {"max_memory_mb": 16, "max_body_mb": 12}, max_batch_size=2)
    before = rss(proxy)
    for rows, wanted in ((2, 200), (8, 400)):
        given = {"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": [1.0] * rows}
        text = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
        with proxy.client() as client:
            client.send(head(len(text), "/v2/models/wide/infer") + text)
            status, _, body = client.reply()
        assert status == wanted
    assert "outputs of 32 MiB exceed the limit of 16" in json.loads(body)["error"]
    assert rss(proxy) - before < 16 * MIB + SLACK


def read_all(client):
    """A reply to the end of its connection, unchunked."""
    status, headers, _ = client.reply(body=False)
    if headers.get("transfer-encoding") != "chunked":
        return status, headers, client._file.read()
    found = []
    while size := int(client._file.readline(), 16):
        found.append(client._file.read(size))
        client._file.read(2)
    client._file.read(2)
    return status, headers, b"".join(found)


@pytest.mark.parametrize(
    ("version", "more", "chunked"),
    [
        ("1.1", {}, True),
        ("1.1", {"Connection": "close"}, True),
        ("1.0", {}, False),
        ("1.0", {"Connection": "keep-alive"}, False),
        ("1.1", {"Accept-Encoding": "gzip"}, True),
    ],
)
def test_a_large_reply_of_text_comes_in_pieces(models, shared_proxies, version, more, chunked):
    proxy = shared_proxies(models.echo())
    count = 600_000
    request = binary(count, back=False, **more).replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1)
    with proxy.client() as client:
        client.send(request)
        status, headers, body = read_all(client)
        assert (status, "content-length" in headers) == (200, False)
        assert ("transfer-encoding" in headers) == chunked
        if "Accept-Encoding" in more:
            body = gzip.decompress(body)
        (y,) = json.loads(body)["outputs"]
        assert (y["shape"], y["data"]) == ([1, count], [0.0] * count)
        if chunked and "Connection" not in more:  # the connection goes on
            client.send(binary(8))
            assert client.reply()[0] == 200
        else:
            assert client.ended()


def test_a_client_that_does_not_read_costs_no_more_than_its_tensors(models, start_proxy):
    """Text of five times the tensors' size is not made before somebody takes it."""
    proxy = start_proxy(models.echo())
    count = 4_000_000
    with proxy.client() as client:
        before = rss(proxy)
        values = np.random.default_rng(0).random(count, np.float32).tobytes()
        client.send(binary(count, back=False)[: -4 * count] + values)
        assert client._file.peek(1)
        with proxy.client() as other:
            for _ in range(200):
                other.send(binary(8))
                assert other.reply()[0] == 200
        assert rss(proxy) - before < 2 * 4 * count + SLACK
        status, _, body = read_all(client)
    assert status == 200
    data = np.array(json.loads(body)["outputs"][0]["data"], np.float32)
    assert data.tobytes() == values


def test_replies_that_nobody_takes_share_the_bound(narrow):
    """Small requests, large replies: those that do not fit become errors, and no memory."""
    before = rss(narrow)
    clients = [narrow.client() for _ in range(8)]
    try:
        for client in clients:
            client.send(binary(MIB))
        statuses = [client.reply(body=False)[0] for client in clients]
        assert set(statuses) <= {200, 503}
        assert rss(narrow) - before < 2 * 16 * MIB + SLACK
    finally:
        for client in clients:
            client.__exit__()
    eventually_200(narrow, binary(MIB))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v2/models/echo/infer",
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": ["a"]}]},
        ),
        ("/v1/models/echo:predict", {"instances": [["a"]]}),
        ("/predictions/echo", [["a"]]),
        ("/predict", {"input": ["a"]}),
    ],
)
def test_large_json_is_read_beside_the_front(models, start_proxy, path, body):
    """Its values never are this process' objects: the front holds the text and no more."""
    proxy = start_proxy(models.echo())
    many = b"1.5," * 2_000_000
    text = json.dumps(body).encode().replace(b'"a"', many + b"1.5")
    text = text.replace(b"[1, 1]", b"[1, 2000001]")
    with proxy.client() as client:
        client.send(head(300, path) + json.dumps(body).encode().replace(b'"a"', b"1.5").ljust(300))
        assert client.reply()[0] == 200
        before = rss(proxy)
        client.send(head(len(text), path) + text)
        peak = before
        client.socket.setblocking(False)
        while True:
            try:
                if client.socket.recv(1, 2):  # MSG_PEEK
                    break
            except BlockingIOError:
                peak = max(peak, rss(proxy))
        client.socket.setblocking(True)
        status, _, answer = read_all(client)
    assert status == 200
    assert answer.count(b"1.5") == 2_000_001
    assert peak - before < 3 * len(text) + SLACK


def test_large_json_that_is_wrong_is_refused_and_counted(models, start_proxy):
    proxy = start_proxy(models.echo())
    with proxy.client() as client:
        text = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [%b' % (
            b'"",' * 100_000
        )
        client.send(head(len(text)) + text)
        status, document = client.answer()
        assert (status, "not valid JSON" in document["error"]) == (400, True)
        client.send(b"GET /v2/models/echo/stats HTTP/1.1\r\nHost: h\r\n\r\n")
        (stats,) = client.answer()[1]["model_stats"]
    assert stats["inference_stats"]["fail"]["count"] == 1
