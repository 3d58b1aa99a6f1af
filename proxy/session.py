"""The only place that knows onnxruntime: a session, its device and its runs."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from dlbench.proxy.errors import DeviceError, ModelError
from dlbench.proxy.signature import first_line
from dlbench.proxy.tensors import FROM_ORT, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# Sizes are tried on purpose and failures come back as exceptions: its own log would only repeat them.
ONLY_FATAL = 4


class Session:
    """A model ready to run on one device.

    onnxruntime falls back to the CPU without a word, so `device` is what the session says it got.
    """

    def __init__(self, path: str, device: str, intra_op_threads: int) -> None:
        """Load the model.

        Raises:
            DeviceError: `device` is "cuda" and the session did not get it.
            ModelError: the file is no model that can be served.
        """
        self._session, self.device_reason = _open(path, device, _options(intra_op_threads))
        self.device = "cuda" if CUDA in self._session.get_providers() else "cpu"
        self.inputs = [_spec(value) for value in self._session.get_inputs()]
        self.outputs = [_spec(value) for value in self._session.get_outputs()]
        self._names = [spec.name for spec in self.inputs]
        if not self.inputs:
            raise ModelError("the model has no inputs")

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Every output for these inputs, given in the model's order.

        Raises:
            Exception: whatever onnxruntime raises for inputs that the model refuses.
        """
        found: list[NDArray[Any]] = self._session.run(
            None, dict(zip(self._names, arrays, strict=True))
        )
        return found

    def shapes_of(self, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The output shapes for inputs of these shapes, found by running on ones.

        Ones, not zeros: a zero may stand for a length or an index that a model divides by.
        """
        arrays = [
            np.ones(shape, dtype=spec.numpy_type)
            for spec, shape in zip(self.inputs, shapes, strict=True)
        ]
        return [array.shape for array in self.run(arrays)]


def _options(intra_op_threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ONLY_FATAL
    # Threads that spin while they wait take the cores from front and client.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(
    path: str, device: str, options: onnxruntime.SessionOptions
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session on the device asked for, and why it is that device."""
    if device == "cpu":
        return _load(path, [CPU], options), "asked for"
    missing = _missing_cuda()
    if missing:
        if device == "cuda":
            raise DeviceError(f"--device cuda: {missing}")
        return _load(path, [CPU], options), missing
    session = _load(path, [CUDA, CPU], options)
    if CUDA in session.get_providers():
        return session, "asked for" if device == "cuda" else "CUDA works here"
    reason = "onnxruntime could not start CUDA here"
    if device == "cuda":
        raise DeviceError(
            f"--device cuda: {reason}; pip install 'dlbench[cuda]' brings its libraries"
        )
    return session, reason


def _missing_cuda() -> str:
    """Why CUDA cannot even be tried, "" if it can."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA"
    if not os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/dxg"):
        return "no NVIDIA device"
    with contextlib.suppress(Exception), contextlib.redirect_stdout(None):
        onnxruntime.preload_dlls()  # from the nvidia wheels, if they are installed
    return ""


def _load(
    path: str, providers: list[str], options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded: {first_line(error)}") from None


def _spec(value: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime's NodeArg
    if value.type not in FROM_ORT:
        raise ModelError(f"tensor {value.name!r} is {value.type}, which dlbench cannot serve")
    dims = tuple(dim if isinstance(dim, int) and dim > 0 else str(dim or "") for dim in value.shape)
    return TensorSpec(value.name, FROM_ORT[value.type], dims)
