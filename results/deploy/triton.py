"""Triton's config.pbtxt of a deployment.

Field names are those of NVIDIA's model_config.proto, parameters and graph levels those of Triton's
onnxruntime backend.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from dlbench.results.deploy.deployment import MIB, comment, unsaid
from dlbench.results.printable import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.tensors import TensorSpec
    from dlbench.results.deploy.deployment import Deployment

# The backend's own numbers; without one it rewrites all it can.
GRAPH_LEVELS = {"basic": -1, "extended": 1, "disabled": 2}
# A GPU alone is onnxruntime's CUDA provider.
TENSORRT = 'execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] } '
CANNOT = {
    "batching": "Triton's batch limit is fixed",
    "slo_ms": "Triton has no latency target",
    "split_batch_over": "Triton runs a request on one instance",
    "worker_weights": "instances are equal",
    "autoscaler": "the number of instances is fixed",
    "min_workers": "the number of instances is fixed",
    "max_workers": "the number of instances is fixed",
    "allow_spinning": "the backend has no parameter for it",
    "cache_policy": "Triton's local cache is LRU",
    "cache_size": "Triton's cache is bounded in bytes and for the whole server, not in entries",
    "cache_ttl_s": "Triton's cache entries do not expire",
    "cache_scope": "Triton has one cache per server",
    "cache_write": "a second level is a server option of Triton's (--cache-config redis,...)",
    "scheduling_policy": "a Triton model has one queue for all instances",
    "queue_order": "Triton's priority levels are counted and do not age; there is no order by deadline",
    "priority_ageing_ms": "Triton's priorities do not age",
    "worker_timeout_s": "Triton does not replace an instance that hangs",
}


def config_pbtxt(deployment: Deployment) -> str:
    """The whole file; it goes to MODELS/NAME/config.pbtxt, the model to MODELS/NAME/1/model.onnx."""
    head = comment(
        deployment.provenance,
        [
            "These figures are for dlbench's own proxy. Triton's front and scheduler differ:",
            "measure again there, with `dlbench load http://HOST:8000 --rate ...`.",
        ],
        _server_options(deployment),
        unsaid(deployment.config, CANNOT),
        _batch_notes(deployment),
        _size_notes(deployment),
        _gpu_notes(deployment),
        _option_notes(deployment),
    )
    return head + "\n" + "\n".join(_fields(deployment)) + "\n"


def server_options(deployment: Deployment) -> list[str]:
    """The options that tritonserver itself needs; without them its response cache is off."""
    size = int(deployment.config.cache_max_mb * MIB)
    return [f"--cache-config=local,size={size}"] if deployment.caches else []


def _server_options(deployment: Deployment) -> list[str]:
    return [f"tritonserver needs {option}" for option in server_options(deployment)]


def _batch_first(deployment: Deployment) -> bool:
    """Whether every tensor's first dimension is the batch, which is all that Triton batches."""
    return all(spec.batch_axis == 0 for spec in (*deployment.inputs, *deployment.outputs))


def _batch_notes(deployment: Deployment) -> list[str]:
    others = [s for s in (*deployment.inputs, *deployment.outputs) if s.batch_axis != 0]
    if not others:
        return []
    names = ", ".join(_quoted(spec.name) for spec in others)
    return [
        "max_batch_size is 0, and nothing is said of batches and queues: the first dimension of "
        f"{names}",
        "is not the batch, and no other can be one in Triton",
    ]


def _size_notes(deployment: Deployment) -> list[str]:
    config = deployment.config
    large = sorted(set(config.preferred_batch_sizes) - set(_preferred(config)))
    if not large or not _batch_first(deployment):
        return []
    return [f"preferred batch sizes left out, as Triton takes none above max_batch_size: {large}"]


def _gpu_notes(deployment: Deployment) -> list[str]:
    if not deployment.gpus:
        return []
    notes = ["gpus are numbered as on the machine measured on; in a container Triton counts from 0"]
    workers, instances = deployment.config.workers, _instances(deployment) * deployment.gpus
    if workers and instances != workers:
        notes.append(f"count is per GPU: {instances} instances, not the {workers} measured")
    return notes


def _option_notes(deployment: Deployment) -> list[str]:
    """Triton's parameters have names of their own, which are not the provider's."""
    given = deployment.settings.provider_option
    return [
        f"provider_option {key} = {value} has no equivalent here" for key, value in given.items()
    ]


def _instances(deployment: Deployment) -> int:
    """Triton's count is for each GPU, our workers are dealt over all of them."""
    return math.ceil(max(1, deployment.config.workers) / max(1, deployment.gpus))


def _preferred(config: ServingConfig) -> list[int]:
    return [size for size in config.preferred_batch_sizes if size <= config.max_batch_size]


def _fields(deployment: Deployment) -> Iterator[str]:
    config, first = deployment.config, _batch_first(deployment)
    rows = config.max_batch_size if first else 0
    yield f"name: {_quoted(deployment.name)}"
    yield 'platform: "onnxruntime_onnx"'
    yield 'backend: "onnxruntime"'
    yield f"max_batch_size: {rows}"
    for field, specs in (("input", deployment.inputs), ("output", deployment.outputs)):
        yield from (_tensor(field, spec, drop=first) for spec in specs)
    kind = "KIND_GPU" if deployment.gpus else "KIND_CPU"
    gpus = f" gpus: {list(deployment.settings.device_ids)}" if deployment.gpus else ""
    yield f"instance_group [ {{ count: {_instances(deployment)} kind: {kind}{gpus} }} ]"
    if rows:
        yield from _dynamic_batching(config)
    yield f"response_cache {{ enable: {str(deployment.caches).lower()} }}"
    yield from _optimization(deployment)
    yield from _runtime(config)


def _tensor(field: str, spec: TensorSpec, *, drop: bool) -> str:
    """One input or output; Triton wants at least one dimension of what has none."""
    dims = spec.shape[1:] if drop else spec.shape
    shape = f"dims: {dims}" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"{field} [ {{ name: {_quoted(spec.name)} data_type: TYPE_{spec.datatype} {shape} }} ]"


def _quoted(text: str) -> str:
    """As protobuf's text format has it: unlike JSON's, its escapes are never halves of a character."""
    return escaped(json.dumps(text, ensure_ascii=False))


def _dynamic_batching(config: ServingConfig) -> Iterator[str]:
    yield "dynamic_batching {"
    if preferred := _preferred(config):
        yield f"  preferred_batch_size: {preferred}"
    yield f"  max_queue_delay_microseconds: {round(config.max_queue_delay_ms * 1000)}"
    yield "  default_queue_policy {"
    yield f"    max_queue_size: {config.max_queue_size}"
    yield f"    default_timeout_microseconds: {round(config.default_timeout_ms * 1000)}"
    yield "    allow_timeout_override: true"
    yield "    timeout_action: REJECT"
    yield "  }"
    yield "}"


def _optimization(deployment: Deployment) -> Iterator[str]:
    level = GRAPH_LEVELS.get(deployment.config.graph_optimization)
    graph = f"graph {{ level: {level} }} " if level else ""
    accelerators = TENSORRT if deployment.device == "tensorrt" else ""
    if graph or accelerators:
        yield f"optimization {{ {graph}{accelerators}}}"


def _runtime(config: ServingConfig) -> Iterator[str]:
    """What the backend passes on to onnxruntime."""
    given = {
        "intra_op_thread_count": config.intra_op_threads,
        "enable_mem_arena": int(config.memory_arena),
    }
    for key, value in given.items():
        yield f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
