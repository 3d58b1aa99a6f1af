"""Locust users whose requests are made by our engine: the generator's own, and for locustfiles.

A locustfile subclasses `InferenceUser` and says in `load` what `dlbench load` takes as options.
With a rate, users or a trace in it, Locust's users share that load among them, in one process or
in many, and its statistics are fed in bulk. Without one they run their own tasks, which send
single requests with `infer`. See docs/locustfile.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import locust
from locust import User
from locust.exception import StopUser
from locust.runners import WorkerRunner

from dlbench.loadgen.locust.coordinator import Coordinator
from dlbench.loadgen.locust.locustfile import Locustfile
from dlbench.loadgen.locust.participant import Participant
from dlbench.loadgen.locust.single import SingleRequests
from dlbench.loadgen.locust.tab import page_of
from dlbench.loadgen.quantity import digits, duration, latency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from locust.env import Environment
    from locust.runners import Runner

    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.measurement import Measurement

logger = logging.getLogger(__name__)

# What makes options a load; without one of them a user's own tasks run.
LOADS = ("rate", "users", "trace")


class InferenceUser(User):
    """Subclass it; `host` is a server, or one of its models (`http://HOST:PORT/v2/models/NAME`).

    The users of a class that has a load share it (each sends every n-th request), and begin
    together when Locust has spawned all of them: as many as there are processes is right. Users
    that come later find it under way, and wait. The load lasts as long as its `duration_s` says,
    else as Locust's `--run-time`, else 10 s, and ends early when Locust stops.
    """

    abstract = True
    # A LoadProfile's fields.
    load: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - the base's own
        super().__init_subclass__(**options)
        if cls.offers_load():
            cls.tasks = [InferenceUser.offer]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._client: SingleRequests | None = None

    @classmethod
    def offers_load(cls) -> bool:
        return any(name in cls.load for name in LOADS)

    @classmethod
    def measured(cls, found: Measurement, samples: Samples) -> None:  # noqa: ARG003 - for overriding
        """Called with the whole load's result, once and not in workers. Override it to keep more."""
        logger.info("%s: %s", cls.__name__, in_words(found))

    def offer(self) -> None:
        """The only task of a class with a load: send this user's share of it."""
        Participant(self.environment, type(self).__name__).take_part()
        raise StopUser

    def infer(self, number: int | None = None) -> bytes:
        """Send one request (`number` chooses which; None: the next one) and return the reply's body.

        It is recorded through Locust's request event: latency from the send, an error by its kind.
        Raises TargetError or DataError when the server or the inputs cannot be used at all.
        """
        if self._client is None:
            self._client = SingleRequests(self.environment, self.host or "", self.load)
        return self._client.infer(number)

    def on_stop(self) -> None:
        """Close the connection of `infer`; an override calls it, too."""
        if self._client is not None:
            self._client.close()


class LoadUser(InferenceUser):
    """The generator's own: its load comes from the controller."""

    tasks = [InferenceUser.offer]  # noqa: RUF012 - as Locust has it


def in_words(found: Measurement) -> str:
    """A result in one line."""
    figures = f"{found.throughput_rps:,.1f}/s over {duration(found.duration_s)}"
    if found.p50_ms is not None and found.p99_ms is not None:
        p50, p99 = (latency(ms, found.longest_ms) for ms in (found.p50_ms, found.p99_ms))
        figures += f", p50 {p50} ms, p99 {p99} ms"
        figures += f" from the {found.latency_from} time"
    if found.lateness_p99_ms is not None:
        figures += f", lateness p99 {digits(found.lateness_p99_ms, 2)} ms"
    reason = f" ({found.reason})" if found.reason else ""
    return f"{figures}, {found.error_rate:.2%} errors: {found.verdict}{reason}"


@locust.events.init.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def _coordinate(environment: Environment, runner: Runner, **_: object) -> None:
    """Only in the `locust` command; workers get their orders from it."""
    if not isinstance(runner, WorkerRunner):
        classes = [c for c in environment.user_classes if issubclass(c, InferenceUser)]
        if classes:
            Coordinator(environment, Locustfile(environment, page_of(environment.web_ui)))
