"""What the calls of V2's gRPC service answer; those that are not in the table are unimplemented."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from importlib.metadata import version
from pickle import PickleBuffer
from typing import TYPE_CHECKING

import orjson
from google.protobuf.json_format import ParseDict

from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import NotFound, RequestError
from dlbench.proxy.http.encoding import AT_ONCE
from dlbench.proxy.protocols.grpc.codec import (
    Message,
    parsed,
    pb,
    read,
    read_alone,
    streamed,
    taken_apart,
    write,
)
from dlbench.proxy.protocols.v2 import EXTENSIONS, model_configuration, model_metadata
from dlbench.proxy.protocols.v2_json import LONGEST_ID
from dlbench.proxy.serving.repository import load_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from dlbench.proxy.http.memory import Memory
    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.serving.served import ServedModel
    from dlbench.proxy.tensors import Buffer

    Call = Callable[[Repository, Message], Awaitable[Message]]
    Outcome = Outputs | RequestError

# Requests of one stream that may be under way; its replies leave in their order.
MOST_AHEAD = 64
# When the client of the call that is being handled stops waiting.
DEADLINE_NS: ContextVar[int | None] = ContextVar("DEADLINE_NS", default=None)


async def server_live(_: Repository, __: Message) -> Message:
    """We answer, so we live."""
    return pb.ServerLiveResponse(live=True)


async def server_ready(models: Repository, _: Message) -> Message:
    """Ready while every model has a worker."""
    return pb.ServerReadyResponse(ready=all(model.ready for model in models.models))


async def model_ready(models: Repository, request: Message) -> Message:
    """Whether any worker takes requests; a model that is not here is not ready, as in Triton."""
    try:
        return pb.ModelReadyResponse(ready=models.get(request.name, request.version).ready)
    except NotFound:
        return pb.ModelReadyResponse(ready=False)


async def server_metadata(_: Repository, __: Message) -> Message:
    """The server's name, version and extensions."""
    return pb.ServerMetadataResponse(
        name="dlbench", version=version("dlbench"), extensions=EXTENSIONS
    )


async def metadata(models: Repository, request: Message) -> Message:
    """The model's metadata; what only V2's JSON has is left out."""
    document = model_metadata(models.get(request.name, request.version))
    return ParseDict(document, pb.ModelMetadataResponse(), ignore_unknown_fields=True)


async def configuration(models: Repository, request: Message) -> Message:
    """The model's configuration in Triton's words."""
    document = {"config": model_configuration(models.get(request.name, request.version))}
    return ParseDict(document, pb.ModelConfigResponse())


async def statistics(models: Repository, request: Message) -> Message:
    """What the model has done; without a name, what all have."""
    named = [models.get(request.name, request.version)] if request.name else models.models
    rows = [model.stats.triton(model.name, model.version) for model in named]
    return ParseDict({"model_stats": rows}, pb.ModelStatisticsResponse())


async def index(models: Repository, request: Message) -> Message:
    """The repository's models."""
    return pb.RepositoryIndexResponse(models=models.index(ready=request.ready))


async def load(models: Repository, request: Message) -> Message:
    """Serve a model; its parameter `config` holds knobs."""
    parameters = {name: one.string_param for name, one in request.parameters.items()}
    body = orjson.dumps({"parameters": parameters})
    await models.load(request.model_name, load_parameters(body))
    return pb.RepositoryModelLoadResponse()


async def unload(models: Repository, request: Message) -> Message:
    """Serve a model no more."""
    await models.unload(request.model_name)
    return pb.RepositoryModelUnloadResponse()


async def infer(models: Repository, text: bytes) -> bytes:
    """Run the model; a message and its reply serialised."""
    message, raw = _opened(text)
    if message is None:
        return await _infer_aside(models, text)
    return await _infer(models, message, raw)


async def stream_infer(
    models: Repository, requests: AsyncIterator[bytes], memory: Memory
) -> AsyncGenerator[bytes]:
    """Run the model on each request; a failing one is answered with its error, the stream goes on."""
    room = asyncio.Semaphore(MOST_AHEAD)
    ahead: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()

    async def read_ahead() -> None:
        try:
            async for request in requests:
                await room.acquire()
                ahead.put_nowait(asyncio.ensure_future(_streamed(models, request, memory)))
        finally:
            ahead.put_nowait(None)

    reading = asyncio.ensure_future(read_ahead())
    try:
        while (answer := await ahead.get()) is not None:
            yield await answer
            room.release()
        await reading
    finally:
        reading.cancel()
        while not ahead.empty():
            if (left := ahead.get_nowait()) is not None:
                left.cancel()


async def _streamed(models: Repository, text: bytes, memory: Memory) -> bytes:
    known = pb.ModelInferResponse()
    try:
        with memory.holding(len(text)):
            message, raw = _opened(text)
            if message is None:
                return streamed(await _infer_aside(models, text))
            known.model_name, known.id = message.model_name[:LONGEST_ID], message.id[:LONGEST_ID]
            return streamed(await _infer(models, message, raw))
    except RequestError as error:
        found = pb.ModelStreamInferResponse(error_message=str(error), infer_response=known)
        return bytes(found.SerializeToString())


def _opened(text: bytes) -> tuple[Message | None, Sequence[Buffer]]:
    """The message and its raw inputs; no message if it has much other content."""
    if len(text) <= AT_ONCE:
        message = parsed(pb.ModelInferRequest, text)
        return message, message.raw_input_contents
    rest, raw = taken_apart(text)
    return (parsed(pb.ModelInferRequest, rest), raw) if len(rest) <= AT_ONCE else (None, ())


async def _infer(models: Repository, message: Message, raw: Sequence[Buffer]) -> bytes:
    model = models.get(message.model_name, message.model_version)
    try:
        asked = read(model.signature, message, raw)
    except RequestError as error:
        model.refused(error)
        raise
    return _response(model, asked, await _submitted(model, asked))


async def _infer_aside(models: Repository, text: bytes) -> bytes:
    """Run the model on tensors written out as fields, in a separate process."""
    served = {(model.name, model.version): model for model in models.models}
    signatures = {name: model.signature for name, model in served.items()}
    name, asked = await models.aside.call(read_alone, signatures, PickleBuffer(text))
    return _response(served[name], asked, await _submitted(served[name], asked))


def _submitted(model: ServedModel, request: InferRequest) -> asyncio.Future[Outcome]:
    """The outcome to come. Errors are results too, so that an abandoned call logs none."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def reply(found: Outcome) -> None:
        if not outcome.done():
            outcome.set_result(found)

    def end(done: asyncio.Future[Outcome]) -> None:
        if done.cancelled():  # the client has gone, or its deadline has passed
            model.abandon(job)

    if (deadline_ns := DEADLINE_NS.get()) is not None:
        request.layout = request.layout.within(deadline_ns - now_ns())
    job = model.submit(request, reply)
    outcome.add_done_callback(end)
    return outcome


def _response(model: ServedModel, request: InferRequest, outcome: Outcome) -> bytes:
    if isinstance(outcome, RequestError):
        raise outcome
    return write(model, request, outcome)


CALLS: dict[str, Call] = {
    "ServerLive": server_live,
    "ServerReady": server_ready,
    "ModelReady": model_ready,
    "ServerMetadata": server_metadata,
    "ModelMetadata": metadata,
    "ModelConfig": configuration,
    "ModelStatistics": statistics,
    "RepositoryIndex": index,
    "RepositoryModelLoad": load,
    "RepositoryModelUnload": unload,
}
