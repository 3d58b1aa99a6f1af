"""Real workers, fed as the front feeds them: how long they take for a batch.

The proxy's own links to its own worker processes, on its own kind of event loop; only HTTP, queues
and cache are missing. What is measured is therefore what the front sees: computing, and the worker's
reading, joining, splitting and answering.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from dlbench.proxy.tensors import Signature, signature_from
from dlbench.proxy.workers import frames
from dlbench.proxy.workers.start import start_workers
from dlbench.tuner.errors import TuneError
from dlbench.tuner.twin.service_times import FEWEST_BATCHES, Visit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings
    from dlbench.proxy.workers.frames import Result
    from dlbench.proxy.workers.link import WorkerLink
    from dlbench.tuner.twin.service_times import Cell

    Row = dict[str, np.ndarray[Any, Any]]

NS = 1e9
# Shorter batches are committed two at a time, as the proxy does it: so the way there and back,
# which is measured by itself, is no part of their time.
DEEP_BELOW_S = 5e-3


class Times(NamedTuple):
    """Per batch, in seconds: between two answers, and as the worker itself counts them."""

    between: np.ndarray[Any, np.dtype[np.float64]]
    own: np.ndarray[Any, np.dtype[np.float64]]


class Work(NamedTuple):
    """A batch, ready to send."""

    rows: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    pieces: tuple[bytes, ...]


class Driven:
    """Context manager around `count` workers with the same number of threads."""

    def __init__(
        self,
        path: str,
        settings: ServerSettings,
        config: ServingConfig,
        count: int,
        rows: Sequence[Row],
    ) -> None:
        self._start = partial(start_workers, path, settings, config, range(count))
        self._rows, self._patience_s = rows, config.worker_timeout_s
        self._runner = asyncio.Runner(loop_factory=_loop_factory())
        self._links: list[WorkerLink] = []
        self.signature: Signature
        self.result_bytes = 0  # of one row

    def __enter__(self) -> Self:
        """Raises ProxyError in the worker's words."""
        try:
            self._links = self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise
        self.signature = signature_from(self._links[0].hello.result()["signature"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._runner.run(_stopped(self._links))
        finally:
            self._runner.close()

    @property
    def rss_mb(self) -> float:
        """Resident memory of the first worker, in MiB."""
        return float(psutil.Process(self._links[0].pid).memory_info().rss) / 2**20

    def visit(self, cell: Cell, seconds: float, expected_s: float) -> Visit:
        """Keep `cell.busy` workers busy for so long.

        Raises TuneError for a model that refuses the batch, or a worker that dies.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        times = self._run(cell, seconds, 2 if 0 < expected_s < DEEP_BELOW_S else 1)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        own = [one.own for one in times]
        cv = float(np.median([np.std(values) / np.mean(values) for values in own]))
        return Visit(float(np.mean([np.mean(one.between) for one in times])), cv, share)

    def way_s(self, cell: Cell, seconds: float, service_s: float) -> float:
        """One way between front and an idle worker: half of what a lone batch takes longer."""
        (times,) = self._run(cell._replace(busy=1), seconds, 1)
        busy_s = service_s if service_s < DEEP_BELOW_S else float(np.median(times.own))
        return max(0.0, float(np.median(times.between)) - busy_s) / 2

    def _run(self, cell: Cell, seconds: float, depth: int) -> list[Times]:
        return self._runner.run(self._feed(cell, seconds, depth))

    async def _feed(self, cell: Cell, seconds: float, depth: int) -> list[Times]:
        work = work_of(self.signature, self._rows, cell.batch)
        until = time.perf_counter() + seconds
        feeds = [Feed(link, work, depth, until) for link in self._links[: cell.busy]]
        for feed in feeds:
            feed.start()
        try:
            async with asyncio.timeout(seconds + self._patience_s):
                found = await asyncio.gather(*(feed.done for feed in feeds))
        except TimeoutError:
            raise TuneError(f"batches of {cell.batch} take over {self._patience_s:g} s") from None
        self.result_bytes = feeds[0].result_bytes // cell.batch
        return found


class Feed:
    """Keeps `depth` batches at one worker until the time is over and enough are done."""

    def __init__(self, link: WorkerLink, work: Work, depth: int, until_s: float) -> None:
        self._link, self._work, self._depth, self._until_s = link, work, depth, until_s
        self._stamps: list[float] = []
        self._own_ns: list[int] = []
        self._sent = 0
        self.result_bytes = 0
        self.done: asyncio.Future[Times] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Send the first ones."""
        self._link.on_result, self._link.on_lost = self._on_result, self._on_lost
        # One at a time the first is timed from here, two at a time from the first answer.
        self._stamps += [time.perf_counter()][: 2 - self._depth]
        for _ in range(self._depth):
            self._send()
        if not self._link.alive:  # it died when nobody listened
            self._on_lost(self._link)

    def _send(self) -> None:
        self._sent += 1
        self._link.send(frames.encode_batch(self._sent, *self._work))

    def _on_result(self, _: WorkerLink, number: int, result: Result | str) -> None:
        now = time.perf_counter()
        if isinstance(result, str):
            self._fail(f"the model rejects a batch of {len(self._work.rows)}: {result}")
            return
        self._stamps.append(now)
        self._own_ns.append(result.input_ns + result.compute_ns + result.output_ns)
        self.result_bytes = sum(len(tensor.data) for tensor in result.tensors)
        if now < self._until_s or len(self._stamps) <= FEWEST_BATCHES:
            self._send()
        elif number == self._sent and not self.done.done():
            self.done.set_result(Times(np.diff(self._stamps), np.array(self._own_ns) / NS))

    def _on_lost(self, _: WorkerLink) -> None:
        self._fail("a worker died during the calibration")

    def _fail(self, text: str) -> None:
        if not self.done.done():
            self.done.set_exception(TuneError(text))


def work_of(signature: Signature, rows: Sequence[Row], batch: int) -> Work:
    """A batch of requests with a row each, taken in turns; each has its own bytes."""
    chosen = [rows[number % len(rows)] for number in range(batch)]
    shapes, pieces = [], []
    for spec in signature.inputs:
        arrays = [row[spec.name] for row in chosen]
        shape = list(arrays[0].shape)
        if spec.batch_axis < 0:  # the same for all requests of a batch
            arrays = arrays[:1]
        else:
            shape[spec.batch_axis] = batch
        shapes.append(tuple(shape))
        pieces.append(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
    return Work((1,) * batch, tuple(shapes), tuple(pieces))


async def _stopped(links: Sequence[WorkerLink]) -> None:
    await asyncio.gather(*(link.shutdown() for link in links))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The proxy's event loop: uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
