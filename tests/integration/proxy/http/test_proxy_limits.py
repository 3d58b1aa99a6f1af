"""What a client may not do: too much, too slowly, or without reading."""

import gzip
import json

import pytest

from testbed.messages import BODY, X, post

LIMITS = {
    "max_body_mb": 1,
    "max_header_kb": 4,
    "header_timeout_s": 1,
    "body_timeout_s": 1,
    "idle_timeout_s": 2,
}


@pytest.fixture
def proxy(models, shared_proxies):
    return shared_proxies(models.affine())


@pytest.fixture
def strict(models, start_proxy):
    return start_proxy(models.affine(), LIMITS)


def still_serves(proxy):
    with proxy.client() as client:
        client.send(post())
        status, document = client.answer()
        return status == 200 and document["outputs"][0]["data"] == [3.0, 5.0, 7.0]


def refused(client, status):
    found, document = client.answer()
    assert (found, list(document)) == (status, ["error"])
    assert client.ended()


def test_a_large_body_in_many_pieces_is_within_the_limits(proxy):
    with proxy.client() as client:
        padded = BODY + b" " * 3_000_000
        for _ in range(2):
            client.send(post(padded))
            assert client.answer()[0] == 200


def test_too_much_is_refused_and_the_answer_arrives(strict):
    long = "a" * 8000
    requests = {
        "length": (post(b"", length=2 << 20), 413),
        "while it is still sent": (post(bytes(4 << 20)), 413),
        "unpacked": (
            post(gzip.compress(bytes(50 << 20)), headers="Content-Encoding: gzip\r\n"),
            413,
        ),
        "one header": (post(headers=f"X: {long}\r\n"), 431),
        "many headers": (post(headers="X: 0123456789\r\n" * 500), 431),
        "the address": (f"GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 431),
        "one endless line": (b"GET /v2 HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 2_000_000, 431),
        "an endless address": (b"GET /" + b"a" * 2_000_000, 431),
    }
    for request, status in requests.values():
        with strict.client() as client:
            client.send(request)
            if status == 413 and b"gzip" in request[:200]:
                found, document = client.answer()
                assert (found, list(document)) == (413, ["error"])
            else:
                refused(client, status)
    with strict.client() as client:
        client.send(b"POST /v2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"200000\r\n" + bytes(0x200000))
        refused(client, 413)
    assert still_serves(strict)


def test_half_a_request_is_408_and_an_idle_connection_is_closed(strict):
    with strict.client() as head, strict.client() as body, strict.client() as idle:
        with strict.client() as second:
            head.send(b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-")
            body.send(post(BODY[:10], length=50))
            second.send(post() + b"POST /v2")
            assert second.answer()[0] == 200
            refused(second, 408)
        refused(head, 408)
        refused(body, 408)
        assert idle.ended()
    assert still_serves(strict)


def test_a_client_that_does_not_read_is_dropped(strict):
    """It asks for more than the sockets' buffers hold; the next client is served all the same."""
    with strict.client() as client:
        x = {**X, "shape": [10_000, 3], "data": [0.123456789] * 30_000}
        client.socket.settimeout(20)
        body = json.dumps({"inputs": [x]}).encode()
        for _ in range(40):
            try:
                client.send(post(body))
            except OSError:
                break
        assert still_serves(strict)


def test_a_client_that_sends_no_more_still_gets_its_answer(proxy):
    import socket

    with proxy.client() as client:
        client.send(post())
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer()[0] == 200
        assert client.ended()


def test_one_connection_too_many_is_503_and_those_before_it_stay(start_front):
    front = start_front(limits={"connections": 3})
    with front.client() as first, front.client() as second, front.client() as third:
        for client in (first, second, third):
            client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.reply()[0] == 200
        with front.client() as fourth:
            fourth.send(post())
            status, headers, _ = fourth.reply()
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
            assert fourth.ended()
        for client in (first, second, third):
            client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.reply()[0] == 200


def test_a_crowd_of_refused_connections_is_bounded(start_front):
    """Those who are told that it is full linger for a moment: no more than may be connected."""
    front = start_front(limits={"connections": 2})
    clients = [front.client() for _ in range(6)]
    clients[0].send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert clients[0].reply()[0] == 200
    for client in clients[2:4]:
        assert client.reply()[0] == 503
    for client in clients[4:]:
        assert client.ended()
    for client in clients:
        client.__exit__()
    front.drain()
    assert front.process.stdout.readline() == "drained\n"


@pytest.mark.parametrize("size", [1, 2])
def test_a_body_of_tiny_chunks_is_refused(front, size):
    head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with front.client() as client:
        client.send(head + (b"%x\r\n%b\r\n" % (size, b"a" * size)) * 20_000)
        assert client.refused()[0] == 413


def test_known_heads_have_the_same_limits_and_times(start_front):
    """The second request of a connection takes the short cut; its body comes late or never."""
    front = start_front(limits={"body_timeout_s": 1, "header_timeout_s": 1})
    with front.client() as client:
        for _ in range(2):
            client.send(post(b"whole"))
            assert client.echo()[-1] == b"whole"
        for half in (post(b"whole")[:-3], b"ole"):
            client.send(half)
        assert client.echo()[-1] == b"whole"
        client.send(post(b"whole")[:-3])
        assert client.refused()[0] == 408


def test_a_full_queue_is_503_with_retry_after(models, start_proxy):
    proxy = start_proxy(models.slow(), max_queue_size=1, max_batch_size=1)
    request = post().replace(b"/affine/", b"/slow/")
    with proxy.client() as client:
        client.send(request * 12)
        replies = [client.reply() for _ in range(12)]
    statuses = [status for status, _, _ in replies]
    assert statuses[:2] == [200, 200]
    assert set(statuses) == {200, 503}
    for status, headers, body in replies:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert "queue is full" in json.loads(body)["error"]


def test_the_one_who_joined_is_answered_when_the_first_has_gone(models, start_proxy):
    proxy = start_proxy(models.slow(), cache_size=4)
    request = post().replace(b"/affine/", b"/slow/")
    with proxy.client() as second:
        with proxy.client() as first:
            first.send(request)
            while proxy.ask("counters")["requests"] < 1:
                pass
        second.send(request)
        assert second.answer()[0] == 200
    counts = proxy.ask("counters")
    assert (counts["cache_misses"], counts["cache_hits"]) == (1, 1)
