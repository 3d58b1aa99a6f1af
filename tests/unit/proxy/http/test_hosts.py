"""Host and Origin: what a browser says of whom it asks, and for whom."""

import pytest

from dlbench.proxy.errors import Forbidden, Misdirected, StartError
from dlbench.proxy.http.access import NoTokens
from dlbench.proxy.http.head import HeadMemo
from dlbench.proxy.http.hosts import AllowedHosts, AnyHost
from dlbench.proxy.http.limits import Limits
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.http.reader import RequestReader

LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]
PUBLIC = ["0.0.0.0", "::", "", "10.0.0.5", "gpu7.example.com"]
OURS = [
    *("localhost", "localhost:8000", "LOCALHOST:80", "localhost.", "localhost.:8000"),
    *("127.0.0.1", "127.0.0.1:8000", "127.9.8.7", "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]:1"),
    "localhost:",
]
FOREIGN = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("evil.example.", "localhost@evil.example", "evil.example@localhost", "localhost:8000@evil"),
    *("10.0.0.5", "[2001:db8::1]:8000", "0.0.0.0:8000", "xlocalhost", "localhostx", "", ":8000"),
    *("localhost:evil", "[::1", "[::1]evil.example", "127.0.0.1, evil.example", "local\xefhost"),
    *("2130706433", "0x7f.1", "127.1", "[::1].evil.example"),
]


def check(hosts, host=None, method=b"POST", target=b"/v2", **headers):
    said = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    if host is not None:
        said[b"host"] = host.encode("latin-1")
    hosts.check(method, target, said)


@pytest.mark.parametrize("bound", LOOPBACK)
@pytest.mark.parametrize("host", OURS)
def test_this_machine_goes_by_its_own_names(bound, host):
    check(AllowedHosts(bound), host)
    check(AllowedHosts(bound), "localhost", origin=f"http://{host}")
    check(AllowedHosts(bound), "localhost", target=f"http://{host}/v2".encode())


@pytest.mark.parametrize("bound", LOOPBACK)
@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"])
def test_and_by_no_other(bound, host, method):
    with pytest.raises(Misdirected, match="--allowed-hosts"):
        check(AllowedHosts(bound), host, method)


def test_a_target_that_is_a_url_counts_too():
    for target in (
        b"http://evil.example/v2",
        b"HTTPS://evil.example",
        b"http://evil.example?localhost",
    ):
        with pytest.raises(Misdirected, match=r"evil\.example"):
            check(AllowedHosts("127.0.0.1"), "localhost", target=target)
    with pytest.raises(Misdirected):
        check(AllowedHosts("127.0.0.1"), "evil.example", target=b"http://localhost/v2")


def test_http_1_0_without_a_host_is_no_browser():
    check(AllowedHosts("127.0.0.1"))


ORIGINS = [
    *("http://evil.example", "https://evil.example:8000", "http://localhost.evil.example"),
    *("null", "", "http://", "localhost", "file://", "chrome-extension://abcdef"),
    *("http://evil.example http://localhost", "http://localhost, http://evil.example"),
    *("http://10.0.0.5", "http://0.0.0.0:8000", "http://evil.example@localhost"),
]


@pytest.mark.parametrize("bound", [*LOOPBACK, "0.0.0.0", "::", "gpu7.example.com"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_from_elsewhere_may_read_and_no_more(bound, origin):
    hosts = AllowedHosts(bound)
    for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"):
        with pytest.raises(Forbidden, match="--allowed-hosts"):
            check(hosts, "localhost", method, origin=origin)
    check(hosts, "localhost", b"GET", origin=origin)


@pytest.mark.parametrize("bound", PUBLIC)
def test_a_public_address_goes_by_any_name(bound):
    """But a page that has made its own name point here (DNS rebinding) is still a page."""
    hosts = AllowedHosts(bound)
    for host in (*OURS, *FOREIGN):
        check(hosts, host)
    with pytest.raises(Forbidden):
        check(hosts, "evil.example:8000", origin="http://evil.example:8000")


@pytest.mark.parametrize("bound", [*LOOPBACK, *PUBLIC])
def test_names_that_a_person_adds(bound):
    hosts = AllowedHosts(bound, ["Models.example.com", "10.1.2.3", "fd00::7"])
    for host in ("models.example.com", "MODELS.example.com.:443", "10.1.2.3:8000", "[fd00::7]"):
        check(hosts, host)
        check(hosts, host, origin=f"https://{host}")
    for host in ("evil.example", "models.example.com.evil.example", "x.models.example.com"):
        with pytest.raises(Misdirected):
            check(hosts, host)
        with pytest.raises(Forbidden):
            check(hosts, "localhost", origin=f"https://{host}")
    check(hosts, "127.0.0.1")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "[::]", ""])
def test_on_every_address_the_host_may_be_any_address(bound):
    """A kubelet's probe says the pod's."""
    hosts = AllowedHosts(bound, ["models.example.com"])
    for host in ("10.244.0.17:8000", "[fd00::17]:8000"):
        check(hosts, host)
        with pytest.raises(Forbidden):
            check(hosts, host, origin=f"http://{host}")


def test_the_bound_name_and_address_are_ours():
    check(AllowedHosts("gpu7.example.com", ["a"]), "GPU7.example.com:8000")
    check(AllowedHosts("10.0.0.5", ["a"]), "10.0.0.5:8000", origin="http://10.0.0.5:8000")
    check(AllowedHosts("fd00::5", ["a"]), "[fd00::5]:8000")


def test_a_star_is_all():
    for host in FOREIGN:
        check(AllowedHosts("127.0.0.1", ["*"]), host, origin="null")
    for host in FOREIGN:
        check(AnyHost(), host, origin="null")


@pytest.mark.parametrize("name", ["", "http://a", "a:80", "a/b", "a b", "[::1]:80", "a,b", "*.a.b"])
def test_what_is_not_a_name_is_refused_at_the_start(name):
    with pytest.raises(StartError, match="--allowed-hosts"):
        AllowedHosts("127.0.0.1", [name])


def test_a_head_is_checked_before_it_is_remembered():
    heads, seen = HeadMemo(), []
    hosts = AllowedHosts("127.0.0.1")
    limits = Limits(1000, 1000, 1.0, 1.0, 1.0)

    def read(text):
        reader = RequestReader(
            limits, heads, NoTokens(), lambda h, b: seen.append(h), Memory(), hosts
        )
        reader.feed(text)

    right = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 0\r\n\r\n"
    for _ in range(2):
        read(right)
        with pytest.raises(Misdirected):
            read(right.replace(b"Host: localhost", b"Host: evil.example"))
        with pytest.raises(Forbidden):
            read(right.replace(b"http://localhost", b"http://evil.example"))
    assert list(heads.known) == [right]
    assert len(seen) == 2
