"""Readers against small trees that look like / and pure parts of what is measured."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.doctor import cuda, kernel
from dlbench.doctor.devices import try_device
from dlbench.doctor.facts import Facts
from dlbench.doctor.idle import between
from dlbench.doctor.kernel import Kernel
from dlbench.doctor.timing import clock_step_ns
from dlbench.tuner.bench.disturbance import Snapshot
from testbed.trees import plant

CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
HUGE_PAGES = "sys/kernel/mm/transparent_hugepage/enabled"
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 06:54:38 UTC 2025"
OPEN_NVRM = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (dvs)"
)


def test_a_system_that_says_nothing(tmp_path):
    unsaid = dict.fromkeys(Kernel.model_fields)
    assert kernel.kernel(tmp_path).model_dump() == unsaid


def test_a_system_that_says_everything(tmp_path):
    root = plant(
        tmp_path,
        {
            "sys/devices/system/cpu/cpufreq/boost": "1\n",
            HUGE_PAGES: "always [madvise] never\n",
            CLOCK: "tsc\n",
            "proc/self/timerslack_ns": "50000\n",
            "proc/sys/net/core/somaxconn": "4096\n",
            "proc/meminfo": "MemTotal: 4096 kB\nMemAvailable: 2048 kB\nHugePages_Total: 0\n"
            "SwapTotal: 3072 kB\nSwapFree: 1024 kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{8 << 20}",
            "sys/fs/cgroup/memory.current": f"{5 << 20}",
            "proc/stat": "cpu  50 0 20 20 0 0 0 10 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
        },
    )
    assert kernel.kernel(root) == Kernel(
        turbo=True,
        huge_pages="madvise",
        clock_source="tsc",
        timer_slack_us=50,
        listen_backlog=4096,
        available_mb=2,
        container_left_mb=3,
        swap_used_mb=2,
        stolen_share=0.1,
    )


@pytest.mark.parametrize(
    ("file", "text", "on"),
    [
        ("intel_pstate/no_turbo", "0", True),
        ("intel_pstate/no_turbo", "1", False),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
    ],
)
def test_turbo_is_said_in_two_ways(file, text, on, tmp_path):
    assert kernel.turbo(plant(tmp_path, {f"sys/devices/system/cpu/{file}": text})) is on


@pytest.mark.parametrize("line", ["", "cpu 1 2 3 4", "cpu 0 0 0 0 0 0 0 0"])
def test_a_kernel_that_counts_no_stolen_time(line, tmp_path):
    assert kernel.stolen_share(plant(tmp_path, {"proc/stat": line})) is None


@pytest.mark.parametrize(("text", "version"), [(NVRM, "580.65.06"), (OPEN_NVRM, "575.57.08")])
def test_both_of_nvidias_modules_say_their_version(text, version, tmp_path):
    root = plant(tmp_path, {"proc/driver/nvidia/version": text})
    assert cuda.driver(root) == version


def test_libraries_are_found_in_wheels_and_where_the_loader_looks(monkeypatch, tmp_path):
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path}/opt")
    root = plant(
        tmp_path, {"etc/ld.so.cache": "x\0libcudart.so.13\0/usr/lib\0", "opt/libcufft.so.12": ""}
    )
    required = [
        "numpy>=1.21.6",
        'nvidia-cuda-runtime~=13.0; extra == "cuda"',
        'nvidia-cufft~=12.0; extra == "cuda"',
        'nvidia-cudnn-cu13~=9.0; extra == "cudnn"',
        'nvidia-curand-cu12 ~= 10.0; extra == "cuda"',
    ]
    found = {one.name: (one.needed, one.found) for one in cuda.libraries(required, root)}
    assert found == {
        "cuda-runtime": ("13.0", "13"),
        "cufft": ("12.0", "12"),
        "cudnn": ("9.0", None),
        "curand": ("10.0", None),
    }


def test_what_the_installed_onnxruntime_needs_is_known(tmp_path):
    """Its metadata is read as it is: a new way of writing it would show here."""
    if not cuda._requirements():
        pytest.skip("the onnxruntime installed here is built without CUDA")
    known = {one.name for one in cuda.cuda(tmp_path).libraries}
    assert {"cuda-runtime", "cudnn"} <= known


def test_a_gpu_is_there_if_its_device_is(tmp_path):
    root = plant(tmp_path, {"dev/nvidiactl": ""})
    assert cuda.cuda(root).has_gpu
    assert not cuda.cuda(root / "dev").has_gpu


def test_others_are_busy_with_what_was_not_our_work():
    before = Snapshot(at_s=10, busy_s=100, ours_s=20)
    after = Snapshot(at_s=12, busy_s=103, ours_s=21, stolen_s=1, swapped_mb=5)
    idle = between(before, after)
    assert (idle.length_s, idle.others_cores, idle.stolen_cores, idle.swapped_mb) == (2, 1, 0.5, 5)


sums = st.floats(0, 1e6)


@given(*[st.builds(Snapshot, sums, sums, sums, stolen_s=sums, swapped_mb=sums)] * 2)
def test_nobody_is_ever_less_than_idle(before, after):
    assert min(between(before, after).model_dump().values()) >= 0


def test_the_clocks_step_is_the_smallest_that_it_makes():
    assert clock_step_ns([5, 5, 9, 10, 30]) == 1
    assert clock_step_ns([5, 5, 5]) == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "its process crashed (SIGABRT)"),
        ("raise SystemExit(3)", "its process ended with 3"),
        ("raise OSError('no libcudnn')", "OSError: no libcudnn"),
        ("print('loading ...'); import os, signal; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("print('not json')", "ended with 0"),
        ("import time; time.sleep(60)", "did not answer within 0.5 s"),
    ],
)
def test_a_provider_takes_nobody_but_its_own_process_along(code, reason):
    timeout_s = 0.5 if "sleep" in code else 30
    tried = try_device("cuda", (sys.executable, "-S", "-c", code), timeout_s)
    assert not tried.works
    assert reason in tried.reason


def test_facts_survive_being_written_as_json(machine):
    written = json.loads(machine().model_dump_json())
    assert written["limits"]["ports"] == 28232
    assert written["gpus"][0]["total_bytes"] == 24 << 30
    assert set(written) == set(Facts.model_fields)
