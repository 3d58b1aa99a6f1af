"""Judgements on what connections need: descriptors, ports, a place in the queue of a listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.doctor.finding import Assessment, Verdict, at_least, judged
from dlbench.loadgen.engine.sockets import MORE_PORTS, RESERVED_DESCRIPTORS, SOONER_PORTS
from dlbench.proxy.http.listener import BACKLOG
from dlbench.proxy.settings import ServerSettings

if TYPE_CHECKING:
    from dlbench.doctor.facts import Facts

# So many connections does `dlbench serve` take if nothing else is said.
WANTED = ServerSettings().max_connections + RESERVED_DESCRIPTORS
FEW_DESCRIPTORS, MANY_DESCRIPTORS = 1024, 65536
MANY_PORTS, FEW_PORTS = 10_000, 1_000
REUSE: dict[int, tuple[Verdict, str]] = {
    0: ("note", "off: a closed connection holds its port for a minute"),
    1: ("good", "on"),
    2: ("good", "on the loopback only"),
}


def descriptors(facts: Facts) -> Assessment:
    """The load generator raises its own soft limit; a server keeps to the one it was given."""
    soft, hard = facts.limits.descriptors_soft, facts.limits.descriptors_hard
    seen = f"{soft:,} (at most {hard:,}); dlbench serve takes {WANTED:,}"
    if soft < WANTED <= hard:
        return Assessment("note", seen, f"ulimit -n {min(hard, 2 * WANTED)}")
    more = f"nofile={MANY_DESCRIPTORS}"
    advice = f"sudo prlimit --{more} --pid $$; docker run --ulimit {more}"
    return judged(at_least(hard, WANTED, FEW_DESCRIPTORS), seen, advice)


def ports(facts: Facts) -> Assessment:
    """Each connection to one address of a server takes one."""
    number = facts.limits.ports
    return judged(at_least(number, MANY_PORTS, FEW_PORTS), f"{number:,} for clients", MORE_PORTS)


def reuse(facts: Facts) -> Assessment:
    """What load without keep-alive depends on."""
    verdict, seen = REUSE.get(facts.limits.tw_reuse, ("unknown", str(facts.limits.tw_reuse)))
    return judged(verdict, seen, SOONER_PORTS)


def backlog(facts: Facts) -> Assessment:
    """A client that finds the queue full retries after a second."""
    most = facts.kernel.listen_backlog
    if most is None:
        return Assessment("unknown", "not reported here")
    seen = f"{most:,} clients may connect at once"
    advice = f"sudo sysctl net.core.somaxconn={BACKLOG}"
    return judged("good" if most >= BACKLOG else "note", seen, advice)
