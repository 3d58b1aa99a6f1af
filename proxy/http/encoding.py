"""Content codings: taking them off requests, putting them on replies. Bounded in work and memory."""

from __future__ import annotations

import re
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from dlbench.proxy.errors import BadEncoding, BadRequest, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# zlib's window bits: gzip, zlib ("deflate" as the standard has it).
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
# RFC 9110, 12.4.2. What is not a weight counts as none.
WEIGHT = re.compile(rb"q\s*=\s*([01](?:\.\d{0,3})?)")
# In the order of our liking, with the same window bits.
REPLY_CODINGS = {b"gzip": 31, b"deflate": 15}
# Codings on top of each other: each may blow up what the one above it left, a thousandfold.
MOST_CODINGS = 2
# Smaller replies fit a packet or two as they are.
PACKED_FROM = 1024
# Level 1 takes a fifth of the time of zlib's usual 6 and leaves JSON of floats 7 % larger.
LEVEL = 1
# The most that deflate makes of a byte.
LARGEST_RATIO = 1032
BROKEN_END = "the compressed body is corrupt: it ends too early or has trailing data"
# What is unpacked in one go: a whole body in one go is held twice while it grows.
PIECE = 256 * 1024
# Plain bytes that are packed or unpacked in about a millisecond. More would hold up everybody else.
AT_ONCE = 64 * 1024


def unpacked(body: bytes, encodings: bytes, limit: int) -> bytes:
    """The body with its content encodings taken off, last first; never more than `limit` bytes.

    Raises:
        BadEncoding: an unknown coding, or too many of them.
        BadRequest: the packed bytes are broken.
        TooLarge: it unpacks to more than `limit`.
    """
    listed = [name.strip().lower() for name in encodings.split(b",")]
    names = [name for name in listed if name not in (b"", b"identity")]
    if len(names) > MOST_CODINGS:
        raise BadEncoding(f"more than {MOST_CODINGS} nested content encodings")
    for name in reversed(names):
        body = _inflated(body, _window_bits(name), limit)
    return body


def accepted_coding(accept: bytes) -> bytes | None:
    """The preferred coding of an Accept-Encoding header among ours; None: send it uncompressed.

    RFC 9110, 12.5.3: `*` speaks for what is not named, and a weight of 0 means never.
    """
    if not accept:
        return None
    weights = dict(map(_weight, accept.lower().split(b",")))
    others = weights.get(b"*", 0.0)
    best = max(REPLY_CODINGS, key=lambda coding: weights.get(coding, others))
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


def packed(coding: bytes, body: Sequence[bytes | memoryview]) -> bytes:
    """The pieces of a body as one, in a coding of `REPLY_CODINGS`."""
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, REPLY_CODINGS[coding])
    return b"".join([*map(deflater.compress, body), deflater.flush()])


def packed_pieces(coding: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    """Like `packed`, for a body that comes piece by piece."""
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, REPLY_CODINGS[coding])
    yield from filter(None, map(deflater.compress, body))
    yield deflater.flush()


def worth_packing(headers: bytes) -> bool:
    """Whether a reply with these headers shrinks: text does, tensors of floats by 7 %."""
    return b"octet-stream" not in headers and b"content-encoding:" not in headers


def _weight(choice: bytes) -> tuple[bytes, float]:
    name, _, parameter = choice.partition(b";")
    found = WEIGHT.fullmatch(parameter.strip())
    return name.strip(), float(found[1]) if found else float(not parameter)


def _window_bits(name: bytes) -> int:
    bits = WINDOW_BITS.get(name)
    if bits is None:
        shown = name.decode(errors="replace")
        raise BadEncoding(f"content-encoding {shown} is not supported; use gzip or deflate")
    return bits


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    inflater, found = zlib.decompressobj(bits), BytesIO()
    try:
        for start in range(0, len(body), PIECE):
            rest, full = body[start : start + PIECE], True
            while (rest or full) and not inflater.eof:
                room = min(PIECE, limit + 1 - found.tell())
                full = found.write(inflater.decompress(rest, room)) == room
                rest = inflater.unconsumed_tail
                if found.tell() > limit:
                    raise TooLarge(f"the body decompresses to more than {limit} bytes")
            if inflater.eof and (inflater.unused_data or start + PIECE < len(body)):
                raise BadRequest(BROKEN_END)
    except zlib.error as error:
        raise BadRequest(f"the compressed body is corrupt: {error}") from None
    if not inflater.eof:
        raise BadRequest(BROKEN_END)
    return found.getvalue()
