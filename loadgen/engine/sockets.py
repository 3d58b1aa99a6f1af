"""File descriptors and ports: is there enough of them for this load? Said before it begins.

What is certain not to work raises BudgetError; what works until the server stalls is a warning.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlbench.loadgen.errors import BudgetError

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target

ROOT = Path("/")
# Descriptors that are not connections: pipes, epoll, timer, files.
RESERVED_DESCRIPTORS = 64
# With fewer no open loop is worth beginning: it opens so many ahead.
LEAST_CONNECTIONS = 16
# Linux' defaults, for systems without /proc.
PORT_RANGE = "32768 60999"
# How long a closed connection keeps its port: TCP_TIMEWAIT_LEN of Linux, and what tcp_tw_reuse
# makes of it (a second, for timestamps to differ).
TIME_WAIT_S = {False: 60.0, True: 1.0}
# A pause that servers do make (a collection, a model that loads): an open loop should survive it.
LIKELY_STALL_S = 1.0
MORE_DESCRIPTORS = "raise the limit (ulimit -Hn, LimitNOFILE= of a service, docker --ulimit nofile)"
MORE_PORTS = "widen the range (sysctl net.ipv4.ip_local_port_range='1024 65535')"
SOONER_PORTS = "let ports be reused sooner (sysctl net.ipv4.tcp_tw_reuse=1)"


class SystemLimits(NamedTuple):
    """What this system allows. `ports` is the number of connections to one address of a server.

    `tw_reuse` is tcp_tw_reuse: 0 never, 1 always, 2 on the loopback only.
    """

    descriptors_soft: int
    descriptors_hard: int
    ports: int
    tw_reuse: int

    @property
    def connections(self) -> int:
        """The most connections at once; a process may raise its soft limit."""
        return min(self.descriptors_hard - RESERVED_DESCRIPTORS, self.ports)

    @property
    def remedy(self) -> str:
        """What to set for more connections."""
        return MORE_PORTS if self.connections == self.ports else MORE_DESCRIPTORS

    def reuses_ports(self, host: str) -> bool:
        """Whether a connection to `host` may take a port that has just been closed."""
        return self.tw_reuse == 1 or (self.tw_reuse == 2 and _is_loopback(host))


def descriptors() -> int:
    """How many connections this process may open; raises its soft limit as far as it goes.

    Raises BudgetError where that is too low for any.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):  # macOS says "infinite" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = _finite(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    _check_descriptors(1, limit)
    return limit - RESERVED_DESCRIPTORS


def limits(root: Path = ROOT) -> SystemLimits:
    """The current limits; /proc is below `root`."""
    soft, hard = map(_finite, resource.getrlimit(resource.RLIMIT_NOFILE))
    settings = root / "proc/sys/net/ipv4"
    low, high = map(int, _text(settings / "ip_local_port_range", PORT_RANGE).split())
    reserved = _count(_text(settings / "ip_local_reserved_ports", ""), low, high)
    reuse = int(_text(settings / "tcp_tw_reuse", "0"))
    return SystemLimits(soft, hard, high - low + 1 - reserved, reuse)


def check(profile: LoadProfile, target: Target, limits: SystemLimits) -> tuple[str, ...]:
    """Warnings, a line each, for what is likely to fail. Raises BudgetError for what is certain."""
    _check_connections(profile, limits)
    if not profile.keep_alive:
        _check_new_connections(profile, target.host, limits)
    warnings = (_stall(profile, limits), _busy_users(profile, target.host, limits))
    return tuple(filter(None, warnings))


def check_descriptors(connections: int, limits: SystemLimits) -> None:
    """Raises BudgetError if this system's limit does not allow that many connections."""
    _check_descriptors(connections, limits.descriptors_hard)


def _check_descriptors(connections: int, limit: int) -> None:
    needed = connections + RESERVED_DESCRIPTORS
    if needed > limit:
        said = "1 connection needs" if connections == 1 else f"{connections:,} connections need"
        raise BudgetError(
            f"{said} {needed:,} file descriptors, the limit is {limit:,}: "
            f"ulimit -n {needed} (LimitNOFILE= of a service, docker --ulimit nofile)"
        )


def _check_connections(profile: LoadProfile, limits: SystemLimits) -> None:
    wanted = max(profile.connections, profile.users or 0)
    check_descriptors(wanted or LEAST_CONNECTIONS, limits)
    if wanted > limits.connections:
        raise BudgetError(
            f"{wanted:,} connections are more than the {limits.connections:,} this system allows; "
            f"lower --users or --connections, or {limits.remedy}"
        )


def _check_new_connections(profile: LoadProfile, host: str, limits: SystemLimits) -> None:
    """Each request takes a port, which is not free again before its TIME_WAIT is over."""
    held_s = min(TIME_WAIT_S[limits.reuses_ports(host)], profile.warmup_s + profile.duration_s)
    least = min(profile.rate or 0, profile.rate_to or sys.maxsize)
    if least * held_s > limits.ports:
        raise BudgetError(
            f"{least:,.0f} new connections/s for {held_s:g} s need more than the {limits.ports:,} "
            f"available ports; keep connections open, or {SOONER_PORTS}, or {MORE_PORTS}"
        )


def _stall(profile: LoadProfile, limits: SystemLimits) -> str:
    """An open loop needs rate x stall connections; one with stated connections has chosen."""
    peak = max(profile.rate or 0, profile.rate_to or 0)
    if profile.connections or peak * LIKELY_STALL_S <= limits.connections:
        return ""
    survived_ms = limits.connections / peak * 1000
    return (
        f"{limits.connections:,} connections at {peak:,.0f}/s cover a stall of "
        f"{survived_ms:,.0f} ms; a longer one makes requests late. To cover more, {limits.remedy}"
    )


def _busy_users(profile: LoadProfile, host: str, limits: SystemLimits) -> str:
    """Users without keep-alive open connections as fast as the server answers."""
    if profile.keep_alive or profile.users is None:
        return ""
    most_rps = limits.ports / TIME_WAIT_S[limits.reuses_ports(host)]
    return (
        f"ports run out if the users make more than {most_rps:,.0f} new connections/s; keep "
        f"connections open, or {SOONER_PORTS}"
    )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _count(ranges: str, low: int, high: int) -> int:
    """How many ports of low..high are in "8080,9148-9200"."""
    taken: set[int] = set()
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        taken.update(range(max(low, int(first)), min(high, int(last or first)) + 1))
    return len(taken)


def _finite(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _text(path: Path, missing: str) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return missing
