"""HTTP over raw sockets: what is right, what is wrong, and what is only half there."""

import gzip
import json
import socket
import zlib

import pytest

BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
).encode()
ANSWER = [3.0, 5.0, 7.0]
INFER = "/v2/models/affine/infer"


@pytest.fixture(scope="module")
def proxy(models, shared_proxies):
    return shared_proxies(models.affine())


def post(body=BODY, path=INFER, headers=""):
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def values(answer):
    status, document = answer
    assert status == 200, document
    return document["outputs"][0]["data"]


def error(answer):
    status, document = answer
    assert list(document) == ["error"]
    return status, document["error"]


def test_a_connection_serves_many_requests(proxy):
    with proxy.client() as client:
        for _ in range(3):
            client.send(post())
            assert values(client.answer()) == ANSWER


def test_connection_close_is_obeyed_and_said(proxy):
    with proxy.client() as client:
        client.send(post(headers="Connection: close\r\n"))
        status, headers, _ = client.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert client.ended()


def test_http_1_0_closes(proxy):
    with proxy.client() as client:
        client.send(b"GET /v2 HTTP/1.0\r\n\r\n")
        assert client.answer()[0] == 200
        assert client.ended()


def test_pipelined_requests_are_answered_in_order(proxy):
    """Between slow answers stand immediate ones, which must wait for their turn."""
    requests = []
    for number in range(100):
        x = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [number, 0, 0]}
        requests += [
            post(json.dumps({"id": str(number), "inputs": [x]}).encode()),
            b"GET /v2/health/live HTTP/1.1\r\n\r\n",
            post(path="/nowhere"),
        ]
    with proxy.client() as client:
        client.send(b"".join(requests))
        for number in range(100):
            status, document = client.answer()
            assert (status, document["id"]) == (200, str(number))
            assert document["outputs"][0]["data"][0] == 2 * number + 1
            assert client.reply()[0] == 200
            assert client.answer()[0] == 404


def test_one_byte_at_a_time(proxy):
    with proxy.client() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post():
            client.send(bytes([byte]))
        assert values(client.answer()) == ANSWER


def test_a_chunked_body(proxy):
    with proxy.client() as client:
        client.send(f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for piece in (BODY[:10], BODY[10:]):
            client.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert values(client.answer()) == ANSWER


def test_expect_100_continue(proxy):
    head, _, _ = post(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with proxy.client() as client:
        client.send(head + b"\r\n\r\n")
        assert client.reply()[0] == 100
        client.send(BODY)
        assert values(client.answer()) == ANSWER


def test_expect_100_continue_behind_an_unanswered_request(proxy):
    head, _, _ = post(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with proxy.client() as client:
        client.send(post() + head + b"\r\n\r\n")
        assert values(client.answer()) == ANSWER
        assert client.reply()[0] == 100
        client.send(BODY)
        assert values(client.answer()) == ANSWER


@pytest.mark.parametrize("path", ["/v2", "/v2/models/affine", "/nowhere"])
def test_head_is_get_without_a_body(proxy, path):
    with proxy.client() as client:
        client.send(f"GET {path} HTTP/1.1\r\n\r\nHEAD {path} HTTP/1.1\r\n\r\n".encode())
        get, head = client.reply(), client.reply(body=False)
        assert head[:2] == get[:2]
        client.send(b"GET /v2 HTTP/1.1\r\n\r\n")
        assert client.answer()[0] == 200


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_compressed_bodies(proxy, encoding, pack):
    with proxy.client() as client:
        client.send(post(pack(BODY), headers=f"Content-Encoding: {encoding}\r\n"))
        assert values(client.answer()) == ANSWER


BAD = {
    "unknown path": (post(path="/nowhere"), 404, "nothing at /nowhere"),
    "unknown model": (post(path="/v2/models/other/infer"), 404, "'affine', version 1"),
    "unknown version": (post(path="/v2/models/affine/versions/2/infer"), 404, "version 1"),
    "wrong method": (b"GET " + INFER.encode() + b" HTTP/1.1\r\n\r\n", 405, "POST only"),
    "broken JSON": (post(b"{"), 400, "JSON is broken"),
    "no body": (post(b""), 400, "JSON is broken"),
    "header length of text": (
        post(headers="Inference-Header-Content-Length: x\r\n"),
        400,
        "number of bytes",
    ),
    "header length too long": (
        post(headers="Inference-Header-Content-Length: 9999\r\n"),
        400,
        "does not fit",
    ),
    "header length absurd": (
        post(headers=f"Inference-Header-Content-Length: {'9' * 5000}\r\n"),
        400,
        "Inference-Header-Content-Length",
    ),
    "unknown encoding": (post(headers="Content-Encoding: br\r\n"), 415, "send gzip or deflate"),
    "broken gzip": (post(headers="Content-Encoding: gzip\r\n"), 400, "compressed body is broken"),
    "half a gzip": (
        post(gzip.compress(BODY)[:-5], headers="Content-Encoding: gzip\r\n"),
        400,
        "ends too early",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_leaves_the_connection_usable(proxy, case):
    request, status, text = BAD[case]
    with proxy.client() as client:
        client.send(request)
        found = error(client.answer())
        assert found[0] == status
        assert text in found[1]
        client.send(post())
        assert values(client.answer()) == ANSWER


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nonsense": b"hello\r\n\r\n",
    "binary": bytes(range(256)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /v2 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunked": (
        b"POST /v2 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na"
    ),
    "length of text": b"POST /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length beyond 64 bits": b"POST /v2 HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "broken chunk": b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "upgrade": b"POST /v2 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\na",
    "connect": b"CONNECT h:80 HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_gets_400_once_and_the_connection_ends(proxy, case):
    with proxy.client() as client:
        client.send(GARBAGE[case])
        assert error(client.answer())[0] == 400
        assert client.ended()
    with proxy.client() as client:
        client.send(post())
        assert values(client.answer()) == ANSWER


def test_what_came_before_the_garbage_is_still_answered(proxy):
    with proxy.client() as client:
        client.send(post() + b"garbage\r\n\r\n")
        assert values(client.answer()) == ANSWER
        assert error(client.answer())[0] == 400
        assert client.ended()
