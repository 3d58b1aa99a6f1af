"""Inputs as whole tensors by name, outputs likewise: the column format of plain JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.json_reply import json_value
from dlbench.proxy.protocols.json_tensors import read_nested, write_nested
from dlbench.proxy.request import all_outputs, lay_out, make_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.request import InferRequest, Outputs
    from dlbench.proxy.tensors import Signature, TensorSpec


def read_columns(signature: Signature, given: Any) -> list[NDArray[Any]]:  # noqa: ANN401 - from JSON
    """The inputs' values in the signature's order; a model with one input takes them without a name.

    Raises:
        BadRequest: an input is missing, unknown, or not numbers that it takes.
    """
    named = by_name(signature, given)
    return [read_nested(spec, named[spec.name]) for spec in signature.inputs]


def by_name(signature: Signature, given: Any) -> Mapping[str, Any]:  # noqa: ANN401 - from JSON
    """Values by the names of all inputs.

    Raises:
        BadRequest: an input is missing or unknown.
    """
    names = [spec.name for spec in signature.inputs]
    if not isinstance(given, dict):
        if len(names) > 1:
            raise BadRequest(f"the model has several inputs; name them: {', '.join(names)}")
        return {names[0]: given}
    if missing := [name for name in names if name not in given]:
        raise BadRequest(f"input {missing[0]!r} is missing")
    if unknown := [name for name in given if name not in names]:
        raise BadRequest(f"the model has no input {unknown[0]!r}; it has {', '.join(names)}")
    return given


def request_of(signature: Signature, arrays: Sequence[NDArray[Any]]) -> InferRequest:
    """A request for all outputs, from the inputs in the signature's order.

    Raises:
        BadRequest: a shape is not the signature's, or the batch sizes differ.
    """
    shapes = tuple(_shape(*pair) for pair in zip(signature.inputs, arrays, strict=True))
    layout = lay_out(signature, shapes, all_outputs(signature, binary=False))
    return make_request(signature, layout, tuple(array.tobytes() for array in arrays))


def _shape(spec: TensorSpec, array: NDArray[Any]) -> tuple[int, ...]:
    fitted = spec.fitted(array.shape)
    if fitted is None:
        raise BadRequest(f"input {spec.name!r} has shape {spec.shape}, not {[*array.shape]}")
    return fitted


def write_columns(signature: Signature, outputs: Outputs) -> dict[str, Any]:
    """Output name -> its values as JSON can hold them."""
    return {
        spec.name: json_value(write_nested(spec, tensor))
        for spec, tensor in zip(signature.outputs, outputs, strict=True)
    }


def unwrapped(named: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """The bare value if there is only one name."""
    return next(iter(named.values())) if len(named) == 1 else named
