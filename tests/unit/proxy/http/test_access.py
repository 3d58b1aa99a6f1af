"""Who may come in, and which addresses need a token."""

import pytest

from dlbench.proxy.errors import StartError, Unauthorized
from dlbench.proxy.http.access import NoTokens, Tokens, refuse_public


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# of the team\nfirst\n\n  second \n#third\n")
    return Tokens.from_file(str(path))


@pytest.mark.parametrize("header", [b"Bearer first", b"bearer second", b"BEARER   first "])
def test_every_token_of_the_file_opens(tokens, header):
    tokens.check(header)


@pytest.mark.parametrize(
    "header",
    [
        *(None, b"", b"Bearer", b"Bearer ", b"first", b"Basic first", b"Bearer firs"),
        *(b"Bearer firstx", b"Bearer first second", b"Bearer #third", b"Bearer third"),
        *(b"Bearer # of the team", b"Bearer \xff"),
    ],
)
def test_nothing_else_does(tokens, header):
    with pytest.raises(Unauthorized, match="Authorization: Bearer TOKEN"):
        tokens.check(header)


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"])
def test_a_file_without_tokens_is_an_error(tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(StartError, match=r"--token-file .*no token"):
        Tokens.from_file(str(path))


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StartError, match=r"--token-file .*No such file"):
        Tokens.from_file(str(tmp_path / "tokens"))


def test_without_tokens_everybody_may():
    NoTokens().check(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_this_machine_needs_no_token(host):
    refuse_public(host, "", insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_a_public_address_does(host):
    with pytest.raises(StartError, match=r"--host .*--token-file FILE.*--insecure"):
        refuse_public(host, "", insecure=False)
    refuse_public(host, "tokens", insecure=False)
    refuse_public(host, "", insecure=True)
