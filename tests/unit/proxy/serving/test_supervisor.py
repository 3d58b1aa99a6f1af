"""The supervisor over workers that start, finish, hang and die when the tests say so."""

import asyncio

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.admission import GIVEN_UP
from dlbench.proxy.errors import StartError
from dlbench.proxy.serving import supervisor as supervisor_module
from dlbench.proxy.serving.supervisor import MOST_FAILURES, Supervisor

NS_PER_S = 10**9


class Link:
    """A worker process that runs nothing."""

    def __init__(self, pid):
        self.pid = pid
        self.alive = True
        self.broken = False
        self.death = ""
        self.told = []

    async def shutdown(self):
        self.told.append("shutdown")
        self.alive = False

    def kill(self):
        self.told.append("kill")


class Dispatcher:
    """Knows who is live; a worker is idle when the test lets it be."""

    def __init__(self):
        self.config = ServingConfig(worker_timeout_s=10)
        self.core = self
        self.live = []
        self.held_off, self.ended = [], []

    def join(self, slot):
        self.live.append(slot)

    def leave(self, slot):
        if slot in self.live:
            self.live.remove(slot)

    def hold_off(self, pause_s):
        self.held_off.append(pause_s)

    def shutdown(self, why):
        self.ended.append(why)

    def lose(self, slot):
        """The worker dies."""
        slot.link.alive = False
        self.leave(slot)
        slot.idle.set()
        self.on_lost(slot)


class Starts:
    """Workers are started when the test says so: each start is a future, by worker number."""

    def __init__(self):
        self.pending = {}
        self.links = []

    async def __call__(self, number):
        self.pending[number] = asyncio.get_running_loop().create_future()
        try:
            await self.pending[number]
        finally:
            del self.pending[number]
        self.links.append(Link(100 + len(self.links)))
        return self.links[-1]

    def done(self, number):
        self.pending[number].set_result(None)

    def failed(self, number):
        self.pending[number].set_exception(StartError("no"))


class Story:
    """A supervisor with everything around it."""

    def __init__(self, workers, weights=()):
        self.dispatcher, self.starts, self.fatal = Dispatcher(), Starts(), []
        self.supervisor = Supervisor(self.dispatcher, self.starts, weights, self.fatal.append)
        self.supervisor.adopt([Link(pid) for pid in range(workers)])

    def live(self):
        return sorted(slot.number for slot in self.dispatcher.live)

    async def scale(self, wanted):
        self.supervisor.scale(wanted)
        await settled()

    async def lose(self, number):
        self.dispatcher.lose(self.supervisor.slots[number])
        await settled()

    async def started(self, *numbers):
        for number in numbers:
            self.starts.done(number)
        await settled()

    async def failed(self, number):
        self.starts.failed(number)
        await settled()


async def settled():
    """Let everything happen that waits for nothing; pauses of no length are over then."""
    for _ in range(20):
        await asyncio.sleep(0)


def tell(story):
    """Run an async function; every test here is one."""

    def test(monkeypatch):
        monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0)
        asyncio.run(asyncio.wait_for(story(), 20))

    test.__name__ = story.__name__
    return test


@tell
async def test_workers_come_and_the_highest_numbers_go():
    it = Story(1, weights=[3, 2])
    await it.scale(4)
    assert (it.supervisor.size, it.live()) == (4, [0])
    await it.started(3, 1, 2)
    assert it.live() == [0, 1, 2, 3]
    assert [slot.weight for slot in it.supervisor.slots] == [3, 2, 1, 1]
    await it.scale(2)
    assert (it.supervisor.size, it.live()) == (2, [0, 1])


@tell
async def test_a_worker_that_goes_is_ended_once_it_is_idle():
    it = Story(2)
    leaving = it.supervisor.slots[1]
    await it.scale(1)
    assert (it.live(), leaving.link.told) == ([0], [])
    assert leaving.link.pid in it.supervisor.pids
    leaving.idle.set()
    await settled()
    assert leaving.link.told == ["shutdown"]
    assert it.supervisor.pids == [0]


@tell
async def test_a_place_is_taken_anew_while_its_last_worker_still_finishes():
    it = Story(2)
    leaving = it.supervisor.slots[1]
    await it.scale(1)
    await it.scale(2)
    await it.started(1)
    assert it.live() == [0, 1]
    assert it.supervisor.slots[1] is not leaving
    leaving.idle.set()
    await settled()
    assert it.live() == [0, 1]
    assert it.supervisor.slots[1].link.alive


@tell
async def test_a_worker_that_hangs_while_it_drains_is_killed():
    it = Story(2)
    leaving = it.supervisor.slots[1]
    leaving.running_since_ns = 0
    await it.scale(1)
    it.supervisor.check(9 * NS_PER_S)
    assert leaving.link.told == []
    it.supervisor.check(11 * NS_PER_S)
    assert leaving.link.told == ["kill"]
    it.dispatcher.lose(leaving)
    await settled()
    assert it.starts.pending == {}
    assert it.supervisor.pids == [0]


@tell
async def test_a_shutdown_ends_those_that_still_drain():
    it = Story(3)
    links = [slot.link for slot in it.supervisor.slots]
    await it.scale(1)
    await it.supervisor.shutdown()
    assert [link.alive for link in links] == [False, False, False]
    assert it.supervisor.pids == []


@tell
async def test_a_shutdown_ends_what_is_starting_and_starts_nothing():
    it = Story(2)
    await it.scale(4)
    await it.lose(1)
    assert sorted(it.starts.pending) == [1, 2, 3]
    last = it.supervisor.slots[0]
    shutting = asyncio.ensure_future(it.supervisor.shutdown())
    await asyncio.sleep(0)
    it.dispatcher.lose(last)
    await shutting
    await settled()
    assert it.starts.pending == {}
    assert it.starts.links == []


@tell
async def test_a_worker_that_is_ready_when_nobody_wants_it_any_more_goes_again():
    it = Story(1)
    await it.scale(3)
    await it.scale(1)
    await it.started(1, 2)
    assert it.live() == [0]
    assert [link.alive for link in it.starts.links] == [False, False]
    assert it.supervisor.size == 1


@tell
async def test_a_worker_wanted_again_while_it_starts_is_started_once():
    it = Story(1)
    for wanted in (2, 1, 2):
        await it.scale(wanted)
    await it.started(1)
    assert it.live() == [0, 1]
    assert len(it.starts.links) == 1


@tell
async def test_a_dead_worker_is_replaced_in_its_place():
    it = Story(2)
    dead = it.supervisor.slots[1]
    await it.lose(1)
    assert (it.supervisor.size, it.live()) == (2, [0])
    await it.started(1)
    assert it.supervisor.slots[1] is dead
    assert (dead.restarts, dead.link.pid, it.live()) == (1, 100, [0, 1])


@tell
async def test_the_replacement_of_one_that_was_sent_home_goes_too():
    it = Story(2)
    await it.lose(1)
    await it.scale(1)
    await it.started(1)
    assert it.live() == [0]
    assert [link.alive for link in it.starts.links] == [False]


@tell
async def test_one_that_dies_while_it_drains_is_not_replaced():
    it = Story(2)
    leaving = it.supervisor.slots[1]
    await it.scale(1)
    it.dispatcher.lose(leaving)
    await settled()
    assert it.starts.pending == {}
    assert leaving.link.told.count("shutdown") >= 1
    assert it.supervisor.pids == [0]


@tell
async def test_one_that_cannot_be_started_is_tried_while_others_are_alive():
    it = Story(2)
    await it.lose(1)
    for _ in range(MOST_FAILURES + 2):
        await it.failed(1)
    assert it.fatal == []
    await it.started(1)
    assert it.live() == [0, 1]


@tell
async def test_without_any_worker_it_gives_up_after_some_tries():
    it = Story(1)
    await it.lose(0)
    for _ in range(MOST_FAILURES):
        assert it.fatal == []
        await it.failed(0)
    assert [str(error) for error in it.fatal] == ["no"]
    assert it.starts.pending == {}


@pytest.mark.parametrize("reviving", [False, True])
def test_nobody_goes_on_trying_to_start_what_is_not_wanted(reviving, monkeypatch):
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0)

    async def story():
        it = Story(2 if reviving else 1)
        if reviving:
            await it.lose(1)
        else:
            await it.scale(2)
        await it.failed(1)
        await it.scale(1)
        await it.failed(1)
        assert it.starts.pending == {}
        assert it.supervisor.size == 1

    asyncio.run(asyncio.wait_for(story(), 20))


@tell
async def test_when_two_workers_fail_the_end_is_told_once_and_those_who_wait_hear_it():
    it = Story(2)
    for number in (0, 1):
        await it.lose(number)
    for _ in range(MOST_FAILURES):
        assert it.dispatcher.ended == []
        await it.failed(0)
    await it.failed(1)
    assert [str(error) for error in it.fatal] == ["no"]
    assert it.dispatcher.ended == [GIVEN_UP]
    assert it.starts.pending == {}


@tell
async def test_nobody_is_taken_between_a_failed_start_and_the_next_try():
    it = Story(2)
    await it.lose(1)
    await it.failed(1)
    assert it.dispatcher.held_off == []  # the other one works
    await it.lose(0)
    await it.failed(0)
    assert it.dispatcher.held_off == [0]
