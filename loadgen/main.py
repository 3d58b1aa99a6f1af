"""The generator's own process: `python -m dlbench.loadgen.main`, jobs in, progress and results out.

It lives as long as its standard input, so that nothing is left over when the controller is
killed. Ctrl-C is the controller's to handle: it reaches this process too, and is ignored.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import gevent

# First, because it patches the standard library.
import locust  # noqa: F401
from gevent.queue import Queue
from pydantic import ValidationError

from dlbench.loadgen.connector import connector
from dlbench.loadgen.engine import Engine
from dlbench.loadgen.errors import DataError, LoadError
from dlbench.loadgen.judge import judge_of
from dlbench.loadgen.messages import (
    Failure,
    Job,
    Ready,
    Result,
    Stop,
    Update,
    parse_command,
    to_line,
)
from dlbench.loadgen.payloads import requests_of
from dlbench.loadgen.user import run_user

READ = 1
CHUNK = 65_536


class Controller:
    """The other end of our pipes."""

    def __init__(self) -> None:
        # What a library prints must not end up among the messages.
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._buffer = b""
        self.jobs: Queue[Job] = Queue()
        # Of the run under way, or of the one that comes next if it has not begun.
        self.engine: Engine | None = None
        self.stop_wanted = False
        self._watcher = gevent.get_hub().loop.io(0, READ)

    def listen(self) -> None:
        """Take commands from now on, under load too."""
        os.set_blocking(0, False)
        self._watcher.start(self._on_readable)

    def say(self, message: Any) -> None:  # noqa: ANN401 - any message
        line = memoryview(to_line(message))
        while line:
            line = line[os.write(self._out, line) :]

    def _parse(self, line: bytes) -> Job | Stop:
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
        if not data:
            os._exit(0)  # the controller is gone: nobody is left to clean up for
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            command = self._parse(line)
            if isinstance(command, Stop):
                self.stop_wanted = True
                if self.engine is not None:
                    self.engine.stop()
            else:
                self.stop_wanted = False
                self.jobs.put(command)


def measure(job: Job, controller: Controller) -> Result:
    """Do one job. Raises LoadError."""
    target, profile = job.target, job.profile
    requests = requests_of(target, profile, job.nonce)
    engine = Engine(
        profile,
        connector(target, profile),
        requests,
        judge_of(target, profile, requests),
        lambda progress: controller.say(Update(progress=progress)),
    )
    controller.engine = engine
    if controller.stop_wanted:
        engine.stop()
    try:
        samples, facts = run_user(engine, target.path)
    finally:
        controller.engine = None
    try:
        samples.save(Path(job.samples_path))
    except OSError as error:
        raise DataError(f"cannot keep the samples in {job.samples_path}: {error}") from None
    return Result(facts=facts)


def main() -> None:
    """Serve jobs until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    controller = Controller()
    controller.listen()
    controller.say(Ready())
    while True:
        job = controller.jobs.get()
        try:
            answer: Result | Failure = measure(job, controller)
        except LoadError as error:
            answer = Failure(error=type(error).__name__, message=str(error))
        controller.say(answer)


if __name__ == "__main__":
    main()
