"""The process beside: what comes back, what is refused, and what becomes of it when it dies."""

import asyncio
import os
import signal
import weakref
from pathlib import Path
from pickle import PickleBuffer

import numpy as np
import pytest

from dlbench.proxy.errors import BadRequest, TooLarge
from dlbench.proxy.http.json_process import MOST_LISTS, Aside
from dlbench.proxy.protocols.v2_binary import read_alone
from dlbench.proxy.protocols.v2_json import load
from dlbench.proxy.tensors import Signature, TensorSpec

X = TensorSpec("x", "FP32", ("n", "t"), 0)
ONE = Signature((X,), (X,), batchable=True)
PLENTY = 1 << 30


def talk(*calls, most_bytes=PLENTY):
    """The outcomes of calls one after the other in one process, which has ended afterwards."""

    async def main():
        aside, found = Aside(most_bytes), []
        try:
            for call in calls:
                try:
                    found.append(await aside.call(*call))
                except Exception as error:
                    found.append(error)
        finally:
            await aside.shutdown()
        return found

    return asyncio.run(main())


def request(values):
    text = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,%d],"data":[%b]}]}'
    return PickleBuffer(text % (values.count(b",") + 1, values))


def test_a_request_comes_back_as_tensors_and_an_error_as_itself():
    good, bad, again = talk(
        (read_alone, ONE, request(b"1,2.5"), None),
        (read_alone, ONE, request(b'1,"a"'), None),
        (read_alone, ONE, request(b"3"), None),
    )
    assert good.layout.shapes == ((1, 2),)
    assert np.frombuffer(good.data[0], np.float32).tolist() == [1, 2.5]
    assert isinstance(bad, BadRequest)
    assert "its data contains a string" in str(bad)
    assert np.frombuffer(again.data[0], np.float32).tolist() == [3]


def test_it_is_one_process_that_is_replaced_when_it_dies_and_ends_with_us():
    suicide = (signal.raise_signal, signal.SIGKILL)
    first, second, died, third = talk((os.getpid,), (os.getpid,), suicide, (os.getpid,))
    assert first == second != third
    assert os.getpid() not in (first, third)
    assert isinstance(died, TooLarge)
    assert not [one for one in (first, third) if Path(f"/proc/{one}").exists()]


def test_its_memory_is_bounded():
    refused, alive = talk((bytearray, 2 * PLENTY), (os.getpid,))
    assert isinstance(refused, TooLarge)
    assert isinstance(alive, int)


@pytest.mark.parametrize("pair", [b"[]", b"{}"])
def test_lists_and_objects_are_counted_before_they_are_made(pair):
    text = PickleBuffer(b"[%b]" % b",".join([pair] * MOST_LISTS))
    (refused,) = talk((load, text))
    assert isinstance(refused, TooLarge)
    assert "send tensors as binary" in str(refused)


def test_what_waits_is_cancelled_at_the_end():
    async def main():
        aside = Aside(PLENTY)
        await aside.call(os.getpid)
        running, waiting = aside.call(signal.pause), aside.call(os.getpid)
        await asyncio.sleep(0)
        await aside.shutdown()
        return await asyncio.gather(running, waiting, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert all(isinstance(one, TooLarge | asyncio.CancelledError) for one in outcomes)


class Body:
    """Something that can be watched going."""


def test_what_is_cancelled_before_its_turn_is_not_kept(tmp_path):
    """Its client has gone: the bytes go with it, not when the queue has come to them."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main():
        aside = Aside(PLENTY)
        try:
            first = aside.call(Path.read_bytes, fifo)
            body = Body()
            second, seen = aside.call(len, body), weakref.ref(body)
            del body
            second.cancel()
            await asyncio.wait((second,))
            await asyncio.sleep(0)
            assert seen() is None
            await asyncio.to_thread(fifo.write_bytes, b"x")
            assert await first == b"x"
            assert await aside.call(len, b"abc") == 3
        finally:
            await aside.shutdown()

    asyncio.run(main())
