"""What else happened on the machine: the notes, and the readings behind them."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from dlbench.tuner.bench.disturbance import Snapshot, disturbances, is_calm, now
from testbed.trees import plant

QUIET = Snapshot(at_s=100.0, busy_s=5000.0, ours_s=300.0)
LATER = replace(QUIET, at_s=104.0, busy_s=5006.0, ours_s=306.0)
# Says so when it has used this much processor time, and then waits for the end of its input.
BURN = """
import sys, time
while time.process_time() < 0.6:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def test_our_own_work_is_no_disturbance():
    assert disturbances(QUIET, LATER) == ()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"busy_s": 5010.0}, "other processes used 1 of 1 cores (100%) meanwhile"),
        ({"stolen_s": 2.0}, "the host took away 0.5 of 1 cores (50%) meanwhile"),
        ({"swapped_mb": 12.0}, "12 MiB were swapped meanwhile"),
        (
            {"throttled_s": 1.0},
            "the container's CPU quota throttled its processes for 25% of the time",
        ),
        ({"heat_throttles": 3}, "cores were throttled for heat 3 times meanwhile"),
    ],
)
def test_each_disturbance_is_one_line(change, note):
    assert disturbances(QUIET, replace(LATER, **change)) == (note,)


@pytest.mark.parametrize(
    ("change", "calm"),
    [({}, True), ({"busy_s": 5009.0, "ours_s": 309.0}, False), ({"swapped_mb": 9.0}, False)],
)
def test_calm_is_a_machine_with_cores_to_spare_and_nobody_else(change, calm):
    before, after = replace(QUIET, cores=4), replace(LATER, cores=4)
    assert is_calm(before, replace(after, **change)) is calm


def test_several_are_all_named():
    after = replace(LATER, busy_s=5020.0, swapped_mb=5.0)
    assert len(disturbances(QUIET, after)) == 2


def test_what_an_idle_system_does_is_none():
    assert disturbances(QUIET, replace(LATER, busy_s=5006.5, swapped_mb=0.1)) == ()


def test_throttling_is_read_from_the_groups_and_heat_from_the_cores(tmp_path):
    files = {
        "proc/self/cgroup": "0::/mine\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 9\nnr_throttled 4\nthrottled_usec 1500000\n",
        "sys/fs/cgroup/mine/cpu.stat": "nr_throttled 2\nthrottled_usec 500000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
    }
    found = now(plant(tmp_path, files))
    assert found.throttled_s == 1.5
    assert found.heat_throttles == 7


def test_the_first_version_of_control_groups_counts_nanoseconds(tmp_path):
    files = {
        "proc/self/cgroup": "1:cpu:/\n",
        "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 7\nthrottled_time 250000000\n",
    }
    assert now(plant(tmp_path, files)).throttled_s == 0.25


def test_a_child_s_work_is_ours():
    before = now()
    with subprocess.Popen([sys.executable, "-c", BURN], **PIPES) as child:
        assert child.stdout.readline() == b"done\n"
        after = now()
        child.stdin.close()
    assert after.ours_s - before.ours_s >= 0.5


def test_the_work_of_a_process_that_is_not_ours_is_seen():
    """Started by a shell that has ended, it is nobody's here."""
    before = now()
    command = ["sh", "-c", 'exec 3<&0; "$0" -c "$1" <&3 & echo $!', sys.executable, BURN]
    with subprocess.Popen(command, **PIPES) as shell:
        pid = int(shell.stdout.readline())
        try:
            assert shell.stdout.readline() == b"done\n"
            shell.wait()
            after = now()
        finally:
            os.kill(pid, signal.SIGTERM)
            shell.stdin.close()
    others_s = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    assert others_s >= 0.5


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.mark.parametrize(("cores", "notes"), [(2, 1), (8, 1), (64, 0)])
def test_one_core_of_many_is_not_missed(cores, notes):
    before, after = (replace(one, cores=cores) for one in (QUIET, LATER))
    assert len(disturbances(before, replace(after, busy_s=5010.0))) == notes
