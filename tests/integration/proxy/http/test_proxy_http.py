"""HTTP over raw sockets: what is right, what is wrong, and what is only half there."""

import gzip
import json
import socket
import zlib

import pytest

from testbed.messages import BODY, INFER, post, tensor

ANSWER = [3.0, 5.0, 7.0]


@pytest.fixture(scope="module")
def proxy(models, shared_proxies):
    return shared_proxies(models.affine())


def error(client):
    status, _, body = client.reply()
    return status, json.loads(body)["error"]


def values(answer):
    status, document = answer
    assert status == 200, document
    return document["outputs"][0]["data"]


def test_a_connection_serves_many_requests(front):
    with front.client() as client:
        for _ in range(3):
            client.send(post())
            assert client.echo()[-1] == BODY


def test_connection_close_is_obeyed_and_said(front):
    with front.client() as client:
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
        x = tensor(number, 0, 0)
        requests += [
            post({"id": str(number), "inputs": [x]}),
            b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n",
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


def test_one_byte_at_a_time(front):
    with front.client() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post():
            client.send(bytes([byte]))
        assert client.echo()[-1] == BODY


def test_a_chunked_body(front):
    with front.client() as client:
        client.send(
            f"POST {INFER} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for piece in (BODY[:10], BODY[10:]):
            client.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert client.echo()[-1] == BODY


def test_expect_100_continue(front):
    head, _, _ = post(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with front.client() as client:
        client.send(head + b"\r\n\r\n")
        assert client.reply()[0] == 100
        client.send(BODY)
        assert client.echo()[-1] == BODY


def test_expect_100_continue_behind_an_unanswered_request(front):
    head, _, _ = post(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with front.client() as client:
        client.send(post() + head + b"\r\n\r\n")
        assert client.echo()[-1] == BODY
        assert client.reply()[0] == 100
        client.send(BODY)
        assert client.echo()[-1] == BODY


@pytest.mark.parametrize("path", ["/v2", "/v2/models/affine", "/nowhere"])
def test_head_is_get_without_a_body(proxy, path):
    with proxy.client() as client:
        client.send(
            f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\nHEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        )
        get, head = client.reply(), client.reply(body=False)
        assert head[:2] == get[:2]
        client.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.answer()[0] == 200


# Named by the coding: gzip writes the time into its header, and a test's name is the same each time.
PACKED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "identity": BODY,
    "gzip, Deflate": zlib.compress(gzip.compress(BODY)),
}


@pytest.mark.parametrize("encoding", PACKED)
def test_compressed_bodies(front, encoding):
    with front.client() as client:
        client.send(post(PACKED[encoding], headers=f"Content-Encoding: {encoding}\r\n"))
        assert client.echo()[-1] == BODY


def test_what_unpacks_to_much_is_unpacked_all_the_same_and_answered_in_its_turn(front):
    large = bytes(900_000)
    with front.client() as client:
        client.send(post(gzip.compress(large), headers="Content-Encoding: gzip\r\n") + post())
        assert client.echo()[-1] == large
        assert client.echo()[-1] == BODY


def test_three_codings_are_too_many(front):
    with front.client() as client:
        client.send(post(headers="Content-Encoding: gzip, gzip, gzip\r\n"))
        assert client.reply()[0] == 415


def test_an_unknown_expectation_is_417(front):
    with front.client() as client:
        client.send(post(headers="Expect: the-unexpected\r\n"))
        assert client.refused()[0] == 417


def test_http_1_0_hears_that_it_may_stay(front):
    request = b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"
    with front.client() as client:
        for _ in range(2):
            client.send(request)
            status, headers, body = client.reply()
            assert (status, headers["connection"], body) == (200, "keep-alive", b"hi")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://h:80/v2/x?y", "/v2/x?y"),
        ("HTTPS://h/v2", "/v2"),
        ("http://h", "/"),
        ("http://h?q=/", "/?q=/"),
    ],
)
def test_a_whole_url_is_routed_by_its_path(front, target, path):
    with front.client() as client:
        client.send(post(path=target))
        assert client.echo()[1] == path


def test_an_upgrade_is_ignored(front):
    """Java's client asks for HTTP/2 in every first request, and takes no for an answer."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    with front.client() as client:
        client.send((post(headers=offer) + post()) * 3)
        for _ in range(6):
            assert client.echo()[-1] == BODY


def test_replies_wait_for_their_turn(front):
    with front.client() as client, front.client() as other:
        client.send(post(b"1", "/hold") + post(b"2", "/hold") + post(b"3"))
        client.send(post(b"4", "/release"))
        for number in b"1234":
            assert client.echo()[-1] == bytes([number])
        other.send(post())
        assert other.echo()[-1] == BODY


def test_a_fault_costs_one_request_its_answer(start_front):
    front = start_front()
    with front.client() as client:
        client.send(post(path="/fault") + post())
        assert error(client)[0] == 500
        assert client.echo()[-1] == BODY
    front.drain()
    assert "ZeroDivisionError" in front.stop()[1]
    front.log.write_text("")


def test_an_error_may_bring_its_headers(front):
    with front.client() as client:
        client.send(post(path="/allow"))
        status, headers, _ = client.reply()
        assert (status, headers["allow"]) == (405, "PUT")


TEXT = b"to be or not to be, that is the question; " * 200


@pytest.mark.parametrize(
    ("accept", "coding", "unpack"),
    [
        ("gzip", "gzip", gzip.decompress),
        ("deflate", "deflate", zlib.decompress),
        ("gzip;q=0.5, deflate;q=0.6", "deflate", zlib.decompress),
        ("br, *;q=0.1", "gzip", gzip.decompress),
        ("gzip;q=0, identity", None, bytes),
        ("br", None, bytes),
        ("", None, bytes),
    ],
)
@pytest.mark.parametrize("size", [len(TEXT), 500_000])
def test_long_text_comes_as_the_client_likes_it(front, accept, coding, unpack, size):
    text = TEXT * (size // len(TEXT))
    with front.client() as client:
        client.send(post(text, headers=f"Accept-Encoding: {accept}\r\n"))
        _, headers, body = client.reply()
        assert (headers.get("content-encoding"), headers["vary"]) == (coding, "accept-encoding")
        assert unpack(body) == text


@pytest.mark.parametrize(("path", "text"), [("/a", TEXT[:1023]), ("/tensor", TEXT)])
def test_short_text_and_raw_tensors_are_sent_as_they_are(front, path, text):
    with front.client() as client:
        client.send(post(text, path, "Accept-Encoding: gzip\r\n"))
        _, headers, body = client.reply()
        assert body == text
        assert not {"vary", "content-encoding"} & set(headers)


def test_head_says_what_get_would_send_packed(front):
    get = post(TEXT, headers="Accept-Encoding: gzip\r\n").replace(b"POST", b"GET", 1)
    with front.client() as client:
        client.send(get + get.replace(b"GET", b"HEAD", 1) + post())
        sent, told = client.reply()[1], client.reply(body=False)[1]
        assert told.pop("x-request") != sent.pop("x-request")
        assert told == sent
        assert client.echo()[-1] == BODY


BAD = {
    "unknown path": (post(path="/nowhere"), 404, "nothing at /nowhere"),
    "unknown model": (post(path="/v2/models/other/infer"), 404, "served here: affine"),
    "unknown version": (post(path="/v2/models/affine/versions/2/infer"), 404, "version 1"),
    "wrong method": (b"GET " + INFER.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n", 405, "POST only"),
    "broken JSON": (post(b"{"), 400, "not valid JSON"),
    "no body": (post(b""), 400, "not valid JSON"),
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
    "unknown encoding": (post(headers="Content-Encoding: br\r\n"), 415, "use gzip or deflate"),
    "broken gzip": (post(headers="Content-Encoding: gzip\r\n"), 400, "compressed body is corrupt"),
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
        found, told = error(client)
        assert found == status
        assert text in told
        client.send(post())
        assert values(client.answer()) == ANSWER


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nonsense": b"hello\r\n\r\n",
    "binary": bytes(range(256)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunked": (
        b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na"
    ),
    "length of text": b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    "length beyond 64 bits": b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: "
    + b"9" * 30
    + b"\r\n\r\n",
    "broken chunk": b"POST /v2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "upgrade of a chunked request": (
        b"POST /v2 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    ),
    "no host": b"GET /v2 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v2 HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip as a transfer coding": (
        b"POST /v2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    ),
    "HTTP/0.9": b"GET /v2\r\n\r\n",
    "two equal lengths": (
        b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"
    ),
    "a folded header": b"GET /v2 HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "a line feed alone": b"GET /v2 HTTP/1.1\nHost: h\n\n",
    "connect": b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_gets_400_once_and_the_connection_ends(front, case):
    with front.client() as client:
        client.send(GARBAGE[case])
        assert client.refused()[0] == 400
    with front.client() as client:
        client.send(post())
        assert client.echo()[-1] == BODY


def test_what_came_before_the_garbage_is_still_answered(front):
    with front.client() as client:
        client.send(post() + b"garbage\r\n\r\n")
        assert client.echo()[-1] == BODY
        assert client.refused()[0] == 400
