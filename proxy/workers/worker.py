"""A worker process: one session, fed with batches over a socket.

`python -m dlbench.proxy.workers.worker JSON FD [LIFELINE]`. It loads and warms the model, says hello with
the signature, then answers frames until the socket FD ends, which is how it learns that the front is
gone. One that serves a front elsewhere has a second socket, to the node that started it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from dlbench.proxy.errors import ModelError, ProxyError
from dlbench.proxy.models.independence import Independence, examine
from dlbench.proxy.models.model import ModelFile
from dlbench.proxy.models.signature import first_line, noted, row_shapes, settle, unbatchable
from dlbench.proxy.workers import frames
from dlbench.proxy.workers.channel import Channel
from dlbench.proxy.workers.prepared import PreparedBatch
from dlbench.proxy.workers.providers import Executor
from dlbench.proxy.workers.session import Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Buffer
    from dlbench.proxy.workers.channel import Arrival
    from dlbench.proxy.workers.frames import Shapes

# Runs before a worker says that it is ready: the first ones allocate.
WARMUP_RUNS = 2
# What is kept for batches of shapes that were seen; above either all of it is let go. A shape takes
# some 8 kB beside its arrays, so their bytes alone are no bound.
KEPT_BYTES = 64 << 20
KEPT_SHAPES = 1024
LEFT_OUT = "slow model: skipped {} tests of whether rows depend on each other"


def main() -> None:
    """Serve the socket that the arguments name."""
    # Both may be sent to the whole group, but they are for the front, which drains and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    arguments, stream, *lifelines = sys.argv[1:]
    for lifeline in lifelines:
        threading.Thread(target=_end_with, args=(int(lifeline),), daemon=True).start()
    channel = Channel(socket.socket(fileno=int(stream)))
    try:
        worker = Worker(**orjson.loads(arguments))
    except ProxyError as error:
        channel.send(frames.encode_text(frames.FAILURE, 0, str(error).encode()))
        return
    channel.send(frames.encode_text(frames.HELLO, 0, orjson.dumps(worker.hello())))
    while (arrival := channel.receive()) is not None:
        channel.send(worker.answer(arrival))


def _end_with(lifeline: int) -> None:
    """Exit when the process at the other end does, even in the middle of a batch."""
    os.read(lifeline, 1)
    os._exit(0)


class Worker:
    """A warmed session with its signature settled."""

    def __init__(
        self,
        path: str,
        executor: dict[str, Any],
        max_batch_size: int,
        batch_axis: dict[str, int],
        shape: dict[str, list[int]],
        independent: bool | None,
        fingerprint: str = "",
        max_result_bytes: int = sys.maxsize,
    ) -> None:
        """`independent` says whether rows may share a batch; None: to be determined.

        With a `fingerprint` the file and its weights have to be those, once they are loaded. A
        result of more than `max_result_bytes` is refused.
        """
        self._most = max_result_bytes
        self._session = Session(path, Executor(**executor))
        if fingerprint and ModelFile(Path(path), "").fingerprint().hex() != fingerprint:
            raise ModelError(f"{path} or its weights changed while they were loaded")
        sizes = {name: tuple(values) for name, values in shape.items()}
        self.signature, self._one_row = settle(
            self._session.inputs, self._session.outputs, self._session.shapes_of, batch_axis, sizes
        )
        if self.signature.batchable and not independent:
            self._settle_independence(independent, max_batch_size)
        self._warm_up(max_batch_size)
        self._room: NDArray[np.uint8] | None = None
        self._prepared: dict[Shapes, PreparedBatch] = {}

    def hello(self) -> dict[str, Any]:
        """What the front needs to know."""
        return {
            "signature": asdict(self.signature),
            "device": self._session.device,
            "device_reason": self._session.device_reason,
        }

    def answer(self, arrival: Arrival) -> list[Buffer]:
        """The result of a batch, or the model's own words why not."""
        try:
            return self._run(arrival)
        except Exception as error:
            text = first_line(error).encode()
            return frames.encode_text(frames.FAILURE, arrival.number, text)

    def _run(self, arrival: Arrival) -> list[Buffer]:
        arrived = time.perf_counter_ns()
        rows, shapes = frames.decode_batch(arrival.layout)
        batch = self._prepare(shapes, arrival.room)
        if batch.size != arrival.size:
            raise ValueError(f"{arrival.size} bytes received for a batch of {batch.size}")
        batch.join(rows)
        began = time.perf_counter_ns()
        outputs = batch.run()
        ended = time.perf_counter_ns()
        size = sum(output.nbytes for output in outputs)
        if size > self._most:
            raise ValueError(f"outputs of {size >> 20} MiB exceed the limit of {self._most >> 20}")
        cut = batch.split(outputs, rows)
        times = (began - arrived, ended - began, time.perf_counter_ns() - ended)
        return frames.encode_result(arrival.number, times, cut.shapes, cut.data, cut.size)

    def _prepare(self, shapes: Shapes, room: NDArray[np.uint8]) -> PreparedBatch:
        """What is kept for batches of these shapes."""
        if room is not self._room:
            self._room = room
            self._prepared.clear()
        found = self._prepared.get(shapes)
        if found is None:
            if self._has_kept_enough():
                self._prepared.clear()
            found = PreparedBatch(self.signature, self._session, shapes, room)
            self._prepared[shapes] = found
        return found

    def _has_kept_enough(self) -> bool:
        kept = self._prepared
        return len(kept) >= KEPT_SHAPES or sum(b.kept_bytes for b in kept.values()) > KEPT_BYTES

    def _settle_independence(self, known: bool | None, most_rows: int) -> None:
        """One request at a time where a batch would change the answers."""
        found = Independence("as the first worker found")
        if known is None:
            run = self._session.run
            # Of this thread alone: how much is tried must not depend on what else the machine does.
            found = examine(self.signature, self._one_row, run, most_rows, time.thread_time)
        if found.why:
            self.signature = unbatchable(self.signature, found.why)
        elif found.left_out:
            self.signature = noted(self.signature, LEFT_OUT.format(found.left_out))

    def _warm_up(self, max_batch_size: int) -> None:
        """Run one row and a full batch, so that no client pays for the first allocations."""
        batches = {1, max_batch_size if self.signature.batchable else 1}
        sizes = {
            spec.name: tuple(
                size
                for axis, (size, dim) in enumerate(zip(shape, spec.dims, strict=True))
                if isinstance(dim, str) and axis != spec.batch_axis
            )
            for spec, shape in zip(self.signature.inputs, self._one_row, strict=True)
        }
        for rows in sorted(batches):
            for _ in range(WARMUP_RUNS):
                try:
                    self._session.shapes_of(row_shapes(self.signature.inputs, sizes, rows))
                except Exception as error:  # whatever a model says, memory included
                    raise ModelError(
                        f"the model does not run with a batch of {rows}: {first_line(error)}"
                    ) from None


if __name__ == "__main__":
    main()
