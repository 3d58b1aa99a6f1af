"""The generator process, seen from the controller: start it once, have it measure again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pydantic import ValidationError

from dlbench.loadgen import errors
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.analysis.summary import summarise
from dlbench.loadgen.control.roles import ALONE, Role
from dlbench.loadgen.errors import GeneratorError
from dlbench.loadgen.messages import (
    Failure,
    Ready,
    RunJob,
    RunResult,
    Stop,
    Update,
    parse_answer,
    to_line,
)
from dlbench.loadgen.messages import Progress as Progress  # part of `measure`'s signature
from dlbench.loadgen.protocols.server_times import server_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dlbench.loadgen.measurement import Measurement
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target

CHUNK = 65_536
# What is shown of a dead process' last words, in one line.
TAIL_LINES = 4
CLOSE_S = 5.0


class Run(NamedTuple):
    """What a run gave: the derived figures, and the samples they were derived from."""

    measurement: Measurement
    samples: Samples


class Generator:
    """A context manager around the long-lived process; one measurement at a time."""

    def __init__(self, role: Role = ALONE) -> None:
        self._role = role
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Self:
        self.startup()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def startup(self) -> None:
        """Start the process and wait until it listens. Raises GeneratorError."""
        self._folder = tempfile.TemporaryDirectory(prefix="dlbench-load-")
        self._stderr = Path(self._folder.name) / "stderr"
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dlbench.loadgen.locust.main", *self._role.arguments()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a signal to our group is for us: its leash is stdin
            )
        if not isinstance(self._read(), Ready):
            raise GeneratorError("the load generator did not report ready")

    def measure(
        self,
        target: Target,
        profile: LoadProfile,
        *,
        on_progress: Callable[[Progress], None] = lambda _: None,
        samples_path: Path | None = None,
    ) -> Run:
        """Offer the load and return the result; raw samples are saved to `samples_path`.

        Ctrl-C ends the run early and returns what there is (`measurement.complete` is False); a
        second one interrupts. A caller with a SIGINT handler of its own keeps it. Raises LoadError
        for a load that cannot be made, GeneratorError when the process dies.
        """
        path = samples_path or Path(self._folder.name) / "samples.npz"
        clock = server_clock(target, profile)
        before = clock.read()
        self._say(_job(target, profile, path))
        with self._stopped_by_ctrl_c():
            try:
                answer = self._outcome(on_progress)
            except BaseException:
                # The run goes on over there, and its answers would be taken for the next one's.
                self.shutdown()
                raise
        if isinstance(answer, Failure):
            raise getattr(errors, answer.error, GeneratorError)(answer.message)
        samples = Samples.load(path)
        server = clock.since(before)
        return Run(summarise(samples, answer.facts, profile, server), samples)

    def _outcome(self, on_progress: Callable[[Progress], None]) -> RunResult | Failure:
        while True:
            match answer := self._read():
                case Update():
                    on_progress(answer.progress)
                case RunResult() | Failure():
                    return answer
                case Ready():
                    raise GeneratorError("the load generator started a second time")

    @contextmanager
    def _stopped_by_ctrl_c(self) -> Iterator[None]:
        """The first Ctrl-C stops the run; Python's own handling waits for the second."""
        ours = threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        def stop(*_: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.stop()

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop(self) -> None:
        """End the current run early: `measure` returns a partial result. Signal-safe."""
        self._say(Stop())

    def shutdown(self) -> None:
        """End the process; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._folder.cleanup()

    def _say(self, message: RunJob | Stop) -> None:
        process = self._running()
        assert process.stdin is not None
        try:
            os.write(process.stdin.fileno(), to_line(message))
        except BrokenPipeError:
            raise self._death() from None

    def _read(self) -> Ready | Update | RunResult | Failure:
        """The next answer. Its buffer is ours, so that an interruption loses nothing."""
        process = self._running()
        assert process.stdout is not None
        while b"\n" not in self._buffer:
            data = os.read(process.stdout.fileno(), CHUNK)
            if not data:
                raise self._death()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return parse_answer(line)
        except ValidationError:
            raise GeneratorError(
                f"the load generator sent an unexpected message: {line[:200]!r}"
            ) from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise GeneratorError("the load generator is not running")
        return self._process

    def _death(self) -> GeneratorError:
        code = self._running().wait(CLOSE_S)
        lines = self._stderr.read_text(errors="replace").split("\n")
        tail = " | ".join([line.strip() for line in lines if line.strip()][-TAIL_LINES:])
        return GeneratorError(f"the load generator died (exit code {code}): {tail or 'no output'}")


def _job(target: Target, profile: LoadProfile, path: Path) -> RunJob:
    return RunJob(
        target=target, profile=profile, nonce=time.time_ns(), samples_path=str(path.absolute())
    )
