"""From a request read to a reply sent, whatever the protocol."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import orjson

from dlbench.proxy.errors import RequestError
from dlbench.proxy.reply import JSON_TYPE, error_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.http import Respond
    from dlbench.proxy.reply import Client
    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.served import ServedModel

LOG = logging.getLogger(__name__)


def send_json(respond: Respond, document: object) -> None:
    """Reply 200 with a document, which may hold arrays."""
    respond(200, JSON_TYPE, [orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)])


def send_error(respond: Respond, error: RequestError) -> None:
    """Reply with an error's status and `{"error": text}`."""
    headers, body = error_reply(error)
    respond(error.status, headers, [*body])


def answer(
    model: ServedModel,
    request: InferRequest,
    client: Client,
    respond: Respond,
    write: Callable[[Outputs], tuple[bytes, Sequence[bytes | memoryview]]],
) -> None:
    """Run the model and reply with what `write` makes of its outputs: header lines and body.

    It may raise RequestErrors. When the client goes, work that has not begun is given up.
    """

    def reply(outcome: Outputs | RequestError) -> None:
        if isinstance(outcome, RequestError):
            send_error(respond, outcome)
            return
        try:
            headers, body = write(outcome)
        except RequestError as error:
            send_error(respond, error)
        except Exception:  # on its way to others too: it must not cost them their answers
            LOG.exception("a reply broke the proxy")
            send_error(respond, RequestError("the proxy failed; its log says how"))
        else:
            respond(200, headers, body)

    client.waits(partial(model.abandon, model.submit(request, reply)))


def answer_json(
    model: ServedModel,
    request: InferRequest,
    client: Client,
    respond: Respond,
    write: Callable[[Outputs], object],
) -> None:
    """Like `answer`, with a document."""

    def written(outputs: Outputs) -> tuple[bytes, list[bytes]]:
        return JSON_TYPE, [orjson.dumps(write(outputs), option=orjson.OPT_SERIALIZE_NUMPY)]

    answer(model, request, client, respond, written)
