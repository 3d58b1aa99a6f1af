"""Shares loads among Locust's users and puts their parts together: what its master does for us.

A load begins when Locust has spawned all of its users. Every user gets one share of it, they all
begin together, and the load is over when the last one has handed over its samples. A user, or a
worker, that is lost on the way makes the load fail: what it sent is not accounted for.
"""

from __future__ import annotations

import time
import traceback
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import gevent
import numpy as np
from gevent.queue import Empty, Queue
from locust import runners
from locust.runners import STATE_MISSING, MasterRunner, Runner

from dlbench.loadgen import errors
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.errors import GeneratorError, LoadError
from dlbench.loadgen.locust.parcel import unpacked
from dlbench.loadgen.locust.participant import TO_COORDINATOR, TO_USER, clock_id
from dlbench.loadgen.locust.rounds import Report, Rounds
from dlbench.loadgen.messages import Progress, RunFacts, RunJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from locust.env import Environment
    from locust.rpc import Message

Told = dict[str, Any]
Outcome = tuple[Samples, RunFacts] | LoadError

# From "go" to the first request: the message is on its way (or not), and the engine makes ready.
LEAD_NS = {True: 100_000_000, False: 5_000_000}
# A worker that Locust no longer hears of is looked for this often.
LOOK_S = 0.5
# So many seconds it may be silent. Locust's own three pass on a busy machine while a worker makes
# its requests; then Locust stops the load for want of workers.
SILENT_S = 10
# From the spawning of the users to the last one's word.
JOIN_S = 30.0


class Director(Protocol):
    """Whose loads they are: a locustfile's classes, or the generator's controller."""

    def loads(self) -> Iterable[str]:
        """The user classes whose users share a load."""

    def job(self, load: str) -> RunJob:
        """What to do. Raises LoadError."""

    def progressed(self, load: str, progress: Progress) -> None: ...
    def ended(self, load: str, outcome: Outcome) -> None: ...
    def all_ended(self) -> None:
        """Of the loads that were started together; not called when Locust itself stops them."""


class JoinedUser(NamedTuple):
    """A user that has joined: its worker's id, its own, its clock and its machine."""

    node: str
    user: str
    clock: str
    host: str


class Gathering:
    """The users of one load, from the first one that joins to the last one's samples."""

    def __init__(self, runner: Runner, load: str) -> None:
        self._runner, self._load = runner, load
        self.inbox: Queue[tuple[str, Told]] = Queue()
        self._members: list[JoinedUser] = []
        self._stop_wanted = False

    def stop(self) -> None:
        """Have everyone end early and send their partial results."""
        self._stop_wanted = True
        for member in self._members:
            self._tell(member, "stop")

    def conduct(
        self, job: RunJob, of: int, on_progress: Callable[[Progress], None]
    ) -> tuple[Samples, RunFacts]:
        """Do a job with `of` users. Raises LoadError."""
        self._members = self._joined(of)
        for index, member in enumerate(self._members):
            self._tell(member, "job", job=job.model_dump_json(), share=[index, of])
        if self._stop_wanted:
            self.stop()
        rounds = Rounds(of)
        try:
            self._all("prepared", rounds, on_progress)
            self._go()
            results = self._all("result", rounds, on_progress)
        except LoadError:
            self.stop()  # nobody loads a server for nothing
            raise
        return merged(results)

    def _joined(self, of: int) -> list[JoinedUser]:
        """In the order of their workers, so that a worker has the same share in every run."""
        joined: dict[str, JoinedUser] = {}
        end_s = time.monotonic() + JOIN_S
        while len(joined) < of:
            try:
                node, told = self.inbox.get(timeout=max(0.0, end_s - time.monotonic()))
            except Empty:
                raise GeneratorError(f"{len(joined)} of {of} users have joined the load") from None
            if told["kind"] == "join":
                joined[told["user"]] = JoinedUser(node, told["user"], told["clock"], told["host"])
            elif told["kind"] == "left":
                joined.pop(told["user"], None)
        order = getattr(self._runner, "get_worker_index", lambda _: 0)
        return sorted(joined.values(), key=lambda member: order(member.node))

    def _go(self) -> None:
        lead_ns = LEAD_NS[isinstance(self._runner, MasterRunner)]
        own, start_ns = clock_id(), time.monotonic_ns() + lead_ns
        for member in self._members:
            at = start_ns if member.clock == own else 0
            self._tell(member, "go", start_ns=at, lead_ns=lead_ns)

    def _all(
        self, kind: str, rounds: Rounds, on_progress: Callable[[Progress], None]
    ) -> list[Told]:
        """What each member says of this kind, in their order."""
        names = {member.user: number for number, member in enumerate(self._members)}
        found: dict[str, Told] = {}
        while len(found) < len(names):
            told = self._next()
            user = told["user"]
            if user not in names:
                continue
            if told["kind"] == kind:
                found[user] = told
            elif told["kind"] == "progress":
                if (progress := rounds.add(user, _report(told))) is not None:
                    on_progress(progress)
            elif user not in found:
                raise self._broken(self._members[names[user]], told)
        return [found[member.user] for member in self._members]

    def _next(self) -> Told:
        while True:
            try:
                told: Told = self.inbox.get(timeout=LOOK_S)[1]
            except Empty:
                self._look()
            else:
                return told

    def _look(self) -> None:
        """Raises GeneratorError when a worker is gone."""
        if not isinstance(self._runner, MasterRunner):
            return
        clients = self._runner.clients
        for number, member in enumerate(self._members, 1):
            if member.node not in clients or clients[member.node].state == STATE_MISSING:
                raise GeneratorError(
                    f"worker {number} of {len(self._members)} ({member.host}) was lost during the "
                    "load, along with its measurements"
                )

    def _broken(self, member: JoinedUser, told: Told) -> LoadError:
        where = f" (on {member.host})" if len(self._members) > 1 else ""
        if told["kind"] == "failure":
            return _error(told["error"], told["message"] + where)
        return GeneratorError("a user was stopped before it finished its share of the load" + where)

    def _tell(self, member: JoinedUser, kind: str, **data: Any) -> None:  # noqa: ANN401 - for msgpack
        told = {"kind": kind, "user": member.user, **data}
        self._runner.send_message(TO_USER, told, member.node)


class Coordinator:
    """Listens to a runner that is not a worker; `director` decides and receives the results."""

    def __init__(self, environment: Environment, director: Director) -> None:
        assert environment.runner is not None
        runners.HEARTBEAT_LIVENESS = SILENT_S
        self._runner, self._director = environment.runner, director
        self._gatherings: defaultdict[str, Gathering] = self._none()
        self._running: dict[str, gevent.Greenlet] = {}
        self._stopped_by_locust = False
        # Ends the next loads at once if there are none under way. Whoever starts one resets it.
        self.stop_wanted = False
        self._runner.register_message(TO_COORDINATOR, self._hear)
        events = environment.events
        events.test_start.add_listener(self._on_test_start)  # type: ignore[no-untyped-call]
        events.spawning_complete.add_listener(self._on_spawned)  # type: ignore[no-untyped-call]
        events.test_stopping.add_listener(self._on_test_stopping)  # type: ignore[no-untyped-call]

    def _none(self) -> defaultdict[str, Gathering]:
        return _Gatherings(self._runner)

    def stop(self) -> None:
        """End the loads under way; their results come as usual."""
        self.stop_wanted = True
        self._stop_running()

    def _stop_running(self) -> None:
        for load, greenlet in self._running.items():
            if not greenlet.ready():
                self._gatherings[load].stop()

    def _hear(self, msg: Message, **_: object) -> None:
        self._gatherings[msg.data["load"]].inbox.put((msg.node_id, msg.data))

    def _on_test_start(self, **_: object) -> None:
        self._gatherings = self._none()
        self._running = {}
        self._stopped_by_locust = False

    def _on_spawned(self, **_: object) -> None:
        counts = self._runner.target_user_classes_count
        for load in self._director.loads():
            # Users that come later, by an edit on the page, find the load under way.
            if counts.get(load) and load not in self._running:
                self._running[load] = gevent.spawn(self._conduct, load, counts[load])

    def _on_test_stopping(self, **_: object) -> None:
        """Locust is about to kill the users: have them hand over what they have before that."""
        self._stopped_by_locust = True
        self._stop_running()
        gevent.joinall(list(self._running.values()))

    def _conduct(self, load: str, of: int) -> None:
        gathering = self._gatherings[load]
        if self.stop_wanted:
            gathering.stop()
        try:
            job = self._director.job(load)
            outcome: Outcome = gathering.conduct(
                job, of, lambda progress: self._director.progressed(load, progress)
            )
        except LoadError as error:
            outcome = error
        except Exception as error:  # whoever waits for the outcome must hear of it
            traceback.print_exc()
            outcome = GeneratorError(f"the load was aborted: {error!r}")
        self._director.ended(load, outcome)
        others = [greenlet for name, greenlet in self._running.items() if name != load]
        if not self._stopped_by_locust and all(greenlet.ready() for greenlet in others):
            self._director.all_ended()


class _Gatherings(defaultdict[str, Gathering]):
    """One for each load, made when its first user joins."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner = runner

    def __missing__(self, load: str) -> Gathering:
        self[load] = Gathering(self._runner, load)
        return self[load]


def merged(results: list[Told]) -> tuple[Samples, RunFacts]:
    """One record of what all users handed over. Raises DataError for a broken message."""
    facts = [RunFacts.model_validate_json(told["facts"]) for told in results]
    samples = [
        told["samples"] if isinstance(told["samples"], Samples) else unpacked(told["samples"])
        for told in results
    ]
    return (
        (samples[0], facts[0])
        if len(results) == 1
        else (Samples.merged(samples), RunFacts.merged(facts))
    )


def _report(told: Told) -> Report:
    return Report(
        Progress.model_validate_json(told["progress"]),
        np.frombuffer(told["latencies"], np.float64),
        np.frombuffer(told["lateness"], np.float64),
    )


def _error(name: str, message: str) -> LoadError:
    error: LoadError = getattr(errors, name, GeneratorError)(message)
    return error
