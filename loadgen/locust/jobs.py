"""The generator's jobs as Locust's runs: its environment, its runner and its page, for good."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING

import gevent
from gevent.event import AsyncResult, Event
from gevent.pywsgi import WSGIServer
from locust.env import Environment
from locust.runners import MasterRunner

from dlbench.loadgen.analysis.summary import summarise
from dlbench.loadgen.errors import GeneratorError, LoadError
from dlbench.loadgen.locust.coordinator import Coordinator
from dlbench.loadgen.locust.tab import NoPage, Page
from dlbench.loadgen.locust.user import LoadUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.locust.coordinator import Outcome
    from dlbench.loadgen.messages import Progress, RunFacts, RunJob

LOOK_S = 0.05
# Workers that were there come back after a run at once.
WORKERS_BACK_S = 30.0
QUIT_S = 3.0


class JobRunner:
    """Directs Locust: one run for each job of the controller, and one more for its Start button.

    The workers, where there are any, are `workers` local processes and as many others as `others`
    says; without any of both the load is this process' own.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self.environment = Environment(user_classes=[LoadUser])
        self._on_progress = on_progress
        self._page: NoPage = NoPage()
        self._job: RunJob | None = None
        self._outcome: AsyncResult[Outcome] | None = None
        self._at_rest = Event()
        self._at_rest.set()
        self._wanted = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        events = self.environment.events
        events.test_start.add_listener(  # type: ignore[no-untyped-call]
            lambda **_: self._at_rest.clear()
        )
        events.test_stop.add_listener(  # type: ignore[no-untyped-call]
            lambda **_: self._at_rest.set()
        )

    def work_alone(self) -> None:
        """Offer the loads from this process."""
        self.environment.create_local_runner()
        self._direct()

    def work_with(
        self, workers: int, others: int, bind: tuple[str, int], web: tuple[str, int] | None = None
    ) -> None:
        """Offer the loads through workers; returns when all of them are there.

        `web` is where Locust's page opens. Raises OSError when its port cannot be had.
        """
        runner = self.environment.create_master_runner(*bind)
        self._direct()
        if web:
            self._show(*web)
        near = "127.0.0.1" if bind[0] in ("0.0.0.0", "*") else bind[0]
        for _ in range(workers):
            self._start_worker(near, runner.server.port)
        self._wanted = workers + others
        self._wait_for_workers(runner, None)

    def _direct(self) -> None:
        self._coordinator = Coordinator(self.environment, self)

    def _start_worker(self, host: str, port: int) -> None:
        place = ["--master-host", host, "--master-port", str(port)]
        command = [sys.executable, "-m", "dlbench.loadgen.locust.worker", *place]
        # Its leash: the pipe's end, which nobody else has.
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self._processes.append(process)
        gevent.spawn(self._watch, process)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """The end of a worker is ours: nothing that it had measured is left."""
        code = process.wait()
        os.write(2, f"a worker process ended (exit code {code})\n".encode())
        os._exit(1)

    def _wait_for_workers(self, runner: MasterRunner, limit_s: float | None) -> None:
        end_s = time.monotonic() + limit_s if limit_s else float("inf")
        while len(runner.clients.ready) < self._wanted:
            if time.monotonic() > end_s:
                raise GeneratorError(
                    f"{len(runner.clients.ready)} of {self._wanted} workers have joined"
                )
            gevent.sleep(LOOK_S)

    def _show(self, host: str, port: int) -> None:
        web = self.environment.create_web_ui(host, port, delayed_start=True)
        self._page = Page(web)
        # Its own start binds in a greenlet, where nobody hears of a port that is taken.
        web.server = WSGIServer((host, port), web.app, log=None)
        web.server.start()

    def measure(self, job: RunJob) -> tuple[Samples, RunFacts]:
        """Do one job. Raises LoadError."""
        self._at_rest.wait()
        runner = self.environment.runner
        assert runner is not None
        if isinstance(runner, MasterRunner):
            self._wait_for_workers(runner, WORKERS_BACK_S)
        self._job, self._outcome = job, AsyncResult()
        self._at_rest.clear()
        users = max(1, self._wanted)
        self.environment.parsed_options = _as_on_the_page(job, users)
        runner.start(users, spawn_rate=users)
        outcome: Outcome = self._outcome.get()
        if isinstance(outcome, LoadError):
            raise outcome
        return outcome

    def stop(self) -> None:
        """End the current run early, or the next one if none is running."""
        self._coordinator.stop()

    def go_on(self) -> None:
        """Forget a stop that came too late for its run."""
        self._coordinator.stop_wanted = False

    def leave(self) -> None:
        """Send the workers home and end the process."""
        with gevent.Timeout(QUIT_S, False):
            if isinstance(self.environment.runner, MasterRunner):
                self.environment.runner.quit()
        os._exit(0)

    def loads(self) -> tuple[str]:
        return (LoadUser.__name__,)

    def job(self, load: str) -> RunJob:  # noqa: ARG002 - the interface
        if self._job is None:
            raise GeneratorError("there is no load to offer yet")
        return self._job

    def progressed(self, load: str, progress: Progress) -> None:
        self._page.progressed(load, progress)
        if self._outcome is not None:
            self._on_progress(progress)

    def ended(self, load: str, outcome: Outcome) -> None:
        if isinstance(outcome, LoadError):
            self._page.failed(load, str(outcome))
        else:
            assert self._job is not None
            self._page.ended(load, summarise(*outcome, self._job.profile))
        # A run that the page's Start button began is for the page alone.
        if self._outcome is not None:
            self._outcome.set(outcome)
            self._outcome = None

    def all_ended(self) -> None:
        assert self.environment.runner is not None
        gevent.spawn(self.environment.runner.stop)


def _as_on_the_page(job: RunJob, users: int) -> Namespace:
    """What the page's form is filled with, and what else Locust reads of its command line."""
    return Namespace(
        num_users=users,
        spawn_rate=users,
        host=job.target.url,
        run_time=None,
        stats_history_enabled=False,
        headless=False,
        enable_rebalancing=False,
        web_base_path="",
    )
