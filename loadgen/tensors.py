"""One input tensor as V2 metadata describes it, and the V2 datatypes in numpy's terms."""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

from dlbench.loadgen.errors import DataError

# BF16 has no numpy type and no JSON form; a model that wants it is refused by name.
DATATYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}


class TensorSpec(BaseModel):
    """Name, datatype and shape of one input; -1 marks a symbolic dimension.

    `batch_axis` is the axis along which the server batches; None: the tensor has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    datatype: str
    shape: tuple[int, ...]
    batch_axis: int | None = None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy type. Raises DataError for a datatype that V2 does not list."""
        try:
            return DATATYPES[self.datatype]
        except KeyError:
            raise DataError(
                f"input {self.name!r} has datatype {self.datatype}, which dlbench cannot generate"
            ) from None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a request that carries one row: the batch axis is 1."""
        return tuple(1 if axis == self.batch_axis else size for axis, size in enumerate(self.shape))

    @property
    def symbolic_axes(self) -> tuple[int, ...]:
        """Axes of unknown size that are not the batch: someone must name a size for them."""
        return tuple(axis for axis, size in enumerate(self.row_shape) if size < 0)

    @property
    def elements(self) -> int:
        """Elements in one row; only meaningful when no axis is symbolic."""
        return math.prod(self.row_shape)
