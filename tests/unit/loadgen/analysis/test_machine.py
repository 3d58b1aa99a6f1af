import os
import stat

import numpy as np
import psutil
import pytest

from dlbench.loadgen.analysis import machine
from dlbench.loadgen.analysis.container import ContainerLimits, limits, memory_left_mb
from dlbench.loadgen.analysis.machine import MachineFacts, facts, governor, gpus, processor
from testbed.trees import plant

CPUINFO = """\
processor\t: 0
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Gold 6230

processor\t: 1
cpu family\t: 6
model\t\t: 85
model name\t: the second one
"""


def cgroups(tmp_path, groups, **files):
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    return plant(tmp_path, {"proc/self/cgroup": groups, **files})


def test_the_processor_is_named_with_its_family(tmp_path):
    root = plant(tmp_path, {"proc/cpuinfo": CPUINFO})
    assert processor(root) == "Intel(R) Xeon(R) Gold 6230 (family 6 model 85)"


def test_a_system_without_proc_names_its_processor_too(tmp_path):
    assert processor(tmp_path)


def test_governors_of_all_cores(tmp_path):
    assert governor(tmp_path) is None
    cores = "sys/devices/system/cpu"
    names = {0: "performance\n", 1: "powersave\n", 10: "performance\n"}
    root = plant(
        tmp_path, {f"{cores}/cpu{n}/cpufreq/scaling_governor": g for n, g in names.items()}
    )
    assert governor(root) == "performance, powersave"


def test_no_control_groups_are_no_limits(tmp_path):
    assert limits(tmp_path) == ContainerLimits(None, None)


def test_a_container_with_v2_limits(tmp_path):
    files = {"cpu.max": "150000 100000\n", "memory.max": "536870912\n"}
    assert limits(cgroups(tmp_path, "0::/\n", **files)) == ContainerLimits(1.5, 512)


def test_v2_without_limits(tmp_path):
    files = {"cpu.max": "max 100000\n", "memory.max": "max\n"}
    assert limits(cgroups(tmp_path, "0::/\n", **files)) == ContainerLimits(None, None)


def test_the_tightest_limit_on_the_way_up_counts(tmp_path):
    files = {
        "system.slice/cpu.max": "100000 100000",
        "system.slice/load.service/cpu.max": "400000 100000",
        "system.slice/load.service/memory.max": "max",
        "other.slice/memory.max": "1048576",
    }
    root = cgroups(tmp_path, "0::/system.slice/load.service\n", **files)
    assert limits(root) == ContainerLimits(1.0, None)


def test_v1_has_a_tree_per_controller(tmp_path):
    files = {
        "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/docker/abc/memory.limit_in_bytes": "268435456",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    root = cgroups(tmp_path, "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n", **files)
    assert limits(root) == ContainerLimits(0.5, 256)


def test_of_a_container_s_memory_what_is_held_is_not_left(tmp_path):
    """Pages of files that nobody used of late are, and the group with the least left counts."""
    files = {
        "outer/memory.max": f"{900 << 20}",
        "outer/memory.current": f"{700 << 20}",
        "outer/memory.stat": f"anon 5\ninactive_file {50 << 20}",
        "outer/inner/memory.max": f"{512 << 20}",
        "outer/inner/memory.current": f"{12 << 20}",
    }
    assert memory_left_mb(cgroups(tmp_path, "0::/outer/inner\n", **files)) == 250


def test_v1_memory_that_is_left(tmp_path):
    files = {
        "memory/memory.limit_in_bytes": f"{256 << 20}",
        "memory/memory.usage_in_bytes": f"{300 << 20}",
        "memory/memory.stat": f"total_inactive_file {20 << 20}",
    }
    root = cgroups(tmp_path, "4:memory:/docker/abc\n", **files)
    assert memory_left_mb(root) == 0
    plant(tmp_path, {"sys/fs/cgroup/memory/memory.usage_in_bytes": f"{200 << 20}"})
    assert memory_left_mb(root) == 76


def test_memory_without_a_limit(tmp_path):
    assert memory_left_mb(tmp_path) is None
    assert memory_left_mb(cgroups(tmp_path, "0::/\n", **{"memory.max": "max"})) is None


def test_inside_a_container_the_path_may_be_the_one_outside(tmp_path):
    files = {"memory/memory.limit_in_bytes": "268435456"}
    assert limits(cgroups(tmp_path, "4:memory:/docker/abc\n", **files)).memory_mb == 256


def test_a_container_may_allow_less_than_its_cores():
    known = facts()
    assert known.model_copy(update={"usable_cores": 8, "cpu_limit": 1.5}).cores == 1.5
    assert known.model_copy(update={"usable_cores": 2, "cpu_limit": 6.0}).cores == 2
    assert known.model_copy(update={"usable_cores": 2, "cpu_limit": None}).cores == 2


def nvidia_smi(folder, monkeypatch, script):
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_gpus_are_named_by_their_driver(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA H200'; echo 'NVIDIA L4'")
    assert gpus() == ("NVIDIA H200", "NVIDIA L4")


@pytest.mark.parametrize("script", ["echo no driver; exit 9", "exec sleep 60"])
def test_a_driver_that_does_not_answer_names_no_gpus(tmp_path, monkeypatch, script):
    monkeypatch.setattr(machine, "NVIDIA_SMI_S", 0.2)
    nvidia_smi(tmp_path, monkeypatch, script)
    assert gpus() == ()


def test_no_driver_no_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ()


def test_the_real_machine():
    known = facts()
    assert known.cpu
    assert 1 <= known.usable_cores <= known.logical_cores
    assert 0 < known.cores <= known.usable_cores
    assert known.memory_mb * 2**20 == psutil.virtual_memory().total
    assert known.versions["numpy"] == np.__version__
    assert {"python", "dlbench", "locust", "gevent"} <= set(known.versions)
    assert MachineFacts.model_validate_json(known.model_dump_json()) == known


def test_asking_for_real_time_leaves_the_process_as_it_was():
    before = os.sched_getscheduler(0)
    facts()
    assert os.sched_getscheduler(0) == before
