"""grpc.health.v1 over a real channel, byte for byte: what a kubelet and a load balancer are told."""

import asyncio

import pytest

from dlbench.proxy.http.access import NoTokens, Tokens
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.settings import ServerSettings

pytest.importorskip("grpc", reason="the extra grpc is not installed")

import grpc

from dlbench.proxy.protocols.grpc import health as grpc_health
from dlbench.proxy.protocols.grpc.server import GrpcFront

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
# HealthCheckResponse: field 1 is the status.
SERVING, NOT_SERVING, UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
PATIENCE_S = 30


def asks(service):
    """A HealthCheckRequest: field 1 is the service's name."""
    name = service.encode()
    return b"\x0a%c%b" % (len(name), name) if name else b""


@pytest.fixture(autouse=True)
def _looked_at_often(monkeypatch):
    monkeypatch.setattr(grpc_health, "LOOK_S", 0.01)


@pytest.fixture
def models(numpy_model, numpy_models):
    """Two of them, `up` and `down`; `ready` says how they are."""
    spec = ("FP32", ("n",), 0)
    both = [numpy_model([("x", *spec)], [("y", *spec)], lambda x: [x], n) for n in ("up", "down")]
    both[0].ready, both[1].ready = True, False
    return numpy_models(*both)


def run(models, story, access=None, **settings):
    """What a story makes of a channel and the front behind it."""

    async def tell():
        front = GrpcFront(
            models, access or NoTokens(), ServerSettings(grpc_port=0, **settings), Memory()
        )
        port = await front.startup()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await asyncio.wait_for(story(channel, front), PATIENCE_S)
        finally:
            await front.shutdown(lambda: False)

    return asyncio.run(tell())


async def checked(channel, service, metadata=()):
    """The reply, or the name of the error's code."""
    try:
        return await channel.unary_unary(CHECK)(asks(service), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name


def test_check_tells_how_the_server_and_each_model_is(models):
    async def story(channel, _):
        names = ("", "up", "down", "other", "inference.GRPCInferenceService")
        seen = [await checked(channel, name) for name in names]
        models.get("down").ready = True
        return [*seen, await checked(channel, ""), await checked(channel, "down")]

    assert run(models, story) == [
        *(NOT_SERVING, SERVING, NOT_SERVING, "NOT_FOUND", NOT_SERVING),
        *(SERVING, SERVING),
    ]


def test_only_the_servers_own_health_is_for_everybody(models):
    bearer = (("authorization", "Bearer secret"),)

    async def story(channel, _):
        strangers = [await checked(channel, name) for name in ("", "up", "other")]
        watch = channel.unary_stream(WATCH)(asks("up"))
        try:
            strangers.append(await watch.read())
        except grpc.aio.AioRpcError as error:
            strangers.append(error.code().name)
        return [*strangers, await checked(channel, "up", bearer)]

    refused = "UNAUTHENTICATED"
    assert run(models, story, Tokens([b"secret"])) == [
        *(NOT_SERVING, refused, refused, refused),
        SERVING,
    ]


def test_watch_tells_every_change_and_nothing_twice(models):
    async def story(channel, _):
        watch = channel.unary_stream(WATCH)(asks("down"))
        seen = [await watch.read()]
        for ready in (True, False, True):
            models.get("down").ready = ready
            seen.append(await watch.read())
        watch.cancel()
        return seen

    assert run(models, story) == [NOT_SERVING, SERVING, NOT_SERVING, SERVING]


def test_watch_waits_for_a_model_that_is_not_there_yet(models):
    async def story(channel, _):
        gone = models._models.pop("up")
        watch = channel.unary_stream(WATCH)(asks("up"))
        seen = [await watch.read()]
        models._models["up"] = gone
        seen.append(await watch.read())
        watch.cancel()
        return seen

    assert run(models, story) == [UNKNOWN, SERVING]


def test_a_drain_says_so_and_does_not_wait_for_who_watches(models):
    models.get("down").ready = True

    async def story(channel, front):
        watch = channel.unary_stream(WATCH)(asks(""))
        seen = [await watch.read()]
        stopping = asyncio.ensure_future(front.shutdown(lambda: True))
        seen += [await watch.read(), await watch.read()]
        await stopping
        return seen

    seen = run(models, story, drain_timeout_s=10 * PATIENCE_S)
    assert seen == [SERVING, NOT_SERVING, grpc.aio.EOF]


def test_there_is_an_end_to_how_many_watch(models, monkeypatch):
    monkeypatch.setattr(grpc_health, "MOST_WATCHES", 2)

    async def story(channel, _):
        calls = [channel.unary_stream(WATCH)(asks("up")) for _ in range(2)]
        seen = [await call.read() for call in calls]
        try:
            await channel.unary_stream(WATCH)(asks("up")).read()
        except grpc.aio.AioRpcError as error:
            seen.append(error.code().name)
        for call in calls:
            call.cancel()
        return seen

    assert run(models, story) == [SERVING, SERVING, "RESOURCE_EXHAUSTED"]
