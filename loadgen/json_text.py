"""JSON with NaN and infinity in it: orjson's speed for nearly all, the standard library for those."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

if TYPE_CHECKING:
    from numpy.typing import NDArray


def parse(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """What the text says; NaN, Infinity and -Infinity are themselves. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
    try:
        return json.loads(text.decode())
    except RecursionError as error:
        raise ValueError(str(error)) from None


def numbers(data: Any, dtype: np.dtype[np.generic]) -> NDArray[Any]:  # noqa: ANN401 - any JSON
    """An array of JSON's numbers. Raises ValueError for null, of which NumPy makes NaN."""
    array = np.array(data, dtype)
    if array.dtype.kind == "f" and np.isnan(array).any() and np.array(data).dtype.kind == "O":
        raise ValueError("null is not a number")
    return array
