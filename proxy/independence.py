"""Whether the rows of a batch leave each other alone: asked of the model by running it.

Shapes cannot tell: a model that subtracts the mean over its batch has an output that grows with
the batch, and gives every client an answer that depends on who asked at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Signature, TensorSpec

    Arrays = list[NDArray[Any]]
    Run = Callable[[Arrays], Arrays]

SEED = 20
# Of an output's largest value. Kernels differ by batch size in the last digits, and models that
# quantise while they run scale by the whole batch (some percent); a coupled model is off by more.
TOLERANCE = 0.1


def coupled_output(signature: Signature, one_row: Sequence[tuple[int, ...]], run: Run) -> str:
    """The name of an output whose rows depend on the other rows of the batch, "" if none does.

    `one_row` holds the input shapes of one row that runs. A model that refuses these values, or
    does not give the same answer twice, cannot be judged and passes; so do outputs of integers,
    where a near tie may fall either way.
    """
    try:
        first, second = (_inputs(signature, one_row, side) for side in range(2))
        alone, again, other = run(first), run(first), run(second)
        together = run(_side_by_side(signature.inputs, first, second))
    except Exception:  # whatever a model says to values that it was not made for
        return ""
    if not all(_alike(a, b) for a, b in zip(alone, again, strict=True)):
        return ""
    apart = _side_by_side(signature.outputs, alone, other)
    pairs = zip(signature.outputs, apart, together, strict=True)
    return next((s.name for s, a, b in pairs if "FP" in s.datatype and not _alike(a, b)), "")


def _inputs(signature: Signature, one_row: Sequence[tuple[int, ...]], side: int) -> Arrays:
    """One row, different by `side` where there is a batch axis; seeded."""
    return [
        _values(spec, shape, np.random.default_rng((SEED, side if spec.batch_axis >= 0 else 0)))
        for spec, shape in zip(signature.inputs, one_row, strict=True)
    ]


def _values(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    """Numbers from 0 to 1; integers from 1 to 2, since a zero may be what a model divides by."""
    if "FP" in spec.datatype:
        return random.random(shape).astype(spec.numpy_type)
    return np.asarray(random.integers(1, 3, shape)).astype(spec.numpy_type)


def _side_by_side(specs: Sequence[TensorSpec], first: Arrays, second: Arrays) -> Arrays:
    return [
        np.concatenate([a, b], axis=spec.batch_axis) if spec.batch_axis >= 0 else a
        for spec, a, b in zip(specs, first, second, strict=True)
    ]


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    scale = np.abs(a, where=finite, out=np.zeros_like(a)).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)
    return bool(gap[finite].max(initial=0.0) <= TOLERANCE * scale)
