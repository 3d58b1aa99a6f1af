"""Which connections a target needs: a table by the scheme of its URL."""

from __future__ import annotations

from _socket import SOCK_STREAM
from dataclasses import dataclass
from typing import Any

import gevent.socket

from dlbench.loadgen.errors import TargetError


@dataclass(frozen=True)
class ResolvedAddress:
    """A numeric address, so that no look-up happens under load."""

    family: int
    sockaddr: tuple[Any, ...]


def resolve(host: str, port: int) -> ResolvedAddress:
    """Raises TargetError for a name that does not resolve."""
    try:
        family, _, _, _, sockaddr = gevent.socket.getaddrinfo(host, port, type=SOCK_STREAM)[0]
    except OSError as error:
        raise TargetError(f"cannot resolve {host}: {error}") from None
    return ResolvedAddress(int(family), sockaddr)
