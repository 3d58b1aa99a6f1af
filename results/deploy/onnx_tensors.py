"""What an .onnx file declares of its inputs and outputs, read without running it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import ModelError
from dlbench.proxy.models.signature import input_axis
from dlbench.proxy.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# ONNX's element type -> V2's datatype.
DATATYPES = {
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "STRING": "STRING",
    **{f"{sign}INT{bits}": f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "BOOL": "BOOL",
}
Specs = tuple[TensorSpec, ...]


def declared(path: Path, batch_axis: Mapping[str, int]) -> tuple[Specs, Specs]:
    """Inputs and outputs with their batch axes, by the file's symbols unless `batch_axis` says so.

    Raises:
        ModelError: the file is no model, or a tensor is of a type that V2 does not know.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # whatever protobuf says to other people's files
        raise ModelError(
            f"{path} is an incomplete ONNX model; export or download it again ({error})"
        ) from error
    constant = {initializer.name for initializer in graph.initializer}
    inputs = [_spec(value) for value in graph.input if value.name not in constant]
    lead = next((s for s in inputs if s.dims and isinstance(s.dims[0], str)), None)
    outputs = [_spec(value) for value in graph.output]
    return _with_axes(inputs, lead, batch_axis), _with_axes(outputs, lead, batch_axis)


def _with_axes(
    specs: Iterable[TensorSpec], lead: TensorSpec | None, given: Mapping[str, int]
) -> Specs:
    found = {s: -1 if lead is None else input_axis(s, lead) for s in specs}
    return tuple(replace(s, batch_axis=given.get(s.name, axis)) for s, axis in found.items())


def _spec(value: Any) -> TensorSpec:  # noqa: ANN401 - onnx's ValueInfoProto
    import onnx

    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    if kind not in DATATYPES:
        raise ModelError(f"tensor {value.name!r} is of type {kind}, which V2 does not support")
    return TensorSpec(value.name, DATATYPES[kind], tuple(map(_dim, tensor.shape.dim)))


def _dim(dim: Any) -> int | str:  # noqa: ANN401 - onnx's Dimension
    """A size, or the symbol of an open one; some exporters write -1 for a nameless symbol."""
    sized = dim.HasField("dim_value") and dim.dim_value >= 0
    return int(dim.dim_value) if sized else str(dim.dim_param)
