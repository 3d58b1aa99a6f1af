"""The JSON of a body, NaN and infinity included, which orjson alone does not read. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from dlbench.proxy.errors import BadRequest

if TYPE_CHECKING:
    from dlbench.proxy.tensors import Buffer


def parse(text: Buffer) -> Any:  # noqa: ANN401 - any JSON
    """What the text says; NaN, Infinity and -Infinity stand for themselves, as in Python's json.

    Raises:
        BadRequest: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        whole = bytes(text)
        if b"NaN" not in whole and b"Infinity" not in whole:
            raise _broken(error) from None
    try:
        return _parse_words(whole)
    except (ValueError, RecursionError) as error:
        raise _broken(error) from None


def _parse_words(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Slower, by the standard library, which takes more than JSON: orjson judges all but the words."""
    orjson.loads(text.replace(b"NaN", b"0  ").replace(b"Infinity", b"0       "))
    return json.loads(text.decode(), parse_int=_number)


def _number(digits: str) -> int | float:
    """An integer as orjson gives it: one beyond 64 bits as a float."""
    value = int(digits)
    return value if -(2**63) <= value < 2**64 else float(value)


def _broken(error: Exception) -> BadRequest:
    return BadRequest(f"the request is not valid JSON: {error}")
