"""Sizes for the symbolic dimensions that are not the batch: as stated, or likely ones to try. Pure."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from dlbench.loadgen.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.loadgen.tensors import TensorSpec

# Tried in this order for symbolic dimensions that are not the batch. Likely sizes first, and those
# that nearly everything accepts last: a sequence of one token would run, and say nothing.
LENGTHS = ((128,), (256,), (512,), (64,), (32,), (16,), (576,), (1024,), (1,))
# (height, width): image models, text lines, fully convolutional ones.
AREAS = (
    *((224, 224), (48, 192), (256, 256), (640, 640), (48, 320), (32, 320), (32, 100)),
    *((128, 128), (64, 64), (32, 32), (480, 640), (512, 512), (1, 1)),
)


def as_stated(spec: TensorSpec, sizes: tuple[int, ...] | None) -> TensorSpec:
    """The spec with a person's sizes: all dimensions, or all but the batch. Raises TargetError."""
    if sizes is None:
        return spec
    if spec.batch_axis is not None and len(sizes) == len(spec.shape) - 1:
        sizes = (*sizes[: spec.batch_axis], -1, *sizes[spec.batch_axis :])
    fits = len(sizes) == len(spec.shape) and all(
        known in (-1, size) or axis == spec.batch_axis
        for axis, (known, size) in enumerate(zip(spec.shape, sizes, strict=True))
    )
    if not fits:
        raise TargetError(
            f"--shape {spec.name}={sizes} does not fit the model's {list(spec.shape)}"
        )
    merged = [
        known if axis == spec.batch_axis else size
        for axis, (known, size) in enumerate(zip(spec.shape, sizes, strict=True))
    ]
    return spec.model_copy(update={"shape": tuple(merged)})


def guesses(
    before: tuple[TensorSpec, ...], after: tuple[TensorSpec, ...]
) -> dict[str, tuple[int, ...]]:
    """The shape of one row of each input that had open dimensions besides the batch."""
    return {
        old.name: tuple(
            1 if axis == old.batch_axis else size for axis, size in enumerate(new.shape)
        )
        for old, new in zip(before, after, strict=True)
        if old.symbolic_axes
    }


def guess_notes(guessed: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """What to say wherever a figure rests on guesses."""
    return tuple(
        f"input {name!r} has symbolic dimensions; {list(shape)} is a guess, the first size that "
        f"ran; set yours with {shape_option(name, shape)}"
        for name, shape in guessed.items()
    )


def shape_option(name: str, shape: Sequence[int]) -> str:
    """The option that states a shape, as a shell takes it."""
    return f"--shape {quote(name + '=' + ','.join(map(str, shape)))}"


def candidates(specs: tuple[TensorSpec, ...]) -> tuple[tuple[int, ...], ...]:
    """Sizes to try, in order."""
    return AREAS if max(len(spec.symbolic_axes) for spec in specs) > 1 else LENGTHS


def filled(specs: tuple[TensorSpec, ...], sizes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    """Symbolic dimensions get the sizes in turn."""
    known = []
    for spec in specs:
        shape = list(spec.shape)
        for turn, axis in enumerate(spec.symbolic_axes):
            shape[axis] = sizes[turn % len(sizes)]
        known.append(spec.model_copy(update={"shape": tuple(shape)}))
    return tuple(known)
