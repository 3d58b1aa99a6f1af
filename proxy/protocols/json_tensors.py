"""JSON values to a tensor's bytes and back. Pure; every protocol that writes numbers out uses it."""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.json_reply import AT_ONCE_BYTES, widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Tensor, TensorSpec

# Kinds of JSON values (NumPy's letters) that a tensor's kind takes: an integer may stand for a
# float, nothing else for anything else.
TAKES = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}
# The letters of what data may hold in lists in lists, and how JSON writes it.
LETTERS = {bool: "b", int: "i", float: "f"}
WRITTEN = {
    type(None): "null",
    bool: "true or false",
    str: "a string",
    dict: "an object",
    float: "a float",
    int: "an integer",
}
WORDS = "; write NaN, Infinity and -Infinity without quotes"


def pack(spec: TensorSpec, data: Any, shape: Sequence[int]) -> bytes:  # noqa: ANN401 - from JSON
    """Values of a tensor of this shape, nested or flat, as little-endian bytes.

    Raises:
        BadRequest: values of another kind or number, or one that the datatype cannot hold.
    """
    array = read_nested(spec, data)
    if array.size != prod(shape):
        raise BadRequest(
            f"input {spec.name!r} of shape {list(shape)} needs {prod(shape)} values, not "
            f"{array.size}"
        )
    return array.tobytes()


def read_nested(spec: TensorSpec, data: Any) -> NDArray[Any]:  # noqa: ANN401 - from JSON
    """Values in the tensor's datatype, little-endian, in the shape of their nesting.

    Raises:
        BadRequest: values of another kind, nested unevenly, or one that the datatype cannot hold.
    """
    wanted = np.dtype(spec.numpy_type).newbyteorder("<")
    _check_leaves(spec, data)
    try:
        values = _values(spec, data)
        if values.size and values.dtype.kind not in TAKES[wanted.kind]:
            raise _does_not_fit(spec)
        with np.errstate(over="ignore"):
            array = values.astype(wanted)
    except (ValueError, TypeError):
        raise _uneven(spec) from None
    except OverflowError:
        raise _does_not_fit(spec) from None
    if not _fits(array, values):
        raise _does_not_fit(spec)
    return array


def unpack(spec: TensorSpec, tensor: Tensor) -> NDArray[Any]:
    """A tensor's values as a flat array for `json_reply`, which widens large ones piece by piece."""
    array = np.frombuffer(tensor.data, dtype=np.dtype(spec.numpy_type).newbyteorder("<"))
    return widened(array) if array.nbytes <= AT_ONCE_BYTES else array


def write_nested(spec: TensorSpec, tensor: Tensor) -> NDArray[Any]:
    """Like `unpack`, in the tensor's shape: lists in lists."""
    return unpack(spec, tensor).reshape(tensor.shape)


def _check_leaves(spec: TensorSpec, data: Any) -> None:  # noqa: ANN401 - from JSON
    """Only what the tensor takes is shown to NumPy.

    It makes 1 of true among numbers, and gives every text the room of the longest.
    """
    level = [data]
    while (types := set(map(type, level))) == {list}:
        level = list(chain.from_iterable(level))
    if list in types:
        raise _uneven(spec)
    takes = TAKES[np.dtype(spec.numpy_type).kind]
    wrong = [kind for kind in WRITTEN if kind in types and LETTERS.get(kind, "O") not in takes]
    if wrong:
        hint = WORDS if "f" in takes and wrong[0] in (str, type(None)) else ""
        raise BadRequest(
            f"input {spec.name!r} is {spec.datatype}; its data contains {WRITTEN[wrong[0]]}{hint}"
        )


def _values(spec: TensorSpec, data: Any) -> NDArray[Any]:  # noqa: ANN401 - from JSON
    values = np.asarray(data)
    if spec.datatype == "UINT64" and values.dtype.kind == "f":
        # NumPy takes small and very large integers together for floats; exactly they are objects.
        exact = np.asarray(data, dtype=object)
        if all(type(value) is int for value in exact.flat):
            return exact.astype(np.uint64)
    return values


def _fits(array: NDArray[Any], values: NDArray[Any]) -> bool:
    """Whether the conversion from what JSON said kept every integer, and left finite floats finite."""
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        return bool(finite.all() or (finite == np.isfinite(values)).all())
    return array.dtype.kind == "b" or not (array != values).any()


def _uneven(spec: TensorSpec) -> BadRequest:
    return BadRequest(f"input {spec.name!r}: data must be numbers, nested evenly or flat")


def _does_not_fit(spec: TensorSpec) -> BadRequest:
    return BadRequest(f"input {spec.name!r}: a value does not fit {spec.datatype}")
