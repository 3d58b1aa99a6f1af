"""The only place that knows onnxruntime: a session, its device and its runs."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from dlbench.proxy.errors import DeviceError, ModelError
from dlbench.proxy.models.signature import first_line
from dlbench.proxy.tensors import FROM_ORT, TensorSpec
from dlbench.proxy.workers.providers import CPU, HINTS, REASONS, TRIED, blamed_option, got, missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.workers.providers import Executor

    Array = NDArray[Any]

# Sizes are tried on purpose and failures come back as exceptions: its own log would only repeat them.
ONLY_FATAL = 4
onnxruntime.set_default_logger_severity(ONLY_FATAL)
# Where in its own source something failed, which onnxruntime puts before what failed.
SOURCE_PLACE = re.compile(r"^/onnxruntime_src/\S+ .*?\) ")
# What onnxruntime says of a file that is something else, cut off or empty.
NOT_WHOLE = ("INVALID_PROTOBUF", "No graph was found")
LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class Session:
    """A model ready to run on one device.

    onnxruntime falls back to the CPU without a word, so `device` is what the session says it got.
    """

    def __init__(self, path: str, executor: Executor) -> None:
        """Load the model.

        Raises:
            DeviceError: a device was named and the session did not get it, or refuses its options.
            ModelError: the file is no model that can be served.
        """
        self.session, self.device, self.device_reason = _open(path, executor)
        self.inputs = [_spec(value) for value in self.session.get_inputs()]
        self.outputs = [_spec(value) for value in self.session.get_outputs()]
        self.runs: type[PlainRun] = PlainRun
        if self.device == "cpu":
            self.runs = BoundRun
        elif executor.io_binding:
            self.runs = UploadedRun
        self._names = [spec.name for spec in self.inputs]
        if not self.inputs:
            raise ModelError("the model has no inputs")

    def over(self, inputs: Sequence[Array]) -> PlainRun:
        """Run on these very arrays, aligned and refilled before each run."""
        return self.runs(self, inputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Every output for these inputs, given in the model's order.

        Raises:
            Exception: whatever onnxruntime raises for inputs that the model refuses.
        """
        found: list[Array] = self.session.run(None, dict(zip(self._names, arrays, strict=True)))
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


class PlainRun:
    """Runs of a session over the same input memory."""

    def __init__(self, session: Session, inputs: Sequence[Array]) -> None:
        self._session, self._inputs = session, inputs

    def run(self) -> list[Array]:
        """Every output for what the inputs hold now; valid until the next run.

        Raises:
            Exception: whatever onnxruntime raises for inputs that the model refuses.
        """
        return self._session.run(self._inputs)


class BoundRun(PlainRun):
    """On a CPU: outputs are kept as well, and from the second run on nothing is allocated."""

    def __init__(self, session: Session, inputs: Sequence[Array]) -> None:
        super().__init__(session, inputs)
        self._binding: onnxruntime.IOBinding | None = None
        self._outputs: list[Array] = []

    def run(self) -> list[Array]:
        if self._binding is None:
            return self._run_first()
        try:
            self._session.session.run_with_iobinding(self._binding)
        except Exception:
            return self._run_refused()
        return self._outputs

    def _run_first(self) -> list[Array]:
        outputs = super().run()
        if self._session.runs is BoundRun:
            self._bind(outputs)
        return outputs

    def _run_refused(self) -> list[Array]:
        """Raise what the model refuses; if it runs after all, an output's size depends on the data.

        onnxruntime says so itself: it never writes an output into memory of another shape.
        """
        outputs = super().run()
        if [a.shape for a in outputs] != [a.shape for a in self._outputs]:
            self._session.runs, self._binding = PlainRun, None
        return outputs

    def _bind(self, outputs: list[Array]) -> None:
        self._outputs, self._binding = outputs, self._session.session.io_binding()
        of_numpy = onnxruntime.OrtValue.ortvalue_from_numpy
        for spec, array in zip(self._session.inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(spec.name, of_numpy(array))
        for spec, array in zip(self._session.outputs, outputs, strict=True):
            self._binding.bind_ortvalue_output(spec.name, of_numpy(array))


class UploadedRun(PlainRun):
    """On a GPU: binding an input copies it to where the model reads it, which may be the CPU.

    Outputs are bound anew every time: a copy into memory of an earlier run is checked for its size
    alone, not for its shape.
    """

    def __init__(self, session: Session, inputs: Sequence[Array]) -> None:
        super().__init__(session, inputs)
        self._binding = session.session.io_binding()

    def run(self) -> list[Array]:
        for spec, array in zip(self._session.inputs, self._inputs, strict=True):
            self._binding.bind_cpu_input(spec.name, array)
        for spec in self._session.outputs:
            self._binding.bind_output(spec.name, "cpu")
        self._binding.synchronize_inputs()
        self._session.session.run_with_iobinding(self._binding)
        outputs: list[Array] = self._binding.copy_outputs_to_cpu()
        return outputs


def _options(executor: Executor) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = executor.intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ONLY_FATAL
    options.graph_optimization_level = LEVELS[executor.graph_optimization]
    options.enable_cpu_mem_arena = executor.memory_arena
    spinning = str(int(executor.allow_spinning))
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    return options


class Unavailable(Exception):
    """A device cannot be had; the message says why."""


def _open(path: str, executor: Executor) -> tuple[onnxruntime.InferenceSession, str, str]:
    """A session, the device that it got, and why that one."""
    reason = ""
    for device in TRIED[executor.device]:
        try:
            return _load(path, executor, device), device, reason or REASONS[executor.device]
        except Unavailable as error:
            reason = str(error)
    raise DeviceError(f"--device {executor.device}: {reason}")


def _load(path: str, executor: Executor, device: str) -> onnxruntime.InferenceSession:
    if why := missing(device, onnxruntime.get_available_providers(), _has_gpu()):
        raise Unavailable(why)
    if device != "cpu":
        with contextlib.suppress(Exception), contextlib.redirect_stdout(None):
            onnxruntime.preload_dlls()  # from the nvidia wheels, if they are installed
    elif executor.provider_option:
        option = next(iter(executor.provider_option))
        raise DeviceError(f"--provider-option {option}: the CPU has no options")
    try:
        session = _made(path, executor, executor.providers(device))
    except Exception as error:
        raise _explained(path, executor, device, first_line(error)) from None
    if not got(device, session.get_providers()):
        raise Unavailable(f"onnxruntime could not start {device} here; {HINTS[device]}")
    return session


def _made(
    path: str, executor: Executor, providers: list[tuple[str, dict[str, str]]]
) -> onnxruntime.InferenceSession:
    # Without its fallback an error is raised here, and not printed and followed by a CPU session.
    return onnxruntime.InferenceSession(
        path, _options(executor), providers=providers, enable_fallback=0
    )


def _explained(path: str, executor: Executor, device: str, text: str) -> Exception:
    """Whose fault it is that a session could not be made: an option's, the device's or the model's."""
    if option := blamed_option(text, executor.provider_option):
        return DeviceError(f"--provider-option {option}: {text}")
    if device != "cpu":
        try:
            _made(path, executor, [(CPU, {})])
        except Exception as error:
            text = first_line(error)
        else:
            return Unavailable(SOURCE_PLACE.sub("", text))
    if any(sign in text for sign in NOT_WHOLE):
        return ModelError(
            f"{path} is an incomplete ONNX model; export or download it again ({text})"
        )
    return ModelError(f"{path} cannot be loaded: {text}")


def _has_gpu() -> bool:
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")


def _spec(value: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime's NodeArg
    if value.type not in FROM_ORT:
        raise ModelError(f"tensor {value.name!r} is {value.type}, which dlbench cannot serve")
    dims = tuple(dim if isinstance(dim, int) and dim > 0 else str(dim or "") for dim in value.shape)
    return TensorSpec(value.name, FROM_ORT[value.type], dims)
