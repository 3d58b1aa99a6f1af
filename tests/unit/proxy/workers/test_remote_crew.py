"""How a supervisor counts workers elsewhere: there or not, never scaled, never fatal."""

import asyncio
import logging

from dlbench.proxy.errors import StartError
from dlbench.proxy.serving import supervisor as supervisor
from dlbench.proxy.serving.supervisor import Supervisor

NODE = 9


class FakeLink:
    pid = None
    alive = True
    broken = False
    death = "away"

    async def shutdown(self):
        pass


class FakeDispatcher:
    """Remembers who is live; a worker that leaves is idle at once."""

    def __init__(self):
        self.core = self
        self.live = []

    def join(self, slot):
        self.live.append(slot)

    def leave(self, slot):
        self.live.remove(slot)
        slot.idle.set()


class Scene:
    """A supervisor with one local worker and one node, which may be away."""

    def __init__(self, monkeypatch, away):
        monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0)
        self.away, self.refused, self.fatal = away, 0, []
        self.ours_may_start = asyncio.Event()
        self.ours_may_start.set()
        self.dispatcher = FakeDispatcher()
        self.supervisor = Supervisor(self.dispatcher, self.start, [], self.fatal.append, [NODE])
        self.supervisor.adopt([FakeLink()])

    async def start(self, number):
        await asyncio.sleep(0)
        if number == NODE and self.away:
            self.refused += 1
            raise StartError("connection refused")
        if number != NODE:
            await self.ours_may_start.wait()
        return FakeLink()

    async def until(self, true):
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0)

    def live(self):
        return sorted(slot.number for slot in self.dispatcher.live)

    def lose(self, number):
        (slot,) = [slot for slot in self.dispatcher.live if slot.number == number]
        slot.link.alive = False
        self.dispatcher.live.remove(slot)
        self.dispatcher.on_lost(slot)


def test_scaling_counts_the_remote_ones_that_are_there_and_moves_only_our_own(monkeypatch):
    async def scenario():
        scene = Scene(monkeypatch, away=False)
        await scene.until(lambda: scene.live() == [0, NODE])
        assert scene.supervisor.size == 2
        scene.supervisor.scale(4)
        await scene.until(lambda: scene.live() == [0, 1, 2, NODE])
        assert scene.supervisor.size == 4
        scene.away = True
        scene.lose(NODE)
        assert scene.supervisor.size == 3
        scene.supervisor.scale(4)
        await scene.until(lambda: scene.live() == [0, 1, 2, 3])
        scene.away = False
        await scene.until(lambda: NODE in scene.live())
        assert scene.supervisor.size == 5
        scene.supervisor.scale(1)
        await scene.until(lambda: scene.live() == [0, NODE])
        await scene.supervisor.shutdown()

    asyncio.run(scenario())


def test_a_node_that_stays_away_is_no_reason_to_stop_and_said_once(monkeypatch, caplog):
    async def scenario():
        scene = Scene(monkeypatch, away=True)
        scene.ours_may_start.clear()
        scene.lose(0)
        with caplog.at_level(logging.WARNING):
            await scene.until(lambda: scene.refused > supervisor.MOST_FAILURES)
        assert scene.fatal == []
        assert caplog.messages.count(f"worker-{NODE} failed to start: connection refused") == 1
        scene.ours_may_start.set()
        await scene.until(lambda: scene.live() == [0])
        scene.away = False
        await scene.until(lambda: scene.live() == [0, NODE])
        await scene.supervisor.shutdown()

    asyncio.run(scenario())
