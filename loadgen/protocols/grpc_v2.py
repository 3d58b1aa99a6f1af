"""V2 over gRPC: the messages of GRPCInferenceService, and the conversation before the load.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dlbench.loadgen.credentials import bearer_token
from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.protocols.answer import NOT_PROTOBUF, WRONG_SHAPE, Answer, BadAnswer
from dlbench.loadgen.protocols.encode import Body, joined, raw_tensor
from dlbench.loadgen.protocols.protobuf import (
    bytes_field,
    fields,
    head_of,
    number_field,
    numbers,
    signed,
    varint,
)
from dlbench.loadgen.protocols.v2 import inputs_of, only, outputs_of, raw_array
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile

SERVICE = "/inference.GRPCInferenceService/"
GRPC_TYPE = "application/grpc"


class GrpcLink:
    """A context manager; what goes wrong is a TargetError in one line."""

    def __init__(self, location: Location, profile: LoadProfile) -> None:
        try:
            import grpc
        except ModuleNotFoundError:
            raise TargetError("grpc:// needs grpcio: pip install 'dlbench[grpc]'") from None
        self.base = location.base
        self._error = grpc.RpcError
        self._timeout_s = profile.timeout_s
        token = bearer_token(profile)
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        address = location.base.partition("://")[2]
        if location.base.startswith("grpcs"):
            self._channel = grpc.secure_channel(address, _credentials(grpc, profile))
        else:
            self._channel = grpc.insecure_channel(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: str, message: bytes) -> bytes:
        """The reply to one message, both serialised."""
        try:
            return self._call(SERVICE + method, message)
        except self._error as error:
            raise TargetError(f"{self.base}: {method} failed: {_text(error)}") from None

    def refusal(self, target: Target, body: Body) -> str:
        """Why the server does not run one request; empty: it does."""
        try:
            self._call(target.path, body.content)
        except self._error as error:
            return _text(error)
        return ""

    def _call(self, path: str, message: bytes) -> bytes:
        reply: bytes = self._channel.unary_unary(path)(
            message, timeout=self._timeout_s, metadata=self._metadata
        )
        return reply


def describe(link: GrpcLink, location: Location, profile: LoadProfile) -> Target:
    """What the server says of the model. Raises TargetError."""
    try:
        extensions = _texts(link.call("ServerMetadata", b""), 3)
        name = location.model or only(_names(link.call("RepositoryIndex", b"")), link.base)
        asked = _model(name, location.version)
        if dict(_pairs(link.call("ModelReady", asked))).get(1) != 1:
            raise TargetError(f"model {name!r} is not ready at {link.base}")
        metadata = _metadata(link.call("ModelMetadata", asked))
    except ValueError:
        raise TargetError(f"{link.base} answers, but not as a V2 inference server") from None
    return Target(
        url=location.base,
        protocol="grpc",
        model=name,
        version=location.version,
        path=f"{SERVICE}ModelInfer",
        inputs=inputs_of(metadata, name, profile),
        outputs=outputs_of(metadata, name),
        supports_binary=True,
        statistics="statistics" in extensions,
    )


def body(target: Target, _: LoadProfile, row: Row, parameters: dict[str, int]) -> Body:
    """A ModelInferRequest with raw_input_contents, serialised."""
    pieces: list[Body | bytes] = [_model(target.model, target.version)]
    for name, value in parameters.items():
        entry = bytes_field(1, name.encode()) + bytes_field(2, number_field(2, value))
        pieces.append(bytes_field(4, entry))
    for spec in target.inputs:
        shape = b"".join(varint(size) for size in row[spec.name].shape)
        tensor = bytes_field(1, spec.name.encode()) + bytes_field(2, spec.datatype.encode())
        pieces.append(bytes_field(5, tensor + (bytes_field(3, shape) if shape else b"")))
    for spec in target.inputs:
        raw = raw_tensor(row[spec.name], spec.datatype)
        pieces += [head_of(7, len(raw.content)), raw]
    whole = joined(*pieces)
    return Body(whole.content, whole.places, GRPC_TYPE)


def read(content: bytes, _: Target) -> Answer:
    """The outputs of a ModelInferResponse, raw or typed. Raises BadAnswer."""
    try:
        found = list(fields(content))
        tensors = [_tensor(value) for field, value, _ in found if field == 5]
        raws = [(value, at) for field, value, at in found if field == 6]
    except (ValueError, UnicodeDecodeError):
        raise BadAnswer(NOT_PROTOBUF) from None
    try:
        arrays = [
            raw_array(_bytes(raw), t["datatype"])
            for t, (raw, _) in zip(tensors, raws, strict=bool(raws))
        ]
        arrays = arrays or [_typed(tensor["contents"], tensor["datatype"]) for tensor in tensors]
        outputs = {
            t["name"]: array.reshape(t["shape"]) for t, array in zip(tensors, arrays, strict=True)
        }
    except (KeyError, ValueError, OverflowError):
        raise BadAnswer(WRONG_SHAPE) from None
    # What comes before the first tensor's bytes says how they all look, if all else is there.
    last = max((at for field, _, at in found if field != 6), default=0)
    first = raws[0][1] if raws else 0
    return Answer(outputs, first if last < first else 0)


def _model(name: str, version: str | None) -> bytes:
    return bytes_field(1, name.encode()) + (bytes_field(2, version.encode()) if version else b"")


def _pairs(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    return ((field, value) for field, value, _ in fields(message))


def _texts(message: bytes, wanted: int) -> list[str]:
    return [_bytes(value).decode() for field, value in _pairs(message) if field == wanted]


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _names(index: bytes) -> list[str]:
    models = [_bytes(value) for field, value in _pairs(index) if field == 1]
    return sorted({name for model in models for name in _texts(model, 1)})


def _metadata(message: bytes) -> dict[str, Any]:
    """A ModelMetadataResponse in the form of V2's JSON."""
    sides: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    for field, value in _pairs(message):
        if field in (4, 5):
            sides["inputs" if field == 4 else "outputs"].append(_tensor(value))
    return sides


def _tensor(message: int | bytes) -> dict[str, Any]:
    """TensorMetadata or InferOutputTensor; they share their first fields."""
    found: dict[str, Any] = {"name": "", "datatype": "", "shape": [], "contents": b""}
    for field, value in _pairs(_bytes(message)):
        if field in (1, 2):
            found["name" if field == 1 else "datatype"] = _bytes(value).decode()
        elif field == 3:
            found["shape"] += [signed(number) for number in numbers(value)]
        elif field == 5:
            found["contents"] = _bytes(value)
    return found


def _typed(contents: bytes, datatype: str) -> NDArray[Any]:
    """InferTensorContents: a list in the field that belongs to the datatype."""
    values = [value for _, value in _pairs(contents)]
    if datatype == "BYTES":
        return np.array(values, object)
    if datatype in ("FP32", "FP64"):
        return raw_array(b"".join(_bytes(value) for value in values), datatype)
    flat: Sequence[int] = [signed(number) for value in values for number in numbers(value)]
    return np.array(flat, np.int64).astype(DATATYPES[datatype])


def _credentials(grpc: Any, profile: LoadProfile) -> Any:  # noqa: ANN401 - grpc ships no types
    if profile.tls_insecure:
        raise TargetError(
            "grpcio cannot skip verification; drop --tls-insecure and name the CA with --tls-ca"
        )
    try:
        trusted = Path(profile.tls_ca).read_bytes() if profile.tls_ca else None
    except OSError as error:
        raise TargetError(f"--tls-ca {profile.tls_ca}: {error}") from None
    return grpc.ssl_channel_credentials(root_certificates=trusted)


def _text(error: Any) -> str:  # noqa: ANN401 - grpc ships no types
    return f"{error.code().name}: {error.details()}".splitlines()[0][:300]
