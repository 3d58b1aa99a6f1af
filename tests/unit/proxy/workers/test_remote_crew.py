"""How a crew counts workers elsewhere: there or not, never scaled, never fatal."""

import asyncio
import logging

from dlbench.proxy.errors import StartError
from dlbench.proxy.serving import crew as crews
from dlbench.proxy.serving.crew import Crew

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
        self.live = []

    def join(self, seat):
        self.live.append(seat)

    def leave(self, seat):
        self.live.remove(seat)
        seat.idle.set()


class Scene:
    """A crew with one local worker and one node, which may be away."""

    def __init__(self, monkeypatch, away):
        monkeypatch.setattr(crews, "FIRST_PAUSE_S", 0)
        self.away, self.refused, self.fatal = away, 0, []
        self.ours_may_start = asyncio.Event()
        self.ours_may_start.set()
        self.dispatcher = FakeDispatcher()
        self.crew = Crew(self.dispatcher, self.start, [], self.fatal.append, [NODE])
        self.crew.adopt([FakeLink()])

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
        return sorted(seat.number for seat in self.dispatcher.live)

    def lose(self, number):
        (seat,) = [seat for seat in self.dispatcher.live if seat.number == number]
        seat.link.alive = False
        self.dispatcher.live.remove(seat)
        self.dispatcher.on_lost(seat)


def test_scaling_counts_the_remote_ones_that_are_there_and_moves_only_our_own(monkeypatch):
    async def scenario():
        scene = Scene(monkeypatch, away=False)
        await scene.until(lambda: scene.live() == [0, NODE])
        assert scene.crew.size == 2
        scene.crew.scale(4)
        await scene.until(lambda: scene.live() == [0, 1, 2, NODE])
        assert scene.crew.size == 4
        scene.away = True
        scene.lose(NODE)
        assert scene.crew.size == 3
        scene.crew.scale(4)
        await scene.until(lambda: scene.live() == [0, 1, 2, 3])
        scene.away = False
        await scene.until(lambda: NODE in scene.live())
        assert scene.crew.size == 5
        scene.crew.scale(1)
        await scene.until(lambda: scene.live() == [0, NODE])
        await scene.crew.shutdown()

    asyncio.run(scenario())


def test_a_node_that_stays_away_is_no_reason_to_stop_and_said_once(monkeypatch, caplog):
    async def scenario():
        scene = Scene(monkeypatch, away=True)
        scene.ours_may_start.clear()
        scene.lose(0)
        with caplog.at_level(logging.WARNING):
            await scene.until(lambda: scene.refused > crews.MOST_FAILURES)
        assert scene.fatal == []
        assert caplog.messages.count(f"worker-{NODE} does not start: connection refused") == 1
        scene.ours_may_start.set()
        await scene.until(lambda: scene.live() == [0])
        scene.away = False
        await scene.until(lambda: scene.live() == [0, NODE])
        await scene.crew.shutdown()

    asyncio.run(scenario())
