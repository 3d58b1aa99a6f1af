"""Whom a request is for, and which web page sent it: the two headers that a web page cannot forge.

A page that a person looks at may send requests to this machine (it names itself in Origin), and a
name of the page's own may be made to point here (Host then says that name: DNS rebinding). Pure.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Protocol

from dlbench.proxy.errors import Forbidden, Misdirected, StartError
from dlbench.proxy.http.access import is_loopback
from dlbench.proxy.http.head import authority_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY = "*"
AUTHORITY = re.compile(r"(?:\[([^]]+)\]|([^][:@]*))(?::[0-9]*)?")
NAME = re.compile(r"[a-z0-9._-]+")
# These do nothing but read: their replies are kept from pages of other origins by the browser.
READING = frozenset((b"GET", b"HEAD"))
# Of what a client says of itself, in an answer.
LONGEST_SHOWN = 100


class Hosts(Protocol):
    """Says which requests are meant for us."""

    def check(self, method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass, or raise Misdirected or Forbidden."""


class AnyHost:
    """All of them."""

    def check(self, method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Pass."""


class AllowedHosts:
    """This machine's own names, the address that it listens on, and those that a person adds.

    On a public address that nobody has named further, Host may be anything: people reach it by
    names that only they know, and tokens or `--insecure` have settled who may come. Pages may not
    all the same, unless they are named.
    """

    def __init__(self, bound: str, allowed: Iterable[str] = ()) -> None:
        """Raises StartError for what is not a host's name or address."""
        names = {_plain(name) for name in allowed}
        self._any = ANY in names
        self._any_name = self._any or not (names or is_loopback(bound))
        self._any_address = _is_unspecified(bound)
        self._names = names if self._any_address else names | {bound.strip("[]").lower()}

    def check(self, method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Hold Host (and a target that is a whole URL) and Origin against the names.

        HTTP/1.0 without Host passes: no browser speaks that.

        Raises:
            Misdirected: the request is for somebody else.
            Forbidden: a page of another origin asks for more than a read.
        """
        said = (headers.get(b"host"), authority_of(target))
        for name in [one for one in said if one is not None]:
            if not (self._any_name or self._is_ours(host_in(name))):
                raise Misdirected(
                    f"{_shown(name)} is not a name of this server; add it to --allowed-hosts"
                )
        origin = headers.get(b"origin")
        if origin is not None and method not in READING and not self._may_send(origin):
            raise Forbidden(
                f"pages of {_shown(origin)} may not use this server; add their host to "
                "--allowed-hosts"
            )

    def _is_ours(self, name: str) -> bool:
        return self._is_named(name) or (self._any_address and _is_address(name))

    def _may_send(self, origin: bytes) -> bool:
        _, scheme_ends, authority = origin.partition(b"://")
        return self._any or bool(scheme_ends and self._is_named(host_in(authority)))

    def _is_named(self, name: str) -> bool:
        return bool(name) and (name in self._names or is_loopback(name))


def host_in(authority: bytes) -> str:
    """The name or address in "HOST:PORT", in lower case and without brackets; "" if there is none."""
    found = AUTHORITY.fullmatch(authority.decode("latin-1").strip().lower())
    return (found[1] or found[2].removesuffix(".")) if found else ""


def _plain(name: str) -> str:
    """A name in the form used for comparison."""
    bare = name.strip().lower().removesuffix(".").strip("[]")
    if bare != ANY and not NAME.fullmatch(bare) and not _is_address(bare):
        raise StartError(f"--allowed-hosts {name!r}: must be a host name without scheme or port")
    return bare


def _is_address(name: str) -> bool:
    """Whether it is an address: no name server can make one of those point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_unspecified(host: str) -> bool:
    """Whether every address of the machine is meant."""
    bare = host.strip("[]")
    return not bare or (_is_address(bare) and ipaddress.ip_address(bare).is_unspecified)


def _shown(said: bytes) -> str:
    return repr(said[:LONGEST_SHOWN].decode("latin-1"))
