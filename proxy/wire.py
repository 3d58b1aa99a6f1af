"""Bytes to tensors and back: the V2 / Open Inference Protocol, JSON and binary. Pure.

A binary request is JSON, then the raw little-endian tensors in the JSON's order. A client repeats
that JSON from request to request, so what was made of it is kept by its bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    Body = bytes | bytearray | memoryview

# Different heads kept; a client needs one or two, an id in every request makes each another.
REMEMBERED = 256
# A longer head is read anew each time: kept, a few hundred of them could fill the memory.
LONGEST_REMEMBERED = 4096
# What an axis can be between us and a worker; only a tensor without elements could have more.
LARGEST_SIZE = 2**31 - 1


@dataclass(frozen=True)
class WantedOutput:
    """An output that the reply is to hold, and how."""

    index: int
    binary: bool


@dataclass(frozen=True)
class Plan:
    """How to read a binary request: shapes and offsets, all found in its JSON.

    `wanted` names the reply's outputs; `id` is echoed.
    """

    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[tuple[int, int], ...]
    size: int
    rows: int
    row_shapes: tuple[tuple[int, ...], ...]
    wanted: tuple[WantedOutput, ...]
    id: str | None


@dataclass(slots=True)
class InferRequest:
    """A request read: tensors in the signature's order.

    Requests may share a batch if their `batch_key`s are equal: trailing shapes, and the bytes of
    tensors without a batch axis.
    """

    tensors: tuple[Tensor, ...]
    rows: int
    batch_key: Hashable
    wanted: tuple[WantedOutput, ...]
    id: str | None = None


@dataclass(frozen=True)
class InferReply:
    """A reply ready to be sent: the JSON's length goes into a header if tensors follow it."""

    json: bytes
    tensors: tuple[bytes | memoryview, ...] = field(default=())


class Wire:
    """Reads requests and writes replies for one model."""

    def __init__(self, model: str, signature: Signature) -> None:
        self._model = model
        self._signature = signature
        self._input_index = {spec.name: i for i, spec in enumerate(signature.inputs)}
        self._output_index = {spec.name: i for i, spec in enumerate(signature.outputs)}
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._heads: OrderedDict[Hashable, bytes] = OrderedDict()
        self._keyed_by_bytes = tuple(
            i for i, spec in enumerate(signature.inputs) if spec.batch_axis < 0
        )

    def read(self, body: Body, json_size: int | None) -> InferRequest:
        """A request from its body; `json_size` is the Inference-Header-Content-Length, if sent.

        Raises:
            BadRequest: with a text that names the tensor and what is wrong.
        """
        if json_size == 0:
            return self._read_raw(body)
        if json_size is None:
            return self._read_json(_document(body), memoryview(b""))
        if not 0 < json_size <= len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length {json_size} does not fit a body of {len(body)} bytes"
            )
        view = memoryview(body)
        head = bytes(view[:json_size])
        plan = self._plans.get(head)
        if plan is None:
            document = _document(head)
            plan = self._plan(document)
            if plan is None:
                return self._read_json(document, view[json_size:])
            if len(head) <= LONGEST_REMEMBERED:
                _remember(self._plans, head, plan)
        return self._read_planned(plan, view[json_size:])

    def write(self, request: InferRequest, outputs: Sequence[Tensor]) -> InferReply:
        """The reply with the outputs that the request wants."""
        wanted = request.wanted
        if all(w.binary for w in wanted):
            chosen = tuple(outputs[w.index].data for w in wanted)
            return InferReply(self._binary_head(request, outputs), chosen)
        return self._write_json(request, outputs)

    def _read_planned(self, plan: Plan, raw: memoryview) -> InferRequest:
        if len(raw) != plan.size:
            raise BadRequest(
                f"the JSON promises {plan.size} bytes of binary tensors, the body has {len(raw)}"
            )
        tensors = tuple(
            Tensor(shape, raw[start:stop])
            for shape, (start, stop) in zip(plan.shapes, plan.offsets, strict=True)
        )
        key = self._batch_key(plan.row_shapes, tensors)
        return InferRequest(tensors, plan.rows, key, plan.wanted, plan.id)

    def _batch_key(
        self, row_shapes: tuple[tuple[int, ...], ...], tensors: tuple[Tensor, ...]
    ) -> Hashable:
        if not self._keyed_by_bytes:
            return row_shapes
        return row_shapes, *(bytes(tensors[i].data) for i in self._keyed_by_bytes)

    def _plan(self, document: dict[str, Any]) -> Plan | None:
        """How to read a request whose inputs are all binary; None if one of them is not."""
        found: dict[int, tuple[tuple[int, ...], tuple[int, int]]] = {}
        position = 0
        for given in self._given_inputs(document):
            size = _binary_size(given)
            if size is None:
                return None
            index, shape = self._checked(given, found)
            self._check_size(index, shape, size)
            found[index] = (shape, (position, position + size))
            position += size
        shapes = tuple(found[i][0] for i in range(len(found)))
        offsets = tuple(found[i][1] for i in range(len(found)))
        return Plan(
            shapes,
            offsets,
            position,
            self._rows(shapes),
            self._row_shapes(shapes),
            self._wanted(document),
            _id(document),
        )

    def _read_json(self, document: dict[str, Any], raw: memoryview) -> InferRequest:
        """A request with at least one tensor written out in JSON."""
        found: dict[int, Tensor] = {}
        position = 0
        for given in self._given_inputs(document):
            index, shape = self._checked(given, found)
            size = _binary_size(given)
            if size is None:
                found[index] = Tensor(shape, _packed(self._signature.inputs[index], given, shape))
                continue
            self._check_size(index, shape, size)
            found[index] = Tensor(shape, raw[position : position + size])
            position += size
        if position != len(raw):
            raise BadRequest(
                f"the JSON promises {position} bytes of binary tensors, the body has {len(raw)}"
            )
        return self._request(tuple(found[i] for i in range(len(found))), document)

    def _read_raw(self, body: Body) -> InferRequest:
        """A body that is one tensor and nothing else: for models with one input."""
        if len(self._signature.inputs) != 1:
            raise BadRequest("a raw binary request needs a model with exactly one input")
        spec = self._signature.inputs[0]
        open_axes = [axis for axis, dim in enumerate(spec.dims) if not isinstance(dim, int)]
        if any(axis != spec.batch_axis for axis in open_axes):
            raise BadRequest(
                f"input {spec.name!r} has open sizes; a raw binary request cannot say them"
            )
        row_size = prod(d for d in spec.dims if isinstance(d, int)) * spec.item_size
        rows, rest = divmod(len(body), row_size)
        if rest or not rows or (rows > 1 and not open_axes):
            raise BadRequest(f"{len(body)} bytes are no whole number of rows of {row_size} bytes")
        shape = tuple(d if isinstance(d, int) else rows for d in spec.dims)
        return self._request((Tensor(shape, memoryview(body)),), {})

    def _request(self, tensors: tuple[Tensor, ...], document: dict[str, Any]) -> InferRequest:
        shapes = tuple(t.shape for t in tensors)
        key = self._batch_key(self._row_shapes(shapes), tensors)
        return InferRequest(tensors, self._rows(shapes), key, self._wanted(document), _id(document))

    def _given_inputs(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        given = document.get("inputs")
        if not isinstance(given, list) or not all(isinstance(g, dict) for g in given):
            raise BadRequest("'inputs' has to be a list of tensors")
        names = [g.get("name") for g in given]
        for spec in self._signature.inputs:
            if spec.name not in names:
                raise BadRequest(f"input {spec.name!r} is missing")
        return given

    def _checked(self, given: dict[str, Any], found: dict[int, Any]) -> tuple[int, tuple[int, ...]]:
        """Which input a tensor is, and its shape."""
        name = given.get("name")
        index = self._input_index.get(name) if isinstance(name, str) else None
        if index is None:
            raise BadRequest(
                f"the model has no input {name!r}; it has {', '.join(self._input_index)}"
            )
        if index in found:
            raise BadRequest(f"input {name!r} is given twice")
        spec = self._signature.inputs[index]
        if given.get("datatype") != spec.datatype:
            raise BadRequest(f"input {name!r} is {spec.datatype}, not {given.get('datatype')}")
        return index, _shape(spec, given.get("shape"))

    def _check_size(self, index: int, shape: tuple[int, ...], size: int) -> None:
        spec = self._signature.inputs[index]
        if size != spec.byte_size(shape):
            raise BadRequest(
                f"input {spec.name!r} of shape {list(shape)} takes {spec.byte_size(shape)} bytes, "
                f"binary_data_size says {size}"
            )

    def _rows(self, shapes: tuple[tuple[int, ...], ...]) -> int:
        """The batch size, which all inputs with a batch axis must agree on."""
        sizes = {
            shape[spec.batch_axis]
            for spec, shape in zip(self._signature.inputs, shapes, strict=True)
            if spec.batch_axis >= 0
        }
        if len(sizes) > 1:
            raise BadRequest(f"the inputs disagree on the batch size: {sorted(sizes)}")
        rows = sizes.pop() if sizes else 1
        if rows < 1:
            raise BadRequest("a request needs at least one row")
        return rows

    def _row_shapes(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        specs = self._signature.inputs
        return tuple(spec.row_shape(s) for spec, s in zip(specs, shapes, strict=True))

    def _wanted(self, document: dict[str, Any]) -> tuple[WantedOutput, ...]:
        every = _parameters(document).get("binary_data_output") is True
        outputs = document.get("outputs")
        if not outputs:
            return tuple(WantedOutput(i, every) for i in range(len(self._signature.outputs)))
        if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
            raise BadRequest("'outputs' has to be a list of objects")
        found = tuple(self._wanted_output(output, every) for output in outputs)
        indexes = [wanted.index for wanted in found]
        if twice := [i for i in set(indexes) if indexes.count(i) > 1]:
            raise BadRequest(
                f"output {self._signature.outputs[twice[0]].name!r} is asked for twice"
            )
        return found

    def _wanted_output(self, output: dict[str, Any], every: bool) -> WantedOutput:
        name = output.get("name")
        index = self._output_index.get(name) if isinstance(name, str) else None
        if index is None:
            raise BadRequest(
                f"the model has no output {name!r}; it has {', '.join(self._output_index)}"
            )
        return WantedOutput(index, _parameters(output).get("binary_data", every) is True)

    def _binary_head(self, request: InferRequest, outputs: Sequence[Tensor]) -> bytes:
        """The JSON before binary outputs, kept as long as shapes repeat and no id is echoed."""
        key = (request.wanted, *(outputs[w.index].shape for w in request.wanted))
        head = self._heads.get(key) if request.id is None else None
        if head is None:
            head = orjson.dumps(self._document(request, outputs))
            if request.id is None:
                _remember(self._heads, key, head)
        return head

    def _write_json(self, request: InferRequest, outputs: Sequence[Tensor]) -> InferReply:
        document = self._document(request, outputs)
        raw = []
        for wanted, described in zip(request.wanted, document["outputs"], strict=True):
            tensor = outputs[wanted.index]
            if wanted.binary:
                raw.append(tensor.data)
            else:
                spec = self._signature.outputs[wanted.index]
                described["data"] = _unpacked(spec, tensor)
        return InferReply(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), tuple(raw))

    def _document(self, request: InferRequest, outputs: Sequence[Tensor]) -> dict[str, Any]:
        described = [self._described(w, outputs[w.index]) for w in request.wanted]
        document = {"model_name": self._model, "model_version": "1", "outputs": described}
        return document if request.id is None else {**document, "id": request.id}

    def _described(self, wanted: WantedOutput, tensor: Tensor) -> dict[str, Any]:
        spec = self._signature.outputs[wanted.index]
        found = {"name": spec.name, "datatype": spec.datatype, "shape": list(tensor.shape)}
        size = len(tensor.data)
        return {**found, "parameters": {"binary_data_size": size}} if wanted.binary else found


def _document(text: Body) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request's JSON is broken: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest("the request's JSON has to be an object")
    return document


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("'parameters' has to be an object")
    return parameters


def _id(document: dict[str, Any]) -> str | None:
    found = document.get("id")
    if found is not None and not isinstance(found, str):
        raise BadRequest("'id' has to be a string")
    return found


def _binary_size(given: dict[str, Any]) -> int | None:
    size = _parameters(given).get("binary_data_size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadRequest(
            f"input {given.get('name')!r}: binary_data_size has to be a number of bytes"
        )
    return size


def _shape(spec: TensorSpec, shape: Any) -> tuple[int, ...]:  # noqa: ANN401 - from JSON
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise BadRequest(f"input {spec.name!r} needs a shape: a list of integers")
    if any(size > LARGEST_SIZE for size in shape):
        raise BadRequest(f"input {spec.name!r}: no axis may be over {LARGEST_SIZE}")
    if not spec.accepts(shape):
        raise BadRequest(f"input {spec.name!r} has shape {spec.shape}, not {shape}")
    return tuple(shape)


def _packed(spec: TensorSpec, given: dict[str, Any], shape: tuple[int, ...]) -> bytes:
    """A tensor written out in JSON, nested or flat, as little-endian bytes."""
    if "data" not in given:
        raise BadRequest(f"input {spec.name!r} has neither data nor binary_data_size")
    try:
        values = _values(given["data"], spec)
        if values.size and values.dtype.kind not in TAKES[np.dtype(spec.numpy_type).kind]:
            raise BadRequest(f"input {spec.name!r} is {spec.datatype}; its data is not")
        with np.errstate(over="ignore"):
            array = values.astype(np.dtype(spec.numpy_type).newbyteorder("<"))
    except (ValueError, TypeError, OverflowError):
        raise BadRequest(
            f"input {spec.name!r}: data has to be numbers, nested evenly or flat"
        ) from None
    if array.size != prod(shape):
        raise BadRequest(
            f"input {spec.name!r} of shape {list(shape)} needs {prod(shape)} values, not {array.size}"
        )
    if not _fits(array, values):
        raise BadRequest(f"input {spec.name!r}: a value does not fit {spec.datatype}")
    return array.tobytes()


def _values(data: Any, spec: TensorSpec) -> NDArray[Any]:  # noqa: ANN401 - from JSON
    values = np.asarray(data)
    if spec.datatype == "UINT64" and values.dtype.kind == "f":
        # NumPy takes small and very large integers together for floats; exactly they are objects.
        exact = np.asarray(data, dtype=object)
        if all(type(value) is int for value in exact.flat):
            return exact.astype(np.uint64)
    return values


def _fits(array: NDArray[Any], values: NDArray[Any]) -> bool:
    """Whether the conversion from what JSON said kept every integer and left floats finite."""
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all())
    return array.dtype.kind == "b" or not (array != values).any()


def _unpacked(spec: TensorSpec, tensor: Tensor) -> Any:  # noqa: ANN401 - what orjson writes
    """A tensor's values as a flat list; FP16 by way of FP32, which orjson knows and holds it exactly."""
    array = np.frombuffer(tensor.data, dtype=np.dtype(spec.numpy_type).newbyteorder("<"))
    if spec.datatype in ("FP16", "FP32"):
        # As doubles, so that what is read back and rounded to FP32 is the same number.
        return array.astype(np.float64)
    return array


# Kinds of JSON values (NumPy's letters) that a tensor's kind takes: an integer may stand for a
# float, nothing else for anything else.
TAKES = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


def _remember(memory: OrderedDict[Any, Any], key: Hashable, value: object) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
