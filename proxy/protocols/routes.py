"""Which path does what: a table of all paths, rebuilt when models come or go."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dlbench.proxy.errors import MethodNotAllowed, NotFound, RequestError
from dlbench.proxy.http.connection import JSON_TYPE, HttpRequest
from dlbench.proxy.protocols import async_results, plain, tfserving, torchserve, v2
from dlbench.proxy.protocols.async_results import RespondAsync
from dlbench.proxy.protocols.handler import send_error
from dlbench.proxy.serving.repository import load_parameters
from dlbench.proxy.serving.served import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dlbench.proxy.http.connection import Respond
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.telemetry.metrics import Exposition

    # Called with what it handles requests for, a model or all of them, then request and respond.
    Handler = Callable[..., None]
    Methods = dict[bytes, tuple[Handler, Any]]

LOG = logging.getLogger(__name__)

MODEL_ROUTES = [
    route
    for table in (v2.ROUTES, tfserving.ROUTES, torchserve.ROUTES, torchserve.UPLOADS)
    for route in table.items()
]
SERVER_ROUTES = {**v2.SERVER_ROUTES, **torchserve.SERVER_ROUTES, **plain.SERVER_ROUTES}
CHANGE = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")


class Api:
    """Routes requests to the models of a repository."""

    def __init__(
        self,
        repository: Repository,
        respond_async: RespondAsync,
        exposition: Exposition,
    ) -> None:
        self._repository = repository
        self._respond_async, self._exposition = respond_async, exposition
        self._tasks: set[asyncio.Task[None]] = set()
        self._table: dict[str, Methods] = {}
        self.refresh()
        repository.on_change = self.refresh

    def refresh(self) -> None:
        """List the paths of the models that are served now."""
        table: dict[str, Methods] = {"/metrics": {b"GET": (_metrics, self._exposition)}}
        for path, (method, run_all) in SERVER_ROUTES.items():
            table.setdefault(path, {})[method] = (run_all, self._repository)
        for model in self._repository.models:
            for pattern, (method, run) in MODEL_ROUTES:
                path = pattern.format(name=model.name, version=model.version)
                # What keeps something for its model is a class.
                handler = run(model) if isinstance(run, type) else run
                table.setdefault(path, {})[method] = (handler, model)
        self._table = table

    def handle(self, request: HttpRequest, respond: Respond) -> None:
        """Route a request; RequestErrors raised here become its answer.

        A head that was routed before is known again; a table made anew forgets.
        """
        head = request.head
        memo = head.memo
        if memo is None or memo[0] is not self._table:
            memo = head.memo = (self._table, *self._found(request))
        _, handler, subject = memo
        try:
            handler(subject, request, respond)
        except RequestError as error:
            if isinstance(subject, ServedModel):
                subject.refused(error)
            raise

    def _found(self, request: HttpRequest) -> tuple[Handler, Any]:
        path = unquote(request.target.partition(b"?")[0])
        methods = self._table.get(path) or self._others(path)
        if not methods:
            raise NotFound(self._unknown(path))
        method = b"GET" if request.method == b"HEAD" else request.method
        if method not in methods:
            raise MethodNotAllowed(methods)
        handler, subject = methods[method]
        if b"prefer" in request.headers and method in (b"POST", b"PUT"):
            handler = self._respond_async.wrap(handler)
        return handler, subject

    def _others(self, path: str) -> Methods:
        """Paths that cannot be listed: models that are not served yet, results under way."""
        if path.startswith(async_results.PATH):
            polls = self._respond_async
            return {b"GET": (RespondAsync.poll, polls), b"DELETE": (RespondAsync.forget, polls)}
        if change := CHANGE.fullmatch(path):
            name, what = change.groups()
            return {b"POST": (partial(self._change, name), what)}
        return {}

    def _change(self, name: str, what: str, request: HttpRequest, respond: Respond) -> None:
        """Load or unload a model, and answer when that is done."""
        if what == "load":
            work = self._repository.load(name, load_parameters(request.body))
        else:
            work = self._repository.unload(name)
        task = asyncio.ensure_future(_answered(work, respond))
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    def _unknown(self, path: str) -> str:
        if path.startswith("/v2/models/"):
            return self._repository.unknown(path.removeprefix("/v2/models/"))
        return f"nothing at {path}; GET /v2 describes this server"


def _metrics(exposition: Exposition, request: HttpRequest, respond: Respond) -> None:
    kind, text = exposition.render(request.headers.get(b"accept", b""))
    respond(200, b"content-type: %b\r\n" % kind, [text])


async def _answered(work: Coroutine[Any, Any, None], respond: Respond) -> None:
    try:
        await work
    except RequestError as error:
        send_error(respond, error)
    except Exception:  # nobody else waits for a task: the client would wait for ever
        LOG.exception("unexpected error while changing models")
        send_error(respond, RequestError("internal error; see the proxy log"))
    else:
        respond(200, JSON_TYPE, [b""])
