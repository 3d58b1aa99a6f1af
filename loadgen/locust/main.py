"""The generator's own process: `python -m dlbench.loadgen.locust.main`, jobs in, progress and results out.

It lives as long as its standard input, so that nothing is left over when the controller is
killed. Ctrl-C is the controller's to handle: it reaches this process too, and is ignored.

Without options it offers loads itself. With `--processes`, `--master-bind` or `--web` it is the
master of Locust workers, which do; the page is never in a process that has a schedule to keep.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent

# First, because it patches the standard library.
import locust  # noqa: F401
from gevent.queue import Queue
from pydantic import ValidationError

from dlbench.loadgen.errors import DataError, LoadError
from dlbench.loadgen.locust.jobs import JobRunner
from dlbench.loadgen.messages import (
    Failure,
    Ready,
    RunJob,
    RunResult,
    Stop,
    Update,
    parse_command,
    to_line,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from dlbench.loadgen.messages import Progress

READ = 1
CHUNK = 65_536
LOOPBACK = "127.0.0.1"


class Controller:
    """The other end of our pipes."""

    def __init__(self) -> None:
        # What a library prints must not end up among the messages.
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._buffer = b""
        self.jobs: Queue[RunJob] = Queue()
        self.session = JobRunner(self.update)
        self._watcher = gevent.get_hub().loop.io(0, READ)

    def listen(self) -> None:
        """Take commands from now on, under load too."""
        os.set_blocking(0, False)
        self._watcher.start(self._on_readable)

    def say(self, message: Any) -> None:  # noqa: ANN401 - any message
        line = memoryview(to_line(message))
        while line:
            line = line[os.write(self._out, line) :]

    def update(self, progress: Progress) -> None:
        """Say how the run goes on."""
        self.say(Update(progress=progress))

    def _parse(self, line: bytes) -> RunJob | Stop:
        try:
            return parse_command(line)
        except ValidationError as error:
            # Raised here it would end in the event loop, and the controller would wait forever.
            os.write(2, f"not a command: {error}\n".encode())
            os._exit(1)

    def _on_readable(self) -> None:
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return
        if not data:  # the controller is gone
            self._watcher.stop()
            gevent.spawn(self.session.leave)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            command = self._parse(line)
            if isinstance(command, Stop):
                gevent.spawn(self.session.stop)
            else:
                self.session.go_on()
                self.jobs.put(command)


def measure(job: RunJob, session: JobRunner) -> RunResult:
    """Do one job. Raises LoadError."""
    samples, facts = session.measure(job)
    try:
        samples.save(Path(job.samples_path))
    except OSError as error:
        raise DataError(f"cannot save the samples to {job.samples_path}: {error}") from None
    return RunResult(facts=facts)


def place(text: str, host: str = LOOPBACK) -> tuple[str, int]:
    """`[HOST:]PORT` as both. Raises ValueError."""
    given, _, port = text.rpartition(":")
    return given.strip("[]") or host, int(port)


def parse(arguments: list[str]) -> Namespace:
    """What a `roles.Role` says."""
    parser = argparse.ArgumentParser(prog="dlbench.loadgen.locust.main")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--master-bind", type=place)
    parser.add_argument("--expect-workers", type=int, default=0)
    parser.add_argument("--web", type=place)
    return parser.parse_args(arguments)


def begin(session: JobRunner, role: Namespace) -> None:
    """Become what the role says; returns when all workers are there. Raises OSError."""
    if not (role.processes or role.master_bind or role.web):
        session.work_alone()
        return
    others = role.expect_workers if role.master_bind else 0
    own = role.processes or (0 if others else 1)
    session.work_with(own, others, role.master_bind or (LOOPBACK, 0), role.web)


def main() -> None:
    """Serve jobs until standard input ends."""
    role = parse(sys.argv[1:])
    del sys.argv[1:]  # Locust's page would take them for its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    controller = Controller()
    controller.listen()
    try:
        begin(controller.session, role)
    except OSError as error:
        sys.exit(f"cannot listen at {role.web[0]}:{role.web[1]}: {error.strerror}")
    controller.say(Ready())
    while True:
        job = controller.jobs.get()
        try:
            answer: RunResult | Failure = measure(job, controller.session)
        except LoadError as error:
            answer = Failure(error=type(error).__name__, message=str(error))
        controller.say(answer)


if __name__ == "__main__":
    main()
