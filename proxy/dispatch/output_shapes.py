"""What the outputs of a model that batches have looked like: is one's size a matter of the data? Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from dlbench.proxy.request import Outputs
    from dlbench.proxy.tensors import Signature

# Shapes of rows that are remembered; with one more all are forgotten.
KEPT = 1024


class OutputShapes:
    """Shapes of output rows, by the shapes of the input rows that they belong to.

    Where an input has no batch axis its values may decide on the shapes: then rows are only counted.
    """

    def __init__(self, signature: Signature) -> None:
        self._outputs = signature.outputs
        self._counts_only = bool(signature.keyed_inputs)
        self._known: dict[Hashable, tuple[tuple[int, ...], ...]] = {}

    def misfit(self, row_shapes: Hashable, tensors: Outputs, rows: int) -> str:
        """The output that has not a row for each of so many, or other ones than before; "": none."""
        shapes = []
        for spec, tensor in zip(self._outputs, tensors, strict=True):
            if tensor.shape[spec.batch_axis] != rows:
                return spec.name
            shapes.append(spec.row_shape(tensor.shape))
        if self._counts_only:
            return ""
        if len(self._known) >= KEPT:
            self._known.clear()
        known = self._known.setdefault(row_shapes, tuple(shapes))
        pairs = zip(self._outputs, known, shapes, strict=True)
        return next((spec.name for spec, a, b in pairs if a != b), "")


def unlike(signature: Signature, parts: Sequence[Outputs]) -> str:
    """The output of which parts cannot be joined along the batch axis; "" if all can."""
    for at, spec in enumerate(signature.outputs):
        if len({spec.row_shape(part[at].shape) for part in parts}) > 1:
            return spec.name
    return ""
