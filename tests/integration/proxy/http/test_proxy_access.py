"""Bearer tokens at the front's door."""

import pytest

from testbed.messages import BODY, post

TOKENS = "first\nsecond\n"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, shared_front):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKENS)
    return shared_front(tokens=str(path))


@pytest.mark.parametrize("token", ["first", "second"])
def test_a_token_opens(guarded, token):
    with guarded.client() as client:
        for _ in range(3):
            client.send(post(headers=f"Authorization: Bearer {token}\r\n"))
            assert client.echo()[-1] == BODY


@pytest.mark.parametrize("header", ["", "Authorization: Bearer third\r\n"])
def test_others_hear_what_is_missing(guarded, header):
    with guarded.client() as client:
        client.send(post(headers="Authorization: Bearer first\r\n") + post(headers=header))
        assert client.echo()[-1] == BODY
        status, headers, _ = client.reply()
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert client.ended()


def test_nobody_uploads_without_a_token(guarded):
    with guarded.client() as client:
        client.send(post(bytes(100_000))[:500])
        assert client.refused()[0] == 401


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_probes_need_none(guarded, path):
    with guarded.client() as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert client.reply()[0] == 200
