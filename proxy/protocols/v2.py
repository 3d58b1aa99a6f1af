"""The V2 / Open Inference Protocol over HTTP: what its paths answer for one model, and for all."""

from __future__ import annotations

from importlib.metadata import version
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.http.connection import JSON_TYPE, HttpRequest
from dlbench.proxy.http.encoding import AT_ONCE
from dlbench.proxy.protocols.handler import answer, read_aside, send_json
from dlbench.proxy.protocols.v2_binary import V2Wire, read_alone

if TYPE_CHECKING:
    from dlbench.proxy.http.connection import Respond
    from dlbench.proxy.http.reply import Body
    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.serving.served import ServedModel
    from dlbench.proxy.tensors import TensorSpec

# More bytes than 64 bits can count; int() refuses thousands of digits in its own way.
MOST_DIGITS = 19
PLATFORM = "onnxruntime_onnx"
# Only what is there: clients choose by it.
EXTENSIONS = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
]
BINARY_TYPE = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"


class Infer:
    """Runs the model; answered from a callback. Its wire knows documents again by their bytes."""

    def __init__(self, model: ServedModel) -> None:
        self._wire = V2Wire(model.name, model.version, model.signature)

    def __call__(self, model: ServedModel, request: HttpRequest, respond: Respond) -> None:
        wire = self._wire
        size = _json_size(request)

        def run(asked: InferRequest) -> None:
            def write(outputs: Outputs) -> tuple[bytes, Body]:
                json, tensors, stream = wire.write(asked, outputs)
                if stream is not None:
                    return JSON_TYPE, stream
                return BINARY_TYPE % len(json) if tensors else JSON_TYPE, [json, *tensors]

            answer(model, asked, request.client, respond, write)

        if (len(request.body) if size is None else size) <= AT_ONCE:
            run(wire.read(request.body, size))
        else:
            body = PickleBuffer(request.body)
            read_aside(model, request.client, respond, run, read_alone, model.signature, body, size)


def metadata(model: ServedModel, _: HttpRequest, respond: Respond) -> None:
    """The model's metadata."""
    send_json(respond, model_metadata(model))


def model_ready(model: ServedModel, _: HttpRequest, respond: Respond) -> None:
    """Whether any worker takes requests."""
    respond(200 if model.ready else 503, JSON_TYPE, [b""])


def configuration(model: ServedModel, _: HttpRequest, respond: Respond) -> None:
    """The model's configuration in Triton's words."""
    send_json(respond, model_configuration(model))


def statistics(model: ServedModel, _: HttpRequest, respond: Respond) -> None:
    """What the model has done."""
    send_json(respond, {"model_stats": [model.stats.triton(model.name, model.version)]})


def server(_: Repository, __: HttpRequest, respond: Respond) -> None:
    """The server's name, version and extensions."""
    send_json(respond, {"name": "dlbench", "version": version("dlbench"), "extensions": EXTENSIONS})


def live(_: Repository, __: HttpRequest, respond: Respond) -> None:
    """We answer, so we live."""
    respond(200, JSON_TYPE, [b""])


def ready(repository: Repository, _: HttpRequest, respond: Respond) -> None:
    """Ready while every model has a worker."""
    respond(200 if all(m.ready for m in repository.models) else 503, JSON_TYPE, [b""])


def all_statistics(repository: Repository, _: HttpRequest, respond: Respond) -> None:
    """What all models have done."""
    rows = [m.stats.triton(m.name, m.version) for m in repository.models]
    send_json(respond, {"model_stats": rows})


def index(repository: Repository, request: HttpRequest, respond: Respond) -> None:
    """The repository's models."""
    only_ready = request.body.replace(b" ", b"") == b'{"ready":true}'
    send_json(respond, repository.index(ready=only_ready))


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """V2 metadata: names, datatypes and shapes, with -1 where a size is open."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [_described(spec) for spec in model.signature.inputs],
        "outputs": [_described(spec) for spec in model.signature.outputs],
    }


def model_configuration(model: ServedModel) -> dict[str, Any]:
    """Triton's ModelConfig.

    `max_batch_size` says that the first dimension of every tensor is the batch, which clients then
    drop; a model whose batch lies elsewhere says 0, though it is batched all the same.
    """
    specs = (*model.signature.inputs, *model.signature.outputs)
    first = model.signature.batchable and all(spec.batch_axis == 0 for spec in specs)
    config = model.config
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": config.max_batch_size if first else 0,
        "input": [_configured(spec, drop=first) for spec in model.signature.inputs],
        "output": [_configured(spec, drop=first) for spec in model.signature.outputs],
        "instance_group": [
            {
                "name": model.name,
                "kind": "KIND_CPU" if model.info.device == "cpu" else "KIND_GPU",
                "count": config.workers,
            }
        ],
        "dynamic_batching": {
            "preferred_batch_size": list(config.preferred_batch_sizes),
            "max_queue_delay_microseconds": int(config.max_queue_delay_ms * 1000),
        },
        "response_cache": {"enable": model.caches},
        "parameters": {
            name: {"string_value": str(value)} for name, value in config.model_dump().items()
        },
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's metadata; the parameter tells a load generator which open size is the batch."""
    return {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": spec.shape,
        "parameters": {"batch_axis": spec.batch_axis},
    }


def _configured(spec: TensorSpec, *, drop: bool) -> dict[str, Any]:
    dims = spec.shape[1:] if drop else spec.shape
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": dims}


def _json_size(request: HttpRequest) -> int | None:
    text = request.headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > MOST_DIGITS:
        raise BadRequest("Inference-Header-Content-Length must be a number of bytes")
    return int(text)


ROUTES = {
    f"/v2/models/{{name}}{path}": route
    for version_path in ("", "/versions/{version}")
    for path, route in (
        (version_path, (b"GET", metadata)),
        (f"{version_path}/ready", (b"GET", model_ready)),
        (f"{version_path}/config", (b"GET", configuration)),
        (f"{version_path}/stats", (b"GET", statistics)),
        (f"{version_path}/infer", (b"POST", Infer)),
    )
}
SERVER_ROUTES = {
    "/v2": (b"GET", server),
    "/v2/": (b"GET", server),
    "/v2/health/live": (b"GET", live),
    "/v2/health/ready": (b"GET", ready),
    "/v2/models/stats": (b"GET", all_statistics),
    "/v2/repository/index": (b"POST", index),
}
