"""What keeps a configuration from taking more: as measured where that tells, else as simulated. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.tuner.twin.bottleneck import BUSY, bottleneck
from dlbench.tuner.twin.twin import capacity_rps, predict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.scenario import Load

# Closer to its capacity a queue is never done growing.
NEARLY_FULL = 0.95


def limit(
    config: ServingConfig, points: Iterable[Point], calibration: Calibration, load: Load
) -> str:
    """What is short at capacity; processor time is read off the probe, the parts' shares off the twin."""
    expected = capacity_rps(config, calibration, load)
    near = load.model_copy(update={"rate_rps": NEARLY_FULL * expected})
    full = predict(config, near, calibration)
    probe = _probe(config, points)
    if probe is None or probe.measurement is None:
        return f"{bottleneck(config, calibration, expected, full)} (simulated)"
    if short := measured_limit(probe, calibration):
        return short
    found = bottleneck(config, calibration, probe.measurement.throughput_rps, full)
    return f"{found} (simulated; measured: {_busy(probe, calibration)})"


def measured_limit(probe: Point, calibration: Calibration) -> str:
    """What a closed loop at capacity showed to be used up, "" if nothing of what is measured was."""
    measured, server, cores = probe.measurement, probe.resources.server_cpu, calibration.cores
    if measured is None:
        return ""
    if measured.client_cpu / measured.client_processes > BUSY:
        return f"the load generator: {measured.client_cpu:.0%} of a core busy"
    beside = measured.client_cpu if calibration.client_s else 0.0
    if server is not None and server + beside > BUSY * cores:
        return f"the cores: {_busy(probe, calibration)}"
    return ""


def _busy(probe: Point, calibration: Calibration) -> str:
    """Both on the cores that they share, or the server on those it has to itself."""
    server, measured = probe.resources.server_cpu, probe.measurement
    client = 0.0 if measured is None else measured.client_cpu
    used = "server unknown" if server is None else f"server {server:.1f}"
    beside = f" and client {client:.1f}" if calibration.client_s else ""
    return f"{used}{beside} of {calibration.cores} cores"


def _probe(config: ServingConfig, points: Iterable[Point]) -> Point | None:
    """The last probe of a configuration that has a measurement."""
    own = [p for p in points if p.config == config and p.share is None and p.measurement]
    return own[-1] if own else None
