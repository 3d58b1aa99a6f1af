"""Priorities, deadlines and full queues before workers that are stopped, so that everything waits."""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from testbed import messages
from testbed.patience import PATIENCE_S, eventually


def post(proxy, value, **parameters):
    body = {"inputs": [messages.tensor(*[value] * 3)], "parameters": parameters}
    return messages.post(body, f"/v2/models/{proxy.name}/infer")


class Held:
    """A proxy whose workers are stopped, each with a batch that it cannot finish.

    Where the order of answers counts the model is slow, so that no thread overtakes another.
    """

    def __init__(self, proxy):
        self.proxy = proxy
        self.pids = proxy.workers()
        self.clients = []
        self.answers = {}
        self.order = []
        self._readers = []

    def stop(self):
        for number, pid in enumerate(self.pids, 1):
            os.kill(pid, signal.SIGSTOP)
            self.ask("running", number)

    def go_on(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def ask(self, name, value=1, **parameters):
        """Send a request over a connection of its own, and wait until the proxy has it."""
        before = self.proxy.ask("counters")["requests"]
        client = self.proxy.client()
        self.clients.append(client)
        client.send(post(self.proxy, value, **parameters))
        eventually(lambda: self.proxy.ask("counters")["requests"] > before)
        reader = threading.Thread(target=self._read, args=(name, value, client))
        reader.start()
        self._readers.append(reader)

    def _read(self, name, value, client):
        status, headers, body = client.reply()
        self.order.append(name)
        self.answers[name] = (status, headers, json.loads(body))
        if status == 200:
            expected = value if self.proxy.name == "slow" else 2 * value + 1
            assert json.loads(body)["outputs"][0]["data"] == [expected] * 3

    def settle(self):
        for reader in self._readers:
            reader.join(PATIENCE_S)
        assert len(self.order) == len(self.clients)
        counts = self.proxy.ask("counters")
        assert counts["in_flight"] == 0
        return counts

    def statuses(self, *names):
        return [self.answers[name][0] for name in names]


@contextmanager
def held(proxy):
    """Everything goes on in the end, whatever the test found."""
    it = Held(proxy)
    try:
        it.stop()
        yield it
    finally:
        it.go_on()
        for reader in it._readers:
            reader.join(PATIENCE_S)
        for client in it.clients:
            client.__exit__()


@pytest.fixture(scope="module")
def slow(module_proxy, models):
    """For orders that commit nothing to a busy worker, however well its times are known by now."""
    return module_proxy(models.slow(1400), max_batch_size=1)


@pytest.mark.parametrize("policy", ["shared_queue", "least_outstanding"])
def test_a_higher_priority_overtakes(slow, policy):
    order = {"queue_order": "priority", "priority_ageing_ms": 3_600_000}
    slow.configure(scheduling_policy=policy, **order)
    with held(slow) as it:
        it.ask("low", priority=3)
        it.ask("none named")
        it.ask("normal", priority=2)
        it.ask("high", priority=1)
        it.go_on()
        it.settle()
    assert it.order == ["running", "high", "none named", "normal", "low"]


def test_waiting_is_worth_a_level_so_that_nobody_starves(slow):
    slow.configure(queue_order="priority", priority_ageing_ms=1)
    with held(slow) as it:
        it.ask("low", priority=3)
        time.sleep(0.005)  # age: nothing happens while it waits
        it.ask("high", priority=1)
        it.go_on()
        it.settle()
    assert it.order == ["running", "low", "high"]


def test_the_earliest_deadline_is_first_and_none_is_late(slow):
    slow.configure(queue_order="edf")
    with held(slow) as it:
        for name, seconds in (("patient", 50), ("hurried", 20), ("soonest", 9), ("none", 0)):
            it.ask(name, timeout=seconds * 10**6)
        it.go_on()
        it.settle()
    assert it.order == ["running", "soonest", "none", "hurried", "patient"]


@pytest.mark.parametrize("order", ["fifo", "priority", "edf"])
@pytest.mark.parametrize("policy", ["shared_queue", "round_robin"])
def test_what_expires_is_answered_while_all_workers_are_busy_and_never_run(
    models, start_proxy, policy, order
):
    proxy = start_proxy(
        models.affine(), workers=2, scheduling_policy=policy, queue_order=order, max_batch_size=1
    )
    with held(proxy) as it:
        it.ask("patient", 5)
        for number in range(4):
            it.ask(f"hurried {number}", timeout=1000)
        eventually(lambda: len(it.answers) == 4)
        assert it.statuses(*(f"hurried {number}" for number in range(4))) == [504] * 4
        assert proxy.ask("counters")["batches"] == 2
        it.go_on()
        counts = it.settle()
    assert it.statuses("patient") == [200]
    assert (counts["batches"], counts["rows"], counts["errors"]) == (3, 3, 4)


def test_a_deadline_that_nobody_named_is_the_configured_one(models, start_proxy):
    proxy = start_proxy(models.affine(), max_batch_size=1, default_timeout_ms=60_000)
    with held(proxy) as it:
        it.ask("short", timeout=1000)
        eventually(lambda: "short" in it.answers)
        assert proxy.ask("configure", knobs={"default_timeout_ms": 5}) == {"ok": True}
        it.ask("unnamed")
        eventually(lambda: "unnamed" in it.answers)
        it.ask("long", timeout=60_000_000)
        it.go_on()
        it.settle()
    assert it.statuses("short", "unnamed", "long", "running") == [504, 504, 200, 200]


def test_identical_requests_share_an_answer_but_not_a_deadline(models, start_proxy):
    """The one that was first expires; who joined it has no deadline, and is run."""
    proxy = start_proxy(models.affine(), max_batch_size=1, cache_size=8)
    with held(proxy) as it:
        it.ask("first", 7, timeout=1_000_000)
        it.ask("second", 7)
        it.ask("third", 7)
        eventually(lambda: "first" in it.answers)
        it.go_on()
        counts = it.settle()
    assert it.statuses("first", "second", "third") == [504, 200, 200]
    assert counts["batches"] == 2


def test_what_waits_is_answered_after_a_reconfiguration_in_the_new_order(models, start_proxy):
    proxy = start_proxy(models.slow(1400), max_batch_size=1, priority_ageing_ms=3_600_000)
    with held(proxy) as it:
        it.ask("low", priority=3)
        it.ask("high", priority=1)
        it.ask("hurried", timeout=1_000_000)
        knobs = {"queue_order": "priority", "scheduling_policy": "round_robin"}
        assert proxy.ask("configure", knobs=knobs) == {"ok": True}
        eventually(lambda: "hurried" in it.answers)
        it.go_on()
        it.settle()
    assert it.order == ["hurried", "running", "high", "low"]


def test_a_full_queue_is_refused_at_once_and_has_room_again(models, start_proxy):
    proxy = start_proxy(models.affine(), max_batch_size=1, max_queue_size=2)
    with held(proxy) as it:
        it.ask("one")
        it.ask("two")
        it.ask("three")
        eventually(lambda: "three" in it.answers)
        status, headers, body = it.answers["three"]
        assert (status, headers["retry-after"]) == (503, "1")
        assert "queue is full" in body["error"]
        it.ask("expires", timeout=1000)  # no room for it either: it is not the deadline
        eventually(lambda: "expires" in it.answers)
        it.go_on()
        counts = it.settle()
        it.ask("later")
        it.settle()
    assert it.statuses("expires", "one", "two", "later") == [503, 200, 200, 200]
    assert (counts["batches"], counts["errors"]) == (3, 2)
