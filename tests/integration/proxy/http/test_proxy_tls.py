"""The front behind TLS: the same replies, the same limits, and errors that name the option."""

import contextlib
import ssl

import pytest

from dlbench.proxy.errors import StartError
from dlbench.proxy.http.tls import tls_context
from testbed.certificates import certify, found_authority
from testbed.messages import post

OPTIONS = {"header_timeout_s": 0.5, "body_timeout_s": 0.5, "idle_timeout_s": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An authority, and server and client with certificates of it."""
    folder = tmp_path_factory.mktemp("tls")
    found_authority(folder)
    for name in ("server", "client"):
        certify(folder, name)
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def secure(request, folder, shared_front):
    pair = [str(folder / "server.pem"), str(folder / "server.key"), ""]
    return shared_front(tls=pair, uvloop=request.param)


@pytest.fixture(scope="module")
def context(folder):
    return ssl.create_default_context(cafile=folder / "ca.pem")


def test_requests_of_every_size(secure, context):
    with secure.client(context) as client:
        assert client.socket.version() == "TLSv1.3"
        for size in (0, 5, 100_000, 1_000_000):
            client.send(post(bytes(size)))
            assert client.echo()[-1] == bytes(size)


def test_connection_close_closes(secure, context):
    with secure.client(context) as client:
        client.send(post(b"hello", headers="Connection: close\r\n"))
        assert client.echo()[-1] == b"hello"
        assert client.ended()


def test_what_breaks_the_connection_is_told_while_the_client_still_sends(secure, context):
    """TLS cannot close one direction: the answer must not be lost to the bytes that still come."""
    with secure.client(context) as client:
        client.send(post(b"x" * (2 << 20)))
        assert client.refused()[0] == 413


def test_plain_text_is_no_handshake(secure):
    with secure.client() as client:
        client.send(post(b"hello"))
        assert client.ended()


def test_the_slow_are_cut_off(folder, context, start_front):
    pair = [str(folder / "server.pem"), str(folder / "server.key"), ""]
    front = start_front(tls=pair, limits=OPTIONS)
    with front.client() as mute, front.client(context) as idle, front.client(context) as half:
        half.send(post(b"hello")[:-1])
        assert half.refused()[0] == 408
        assert idle.ended()
        assert mute.ended()


def test_a_drain_says_goodbye(folder, context, start_front):
    pair = [str(folder / "server.pem"), str(folder / "server.key"), ""]
    front = start_front(tls=pair)
    with front.client(context) as client:
        client.send(post(b"hello")[:-1])
        with front.client(context) as witness:
            front.drain()
            assert witness.ended()
        client.send(post(b"hello")[-1:])
        status, headers, _ = client.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert client.ended()
    assert front.process.stdout.readline() == "drained\n"


def test_with_a_client_authority_only_its_clients_come_in(folder, context, start_front):
    names = ("server.pem", "server.key", "ca.pem")
    front = start_front(tls=[str(folder / name) for name in names])
    known = ssl.create_default_context(cafile=folder / "ca.pem")
    known.load_cert_chain(folder / "client.pem", folder / "client.key")
    with front.client(known) as client:
        client.send(post(b"hello"))
        assert client.echo()[-1] == b"hello"
    with front.client(context) as stranger, contextlib.suppress(ssl.SSLError, ConnectionError):
        stranger.send(post(b"hello"))
        assert stranger.ended()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("server.pem", "", ""), "--tls-cert needs .*--tls-key"),
        (("", "server.key", ""), "--tls-key needs .*--tls-cert"),
        (("", "", "ca.pem"), "--tls-client-ca needs .*--tls-cert"),
        (("missing", "server.key", ""), "--tls-cert .*missing: No such file"),
        (("server.pem", "missing", ""), "--tls-key .*missing: No such file"),
        (("server.pem", "server.key", "missing"), "--tls-client-ca .*missing: No such file"),
        (("server.pem", "client.key", ""), "--tls-key .* is not the key of --tls-cert"),
        (("names", "server.key", ""), "not a PEM certificate"),
        (("server.pem", "names", ""), "not a PEM certificate and its key"),
        (("server.pem", "server.key", "names"), "--tls-client-ca .*no PEM certificates"),
    ],
)
def test_errors_name_the_option_in_one_line(folder, options, text):
    with pytest.raises(StartError, match=text) as error:
        tls_context(*(str(folder / name) if name else "" for name in options))
    assert "\n" not in str(error.value)


def test_without_options_there_is_no_tls():
    assert tls_context("", "", "") is None
