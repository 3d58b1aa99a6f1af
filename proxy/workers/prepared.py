"""Batches of the same shapes, run again and again in the same memory."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dlbench.proxy.workers.regroup import join, paired, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Signature, TensorSpec
    from dlbench.proxy.workers.frames import Shapes
    from dlbench.proxy.workers.regroup import Array, Pairs
    from dlbench.proxy.workers.session import Session

    Rows = tuple[int, ...]

# Ways to cut a batch into requests that are remembered for each of its sizes.
CUTS_KEPT: Final = 256


class Cut(NamedTuple):
    """Outputs as they are sent: their shapes, their bytes, and what to copy for that."""

    shapes: Shapes
    data: list[memoryview]
    size: int
    pairs: Pairs


class PreparedBatch:
    """Memory and plans for batches of these shapes, which arrive in `room`.

    An input stays where it arrives unless its batch axis is not 0, or it lies at an odd address.
    """

    def __init__(
        self, signature: Signature, session: Session, shapes: Shapes, room: NDArray[np.uint8]
    ) -> None:
        self.size = 0
        self._moved: list[tuple[Array, Array, int]] = []
        self._axes = [spec.batch_axis for spec in signature.outputs]
        pairs = zip(signature.inputs, shapes, strict=True)
        self._runs = session.over([self._placed(spec, shape, room) for spec, shape in pairs])
        self._joins = lru_cache(CUTS_KEPT)(self._joined)
        self._cuts = lru_cache(CUTS_KEPT)(self._cut)
        self._outputs: list[Array] = []
        self._flat: list[Array] = []

    @property
    def kept_bytes(self) -> int:
        """Memory held besides the room."""
        own = [batch for _, batch, _ in self._moved]
        return sum(array.nbytes for array in (*own, *self._outputs, *self._flat))

    def join(self, rows: Rows) -> None:
        """Make a batch of the requests that have arrived."""
        join(self._joins(rows))

    def run(self) -> list[Array]:
        """The outputs of the batch, valid until the next run."""
        return self._runs.run()

    def split(self, outputs: list[Array], rows: Rows) -> Cut:
        """Put each request's piece of every output together, also valid until the next run."""
        if outputs is not self._outputs:
            self._outputs = outputs
            self._flat = [
                np.empty(array.size if axis > 0 else 0, array.dtype)
                for axis, array in zip(self._axes, outputs, strict=True)
            ]
            self._cuts.cache_clear()
        cut = self._cuts(rows)
        split(cut.pairs)
        return cut

    def _placed(self, spec: TensorSpec, shape: tuple[int, ...], room: NDArray[np.uint8]) -> Array:
        start, self.size = self.size, self.size + spec.byte_size(shape)
        pieces = room[start : self.size].view(spec.numpy_type)
        if spec.batch_axis <= 0 and pieces.flags.aligned:
            return pieces.reshape(shape)
        batch = np.empty(shape, spec.numpy_type)
        self._moved.append((pieces, batch, spec.batch_axis))
        return batch

    def _joined(self, rows: Rows) -> Pairs:
        return [
            pair
            for pieces, batch, axis in self._moved
            for pair in paired(pieces, batch, axis, rows)
        ]

    def _cut(self, rows: Rows) -> Cut:
        data: list[memoryview] = []
        pairs: Pairs = []
        for axis, array, flat in zip(self._axes, self._outputs, self._flat, strict=True):
            if axis <= 0 or len(rows) == 1:
                data.append(array.data)
                continue
            pairs += paired(flat, array, axis, rows)
            data.append(flat.data)
        shapes = tuple(array.shape for array in self._outputs)
        return Cut(shapes, data, sum(piece.nbytes for piece in data), pairs)
