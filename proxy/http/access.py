"""Who may use the proxy: bearer tokens (RFC 6750)."""

from __future__ import annotations

import hmac
import ipaddress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from dlbench.proxy.errors import StartError, Unauthorized

# Probes of orchestrators carry no token, and learn nothing but whether we are there.
OPEN_TARGETS = frozenset((b"/v2/health/live", b"/v2/health/ready"))


class Access(Protocol):
    """Says who may come in."""

    def check(self, authorization: bytes | None) -> None:
        """Let a request with this Authorization header pass, or raise Unauthorized."""


class NoTokens:
    """Everybody may."""

    def check(self, authorization: bytes | None) -> None:
        """Pass."""


class Tokens:
    """Admits requests with one of these tokens."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._digests = [_digest(token) for token in tokens]

    @classmethod
    def from_file(cls, path: str) -> Tokens:
        """Those that `read_tokens` finds, and its errors."""
        return cls(read_tokens(path))

    def check(self, authorization: bytes | None) -> None:
        """Pass for "Bearer TOKEN".

        Every token is compared, as a digest of fixed length, so that the time taken says nothing
        about which of them is nearly right.

        Raises:
            Unauthorized: no token, or not one of ours.
        """
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = _digest(token.strip())
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != b"bearer" or not any(found):
            raise Unauthorized("send one of the proxy's tokens as: Authorization: Bearer TOKEN")


def read_tokens(path: str, option: str = "--token-file") -> list[bytes]:
    """One token per line; empty lines and those that begin with # do not count.

    Raises:
        StartError: the file cannot be read or holds no token.
    """
    try:
        lines = [line.strip() for line in Path(path).read_bytes().splitlines()]
    except OSError as error:
        raise StartError(f"{option} {path}: {error.strerror}") from None
    tokens = [line for line in lines if line and not line.startswith(b"#")]
    if not tokens:
        raise StartError(f"{option} {path}: the file contains no token")
    return tokens


def refuse_public(
    host: str,
    token_file: str,
    *,
    insecure: bool,
    option: str = "--host",
    token_option: str = "--token-file",
) -> None:
    """Keep a proxy, or what else listens where `option` says, without tokens to this machine.

    Raises:
        StartError: `host` can be reached from elsewhere, and anybody could use it.
    """
    if token_file or insecure or is_loopback(host):
        return
    raise StartError(
        f"{option} {host} can be reached from other machines; add {token_option} FILE, or "
        "--insecure to admit everybody"
    )


def is_loopback(host: str) -> bool:
    """Only what surely is: any other name may point anywhere."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()
