"""Tensors as the wire knows them: datatypes, sizes and descriptions. Pure, and free of NumPy arrays."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview

# V2 datatype -> (NumPy's name, bytes per element, onnxruntime's name).
DATATYPES = {
    "BOOL": ("bool", 1, "tensor(bool)"),
    "INT8": ("int8", 1, "tensor(int8)"),
    "INT16": ("int16", 2, "tensor(int16)"),
    "INT32": ("int32", 4, "tensor(int32)"),
    "INT64": ("int64", 8, "tensor(int64)"),
    "UINT8": ("uint8", 1, "tensor(uint8)"),
    "UINT16": ("uint16", 2, "tensor(uint16)"),
    "UINT32": ("uint32", 4, "tensor(uint32)"),
    "UINT64": ("uint64", 8, "tensor(uint64)"),
    "FP16": ("float16", 2, "tensor(float16)"),
    "FP32": ("float32", 4, "tensor(float)"),
    "FP64": ("float64", 8, "tensor(double)"),
}
# Rows of one request, where nobody says otherwise.
MAX_ROWS = 1 << 20
FROM_ORT = {ort: name for name, (_, _, ort) in DATATYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    `dims` are sizes, with the symbol's name (or "" for a nameless one) where the model leaves a
    size open. `batch_axis` is -1 for a tensor that has none.
    """

    name: str
    datatype: str
    dims: tuple[int | str, ...]
    batch_axis: int = -1

    @property
    def shape(self) -> list[int]:
        """The dims as V2 metadata gives them: -1 where the size is open."""
        return [dim if isinstance(dim, int) else -1 for dim in self.dims]

    @property
    def item_size(self) -> int:
        """Bytes per element."""
        return DATATYPES[self.datatype][1]

    @property
    def numpy_type(self) -> str:
        """NumPy's name of the datatype."""
        return DATATYPES[self.datatype][0]

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape fits the declared dims."""
        return len(shape) == len(self.dims) and all(
            size == dim if isinstance(dim, int) and axis != self.batch_axis else size >= 0
            for axis, (size, dim) in enumerate(zip(shape, self.dims, strict=True))
        )

    def fitted(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The shape as the model has it, where a client's [1] may be a scalar; None: it does not fit."""
        if not self.dims and [*shape] == [1]:
            return ()
        return tuple(shape) if self.accepts(shape) else None

    def byte_size(self, shape: Sequence[int]) -> int:
        """Bytes that a tensor of this shape takes."""
        return prod(shape) * self.item_size

    def row_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape without its batch axis: what requests must share to go into one batch."""
        if self.batch_axis < 0:
            return tuple(shape)
        return (*shape[: self.batch_axis], *shape[self.batch_axis + 1 :])


class Tensor(NamedTuple):
    """A tensor's shape and its little-endian bytes; name and datatype follow from its place."""

    shape: tuple[int, ...]
    data: bytes | memoryview


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, batch axes settled.

    `batchable` is False for a model that takes one request at a time; `notes` says what was found
    out by trying. `max_rows` and `max_bytes` are what one request may have.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool
    notes: tuple[str, ...] = ()
    max_rows: int = MAX_ROWS
    max_bytes: int = sys.maxsize

    @cached_property
    def keyed_inputs(self) -> tuple[int, ...]:
        """Places of the inputs whose bytes requests of one batch share, having no batch axis.

        None where nothing shares a batch: a copy of all inputs would be a key for nobody.
        """
        return tuple(
            i for i, spec in enumerate(self.inputs) if self.batchable and spec.batch_axis < 0
        )


def signature_from(document: dict[str, Any]) -> Signature:
    """The signature out of a worker's hello."""
    specs = {
        side: tuple(
            TensorSpec(s["name"], s["datatype"], tuple(s["dims"]), s["batch_axis"])
            for s in document[side]
        )
        for side in ("inputs", "outputs")
    }
    return Signature(
        specs["inputs"], specs["outputs"], document["batchable"], tuple(document["notes"])
    )
