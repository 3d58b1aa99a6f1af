"""A drain seen by clients that are in the middle of something when it begins."""

import os
import signal

import pytest

from testbed.messages import post


@pytest.mark.parametrize("sent", [1, 20, -1])
def test_a_request_that_is_half_there_is_answered(models, start_proxy, sent):
    proxy = start_proxy(models.affine())
    with proxy.client() as client, proxy.client() as witness:
        client.send(post()[:sent])
        witness.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert witness.reply()[0] == 200
        os.kill(proxy.process.pid, signal.SIGTERM)
        assert witness.ended()
        client.send(post()[sent:])
        status, headers, _ = client.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert client.ended()
    assert proxy.process.wait(60) == 0


def test_a_request_that_crosses_the_signal_is_answered(models, start_proxy):
    proxy = start_proxy(models.affine())
    with proxy.client() as client:
        client.send(post())
        assert client.reply()[0] == 200
        os.kill(proxy.process.pid, signal.SIGSTOP)
        os.kill(proxy.process.pid, signal.SIGTERM)
        client.send(post())
        os.kill(proxy.process.pid, signal.SIGCONT)
        assert client.reply()[0] == 200
        assert client.ended()
    assert proxy.process.wait(60) == 0


def test_a_second_signal_does_not_wait(models, start_proxy):
    proxy = start_proxy(models.affine())
    with proxy.client() as client, proxy.client() as witness:
        client.send(post()[:20])
        witness.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert witness.reply()[0] == 200
        os.kill(proxy.process.pid, signal.SIGTERM)
        assert witness.ended()
        os.kill(proxy.process.pid, signal.SIGTERM)
        assert client.ended()
        assert proxy.process.wait(60) == 0


@pytest.mark.parametrize("known", [False, True])
def test_a_drain_answers_what_is_held_and_invites_nobody(start_front, known):
    """Also on the short cut of heads that were seen before; the last reply says goodbye."""
    front = start_front()
    head = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"
    expecting = b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with front.client() as client, front.client() as witness:
        if known:
            client.send(head % b"hold" + b"hi")
            witness.send(head % b"release" + b"hi")
            assert witness.reply()[0] == client.reply()[0] == 200
        client.send(head % b"hold" + b"hi" + head % b"a" + b"ho")
        with front.client() as idle:
            front.drain()
            assert idle.ended()
        client.send(head % b"release" + b"he" + expecting)
        replies = [client.reply() for _ in range(3)]
        assert [body for _, _, body in replies] == [b"hi", b"ho", b"he"]
        assert [headers.get("connection") for _, headers, _ in replies] == [None, None, "close"]
        assert client.ended()
    assert front.process.stdout.readline() == "drained\n"
