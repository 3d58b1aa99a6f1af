"""What a reply says: the output tensors, and by which of its bytes another like it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRONG_SHAPE = "wrong_shape"
WRONG_OUTPUT = "wrong_output"
NOT_JSON = "not_json"
NOT_PROTOBUF = "not_protobuf"


class BadAnswer(Exception):
    """A wrong reply; its text is the kind of error that it counts as."""


@dataclass(frozen=True)
class Answer:
    """`head_length` bytes settle names, datatypes and shapes; 0: only the whole reply does."""

    outputs: dict[str, NDArray[Any]]
    head_length: int = 0
