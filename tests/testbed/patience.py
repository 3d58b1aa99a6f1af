"""Waiting for what another process or thread brings about, however busy the machine is."""

import time

PATIENCE_S = 60


def eventually(found, wanted=bool):
    """Poll until what is found is `wanted`; returns it."""
    end_s = time.monotonic() + PATIENCE_S
    while not wanted(value := found()):
        assert time.monotonic() < end_s, value
        time.sleep(0.002)  # spinning would take the core from the process that this waits for
    return value
