"""gRPC messages to requests and back: V2's ModelInfer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.proxy import grpc_service_pb2
from dlbench.proxy.document import Reader
from dlbench.proxy.errors import BadRequest
from dlbench.proxy.request import make_request

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.served import ServedModel
    from dlbench.proxy.tensors import Signature, TensorSpec

# Message classes are made when the module is imported, so nothing knows their fields before.
Message = Any
pb: Any = grpc_service_pb2

# Datatype -> the field of InferTensorContents for it, and that field's type. FP16 has none.
CONTENTS = {
    "BOOL": ("bool_contents", np.bool_),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
}


def read(signature: Signature, message: Message) -> InferRequest:
    """A request out of a ModelInferRequest.

    Raises:
        BadRequest: with a text that names the tensor and what is wrong.
    """
    reader = Reader(signature)
    document = _document(message)
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(f"{len(message.inputs)} inputs, but {len(raw)} raw_input_contents")
    found: dict[int, tuple[tuple[int, ...], bytes]] = {}
    for place, given in enumerate(reader.inputs(document)):
        index, shape = reader.tensor(given, found)
        spec, contents = signature.inputs[index], message.inputs[place].contents
        data = _raw(spec, raw[place], contents) if raw else _typed(spec, contents)
        if len(data) != spec.byte_size(shape):
            raise BadRequest(
                f"input {spec.name!r} of shape {list(shape)} takes {spec.byte_size(shape)} bytes, "
                f"not {len(data)}"
            )
        found[index] = (shape, data)
    ordered = [found[i] for i in range(len(found))]
    layout = reader.layout(document, tuple(shape for shape, _ in ordered))
    return make_request(signature, layout, tuple(data for _, data in ordered))


def write(model: ServedModel, request: InferRequest, outputs: Outputs) -> Message:
    """The ModelInferResponse with the outputs that the request wants, raw."""
    layout = request.layout
    chosen = [(model.signature.outputs[w.place], outputs[w.place]) for w in layout.wanted]
    described = [
        {"name": spec.name, "datatype": spec.datatype, "shape": tensor.shape}
        for spec, tensor in chosen
    ]
    return pb.ModelInferResponse(
        model_name=model.name,
        model_version=model.version,
        id=layout.id or "",
        outputs=described,
        raw_output_contents=[bytes(tensor.data) for _, tensor in chosen],
    )


def _document(message: Message) -> dict[str, Any]:
    """The message as V2's JSON has it, without data."""
    return {
        "id": message.id or None,
        "parameters": _parameters(message),
        "inputs": [
            {
                "name": one.name,
                "datatype": one.datatype,
                "shape": list(one.shape),
                "parameters": _parameters(one),
            }
            for one in message.inputs
        ],
        "outputs": [{"name": one.name, "parameters": _parameters(one)} for one in message.outputs],
    }


def _parameters(message: Message) -> dict[str, Any]:
    chosen = {
        name: (one, one.WhichOneof("parameter_choice")) for name, one in message.parameters.items()
    }
    return {name: getattr(one, choice) for name, (one, choice) in chosen.items() if choice}


def _raw(spec: TensorSpec, data: bytes, contents: Message) -> bytes:
    if contents.ByteSize():
        raise BadRequest(f"input {spec.name!r} has contents beside raw_input_contents")
    return data


def _typed(spec: TensorSpec, contents: Message) -> bytes:
    """Values of the field for the datatype; nothing else may be filled in."""
    name, kind = CONTENTS.get(spec.datatype, ("", np.float32))
    filled = [field.name for field, _ in contents.ListFields()]
    if not name or filled not in ([name], []):
        takes = f"{name} or raw_input_contents" if name else "raw_input_contents"
        raise BadRequest(f"input {spec.name!r} is {spec.datatype}: send it as {takes}")
    values: NDArray[Any] = np.array(getattr(contents, name), dtype=kind)
    array = values.astype(np.dtype(spec.numpy_type).newbyteorder("<"))
    if values.dtype.kind in "iu" and (array != values).any():
        raise BadRequest(f"input {spec.name!r}: a value does not fit {spec.datatype}")
    return array.tobytes()
