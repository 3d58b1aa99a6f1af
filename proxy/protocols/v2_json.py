"""The JSON of a V2 inference request, checked against a model's signature. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.json_text import parse
from dlbench.proxy.request import WantedOutput, all_outputs, lay_out

if TYPE_CHECKING:
    from dlbench.proxy.request import Layout
    from dlbench.proxy.tensors import Buffer, Signature, TensorSpec

# What an axis can be between us and a worker; only a tensor without elements could have more.
LARGEST_SIZE = 2**31 - 1
NS_PER_US = 1000
# An id is sent back: what comes in as a megabyte would go out as one.
LONGEST_ID = 1024
# A year: a longer deadline is a mistake in the unit.
LONGEST_TIMEOUT_US = 365 * 86_400 * 1_000_000
# What V2's extensions in Triton would answer otherwise: classes instead of values, tensors that lie
# elsewhere, a model that remembers. Triton's own reserved names begin with the prefix.
UNSUPPORTED = frozenset(
    (
        "classification",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "shared_memory_byte_size",
        "shared_memory_offset",
        "shared_memory_region",
    )
)
RESERVED_PREFIX = "triton_"


def load(text: Buffer) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        BadRequest: it is no JSON, or no object.
    """
    document = parse(text)
    if not isinstance(document, dict):
        raise BadRequest("the request's JSON must be an object")
    return document


class DocumentReader:
    """Finds inputs, wanted outputs and parameters in documents for one model."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._input_index = {spec.name: i for i, spec in enumerate(signature.inputs)}
        self._output_index = {spec.name: i for i, spec in enumerate(signature.outputs)}

    def inputs(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """The described inputs; none of the model's is missing."""
        given = document.get("inputs")
        if not isinstance(given, list) or not all(isinstance(g, dict) for g in given):
            raise BadRequest("'inputs' must be a list of tensors")
        names = [g.get("name") for g in given]
        for spec in self._signature.inputs:
            if spec.name not in names:
                raise BadRequest(f"input {spec.name!r} is missing")
        return given

    def tensor(self, given: dict[str, Any], found: dict[int, Any]) -> tuple[int, tuple[int, ...]]:
        """Which input a described tensor is, and its shape; `found` holds those before it."""
        name = given.get("name")
        index = self._input_index.get(name) if isinstance(name, str) else None
        _parameters(given)
        if index is None:
            raise BadRequest(
                f"the model has no input {name!r}; it has {', '.join(self._input_index)}"
            )
        if index in found:
            raise BadRequest(f"input {name!r} is given twice")
        spec = self._signature.inputs[index]
        if given.get("datatype") != spec.datatype:
            raise BadRequest(f"input {name!r} is {spec.datatype}, not {given.get('datatype')}")
        return index, _shape(spec, given.get("shape"))

    def binary_size(self, given: dict[str, Any]) -> int | None:
        """Bytes that a tensor takes behind the JSON; None if it is written out in it."""
        size = _parameters(given).get("binary_data_size")
        if size is None:
            return None
        if type(size) is not int or size < 0:
            raise BadRequest(
                f"input {given.get('name')!r}: binary_data_size must be a number of bytes"
            )
        return size

    def check_size(self, index: int, shape: tuple[int, ...], size: int) -> None:
        """Check that a tensor of this shape takes exactly the declared bytes."""
        spec = self._signature.inputs[index]
        if size != spec.byte_size(shape):
            raise BadRequest(
                f"input {spec.name!r} of shape {list(shape)} takes {spec.byte_size(shape)} bytes, "
                f"binary_data_size says {size}"
            )

    def layout(self, document: dict[str, Any], shapes: tuple[tuple[int, ...], ...]) -> Layout:
        """What the document asks for, for inputs of these shapes."""
        parameters = _parameters(document)
        return lay_out(
            self._signature,
            shapes,
            self._wanted(document, every_binary=_flag(parameters, "binary_data_output", False)),
            _id(document),
            _count(parameters, "priority", 2**31),
            _count(parameters, "timeout", LONGEST_TIMEOUT_US) * NS_PER_US,
        )

    def _wanted(self, document: dict[str, Any], *, every_binary: bool) -> tuple[WantedOutput, ...]:
        outputs = document.get("outputs")
        if not outputs:
            return all_outputs(self._signature, binary=every_binary)
        if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
            raise BadRequest("'outputs' must be a list of objects")
        enough = outputs[: len(self._output_index) + 1]  # of more, one is unknown or there twice
        found = tuple(self._wanted_output(output, every_binary) for output in enough)
        indexes = [wanted.place for wanted in found]
        if twice := [i for i in set(indexes) if indexes.count(i) > 1]:
            raise BadRequest(
                f"output {self._signature.outputs[twice[0]].name!r} is requested twice"
            )
        return found

    def _wanted_output(self, output: dict[str, Any], every_binary: bool) -> WantedOutput:
        name = output.get("name")
        index = self._output_index.get(name) if isinstance(name, str) else None
        if index is None:
            raise BadRequest(
                f"the model has no output {name!r}; it has {', '.join(self._output_index)}"
            )
        binary = _flag(_parameters(output), "binary_data", every_binary)
        return WantedOutput(index, binary)


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request or a tensor. 0, false and "" are how Triton says "not meant".

    Raises:
        BadRequest: one of them would change what the reply means, and is not supported.
    """
    parameters = of.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("'parameters' must be an object")
    for name, value in parameters.items():
        if value and (name in UNSUPPORTED or name.startswith(RESERVED_PREFIX)):
            raise BadRequest(f"parameter {name!r} is not supported")
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"parameter {name!r} must be true or false")
    return value


def _count(parameters: dict[str, Any], name: str, most: int) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise BadRequest(f"parameter {name!r} must be an integer from 0 to {most}")
    return value


def _id(document: dict[str, Any]) -> str | None:
    found = document.get("id")
    if found is not None and not isinstance(found, str):
        raise BadRequest("'id' must be a string")
    if found is not None and len(found) > LONGEST_ID:
        raise BadRequest(f"'id' may have at most {LONGEST_ID} characters, not {len(found)}")
    return found


def _shape(spec: TensorSpec, shape: Any) -> tuple[int, ...]:  # noqa: ANN401 - from JSON
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise BadRequest(f"input {spec.name!r} needs a shape: a list of integers")
    if any(size > LARGEST_SIZE for size in shape):
        raise BadRequest(f"input {spec.name!r}: no axis may be over {LARGEST_SIZE}")
    fitted = spec.fitted(shape)
    if fitted is None:
        raise BadRequest(f"input {spec.name!r} has shape {spec.shape}, not {shape}")
    return fitted
