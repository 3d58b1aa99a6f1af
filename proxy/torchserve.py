"""TorchServe's inference API, as clients of served models use it.

https://pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from dlbench.proxy.answer import answer_json, infer_json, send_json
from dlbench.proxy.errors import BadRequest
from dlbench.proxy.instances import read_instances, write_instances

if TYPE_CHECKING:
    from dlbench.proxy.answer import Asked
    from dlbench.proxy.http import HttpRequest, Respond
    from dlbench.proxy.repository import Repository
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.served import ServedModel
    from dlbench.proxy.tensors import Buffer, Signature

BINARY_TYPE = b"application/octet-stream"


def predictions(model: ServedModel, request: HttpRequest, respond: Respond) -> None:
    """Run the model on rows of JSON, or on the bytes of its only input; the reply lists rows.

    `{"instances": rows}` is TorchServe's KServe V1 envelope: `{"predictions": rows}` replies.
    """
    signature = model.signature
    if _type(request) == BINARY_TYPE:
        raw = model.wire.read(request.body, 0)
        count = raw.rows
        answer_json(model, raw, respond, lambda outputs: write_instances(signature, outputs, count))
        return
    infer_json(model, request.body, respond, read)


def read(signature: Signature, body: Buffer) -> Asked:
    """The request, and how it is answered.

    Raises:
        BadRequest: with a text that says what is wrong.
    """
    instances, enveloped = _instances(body)
    write = partial(_enveloped if enveloped else _listed, len(instances))
    return read_instances(signature, instances), write


def _listed(count: int, signature: Signature, outputs: Outputs) -> object:
    return write_instances(signature, outputs, count)


def _enveloped(count: int, signature: Signature, outputs: Outputs) -> object:
    return {"predictions": write_instances(signature, outputs, count)}


def ping(_: Repository, __: HttpRequest, respond: Respond) -> None:
    """Healthy from the moment that we listen: workers are warm by then."""
    send_json(respond, {"status": "Healthy"})


def listing(models: Repository, _: HttpRequest, respond: Respond) -> None:
    """The served models; the URL is where TorchServe has the model's file."""
    served = [{"modelName": m.name, "modelUrl": m.name} for m in models.models]
    send_json(respond, {"models": served})


def _type(request: HttpRequest) -> bytes:
    return request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _instances(body: Buffer) -> tuple[list[Any], bool]:
    """The rows, and whether they came in the KServe V1 envelope."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request's JSON is broken: {error}") from None
    enveloped = isinstance(document, dict) and "instances" in document
    if isinstance(document, dict):
        document = document.get("instances", document.get("data"))
    if not isinstance(document, list):
        raise BadRequest('the body has to be a list of rows, {"data": rows} or {"instances": rows}')
    return document, enveloped


ROUTES = {
    "/predictions/{name}": (b"POST", predictions),
    "/predictions/{name}/{version}": (b"POST", predictions),
}
SERVER_ROUTES = {"/ping": (b"GET", ping), "/models": (b"GET", listing)}
