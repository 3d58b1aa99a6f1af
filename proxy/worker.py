"""A worker process: one session, fed with batches over a socket.

`python -m dlbench.proxy.worker FD JSON`. It loads and warms the model, says hello with the
signature, then answers frames until the socket ends, which is how it learns that the front is gone.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.proxy import frames
from dlbench.proxy.errors import ModelError, ProxyError
from dlbench.proxy.independence import coupled_output
from dlbench.proxy.session import Session
from dlbench.proxy.signature import first_line, row_shapes, settle, unbatchable
from dlbench.proxy.tensors import Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Runs before a worker says that it is ready: the first ones allocate.
WARMUP_RUNS = 2


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    # Both may be sent to the whole group, but they are for the front, which drains and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        worker = Worker(**orjson.loads(sys.argv[2]))
    except ProxyError as error:
        channel.send(frames.encode(frames.FAILURE, 0, [str(error).encode()]))
        return
    channel.send(frames.encode(frames.HELLO, 0, [orjson.dumps(worker.hello())]))
    while (frame := channel.receive()) is not None:
        number, body = frame
        channel.send(worker.answer(number, body))


class Channel:
    """Blocking frames over a stream socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream

    def send(self, pieces: list[Any]) -> None:
        """Send all pieces of a frame; a front that is gone ends the process."""
        views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        try:
            while views:
                sent = self._socket.sendmsg(views[:512])
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if sent:
                    views[0] = views[0][sent:]
        except OSError:
            sys.exit(0)

    def receive(self) -> tuple[int, memoryview] | None:
        """The next frame's id and body, None when the socket has ended."""
        head = self._exactly(frames.HEAD.size)
        if head is None:
            return None
        size, _, number = frames.HEAD.unpack(head)
        body = self._exactly(size + frames.SIZE.size - frames.HEAD.size)
        return None if body is None else (number, memoryview(body))

    def _exactly(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while len(view):
            try:
                count = self._socket.recv_into(view)
            except OSError:
                return None
            if not count:
                return None
            view = view[count:]
        return buffer


class Worker:
    """A warmed session with its signature settled."""

    def __init__(
        self,
        path: str,
        device: str,
        intra_op_threads: int,
        max_batch_size: int,
        batch_axis: dict[str, int],
        shape: dict[str, list[int]],
    ) -> None:
        self._session = Session(path, device, intra_op_threads)
        sizes = {name: tuple(values) for name, values in shape.items()}
        self.signature, self._one_row = settle(
            self._session.inputs, self._session.outputs, self._session.shapes_of, batch_axis, sizes
        )
        # Who names the batch axis knows the model and is believed.
        if self.signature.batchable and not batch_axis:
            self._check_independence()
        self._item_sizes = [spec.item_size for spec in self.signature.inputs]
        self._warm_up(max_batch_size)

    def hello(self) -> dict[str, Any]:
        """What the front needs to know."""
        return {
            "signature": asdict(self.signature),
            "device": self._session.device,
            "device_reason": self._session.device_reason,
        }

    def answer(self, number: int, body: memoryview) -> list[Any]:
        """The result of a batch, or the model's own words why not."""
        try:
            return self._run(number, frames.decode_batch(body, self._item_sizes))
        except Exception as error:
            return frames.encode(frames.FAILURE, number, [first_line(error).encode()])

    def _run(self, number: int, batch: frames.Batch) -> list[Any]:
        specs = self.signature.inputs
        arrays = [_joined(s, t, batch.rows) for s, t in zip(specs, batch.tensors, strict=True)]
        began = time.perf_counter_ns()
        outputs = self._session.run(arrays)
        took = time.perf_counter_ns() - began
        tensors = [
            _split(spec, array, batch.rows)
            for spec, array in zip(self.signature.outputs, outputs, strict=True)
        ]
        return frames.encode_result(number, took, tensors)

    def _check_independence(self) -> None:
        """One request at a time where a batch would change the answers."""
        output = coupled_output(self.signature, self._one_row, self._session.run)
        if output:
            why = f"the rows of output {output!r} depend on each other (--batch-axis overrules)"
            self.signature = unbatchable(self.signature, why)

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


def _joined(spec: TensorSpec, tensor: Tensor, rows: Sequence[int]) -> NDArray[Any]:
    """The pieces of an input as one array."""
    flat = np.frombuffer(tensor.data, dtype=spec.numpy_type)
    if spec.batch_axis <= 0 or len(rows) == 1:
        return flat.reshape(tensor.shape)
    per_row = flat.size // sum(rows)
    ends = np.cumsum([count * per_row for count in rows])[:-1]
    pieces = [
        piece.reshape(_with_rows(spec, tensor.shape, count))
        for piece, count in zip(np.split(flat, ends), rows, strict=True)
    ]
    return np.concatenate(pieces, axis=spec.batch_axis)


def _split(spec: TensorSpec, array: NDArray[Any], rows: Sequence[int]) -> Tensor:
    """An output with every request's piece contiguous."""
    if spec.batch_axis <= 0 or len(rows) == 1:
        data = np.ascontiguousarray(array)
    else:
        ends = np.cumsum(rows)[:-1]
        pieces = np.split(array, ends, axis=spec.batch_axis)
        data = np.concatenate([piece.ravel() for piece in pieces])
    return Tensor(array.shape, data.reshape(-1).view(np.uint8).data)


def _with_rows(spec: TensorSpec, shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    return (*shape[: spec.batch_axis], rows, *shape[spec.batch_axis + 1 :])


if __name__ == "__main__":
    try:
        main()
    except struct.error as error:  # a frame that makes no sense can only come from a broken front
        sys.exit(f"worker: broken frame: {error}")
