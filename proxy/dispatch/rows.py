"""Rows of requests put together into batches and taken apart again, as bytes. Pure.

In a frame each request's piece of a tensor is contiguous, so for every batch axis the front only
cuts and joins bytes; a worker that computes with another axis than 0 rearranges.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from dlbench.proxy.request import lay_out, make_request
from dlbench.proxy.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.tensors import Buffer, Signature, TensorSpec


def gather(
    signature: Signature, requests: Sequence[InferRequest], rows: int
) -> tuple[list[Sequence[int]], list[Any]]:
    """Per tensor the whole batch's shape, and all pieces in order."""
    shapes: list[Sequence[int]] = []
    pieces: list[Any] = []
    first = requests[0]
    for index, spec in enumerate(signature.inputs):
        axis, shape = spec.batch_axis, first.layout.shapes[index]
        if axis < 0:  # the same bytes in every request of a batch
            shapes.append(shape)
            pieces.append(first.data[index])
            continue
        shapes.append((*shape[:axis], rows, *shape[axis + 1 :]))
        pieces += [request.data[index] for request in requests]
    return shapes, pieces


def scatter(signature: Signature, tensors: Outputs, rows: Sequence[int]) -> list[Outputs]:
    """Each request's outputs out of a batch's, for requests of so many rows each."""
    total = sum(rows)
    columns = [
        _pieces(spec.batch_axis, tensor, rows, total)
        for spec, tensor in zip(signature.outputs, tensors, strict=True)
    ]
    return list(zip(*columns, strict=True))


def spread(signature: Signature, request: InferRequest, parts: int) -> list[InferRequest]:
    """A request cut into so many of nearly equal rows, in order."""
    layout = request.layout
    share, rest = divmod(layout.rows, parts)
    found, start = [], 0
    for part in range(parts):
        stop = start + share + (part < rest)
        pieces = [
            _take(spec, shape, data, start, stop)
            for spec, shape, data in zip(signature.inputs, layout.shapes, request.data, strict=True)
        ]
        shapes = tuple(shape for shape, _ in pieces)
        plan = lay_out(signature, shapes, layout.wanted, None, layout.priority, layout.timeout_ns)
        found.append(make_request(signature, plan, tuple(data for _, data in pieces)))
        start = stop
    return found


def merge(signature: Signature, parts: Sequence[Outputs]) -> Outputs:
    """The outputs of a request that was spread, from those of its parts in order."""
    return tuple(
        _merged(spec.batch_axis, [part[index] for part in parts])
        for index, spec in enumerate(signature.outputs)
    )


def _pieces(axis: int, tensor: Tensor, rows: Sequence[int], total: int) -> list[Tensor]:
    data, shape = tensor.data, tensor.shape
    row_bytes = len(data) // total
    shapes = {n: (*shape[:axis], n, *shape[axis + 1 :]) for n in set(rows)}
    found, start = [], 0
    for count in rows:
        stop = start + count * row_bytes
        found.append(Tensor(shapes[count], data[start:stop]))
        start = stop
    return found


def _take(
    spec: TensorSpec, shape: tuple[int, ...], data: Buffer, start: int, stop: int
) -> tuple[tuple[int, ...], Buffer]:
    """Rows start to stop of a tensor in its own layout."""
    axis = spec.batch_axis
    if axis < 0:
        return shape, data
    row = prod(shape[axis + 1 :]) * spec.item_size
    block = shape[axis] * row
    cuts = (
        [
            data[base + start * row : base + stop * row]
            for base in range(0, block * prod(shape[:axis]), block)
        ]
        if block
        else []
    )
    taken = (*shape[:axis], stop - start, *shape[axis + 1 :])
    return taken, cuts[0] if len(cuts) == 1 else b"".join(cuts)


def _merged(axis: int, parts: Sequence[Tensor]) -> Tensor:
    """Tensors joined along an axis: block by block of what lies before it."""
    shape = parts[0].shape
    blocks = prod(shape[:axis])
    sizes = [len(part.data) // blocks if blocks else 0 for part in parts]
    data = b"".join(
        part.data[block * size : (block + 1) * size]
        for block in range(blocks)
        for part, size in zip(parts, sizes, strict=True)
    )
    rows = sum(part.shape[axis] for part in parts)
    return Tensor((*shape[:axis], rows, *shape[axis + 1 :]), data)
