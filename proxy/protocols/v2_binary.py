"""Bytes to requests and back: the V2 / Open Inference Protocol, JSON and binary. Pure.

A binary request is JSON, then the raw little-endian tensors in the JSON's order. A client repeats
that JSON from request to request, so what was made of it is kept by its bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.http.reply import Stream
from dlbench.proxy.protocols import v2_json as document
from dlbench.proxy.protocols.json_reply import body, dumps, json_value, weight
from dlbench.proxy.protocols.json_tensors import pack, unpack
from dlbench.proxy.request import make_request

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from dlbench.proxy.request import InferRequest, Layout, WantedOutput
    from dlbench.proxy.tensors import Buffer, Signature, Tensor

# Different heads kept; a client needs one or two, an id in every request makes each another.
REMEMBERED = 256
# A longer head is read anew each time: kept, a few hundred of them could fill the memory.
LONGEST_REMEMBERED = 4096
# Bytes of outputs written out beside binary ones. The JSON's length stands before it, so it has to be
# written in one go.
LARGEST_MIXED = 1 << 20


class ReadPlan(NamedTuple):
    """How to read a binary request: its layout, and where each input's bytes are after the JSON."""

    layout: Layout
    places: tuple[slice, ...]
    size: int


class InferReply(NamedTuple):
    """A reply ready to be sent: the JSON's length goes into a header if tensors follow it."""

    json: bytes
    tensors: tuple[bytes | memoryview, ...] = ()
    stream: Stream | None = None  # instead of both


class V2Wire:
    """Reads requests and writes replies for one model."""

    def __init__(self, model: str, version: str, signature: Signature) -> None:
        self._model, self._version = model, version
        self._signature = signature
        self._documents = document.DocumentReader(signature)
        self._plans: OrderedDict[Buffer, ReadPlan] = OrderedDict()
        self._heads: OrderedDict[Hashable, bytes] = OrderedDict()

    def read(self, body: Buffer, json_size: int | None) -> InferRequest:
        """A request from its body; `json_size` is the Inference-Header-Content-Length, if sent.

        Raises:
            BadRequest: with a text that names the tensor and what is wrong.
        """
        if not json_size:
            return self._read_raw(body) if json_size == 0 else self._read_json(body, b"")
        view = memoryview(body)
        head = view[:json_size].tobytes()
        plan = self._plans.get(head)
        if plan is None:
            plan = self._plan(head, json_size)
            if plan is None:
                return self._read_json(head, view[json_size:])
        raw = view[json_size:]
        if len(raw) != plan.size:
            raise _promised(plan.size, len(raw))
        return make_request(
            self._signature, plan.layout, tuple([raw[place] for place in plan.places])
        )

    def write(self, request: InferRequest, outputs: Sequence[Tensor]) -> InferReply:
        """The reply with the outputs that the request wants."""
        wanted = request.layout.wanted
        for one in wanted:
            if not one.binary:
                return self._write_json(request, outputs)
        chosen = tuple([outputs[one.place].data for one in wanted])
        return InferReply(self._binary_head(request, outputs), chosen)

    def _plan(self, head: bytes, json_size: int) -> ReadPlan | None:
        """How to read a request whose inputs are all binary; None if one of them is not."""
        if not 0 < json_size <= len(head):
            raise BadRequest(
                f"Inference-Header-Content-Length {json_size} does not fit a body of {len(head)} "
                "bytes"
            )
        parsed = self._load(head)
        found: dict[int, tuple[tuple[int, ...], slice]] = {}
        position = 0
        for given in self._documents.inputs(parsed):
            size = self._documents.binary_size(given)
            if size is None:
                return None
            index, shape = self._documents.tensor(given, found)
            self._documents.check_size(index, shape, size)
            found[index] = (shape, slice(position, position + size))
            position += size
        ordered = [found[i] for i in range(len(found))]
        layout = self._documents.layout(parsed, tuple(shape for shape, _ in ordered))
        plan = ReadPlan(layout, tuple(place for _, place in ordered), position)
        if len(head) <= LONGEST_REMEMBERED:
            _remember(self._plans, head, plan)
        return plan

    def _load(self, text: Buffer) -> dict[str, Any]:
        """The JSON of a request, which may say whom it is for, as replies do."""
        parsed = document.load(text)
        for key, own in (("model_name", self._model), ("model_version", self._version)):
            if str(parsed.get(key) or own) != own:
                raise BadRequest(f"the request is for {key} {parsed[key]!r}; this is {own!r}")
        return parsed

    def _read_json(self, text: Buffer, raw: Buffer) -> InferRequest:
        """A request with at least one tensor written out in JSON."""
        parsed = self._load(text)
        found: dict[int, tuple[tuple[int, ...], Buffer]] = {}
        position = 0
        for given in self._documents.inputs(parsed):
            index, shape = self._documents.tensor(given, found)
            size = self._documents.binary_size(given)
            if size is None:
                found[index] = (shape, self._packed(index, given, shape))
                continue
            self._documents.check_size(index, shape, size)
            found[index] = (shape, raw[position : position + size])
            position += size
        if position != len(raw):
            raise _promised(position, len(raw))
        ordered = [found[i] for i in range(len(found))]
        layout = self._documents.layout(parsed, tuple(shape for shape, _ in ordered))
        return make_request(self._signature, layout, tuple(data for _, data in ordered))

    def _packed(self, index: int, given: dict[str, Any], shape: tuple[int, ...]) -> bytes:
        spec = self._signature.inputs[index]
        if "data" not in given:
            raise BadRequest(f"input {spec.name!r} has neither data nor binary_data_size")
        return pack(spec, given["data"], shape)

    def _read_raw(self, body: Buffer) -> InferRequest:
        """A body that is one tensor and nothing else: for models with one input."""
        if len(self._signature.inputs) != 1:
            raise BadRequest("a raw binary request needs a model with exactly one input")
        spec = self._signature.inputs[0]
        open_axes = [axis for axis, dim in enumerate(spec.dims) if not isinstance(dim, int)]
        if any(axis != spec.batch_axis for axis in open_axes):
            raise BadRequest(
                f"input {spec.name!r} has symbolic dimensions, which a raw binary request cannot "
                "give"
            )
        row_size = prod(d for d in spec.dims if isinstance(d, int)) * spec.item_size
        rows, rest = divmod(len(body), row_size)
        if rest or not rows or (rows > 1 and not open_axes):
            raise BadRequest(f"{len(body)} bytes is not a multiple of the {row_size}-byte row size")
        shape = tuple(d if isinstance(d, int) else rows for d in spec.dims)
        layout = self._documents.layout({}, (shape,))
        return make_request(self._signature, layout, (memoryview(body),))

    def _binary_head(self, request: InferRequest, outputs: Sequence[Tensor]) -> bytes:
        """The JSON before binary outputs, kept as long as shapes repeat and no id is echoed."""
        wanted = request.layout.wanted
        if request.layout.id is not None:
            return orjson.dumps(self._document(request, outputs))
        key = (wanted, *[outputs[one.place].shape for one in wanted])
        head = self._heads.get(key)
        if head is None:
            head = orjson.dumps(self._document(request, outputs))
            _remember(self._heads, key, head)
        return head

    def _write_json(self, request: InferRequest, outputs: Sequence[Tensor]) -> InferReply:
        wanted = request.layout.wanted
        raw = tuple([outputs[one.place].data for one in wanted if one.binary])
        heavy = weight([outputs[one.place] for one in wanted if not one.binary])
        if not raw:
            written = body(partial(self._values, request, outputs), heavy)
            if isinstance(written, Stream):
                return InferReply(b"", stream=written)
            return InferReply(b"".join(written))
        if heavy > LARGEST_MIXED:
            raise BadRequest(
                f"outputs of {heavy} bytes cannot be written as JSON beside binary ones; request "
                "all as binary, or none"
            )
        return InferReply(dumps(self._values(request, outputs)), raw)

    def _values(self, request: InferRequest, outputs: Sequence[Tensor]) -> dict[str, Any]:
        """The reply with the numbers of those outputs that are not binary."""
        written = self._document(request, outputs)
        for one, described in zip(request.layout.wanted, written["outputs"], strict=True):
            if not one.binary:
                spec, tensor = self._signature.outputs[one.place], outputs[one.place]
                described["data"] = json_value(unpack(spec, tensor))
        return written

    def _document(self, request: InferRequest, outputs: Sequence[Tensor]) -> dict[str, Any]:
        layout = request.layout
        described = [self._described(one, outputs[one.place]) for one in layout.wanted]
        found = {
            "model_name": self._model,
            "model_version": self._version,
            "outputs": described,
        }
        return found if layout.id is None else {**found, "id": layout.id}

    def _described(self, wanted: WantedOutput, tensor: Tensor) -> dict[str, Any]:
        spec = self._signature.outputs[wanted.place]
        found = {"name": spec.name, "datatype": spec.datatype, "shape": list(tensor.shape)}
        size = len(tensor.data)
        return {**found, "parameters": {"binary_data_size": size}} if wanted.binary else found


def read_alone(signature: Signature, body: Buffer, json_size: int | None) -> InferRequest:
    """A request read without the memory of a model's `V2Wire`; its errors are the same."""
    return V2Wire("", "", signature).read(body, json_size)


def _promised(promised: int, got: int) -> BadRequest:
    return BadRequest(f"the JSON promises {promised} bytes of binary tensors, the body has {got}")


def _remember(memory: OrderedDict[Any, Any], key: Hashable, value: object) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
