"""Directs the loads of a locustfile's classes: what each one requests, and its result."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import gevent
from pydantic import ValidationError

from dlbench.loadgen.analysis.summary import summarise
from dlbench.loadgen.errors import DataError, LoadError
from dlbench.loadgen.messages import RunJob
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.protocols.server_times import Totals, server_clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from locust.env import Environment

    from dlbench.loadgen.locust.coordinator import Outcome
    from dlbench.loadgen.locust.tab import NoPage
    from dlbench.loadgen.messages import Progress

logger = logging.getLogger(__name__)


def profile_of(load: Mapping[str, Any], **defaults: Any) -> LoadProfile:  # noqa: ANN401 - its fields
    """A class' `load` as a profile. Raises DataError in one line."""
    try:
        return LoadProfile(**{**defaults, **load})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "load"
        raise DataError(f"{where}: {first['msg']}") from None


class Locustfile:
    """The `locust` command's director."""

    def __init__(self, environment: Environment, page: NoPage) -> None:
        self._environment, self._page = environment, page
        self._jobs: dict[str, tuple[RunJob, Totals | None]] = {}

    def loads(self) -> list[str]:
        return [c.__name__ for c in self._environment.user_classes if _offers_load(c)]

    def job(self, load: str) -> RunJob:
        """Raises LoadError."""
        cls: Any = self._environment.user_classes_by_name[load]
        options = self._environment.parsed_options
        run_time = options.run_time if options else None
        profile = profile_of(cls.load, **({"duration_s": run_time} if run_time else {}))
        target = discover(cls.host or "", profile)
        job = RunJob(target=target, profile=profile, nonce=time.time_ns(), samples_path="")
        self._jobs[load] = job, server_clock(target, profile).read()
        return job

    def progressed(self, load: str, progress: Progress) -> None:
        self._page.progressed(load, progress)

    def ended(self, load: str, outcome: Outcome) -> None:
        if isinstance(outcome, LoadError):
            logger.error("%s: %s", load, outcome)
            self._page.failed(load, str(outcome))
            self._environment.process_exit_code = 1
            return
        job, before = self._jobs[load]
        samples, facts = outcome
        server = server_clock(job.target, job.profile).since(before)
        found = summarise(samples, facts, job.profile, server)
        self._page.ended(load, found)
        cls: Any = self._environment.user_classes_by_name[load]
        cls.measured(found, samples)

    def all_ended(self) -> None:
        """Without other users the work is done: a headless Locust quits, a web page stays open."""
        if len(self.loads()) < len(self._environment.user_classes):
            return
        runner, options = self._environment.runner, self._environment.parsed_options
        assert runner is not None
        gevent.spawn(runner.quit if options and options.headless else runner.stop)


def _offers_load(cls: Any) -> bool:  # noqa: ANN401 - any user class
    return bool(getattr(cls, "offers_load", bool)())
