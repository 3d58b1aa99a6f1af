"""The two timers."""

import asyncio
import os
import sys

import pytest

from dlbench.proxy import main
from dlbench.proxy.clock import now_ns
from dlbench.proxy.dispatch.timer import LoopTimer, TimerFd, make_timer

MS = 1_000_000
TIMERS = [
    LoopTimer,
    pytest.param(
        TimerFd, marks=pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
    ),
]


def run(story):
    with asyncio.Runner(loop_factory=main._loop_factory()) as runner:
        runner.run(asyncio.wait_for(story(), 20))


@pytest.mark.parametrize("kind", TIMERS)
def test_it_calls_back_once_at_the_earliest_moment_asked_for(kind):
    async def story():
        calls, rang = [], asyncio.Event()

        def ring():
            calls.append(now_ns())
            rang.set()

        timer = kind(asyncio.get_running_loop(), ring)
        start = now_ns()
        timer.at(start + 3600 * 1000 * MS)
        timer.at(start + 5 * MS)
        timer.at(start + 7200 * 1000 * MS)
        await rang.wait()
        timer.close()
        assert len(calls) == 1
        assert calls[0] >= start + 4 * MS  # the loop's clock ticks in milliseconds

    run(story)


@pytest.mark.parametrize("kind", TIMERS)
def test_it_can_be_set_again_and_a_moment_that_has_passed_is_now(kind):
    async def story():
        rang = asyncio.Event()
        timer = kind(asyncio.get_running_loop(), rang.set)
        for _ in range(3):
            timer.at(now_ns() - MS)
            await rang.wait()
            rang.clear()
        timer.close()

    run(story)


@pytest.mark.parametrize("kind", TIMERS)
def test_set_earlier_while_it_is_about_to_call_breaks_nothing(kind):
    async def story():
        rang, broken = asyncio.Event(), []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: broken.append(context))
        timer = kind(loop, rang.set)
        timer.at(now_ns() + MS)
        while now_ns() < timer._when_ns:  # it expires, but the loop has not heard of it
            pass
        loop.call_soon(timer.at, 1)
        loop.call_soon(timer._expired)
        await rang.wait()
        timer.close()
        assert not broken

    run(story)


@pytest.mark.parametrize("kind", TIMERS)
def test_a_closed_timer_does_not_call(kind):
    async def story():
        loop = asyncio.get_running_loop()
        called, passed = [], asyncio.Event()
        timer = kind(loop, lambda: called.append(1))
        timer.at(now_ns() + MS)
        timer.close()
        other = kind(loop, passed.set)
        other.at(now_ns() + 3 * MS)
        await passed.wait()
        other.close()
        assert not called

    run(story)


@pytest.mark.parametrize(("platform", "kind"), [("linux", "TimerFd"), ("darwin", "LoopTimer")])
def test_the_finest_timer_that_the_system_has(monkeypatch, platform, kind):
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("timerfd is Linux's")
    monkeypatch.setattr(sys, "platform", platform)

    async def story():
        timer = make_timer(asyncio.get_running_loop(), lambda: None)
        assert type(timer).__name__ == kind
        timer.close()

    run(story)


def test_without_uvloop_the_standard_loop_serves(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = main._loop_factory()()
    assert type(loop).__module__.startswith("asyncio")
    loop.close()


@pytest.mark.parametrize("kind", TIMERS)
def test_a_second_close_does_not_touch_what_has_taken_the_number(kind):
    async def story():
        timer = kind(asyncio.get_running_loop(), list)
        timer.close()
        reader, writer = os.pipe()  # the lowest numbers that are free
        timer.close()
        os.write(writer, b"x")
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        os.close(writer)

    run(story)
