"""Judgements on processor, memory and disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.doctor.finding import Assessment, at_least, judged
from dlbench.proxy.quota import whole_cores
from dlbench.tuner.targets.pin import cores_apart

if TYPE_CHECKING:
    from dlbench.doctor.facts import Facts
    from dlbench.doctor.finding import Verdict

# What the proxy, a worker or two and the client take; and what leaves room for a large model.
LEAST_MEMORY_MB, MUCH_MEMORY_MB = 512.0, 2048.0
# A study of half an hour keeps some 60 MiB of samples.
LEAST_DISK_MB, MUCH_DISK_MB = 256.0, 1024.0
SWAPPED_MB = 1.0  # as in tuner/bench/disturbance.py: less is what an idle system does to anybody


def cores(facts: Facts) -> Assessment:
    """How many there are, and whether server and client get some each."""
    usable, known = facts.machine.usable_cores, facts.machine.logical_cores
    seen = f"{len(facts.cores)} physical, {usable} of {known} logical"
    if usable < known:
        return Assessment("note", seen, f"if unintended: taskset -pc 0-{known - 1} $$")
    logical = [core for group in facts.cores for core in group]
    if cores_apart("auto", logical, facts.cores, facts.machine.cpu_limit).server is None:
        advice = "to measure capacities, run dlbench load on another machine"
        return Assessment("note", f"{seen}; client and server share them", advice)
    return Assessment("good", seen)


def hyperthreads(facts: Facts) -> Assessment:
    """Two workers on one core's hyperthreads take from each other."""
    most = max(map(len, facts.cores), default=1)
    if most == 1:
        return Assessment("good", "none: every logical core is a physical core")
    advice = "echo off | sudo tee /sys/devices/system/cpu/smt/control"
    return Assessment("note", f"{most} per core, sharing its speed", advice)


def cpu_limit(facts: Facts) -> Assessment:
    """A quota stops everybody for the rest of its period, often 100 ms, once it is spent."""
    limit = facts.machine.cpu_limit
    if limit is None:
        return Assessment("good", "no limit")
    started = min(whole_cores(limit), len(facts.cores))
    seen = (
        f"{limit:g} cores of {len(facts.cores)}: {started} worker{'s' * (started > 1)} by default"
    )
    if limit < 1:
        return Assessment("bad", f"{seen}, paused when the quota is used up", "docker run --cpus 1")
    advice = "docker run --cpuset-cpus instead of --cpus: cores without a quota"
    return Assessment("note", f"{seen}; processes pause when it is used up", advice)


def governor(facts: Facts) -> Assessment:
    """Anything but `performance` lowers the clock of who has been idle."""
    name = facts.machine.governor
    if name is None:
        return Assessment("unknown", "not reported here (a virtual machine's host decides)")
    verdict: Verdict = "good" if name == "performance" else "note"
    seen = name if verdict == "good" else f"{name}: the clock follows the load"
    return judged(verdict, seen, "sudo cpupower frequency-set -g performance")


def turbo(facts: Facts) -> Assessment:
    """With it a core's clock depends on its neighbours and on heat."""
    on = facts.kernel.turbo
    if on is None:
        return Assessment("unknown", "not reported here")
    seen = "on: the clock depends on heat and on how many cores work"
    advice = "to compare configurations: sudo cpupower set --turbo-boost 0"
    return Assessment("note", seen, advice) if on else Assessment("good", "off")


def memory(facts: Facts) -> Assessment:
    """What is left of the machine's, or of what the container may have."""
    total, available = facts.machine.memory_mb, facts.kernel.available_mb
    if available is None:
        return Assessment("unknown", f"{total:,.0f} MiB in total")
    left, seen = available, f"{available:,.0f} MiB left of {total:,.0f}"
    limit, inside = facts.machine.memory_limit_mb, facts.kernel.container_left_mb
    if limit is not None and inside is not None and inside < available:
        left, seen = inside, f"{inside:,.0f} MiB left of the container's {limit:,.0f}"
    advice = "ps aux --sort=-rss | head shows who uses it; or docker run --memory"
    return judged(at_least(left, MUCH_MEMORY_MB, LEAST_MEMORY_MB), seen, advice)


def swap(facts: Facts) -> Assessment:
    """A worker whose memory was swapped out answers late."""
    used, moved = facts.kernel.swap_used_mb, facts.idle.swapped_mb
    if moved >= SWAPPED_MB:
        advice = "ps aux --sort=-rss | head shows which processes hold it; end them"
        return Assessment("bad", f"{moved:,.0f} MiB moved in an idle second", advice)
    if used is None:
        return Assessment("unknown", "not reported here")
    verdict: Verdict = "note" if used >= SWAPPED_MB else "good"
    seen = f"{used:,.0f} MiB in use" if verdict == "note" else "none in use"
    return judged(verdict, seen, "sudo swapoff -a && sudo swapon -a")


def huge_pages(facts: Facts) -> Assessment:
    """`always` has the kernel stop processes now and then to make room for large pages."""
    mode = facts.kernel.huge_pages
    if mode is None:
        return Assessment("unknown", "not reported here")
    advice = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return judged("note" if mode == "always" else "good", mode, advice)


def disk(facts: Facts) -> Assessment:
    """Room for the samples of a study in this folder."""
    seen = f"{facts.free_mb:,.0f} MiB free in this folder"
    advice = "free space, or study elsewhere: dlbench tune --study FOLDER/NAME.db"
    return judged(at_least(facts.free_mb, MUCH_DISK_MB, LEAST_DISK_MB), seen, advice)
