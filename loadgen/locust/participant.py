"""A Locust user that offers its share of a load, and what it and the coordinator say to each other.

    user -> coordinator   join; prepared; progress…; result or failure; at any time left
    coordinator -> user   job; go; stop

They are Locust's custom messages: between processes and machines they go over its own connection,
in one process (its LocalRunner) they are function calls.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from gevent.queue import Queue
from locust.runners import WorkerRunner

from dlbench.loadgen.engine.connector import connector
from dlbench.loadgen.engine.engine import Engine
from dlbench.loadgen.errors import LoadError
from dlbench.loadgen.locust.bulk_stats import feed
from dlbench.loadgen.locust.parcel import packed
from dlbench.loadgen.messages import RunJob
from dlbench.loadgen.protocols.judge import judge_of
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.schedule.schedule import Share

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.rpc import Message

    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.engine.progress import EndedRequests
    from dlbench.loadgen.messages import Progress, RunFacts

TO_COORDINATOR = "dlbench_to_coordinator"
TO_USER = "dlbench_to_user"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIME_NAMESPACE = Path("/proc/self/ns/time")
# Of the times that ended since the last report this many travel: enough for a p99 to look at.
RECENT = 4000
NS_PER_MS = 1e6

# Those of this process, by their id: messages are addressed to one of them.
_present: WeakKeyDictionary[Environment, dict[str, Participant]] = WeakKeyDictionary()


def clock_id() -> str:
    """The same text in two processes means that their `time.monotonic_ns` is the same clock."""
    try:
        return f"{BOOT_ID.read_text().strip()} {TIME_NAMESPACE.readlink()}"
    except OSError:
        return f"{socket.gethostname()} {os.uname().sysname}"


def _deliver(environment: Environment, msg: Message, **_: object) -> None:
    participant = _present[environment].get(msg.data["user"])
    if participant is not None:
        participant.told(msg.data)


class Participant:
    """One user's part in one run of the load named `load`."""

    def __init__(self, environment: Environment, load: str) -> None:
        assert environment.runner is not None
        self._environment, self._runner = environment, environment.runner
        self._load, self._id = load, uuid4().hex
        self._inbox: Queue[dict[str, Any]] = Queue()
        self._engine: Engine | None = None
        self._stop_wanted = False
        self._name = ""
        self._batch: EndedRequests | None = None

    def told(self, data: dict[str, Any]) -> None:
        """Take a message. A stop counts at once, also under load."""
        if data["kind"] != "stop":
            self._inbox.put(data)
            return
        self._stop_wanted = True
        if self._engine is not None:
            self._engine.stop()

    def take_part(self) -> None:
        """Offer the share that the coordinator names; returns when it is over, however it ended."""
        if self._environment not in _present:
            _present[self._environment] = {}
            self._runner.register_message(TO_USER, _deliver)
        _present[self._environment][self._id] = self
        try:
            self._offer()
        except LoadError as error:
            self._say("failure", error=type(error).__name__, message=str(error))
        except Exception as error:
            traceback.print_exc()
            self._say("failure", error="GeneratorError", message=f"the load was aborted: {error!r}")
        finally:
            del _present[self._environment][self._id]
            self._say("left")

    def _offer(self) -> None:
        self._say("join", clock=clock_id(), host=socket.gethostname())
        order = self._inbox.get()
        engine = self._prepare(RunJob.model_validate_json(order["job"]), Share(*order["share"]))
        self._say("prepared")
        go = self._inbox.get()
        # Between processes that share a clock the coordinator names the time, else only the lead.
        start_ns = go["start_ns"] or time.monotonic_ns() + go["lead_ns"]
        samples, facts = engine.run(start_ns)
        self._hand_over(samples, facts)

    def _prepare(self, job: RunJob, share: Share) -> Engine:
        target, profile = job.target, job.profile
        requests = requests_of(target, profile, job.nonce)
        judge = judge_of(target, profile, requests)
        connect = connector(target, profile)
        engine = Engine(profile, connect, requests, judge, self._report, share)
        engine.on_batch = self._feed
        self._engine, self._name = engine, target.path
        if self._stop_wanted:
            engine.stop()
        return engine

    def _feed(self, batch: EndedRequests) -> None:
        self._batch = batch
        feed(self._environment.stats, self._name, batch, time.time())

    def _report(self, progress: Progress) -> None:
        assert self._batch is not None  # the engine gives the batch first
        self._say(
            "progress",
            progress=progress.model_dump_json(),
            latencies=self._batch.latencies_ms[-RECENT:].tobytes(),
            lateness=(self._batch.lateness_ns[-RECENT:] / NS_PER_MS).tobytes(),
        )

    def _hand_over(self, samples: Samples, facts: RunFacts) -> None:
        found: Samples | bytes = samples
        if isinstance(self._runner, WorkerRunner):
            self._runner._send_stats()  # at the end Locust's master waits half a second for them
            found = packed(samples)
        self._say("result", facts=facts.model_dump_json(), samples=found)

    def _say(self, kind: str, **data: Any) -> None:  # noqa: ANN401 - whatever msgpack takes
        told = {"kind": kind, "load": self._load, "user": self._id, **data}
        self._runner.send_message(TO_COORDINATOR, told)
