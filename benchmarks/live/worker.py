"""What a worker adds to onnxruntime, and what the front pays to feed it: CPU time per row.

    .venv/bin/python -m benchmarks.live.worker [--repeats 7]

A real worker process is fed frames over its socket, one at a time, requests of one row each. Beside
it, in turn, the same session is run in this process on ready-made arrays. `silero` has its batch on
axis 1 of the state, so rows are rearranged; `mlp` on axis 0; `null` copies its input, so that what
is left is the worker. Processor time is that of the scheduler (Linux).
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import orjson
from onnx import TensorProto, helper

from benchmarks.harness import machine, models
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.models.signature import row_shapes
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tensors import signature_from
from dlbench.proxy.workers import frames
from dlbench.proxy.workers.link import spawn
from dlbench.proxy.workers.providers import executor_of
from dlbench.proxy.workers.session import Session
from dlbench.proxy.workers.start import arguments

BATCHES = (1, 8, 32, 64)
SIZES = {"input": (576,)}  # of silero's open dimension
# Each repeat of each side takes about so long.
ROUND_S = 0.08


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(machine.show(machine.facts("onnxruntime-gpu", "numpy")), "\n", sep="")
    print("us of CPU per row, median of the repeats; worker with its lowest and highest repeat")
    heads = ("model", "rows", "onnxruntime", "worker", "", "ratio", "encode", "decode")
    print("{:<8}{:>5}{:>13}{:>9}  {:<17}{:>7}{:>9}{:>9}".format(*heads))
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            "silero": models.fetch("silero_vad_half"),
            "mlp": resolve_model("demo:mlp").path,
            "null": null_model(Path(folder)),
        }
        for name, path in paths.items():
            for rows in BATCHES:
                show(name, rows, measure(str(path), rows, repeats))


def show(name: str, rows: int, found: dict[str, list[float]]) -> None:
    alone, worker = median(found["alone"]), median(found["worker"])
    spread = f"({min(found['worker']):.2f}-{max(found['worker']):.2f})"
    print(
        f"{name:<8}{rows:>5}{alone:>13.2f}{worker:>9.2f}  {spread:<17}{worker / alone:>7.2f}"
        f"{median(found['encode']):>9.3f}{median(found['decode']):>9.3f}",
        flush=True,
    )


def measure(path: str, rows: int, repeats: int) -> dict[str, list[float]]:
    """Microseconds per row of every side, one for each repeat."""
    settings = ServerSettings(model=path, device="cpu")
    config = ServingConfig(max_batch_size=rows)
    process, stream = spawn(arguments(path, settings, config))
    with stream:
        hello = orjson.loads(receive(stream)[frames.HEAD.size :])
        signature = signature_from(hello["signature"])
        arrays = values(signature, rows)
        shapes = [array.shape for array in arrays]
        pieces = [piece for array in arrays for piece in requests_of(array, rows)]
        session = Session(path, executor_of(settings, config, 0))
        batch = b"".join(frames.encode_batch(7, [1] * rows, shapes, pieces))
        result = taken_apart(exchange(stream, batch))
        item_sizes = tuple(spec.item_size for spec in signature.outputs)
        sides = {
            "alone": (time.thread_time_ns, lambda: session.run(arrays)),
            "worker": (lambda: process_time_ns(process.pid), lambda: exchange(stream, batch)),
            "encode": (
                time.thread_time_ns,
                lambda: frames.encode_batch(7, [1] * rows, shapes, pieces),
            ),
            "decode": (time.thread_time_ns, lambda: frames.decode_result(result, item_sizes)),
        }
        counts = {name: rounds(work) for name, (_, work) in sides.items()}
        found = {name: [] for name in sides}
        for _ in range(repeats):
            for name, (clock, work) in sides.items():
                before = clock()
                for _ in range(counts[name]):
                    work()
                found[name].append((clock() - before) / counts[name] / rows / 1000)
    process.wait()
    return found


def rounds(work) -> int:
    """How often to repeat something so that it takes about as long as a round should."""
    work()
    began = time.perf_counter()
    for _ in range(3):
        work()
    return max(5, int(3 * ROUND_S / (time.perf_counter() - began)))


def values(signature, rows: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    shapes = row_shapes(signature.inputs, SIZES, rows)
    return [
        random.random(shape).astype(spec.numpy_type)
        for spec, shape in zip(signature.inputs, shapes, strict=True)
    ]


def requests_of(array: np.ndarray, rows: int) -> list[bytes]:
    """The bytes of each row; which numbers are whose makes no difference to the time."""
    data, size = array.tobytes(), array.nbytes // rows
    return [data[start : start + size] for start in range(0, len(data), size)]


def exchange(stream, batch: bytes) -> bytearray:
    stream.sendall(batch)
    return receive(stream)


def receive(stream) -> bytearray:
    """One frame."""
    frame = bytearray(frames.size_of(stream.recv(frames.SIZE.size, socket.MSG_PEEK)))
    view = memoryview(frame)
    while view:
        view = view[stream.recv_into(view) :]
    return frame


def taken_apart(frame: bytearray) -> frames.Frame:
    reader = frames.FrameReader(len(frame))
    reader.room()[:] = frame
    return reader.received(len(frame))[0]


def process_time_ns(pid: int) -> int:
    """Time on a processor, to the nanosecond (psutil counts ticks of 10 ms)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def null_model(folder: Path) -> Path:
    """256 numbers a row, passed on."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 256]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "null", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "null.onnx"
    path.write_bytes(model.SerializeToString())
    return path


if __name__ == "__main__":
    sys.exit(main())
