"""What is good, worth a note or bad: judgements over tables of facts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.doctor.checkup import CHECKS, examine
from dlbench.doctor.cuda import Cuda, Library
from dlbench.doctor.devices import Provider
from dlbench.doctor.finding import SEVERITY, at_least, at_most, worst
from dlbench.loadgen.engine.sockets import SystemLimits
from dlbench.proxy.telemetry.resources import GpuUsage

# What the report leaves for an advice in 80 columns.
ADVICE_WIDTH = 72
NO_GPU = Cuda(has_gpu=False, driver=None, libraries=())
GIB = 1 << 30


def finding(facts, name):
    return next((one for one in examine(facts) if one.name == name), None)


def providers(**reasons):
    return tuple(
        Provider(device=device, works=device not in reasons, reason=reasons.get(device, ""))
        for device in ("cpu", "cuda", "tensorrt")
    )


def test_a_sound_machine_is_good_in_every_respect(machine):
    findings = examine(machine())
    assert [one for one in findings if one.verdict != "good"] == []
    assert len(findings) == len(CHECKS)
    assert worst(one.verdict for one in findings) == "good"


def test_no_name_stands_for_two_things():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "said"),
    [
        ("onnxruntime", {"machine__versions": {"python": "3"}}, "bad", "pip install"),
        (
            "onnxruntime",
            {"machine__versions": {"python": "3", "onnxruntime": "1", "onnxruntime-gpu": "1"}},
            "bad",
            "overwrites",
        ),
        ("CPU", {"providers": providers(cpu="its process crashed (SIGSEGV)")}, "bad", "SIGSEGV"),
        ("CUDA", {"providers": providers(cuda="libcudnn is missing")}, "bad", "dlbench[cuda]"),
        ("CUDA", {"providers": providers(cuda="x"), "cuda": NO_GPU}, "note", "--gpus all"),
        ("TensorRT", {"providers": providers(tensorrt="x")}, "note", "--device tensorrt"),
        ("driver", {"cuda__driver": "575.57"}, "bad", "CUDA 13.0 needs 580"),
        ("driver", {"cuda__driver": None}, "unknown", "version is unknown"),
        ("GPUs", {"gpus": (GpuUsage(0, 0.9, 0, GIB),)}, "bad", "nvidia-smi"),
        ("GPUs", {"gpus": (GpuUsage(0, None, GIB // 5, GIB),)}, "note", "NVIDIA L4"),
        ("GPUs", {"gpus": (GpuUsage(3, 0.0, GIB, GIB),)}, "bad", "GPU 3"),
        ("GPUs", {"gpus": ()}, "unknown", "nvidia-ml-py"),
        ("cores", {"cores": ((0,), (1,))}, "note", "share them"),
        ("cores", {"machine__usable_cores": 4, "cores": ((0,),) * 4}, "note", "taskset -pc 0-7"),
        ("hyperthreads", {"cores": ((0, 4), (1, 5), (2, 6), (3, 7))}, "note", "2 per core"),
        ("CPU limit", {"machine__cpu_limit": 4.5}, "note", "4.5 cores of 8: 4 workers by default"),
        ("CPU limit", {"machine__cpu_limit": 8}, "note", "--cpuset-cpus"),
        ("governor", {"machine__governor": "powersave"}, "note", "cpupower"),
        ("governor", {"machine__governor": None}, "unknown", "not reported"),
        ("turbo", {"kernel__turbo": True}, "note", "heat"),
        ("turbo", {"kernel__turbo": None}, "unknown", "not reported"),
        ("memory", {"kernel__available_mb": 1000}, "note", "--sort=-rss"),
        (
            "memory",
            {"machine__memory_limit_mb": 4096, "kernel__container_left_mb": 300},
            "bad",
            "300 MiB left of the container's 4,096",
        ),
        ("memory", {"kernel__available_mb": None}, "unknown", "32,000"),
        ("swap", {"kernel__swap_used_mb": 900}, "note", "swapoff"),
        ("swap", {"idle__swapped_mb": 12}, "bad", "12 MiB moved"),
        ("swap", {"kernel__swap_used_mb": None}, "unknown", "not reported"),
        ("huge pages", {"kernel__huge_pages": "always"}, "note", "madvise"),
        ("huge pages", {"kernel__huge_pages": None}, "unknown", "not reported"),
        ("disk", {"free_mb": 100}, "bad", "--study"),
        ("others", {"idle__others_cores": 1.0}, "note", "ps aux"),
        ("others", {"idle__others_cores": 4.0}, "bad", "4 of 8 cores"),
        ("stolen", {"idle__stolen_cores": 0.8}, "bad", "10.0% just now"),
        ("stolen", {"kernel__stolen_share": 0.02}, "note", "2.0% since boot"),
        ("stolen", {"kernel__stolen_share": None}, "unknown", "not reported"),
        ("clock", {"kernel__clock_source": "hpet"}, "note", "clocksource=tsc"),
        ("clock", {"timing__clock_step_ns": 1_000_000}, "bad", "1,000,000 ns"),
        ("wake-ups", {"timing__late_p50_ms": 0.5}, "note", "0.5 ms"),
        ("wake-ups", {"timing__late_p99_ms": 25}, "bad", "p99 25 ms"),
        (
            "wake-ups",
            {"timing__late_p50_ms": 5, "kernel__timer_slack_us": 5000},
            "bad",
            "TimerSlackNSec",
        ),
        ("real time", {"machine__real_time": False}, "note", "SYS_NICE"),
        ("descriptors", {"limits": SystemLimits(1024, 65536, 28232, 2)}, "note", "ulimit -n 8320"),
        ("descriptors", {"limits": SystemLimits(1024, 2048, 28232, 2)}, "note", "nofile=65536"),
        ("descriptors", {"limits": SystemLimits(256, 256, 28232, 2)}, "bad", "nofile=65536"),
        ("ports", {"limits": SystemLimits(65536, 65536, 5000, 2)}, "note", "ip_local_port_range"),
        ("ports", {"limits": SystemLimits(65536, 65536, 500, 2)}, "bad", "500 for clients"),
        ("port reuse", {"limits": SystemLimits(65536, 65536, 28232, 0)}, "note", "tcp_tw_reuse=1"),
        ("backlog", {"kernel__listen_backlog": 128}, "note", "somaxconn=4096"),
        ("backlog", {"kernel__listen_backlog": None}, "unknown", "not reported"),
    ],
)
def test_one_thing_changed_is_one_thing_found(machine, name, changes, verdict, said):
    facts = machine(**changes)
    found = finding(facts, name)
    assert found.verdict == verdict
    assert said in f"{found.seen} | {found.advice}"
    others = {one.name: one.verdict for one in examine(facts) if one.name != name}
    # A provider that fails lets its libraries be suspected; nothing else has to do with another.
    assert {n for n, v in others.items() if v != "good"} <= {"CUDA libraries"}


@pytest.mark.parametrize(
    ("limit", "verdict", "said"),
    [
        (2.5, "note", "2.5 cores of 8: 2 workers by default"),
        (1.5, "note", "1.5 cores of 8: 1 worker by default"),
        (0.5, "bad", "--cpus 1"),
    ],
)
def test_a_small_limit_is_shared_by_server_and_client(machine, limit, verdict, said):
    facts = machine(machine__cpu_limit=limit)
    found = finding(facts, "CPU limit")
    assert (found.verdict, said in f"{found.seen} | {found.advice}") == (verdict, True)
    assert "client and server share them" in finding(facts, "cores").seen


@pytest.mark.parametrize(
    ("found", "works", "verdict"),
    [("9.1", False, "good"), (None, False, "bad"), ("8.9", False, "bad"), (None, True, "good")],
)
def test_cuda_libraries_matter_where_cuda_does_not_work(machine, found, works, verdict):
    library = Library(name="cudnn", needed="9.0", found=found)
    failed = {} if works else {"cuda": "no"}
    facts = machine(providers=providers(**failed), cuda__libraries=(library,))
    libraries = finding(facts, "CUDA libraries")
    assert libraries.verdict == verdict
    assert libraries.seen == f"cudnn {found or 'none'} (needs 9.0)"


def test_without_a_gpu_nothing_is_said_of_what_only_a_gpu_needs(machine):
    facts = machine(cuda=NO_GPU, gpus=(), providers=providers(cuda="none", tensorrt="none"))
    left_out = {"TensorRT", "driver", "CUDA libraries", "GPUs"}
    assert {c.name for c in CHECKS} - {one.name for one in examine(facts)} == left_out


sizes = st.floats(0, 1e6)
maybe = st.one_of(st.none(), sizes)
ANY_CHANGES = st.fixed_dictionaries(
    {
        "machine__governor": st.sampled_from([None, "performance", "ondemand", "a, b"]),
        "machine__cpu_limit": st.one_of(st.none(), st.floats(0.01, 512)),
        "machine__memory_limit_mb": maybe,
        "machine__usable_cores": st.integers(1, 512),
        "machine__logical_cores": st.integers(1, 512),
        "machine__real_time": st.booleans(),
        "cores": st.lists(
            st.lists(st.integers(0, 512), min_size=1, max_size=8).map(tuple), max_size=8
        ).map(tuple),
        "kernel__turbo": st.sampled_from([None, True, False]),
        "kernel__huge_pages": st.sampled_from([None, "always", "never"]),
        "kernel__clock_source": st.sampled_from([None, "tsc", "hpet"]),
        "kernel__timer_slack_us": maybe,
        "kernel__listen_backlog": st.one_of(st.none(), st.integers(0, 1 << 31)),
        "kernel__available_mb": maybe,
        "kernel__container_left_mb": maybe,
        "kernel__swap_used_mb": maybe,
        "kernel__stolen_share": st.one_of(st.none(), st.floats(0, 1)),
        "limits": st.builds(
            SystemLimits,
            *(st.integers(0, 1 << 63), st.integers(0, 1 << 63)),
            *(st.integers(0, 65536), st.integers(0, 4)),
        ),
        "idle__others_cores": sizes,
        "idle__stolen_cores": sizes,
        "idle__swapped_mb": sizes,
        "timing__clock_step_ns": st.integers(0, 10**9),
        "timing__late_p50_ms": sizes,
        "timing__late_p99_ms": sizes,
        "free_mb": sizes,
        "cuda__has_gpu": st.booleans(),
        "cuda__driver": st.sampled_from([None, "470.1", "580.65.06"]),
        "gpus": st.sampled_from([(), (GpuUsage(0, None, 1, 2),), (GpuUsage(1, 1.0, 2, 2),)]),
    }
)


@settings(max_examples=30)
@given(ANY_CHANGES)
def test_whoever_is_told_of_a_problem_is_told_what_to_do_on_one_line(machine, changes):
    for one in examine(machine(**changes)):
        assert bool(one.advice) == (one.verdict in ("note", "bad"))
        assert one.seen
        assert len(one.advice) <= ADVICE_WIDTH, one.advice
        assert "\n" not in one.seen + one.advice


@given(sizes, sizes, sizes, sizes)
def test_more_of_what_there_should_be_much_of_is_never_worse(low, more, fair, above):
    good = fair + above
    verdicts = at_least(low, good, fair), at_least(low + more, good, fair)
    assert SEVERITY.index(verdicts[0]) <= SEVERITY.index(verdicts[1])
    assert at_least(good, good, fair) == "good"
    assert at_most(fair, fair, good) == "good"
    assert at_most(good, fair, good) in ("good", "note")


@given(st.lists(st.sampled_from(SEVERITY)))
def test_the_worst_verdict_counts(verdicts):
    assert worst(verdicts) == next((v for v in SEVERITY if v in verdicts), "good")
