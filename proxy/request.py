"""A request read and on its way: what every protocol makes and the dispatcher takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pickle import PickleBuffer
from typing import TYPE_CHECKING, NamedTuple

from dlbench.proxy.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from dlbench.proxy.errors import RequestError
    from dlbench.proxy.tensors import Buffer, Signature, Tensor

    Outputs = tuple[Tensor, ...]
    Reply = Callable[[Outputs | RequestError], None]


# A tensor without elements costs its sender nothing, whatever its other axes say: [2147483647, 0] is
# 8 GB of sums in a worker. So its other axes may not describe more than so many places.
MOST_EMPTY = 65_536


class WantedOutput(NamedTuple):
    """An output that the reply is to hold, by its place in the signature, and how."""

    place: int
    binary: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """What requests of one make share: shapes in the signature's order, and what they ask for.

    `priority` is 1 for the highest, 0 where none is named; `timeout_ns` is 0 for no deadline.
    `id` is echoed.
    """

    shapes: tuple[tuple[int, ...], ...]
    rows: int
    row_shapes: tuple[tuple[int, ...], ...]
    wanted: tuple[WantedOutput, ...]
    id: str | None = None
    priority: int = 0
    timeout_ns: int = 0

    def within(self, timeout_ns: int) -> Layout:
        """The same with so much time at most; none left is the least that is a deadline."""
        least = max(1, min(timeout_ns, self.timeout_ns or timeout_ns))
        return replace(self, timeout_ns=least)


@dataclass(slots=True)
class Trace:
    """Where a request's time went; 0 for stages that it skipped."""

    queue_ns: int = 0
    compute_ns: int = 0
    batch_rows: int = 0


class InferRequest:
    """One request: its layout, and every input's little-endian bytes in the signature's order.

    Requests may share a batch if their `batch_key`s are equal: trailing shapes, and the bytes of
    tensors without a batch axis. `trace` is filled in if there is one.
    """

    __slots__ = ("batch_key", "data", "layout", "rows", "trace")

    def __init__(self, layout: Layout, data: tuple[Buffer, ...], batch_key: Hashable) -> None:
        self.layout = layout
        self.data = data
        self.batch_key = batch_key
        self.rows = layout.rows
        self.trace: Trace | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """From process to process: the tensors beside the pickle, uncopied."""
        return InferRequest, (self.layout, tuple(map(PickleBuffer, self.data)), self.batch_key)


def lay_out(
    signature: Signature,
    shapes: tuple[tuple[int, ...], ...],
    wanted: tuple[WantedOutput, ...],
    id: str | None = None,  # noqa: A002 - V2's word
    priority: int = 0,
    timeout_ns: int = 0,
) -> Layout:
    """The layout of a request whose inputs have these shapes, in the signature's order.

    Raises:
        BadRequest: the inputs disagree on the batch size, or are larger than a request may be.
    """
    specs = signature.inputs
    rows = _rows(
        [s[spec.batch_axis] for spec, s in zip(specs, shapes, strict=True) if spec.batch_axis >= 0]
    )
    check_rows(signature, rows)
    size = sum(spec.byte_size(shape) for spec, shape in zip(specs, shapes, strict=True))
    if size > signature.max_bytes:
        raise BadRequest(
            f"tensors of {size} bytes; a request may have at most {signature.max_bytes}"
        )
    for spec, shape in zip(specs, shapes, strict=True):
        if 0 in shape and prod(filter(None, shape)) > MOST_EMPTY:
            raise BadRequest(
                f"input {spec.name!r} of shape {[*shape]} has no elements; the axes of such a "
                "tensor "
                f"may multiply to at most {MOST_EMPTY} beside the empty ones"
            )
    row_shapes = tuple(spec.row_shape(shape) for spec, shape in zip(specs, shapes, strict=True))
    return Layout(shapes, rows, row_shapes, wanted, id, priority, timeout_ns)


def check_rows(signature: Signature, rows: int) -> None:
    """Raise BadRequest if these are more rows than one request may have."""
    if rows > signature.max_rows:
        raise BadRequest(f"{rows} rows in one request; at most {signature.max_rows} are allowed")


def make_request(signature: Signature, layout: Layout, data: tuple[Buffer, ...]) -> InferRequest:
    """A request of that layout with these bytes."""
    keyed = [bytes(data[i]) for i in signature.keyed_inputs]
    return InferRequest(layout, data, (layout.row_shapes, *keyed) if keyed else layout.row_shapes)


def all_outputs(signature: Signature, *, binary: bool) -> tuple[WantedOutput, ...]:
    """Every output of the model."""
    return tuple(WantedOutput(index, binary) for index in range(len(signature.outputs)))


def _rows(sizes: Sequence[int]) -> int:
    """The batch size, which all inputs with a batch axis must agree on."""
    if len(set(sizes)) > 1:
        raise BadRequest(f"the inputs disagree on the batch size: {sorted(set(sizes))}")
    rows = sizes[0] if sizes else 1
    if rows < 1:
        raise BadRequest("a request needs at least one row")
    return rows
