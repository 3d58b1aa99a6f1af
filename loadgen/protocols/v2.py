"""KServe's V2 (Open Inference Protocol) over HTTP: JSON, and the binary tensor data extension.

https://github.com/kserve/open-inference-protocol. Binary: the JSON, then the raw little-endian
tensors in the JSON's order; `Inference-Header-Content-Length` says how long the JSON is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import orjson

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs.stated import stated_inputs
from dlbench.loadgen.json_text import numbers, parse
from dlbench.loadgen.protocols.answer import NOT_JSON, WRONG_SHAPE, Answer, BadAnswer
from dlbench.loadgen.protocols.encode import RAW_TYPE, Body, joined, json_tensor, raw_tensor
from dlbench.loadgen.protocols.http_link import HttpLink, json_of, said_by
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import DATATYPES, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile

    # Which axis is the batch, of a shape where nobody says it.
    Guess = Callable[[tuple[int, ...]], int | None]

SPEAKER = "a V2 inference server"
ADVICE = "; if it speaks another protocol, set --protocol"
_DECODER = json.JSONDecoder()


def describe(link: HttpLink, location: Location, profile: LoadProfile) -> Target:
    """What the server says of the model. Raises TargetError."""
    server = link.ask("/v2", SPEAKER)
    if "extensions" not in server and "name" not in server:
        raise TargetError(f"{link.base} answers, but not as {SPEAKER} (GET /v2){ADVICE}")
    name = location.model or _only_model(link)
    path = f"/v2/models/{quote(name, safe='')}" + (
        f"/versions/{location.version}" if location.version else ""
    )
    _check_ready(link, name, path)
    metadata = link.ask(path, SPEAKER)
    extensions = server.get("extensions", ())
    return Target(
        url=location.base,
        protocol="v2",
        model=name,
        version=location.version,
        path=f"{path}/infer",
        inputs=inputs_of(metadata, name, profile),
        outputs=outputs_of(metadata, name),
        supports_binary="binary_tensor_data" in extensions,
        statistics="statistics" in extensions,
    )


def inputs_of(metadata: dict[str, Any], model: str, profile: LoadProfile) -> tuple[TensorSpec, ...]:
    """The inputs that the metadata lists; if none, those stated. Raises TargetError."""
    specs = _specs(metadata.get("inputs") or [], model, _leading)
    return specs or stated_inputs(profile, f"the metadata of {model!r} lists no inputs")


def outputs_of(metadata: dict[str, Any], model: str) -> tuple[TensorSpec, ...]:
    """Likewise the outputs; a leading -1 counts as the batch only if that is stated.

    (An object detector has as many rows as it finds objects.)
    """
    return _specs(metadata.get("outputs") or [], model, lambda _: None)


def body(target: Target, profile: LoadProfile, row: Row, parameters: dict[str, int]) -> Body:
    """An inference request for one row."""
    write = _binary_body if target.uses_binary(profile) else _json_body
    return write(target.inputs, row, parameters)


def read(content: bytes, _: Target) -> Answer:
    """The outputs of a reply in either form. Raises BadAnswer."""
    try:
        # What follows the JSON may be tensors of whitespace, which a JSON parser accepts.
        document, end = orjson.loads(content), content.rfind(b"}") + 1
    except orjson.JSONDecodeError:
        document, end = _head(content)
    try:
        outputs = _outputs(document["outputs"], content[end:])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise BadAnswer(WRONG_SHAPE) from None
    return Answer(outputs, end if end < len(content) else 0)


def raw_array(raw: bytes, datatype: str) -> NDArray[Any]:
    """A tensor's elements in one line. Raises ValueError or KeyError."""
    if datatype != "BYTES":
        return np.frombuffer(raw, DATATYPES[datatype].newbyteorder("<"))
    items, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        items.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(raw):
        raise ValueError("a text is cut off")
    return np.array(items, object)


def _only_model(link: HttpLink) -> str:
    response = link.send("POST", "/v2/repository/index", json={})
    index = json_of(response)
    if not response.is_success or not isinstance(index, list):
        raise TargetError(
            f"{link.base} does not list its models; name one: {link.base}/v2/models/NAME"
        )
    names = {str(entry["name"]) for entry in index if isinstance(entry, dict) and "name" in entry}
    return only(sorted(names), link.base)


def only(names: list[str], base: str) -> str:
    """The only model's name. Raises TargetError if there is not exactly one."""
    if len(names) != 1:
        models = ", ".join(names) or "none"
        raise TargetError(f"{base} serves {models}; name one: {base}/v2/models/NAME")
    return names[0]


def _check_ready(link: HttpLink, model: str, path: str) -> None:
    response = link.send("GET", f"{path}/ready")
    if not response.is_success:
        raise TargetError(
            f"model {model!r} is not ready at {link.base} (status {said_by(response)})"
        )


def _leading(shape: tuple[int, ...]) -> int | None:
    return 0 if shape and shape[0] == -1 else None


def _specs(tensors: Any, model: str, guess: Guess) -> tuple[TensorSpec, ...]:  # noqa: ANN401 - any JSON
    try:
        return tuple(_spec(tensor, guess) for tensor in tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TargetError(f"the metadata of {model!r} is not V2: {error!r}") from None


def _spec(tensor: dict[str, Any], guess: Guess) -> TensorSpec:
    shape = tuple(int(size) for size in tensor["shape"])
    # dlbench's own proxy says which axis is the batch; elsewhere an input's leading -1 is.
    axis = tensor.get("parameters", {}).get("batch_axis", guess(shape))
    return TensorSpec(
        name=tensor["name"],
        datatype=tensor["datatype"],
        shape=shape,
        batch_axis=None if axis == -1 else axis,
    )


def _head_of(spec: TensorSpec, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(array.shape), "datatype": spec.datatype}


def _binary_body(specs: tuple[TensorSpec, ...], row: Row, parameters: dict[str, int]) -> Body:
    """Tensors as raw bytes; asks for the outputs in the same form."""
    raws = [raw_tensor(row[spec.name], spec.datatype) for spec in specs]
    tensors = [
        _head_of(spec, row[spec.name]) | {"parameters": {"binary_data_size": len(raw.content)}}
        for spec, raw in zip(specs, raws, strict=True)
    ]
    wanted = {"binary_data_output": True, **parameters}
    head = orjson.dumps({"inputs": tensors, "parameters": wanted})
    whole = joined(head, *raws)
    return Body(whole.content, whole.places, RAW_TYPE, len(head))


def _json_body(specs: tuple[TensorSpec, ...], row: Row, parameters: dict[str, int]) -> Body:
    """Tensors as flat JSON lists."""
    pieces: list[Body | bytes] = []
    for spec in specs:
        array = row[spec.name]
        head = orjson.dumps(_head_of(spec, array))[:-1] + b',"data":'
        pieces += [b"," if pieces else b"", head]
        pieces += [json_tensor(array, spec.datatype, [array.size]), b"}"]
    stated = b',"parameters":' + orjson.dumps(parameters) if parameters else b""
    return joined(b'{"inputs":[', *pieces, b"]", stated, b"}")


def _head(content: bytes) -> tuple[Any, int]:
    """The JSON before raw tensors, and its length. Raises BadAnswer."""
    try:
        # In latin-1 an index into the text is one into the bytes.
        _, end = _DECODER.raw_decode(content.decode("latin-1"))
        return parse(content[:end]), end
    except (ValueError, RecursionError):
        raise BadAnswer(NOT_JSON) from None


def _outputs(tensors: list[dict[str, Any]], raw: bytes) -> dict[str, NDArray[Any]]:
    found = {}
    for tensor in tensors:
        datatype = tensor["datatype"]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = _json_array(tensor["data"], datatype)
        else:
            array, raw = raw_array(raw[:size], datatype), raw[size:]
        found[tensor["name"]] = array.reshape([int(size) for size in tensor["shape"]])
    if raw:
        raise ValueError("more bytes than tensors")
    return found


def _json_array(data: Any, datatype: str) -> NDArray[Any]:  # noqa: ANN401 - any JSON
    if datatype == "BYTES":
        return np.array([text.encode() for text in np.array(data, object).ravel()], object)
    return numbers(data, DATATYPES[datatype]).ravel()
