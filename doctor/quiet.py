"""Judgements on time: who else takes it, how fine it is measured, who is woken when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.doctor.finding import Assessment, at_most, judged, worst
from dlbench.loadgen.quantity import digits
from dlbench.tuner.bench.disturbance import OTHERS_CORES

if TYPE_CHECKING:
    from dlbench.doctor.facts import Facts

# Others may take this share of the cores before it is no longer ours that is measured.
OTHERS_SHARE = 0.25
LITTLE_STOLEN, MUCH_STOLEN = 0.01, 0.05
# Reading one of these leaves the processor: a microsecond, and as much for each request's time.
SLOW_CLOCKS = ("hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies")
FINE_NS, FAIR_NS = 1_000, 100_000
# The kernel's slack is 0.05 ms, and a core that sleeps takes a little to wake.
PROMPT_MS, FAIR_MS = 0.25, 1.0
LATE_MS, LATER_MS = 1.0, 10.0
USUAL_SLACK_US = 50.0


def others(facts: Facts) -> Assessment:
    """Processor time that was not ours, while we did nothing."""
    used, cores = facts.idle.others_cores, facts.machine.logical_cores
    fair = max(OTHERS_CORES, OTHERS_SHARE * cores)
    seen = f"{digits(used)} of {cores} cores, load average {digits(facts.machine.load_average[0])}"
    advice = "ps aux --sort=-%cpu | head shows them; end them, or measure later"
    return judged(at_most(used, OTHERS_CORES, fair), seen, advice)


def stolen(facts: Facts) -> Assessment:
    """Time that a virtual machine wanted and its host gave to another."""
    if facts.kernel.stolen_share is None:
        return Assessment("unknown", "not reported here")
    now = facts.idle.stolen_cores / max(1, facts.machine.logical_cores)
    seen = f"{now:.1%} just now, {facts.kernel.stolen_share:.1%} since boot"
    advice = "use a dedicated host, or measure at another time"
    most = max(now, facts.kernel.stolen_share)
    return judged(at_most(most, LITTLE_STOLEN, MUCH_STOLEN), seen, advice)


def clock(facts: Facts) -> Assessment:
    """What latencies are read from."""
    step_ns, source = facts.timing.clock_step_ns, facts.kernel.clock_source
    verdict = at_most(step_ns, FINE_NS, FAIR_NS)
    if verdict == "good" and source in SLOW_CLOCKS:
        verdict = "note"
    seen = f"{source or 'source unknown'}, in steps of {step_ns:,} ns"
    advice = "dmesg | grep -i tsc shows why it is not tsc; boot with clocksource=tsc"
    return judged(verdict, seen, advice)


def wakeups(facts: Facts) -> Assessment:
    """How late who sleeps is woken: what a schedule of requests cannot beat."""
    timing, slack_us = facts.timing, facts.kernel.timer_slack_us
    usually = at_most(timing.late_p50_ms, PROMPT_MS, FAIR_MS)
    verdict = worst((usually, at_most(timing.late_p99_ms, LATE_MS, LATER_MS)))
    seen = f"late by {digits(timing.late_p50_ms)} ms, p99 {digits(timing.late_p99_ms)} ms"
    seen += f", slack {slack_us:g} us" if slack_us is not None else ""
    if slack_us is not None and slack_us > USUAL_SLACK_US:
        return judged(verdict, seen, "TimerSlackNSec=50us in the unit of the service that runs it")
    return judged(
        verdict, seen, "repeat when nothing else runs; then: sudo cpupower idle-set -D 10"
    )


def real_time(facts: Facts) -> Assessment:
    """Whether a client beside a busy server can be on time."""
    if facts.machine.real_time:
        return Assessment("good", "permitted: a client beside a busy server is on time")
    advice = "sudo prlimit --rtprio=1 --pid $$, or docker run --cap-add SYS_NICE"
    return Assessment("note", "not permitted: a client beside a busy server is late", advice)
