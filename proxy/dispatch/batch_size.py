"""How many rows a batch may have: as the knobs say, and as the model's results have shown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.proxy.dispatch.batch_limit import BATCH_LIMITS
from dlbench.proxy.dispatch.queues import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.job import Job
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.tensors import Signature

# As many as the knob takes, and more.
MOST_ROWS = 1 << 16

# Shapes of rows that are remembered; with one more all are forgotten.
KEPT = 1024


class BatchSize:
    """The most rows of a batch now; a model that has shown not to take so many never gets them again."""

    def __init__(self, signature: Signature, on_less: Callable[[int, str], None]) -> None:
        """`on_less` hears of smaller batches from now on: the most rows, and why."""
        self._most_rows = MOST_ROWS if signature.batchable else 1
        self._shapes = OutputShapes(signature)
        self._tell_less = on_less

    @property
    def shared(self) -> bool:
        """Whether requests may share a batch."""
        return self._most_rows > 1

    @property
    def limit(self) -> int:
        """The most rows now."""
        return self._limit.limit

    def configure(self, config: ServingConfig) -> None:
        """Take other knobs."""
        self._config = config
        most = min(config.max_batch_size, self._most_rows)
        self._limit = BATCH_LIMITS[config.batching](most, int(config.slo_ms * NS_PER_MS))

    def shrink(self, rows: int, why: str) -> None:
        """Never again more rows than so many."""
        if rows < self._most_rows:
            self._most_rows = rows
            self.configure(self._config)
            self._tell_less(rows, why)

    def learn(self, jobs: Sequence[Job], tensors: Outputs, rows: int) -> None:
        """See from a result whether the model should get smaller batches."""
        job = jobs[0]
        if not self.shared:
            return
        if name := self._shapes.misfit(job.request.layout.row_shapes, tensors, rows):
            self.shrink(1, depends(name))
        elif job.refused is not None and job.refused.cleared(job):
            self.shrink(job.refused.rows // 2, f"it refused more: {job.refused.text}")

    def adapt(self, rows: int, latency_ns: int, compute_ns: int) -> None:
        """A batch took so long; `latency_ns` is what its first request waited in all."""
        self._limit.observe(rows, max(0, latency_ns - compute_ns), compute_ns)


def depends(name: str) -> str:
    """Why rows of this output share no batch."""
    return f"the shape of output {name!r} depends on the data"


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
