"""Which axis of which tensor is the batch: first from the model's symbols, then by trying. Pure.

The model says sizes and symbols; what it does not say is asked of `run`, a function from input
shapes to output shapes that really runs it.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from dlbench.proxy.errors import ModelError
from dlbench.proxy.tensors import Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Shapes = list[tuple[int, ...]]
    Run = Callable[[Shapes], Shapes]

# Sizes tried for an open dimension that is not the batch: sequence lengths and image sides that
# models are commonly exported for, small ones first since most models take them.
SIZES = (16, 32, 64, 128, 224, 256, 512, 1, 8, 48, 96, 160, 192, 299, 320, 384, 640, 1024)
# Height and width that differ, as text recognisers have them.
PAIRS = ((48, 192), (48, 320), (32, 320), (32, 100), (80, 3000))


def settle(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    run: Run,
    batch_axis: Mapping[str, int],
    shape: Mapping[str, tuple[int, ...]],
) -> tuple[Signature, Shapes]:
    """The signature with every batch axis settled, and one row's input shapes that run.

    Raises:
        ModelError: an override names no tensor, or no size that was tried runs.
    """
    _check_names(inputs, outputs, batch_axis, shape)
    lead = next((spec for spec in inputs if _open_first(spec)), inputs[0])
    inputs = [_with_axis(spec, input_axis(spec, lead), batch_axis) for spec in inputs]
    try:
        one_row, seen, notes = _runnable(inputs, run, shape)
    except ModelError:
        if batch_axis or all(spec.batch_axis < 0 for spec in inputs):
            raise
        return _without_batch(inputs, outputs, run, shape)
    outputs = list(map(_as_seen, outputs, seen))
    single = Signature(tuple(inputs), tuple(outputs), batchable=False, notes=tuple(notes))
    if all(spec.batch_axis < 0 for spec in inputs):
        return unbatchable(single, f"input {inputs[0].name!r} has a fixed batch size"), one_row
    try:
        grown = list(_grown(inputs, one_row, run))
    except Exception as error:  # whatever a model says that has its one row built in
        return unbatchable(single, f"more than one row fails: {first_line(error)}"), one_row
    outputs = [
        _with_axis(_as_seen(spec, two), _output_axis(two, three), batch_axis)
        for spec, (two, three) in zip(outputs, grown, strict=True)
    ]
    if lonely := [spec.name for spec in outputs if spec.batch_axis < 0]:
        return unbatchable(single, f"output {lonely[0]!r} does not grow with the batch"), one_row
    return Signature(tuple(inputs), tuple(outputs), batchable=True, notes=tuple(notes)), one_row


def _without_batch(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    run: Run,
    shape: Mapping[str, tuple[int, ...]],
) -> tuple[Signature, Shapes]:
    """One row of nothing runs: the open first axis may count something else, as a graph's nodes."""
    lead = next(spec.name for spec in inputs if spec.batch_axis >= 0)
    inputs = [replace(spec, batch_axis=-1) for spec in inputs]
    found, seen, notes = _runnable(inputs, run, shape)
    outputs = list(map(_as_seen, outputs, seen))
    single = Signature(tuple(inputs), tuple(outputs), batchable=False, notes=tuple(notes))
    why = f"it does not run with axis 0 of {lead!r} as the batch (--batch-axis NAME=K for others)"
    return unbatchable(single, why), found


def input_axis(spec: TensorSpec, lead: TensorSpec) -> int:
    """The batch axis of an input: the axis with the symbol of the leading input's axis 0.

    Without that symbol it is axis 0 if that is open, else there is none (-1). The leading input is
    the first whose axis 0 is open: one before it may be a plain number.
    """
    if not _open_first(lead):
        return -1
    if lead.dims[0] and lead.dims[0] in spec.dims:
        return spec.dims.index(lead.dims[0])
    return 0 if _open_first(spec) else -1


def first_line(error: Exception) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _open_first(spec: TensorSpec) -> bool:
    return bool(spec.dims) and isinstance(spec.dims[0], str)


def row_shapes(
    inputs: Sequence[TensorSpec], sizes: Mapping[str, tuple[int, ...]], rows: int
) -> Shapes:
    """Input shapes for `rows` rows, open dimensions filled in order from `sizes` by tensor name."""
    return [_filled(spec, sizes.get(spec.name, ()), rows) for spec in inputs]


def _filled(spec: TensorSpec, sizes: tuple[int, ...], rows: int) -> tuple[int, ...]:
    left = itertools.chain(sizes, itertools.repeat(1))
    return tuple(
        rows if axis == spec.batch_axis else dim if isinstance(dim, int) else next(left)
        for axis, dim in enumerate(spec.dims)
    )


def _open_axes(spec: TensorSpec) -> list[int]:
    return [a for a, d in enumerate(spec.dims) if isinstance(d, str) and a != spec.batch_axis]


def _runnable(
    inputs: Sequence[TensorSpec], run: Run, shape: Mapping[str, tuple[int, ...]]
) -> tuple[Shapes, Shapes, list[str]]:
    """Shapes of one row that the model takes, of its outputs, and what had to be tried for them."""
    reason = ""
    for sizes in _candidates(inputs, shape):
        shapes = row_shapes(inputs, sizes, 1)
        try:
            seen = run(shapes)
        except Exception as error:  # whatever a model says to a wrong size
            reason = reason or first_line(error)
            continue
        return shapes, seen, _tried(inputs, shapes, shape)
    hint = " x ".join(spec.name for spec in inputs if _open_axes(spec)) or "its inputs"
    raise ModelError(
        f"the model ran with none of the sizes tried "
        f"({hint}: --shape NAME=D1,D2, or --batch-axis NAME=K): {reason}"
    )


def _candidates(
    inputs: Sequence[TensorSpec], shape: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Sizes per input to try: what the user gave, else the same size for all, else pairs."""
    given = {s.name: _given_sizes(s, shape[s.name]) for s in inputs if s.name in shape}
    open_inputs = [s for s in inputs if s.name not in shape and _open_axes(s)]
    if not open_inputs:
        yield given
        return
    for size in SIZES:
        yield given | {s.name: (size,) * len(_open_axes(s)) for s in open_inputs}
    for pair in PAIRS:
        yield given | {s.name: pair for s in open_inputs}


def _given_sizes(spec: TensorSpec, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The open sizes out of a --shape, which gives all of a tensor's or the open ones alone."""
    axes = _open_axes(spec)
    if len(sizes) == len(spec.dims):
        return tuple(sizes[axis] for axis in axes)
    if len(sizes) == len(axes):
        return sizes
    raise ModelError(
        f"--shape {spec.name}: give {len(spec.dims)} sizes, batch axis included; got {len(sizes)}"
    )


def _tried(
    inputs: Sequence[TensorSpec], shapes: Shapes, shape: Mapping[str, tuple[int, ...]]
) -> list[str]:
    return [
        f"input {spec.name!r} has symbolic dimensions; {list(found)} ran (--shape {spec.name}=… "
        "for others)"
        for spec, found in zip(inputs, shapes, strict=True)
        if _open_axes(spec) and spec.name not in shape
    ]


def _grown(
    inputs: Sequence[TensorSpec], one_row: Shapes, run: Run
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Output shapes at two and three rows: numbers that a fixed size is unlikely to imitate."""

    def at(rows: int) -> Shapes:
        return run(
            [
                tuple(rows if axis == spec.batch_axis else size for axis, size in enumerate(shape))
                for spec, shape in zip(inputs, one_row, strict=True)
            ]
        )

    return iter(zip(at(2), at(3), strict=True))


def _output_axis(two: tuple[int, ...], three: tuple[int, ...]) -> int:
    """The one axis that is 2 with two rows and 3 with three; -1 if there is none."""
    if len(two) != len(three):
        return -1
    changed = [
        axis for axis, sizes in enumerate(zip(two, three, strict=True)) if sizes[0] != sizes[1]
    ]
    grows = len(changed) == 1 and (two[changed[0]], three[changed[0]]) == (2, 3)
    return changed[0] if grows else -1


def _as_seen(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """Open where it comes out otherwise than declared: some models declare no dims, or wrong ones."""
    dims = spec.dims if len(spec.dims) == len(shape) else ("",) * len(shape)
    pairs = zip(dims, shape, strict=True)
    return replace(
        spec, dims=tuple(dim if isinstance(dim, str) or dim == size else "" for dim, size in pairs)
    )


def _with_axis(spec: TensorSpec, axis: int, override: Mapping[str, int]) -> TensorSpec:
    axis = override.get(spec.name, axis)
    if not -1 <= axis < len(spec.dims):
        raise ModelError(f"--batch-axis {spec.name}={axis}: the tensor has {len(spec.dims)} axes")
    return replace(spec, batch_axis=axis)


def unbatchable(signature: Signature, why: str) -> Signature:
    """The same model taken one request at a time: no tensor keeps a batch axis."""
    single = Signature(
        tuple(replace(s, batch_axis=-1) for s in signature.inputs),
        tuple(replace(s, batch_axis=-1) for s in signature.outputs),
        batchable=False,
        notes=signature.notes,
    )
    return noted(single, f"served with batch 1: {why}")


def noted(signature: Signature, note: str) -> Signature:
    """The same with one more note."""
    return replace(signature, notes=(*signature.notes, note))


def _check_names(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    batch_axis: Mapping[str, int],
    shape: Mapping[str, tuple[int, ...]],
) -> None:
    taken = {"--batch-axis": (batch_axis, [*inputs, *outputs]), "--shape": (shape, inputs)}
    for option, (given, specs) in taken.items():
        known = [spec.name for spec in specs]
        if unknown := [name for name in given if name not in known]:
            raise ModelError(f"{option} {unknown[0]}: no such tensor; there are {', '.join(known)}")
