"""From requests side by side to one batch and back, for any batch axis. Pure.

In a frame each request's piece of a tensor is contiguous. With the batch on axis 0 that already is
the batch; on another axis the rows of a request lie apart and have to be moved.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Pairs = list[tuple[Array, Array]]


def paired(pieces: Array, batch: Array, axis: int, rows: Sequence[int]) -> Pairs:
    """Views (of `pieces`, of `batch`) of the same shape and with the same elements.

    `pieces` is flat, the requests' pieces one after the other; `batch` has the whole batch's
    shape, and is contiguous. Copying one view of each pair to the other joins or splits a batch.
    There is one pair for every run of requests with equally many rows, so mostly one.
    """
    if axis <= 0 or not batch.size:
        return [(pieces.reshape(batch.shape), batch)]
    row_size = batch.size // batch.shape[axis]
    lead, trail = batch.shape[:axis], batch.shape[axis + 1 :]
    pairs: Pairs = []
    start = 0
    for count, run in groupby(rows):
        requests = len(list(run))
        stop = start + count * requests
        side_by_side = pieces[start * row_size : stop * row_size]
        part = batch[(slice(None),) * axis + (slice(start, stop),)]
        pairs.append(
            (
                side_by_side.reshape(requests, *lead, count, *trail),
                np.moveaxis(part.reshape(*lead, requests, count, *trail), axis, 0),
            )
        )
        start = stop
    return pairs


def join(pairs: Pairs) -> None:
    """Fill the batch from the pieces."""
    for pieces, batch in pairs:
        np.copyto(batch, pieces)


def split(pairs: Pairs) -> None:
    """Fill the pieces from the batch."""
    for pieces, batch in pairs:
        np.copyto(pieces, batch)
