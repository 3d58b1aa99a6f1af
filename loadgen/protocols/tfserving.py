"""TensorFlow Serving's REST API: predict, with what the metadata's signature says.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.json_text import numbers, parse
from dlbench.loadgen.protocols.answer import NOT_JSON, WRONG_SHAPE, Answer, BadAnswer
from dlbench.loadgen.protocols.encode import Body, joined, json_tensor
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.http_link import HttpLink

SPEAKER = "TensorFlow Serving"
SIGNATURE_NAME = "serving_default"
# The names in TensorFlow's types.proto -> V2's datatypes.
DATATYPES = {
    "DT_BOOL": "BOOL",
    "DT_INT8": "INT8",
    "DT_INT16": "INT16",
    "DT_INT32": "INT32",
    "DT_INT64": "INT64",
    "DT_UINT8": "UINT8",
    "DT_UINT16": "UINT16",
    "DT_UINT32": "UINT32",
    "DT_UINT64": "UINT64",
    "DT_HALF": "FP16",
    "DT_FLOAT": "FP32",
    "DT_DOUBLE": "FP64",
    "DT_STRING": "BYTES",
}


def describe(link: HttpLink, location: Location, _: LoadProfile) -> Target:
    """What the server says of the model. Raises TargetError."""
    if location.model is None:
        raise TargetError(f"{SPEAKER} does not list its models; use {link.base}/v1/models/NAME")
    path = location.path.rstrip("/").removesuffix(":predict")
    metadata = link.ask(f"{path}/metadata", SPEAKER)
    try:
        signature = metadata["metadata"]["signature_def"]["signature_def"][SIGNATURE_NAME]
        inputs = tuple(_spec(*pair) for pair in signature["inputs"].items())
        outputs = tuple(_spec(*pair) for pair in signature["outputs"].items())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TargetError(
            f"the metadata of {location.model!r} has no usable {SIGNATURE_NAME!r}: {error!r}"
        ) from None
    return Target(
        url=location.base,
        protocol="tfserving",
        model=location.model,
        version=location.version,
        path=f"{path}:predict",
        inputs=inputs,
        outputs=outputs,
    )


def body(target: Target, _: LoadProfile, row: Row, __: dict[str, int]) -> Body:
    """One instance where every input has a row; whole tensors otherwise."""
    if by_row(target):
        return joined(b'{"instances":[', instance(target.inputs, row), b"]}")
    return joined(b'{"inputs":', columns(target.inputs, row), b"}")


def by_row(target: Target) -> bool:
    """Whether requests go in the row format."""
    return all(spec.batch_axis is not None for spec in target.inputs)


def instance(specs: tuple[TensorSpec, ...], row: Row) -> Body:
    """A row's values without the batch axis: alone, or by name where there are several inputs."""
    values = {
        spec.name: json_tensor(row[spec.name], spec.datatype, _without_batch(spec, row[spec.name]))
        for spec in specs
    }
    return next(iter(values.values())) if len(values) == 1 else named(values)


def columns(specs: tuple[TensorSpec, ...], row: Row) -> Body:
    """Whole tensors by name."""
    return named({s.name: json_tensor(row[s.name], s.datatype, row[s.name].shape) for s in specs})


def named(values: dict[str, Body]) -> Body:
    """A JSON object."""
    pieces: list[Body | bytes] = []
    for name, value in values.items():
        pieces += [b"," if pieces else b"", orjson.dumps(name) + b":", value]
    return joined(b"{", *pieces, b"}")


def read(content: bytes, target: Target) -> Answer:
    """The outputs of a reply in the row or the column format. Raises BadAnswer."""
    try:
        document = parse(content)
    except ValueError:
        raise BadAnswer(NOT_JSON) from None
    try:
        if by_row(target):
            (prediction,) = document["predictions"]
            values = _by_name(target.outputs, prediction)
            return Answer({s.name: _with_batch(s, values[s.name]) for s in target.outputs})
        values = _by_name(target.outputs, document["outputs"])
        return Answer({spec.name: _array(spec, values[spec.name]) for spec in target.outputs})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise BadAnswer(WRONG_SHAPE) from None


def _spec(name: str, info: dict[str, Any]) -> TensorSpec:
    shape = tuple(int(axis["size"]) for axis in info["tensor_shape"].get("dim", ()))
    return TensorSpec(
        name=name,
        datatype=DATATYPES[info["dtype"]],
        shape=shape,
        batch_axis=0 if shape and shape[0] == -1 else None,
    )


def _without_batch(spec: TensorSpec, array: NDArray[Any]) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(array.shape) if axis != spec.batch_axis)


def _by_name(outputs: tuple[TensorSpec, ...], value: Any) -> Any:  # noqa: ANN401 - any JSON
    return {outputs[0].name: value} if len(outputs) == 1 else value


def _with_batch(spec: TensorSpec, value: Any) -> NDArray[Any]:  # noqa: ANN401 - any JSON
    axis = spec.shape.index(-1) if -1 in spec.shape else 0
    return np.expand_dims(_array(spec, value), axis)


def _array(spec: TensorSpec, value: Any) -> NDArray[Any]:  # noqa: ANN401 - any JSON
    if spec.datatype != "BYTES":
        return numbers(value, spec.dtype)
    array = np.array(value, object)
    texts = [text.encode() for text in array.ravel()]
    return np.array(texts, object).reshape(array.shape)
