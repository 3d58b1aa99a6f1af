"""What every cache backend keeps to, over real servers that are killed, held and started again."""

import asyncio
import contextlib
import logging

import pytest
import uvloop

from dlbench.proxy.cache import shared_backend
from dlbench.proxy.cache.backend import SERVERS, NoBackend, make_backend
from dlbench.proxy.cache.cache_value import encode
from dlbench.proxy.cache.shared_backend import (
    MAX_BATCH,
    MAX_FETCHES,
    MAX_PENDING_BYTES,
    SharedBackend,
)
from dlbench.proxy.errors import StartError
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tensors import Tensor

# Far beyond every bound of the backend's: reached only by what hangs.
HANGS_S = 30
KINDS = ["redis", "memcached"]
FORTY_DAYS_S = 40 * 24 * 3600

every_server = pytest.mark.parametrize("kind", KINDS)


def key(number):
    return number.to_bytes(16, "little")


def name(number):
    return b"dlbench:" + key(number).hex().encode()


def answer(number, size=1):
    return (Tensor((1, size), bytes([number % 256]) * size), Tensor((), b"end"))


def run(test):
    """Run a coroutine as the proxy does, with an end to it."""
    uvloop.run(asyncio.wait_for(test, 2 * HANGS_S))


class Lines(logging.Handler):
    """The backend's log lines; a test can wait for the next."""

    def __init__(self):
        super().__init__()
        self.texts, self._queue = [], asyncio.Queue()

    def emit(self, record):
        self.texts.append(record.getMessage())
        self._queue.put_nowait(record.getMessage())

    async def next(self):
        return await asyncio.wait_for(self._queue.get(), HANGS_S)


@pytest.fixture
def lines():
    handler, logger = Lines(), logging.getLogger("dlbench.proxy.cache.shared_backend")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _a_busy_machine_is_no_server_that_hangs(monkeypatch):
    monkeypatch.setattr(shared_backend, "FETCH_TIMEOUT_S", 1.0)


@contextlib.asynccontextmanager
async def started(server=None, **settings):
    """A backend that has tried to connect; it is shut down within a bounded time."""
    url = server.url if server else ""
    backend = make_backend(ServerSettings(cache_backend=url, **settings))
    await asyncio.wait_for(backend.startup(), HANGS_S)
    try:
        yield backend
    finally:
        await asyncio.wait_for(backend.shutdown(), HANGS_S)


async def fetch(backend, *numbers):
    """What the look-ups of one loop iteration found; each is answered once."""
    calls = {number: [] for number in numbers}
    done = asyncio.Event()

    def found(number, outputs):
        calls[number].append(outputs)
        if all(calls.values()):
            done.set()

    for number in numbers:
        backend.fetch(key(number), lambda outputs, number=number: found(number, outputs))
    await asyncio.wait_for(done.wait(), HANGS_S)
    assert all(len(answers) == 1 for answers in calls.values())
    return [answers[0] for answers in calls.values()]


async def stored(server, *numbers, ttl_s=0, size=1):
    """Let one proxy store results and leave."""
    async with started(server) as backend:
        for number in numbers:
            backend.store(key(number), answer(number, size), ttl_s)


# No server


def test_no_backend_finds_nothing_at_once():
    async def test():
        async with started() as backend:
            backend.store(key(1), answer(1), 0)
            calls = []
            backend.fetch(key(1), calls.append)
            assert calls == [None]
            assert not backend
            assert isinstance(backend, NoBackend)

    run(test())


@pytest.mark.parametrize("url", ["redis", "http://127.0.0.1:1", "redis://", "memcached:11211"])
def test_a_url_of_no_known_server_is_an_error_that_names_the_option(url):
    with pytest.raises(StartError, match="--cache-backend"):
        make_backend(ServerSettings(cache_backend=url))


def test_every_server_of_the_table_is_made_from_its_url():
    for scheme in SERVERS:
        backend = make_backend(ServerSettings(cache_backend=f"{scheme}://user:secret@127.0.0.1:1"))
        assert isinstance(backend, SharedBackend)
        assert backend


# Real servers


@every_server
def test_proxies_share_results(kind, start_server, lines):
    server = start_server(kind)

    async def test():
        await stored(server, 1, 2)
        async with started(server) as one, started(server) as other:
            assert await fetch(one, 1, 2, 3) == [answer(1), answer(2), None]
            assert await fetch(other, 3, 2) == [None, answer(2)]
            assert not one.away
        assert lines.texts == []

    run(test())


@every_server
def test_a_result_is_found_while_the_one_who_stored_it_serves_on(kind, start_server):
    server = start_server(kind)

    async def test():
        async with started(server) as one, started(server) as other:
            one.store(key(1), answer(1), 0)
            while await fetch(other, 1) != [answer(1)]:
                pass  # each look-up is a round trip: nothing else tells when a write has arrived

    run(test())


@every_server
def test_more_than_one_batch_of_look_ups_and_writes(kind, start_server):
    server, numbers = start_server(kind), range(3 * MAX_BATCH + 7)

    async def test():
        await stored(server, *numbers[::2], size=300)
        async with started(server) as backend:
            found = await fetch(backend, *numbers)
            assert found[::2] == [answer(n, 300) for n in numbers[::2]]
            assert set(found[1::2]) == {None}

    run(test())


@every_server
@pytest.mark.parametrize("ttl_s", [0, 5, 90.5, FORTY_DAYS_S])
def test_the_time_to_live_goes_to_the_server(kind, start_server, ttl_s):
    server = start_server(kind)
    run(stored(server, 1, ttl_s=ttl_s))
    left = server.ttl_s(name(1))
    # A long one goes to memcached as a date in whole seconds, and its own clock lags by one more.
    assert left == -1 if ttl_s == 0 else -2 <= ttl_s - left <= HANGS_S


@every_server
def test_garbage_in_the_server_is_a_miss(kind, start_server, lines):
    server = start_server(kind)
    value = encode(key(1), answer(1))
    flipped = bytes([*value[:-20], value[-20] ^ 1, *value[-19:]])
    spoilt = [b"garbage", b"", value[:4], value[:-1], value + b"x", flipped]
    spoilt += [encode(key(99), answer(1))]  # another request's, or another model's
    for number, one in enumerate(spoilt):
        server.spoil(name(number), one)

    async def test():
        await stored(server, 50)
        async with started(server) as backend:
            found = await fetch(backend, *range(len(spoilt)), 50)
            assert found == [None] * len(spoilt) + [answer(50)]
        assert [text for text in lines.texts if "corrupt or not ours" in text] == lines.texts
        assert len(lines.texts) == 1, "said once"

    run(test())


def test_memcached_is_not_asked_to_keep_what_is_too_large_for_it(start_server, lines):
    server = start_server("memcached")

    async def test():
        async with started(server) as backend:
            backend.store(key(1), answer(1), 0)
            backend.store(key(2), answer(2, size=2**20), 0)
            backend.store(key(3), answer(3, size=2**20 - 2000), 0)
        async with started(server) as backend:
            assert await fetch(backend, 1, 2, 3) == [answer(1), None, answer(3, 2**20 - 2000)]
        assert [text for text in lines.texts if "does not keep every result" in text] == lines.texts
        assert len(lines.texts) == 1

    run(test())


def test_a_full_redis_is_read_on(start_server, lines):
    server = start_server("redis")

    async def test():
        await stored(server, 1)
        server.fill()
        async with started(server) as backend:
            for number in (2, 3):
                backend.store(key(number), answer(number), 0)
                assert "maxmemory" in await lines.next() if number == 2 else True
            assert await fetch(backend, 1, 2) == [answer(1), None]
        assert len(lines.texts) == 1

    run(test())


@every_server
def test_a_killed_server_is_missed_and_comes_back_by_itself(kind, start_server, lines):
    server = start_server(kind)

    async def test():
        await stored(server, 1)
        async with started(server) as backend:
            assert await fetch(backend, 1) == [answer(1)]
            server.kill()
            assert await fetch(backend, 1) == [None]
            assert "is unreachable" in await lines.next()
            calls = []
            backend.fetch(key(1), calls.append)
            assert calls == [None]
            backend.store(key(2), answer(2), 0)
            server.start()
            assert "is back" in await lines.next()
            backend.store(key(3), answer(3), 0)
        async with started(server) as other:
            assert await fetch(other, 1, 2, 3) == [None, None, answer(3)]
        assert len(lines.texts) == 2

    run(test())


@every_server
def test_every_look_up_under_way_is_answered_when_the_server_is_killed(kind, start_server, lines):
    server, numbers = start_server(kind), range(5 * MAX_BATCH)

    async def test():
        await stored(server, *numbers)
        async with started(server) as backend:
            asyncio.get_running_loop().call_soon(server.kill)
            for number, found in zip(numbers, await fetch(backend, *numbers), strict=True):
                assert found in (None, answer(number))
            assert await fetch(backend, 1) == [None]
            await lines.next()
        assert len(lines.texts) == 1

    run(test())


@every_server
def test_a_server_that_hangs_is_missed_and_comes_back(kind, start_server, lines):
    server = start_server(kind)

    async def test():
        await stored(server, 1)
        async with started(server) as backend:
            server.hold()
            assert await fetch(backend, 1, 2) == [None, None]
            assert "is unreachable" in await lines.next()
            server.go_on()
            assert "is back" in await lines.next()
            assert await fetch(backend, 1, 2) == [answer(1), None]
        assert len(lines.texts) == 2

    run(test())


@every_server
def test_a_server_that_comes_late_is_found(kind, start_server, lines):
    server = start_server(kind)
    server.kill()

    async def test():
        async with started(server) as backend:
            assert await fetch(backend, 1) == [None]
            assert "is unreachable" in await lines.next()
            server.start()
            assert "is back" in await lines.next()
            assert await fetch(backend, 1) == [None]
            assert not backend.away
        assert len(lines.texts) == 2

    run(test())


@every_server
@pytest.mark.parametrize("going", ["kill", "hold"])
def test_shutting_down_without_the_server_takes_a_bounded_time(kind, start_server, going):
    server = start_server(kind)

    async def test():
        async with started(server) as backend:
            await fetch(backend, 1)
            getattr(server, going)()
            for number in range(3 * MAX_BATCH):
                backend.store(key(number), answer(number), 0)
        backend.store(key(1), answer(1), 0)
        assert await fetch(backend, 1) == [None]

    run(test())


@every_server
def test_a_window_is_cut_short_by_leaving(kind, start_server):
    server = start_server(kind)

    async def test():
        async with started(server, cache_window_ms=10_000) as backend:
            backend.store(key(1), answer(1), 0, combined=True)
        async with started(server) as other:
            assert await fetch(other, 1) == [answer(1)]

    run(test())


# A server made by hand, for what a real one does not show: how often it is asked.


class ListServer:
    """Keeps values in a dict and lists every round trip; it answers while `open` is set."""

    def __init__(self):
        self.values, self.reads, self.writes = {}, [], []
        self.open = asyncio.Event()
        self.open.set()
        self.wrote = asyncio.Event()

    async def connect(self):
        pass

    async def read(self, names):
        self.reads.append(len(names))
        await self.open.wait()
        return [self.values.get(name) for name in names]

    async def write(self, items):
        self.writes.append(len(items))
        self.values.update({item.name: item.value for item in items})
        self.wrote.set()
        await self.open.wait()
        return ""

    async def close(self):
        pass


class DeafServer(ListServer):
    """Goes on where it is cancelled, as a client may that tidies up; `gone`: reads find nobody."""

    def __init__(self):
        super().__init__()
        self.gone = False
        self.connected = asyncio.Semaphore(0)

    async def connect(self):
        self.connected.release()

    async def read(self, names):
        if self.gone:
            raise ConnectionError
        return await super().read(names)

    async def write(self, items):
        with contextlib.suppress(asyncio.CancelledError):
            return await super().write(items)
        return ""


@contextlib.asynccontextmanager
async def listed(window_s=0.001, server=None):
    server = server or ListServer()
    backend = SharedBackend(server, "list", window_s)
    await backend.startup()
    try:
        yield server, backend
    finally:
        await backend.shutdown()


def test_the_look_ups_of_one_iteration_are_one_round_trip():
    async def test():
        async with listed() as (server, backend):
            await fetch(backend, *range(MAX_BATCH))
            assert server.reads == [MAX_BATCH]
            await fetch(backend, *range(MAX_BATCH + 1))
            assert server.reads == [MAX_BATCH, MAX_BATCH, 1]

    run(test())


def test_combined_writes_go_out_together_when_the_window_is_over():
    async def test():
        async with listed(window_s=1.0) as (server, backend):
            for number in range(5):
                backend.store(key(number), answer(number), 0, combined=True)
                await asyncio.sleep(0)  # other iterations, the same window
            await server.wrote.wait()
            assert server.writes == [5]

    run(test())


def test_a_write_that_is_not_combined_waits_for_no_window():
    async def test():
        async with listed(window_s=10 * HANGS_S) as (server, backend):
            backend.store(key(1), answer(1), 0, combined=True)
            await asyncio.sleep(0)
            assert server.writes == []
            backend.store(key(2), answer(2), 0)
            await asyncio.wait_for(server.wrote.wait(), HANGS_S)
            assert server.writes == [2]

    run(test())


def test_a_client_that_does_not_hear_that_it_is_cancelled_holds_nobody_up():
    async def test():
        async with listed(server=DeafServer()) as (server, backend):
            await server.connected.acquire()
            server.open.clear()
            backend.store(key(1), answer(1), 0)
            await server.wrote.wait()
            server.gone = True
            assert await fetch(backend, 1) == [None]
            server.gone = False
            await asyncio.wait_for(server.connected.acquire(), HANGS_S)
            server.open.set()
            assert await fetch(backend, 1) == [answer(1)]
            server.open.clear()
            backend.store(key(2), answer(2), 0)

    run(test())


def test_look_ups_beyond_the_bound_are_misses_at_once():
    async def test():
        async with listed() as (server, backend):
            server.open.clear()
            calls = []
            for number in range(MAX_FETCHES + 5):
                backend.fetch(key(number), calls.append)
            assert calls == [None] * 5
            server.open.set()
            assert await fetch(backend, 1) == [None]

    run(test())


def test_writes_beyond_the_bound_are_forgotten():
    async def test():
        async with listed() as (server, backend):
            size = MAX_PENDING_BYTES // 4
            for number in range(6):
                backend.store(key(number), answer(number, size), 0)
            await backend.shutdown()
            assert server.writes == [4]

    run(test())


def test_a_callback_that_fails_does_not_keep_the_others_from_their_answers():
    def fails(outputs):
        raise RuntimeError("a callback's own fault")

    async def test():
        errors = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: errors.append(str(context["exception"]))
        )
        async with listed() as (_, backend):
            backend.fetch(key(1), fails)
            assert await fetch(backend, 2) == [None]
            assert not backend.away
        assert errors == ["a callback's own fault"]

    run(test())
