"""JSON values to a tensor's bytes and back. Pure; every protocol that writes numbers out uses it."""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.json_reply import AT_ONCE_BYTES, widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Tensor, TensorSpec

# What data may hold, in lists in lists.
LEAVES = {bool, int, float}
# Kinds of JSON values (NumPy's letters) that a tensor's kind takes: an integer may stand for a
# float, nothing else for anything else.
TAKES = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}
# The letters of Python's types, and how JSON writes what they hold.
LETTERS = {bool: "b", int: "i", float: "f", str: "U", type(None): "O", dict: "O"}
WRITTEN = {
    type(None): "null",
    bool: "true or false",
    str: "a string",
    dict: "an object",
    float: "a float",
    int: "an integer",
}
WORDS = "; NaN, Infinity and -Infinity are written so, without quotes"


def pack(
    spec: TensorSpec,
    data: Any,  # noqa: ANN401 - from JSON
    shape: Sequence[int],
    *,
    booleans: bool = True,
) -> bytes:
    """Values of a tensor of this shape, nested or flat, as little-endian bytes.

    Without `booleans` it is known that there is no true or false among them.

    Raises:
        BadRequest: values of another kind or number, or one that the datatype cannot hold.
    """
    array = read_nested(spec, data, booleans=booleans)
    if array.size != prod(shape):
        raise BadRequest(
            f"input {spec.name!r} of shape {list(shape)} needs {prod(shape)} values, not {array.size}"
        )
    return array.tobytes()


def read_nested(
    spec: TensorSpec,
    data: Any,  # noqa: ANN401 - from JSON
    *,
    booleans: bool = True,
) -> NDArray[Any]:
    """Values in the tensor's datatype, little-endian, in the shape of their nesting.

    Without `booleans` it is known that there is no true or false among them.

    Raises:
        BadRequest: values of another kind, nested unevenly, or one that the datatype cannot hold.
    """
    wanted = np.dtype(spec.numpy_type).newbyteorder("<")
    _check_leaves(spec, data)
    try:
        values = _values(spec, data)
        kind = values.dtype.kind
        if values.size and (
            kind not in TAKES[wanted.kind] or (booleans and _hides_booleans(values, data))
        ):
            raise _wrong_kind(spec, data)
        with np.errstate(over="ignore"):
            array = values.astype(wanted)
    except (ValueError, TypeError):
        raise BadRequest(
            f"input {spec.name!r}: data has to be numbers, nested evenly or flat"
        ) from None
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
    """Only numbers and booleans are shown to NumPy, which gives every text the room of the longest."""
    level = [data]
    while (types := set(map(type, level))) == {list}:
        level = list(chain.from_iterable(level))
    if list in types:
        raise BadRequest(f"input {spec.name!r}: data has to be numbers, nested evenly or flat")
    if not types <= LEAVES:
        raise BadRequest(f"input {spec.name!r} is {spec.datatype}; its data is not")


def _values(spec: TensorSpec, data: Any) -> NDArray[Any]:  # noqa: ANN401 - from JSON
    values = np.asarray(data)
    if spec.datatype == "UINT64" and values.dtype.kind == "f":
        # NumPy takes small and very large integers together for floats; exactly they are objects.
        exact = np.asarray(data, dtype=object)
        if all(type(value) is int for value in exact.flat):
            return exact.astype(np.uint64)
    return values


def _hides_booleans(values: NDArray[Any], data: Any) -> bool:  # noqa: ANN401 - from JSON
    """Whether true or false, of which NumPy makes 1 or 0 among numbers, is somewhere in the data."""
    if values.dtype.kind == "b" or not ((values == 0) | (values == 1)).any():
        return False
    return bool in _types(data)


def _types(data: Any) -> set[type]:  # noqa: ANN401 - from JSON
    """The types of what lies in nested lists."""
    found: set[type] = set()
    level = [data]
    while level:
        types = set(map(type, level))
        found |= types
        level = list(chain.from_iterable(part for part in level if type(part) is list))
    return found - {list}


def _fits(array: NDArray[Any], values: NDArray[Any]) -> bool:
    """Whether the conversion from what JSON said kept every integer, and left finite floats finite."""
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        return bool(finite.all() or (finite == np.isfinite(values)).all())
    return array.dtype.kind == "b" or not (array != values).any()


def _wrong_kind(spec: TensorSpec, data: Any) -> BadRequest:  # noqa: ANN401 - from JSON
    takes = TAKES[np.dtype(spec.numpy_type).kind]
    found = _types(data)
    wrong = [kind for kind in WRITTEN if kind in found and LETTERS[kind] not in takes]
    if not wrong:  # integers, too large for NumPy to take together
        return _does_not_fit(spec)
    hint = WORDS if "f" in takes and wrong[0] in (str, type(None)) else ""
    return BadRequest(
        f"input {spec.name!r} is {spec.datatype}; its data holds {WRITTEN[wrong[0]]}{hint}"
    )


def _does_not_fit(spec: TensorSpec) -> BadRequest:
    return BadRequest(f"input {spec.name!r}: a value does not fit {spec.datatype}")
