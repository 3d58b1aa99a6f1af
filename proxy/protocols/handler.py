"""From a request read to a reply sent, whatever the protocol."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from dlbench.proxy.dispatch.admission import STOPPING
from dlbench.proxy.errors import Overloaded, RequestError
from dlbench.proxy.http.encoding import AT_ONCE
from dlbench.proxy.http.reply import JSON_TYPE, error_reply
from dlbench.proxy.protocols.json_reply import body, dumps, weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.http.connection import Respond
    from dlbench.proxy.http.reply import Body, Client
    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.serving.served import ServedModel
    from dlbench.proxy.tensors import Buffer, Signature

    # A request, and what makes a document of its outputs; from process to process, so no closure.
    Asked = tuple[InferRequest, Callable[[Signature, Outputs], object]]

LOG = logging.getLogger(__name__)


def send_json(respond: Respond, document: object) -> None:
    """Reply 200 with a document, which may hold arrays."""
    respond(200, JSON_TYPE, [dumps(document)])


def send_error(respond: Respond, error: RequestError) -> None:
    """Reply with an error's status and `{"error": text}`."""
    respond(error.status, *error_reply(error))


def answer(
    model: ServedModel,
    request: InferRequest,
    client: Client,
    respond: Respond,
    write: Callable[[Outputs], tuple[bytes, Body]],
) -> None:
    """Run the model and reply with what `write` makes of its outputs: header lines and body.

    It may raise RequestErrors. When the client goes, work that has not begun is given up.
    """

    def reply(outcome: Outputs | RequestError) -> None:
        if isinstance(outcome, RequestError):
            send_error(respond, outcome)
            return
        try:
            headers, written = write(outcome)
        except RequestError as error:
            send_error(respond, error)
        except Exception:  # on its way to others too: it must not cost them their answers
            LOG.exception("unexpected error while sending a reply")
            send_error(respond, RequestError("internal error; see the proxy log"))
        else:
            respond(200, headers, written)

    client.waits(partial(model.abandon, model.submit(request, reply)))


def answer_json(
    model: ServedModel,
    request: InferRequest,
    client: Client,
    respond: Respond,
    write: Callable[[Outputs], object],
) -> None:
    """Like `answer`, with a document."""

    def written(outputs: Outputs) -> tuple[bytes, Body]:
        return JSON_TYPE, body(partial(write, outputs), weight(outputs))

    answer(model, request, client, respond, written)


def infer_json(
    model: ServedModel,
    text: Buffer,
    client: Client,
    respond: Respond,
    read: Callable[[Signature, Buffer], Asked],
) -> None:
    """Run the model on what `read` makes of a JSON text, and reply with a document.

    It may raise RequestErrors.
    """

    def run(asked: Asked) -> None:
        request, write = asked
        answer_json(model, request, client, respond, partial(write, model.signature))

    if len(text) <= AT_ONCE:
        run(read(model.signature, text))
    else:
        read_aside(model, client, respond, run, read, model.signature, PickleBuffer(text))


def read_aside(
    subject: ServedModel | Repository,
    client: Client,
    respond: Respond,
    run: Callable[[Any], None],
    read: Callable[..., Any],
    *arguments: object,
) -> None:
    """Read a large text in the process beside this one, then `run` what it was read to.

    What waits for that process is not read if its client goes meanwhile.
    """

    def done(reading: asyncio.Future[Any]) -> None:
        try:
            run(reading.result())
        except RequestError as error:
            subject.refused(error)
            send_error(respond, error)
        except asyncio.CancelledError:
            send_error(respond, Overloaded(STOPPING))
        except Exception:  # nobody else waits for this: the client would wait for ever
            LOG.exception("unexpected error while handling a large request")
            send_error(respond, RequestError("internal error; see the proxy log"))

    reading = subject.aside.call(read, *arguments)
    reading.add_done_callback(done)
    client.waits(reading.cancel)
