"""The V2 / Open Inference Protocol over HTTP: which path does what."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from dlbench.proxy.errors import BadRequest, MethodNotAllowed, NotFound, RequestError
from dlbench.proxy.http import JSON_TYPE, HttpRequest, error_reply
from dlbench.proxy.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.dispatcher import Dispatcher
    from dlbench.proxy.tensors import Signature, Tensor, TensorSpec

    Handler = Callable[["Api", HttpRequest, Any], None]

LOG = logging.getLogger(__name__)

MODEL_VERSION = "1"
# More bytes than 64 bits can count; int() refuses thousands of digits in its own way.
MOST_DIGITS = 19
PLATFORM = "onnxruntime_onnx"
# Only what is there: clients choose by it.
EXTENSIONS = ["binary_tensor_data"]


class Api:
    """Answers HTTP requests for one model."""

    def __init__(self, name: str, signature: Signature, dispatcher: Dispatcher) -> None:
        self._name = name
        self._dispatcher = dispatcher
        self._wire = Wire(name, signature)
        self._metadata = _metadata(name, signature)
        self._routes = _routes(name)

    def handle(self, request: HttpRequest, respond: Any) -> None:  # noqa: ANN401 - http's callback
        """Route a request; RequestErrors raised here become its answer."""
        path = request.target.partition(b"?")[0]
        found = self._routes.get(path)
        if found is None:
            found = self._routes.get(unquote(path).encode())
        if found is None:
            raise NotFound(self._unknown(path))
        method, handler = found
        if request.method != method and (request.method, method) != (b"HEAD", b"GET"):
            raise MethodNotAllowed(f"{method.decode()} only")
        handler(self, request, respond)

    def infer(self, request: HttpRequest, respond: Any) -> None:  # noqa: ANN401
        """Run the model; answered from a callback."""
        asked = self._wire.read(request.body, _json_size(request))

        def reply(outcome: tuple[Tensor, ...] | RequestError) -> None:
            if isinstance(outcome, RequestError):
                respond(outcome.status, *error_reply(outcome))
                return
            try:
                answer = self._wire.write(asked, outcome)
            except Exception:  # on its way to others too: it must not cost them their answers
                LOG.exception("a reply broke the proxy")
                failed = RequestError("the proxy failed; its log says how")
                respond(failed.status, *error_reply(failed))
                return
            respond(
                200, _headers(answer.json, bool(answer.tensors)), [answer.json, *answer.tensors]
            )

        self._dispatcher.submit(asked, reply)

    def server(self, _: HttpRequest, respond: Any) -> None:  # noqa: ANN401
        """Who we are and which extensions there are."""
        document = {"name": "dlbench", "version": version("dlbench"), "extensions": EXTENSIONS}
        respond(200, JSON_TYPE, [orjson.dumps(document)])

    def model(self, _: HttpRequest, respond: Any) -> None:  # noqa: ANN401
        """The model's metadata."""
        respond(200, JSON_TYPE, [self._metadata])

    def healthy(self, _: HttpRequest, respond: Any) -> None:  # noqa: ANN401
        """Live and ready from the moment that we listen: workers are warm by then."""
        respond(200, JSON_TYPE, [b""])

    def index(self, _: HttpRequest, respond: Any) -> None:  # noqa: ANN401
        """The repository's only model."""
        row = {"name": self._name, "version": MODEL_VERSION, "state": "READY", "reason": ""}
        respond(200, JSON_TYPE, [orjson.dumps([row])])

    def _unknown(self, path: bytes) -> str:
        text = unquote(path)
        if text.startswith("/v2/models/"):
            return f"unknown model in {text}; the model served here is {self._name!r}, version 1"
        return f"nothing at {text}; GET /v2 says what this server is"


def _routes(name: str) -> dict[bytes, tuple[bytes, Handler]]:
    """Path -> method and handler; a model's paths exist with and without its version."""
    table: dict[str, tuple[bytes, Handler]] = {
        "/v2": (b"GET", Api.server),
        "/v2/": (b"GET", Api.server),
        "/v2/health/live": (b"GET", Api.healthy),
        "/v2/health/ready": (b"GET", Api.healthy),
        "/v2/repository/index": (b"POST", Api.index),
    }
    for model in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{MODEL_VERSION}"):
        table[model] = (b"GET", Api.model)
        table[f"{model}/ready"] = (b"GET", Api.healthy)
        table[f"{model}/infer"] = (b"POST", Api.infer)
    return {path.encode(): route for path, route in table.items()}


def _headers(json: bytes, has_tensors: bool) -> bytes:
    if not has_tensors:
        return JSON_TYPE
    size = b"inference-header-content-length: %d\r\n" % len(json)
    return b"content-type: application/octet-stream\r\n" + size


def _json_size(request: HttpRequest) -> int | None:
    text = request.headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > MOST_DIGITS:
        raise BadRequest("Inference-Header-Content-Length has to be a number of bytes")
    return int(text)


def _metadata(name: str, signature: Signature) -> bytes:
    document = {
        "name": name,
        "versions": [MODEL_VERSION],
        "platform": PLATFORM,
        "inputs": [_described(spec) for spec in signature.inputs],
        "outputs": [_described(spec) for spec in signature.outputs],
    }
    return orjson.dumps(document)


def _described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's metadata; the parameter tells a load generator which open size is the batch."""
    return {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": spec.shape,
        "parameters": {"batch_axis": spec.batch_axis},
    }
