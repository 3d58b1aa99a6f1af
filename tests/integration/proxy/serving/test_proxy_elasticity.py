"""Workers that come, go, die and hang while requests run: real processes, with short windows."""

import asyncio
import os
import signal
import threading
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import psutil
import pytest

from dlbench.proxy import main
from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import RequestError
from dlbench.proxy.request import all_outputs, lay_out, make_request
from dlbench.proxy.serving import autoscaler, served
from dlbench.proxy.serving.repository import Repository
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry.spans import make_spans
from dlbench.proxy.workers import link
from dlbench.proxy.workers.start import start_worker
from testbed import messages

PATIENCE_S = 60
X = {"inputs": [messages.X]}


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch):
    monkeypatch.setattr(served, "LOOK_S", 0.1)
    monkeypatch.setattr(autoscaler, "SCALE_IN_WINDOW_S", 0.5)
    monkeypatch.setattr(autoscaler, "SCALE_OUT_COOL_DOWN_S", 0.1)
    monkeypatch.setattr(autoscaler.Cost, "FORGET_S", 1.0)
    monkeypatch.setattr(link, "STOP_TIMEOUT_S", 0.5)


@pytest.fixture(autouse=True)
def _only_ours():
    """Proxies that other tests share go on running, with workers of their own."""
    OTHERS.clear()
    OTHERS.update(workers_alive())


OTHERS = set()


def workers_alive():
    """Worker processes that a test started, the stopped ones included and the dead ones not."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            line = child.cmdline()
            if "dlbench.proxy.workers.worker" in line and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:  # between the list and the look
            continue
    return sorted(set(found) - OTHERS)


def run(story):
    """Run a story on the loop that the proxy has; it leaves no worker behind."""
    before = workers_alive()

    async def bounded():
        await asyncio.wait_for(story, 4 * PATIENCE_S)

    with asyncio.Runner(loop_factory=main._loop_factory()) as runner:
        runner.run(bounded())
    assert workers_alive() == before


async def until(true):
    """Wait for what other processes bring about."""
    while not true():
        await asyncio.sleep(0.002)


class Model:
    """A served model, with a client in the same process."""

    def __init__(self, repository):
        self.repository, self.model = repository, repository.get()
        self.supervisor, self.dispatcher = self.model.supervisor, self.model.dispatcher
        self.outcomes = []

    def ask(self, value=1.0):
        """A future of one request's answer."""
        signature = self.model.signature
        x = np.full((1, 3), value, np.float32)
        layout = lay_out(signature, (x.shape,), all_outputs(signature, binary=True))
        answer = asyncio.get_running_loop().create_future()

        def reply(outcome):
            self.outcomes.append(outcome)
            answer.set_result(outcome)

        self.model.submit(make_request(signature, layout, (x.tobytes(),)), reply)
        return answer

    async def keep_asking(self, done):
        while not done.is_set():
            await self.ask()

    @asynccontextmanager
    async def load(self, clients):
        """So many clients that ask again as soon as they have their answer."""
        done = asyncio.Event()
        tasks = [asyncio.ensure_future(self.keep_asking(done)) for _ in range(clients)]
        try:
            yield
        finally:
            done.set()
        await asyncio.gather(*tasks)

    @property
    def live(self):
        return len(self.dispatcher.core.live)

    async def settle(self):
        """Everything is answered, and everybody got their own."""
        await until(lambda: not self.model.in_flight)
        assert not [found for found in self.outcomes if isinstance(found, RequestError)]
        assert self.model.waiting == 0


@asynccontextmanager
async def serving(path, **knobs):
    """A model with its workers, ended when the story is over."""
    config = ServingConfig(**{"workers": 1, "max_batch_size": 1, **knobs})
    settings = ServerSettings(model=str(path), device="cpu", drain_timeout_s=PATIENCE_S)
    fatal = []
    repository = Repository(settings, config, NoBackend(), make_spans(""), fatal.append, None)
    await repository.startup()
    try:
        yield Model(repository)
    finally:
        await repository.shutdown()
        assert not fatal


async def stopped_with_a_batch(it, slot):
    """Stop a worker so that it has a batch which it cannot finish; the answer's future."""
    os.kill(slot.link.pid, signal.SIGSTOP)
    answers = []
    while not slot.batches:
        answers.append(it.ask())
        await asyncio.sleep(0)
    return answers


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("threshold", "shared_queue"),
        ("queue_length", "least_outstanding"),
        ("cost", "shared_queue"),
        pytest.param("threshold", "least_outstanding", marks=pytest.mark.slow),
        pytest.param("queue_length", "shared_queue", marks=pytest.mark.slow),
        pytest.param("cost", "least_outstanding", marks=pytest.mark.slow),
    ],
)
def test_load_makes_workers_come_and_quiet_lets_them_go(models, name, policy):
    async def story():
        knobs = {"scheduling_policy": policy, "min_workers": 1, "max_workers": 3}
        async with serving(models.slow(size=300), autoscaler=name, **knobs) as it:
            async with it.load(24):
                await until(lambda: it.live == 3)
                served_before = len(it.outcomes)
                await until(lambda: len(it.outcomes) > served_before + 50)
                assert it.supervisor.size <= 3
                await until(lambda: it.supervisor.size == 3)  # and it stays there, or comes back
            while (
                it.supervisor.size > 1 or it.live > 1
            ):  # a trickle must not notice that workers go
                began_s = time.monotonic()
                await it.ask()
                # Some in each look, however slow the machine is, and far from what one can do.
                await asyncio.sleep(max(0.02, 3 * (time.monotonic() - began_s)))
            await until(lambda: len(workers_alive()) == 1)
            await it.settle()

    run(story())


def test_as_many_as_the_bounds_say_where_they_are_equal(models):
    async def story():
        knobs = {"autoscaler": "threshold", "min_workers": 2, "max_workers": 2}
        async with serving(models.slow(size=500), **knobs) as it:
            await until(lambda: it.live == 2)
            async with it.load(10):
                await until(lambda: len(it.outcomes) > 100)
                assert it.supervisor.size == 2
            await it.settle()
            assert it.live == 2

    run(story())


def test_a_worker_killed_under_the_autoscaler_is_replaced_and_costs_nobody_an_answer(models):
    async def story():
        knobs = {"autoscaler": "threshold", "min_workers": 1, "max_workers": 2}
        async with serving(models.slow(size=500), **knobs) as it:
            async with it.load(10):
                for _ in range(2):
                    await until(lambda: it.live == 2)
                    victim = it.dispatcher.core.live[0]
                    pid, restarts = victim.link.pid, victim.restarts
                    os.kill(pid, signal.SIGKILL)
                    await until(lambda victim=victim, restarts=restarts: victim.restarts > restarts)
                    assert victim.link.pid != pid
            await it.settle()
            assert it.supervisor.size == 2

    run(story())


def test_a_worker_that_dies_while_it_drains_is_not_replaced(models):
    async def story():
        async with serving(models.affine(), workers=3) as it:
            leaving = it.supervisor.slots[2]
            answers = await stopped_with_a_batch(it, leaving)
            it.supervisor.scale(2)
            await until(lambda: leaving.index < 0)
            assert leaving.batches
            os.kill(leaving.link.pid, signal.SIGKILL)
            await asyncio.gather(*answers)
            await until(lambda: len(workers_alive()) == 2)
            await it.settle()
            assert it.supervisor.size == 2

    run(story())


def test_a_worker_that_hangs_while_it_drains_is_killed_and_its_request_answered(models):
    async def story():
        async with serving(models.affine(), workers=2, worker_timeout_s=1) as it:
            leaving = it.supervisor.slots[1]
            answers = await stopped_with_a_batch(it, leaving)
            it.supervisor.scale(1)
            await asyncio.gather(*answers)
            await until(lambda: len(workers_alive()) == 1)
            await it.settle()

    run(story())


def test_a_worker_that_drains_finishes_what_it_has(models):
    async def story():
        async with serving(models.affine(), workers=2) as it:
            leaving = it.supervisor.slots[1]
            pid = leaving.link.pid
            answers = await stopped_with_a_batch(it, leaving)
            it.supervisor.scale(1)
            await until(lambda: leaving.index < 0)
            others = [it.ask() for _ in range(5)]
            await asyncio.gather(*others)
            requests = leaving.requests
            os.kill(pid, signal.SIGCONT)
            await asyncio.gather(*answers)
            await until(lambda: pid not in workers_alive())
            await it.settle()
            assert leaving.requests == requests

    run(story())


@pytest.mark.parametrize("unloaded", [False, True])
def test_a_shutdown_in_the_midst_of_scaling_leaves_nobody(models, unloaded):
    """Two workers start, one is about to be replaced, one drains and will never be done."""

    async def story():
        async with serving(models.affine(), workers=3) as it:
            leaving, dead = it.supervisor.slots[2], it.supervisor.slots[1]
            answers = await stopped_with_a_batch(it, leaving)
            it.supervisor.scale(2)
            await until(lambda: leaving.index < 0)
            os.kill(dead.link.pid, signal.SIGKILL)
            await until(lambda: dead.index < 0)
            it.supervisor.scale(4)
            await until(lambda: len(workers_alive()) > 2)
            if unloaded:
                await it.repository.unload("affine")
        assert workers_alive() == []
        assert all(answer.done() for answer in answers)
        assert (it.model.in_flight, it.live) == (0, 0)

    run(story())


def test_a_start_that_is_cancelled_at_once_ends(models):
    async def story():
        settings = ServerSettings(model=str(models.affine()), device="cpu")
        start = start_worker(settings.model, settings, ServingConfig(workers=1))
        starting = asyncio.ensure_future(start)
        await asyncio.sleep(0)
        starting.cancel()
        done, _ = await asyncio.wait([starting], timeout=60)
        assert done

    run(story())


def test_a_proxy_under_load_grows_and_is_stopped_in_the_midst_of_it(models, start_proxy):
    """From outside, with the looks that it has."""
    proxy = start_proxy(
        models.slow(size=500),
        autoscaler="queue_length",
        min_workers=1,
        max_workers=4,
        max_batch_size=1,
    )
    done, statuses = threading.Event(), []

    def ask():
        with httpx.Client(base_url=proxy.url, timeout=PATIENCE_S) as client:
            while not done.is_set():
                statuses.append(client.post("/v2/models/slow/infer", json=X).status_code)

    askers = [threading.Thread(target=ask) for _ in range(24)]
    for asker in askers:
        asker.start()
    deadline = time.monotonic() + PATIENCE_S
    children = psutil.Process(proxy.process.pid).children
    try:
        while len(processes := children()) < 3:
            assert time.monotonic() < deadline, "no more workers than at first"
    finally:
        done.set()
        os.kill(proxy.process.pid, signal.SIGTERM)
        for asker in askers:
            asker.join()
    assert proxy.process.wait(PATIENCE_S) == 0
    assert set(statuses) == {200}
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert not alive
