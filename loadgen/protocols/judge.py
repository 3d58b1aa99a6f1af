"""Whether an answer, a reply with a status of 2xx, is a right one: its shape, and its values where they are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs.inputs import read_rows, specs_of
from dlbench.loadgen.protocols.answer import WRONG_OUTPUT, WRONG_SHAPE, BadAnswer
from dlbench.loadgen.protocols.plain import document
from dlbench.loadgen.protocols.table import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.answer import Answer
    from dlbench.loadgen.protocols.payloads import Requests
    from dlbench.loadgen.target import Target
    from dlbench.loadgen.tensors import TensorSpec

# What two JSON replies of one look differ in: the digits of their numbers.
DIGITS = b"0123456789.-+eE"
# Looks remembered: replies of more kinds than this are parsed.
LOOKS_LIMIT = 64
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
Outline = tuple[Any, ...]


class Judge(Protocol):
    """Says what is wrong with a reply; called after its time was taken."""

    def __call__(self, body: bytes, number: int) -> str:
        """Empty for a right reply to this request, else the kind of error."""
        ...


def judge_of(target: Target, profile: LoadProfile, requests: Requests) -> Judge:
    """The judge for a load. Raises DataError for expected outputs that cannot be read."""
    read = PROTOCOLS[target.protocol].read
    shapes: Shapes | Outlines | NoShapes = NoShapes()
    if target.outputs:
        shapes = Shapes(target.outputs, lambda body: read(body, target))
    elif target.protocol in ("torchserve", "plain"):
        shapes = Outlines(are_alike=profile.data is None)
    if profile.check is None:
        return shapes
    expected = read_expected(Path(profile.check), target.outputs)
    return Checked(shapes, lambda body: read(body, target), expected, requests)


def read_expected(path: Path, outputs: Sequence[TensorSpec]) -> Sequence[Row]:
    """Expected outputs, row by row. Raises DataError."""
    expected = read_rows(path, outputs or specs_of(path))
    if not expected:
        raise DataError(f"{path} contains no expected outputs")
    return expected


class NoShapes:
    """Where nothing is known of the outputs, every reply is right."""

    def __call__(self, body: bytes, number: int) -> str:  # noqa: ARG002 - the interface
        return ""


class Shapes:
    """Replies have the outputs that the metadata names, each of its datatype and shape.

    A reply that looks like one that was right is not parsed again: one whose head (of V2 binary
    and of gRPC) was seen with this length, or one of JSON that differs in digits alone.
    """

    def __init__(self, outputs: Sequence[TensorSpec], read: AnswerReader) -> None:
        self._outputs, self._read = outputs, read
        self._heads: dict[bytes, int] = {}
        self._head_lengths: set[int] = set()
        self._skeletons: set[bytes] = set()

    def __call__(self, body: bytes, number: int) -> str:  # noqa: ARG002 - the interface
        for length in self._head_lengths:
            if self._heads.get(body[:length]) == len(body):
                return ""
        if self._skeletons and body.translate(None, DIGITS) in self._skeletons:
            return ""
        try:
            answer = self._read(body)
        except BadAnswer as bad:
            return str(bad)
        if not fits(answer.outputs, self._outputs):
            return WRONG_SHAPE
        self._remember(answer, body)
        return ""

    def _remember(self, answer: Answer, body: bytes) -> None:
        if len(self._heads) + len(self._skeletons) >= LOOKS_LIMIT:
            return
        if answer.head_length:
            self._heads[body[: answer.head_length]] = len(body)
            self._head_lengths.add(answer.head_length)
        elif body[:1] == b"{":
            self._skeletons.add(body.translate(None, DIGITS))


class Outlines:
    """Without metadata the first reply says how they look: keys, kinds and sizes of the JSON.

    A server that answers each request with nothing (204) is right as well. Given inputs may differ,
    and so may the replies to them (one row per object found, say): then JSON of the same kind at its
    top, and no object with an error alone, is all that can be asked.
    """

    def __init__(self, are_alike: bool) -> None:
        self._outline = outline if are_alike else _top
        self._first: Outline | None = None
        self._skeletons: set[bytes] = set()

    def __call__(self, body: bytes, number: int) -> str:  # noqa: ARG002 - the interface
        skeleton = body.translate(None, DIGITS)
        if skeleton in self._skeletons:
            return ""
        try:
            value = document(body) if body else None
        except BadAnswer as bad:
            return str(bad)
        found = self._outline(value)
        if is_error(value) or found != (self._first or found):
            return WRONG_SHAPE
        self._first = found
        if len(self._skeletons) < LOOKS_LIMIT:
            self._skeletons.add(skeleton)
        return ""


class Checked:
    """Every reply is parsed, and its values compared with those that its row expects."""

    def __init__(
        self, shapes: Judge, read: AnswerReader, expected: Sequence[Row], requests: Requests
    ) -> None:
        self._shapes, self._read = shapes, read
        self._expected, self._row = expected, requests.row

    def __call__(self, body: bytes, number: int) -> str:
        wrong = self._shapes(body, number)
        row = self._row(number)
        if wrong or not 0 <= row < len(self._expected):
            return wrong
        try:
            outputs = self._read(body).outputs
        except BadAnswer as bad:
            return str(bad)
        return "" if equals(outputs, self._expected[row]) else WRONG_OUTPUT


class AnswerReader(Protocol):
    """Understands a reply. Raises BadAnswer."""

    def __call__(self, body: bytes, /) -> Answer: ...


def fits(outputs: Row, specs: Sequence[TensorSpec]) -> bool:
    """Whether all outputs are there for one row; a size of -1 may be any."""
    return all(
        spec.name in outputs
        and outputs[spec.name].dtype == spec.dtype
        and len(outputs[spec.name].shape) == len(spec.shape)
        and all(
            size in (-1, got)
            for size, got in zip(spec.row_shape, outputs[spec.name].shape, strict=True)
        )
        for spec in specs
    )


def equals(outputs: Row, expected: Row) -> bool:
    """Whether the expected outputs are there; a lone one needs no name, and sizes of 1 no axis."""
    if len(outputs) == len(expected) == 1:
        outputs = dict(zip(expected, outputs.values(), strict=True))
    return all(name in outputs and _is_close(outputs[name], expected[name]) for name in expected)


def _is_close(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.size != expected.size:
        return False
    found, expected = found.ravel(), expected.ravel()
    if expected.dtype == object:
        return [_text(item) for item in found] == [_text(item) for item in expected]
    if expected.dtype.kind != "f" or found.dtype.kind not in "fiu":
        return bool(np.array_equal(found, expected))
    return np.allclose(
        found, expected, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True
    )


def _text(item: Any) -> Any:  # noqa: ANN401 - whatever a reply holds
    return item.encode() if isinstance(item, str) else item


def outline(value: Any) -> Outline:  # noqa: ANN401 - any JSON
    """Keys, kinds and sizes of a JSON value; of a list of objects or texts the length is free."""
    if isinstance(value, dict):
        return ("object", tuple(sorted((key, outline(part)) for key, part in value.items())))
    if isinstance(value, list):
        parts = [outline(part) for part in value]
        is_tensor = all(part[0] in ("number", "list") for part in parts)
        return ("list", len(parts) if is_tensor else 0, *sorted(set(parts)))
    return (KINDS.get(type(value), "number"),)


def is_error(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether it says what went wrong, and nothing else."""
    return isinstance(value, dict) and set(value) in ERRORS


def _top(value: Any) -> Outline:  # noqa: ANN401 - any JSON
    return outline(value)[:1]


KINDS = {str: "text", bool: "bool", type(None): "null"}
# Keys of an error: of most servers, of TorchServe's, of FastAPI's.
ERRORS = ({"error"}, {"code", "type", "message"}, {"detail"})
