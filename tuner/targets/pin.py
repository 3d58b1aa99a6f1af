"""Which cores the server gets and which the client, so that they are in each other's way less.

A client on the server's cores takes what it measures. Apart from `on_cores` everything is pure.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from dlbench.proxy.cores import core_list, hyperthreads, usable_cores
from dlbench.proxy.quota import ROOT, cpu_quota, whole_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Cores = tuple[int, ...]

# With fewer physical cores than this, one for the client is more than the server can spare.
ENOUGH = 4
# The client gets this share of them; its one process and the commander beside it need no more.
CLIENT_SHARE, MOST_FOR_CLIENT = 1 / 4, 2


class Pinning(NamedTuple):
    """Logical cores of the server and of the client; None: wherever the system puts them."""

    server: tuple[int, ...] | None = None
    client: tuple[int, ...] | None = None
    note: str = ""


ANYWHERE = Pinning()


def pinned(pin: str, root: Path = ROOT) -> Pinning:
    """What `--pin` means on this machine, whose /proc and /sys lie in `root`.

    Raises:
        ValueError: no such cores, in one line that names --pin.
    """
    available = usable_cores()
    return cores_apart(pin, available, hyperthreads(available), cpu_quota(root))


def cores_apart(
    pin: str,
    available: Sequence[int],
    physical: Sequence[Sequence[int]] = (),
    quota: float | None = None,
) -> Pinning:
    """Decide: "auto", "off", or the server's cores as `0-3,6`.

    `available` holds the logical cores that may be used, () where they cannot be chosen; `physical`
    groups them by the physical core they share (without it each stands alone). `quota` is the cores'
    worth of time that server and client may use together: on more cores than it pays for, each would
    stand still for what the other has used.

    Raises:
        ValueError: no such cores, in one line that names --pin.
    """
    if pin == "off":
        return ANYWHERE
    if not available:
        return Pinning(note="cores cannot be chosen on this system: client and server share them")
    if pin == "auto":
        cores = physical or [(core,) for core in available]
        return _auto(cores if quota is None else cores[: whole_cores(quota)])
    return _stated(pin, available)


@contextmanager
def on_cores(cores: Sequence[int] | None) -> Iterator[None]:
    """Inside, this thread and every process that it starts run on these cores alone."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _auto(physical: Sequence[Sequence[int]]) -> Pinning:
    """Whole physical cores for each side; the client's are the last ones."""
    if len(physical) < ENOUGH:
        return Pinning(
            note=f"{_count(len(physical))}: client and server share them, so capacities "
            "include the client's own work"
        )
    spared = min(MOST_FOR_CLIENT, max(1, int(len(physical) * CLIENT_SHARE)))
    server, client = _joined(physical[:-spared]), _joined(physical[-spared:])
    return Pinning(
        server, client, f"the server has cores {_listed(server)}, the client {_listed(client)}"
    )


def _stated(pin: str, available: Sequence[int]) -> Pinning:
    try:
        server = core_list(pin)
    except ValueError:
        raise ValueError(
            f"--pin {pin}: must be auto, off or the server's cores, such as 0-3,6"
        ) from None
    missing = [core for core in server if core not in available]
    if missing:
        raise ValueError(
            f"--pin {pin}: no core {_listed(missing)} here; available: {_listed(available)}"
        )
    client = tuple(sorted(set(available) - set(server)))
    if not client:
        return Pinning(server, None, "the server has all cores: the client shares them")
    return Pinning(
        server, client, f"the server has cores {_listed(server)}, the client {_listed(client)}"
    )


def _joined(groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted(core for group in groups for core in group))


def _count(cores: int) -> str:
    return "1 core" if cores == 1 else f"{cores} cores"


def _listed(cores: Sequence[int]) -> str:
    """As Linux writes it: 0-3,6."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
