"""The model as every peer uses it: one body of raw tensors in, one body of raw tensors out.

Shared by the peers so that none of them is slowed down by a clumsy decoder: a batch is one join,
one view per tensor and one `session.run`. Knows numpy and onnxruntime alone, because it is imported
inside each peer's own venv. Whoever has tensors instead of bodies calls `compute`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

DTYPES = {"tensor(float)": np.dtype("<f4"), "tensor(int32)": np.dtype("<i4")}

# (name, shape of one request, batch axis), in the model's own order of inputs.
SIGNATURES = {
    "silero_vad_half": (("input", (1, 576), 0), ("state", (2, 1, 128), 1)),
    "magika": (("bytes", (1, 2048), 0),),
}
OUTPUT_AXES = {"silero_vad_half": (0, 1), "magika": (0,)}


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in the body of a single request."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]  # of one request, its batch axis moved to the front
    axis: int
    start: int
    stop: int


def session(path: str) -> ort.InferenceSession:
    """One thread that does not spin: what all sides of the comparison are given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Model:
    """Runs batches of raw request bodies."""

    def __init__(self, path: str, kind: str) -> None:
        self.session = session(path)
        self.tensors = layout(self.session, kind)
        self.output_axes = OUTPUT_AXES[kind]

    def run(self, bodies: list[bytes]) -> list[bytes]:
        """Replies to `bodies`, computed as one batch."""
        rows = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
        return encode(self.compute([decode(rows, tensor) for tensor in self.tensors]))

    def compute(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs for `batches`, one of each input; the batch is axis 0 on both sides."""
        feed = {
            tensor.name: place(batch, tensor)
            for tensor, batch in zip(self.tensors, batches, strict=True)
        }
        outputs = self.session.run(None, feed)
        return [np.moveaxis(a, axis, 0) for a, axis in zip(outputs, self.output_axes, strict=True)]


def layout(model: ort.InferenceSession, kind: str) -> list[Tensor]:
    """Where each input lies in a body."""
    dtypes = {value.name: DTYPES[value.type] for value in model.get_inputs()}
    tensors, offset = [], 0
    for name, shape, axis in SIGNATURES[kind]:
        size = math.prod(shape) * dtypes[name].itemsize
        moved = shape[:axis] + shape[axis + 1 :]
        tensors.append(Tensor(name, dtypes[name], moved, axis, offset, offset + size))
        offset += size
    return tensors


def decode(rows: np.ndarray, tensor: Tensor) -> np.ndarray:
    """One input for the whole batch; rows are requests."""
    return np.ascontiguousarray(rows[:, tensor.start : tensor.stop]).view(tensor.dtype)


def place(batch: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The batch in the shape that the model wants, its axis where the model has it."""
    shaped = batch.reshape(len(batch), *tensor.shape)
    return np.ascontiguousarray(np.moveaxis(shaped, 0, tensor.axis)) if tensor.axis else shaped


def encode(outputs: list[np.ndarray]) -> list[bytes]:
    """All outputs of each request, one after the other."""
    return [b"".join([value[row].tobytes() for value in outputs]) for row in range(len(outputs[0]))]
