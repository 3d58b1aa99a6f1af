"""Image files as a model's input: decoded with Pillow where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.loadgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dlbench.loadgen.tensors import TensorSpec

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
# Pillow's name for an image of so many channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(file: Path, specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """The model's only input from an image: its size and layout, floats from 0 to 1.

    Raises DataError: no Pillow, no image, or an input that is none.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError(f"{file}: images need Pillow (pip install pillow)") from None
    (spec, (height, width, channels), first) = _layout(specs)
    try:
        with Image.open(file) as image:
            resized = image.convert(MODES[channels]).resize((width, height))
    except OSError as error:
        raise DataError(f"{file} is not an image: {error}") from None
    pixels = np.asarray(resized).reshape(height, width, channels)
    pixels = np.moveaxis(pixels, -1, 0) if first else pixels
    scaled = pixels / 255 if spec.datatype.startswith("FP") else pixels
    return {spec.name: np.ascontiguousarray(scaled.reshape(spec.row_shape), spec.dtype)}


def _layout(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, tuple[int, int, int], bool]:
    """The input, (height, width, channels), and whether the channels come first (NCHW)."""
    spec, *others = specs
    sizes = spec.row_shape
    if len(sizes) == 4 and sizes[0] == 1:
        sizes = sizes[1:]
    if others or len(sizes) != 3 or min(sizes) < 1:
        raise DataError(
            "images need a model with one input of known height and width (--shape NAME=D1,D2,D3); "
            f"this one takes {', '.join(f'{s.name}{list(s.shape)}' for s in specs)}"
        )
    if sizes[0] in MODES:
        return spec, (sizes[1], sizes[2], sizes[0]), True
    if sizes[2] in MODES:
        return spec, (sizes[0], sizes[1], sizes[2]), False
    raise DataError(f"input {spec.name!r} of shape {list(spec.shape)} is not an image")
