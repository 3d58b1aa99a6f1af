"""Which connections a target needs: plain or TLS below, HTTP/1.1 or gRPC above."""

from __future__ import annotations

from _socket import SOCK_STREAM
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent.socket

from dlbench.loadgen.credentials import bearer_token, tls_context
from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.protocols.table import PROTOCOLS
from dlbench.loadgen.transport.grpc_connection import Grpc
from dlbench.loadgen.transport.keepalive import Http, Plain
from dlbench.loadgen.transport.tls import Tls

if TYPE_CHECKING:
    from dlbench.loadgen.engine.request_loop import Connect
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target
    from dlbench.loadgen.transport.keepalive import Wires

SCHEMES = {False: "http", True: "https"}


@dataclass(frozen=True)
class ResolvedAddress:
    """A numeric address, so that no look-up happens under load."""

    family: int
    sockaddr: tuple[Any, ...]


def connector(target: Target, profile: LoadProfile) -> Connect:
    """What opens one connection after the other. Raises TargetError: no such host, bad certificates."""
    address = resolve(target.host, target.port)
    if PROTOCOLS[target.protocol].http:
        return Http(address, _wires(target, profile, ""))
    return Grpc(
        address,
        _wires(target, profile, "h2"),
        authority=target.authority,
        path=target.path,
        token=bearer_token(profile),
        scheme=SCHEMES[target.tls],
    )


def _wires(target: Target, profile: LoadProfile, alpn: str) -> Wires:
    return Tls(tls_context(profile), target.host, alpn) if target.tls else Plain


def resolve(host: str, port: int) -> ResolvedAddress:
    """Raises TargetError for a name that does not resolve."""
    try:
        family, _, _, _, sockaddr = gevent.socket.getaddrinfo(host, port, type=SOCK_STREAM)[0]
    except OSError as error:
        raise TargetError(f"cannot resolve {host}: {error}") from None
    return ResolvedAddress(int(family), sockaddr)
