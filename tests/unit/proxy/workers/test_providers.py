"""What onnxruntime is asked for; what it gives is tested where sessions are made."""

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers.providers import (
    CPU,
    CUDA,
    PROVIDERS,
    REASONS,
    TENSORRT,
    TRIED,
    blamed_option,
    executor_of,
    got,
    missing,
)

ALL = [TENSORRT, CUDA, CPU]


def executor(index=0, config=None, **settings):
    return executor_of(ServerSettings(model="m", **settings), config or ServingConfig(), index)


def test_workers_are_spread_over_the_devices_in_turn():
    found = [executor(index, device_ids=(2, 0, 5)).device_id for index in range(7)]
    assert found == [2, 0, 5, 2, 0, 5, 2]


def test_an_executor_has_what_was_configured():
    config = ServingConfig(
        intra_op_threads=3, graph_optimization="basic", memory_arena=False, allow_spinning=True
    )
    found = executor(config=config, device="cuda", io_binding=False, provider_option={"a": "b"})
    assert (found.device, found.io_binding, found.provider_option) == ("cuda", False, {"a": "b"})
    assert (found.intra_op_threads, found.graph_optimization) == (3, "basic")
    assert (found.memory_arena, found.allow_spinning) == (False, True)


def test_the_cpu_is_asked_for_alone():
    assert executor().providers("cpu") == [(CPU, {})]


def test_what_cuda_cannot_run_falls_to_the_cpu():
    options = {"gpu_mem_limit": "1000"}
    found = executor(1, device_ids=(0, 3), provider_option=options).providers("cuda")
    assert found == [(CUDA, {"device_id": "3", **options}), (CPU, {})]


def test_tensorrt_comes_before_cuda_and_gets_the_options_alone():
    options = {"trt_fp16_enable": "1"}
    found = executor(device_ids=(4,), provider_option=options).providers("tensorrt")
    assert found == [
        (TENSORRT, {"device_id": "4", **options}),
        (CUDA, {"device_id": "4"}),
        (CPU, {}),
    ]


def test_every_device_of_the_settings_is_in_every_table():
    devices = ServerSettings.model_fields["device"].annotation.__args__
    assert set(devices) == set(TRIED) == set(REASONS)
    assert set(devices) - {"auto"} == set(PROVIDERS)
    assert all(PROVIDERS[device][-1] == CPU for device in PROVIDERS)


@pytest.mark.parametrize(
    ("device", "built_in", "has_gpu", "why"),
    [
        ("cpu", [CPU], False, ""),
        ("cuda", ALL, True, ""),
        ("cuda", ALL, False, "no NVIDIA device"),
        ("cuda", [CPU], True, "this onnxruntime is built without cuda"),
        ("tensorrt", [CUDA, CPU], True, "this onnxruntime is built without tensorrt"),
        ("tensorrt", ALL, False, "no NVIDIA device"),
    ],
)
def test_what_is_missing_for_a_device(device, built_in, has_gpu, why):
    assert missing(device, built_in, has_gpu) == why


def test_only_what_the_session_says_counts():
    assert got("cuda", [CUDA, CPU])
    assert not got("cuda", [CPU])
    assert not got("tensorrt", [CUDA, CPU])
    assert got("cpu", [CPU])


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ('Unknown provider option: "nonsense".', "nonsense"),
        ("Invalid TensorRT EP option: nonsense", "nonsense"),
        ("CUDA failure 101: invalid device ordinal", ""),
        ("nonsensical is another word", ""),
    ],
)
def test_an_error_about_an_option_names_it(text, option):
    assert blamed_option(text, {"gpu_mem_limit": "1", "nonsense": "2"}) == option
