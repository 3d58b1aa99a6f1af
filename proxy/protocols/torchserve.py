"""TorchServe's inference API, as clients of served models use it.

https://pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.handler import answer_json, infer_json, send_json
from dlbench.proxy.protocols.instances import read_instances, write_instances
from dlbench.proxy.protocols.json_text import parse
from dlbench.proxy.protocols.multipart import MULTIPART_TYPE, parts
from dlbench.proxy.protocols.v2_binary import read_alone

if TYPE_CHECKING:
    from dlbench.proxy.http.connection import HttpRequest, Respond
    from dlbench.proxy.http.reply import Client
    from dlbench.proxy.protocols.handler import Asked
    from dlbench.proxy.protocols.multipart import Part
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.serving.served import ServedModel
    from dlbench.proxy.tensors import Buffer, Signature

BINARY_TYPE = b"application/octet-stream"
# What is JSON, or nothing. The second is what `curl -d` says of anything.
TEXTS = re.compile(rb"application/(.*\+)?json|application/x-www-form-urlencoded|text/.*")
LIST_OR_OBJECT = re.compile(rb"\s*[\[{]")
# The parts of a form that TorchServe's handlers look for.
FIELDS = ("data", "body")


def predictions(model: ServedModel, request: HttpRequest, respond: Respond) -> None:
    """Run the model on rows of JSON, or on the bytes of its only input; the reply lists rows.

    `{"instances": rows}` is TorchServe's KServe V1 envelope: `{"predictions": rows}` replies.
    A form may hold either as `data` or `body`. What is not said to be JSON or bytes (`curl -T` says
    nothing, and `curl -F` that any file is bytes) is JSON if it can be read as that.
    """
    kind = _type(request.headers.get(b"content-type", b""))
    if kind == BINARY_TYPE:
        _answer_raw(model, request.body, request.client, respond)
        return
    body: Buffer = request.body
    if kind == MULTIPART_TYPE:
        part = _field(parts(request.headers[b"content-type"], request.body))
        kind, body = _type(part.content_type), part.content
    if TEXTS.fullmatch(kind):
        infer_json(model, body, request.client, respond, read)
    elif LIST_OR_OBJECT.match(body):
        infer_json(model, body, request.client, respond, read_guessed)
    else:
        _answer_raw(model, body, request.client, respond)


def _answer_raw(model: ServedModel, body: Buffer, client: Client, respond: Respond) -> None:
    raw, write = read_raw(model.signature, body)
    answer_json(model, raw, client, respond, partial(write, model.signature))


def read(signature: Signature, body: Buffer) -> Asked:
    """Rows in JSON, and how they are answered.

    Raises:
        BadRequest: with a text that says what is wrong.
    """
    return _rows(signature, parse(body))


def read_guessed(signature: Signature, body: Buffer) -> Asked:
    """Rows if it is JSON, else the bytes of the only input.

    Raises:
        BadRequest: with a text that says what is wrong.
    """
    try:
        document = parse(body)
    except BadRequest:
        return read_raw(signature, body)
    return _rows(signature, document)


def read_raw(signature: Signature, body: Buffer) -> Asked:
    """The bytes of the only input, and how they are answered.

    Raises:
        BadRequest: with a text that says what is wrong.
    """
    try:
        raw = read_alone(signature, body, 0)
    except BadRequest as error:
        raise BadRequest(f"{error}; send JSON rows, or the bytes of the tensor itself") from None
    return raw, partial(_listed, raw.rows)


def _rows(signature: Signature, document: Any) -> Asked:  # noqa: ANN401 - from JSON
    instances, enveloped = _instances(document)
    write = partial(_enveloped if enveloped else _listed, len(instances))
    return read_instances(signature, instances), write


def _listed(count: int, signature: Signature, outputs: Outputs) -> object:
    return write_instances(signature, outputs, count)


def _enveloped(count: int, signature: Signature, outputs: Outputs) -> object:
    return {"predictions": write_instances(signature, outputs, count)}


def ping(_: Repository, __: HttpRequest, respond: Respond) -> None:
    """Always healthy: workers are warm before the proxy listens."""
    send_json(respond, {"status": "Healthy"})


def listing(models: Repository, _: HttpRequest, respond: Respond) -> None:
    """The served models; the URL is where TorchServe has the model's file."""
    served = [{"modelName": m.name, "modelUrl": m.name} for m in models.models]
    send_json(respond, {"models": served})


def _type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def _field(form: list[Part]) -> Part:
    if len(form) != 1 or form[0].name not in FIELDS:
        names = ", ".join(repr(part.name) for part in form) or "none"
        raise BadRequest(f"the form must have one part, named data or body; it has {names}")
    return form[0]


def _instances(document: Any) -> tuple[list[Any], bool]:  # noqa: ANN401 - from JSON
    """The rows, and whether they came in the KServe V1 envelope."""
    enveloped = isinstance(document, dict) and "instances" in document
    if isinstance(document, dict):
        document = document.get("instances", document.get("data"))
    if not isinstance(document, list):
        raise BadRequest('the body must be a list of rows, {"data": rows} or {"instances": rows}')
    return document, enveloped


ROUTES = {
    "/predictions/{name}": (b"POST", predictions),
    "/predictions/{name}/{version}": (b"POST", predictions),
}
# As `curl -T FILE` does it.
UPLOADS = dict.fromkeys(ROUTES, (b"PUT", predictions))
SERVER_ROUTES = {"/ping": (b"GET", ping), "/models": (b"GET", listing)}
