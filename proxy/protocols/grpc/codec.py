"""gRPC messages to requests and back: V2's ModelInfer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from dlbench.proxy.errors import BadRequest, NotFound
from dlbench.proxy.protocols.grpc import grpc_service_pb2
from dlbench.proxy.protocols.v2_json import DocumentReader
from dlbench.proxy.request import make_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.serving.served import ServedModel
    from dlbench.proxy.tensors import Buffer, Signature, TensorSpec

# Message classes are made when the module is imported, so nothing knows their fields before.
Message = Any
pb: Any = grpc_service_pb2

# Tags, all of them of fields that are as long as they say: ModelInferRequest's raw_input_contents,
# ModelInferResponse's raw_output_contents, ModelStreamInferResponse's infer_response.
LENGTH_DELIMITED = 2
RAW_INPUT, RAW_OUTPUT, STREAMED_RESPONSE = (field << 3 | LENGTH_DELIMITED for field in (7, 6, 2))
LONGEST_VARINT = 10
# Fields of a large message: its tensors twice, once described and once raw, and a few names.
MOST_FIELDS = 10_000

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


def parsed(kind: Message, text: Buffer) -> Message:
    """A message of a class out of its bytes.

    Raises:
        BadRequest: they are none.
    """
    try:
        return kind.FromString(text)
    except DecodeError as error:
        raise BadRequest(f"the message is malformed: {error}") from None


def taken_apart(text: bytes) -> tuple[bytes, list[memoryview]]:
    """A ModelInferRequest's bytes without the raw inputs, and the raw inputs as views.

    protobuf would copy them twice, and what it makes of many small fields is fifty times their size.

    Raises:
        BadRequest: the bytes are no message, or one of too many fields.
    """
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    view, start = memoryview(text), 0
    for _ in range(MOST_FIELDS):
        if start == len(text):
            return b"".join(rest), raw
        tag, at = _varint(text, start)
        if tag & 7 != LENGTH_DELIMITED:
            raise BadRequest("the message is malformed: no such field")
        size, at = _varint(text, at)
        if at + size > len(text):
            raise BadRequest("the message is malformed: it ends too early")
        if tag == RAW_INPUT:
            raw.append(view[at : at + size])
        else:
            rest.append(view[start : at + size])
        start = at + size
    raise BadRequest(f"the message has more than {MOST_FIELDS} fields")


def serialised(message: Message, raw: Sequence[Buffer]) -> bytes:
    """A ModelInferResponse with these raw outputs, which are copied once."""
    parts: list[Buffer] = [message.SerializeToString()]
    for data in raw:
        parts += (_tagged(RAW_OUTPUT, len(data)), data)
    return b"".join(parts)


def streamed(response: bytes) -> bytes:
    """A ModelStreamInferResponse of a serialised ModelInferResponse."""
    return _tagged(STREAMED_RESPONSE, len(response)) + response


def read_alone(
    signatures: Mapping[tuple[str, str], Signature], text: bytes
) -> tuple[tuple[str, str], InferRequest]:
    """Which of these models by name and version a large message asks, and for what.

    Raises:
        BadRequest: with a text that says what is wrong.
        NotFound: no such model.
    """
    message = parsed(pb.ModelInferRequest, bytes(text))
    for (name, version), signature in signatures.items():
        if message.model_name == name and message.model_version in ("", version):
            return (name, version), read(signature, message)
    raise NotFound(f"unknown model {message.model_name!r}")


def read(
    signature: Signature, message: Message, raw: Sequence[Buffer] | None = None
) -> InferRequest:
    """A request out of a ModelInferRequest; `raw` are its raw inputs, if they are not in it.

    Raises:
        BadRequest: with a text that names the tensor and what is wrong.
    """
    reader = DocumentReader(signature)
    document = _document(message)
    raw = raw or message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(f"{len(message.inputs)} inputs, but {len(raw)} raw_input_contents")
    found: dict[int, tuple[tuple[int, ...], Buffer]] = {}
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


def write(model: ServedModel, request: InferRequest, outputs: Outputs) -> bytes:
    """The serialised ModelInferResponse with the outputs that the request wants, raw."""
    layout = request.layout
    chosen = [(model.signature.outputs[w.place], outputs[w.place]) for w in layout.wanted]
    described = [
        {"name": spec.name, "datatype": spec.datatype, "shape": tensor.shape}
        for spec, tensor in chosen
    ]
    message = pb.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=layout.id or "", outputs=described
    )
    return serialised(message, [tensor.data for _, tensor in chosen])


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


def _raw(spec: TensorSpec, data: Buffer, contents: Message) -> Buffer:
    if contents.ByteSize():
        raise BadRequest(f"input {spec.name!r} has both contents and raw_input_contents")
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


def _varint(text: bytes, start: int) -> tuple[int, int]:
    """An integer of the wire format, and where it ends."""
    found = 0
    for place, byte in enumerate(text[start : start + LONGEST_VARINT]):
        found |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return found, start + place + 1
    raise BadRequest("the message is malformed: no such number")


def _tagged(tag: int, size: int) -> bytes:
    """What stands before a field of that many bytes."""
    found = bytearray((tag,))
    while size >= 0x80:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    found.append(size)
    return bytes(found)
