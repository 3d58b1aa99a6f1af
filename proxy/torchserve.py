"""TorchServe's inference API, as clients of served models use it.

https://pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dlbench.proxy.answer import answer_json, send_json
from dlbench.proxy.errors import BadRequest
from dlbench.proxy.instances import read_instances, write_instances
from dlbench.proxy.json_text import holds_booleans, parse
from dlbench.proxy.multipart import MULTIPART_TYPE, parts

if TYPE_CHECKING:
    from dlbench.proxy.http import HttpRequest, Respond
    from dlbench.proxy.multipart import Part
    from dlbench.proxy.reply import Client
    from dlbench.proxy.repository import Repository
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.served import ServedModel
    from dlbench.proxy.tensors import Buffer

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
    is_text = TEXTS.fullmatch(kind)
    document = parse(body) if is_text else _guessed(body)
    if document is None and not is_text:
        _answer_raw(model, body, request.client, respond)
    else:
        _answer_rows(model, document, holds_booleans(body), request.client, respond)


def _guessed(body: Buffer) -> Any:  # noqa: ANN401 - any JSON
    """The list or object that it is in JSON; None: it is something else."""
    if not LIST_OR_OBJECT.match(body):
        return None
    try:
        return parse(body)
    except BadRequest:
        return None


def _answer_raw(model: ServedModel, body: Buffer, client: Client, respond: Respond) -> None:
    signature = model.signature
    try:
        raw = model.wire.read(body, 0)
    except BadRequest as error:
        raise BadRequest(f"{error}; send JSON rows, or the bytes of the tensor itself") from None
    count = raw.rows
    answer_json(
        model, raw, client, respond, lambda outputs: write_instances(signature, outputs, count)
    )


def _answer_rows(
    model: ServedModel,
    document: Any,  # noqa: ANN401 - from JSON
    booleans: bool,
    client: Client,
    respond: Respond,
) -> None:
    signature = model.signature
    instances, enveloped = _instances(document)

    def write(outputs: Outputs) -> object:
        rows = write_instances(signature, outputs, len(instances))
        return {"predictions": rows} if enveloped else rows

    asked = read_instances(signature, instances, booleans=booleans)
    answer_json(model, asked, client, respond, write)


def ping(_: Repository, __: HttpRequest, respond: Respond) -> None:
    """Healthy from the moment that we listen: workers are warm by then."""
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
        raise BadRequest(f"the form has to have one part, named data or body; it has {names}")
    return form[0]


def _instances(document: Any) -> tuple[list[Any], bool]:  # noqa: ANN401 - from JSON
    """The rows, and whether they came in the KServe V1 envelope."""
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
# As `curl -T FILE` does it.
UPLOADS = dict.fromkeys(ROUTES, (b"PUT", predictions))
SERVER_ROUTES = {"/ping": (b"GET", ping), "/models": (b"GET", listing)}
