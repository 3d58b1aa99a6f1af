"""One list element per row: the row format of TensorFlow Serving, TorchServe and KServe V1. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.columns import by_name, request_of, unwrapped
from dlbench.proxy.protocols.json_reply import json_value, rows
from dlbench.proxy.protocols.json_tensors import read_nested, write_nested
from dlbench.proxy.request import check_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.tensors import Signature, Tensor, TensorSpec


def read_instances(signature: Signature, instances: Any) -> InferRequest:  # noqa: ANN401 - from JSON
    """A request of a row per instance: a value, or an object of values by input name.

    An input without a batch axis takes the value that all instances agree on.

    Raises:
        BadRequest: no list, a row that names the wrong inputs, or values that do not fit.
    """
    if not isinstance(instances, list) or not instances:
        raise BadRequest("the instances must be a list of at least one row")
    check_rows(signature, len(instances))
    if len(signature.inputs) == 1 and not isinstance(instances[0], dict):
        return request_of(signature, [_stacked(signature.inputs[0], instances)])
    named = [by_name(signature, row) for row in instances]
    return request_of(
        signature,
        [_stacked(spec, [row[spec.name] for row in named]) for spec in signature.inputs],
    )


def write_instances(signature: Signature, outputs: Outputs, count: int) -> Any:  # noqa: ANN401 - JSON
    """A list of `count` rows: values where the model has one output, else objects by name.

    Raises:
        BadRequest: an output has no row per instance.
    """
    columns = {
        spec.name: _by_row(signature, spec, tensor, count)
        for spec, tensor in zip(signature.outputs, outputs, strict=True)
    }
    if len(columns) == 1:
        return json_value(unwrapped(columns))
    return rows(columns, count)


def _stacked(spec: TensorSpec, rows: Sequence[Any]) -> NDArray[Any]:
    array = read_nested(spec, rows)
    if spec.batch_axis >= array.ndim:
        raise BadRequest(f"input {spec.name!r} has shape {spec.shape}, not {[*array.shape]}")
    if spec.batch_axis >= 0:
        return np.moveaxis(array, 0, spec.batch_axis)
    if spec.accepts(array.shape) or len({row.tobytes() for row in array}) > 1:
        return array
    return np.asarray(array[0])


def _by_row(signature: Signature, spec: TensorSpec, tensor: Tensor, count: int) -> NDArray[Any]:
    array = write_nested(spec, tensor)
    axis = max(spec.batch_axis, 0)
    if array.shape[axis : axis + 1] != (count,) or not _may_be_rows(signature, spec):
        raise BadRequest(
            f"output {spec.name!r} of shape {[*array.shape]} has no row per instance; request "
            "whole tensors"
        )
    return np.moveaxis(array, axis, 0)


def _may_be_rows(signature: Signature, spec: TensorSpec) -> bool:
    """Whether a size of the first axis that is fixed can be that of rows, and not by chance."""
    first = spec.dims[0]
    fixed = spec.batch_axis < 0 and isinstance(first, int) and first != 1
    return not fixed or any(one.dims[:1] == (first,) for one in signature.inputs)
