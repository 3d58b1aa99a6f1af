"""config.pbtxt, as Triton's own messages read it."""

from dataclasses import replace

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.tensors import TensorSpec
from dlbench.results.deploy.triton import CANNOT, config_pbtxt, server_options

text_format = pytest.importorskip("google.protobuf.text_format")


def parsed(deployment):
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(config_pbtxt(deployment), model_config_pb2.ModelConfig())


def test_triton_reads_every_one(any_deployment):
    found = parsed(any_deployment)
    config = any_deployment.config
    assert found.name == any_deployment.name
    assert found.backend == "onnxruntime"
    assert found.max_batch_size == config.max_batch_size
    assert [(t.name, list(t.dims)) for t in found.input] == [("x", [3])]
    assert [(t.name, list(t.dims)) for t in found.output] == [("y", [3])]
    assert found.response_cache.enable is (config.cache_size > 0)
    assert found.instance_group[0].count == config.workers // max(1, any_deployment.gpus)


def test_every_knob_is_in_its_field(deploy):
    given = ServingConfig(
        max_batch_size=16,
        max_queue_delay_ms=1.5,
        preferred_batch_sizes=(4, 8),
        workers=3,
        intra_op_threads=2,
        memory_arena=False,
        graph_optimization="basic",
        default_timeout_ms=200,
        max_queue_size=100,
        cache_size=10,
        cache_max_mb=64,
    )
    deployment = deploy(given)
    found = parsed(deployment)
    batching = found.dynamic_batching
    assert batching.max_queue_delay_microseconds == 1500
    assert list(batching.preferred_batch_size) == [4, 8]
    assert batching.default_queue_policy.max_queue_size == 100
    assert batching.default_queue_policy.default_timeout_microseconds == 200_000
    assert found.instance_group[0].kind == found.instance_group[0].KIND_CPU
    assert found.optimization.graph.level == -1
    passed = {key: value.string_value for key, value in found.parameters.items()}
    assert passed == {"intra_op_thread_count": "2", "enable_mem_arena": "0"}
    assert server_options(deployment) == ["--cache-config=local,size=67108864"]


def test_every_knob_is_said_or_said_to_be_missing(deploy):
    """A new knob has to be thought of here."""
    said = {
        *("max_batch_size", "max_queue_delay_ms", "preferred_batch_sizes", "workers"),
        *("intra_op_threads", "graph_optimization", "memory_arena", "cache_max_mb"),
        *("default_timeout_ms", "max_queue_size"),
    }
    assert said | set(CANNOT) == set(ServingConfig.model_fields)
    assert not said & set(CANNOT)
    text = config_pbtxt(deploy(ServingConfig(scheduling_policy="random")))
    assert "scheduling_policy random: a Triton model has one queue" in text


def test_gpus_are_named(deploy):
    (group,) = parsed(deploy(device="cuda", settings={"device_ids": (0, 1)})).instance_group
    assert (group.kind, list(group.gpus)) == (group.KIND_GPU, [0, 1])


@pytest.mark.parametrize(
    ("workers", "gpus", "count", "said"),
    [
        (2, (0, 1), 1, ""),
        (4, (0, 1), 2, ""),
        (3, (0, 1), 2, "4 instances, not the 3 measured"),
        (1, (0, 1), 1, "2 instances, not the 1 measured"),
    ],
)
def test_instances_are_counted_for_each_gpu(deploy, workers, gpus, count, said):
    settings = {"device": "cuda", "device_ids": gpus}
    deployment = deploy(ServingConfig(workers=workers), device="cuda", settings=settings)
    assert parsed(deployment).instance_group[0].count == count
    text = config_pbtxt(deployment)
    assert said in text
    assert ("instances, not" in text) is bool(said)
    assert "gpus are numbered as on the machine measured on" in text


def test_preferred_sizes_that_triton_would_refuse_are_left_out(deploy):
    deployment = deploy(ServingConfig(max_batch_size=8, preferred_batch_sizes=(4, 8, 16)))
    assert list(parsed(deployment).dynamic_batching.preferred_batch_size) == [4, 8]
    assert "left out, as Triton takes none above max_batch_size: [16]" in config_pbtxt(deployment)
    none = parsed(deploy(ServingConfig(max_batch_size=2, preferred_batch_sizes=(4,))))
    assert list(none.dynamic_batching.preferred_batch_size) == []


def test_tensorrt_is_an_accelerator_beside_the_graph_level(deploy):
    settings = {"device": "tensorrt", "provider_option": {"trt_fp16_enable": "1"}}
    deployment = deploy(
        ServingConfig(graph_optimization="basic"), device="tensorrt", settings=settings
    )
    found = parsed(deployment).optimization
    assert found.graph.level == -1
    accelerators = found.execution_accelerators.gpu_execution_accelerator
    assert [accelerator.name for accelerator in accelerators] == ["tensorrt"]
    assert "provider_option trt_fp16_enable = 1 has no equivalent here" in config_pbtxt(deployment)
    assert not parsed(deploy(device="cuda")).HasField("optimization")


def test_a_batch_that_is_not_the_first_dimension_is_none_to_triton(deploy):
    x = deploy().inputs[0]
    state = TensorSpec("state", "FP32", (2, "batch", 128), 1)
    deployment = deploy(inputs=(x, state))
    found = parsed(deployment)
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert [list(t.dims) for t in found.input] == [[-1, 3], [2, -1, 128]]
    assert '"state"' in config_pbtxt(deployment).split("name:")[0]


def test_one_number_a_row_is_reshaped(deploy):
    y = replace(deploy().outputs[0], dims=("batch",))
    (output,) = parsed(deploy(outputs=(y,))).output
    assert list(output.dims) == [1]
    assert output.HasField("reshape")
    assert list(output.reshape.shape) == []
